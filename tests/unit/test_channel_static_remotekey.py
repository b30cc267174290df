"""Channels without anchors: the type is negotiated, fees and trimming follow the feerate, ``to_remote`` is plain."""

import pytest
from channel_kit import forget, lifecycle, make_pair, open_pair, refused, send
from leyden.bitcoin import p2wpkh
from leyden.channel import ChannelError, ChannelPolicy, ErrorCode, Lifecycle, load
from leyden.channel import events as ev
from leyden.channel.limits import available_to_send
from leyden.channel.views import signed_view
from leyden.commitment import htlc_tx_fee, make_commitment
from leyden.hooks.signing import commitment_params
from leyden.testing.channel_pair import ChannelPair, names
from leyden.types import FeeRatePerKw, Msat, Side
from leyden.types.errors import RuleViolation
from leyden.types.rules import C_020
from leyden.wire import UpdateFee
from leyden.wire.features import ANCHORS_ZERO_FEE, STATIC_REMOTEKEY, Feature, Features
from msgspec.structs import replace

STATIC = ChannelPolicy(minimum_depth=1, channel_types=("static_remotekey",))
DUST = replace(STATIC, max_dust_exposure_msat=Msat(4_000_000))
WARNED = ["send warning", "disconnect"]


def static_pair(policy: ChannelPolicy = STATIC, **kwargs: int) -> ChannelPair:
    return open_pair(policy_a=policy, policy_b=policy, **kwargs)


def add_both_ways(pair: ChannelPair, amount: int) -> None:
    pair.add(pair.a, amount)
    pair.add(pair.b, amount + 1)
    pair.settle()


# -- negotiation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "without_anchors", "expected"),
    [
        (("anchors", "static_remotekey"), False, ANCHORS_ZERO_FEE),
        (("static_remotekey", "anchors"), False, STATIC_REMOTEKEY),
        (("anchors", "static_remotekey"), True, STATIC_REMOTEKEY),
        (("anchors",), True, None),
    ],
)
def test_the_first_type_that_both_have_is_proposed(
    wanted: tuple[str, ...], without_anchors: bool, expected: Features | None
) -> None:
    pair = make_pair(policy_a=ChannelPolicy(minimum_depth=1, channel_types=wanted))
    if without_anchors:
        bits = pair.a.env.features.bits & ~(1 << Feature.OPTION_ANCHORS)
        for end in pair.ends:
            end.env = replace(end.env, features=Features(bits))
    if expected is None:
        with pytest.raises(ChannelError) as error:
            pair.propose()
        assert error.value.code is ErrorCode.BAD_PARAMETERS
        return
    pair.open()
    for end in pair.ends:
        assert end.channel.config.channel_type == expected
        assert end.channel.setup.anchors is (expected == ANCHORS_ZERO_FEE)
        end.commit()
        assert load(end.rows.items()).setup.anchors is (expected == ANCHORS_ZERO_FEE)


@pytest.mark.proves("C-020")
def test_a_type_that_policy_does_not_want_is_refused() -> None:
    pair = make_pair(policy_a=STATIC, policy_b=ChannelPolicy(channel_types=("anchors",)))
    pair.propose()
    pair.accept()
    assert lifecycle(pair.b) is Lifecycle.ABANDONED
    assert names(pair.b.log) == ["send error"]


@pytest.mark.proves("C-020")
def test_a_type_of_features_that_were_not_negotiated_is_refused() -> None:
    from leyden.channel import check_open_channel

    pair = make_pair()
    message = pair.propose()
    env = replace(pair.b.env, features=Features(pair.b.env.features.bits & ~(1 << Feature.OPTION_ANCHORS)))
    with pytest.raises(RuleViolation) as caught:
        check_open_channel(message, env)
    assert caught.value.rule is C_020


def test_the_first_feerate_is_that_for_channels_without_anchors() -> None:
    pair = static_pair()
    rates = pair.a.env.feerates
    assert pair.a.channel.feerate == rates.non_anchor_channel != rates.anchor_channel
    pair.a.env = replace(pair.a.env, feerates=replace(rates, anchor_channel=FeeRatePerKw(9_000)))
    assert names(pair.a.do(ev.FeerateChanged())) == []
    pair.a.env = replace(pair.a.env, feerates=replace(rates, non_anchor_channel=FeeRatePerKw(3_000)))
    assert names(pair.a.do(ev.FeerateChanged())) == ["send update_fee"]


@pytest.mark.parametrize(("feerate", "end"), [(1_199, Lifecycle.ABANDONED), (1_200, Lifecycle.AWAIT_FUNDING_CREATED)])
def test_a_feerate_a_fifth_below_our_estimate_is_the_least(feerate: int, end: Lifecycle) -> None:
    """No two estimators agree: LDK Node proposed 1250 sat/kw where our bitcoind said 1254. But nobody can add to the
    fee of such a commitment later, so that far below the estimate it might not even be relayed."""
    pair = make_pair(policy_a=STATIC, policy_b=STATIC)
    rates = pair.b.env.feerates
    high = replace(rates, min_allowed_non_anchor_remote=FeeRatePerKw(1_500))
    pair.b.env = replace(pair.b.env, feerates=high)
    pair.propose(feerate=FeeRatePerKw(feerate))
    pair.accept()
    assert lifecycle(pair.b) is end


# -- fees and trimming -------------------------------------------------------------------------------------------------


def newest(pair: ChannelPair, side: Side) -> object:
    channel = pair.a.channel
    view = signed_view(channel, side)
    return make_commitment(
        commitment_params(channel.setup, side),
        view.number,
        view.per_commitment_point,
        view.owner_msat,
        view.other_msat,
        view.htlcs,
        view.feerate,
    )


def test_what_has_an_output_depends_on_feerate_and_direction() -> None:
    """At 2,000 sat/kw an HTLC transaction costs 1,326 (timeout) or 1,406 sat (success) above 354 sat of dust."""
    pair = static_pair(push_msat=500_000_000)
    assert htlc_tx_fee(False, FeeRatePerKw(2_000), True) == 1_326
    pair.add(pair.a, 1_700_000)
    pair.settle()
    channel = pair.a.channel
    assert channel.local_next.untrimmed == 1, "a timeout on ours"
    assert channel.remote_next.untrimmed == 0, "a success on theirs, that is dearer"
    assert len(newest(pair, Side.LOCAL).htlcs) == 1  # type: ignore[attr-defined]
    assert len(newest(pair, Side.REMOTE).htlcs) == 0  # type: ignore[attr-defined]


def test_a_fee_change_moves_htlcs_between_outputs_and_fees() -> None:
    pair = static_pair(push_msat=500_000_000)
    add_both_ways(pair, 2_400_000)
    assert pair.a.channel.local_next.untrimmed == 2
    for feerate, untrimmed in ((4_500, 0), (1_000, 2)):
        pair.a.do(ev.UpdateFee(feerate=FeeRatePerKw(feerate)))
        pair.settle()
        for end in pair.ends:
            assert end.channel.feerate == feerate
            assert end.channel.local_next.untrimmed == end.channel.remote_next.untrimmed == untrimmed
            end.restart()
            assert end.channel.local_next.untrimmed == untrimmed
        pair.reconnect()
    pair.b.do(ev.FailHtlc(id=0, reason=bytes(292)))
    pair.a.do(ev.FailHtlc(id=0, reason=bytes(292)))
    pair.settle()
    assert pair.total_msat() == 1_000_000_000
    assert not pair.a.channel.local_htlcs
    assert not pair.b.channel.local_htlcs


def test_no_anchors_are_paid_for() -> None:
    static, anchors = static_pair(), open_pair()
    rate = FeeRatePerKw(500)
    static.a.do(ev.UpdateFee(feerate=rate))
    static.settle()
    saved = available_to_send(static.a.channel, 2) - available_to_send(anchors.a.channel, 2)
    assert saved == 2 * 330_000 + 400 * 1_000  # 400 weight units at twice the feerate
    assert sorted(o.value for o in newest(static, Side.LOCAL).tx.outputs) == [1_000_000 - 362]  # type: ignore[attr-defined]


@pytest.mark.proves("C-086")
def test_dust_exposure_counts_what_a_higher_feerate_would_trim() -> None:
    pair = static_pair(DUST, push_msat=500_000_000)
    for source, target in ((pair.a, pair.b), (pair.b, pair.a)):
        pair.add(source, 2_500_000)  # 2,000 + 2,530 sat/kw trims below 3,357 sat
        pair.settle()
        refused(source, ev.AddHtlc(**add_fields(2_500_000)), ErrorCode.DUST_EXPOSURE)
        pair.add(source, 4_500_000)
        pair.settle()
        assert not any(h.must_fail for h in target.channel.remote_htlcs.values())
        for id in (0, 1):
            target.do(ev.FailHtlc(id=id, reason=bytes(292)))
        pair.settle()


@pytest.mark.proves("C-086")
def test_a_peer_that_exceeds_our_limit_gets_its_htlc_back() -> None:
    pair = open_pair(push_msat=500_000_000, policy_a=STATIC, policy_b=DUST)
    for _ in range(2):
        pair.add(pair.a, 2_500_000)
    pair.settle()
    assert [h.must_fail for h in pair.b.channel.remote_htlcs.values()] == [False, True]


@pytest.mark.proves("C-086")
def test_we_raise_no_fee_that_trims_too_much() -> None:
    pair = static_pair(DUST, push_msat=500_000_000)
    add_both_ways(pair, 4_500_000)
    refused(pair.a, ev.UpdateFee(feerate=FeeRatePerKw(6_500)), ErrorCode.DUST_EXPOSURE)
    pair.a.do(ev.UpdateFee(feerate=FeeRatePerKw(5_000)))


@pytest.mark.proves("C-090")
def test_a_peer_that_raises_it_so_far_loses_the_connection() -> None:
    pair = static_pair(DUST, push_msat=500_000_000)
    add_both_ways(pair, 4_500_000)
    message = UpdateFee(channel_id=pair.b.channel.channel_id, feerate_per_kw=6_500)
    assert names(send(pair, pair.b, message)) == WARNED
    assert pair.b.channel.feerate == 2_000


def add_fields(amount: int) -> dict[str, object]:
    return {
        "amount_msat": Msat(amount),
        "payment_hash": bytes(32),
        "cltv_expiry": 500,
        "onion_routing_packet": bytes(1366),
    }


# -- on chain ----------------------------------------------------------------------------------------------------------


def test_both_balances_come_back_after_a_force_close() -> None:
    pair = static_pair(push_msat=400_000_000)
    forget(pair.a)
    pair.a.do(ev.ForceClose(reason="test"))
    tx = pair.a.broadcasts[-1].tx
    assert len(tx.outputs) == 2, "no anchors"
    key = pair.b.channel.setup.local_keys.payment_basepoint
    ours = next(i for i, o in enumerate(tx.outputs) if o.script == p2wpkh(key))
    pair.confirm_spend(tx)
    sweep = pair.b.broadcasts[-1].tx
    assert sweep.inputs[0].prevout == (tx.txid, ours)
    assert sweep.inputs[0].witness[-1] == key
    assert sweep.outputs[0].script == pair.b.env.sweep_script
    delay = pair.a.channel.setup.local_to_self_delay
    pair.mine(delay - 2)
    assert pair.a.broadcasts[-1].tx == tx, "the delay is not over"
    pair.mine(1)
    assert pair.a.broadcasts[-1].tx.inputs[0].sequence == delay
