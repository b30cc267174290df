"""Signature hashes of segwit version 0 and our deterministic signatures over them (BIP 143)."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import (
    SIGHASH_ALL,
    SIGHASH_SINGLE_ANYONECANPAY,
    BitcoinError,
    Transaction,
    parse_transaction,
    sighash_segwit_v0,
)
from leyden.crypto import der_to_sig, ecdsa_sign, ecdsa_verify, pubkey_create, sig_to_der
from leyden.types import MAX_MONEY_SAT, Sat

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bip143.json").read_text())
CASES: list[dict[str, Any]] = DATA["cases"]


def _digest(case: dict[str, Any], tx: Transaction, index: int) -> bytes:
    return sighash_segwit_v0(tx, index, bytes.fromhex(case["script_code"]), Sat(case["value"]), case["hashtype"])


@pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])
def test_digest_and_signature(case: dict[str, Any]) -> None:
    digest = _digest(case, parse_transaction(bytes.fromhex(case["tx"])), case["index"])
    assert digest.hex() == case["digest"]
    secret = bytes.fromhex(case["secret"])
    signature = ecdsa_sign(secret, digest)
    assert sig_to_der(signature).hex() == case["signature"]
    assert der_to_sig(bytes.fromhex(case["signature"])) == signature
    assert ecdsa_verify(pubkey_create(secret), digest, signature)


def test_single_anyonecanpay_does_not_commit_to_the_position() -> None:
    first, second = (c for c in CASES if c["name"].startswith("SINGLE|ANYONECANPAY, "))
    tx = parse_transaction(bytes.fromhex(first["tx"]))
    swapped = Transaction(version=tx.version, inputs=tx.inputs[::-1], outputs=tx.outputs[::-1], locktime=tx.locktime)
    assert _digest(first, swapped, 1).hex() == first["digest"]
    assert _digest(second, swapped, 0).hex() == second["digest"]


def test_signed_transaction_round_trip() -> None:
    raw = bytes.fromhex(DATA["signed_p2wpkh"])
    tx = parse_transaction(raw)
    unsigned = parse_transaction(bytes.fromhex(CASES[0]["tx"]))
    assert tx.serialize() == raw
    assert [len(i.witness) for i in tx.inputs] == [0, 2]
    assert tx.outputs_hash == unsigned.outputs_hash
    assert tx.txid != tx.wtxid
    assert unsigned.txid == unsigned.wtxid
    assert tx.weight == 3 * len(tx.serialize_legacy()) + len(raw)
    assert tx.vsize == (tx.weight + 3) // 4


@pytest.mark.parametrize(
    ("index", "value", "hashtype"),
    [(-1, 0, SIGHASH_ALL), (1, 0, SIGHASH_ALL), (0, -1, SIGHASH_ALL), (0, MAX_MONEY_SAT + 1, SIGHASH_ALL), (0, 0, 256)],
)
def test_refused(index: int, value: int, hashtype: int) -> None:
    tx = parse_transaction(bytes.fromhex(CASES[-1]["tx"]))
    with pytest.raises(BitcoinError):
        sighash_segwit_v0(tx, index, b"", Sat(value), hashtype)


def test_what_each_type_leaves_open() -> None:
    tx = parse_transaction(bytes.fromhex(CASES[0]["tx"]))
    more = Transaction(version=2, inputs=tx.inputs[1:], outputs=(tx.outputs[1],), locktime=tx.locktime)
    other = Transaction(
        version=2, inputs=(tx.inputs[1], tx.inputs[0]), outputs=(tx.outputs[1], tx.outputs[0]), locktime=tx.locktime
    )
    value = Sat(1000)
    assert sighash_segwit_v0(more, 0, b"", value, SIGHASH_SINGLE_ANYONECANPAY) == sighash_segwit_v0(
        other, 0, b"", value, SIGHASH_SINGLE_ANYONECANPAY
    )
    assert sighash_segwit_v0(more, 0, b"", value) != sighash_segwit_v0(other, 0, b"", value)
