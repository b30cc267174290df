"""Commitments with arbitrary balances and HTLCs: sums, order, digests against the general BIP 143 code."""

import pytest
from commitment_kit import FUNDING_SAT, OTHER, OWNER, POINT, make_htlc, make_params
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from leyden.bitcoin import parse_transaction, sighash_segwit_v0
from leyden.commitment import (
    ANCHOR_VALUE,
    MAX_HTLCS_PER_SIDE_ZERO_FEE,
    SHARED_ANCHOR_MAX,
    CommitmentError,
    CommitmentParams,
    Htlc,
    KnownSecrets,
    commitment_number,
    commitment_weight,
    counterparty_sighash_type,
    derive_keys,
    make_commitment,
    trim_threshold,
)
from leyden.types import FeeRatePerKw, Msat

FUNDING_MSAT = FUNDING_SAT * 1000

htlc_lists = st.lists(
    st.tuples(
        st.booleans(),
        st.one_of(st.integers(1, 3_000_000), st.just(5_000_000), st.integers(1, 90_000_000)),
        st.integers(1, 5),
    ),
    max_size=12,
)


@st.composite
def commitments(draw: st.DrawFn) -> tuple[CommitmentParams, int, Msat, Msat, list[Htlc], FeeRatePerKw]:
    anchors, zero_fee = draw(st.sampled_from([(False, False), (True, False), (False, True)]))
    params = make_params(
        anchors=anchors,
        zero_fee=zero_fee,
        owner_is_funder=draw(st.booleans()),
        dust_limit=draw(st.sampled_from([354, 546, 3000])),
        delay=draw(st.sampled_from([0, 1, 16, 17, 127, 128, 144, 65535])),
    )
    htlcs = [
        make_htlc(id, offered=offered, amount_msat=amount, expiry=expiry * 100)
        for id, (offered, amount, expiry) in enumerate(draw(htlc_lists))
    ]
    left = FUNDING_MSAT - sum(htlc.amount_msat for htlc in htlcs)
    owner = draw(st.one_of(st.integers(0, 2_000_000), st.integers(0, left)))
    feerate = draw(st.integers(0, 50_000))
    number = draw(st.integers(0, 2**48 - 1))
    return params, number, Msat(owner), Msat(left - owner), htlcs, FeeRatePerKw(feerate)


@pytest.mark.proves("C-101", "C-102", "C-104", "C-105", "C-112")
@settings(deadline=None, max_examples=150)
@given(commitments())
def test_invariants(
    drawn: tuple[CommitmentParams, int, Msat, Msat, list[Htlc], FeeRatePerKw],
) -> None:
    params, number, owner_msat, other_msat, htlcs, feerate = drawn
    # Whoever cannot even pay the anchors must be stopped by the channel: such a transaction does not exist.
    assume(not params.anchors or (owner_msat if params.owner_is_funder else other_msat) >= 2 * ANCHOR_VALUE * 1000)
    commitment = make_commitment(params, number, POINT, owner_msat, other_msat, htlcs, feerate)
    tx = commitment.tx
    if tx.outputs:
        assert parse_transaction(tx.serialize()) == tx
    assert commitment.txid == tx.txid
    assert commitment.sighash == sighash_segwit_v0(tx, 0, commitment.funding_script, params.funding_value)
    assert commitment_number(params, commitment.sequence, commitment.locktime) == number

    # No satoshi appears or disappears, and nothing below the dust limit has an output of its own.
    assert commitment.fee == FUNDING_SAT - sum(output.value for output in tx.outputs)
    anchors = {commitment.owner_anchor, commitment.other_anchor} - {None}
    assert params.anchors or not anchors
    assert all(tx.outputs[i].value == ANCHOR_VALUE for i in anchors if i is not None)
    assert (commitment.shared_anchor is not None) == params.zero_fee
    assert tx.version == (3 if params.zero_fee else 2)
    if commitment.shared_anchor is not None:
        anchors.add(commitment.shared_anchor)
        assert 0 <= tx.outputs[commitment.shared_anchor].value <= SHARED_ANCHOR_MAX
        assert not commitment.fee or tx.outputs[commitment.shared_anchor].value == SHARED_ANCHOR_MAX
    assert all(o.value >= params.owner_dust_limit for i, o in enumerate(tx.outputs) if i not in anchors)
    if params.anchors:
        assert (commitment.owner_anchor is not None) == (bool(commitment.htlcs) or commitment.to_local is not None)
        assert (commitment.other_anchor is not None) == (bool(commitment.htlcs) or commitment.to_remote is not None)

    # Each HTLC is either an output or trimmed by the one rule.
    assert {e.htlc.id for e in commitment.htlcs} | {h.id for h in commitment.trimmed} == {h.id for h in htlcs}
    for htlc in htlcs:
        least = trim_threshold(
            params.anchors, params.owner_dust_limit, feerate, htlc.offered_by_owner, zero_fee=params.zero_fee
        )
        assert (htlc in commitment.trimmed) == (htlc.amount_msat // 1000 < least)

    order = [(o.value, o.script, o.cltv_expiry) for o in commitment.outputs]
    assert order == sorted(order)
    assert [e.output_index for e in commitment.htlcs] == sorted(e.output_index for e in commitment.htlcs)
    hashtype = counterparty_sighash_type(params.anchors, zero_fee=params.zero_fee)
    for entry in commitment.htlcs:
        assert tx.outputs[entry.output_index].value == entry.value == entry.htlc.amount_msat // 1000
        assert entry.tx.inputs[0].prevout == (commitment.txid, entry.output_index)
        assert entry.sighash == sighash_segwit_v0(entry.tx, 0, entry.script, entry.value, hashtype)
        assert entry.tx.outputs[0].value >= params.owner_dust_limit


@pytest.mark.proves("C-106")
@pytest.mark.parametrize("owner_is_funder", [True, False])
def test_the_funder_pays_even_what_it_does_not_have(owner_is_funder: bool) -> None:
    params = make_params(owner_is_funder=owner_is_funder)
    poor, rich = Msat(2_000_000), Msat(FUNDING_MSAT - 2_000_000)
    balances = (poor, rich) if owner_is_funder else (rich, poor)
    commitment = make_commitment(params, 0, POINT, *balances, (), FeeRatePerKw(2500))
    assert commitment.fee == 2000 - ANCHOR_VALUE
    assert [output.value for output in commitment.tx.outputs] == [ANCHOR_VALUE, rich // 1000]


def test_what_cannot_be_built_is_refused() -> None:
    params = make_params()
    for number, owner, other, words in (
        (2**48, 0, 0, "outside"),
        (-1, 0, 0, "outside"),
        (0, -1, 0, "negative"),
        (0, 0, FUNDING_MSAT + 1000, "more than the funding"),
    ):
        with pytest.raises(CommitmentError, match=words):
            make_commitment(params, number, POINT, Msat(owner), Msat(other), (), FeeRatePerKw(0))


def test_keys_are_shared_between_machine_and_signer() -> None:
    params = make_params()
    assert derive_keys(params, OTHER.point) is derive_keys(make_params(), OTHER.point)
    known = KnownSecrets(per_commitment_secret=OWNER.commitment, owner_delayed_base_secret=OWNER.delayed)
    prepared = derive_keys(params, OWNER.point, known)
    htlcs = (make_htlc(0, offered=True),)
    commitment = make_commitment(params, 0, OWNER.point, Msat(0), Msat(0), htlcs, FeeRatePerKw(0))
    assert commitment.keys is prepared


@pytest.mark.parametrize("kind", ["static_remotekey", "anchors", "zero_fee"])
@pytest.mark.parametrize("count", [248, 249, 250, 251, 252, 966])
def test_more_outputs_than_one_byte_counts(kind: str, count: int) -> None:
    htlcs = [make_htlc(id, offered=id % 2 == 0, amount_msat=2_000_000 + 1000 * id) for id in range(count)]
    params = make_params(anchors=kind == "anchors", zero_fee=kind == "zero_fee")
    commitment = make_commitment(params, 0, POINT, Msat(10**9), Msat(10**9), htlcs, FeeRatePerKw(253))
    assert len(commitment.htlcs) == count
    assert commitment.txid == commitment.tx.txid
    assert commitment.sighash == sighash_segwit_v0(commitment.tx, 0, commitment.funding_script, FUNDING_SAT)


def test_zero_fee_commitments_have_no_keyed_anchors() -> None:
    with pytest.raises(CommitmentError, match="no keyed anchors"):
        make_params(anchors=True, zero_fee=True)


def test_the_largest_zero_fee_commitment_fits_version_3() -> None:
    """Ten thousand virtual bytes, with every HTLC that both sides may add and the longest witness."""
    count = 2 * MAX_HTLCS_PER_SIDE_ZERO_FEE
    htlcs = [make_htlc(id, offered=id % 2 == 0, amount_msat=2_000_000) for id in range(count)]
    balances = Msat(10**9), Msat(10**9)
    commitment = make_commitment(make_params(anchors=False, zero_fee=True), 0, POINT, *balances, htlcs, FeeRatePerKw(0))
    assert len(commitment.tx.outputs) == count + 3
    weight = commitment_weight(False, count, zero_fee=True)
    witness = 2 + 1 + 1 + 2 * (1 + 73) + 1 + 71
    assert weight == commitment.tx.weight + witness
    assert weight <= 40_000 < commitment_weight(False, count + 2, zero_fee=True)
