"""BOLT 3, fees and Appendix A, and BOLT 5, penalty weights: the agreed figures, kept by real transactions."""

import json
from pathlib import Path
from typing import Any

import pytest
from bolt03 import NUMBER, POINT, build, find_case, make_params
from leyden.commitment import (
    ANCHOR_VALUE,
    MAX_HTLCS_PER_SIDE,
    TO_LOCAL_PENALTY_INPUT_WEIGHT,
    TO_REMOTE_P2WPKH_INPUT_WEIGHT,
    Commitment,
    Htlc,
    Witness,
    commitment_fee,
    commitment_weight,
    funding_witness,
    htlc_penalty_witness,
    htlc_success_weight,
    htlc_success_witness,
    htlc_timeout_weight,
    htlc_timeout_witness,
    htlc_tx_fee,
    is_trimmed,
    make_commitment,
    offered_htlc_penalty_input_weight,
    p2wpkh_witness,
    received_htlc_penalty_input_weight,
    to_local_penalty_witness,
    trim_threshold,
)
from leyden.types import BlockHeight, FeeRatePerKw, Msat, Sat

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt03_weights.json").read_text())
# The largest DER signature: both numbers start with a set bit. High S, which a fee estimate allows for.
LONG_SIGNATURE = b"\xf0" + bytes(31) + b"\xf0" + bytes(31)
LOW_S_SIGNATURE = b"\xf0" + bytes(31) + b"\x70" + bytes(31)
INPUT = 41 * 4
SEGWIT_MARKER = 2
LATE = BlockHeight(10_000_000)
"""A height of four bytes in a script, as the agreed figures assume."""
both_types = pytest.mark.parametrize("anchors", [False, True], ids=["static_remotekey", "anchors"])


def column(anchors: bool) -> str:
    return "option_anchors" if anchors else "no_anchors"


def witness_size(witness: Witness) -> int:
    return 1 + sum(1 + len(item) for item in witness)


def commitment_with_late_htlcs(anchors: bool) -> Commitment:
    htlcs = [
        Htlc(offered_by_owner=offered, amount_msat=Msat(msat), payment_hash=bytes(32), cltv_expiry=LATE, id=msat)
        for offered, msat in ((True, 5_000_000), (False, 6_000_000))
    ]
    balances = Msat(6_000_000_000), Msat(3_000_000_000)
    return make_commitment(make_params(anchors), NUMBER, POINT, *balances, htlcs, FeeRatePerKw(253))


def example_htlcs(example: dict[str, Any]) -> list[Htlc]:
    amounts = [(True, msat) for msat in example["offered_htlcs_msat"]]
    amounts += [(False, msat) for msat in example["received_htlcs_msat"]]
    return [
        Htlc(
            offered_by_owner=offered,
            amount_msat=Msat(msat),
            payment_hash=bytes(32),
            cltv_expiry=BlockHeight(500),
            id=number,
        )
        for number, (offered, msat) in enumerate(amounts)
    ]


@both_types
def test_agreed_weights(anchors: bool) -> None:
    agreed = DATA["agreed_weights"]
    assert commitment_weight(anchors, 0) == agreed["commitment_base"][column(anchors)]
    assert commitment_weight(anchors, 7) - commitment_weight(anchors, 0) == 7 * agreed["per_untrimmed_htlc"]
    assert htlc_timeout_weight(anchors) == agreed["htlc_timeout"][column(anchors)]
    assert htlc_success_weight(anchors) == agreed["htlc_success"][column(anchors)]
    assert DATA["anchor_sat"] == ANCHOR_VALUE


@both_types
def test_commitments_weigh_what_was_agreed(anchors: bool) -> None:
    empty = build(anchors, find_case(anchors, "no HTLCs"))
    keys = empty.params.owner_keys.funding_pubkey, empty.params.other_keys.funding_pubkey
    witness = funding_witness(keys[0], LONG_SIGNATURE, keys[1], LONG_SIGNATURE, empty.funding_script)
    # With anchors the agreed figure allows three bytes for the number of outputs.
    allowance = 8 if anchors else 0
    assert empty.tx.weight + SEGWIT_MARKER + witness_size(witness) == commitment_weight(anchors, 0) - allowance
    full = build(anchors, find_case(anchors, "seven outputs"))
    assert full.tx.weight - empty.tx.weight == DATA["agreed_weights"]["per_untrimmed_htlc"] * 5
    assert len(empty.funding_script) == DATA["parts"]["multisig_script"]


@pytest.mark.proves("C-107")
@both_types
def test_htlc_transactions_weigh_what_was_agreed(anchors: bool) -> None:
    agreed, parts = DATA["agreed_weights"], DATA["parts"]
    offered, received = commitment_with_late_htlcs(anchors).htlcs
    assert offered.htlc.offered_by_owner
    assert not received.htlc.offered_by_owner
    timeout = htlc_timeout_witness(LONG_SIGNATURE, LONG_SIGNATURE, offered.script, anchors=anchors)
    success = htlc_success_witness(LONG_SIGNATURE, LONG_SIGNATURE, bytes(32), received.script, anchors=anchors)
    assert offered.tx.weight + SEGWIT_MARKER + witness_size(timeout) == agreed["htlc_timeout"][column(anchors)]
    assert received.tx.weight + SEGWIT_MARKER + witness_size(success) == agreed["htlc_success_exact"][column(anchors)]
    assert len(offered.script) == parts["offered_htlc_script"][column(anchors)]
    assert len(received.script) == parts["accepted_htlc_script"][column(anchors)]
    feerate = FeeRatePerKw(5000)
    assert htlc_tx_fee(anchors, feerate, True) == (0 if anchors else DATA["fee_example"]["htlc_timeout_fee_sat"])
    assert htlc_tx_fee(anchors, feerate, False) == (0 if anchors else DATA["fee_example"]["htlc_success_fee_sat"])


@both_types
def test_penalty_inputs_weigh_no_more_than_the_figures(anchors: bool) -> None:
    figures = DATA["penalty"]
    commitment = commitment_with_late_htlcs(anchors)
    offered, received = commitment.htlcs
    to_local = to_local_penalty_witness(LONG_SIGNATURE, commitment.to_local_script)
    # BOLT 5 is generous with the delay, counts an expiry of three bytes, and leaves out what anchors add to scripts.
    assert INPUT + witness_size(to_local) <= TO_LOCAL_PENALTY_INPUT_WEIGHT
    assert figures["input_weight"]["to_local_penalty"] == TO_LOCAL_PENALTY_INPUT_WEIGHT
    assert figures["to_remote_p2wpkh_input_weight"] == TO_REMOTE_P2WPKH_INPUT_WEIGHT
    assert INPUT + witness_size(p2wpkh_witness(LOW_S_SIGNATURE, POINT)) == TO_REMOTE_P2WPKH_INPUT_WEIGHT
    longer = 3 if anchors else 0
    wanted = offered_htlc_penalty_input_weight(anchors)
    assert INPUT + witness_size(htlc_penalty_witness(LONG_SIGNATURE, POINT, offered.script)) == wanted
    assert wanted == figures["input_weight"]["offered_htlc_penalty"] + longer
    wanted = received_htlc_penalty_input_weight(anchors)
    assert INPUT + witness_size(htlc_penalty_witness(LONG_SIGNATURE, POINT, received.script)) == wanted + 1
    assert wanted == figures["input_weight"]["accepted_htlc_penalty"] + longer
    assert figures["max_per_direction"] == MAX_HTLCS_PER_SIDE


@pytest.mark.proves("C-105", "C-106")
def test_worked_example() -> None:
    example = DATA["fee_example"]
    feerate, dust = FeeRatePerKw(example["feerate_per_kw"]), Sat(example["dust_limit_satoshis"])
    for key, offered in (("offered", True), ("received", False)):
        amounts = example[f"{key}_htlcs_msat"]
        untrimmed = [
            amount
            for amount in amounts
            if not is_trimmed(
                anchors=False, dust_limit=dust, feerate=feerate, offered_by_owner=offered, amount_msat=Msat(amount)
            )
        ]
        assert untrimmed == example["untrimmed"][f"{key}_msat"]
    assert commitment_weight(False, 2) == example["commitment_weight"]
    assert commitment_fee(False, feerate, 2) == example["base_fee_sat"]
    owner_msat, other_msat = Msat(6_986_200_000), Msat(3_000_000_000)
    commitment = make_commitment(
        make_params(False), NUMBER, POINT, owner_msat, other_msat, example_htlcs(example), feerate
    )
    assert commitment.fee == example["actual_fee_sat"]
    assert len(commitment.htlcs) == 2
    assert len(commitment.trimmed) == 2


@pytest.mark.proves("C-105")
@pytest.mark.parametrize("offered", [True, False])
@both_types
def test_trimming_at_the_boundary(anchors: bool, offered: bool) -> None:
    feerate, dust = FeeRatePerKw(2500), Sat(546)
    fee = htlc_tx_fee(anchors, feerate, offered)
    assert trim_threshold(anchors, dust, feerate, offered) == 546 + fee
    for amount, trimmed in ((546 + fee) * 1000, False), ((546 + fee) * 1000 - 1, True):
        assert trimmed is is_trimmed(
            anchors=anchors, dust_limit=dust, feerate=feerate, offered_by_owner=offered, amount_msat=Msat(amount)
        )
        htlc = Htlc(
            offered_by_owner=offered,
            amount_msat=Msat(amount),
            payment_hash=bytes(32),
            cltv_expiry=BlockHeight(500),
            id=0,
        )
        commitment = make_commitment(
            make_params(anchors), 0, POINT, Msat(5_000_000_000), Msat(4_000_000_000), (htlc,), feerate
        )
        assert len(commitment.trimmed) == trimmed
