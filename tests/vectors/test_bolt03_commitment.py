"""BOLT 3, appendices C (static_remotekey) and F (anchors): every transaction and signature, bit for bit."""

from typing import Any

import msgspec
import pytest
from bolt03 import DATA, NUMBER, PREIMAGES, SECRETS, all_cases, build, case_id, find_case, make_params
from leyden.bitcoin import Transaction, TxOut, finalize_transaction, parse_transaction, sighash_segwit_v0
from leyden.commitment import (
    Commitment,
    CommitmentHtlc,
    commitment_number,
    funding_output,
    funding_witness,
    htlc_success_witness,
    htlc_timeout_witness,
    obscure_factor,
    verify_commitment_signatures,
)
from leyden.crypto import der_to_sig, ecdsa_sign

every_case = pytest.mark.parametrize(("anchors", "case"), all_cases(), ids=case_id)


def with_witness(tx: Transaction, witness: tuple[bytes, ...]) -> Transaction:
    return msgspec.structs.replace(tx, inputs=(msgspec.structs.replace(tx.inputs[0], witness=witness),))


def signed_commitment(commitment: Commitment) -> Transaction:
    params = commitment.params
    witness = funding_witness(
        params.owner_keys.funding_pubkey,
        ecdsa_sign(SECRETS["owner_funding"], commitment.sighash),
        params.other_keys.funding_pubkey,
        ecdsa_sign(SECRETS["other_funding"], commitment.sighash),
        commitment.funding_script,
    )
    return finalize_transaction(with_witness(commitment.tx, witness), [funding_output(params)])


def signed_second_stage(commitment: Commitment, entry: CommitmentHtlc) -> Transaction:
    anchors = commitment.params.anchors
    own_digest = sighash_segwit_v0(entry.tx, 0, entry.script, entry.value)
    own = ecdsa_sign(SECRETS["owner_htlc"], own_digest)
    peer = ecdsa_sign(SECRETS["other_htlc"], entry.sighash)
    if entry.htlc.offered_by_owner:
        witness = htlc_timeout_witness(peer, own, entry.script, anchors=anchors)
    else:
        witness = htlc_success_witness(peer, own, PREIMAGES[entry.htlc.id], entry.script, anchors=anchors)
    output = commitment.outputs[entry.output_index]
    return finalize_transaction(with_witness(entry.tx, witness), [TxOut(value=entry.value, script=output.script)])


@pytest.mark.proves("C-101", "C-102", "C-103", "C-104", "C-105", "C-106", "C-109")
@every_case
def test_commitment_transaction(anchors: bool, case: dict[str, Any]) -> None:
    commitment = build(anchors, case)
    tx = signed_commitment(commitment)
    assert tx.serialize().hex() == case["tx"]
    assert ecdsa_sign(SECRETS["other_funding"], commitment.sighash) == der_to_sig(bytes.fromhex(case["peer_signature"]))
    assert commitment.txid == tx.txid
    assert commitment.sighash == sighash_segwit_v0(
        commitment.tx, 0, bytes.fromhex(DATA["funding"]["script"]), commitment.params.funding_value
    )


@pytest.mark.proves("C-101", "C-105", "C-107", "C-109")
@every_case
def test_htlc_transactions(anchors: bool, case: dict[str, Any]) -> None:
    commitment = build(anchors, case)
    assert [signed_second_stage(commitment, entry).serialize().hex() for entry in commitment.htlcs] == [
        stage["tx"] for stage in case["second_stage"]
    ]
    for entry, stage in zip(commitment.htlcs, case["second_stage"], strict=True):
        assert ecdsa_sign(SECRETS["other_htlc"], entry.sighash) == der_to_sig(bytes.fromhex(stage["peer_signature"]))
        if "htlc" in stage:
            assert (entry.htlc.id, entry.output_index) == (stage["htlc"], stage["vout"])


@pytest.mark.proves("C-087")
@every_case
def test_peer_signatures_are_taken_in_output_order(anchors: bool, case: dict[str, Any]) -> None:
    commitment = build(anchors, case)
    assert [entry.output_index for entry in commitment.htlcs] == sorted(
        entry.output_index for entry in commitment.htlcs
    )
    verify_commitment_signatures(
        commitment.params,
        commitment,
        der_to_sig(bytes.fromhex(case["peer_signature"])),
        [der_to_sig(bytes.fromhex(stage["peer_signature"])) for stage in case["second_stage"]],
    )


@every_case
def test_fees_and_outputs(anchors: bool, case: dict[str, Any]) -> None:
    commitment = build(anchors, case)
    parsed = parse_transaction(bytes.fromhex(case["tx"]))
    assert commitment.fee == DATA["funding"]["sat"] - sum(output.value for output in parsed.outputs)
    if "fee" in case:
        assert commitment.fee == case["fee"]
    scripts = {entry.output_index: entry.script for entry in commitment.htlcs}
    places = {"to_local": commitment.to_local, "to_remote": commitment.to_remote}
    for wanted in case.get("outputs", []):
        if "htlc" in wanted:
            entry = next(e for e in commitment.htlcs if e.htlc.id == wanted["htlc"])
            assert scripts[entry.output_index].hex() == wanted["script"]
            assert entry.htlc.offered_by_owner is (wanted["kind"] == "offered_htlc")
            assert entry.value == wanted["sat"]
        else:
            index = places[wanted["kind"]]
            assert index is not None
            assert commitment.outputs[index].value == wanted["sat"]
            if wanted["kind"] == "to_local":
                assert commitment.to_local_script.hex() == wanted["script"]
    assert len(commitment.htlcs) + len(commitment.trimmed) == len(case["htlcs"])


@pytest.mark.proves("C-102")
def test_number_is_hidden_and_found_again() -> None:
    params = make_params(True)
    assert obscure_factor(params) == int(DATA["obscure_factor"], 16)
    tx = parse_transaction(bytes.fromhex(find_case(True, "no HTLCs")["tx"]))
    assert commitment_number(params, tx.inputs[0].sequence, tx.locktime) == NUMBER
    ours = build(True, find_case(True, "no HTLCs"))
    assert commitment_number(params, ours.sequence, ours.locktime) == NUMBER
    assert (ours.sequence >> 24, ours.locktime >> 24) == (0x80, 0x20)


def test_keys_of_the_channel() -> None:
    commitment = build(True, find_case(True, "seven outputs"))
    keys, wanted = commitment.keys, DATA["derived"]
    assert keys.owner_htlc_pubkey.hex() == wanted["owner_htlc"]
    assert keys.other_htlc_pubkey.hex() == wanted["other_htlc"]
    assert keys.owner_delayed_pubkey.hex() == wanted["owner_delayed"]
    assert keys.revocation_pubkey.hex() == wanted["revocation"]
    assert commitment.funding_script.hex() == DATA["funding"]["script"]
