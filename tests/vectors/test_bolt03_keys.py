"""BOLT 3, appendix E: key derivation, public and private."""

import json
from pathlib import Path

import pytest
from leyden.commitment import (
    ChannelKeys,
    CommitmentKeys,
    KnownSecrets,
    derive_private_key,
    derive_public_key,
    derive_revocation_private_key,
    derive_revocation_public_key,
)
from leyden.crypto import point_add, point_tweak_mul, pubkey_create, sha256

DATA: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "data" / "bolt03_keys.json").read_text())


def value(group: str, name: str) -> bytes:
    return bytes.fromhex(DATA[group][name])


BASE_SECRET, BASE_POINT = value("base", "secret"), value("base", "point")
SECRET, POINT = value("commitment", "secret"), value("commitment", "point")


@pytest.mark.proves("C-109")
def test_public_and_private_key() -> None:
    assert derive_public_key(BASE_POINT, POINT) == value("key", "point")
    assert derive_private_key(BASE_SECRET, POINT) == value("key", "secret")
    assert derive_private_key(BASE_SECRET, POINT, basepoint=BASE_POINT) == value("key", "secret")


@pytest.mark.proves("C-109")
def test_revocation_pair() -> None:
    assert derive_revocation_public_key(BASE_POINT, POINT) == value("revocation", "point")
    assert derive_revocation_private_key(BASE_SECRET, SECRET) == value("revocation", "secret")
    assert pubkey_create(value("revocation", "secret")) == value("revocation", "point")


def test_intermediate_values() -> None:
    assert sha256(POINT + BASE_POINT) == value("intermediate", "key_tweak")
    assert sha256(BASE_POINT + POINT) == value("intermediate", "revocation_base_tweak")
    base_term = point_tweak_mul(BASE_POINT, value("intermediate", "revocation_base_tweak"))
    point_term = point_tweak_mul(POINT, value("intermediate", "key_tweak"))
    assert (base_term, point_term) == (value("intermediate", "base_term"), value("intermediate", "point_term"))
    assert point_add(base_term, point_term) == value("revocation", "point")


@pytest.mark.parametrize(
    "known",
    [
        None,
        KnownSecrets(),
        KnownSecrets(
            per_commitment_secret=SECRET, owner_delayed_base_secret=BASE_SECRET, owner_htlc_base_secret=BASE_SECRET
        ),
        KnownSecrets(other_revocation_base_secret=BASE_SECRET, other_htlc_base_secret=BASE_SECRET),
    ],
    ids=["lazy", "public", "owner", "other"],
)
def test_known_secrets_change_the_cost_and_not_the_keys(known: KnownSecrets | None) -> None:
    side = ChannelKeys(
        funding_pubkey=BASE_POINT,
        revocation_basepoint=BASE_POINT,
        payment_basepoint=BASE_POINT,
        delayed_payment_basepoint=BASE_POINT,
        htlc_basepoint=BASE_POINT,
    )
    keys = CommitmentKeys(side, side, POINT)
    if known is not None:
        keys.prepare(known)
    assert keys.revocation_pubkey == value("revocation", "point")
    assert {keys.owner_delayed_pubkey, keys.owner_htlc_pubkey, keys.other_htlc_pubkey} == {value("key", "point")}
    assert BASE_SECRET.hex() not in repr(known)
