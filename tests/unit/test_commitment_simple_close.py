"""Simple close: the transaction, which shapes the closer offers, and which one the closee takes."""

from collections.abc import Iterable

import msgspec
import pytest
from commitment_kit import FUNDING_SAT, OTHER, OWNER, make_params
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from leyden.bitcoin import dust_limit, finalize_transaction, op_return, p2tr, p2wpkh, p2wsh
from leyden.commitment import (
    CloseShape,
    CommitmentError,
    SimpleClose,
    chosen_shape,
    closing_sighash,
    closing_weight,
    funding_output,
    funding_witness,
    make_commitment,
    make_simple_closing_tx,
    offered_shapes,
)
from leyden.crypto import ecdsa_sign, xonly_create
from leyden.types import FeeRatePerKw, Msat, RuleViolation, Sat
from leyden.types.rules import C_065

CLOSER_ONLY, CLOSEE_ONLY, BOTH = CloseShape
WPKH, TR, BURN = p2wpkh(b"\x02" * 20), p2tr(xonly_create(b"\x01" * 32)), op_return(b"gone for good")
PARAMS = make_params()


def close(
    closer_msat: int, closee_msat: int, *, fee: int = 1000, closer: bytes = WPKH, closee: bytes = TR, locktime: int = 0
) -> SimpleClose:
    return SimpleClose(
        funding_outpoint=PARAMS.funding_outpoint,
        closer_script=closer,
        closee_script=closee,
        closer_msat=Msat(closer_msat),
        closee_msat=Msat(closee_msat),
        fee=Sat(fee),
        locktime=locktime,
    )


def outputs(proposal: SimpleClose, shape: CloseShape) -> list[tuple[int, bytes]]:
    return [(output.value, output.script) for output in make_simple_closing_tx(proposal, shape).outputs]


@pytest.mark.proves("C-108")
def test_the_transaction() -> None:
    proposal = close(5_000_999, 9_000_001, locktime=800_000)
    tx = make_simple_closing_tx(proposal, BOTH)
    assert (tx.version, tx.locktime, len(tx.inputs)) == (2, 800_000, 1)
    assert tx.inputs[0].prevout == PARAMS.funding_outpoint
    assert tx.inputs[0].sequence == 0xFFFFFFFD
    assert outputs(proposal, BOTH) == [(4_000, WPKH), (9_000, TR)]
    assert outputs(proposal, CLOSER_ONLY) == [(4_000, WPKH)]
    assert outputs(proposal, CLOSEE_ONLY) == [(9_000, TR)]


@pytest.mark.proves("C-108")
def test_op_return_outputs_hold_nothing() -> None:
    assert outputs(close(5_000_000, 9_000_000, closer=BURN), BOTH) == [(0, BURN), (9_000, TR)]
    assert outputs(close(5_000_000, 9_000_000, closee=BURN), BOTH) == [(0, BURN), (4_000, WPKH)]


def test_outputs_are_ordered_by_value_then_script() -> None:
    assert outputs(close(10_000_000, 9_000_000), BOTH) == [(9_000, WPKH), (9_000, TR)]
    assert outputs(close(10_000_000, 9_000_000, closer=TR, closee=WPKH), BOTH) == [(9_000, WPKH), (9_000, TR)]
    assert outputs(close(11_000_000, 9_000_000), BOTH) == [(9_000, TR), (10_000, WPKH)]


OFFERS = [
    # closer has less: it never offers to be alone, and leaves out its own output as dust or if it likes
    (close(1_294_000, 9_000_000), False, [BOTH]),
    (close(1_293_999, 9_000_000), False, [CLOSEE_ONLY]),
    (close(1_000_000, 9_000_000), False, [CLOSEE_ONLY]),
    (close(5_000_000, 9_000_000), True, [CLOSEE_ONLY]),
    (close(5_000_000, 5_000_001), True, [CLOSEE_ONLY]),
    (close(5_000_000, 9_000_000, closer=BURN), True, [BOTH]),
    (close(1_000_000, 9_000_000, closer=BURN), False, [BOTH]),
    # closer has as much or more: its output stays, and the closee may leave out its own
    (close(5_000_000, 5_000_000), False, [CLOSER_ONLY, BOTH]),
    (close(5_000_000, 5_000_000), True, [CLOSER_ONLY, BOTH]),
    (close(9_000_000, 330_000), False, [CLOSER_ONLY, BOTH]),
    (close(9_000_000, 329_999), False, [CLOSER_ONLY]),
    (close(9_000_000, 0), False, [CLOSER_ONLY]),
    (close(9_000_000, 0, closee=BURN), False, [CLOSER_ONLY, BOTH]),
    (close(9_000_000, 8_000_000, fee=9_000, closer=BURN), False, [CLOSER_ONLY, BOTH]),
]


@pytest.mark.proves("C-064")
def test_what_the_closer_offers() -> None:
    for proposal, own_uneconomical, wanted in OFFERS:
        assert list(offered_shapes(proposal, own_uneconomical=own_uneconomical)) == wanted


def test_fees_that_cannot_be_paid_are_not_proposed() -> None:
    with pytest.raises(CommitmentError, match="more than the closer has"):
        offered_shapes(close(999_999, 9_000_000))
    with pytest.raises(CommitmentError, match="more than the closer has"):
        make_simple_closing_tx(close(999_999, 9_000_000), BOTH)
    offered_shapes(close(1_000_000, 9_000_000))


@pytest.mark.proves("C-064")
def test_a_fee_that_leaves_nothing_to_relay_is_not_proposed() -> None:
    with pytest.raises(CommitmentError, match="turns the larger output into dust"):
        offered_shapes(close(1_200_000, 200_000))
    with pytest.raises(CommitmentError, match="turns the larger output into dust"):
        offered_shapes(close(9_000_000, 8_000_000, fee=8_800))
    with pytest.raises(CommitmentError, match="its output is dust"):
        offered_shapes(close(100_000, 200_000, fee=0))


ALL = frozenset(CloseShape)
CHOICES = [
    # the closee's output is dust, or it would rather not have it
    (close(9_000_000, 329_999), ALL, False, CLOSER_ONLY),
    (close(9_000_000, 330_000), ALL, False, BOTH),
    (close(9_000_000, 5_000_000), ALL, True, CLOSER_ONLY),
    (close(9_000_000, 5_000_000, closee=BURN), ALL, True, BOTH),
    # it has more: it cannot give up its output
    (close(5_000_000, 9_000_000), {BOTH}, True, BOTH),
    (close(5_000_000, 9_000_000), {CLOSEE_ONLY}, True, CLOSEE_ONLY),
    # both outputs if that is offered
    (close(5_000_000, 9_000_000), {CLOSEE_ONLY, BOTH}, False, BOTH),
    (close(5_000_000, 9_000_000), {CLOSEE_ONLY}, False, CLOSEE_ONLY),
]


def test_what_the_closee_takes() -> None:
    for proposal, offered, own_uneconomical, wanted in CHOICES:
        assert chosen_shape(proposal, offered, own_uneconomical=own_uneconomical) is wanted


MISSING: list[tuple[SimpleClose, Iterable[CloseShape]]] = [
    (close(9_000_000, 329_999), [BOTH]),
    (close(9_000_000, 5_000_000), [CLOSER_ONLY]),
    (close(9_000_000, 5_000_000), []),
]


@pytest.mark.proves("C-065")
@pytest.mark.parametrize(("proposal", "offered"), MISSING)
def test_a_missing_signature_breaks_the_rule(proposal: SimpleClose, offered: list[CloseShape]) -> None:
    with pytest.raises(RuleViolation) as caught:
        chosen_shape(proposal, offered)
    assert caught.value.rule is C_065


@pytest.mark.proves("C-065")
def test_a_fee_above_the_closers_balance_breaks_the_rule() -> None:
    assert chosen_shape(close(1_000_999, 9_000_000), [CLOSEE_ONLY]) is CLOSEE_ONLY
    with pytest.raises(RuleViolation) as caught:
        chosen_shape(close(999_999, 9_000_000), [CLOSEE_ONLY])
    assert caught.value.rule is C_065


scripts = st.sampled_from([WPKH, TR, p2wsh(b"\x51"), BURN])
balances = st.one_of(st.integers(0, 1_000_000), st.integers(0, FUNDING_SAT * 1000))


@settings(deadline=None, max_examples=300)
@given(balances, st.booleans(), st.integers(0, 3000), scripts, scripts, st.booleans(), st.booleans())
def test_what_is_offered_is_taken_and_can_be_relayed(
    less: int, closer_has_less: bool, fee: int, closer: bytes, closee: bytes, closer_gives: bool, closee_gives: bool
) -> None:
    more = FUNDING_SAT * 1000 - less
    closer_msat, closee_msat = (less, more) if closer_has_less else (more, less)
    assume(closer_msat // 1000 >= fee)
    proposal = close(closer_msat, closee_msat, fee=fee, closer=closer, closee=closee)
    try:
        offered = offered_shapes(proposal, own_uneconomical=closer_gives)
    except CommitmentError:
        return
    tx = make_simple_closing_tx(proposal, chosen_shape(proposal, offered, own_uneconomical=closee_gives))
    assert tx.outputs
    assert all(output.value >= dust_limit(output.script) for output in tx.outputs)
    assert sum(output.value for output in tx.outputs) <= FUNDING_SAT - fee
    assert tx.weight + 224 == closing_weight(*(output.script for output in tx.outputs))


@pytest.mark.parametrize("shape", CloseShape)
def test_both_signatures_spend_the_funding_output(shape: CloseShape) -> None:
    tx = make_simple_closing_tx(close(6_000_000_000, 4_000_000_000, fee=300, locktime=650_000), shape)
    script = make_commitment(PARAMS, 0, OWNER.point, Msat(0), Msat(0), (), FeeRatePerKw(0)).funding_script
    digest = closing_sighash(tx, script, PARAMS.funding_value)
    keys = OWNER.keys.funding_pubkey, OTHER.keys.funding_pubkey
    signatures = ecdsa_sign(OWNER.funding, digest), ecdsa_sign(OTHER.funding, digest)
    witness = funding_witness(keys[0], signatures[0], keys[1], signatures[1], script)
    signed = msgspec.structs.replace(tx, inputs=(msgspec.structs.replace(tx.inputs[0], witness=witness),))
    finalize_transaction(signed, [funding_output(PARAMS)])
