"""BOLT 3, appendix H: zero-fee commitments with their shared anchor and HTLC transactions, byte for byte."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import (
    P2A_SCRIPT,
    Transaction,
    TxOut,
    finalize_transaction,
    p2wpkh,
    parse_transaction,
    sighash_segwit_v0,
)
from leyden.commitment import (
    SHARED_ANCHOR_MAX,
    ChannelKeys,
    Commitment,
    CommitmentHtlc,
    CommitmentParams,
    Htlc,
    commitment_number,
    derive_private_key,
    funding_output,
    funding_witness,
    htlc_success_witness,
    htlc_timeout_witness,
    make_commitment,
)
from leyden.crypto import ecdsa_sign, pubkey_create
from leyden.types import BlockHeight, CltvDelta, FeeRatePerKw, Msat, OutPoint, Sat, Txid

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt03_zero_fee.json").read_text())
POINT = bytes.fromhex(DATA["point"])
OWNER = {name: bytes.fromhex(value) for name, value in DATA["owner_secrets"].items()}
OTHER = {name: bytes.fromhex(value) for name, value in DATA["other_secrets"].items()}
PREIMAGES = {bytes.fromhex(hash): bytes.fromhex(preimage) for hash, preimage in DATA["preimages"].items()}

every_case = pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: case["name"])


def _keys(secrets: dict[str, bytes], revocation: bytes) -> ChannelKeys:
    return ChannelKeys(
        funding_pubkey=pubkey_create(secrets["funding"]),
        revocation_basepoint=revocation,
        payment_basepoint=pubkey_create(secrets["payment"]),
        delayed_payment_basepoint=pubkey_create(secrets.get("delayed", secrets["payment"])),
        htlc_basepoint=pubkey_create(secrets["htlc"]),
    )


def build(case: dict[str, Any], feerate: int = 0) -> Commitment:
    funding, revocation = DATA["funding"], bytes.fromhex(DATA["revocation_basepoint"])
    params = CommitmentParams(
        anchors=False,
        zero_fee=True,
        funding_outpoint=OutPoint(Txid(bytes.fromhex(funding["txid"])[::-1]), funding["vout"]),
        funding_value=Sat(funding["sat"]),
        owner_keys=_keys(OWNER, revocation),
        other_keys=_keys(OTHER, revocation),
        owner_is_funder=True,
        to_self_delay=CltvDelta(DATA["to_self_delay"]),
        owner_dust_limit=Sat(case["dust_limit"]),
    )
    htlcs = [
        Htlc(
            offered_by_owner=htlc["offered"],
            amount_msat=Msat(htlc["msat"]),
            payment_hash=bytes.fromhex(htlc["hash"]),
            cltv_expiry=BlockHeight(htlc["expiry"]),
            id=htlc["id"],
        )
        for htlc in case["htlcs"]
    ]
    owner, other = case["balances_msat"]
    number: int = DATA["commitment_number"]
    return make_commitment(params, number, POINT, Msat(owner), Msat(other), htlcs, FeeRatePerKw(feerate))


def with_witness(tx: Transaction, witness: tuple[bytes, ...]) -> Transaction:
    return msgspec.structs.replace(tx, inputs=(msgspec.structs.replace(tx.inputs[0], witness=witness),))


def signed_second_stage(commitment: Commitment, entry: CommitmentHtlc) -> Transaction:
    digest = sighash_segwit_v0(entry.tx, 0, entry.script, entry.value)
    own = ecdsa_sign(derive_private_key(OWNER["htlc"], POINT), digest)
    peer = ecdsa_sign(derive_private_key(OTHER["htlc"], POINT), entry.sighash)
    if entry.htlc.offered_by_owner:
        witness = htlc_timeout_witness(peer, own, entry.script, anchors=False, zero_fee=True)
    else:
        preimage = PREIMAGES[entry.htlc.payment_hash]
        witness = htlc_success_witness(peer, own, preimage, entry.script, anchors=False, zero_fee=True)
    spent = TxOut(value=entry.value, script=commitment.outputs[entry.output_index].script)
    return finalize_transaction(with_witness(entry.tx, witness), [spent])


@pytest.mark.proves("C-112")
@every_case
def test_commitment_transaction(case: dict[str, Any]) -> None:
    commitment = build(case)
    keys = commitment.params.owner_keys.funding_pubkey, commitment.params.other_keys.funding_pubkey
    signatures = ecdsa_sign(OWNER["funding"], commitment.sighash), ecdsa_sign(OTHER["funding"], commitment.sighash)
    witness = funding_witness(keys[0], signatures[0], keys[1], signatures[1], commitment.funding_script)
    tx = finalize_transaction(with_witness(commitment.tx, witness), [funding_output(commitment.params)])
    assert tx.serialize().hex() == case["tx"]
    assert tx.txid == commitment.txid
    number = commitment_number(commitment.params, commitment.sequence, commitment.locktime)
    assert number == commitment.number == DATA["commitment_number"]


@pytest.mark.proves("C-112")
@every_case
def test_htlc_transactions(case: dict[str, Any]) -> None:
    commitment = build(case)
    signed = [(entry.htlc.offered_by_owner, signed_second_stage(commitment, entry)) for entry in commitment.htlcs]
    assert [tx.serialize().hex() for offered, tx in signed if offered] == case["timeout_txs"]
    assert [tx.serialize().hex() for offered, tx in signed if not offered] == case["success_txs"]
    assert len(signed) + len(commitment.trimmed) == len(case["htlcs"])
    for entry, (_, tx) in zip(commitment.htlcs, signed, strict=True):
        assert (tx.version, tx.inputs[0].sequence, tx.outputs[0].value) == (3, 0, entry.value)


@pytest.mark.proves("C-112")
@every_case
def test_the_shared_anchor_takes_the_first_of_what_is_left(case: dict[str, Any]) -> None:
    commitment = build(case)
    assert commitment.shared_anchor is not None
    anchor = commitment.tx.outputs[commitment.shared_anchor]
    left = DATA["funding"]["sat"] - sum(o.value for o in commitment.tx.outputs) + anchor.value
    assert anchor == TxOut(value=min(SHARED_ANCHOR_MAX, Sat(left)), script=P2A_SCRIPT)
    assert commitment.fee == left - anchor.value
    parsed = parse_transaction(bytes.fromhex(case["tx"]))
    assert sum(output.script == P2A_SCRIPT for output in parsed.outputs) == 1
    if commitment.to_remote is not None:
        assert commitment.tx.outputs[commitment.to_remote].script == p2wpkh(pubkey_create(OTHER["payment"]))


@pytest.mark.proves("C-112")
@every_case
def test_a_feerate_changes_nothing(case: dict[str, Any]) -> None:
    assert build(case, feerate=5000).tx.serialize() == build(case).tx.serialize()
