"""Schnorr signatures: the vectors of BIP 340, and what the wrapper itself must refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from leyden.crypto import ORDER, CryptoError, point_tweak_add, pubkey_create, secret_negate
from leyden.crypto.schnorr import (
    NO_AUX,
    is_valid_xonly,
    schnorr_sign,
    schnorr_verify,
    xonly,
    xonly_create,
    xonly_tweak_add,
)

DATA = Path(__file__).parent / "data" / "bip340.json"
CASES: list[dict[str, Any]] = json.loads(DATA.read_text("utf-8"))["cases"]
SECRET = b"\x07" * 32
DIGEST = b"\x05" * 32

secrets = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
words = st.binary(min_size=32, max_size=32)


def unhex(case: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(case[name]) for name in names]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['index']} {case.get('what', '')}")
def test_bip340(case: dict[str, Any]) -> None:
    key, message, signature = unhex(case, "key", "message", "signature")
    if not is_valid_xonly(key):
        assert not case["valid"]
        with pytest.raises(CryptoError):
            schnorr_verify(key, message, signature)
        return
    assert schnorr_verify(key, message, signature) == case["valid"]
    if "secret" in case:
        secret, aux = unhex(case, "secret", "aux")
        assert xonly_create(secret) == key == xonly(pubkey_create(secret))
        assert schnorr_sign(secret, message, aux) == signature


@given(secrets, words, words)
def test_signs_what_it_verifies(secret: bytes, digest: bytes, aux: bytes) -> None:
    signature = schnorr_sign(secret, digest, aux)
    key = xonly_create(secret)
    assert schnorr_verify(key, digest, signature)
    assert schnorr_sign(secret_negate(secret), digest, aux) == signature, "both secrets of an x-only key sign alike"
    assert not schnorr_verify(key, bytes([digest[0] ^ 1]) + digest[1:], signature)
    assert not schnorr_verify(key, digest, signature[:-1] + bytes([signature[-1] ^ 1]))


@given(secrets, secrets)
def test_tweaks_the_point_of_even_y(secret: bytes, tweak: bytes) -> None:
    key = xonly_create(secret)
    assume(xonly_create(tweak) != key)  # the sum may be at infinity
    tweaked, parity = xonly_tweak_add(key, tweak)
    assert bytes([2 + parity]) + tweaked == point_tweak_add(b"\x02" + key, tweak)


def test_wrong_lengths() -> None:
    key = xonly_create(SECRET)
    signature = schnorr_sign(SECRET, DIGEST, NO_AUX)
    assert not schnorr_verify(key, DIGEST, signature[:-1])
    assert not schnorr_verify(key, DIGEST, signature + b"\0")
    assert not is_valid_xonly(key[1:])
    calls: list[Callable[[], object]] = [
        lambda: schnorr_sign(SECRET[1:], DIGEST, NO_AUX),
        lambda: schnorr_sign(SECRET, DIGEST[1:], NO_AUX),
        lambda: schnorr_sign(SECRET, DIGEST, NO_AUX[1:]),
        lambda: schnorr_sign(bytes(32), DIGEST, NO_AUX),
        lambda: schnorr_verify(key, DIGEST[1:], signature),
        lambda: schnorr_verify(key + b"\0", DIGEST, signature),
        lambda: xonly(key),
        lambda: xonly_tweak_add(key, b"\xff" * 32),
        lambda: xonly_tweak_add(key, b"\1"),
    ]
    for call in calls:
        with pytest.raises(CryptoError):
            call()
