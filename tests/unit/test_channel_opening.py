"""Opening v1: what is refused, what is sent when, and what a funding must be (BOLT 2; C-019 to C-034)."""

import pytest
from channel_kit import forget, lifecycle, make_pair, of_kind, refused, send, waiting, with_features
from leyden.bitcoin import TxIn, TxOut, p2wpkh
from leyden.channel import ChannelError, ChannelPolicy, ErrorCode, Lifecycle, check_open_channel
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.channel.ready import addressed_by
from leyden.hooks.types import BroadcastKind, ChannelPending, OpenFailed
from leyden.testing.channel_pair import ChannelPair, names
from leyden.types import FeeRatePerKw, OutPoint, RuleViolation, Sat, ShortChannelId
from leyden.types.errors import Rule
from leyden.types.rules import C_019, C_020, C_021, C_022, C_023, C_024, C_025, C_026
from leyden.wire import (
    AcceptChannel,
    ChannelReady,
    ErrorMessage,
    FundingCreated,
    FundingSigned,
    OpenChannel,
)
from leyden.wire.features import ANCHORS_ZERO_FEE, STATIC_REMOTEKEY, ZERO_FEE_COMMITMENTS, Feature, Features
from msgspec.structs import replace

ZEROCONF = Features(ANCHORS_ZERO_FEE.bits | 1 << Feature.OPTION_ZEROCONF)
ALIAS = Features(ANCHORS_ZERO_FEE.bits | 1 << Feature.OPTION_SCID_ALIAS)


def proposal(**changes: object) -> tuple[ChannelPair, OpenChannel]:
    pair = make_pair()
    message = pair.propose()
    return pair, replace(message, **changes)


BAD_PROPOSALS: list[tuple[Rule, dict[str, object]]] = [
    (C_019, {"chain_hash": bytes(32)}),
    (C_019, {"push_msat": 1_000_000_001}),
    (C_019, {"funding_pubkey": bytes(33)}),
    (C_019, {"htlc_basepoint": b"\x02" + b"\xff" * 32}),
    (C_019, {"first_per_commitment_point": b"\x05" * 33}),
    (C_020, {"channel_type": None}),
    (C_020, {"channel_type": ZERO_FEE_COMMITMENTS.to_bytes()}),
    (C_020, {"channel_type": Features.of(12, 22, 1).to_bytes()}),
    (C_020, {"channel_type": ALIAS.to_bytes(), "channel_flags": 1}),
    (C_020, {"channel_type": ALIAS.to_bytes()}),
    (C_022, {"funding_satoshis": 1 << 24}),
    (C_023, {"max_accepted_htlcs": 484}),
    (C_023, {"max_accepted_htlcs": 0}),
    (C_023, {"to_self_delay": 2_017}),
    (C_023, {"feerate_per_kw": 252}),
    (C_023, {"feerate_per_kw": 25_000 * 10 + 1}),
    (C_023, {"channel_reserve_satoshis": 200_001}),
    (C_023, {"funding_satoshis": 19_999}),
    (C_024, {"dust_limit_satoshis": 353}),
    (C_024, {"dust_limit_satoshis": 10_001, "channel_reserve_satoshis": 20_000}),
    (C_024, {"dust_limit_satoshis": 5_000, "channel_reserve_satoshis": 4_999}),
    (C_024, {"channel_reserve_satoshis": 353}),
    (C_025, {"push_msat": 999_000_000}),
    (C_025, {"funding_satoshis": 21_000, "channel_reserve_satoshis": 1_000, "feerate_per_kw": 17_500}),
    (C_026, {"channel_type": ZEROCONF.to_bytes()}),
]


@pytest.mark.proves("C-019", "C-020", "C-022", "C-023", "C-024", "C-025", "C-026")
@pytest.mark.parametrize(("rule", "changes"), BAD_PROPOSALS, ids=lambda v: str(v)[:40])
def test_a_bad_proposal_is_refused(rule: Rule, changes: dict[str, object]) -> None:
    pair, message = proposal(**changes)
    with pytest.raises(RuleViolation) as caught:
        check_open_channel(message, pair.b.env)
    assert caught.value.rule is rule
    pair.accept(message)
    assert lifecycle(pair.b) is Lifecycle.ABANDONED
    assert names(pair.b.log) == ["send error"]
    assert pair.b.commit() == 0


def test_a_good_proposal_is_accepted() -> None:
    pair, message = proposal()
    check_open_channel(message, pair.b.env)
    assert message.channel_type == b"\x40\x10\x00"


@pytest.mark.proves("C-021")
def test_version_1_is_not_used_with_dual_funding() -> None:
    features = with_features(Feature.OPTION_DUAL_FUND)
    pair, message = proposal()
    with pytest.raises(RuleViolation) as caught:
        check_open_channel(message, replace(pair.b.env, features=features))
    assert caught.value.rule is C_021
    with pytest.raises(ChannelError) as error:
        make_pair(features=features).propose()
    assert error.value.code is ErrorCode.BAD_PARAMETERS


@pytest.mark.proves("C-022")
def test_large_channels_need_the_feature_of_both() -> None:
    with pytest.raises(ChannelError) as error:
        make_pair().propose(1 << 24)
    assert error.value.code is ErrorCode.BAD_FUNDING
    pair = make_pair(features=with_features(Feature.OPTION_SUPPORT_LARGE_CHANNEL))
    pair.open(1 << 24)


def test_parameters_that_cannot_work_are_refused() -> None:
    for params in (
        {"funding": 19_999},
        {"push_msat": -1},
        {"push_msat": 1_000_000_001},
        {"push_msat": 999_000_000},
        {"feerate": FeeRatePerKw(252)},
        {"feerate": FeeRatePerKw(250_001)},
    ):
        with pytest.raises(ChannelError):
            make_pair().propose(**params)
    with pytest.raises(ChannelError):
        make_pair(features=Features()).propose()


BAD_ACCEPTS: list[tuple[Rule, dict[str, object]]] = [
    (C_019, {"revocation_basepoint": bytes(33)}),
    (C_020, {"channel_type": None}),
    (C_020, {"channel_type": STATIC_REMOTEKEY.to_bytes()}),
    (C_023, {"minimum_depth": 145}),
    (C_023, {"max_accepted_htlcs": 484}),
    (C_023, {"to_self_delay": 5_000}),
    (C_024, {"dust_limit_satoshis": 353}),
    (C_024, {"dust_limit_satoshis": 10_000, "channel_reserve_satoshis": 10_000, "minimum_depth": 1_000}),
    (C_024, {"channel_reserve_satoshis": 300}),
]


@pytest.mark.proves("C-019", "C-020", "C-023", "C-024")
@pytest.mark.parametrize(("rule", "changes"), BAD_ACCEPTS, ids=lambda v: str(v)[:40])
def test_a_bad_answer_ends_the_opening(rule: Rule, changes: dict[str, object]) -> None:
    pair = make_pair()
    pair.propose()
    pair.accept()
    effects = send(pair, pair.a, replace(waiting(pair.b, AcceptChannel), **changes))
    assert lifecycle(pair.a) is Lifecycle.ABANDONED
    assert names(effects) == ["send error", "deliver FundingAbandoned", "publish OpenFailed"]
    assert isinstance(pair.a.events[-1], OpenFailed)


@pytest.mark.proves("C-026")
def test_a_trusted_zeroconf_opener_gets_depth_0() -> None:
    pair = zero_conf_pair(trusted=True)
    pair.propose(zero_conf=True)
    pair.accept()
    answer = waiting(pair.b, AcceptChannel)
    assert answer.minimum_depth == 0
    send(pair, pair.a, replace(answer, minimum_depth=1))
    assert lifecycle(pair.a) is Lifecycle.ABANDONED


def zero_conf_pair(*, trusted: bool) -> ChannelPair:
    pair = make_pair(features=with_features(Feature.OPTION_ZEROCONF, Feature.OPTION_SCID_ALIAS))
    trust = (pair.b.env.peer.hex(),) if trusted else (pair.a.env.peer.hex(),)
    pair.b.env = replace(pair.b.env, policy=ChannelPolicy(trusted_zero_conf=trust, minimum_depth=3))
    return pair


@pytest.mark.proves("C-026")
def test_an_opener_that_is_not_on_the_list_gets_no_zeroconf_channel() -> None:
    pair = zero_conf_pair(trusted=False)
    pair.propose(zero_conf=True)
    pair.accept()
    assert lifecycle(pair.b) is Lifecycle.ABANDONED
    assert names(pair.b.log) == ["send error"]


def test_depth_0_is_not_for_everybody() -> None:
    pair = make_pair(policy_b=ChannelPolicy(minimum_depth=0))
    pair.propose()
    pair.accept()
    assert waiting(pair.b, AcceptChannel).minimum_depth == 1


def test_zero_conf_needs_the_feature() -> None:
    with pytest.raises(ChannelError) as error:
        make_pair().propose(zero_conf=True)
    assert error.value.code is ErrorCode.BAD_PARAMETERS


@pytest.mark.proves("C-033")
def test_a_zeroconf_channel_is_ready_at_once_and_goes_by_its_alias() -> None:
    pair = zero_conf_pair(trusted=True)
    pair.propose(zero_conf=True)
    pair.accept()
    pair.settle()
    pair.provide_funding()
    pair.settle()
    assert {end.channel.lifecycle for end in pair.ends} == {Lifecycle.NORMAL}
    pair.add(pair.a, 10_000_000)
    pair.settle()
    for end, other in ((pair.a, pair.b), (pair.b, pair.a)):
        channel = end.channel
        assert channel.short_channel_id is None
        assert channel.local_alias is not None
        assert channel.local_alias == other.channel.remote_alias
        assert addressed_by(channel, channel.local_alias)
    pair.confirm_funding()
    pair.settle()
    real = pair.b.channel.short_channel_id
    assert real is not None
    assert not addressed_by(pair.b.channel, real)


@pytest.mark.proves("C-027")
def test_our_channel_type_is_defined_short_and_has_no_alias_in_public() -> None:
    features = with_features(Feature.OPTION_SCID_ALIAS)
    private = make_pair(features=features).propose(announce=False)
    public = make_pair(features=features).propose(announce=True)
    assert private.channel_type == ALIAS.to_bytes()
    assert public.channel_type == ANCHORS_ZERO_FEE.to_bytes()
    assert (private.channel_flags, public.channel_flags) == (0, 1)
    pair = make_pair()
    undefined_flags = replace(pair.propose(), channel_flags=0xFE)
    check_open_channel(undefined_flags, pair.b.env)


def test_we_ask_for_an_alias_only_with_anchors() -> None:
    """A peer may fail an opening of static_remotekey with scid_alias (LND does); aliases work without the type."""
    only = ChannelPolicy(channel_types=("static_remotekey",))
    pair = make_pair(features=with_features(Feature.OPTION_SCID_ALIAS), policy_a=only)
    proposed = pair.propose(announce=False)
    assert proposed.channel_type == STATIC_REMOTEKEY.to_bytes()
    aliased = STATIC_REMOTEKEY | Features.of(Feature.OPTION_SCID_ALIAS)
    check_open_channel(replace(proposed, channel_type=aliased.to_bytes()), pair.b.env)


@pytest.mark.proves("C-028")
def test_the_upfront_script_is_always_there() -> None:
    pair = make_pair()
    assert pair.propose().upfront_shutdown_script == pair.a.env.shutdown_script
    pair.accept()
    assert waiting(pair.b, AcceptChannel).upfront_shutdown_script == pair.b.env.shutdown_script
    without = make_pair(features=Features.of(Feature.OPTION_STATIC_REMOTEKEY, Feature.OPTION_ANCHORS))
    assert without.propose().upfront_shutdown_script == b""


@pytest.mark.proves("C-029")
def test_a_disconnect_forgets_an_unfunded_channel_and_a_new_proposal_replaces_it() -> None:
    pair = make_pair()
    first = pair.propose()
    pair.accept()
    pair.disconnect()
    assert {end.channel.lifecycle for end in pair.ends} == {Lifecycle.ABANDONED}
    assert [type(d) for d in pair.a.deliveries] == [fx.FundingAbandoned]
    pair.a.channel_or_none = pair.b.channel_or_none = None
    second = pair.propose()
    assert second.temporary_channel_id != first.temporary_channel_id
    pair.accept()
    assert lifecycle(pair.b) is Lifecycle.AWAIT_FUNDING_CREATED


def funding_sent() -> ChannelPair:
    pair = make_pair()
    pair.propose()
    pair.accept()
    pair.settle()
    pair.provide_funding()
    return pair


@pytest.mark.proves("C-030")
def test_a_bad_first_signature_ends_the_opening_on_the_fundee() -> None:
    pair = funding_sent()
    message = waiting(pair.a, FundingCreated)
    effects = send(pair, pair.b, replace(message, signature=bytes(32) + b"\1" * 32))
    assert names(effects)[0] == "send error"
    assert lifecycle(pair.b) is Lifecycle.ABANDONED


def high_s(signature: bytes) -> bytes:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + (order - s).to_bytes(32, "big")


@pytest.mark.proves("C-030")
def test_a_high_s_first_signature_ends_the_opening_on_the_funder() -> None:
    pair = funding_sent()
    pair.deliver(pair.a)
    message = waiting(pair.b, FundingSigned)
    effects = send(pair, pair.a, replace(message, signature=high_s(message.signature)))
    assert names(effects) == ["send error", "deliver FundingAbandoned", "publish OpenFailed"]
    assert not pair.a.broadcasts


@pytest.mark.proves("C-031")
def test_the_funding_waits_for_funding_signed_and_names_the_channel() -> None:
    pair = funding_sent()
    tx = pair.funding_tx
    assert tx is not None
    txid = tx.txid
    assert pair.a.channel.channel_id == txid[:31] + bytes((txid[31] ^ 1,))
    assert not pair.a.broadcasts
    pair.deliver(pair.a)
    assert not pair.a.broadcasts
    pair.a.hold_signer = True
    pair.deliver(pair.b)
    assert not pair.a.broadcasts, "the signer has not noted our first commitment"
    pair.a.answer_signer()
    assert [(b.tx, b.kind) for b in pair.a.broadcasts] == [(tx, BroadcastKind.FUNDING)]
    assert pair.b.channel.channel_id == pair.a.channel.channel_id
    pending = [e for e in pair.b.events if isinstance(e, ChannelPending)]
    assert [(p.funding_txid, p.funding_vout, p.capacity_sat) for p in pending] == [(txid, 1, 1_000_000)]


def test_a_funding_transaction_must_pay_exactly_and_be_segwit() -> None:
    pair = make_pair()
    pair.propose()
    pair.accept()
    pair.settle()
    needed = next(d for d in pair.a.deliveries if isinstance(d, fx.FundingNeeded))
    good = TxOut(value=needed.amount, script=needed.script)
    signed = TxIn(prevout=OutPoint(bytes(32), 0), sequence=0, witness=(b"x",))
    from leyden.bitcoin import Transaction

    def tx(output: TxOut, txin: TxIn = signed) -> Transaction:
        return Transaction(version=2, inputs=(txin,), outputs=(output,), locktime=0)

    for bad, vout in (
        (tx(replace(good, value=Sat(needed.amount - 1))), 0),
        (tx(replace(good, script=p2wpkh(bytes(20)))), 0),
        (tx(good), 1),
        (tx(good), -1),
        (tx(good, replace(signed, witness=())), 0),
        (tx(good, replace(signed, script_sig=b"\1x")), 0),
    ):
        refused(pair.a, ev.ProvideFunding(tx=bad, vout=vout), ErrorCode.BAD_FUNDING)
    pair.a.do(ev.ProvideFunding(tx=tx(good), vout=0))
    refused(pair.a, ev.ProvideFunding(tx=tx(good), vout=0), ErrorCode.WRONG_STATE)


def funded(depth: int = 3) -> ChannelPair:
    policy = ChannelPolicy(minimum_depth=depth)
    pair = make_pair(policy_a=policy, policy_b=policy)
    pair.propose()
    pair.accept()
    pair.settle()
    pair.provide_funding()
    pair.settle()
    for end in pair.ends:
        forget(end)
    return pair


@pytest.mark.proves("C-032")
def test_channel_ready_waits_for_the_agreed_depth() -> None:
    pair = funded(3)
    pair.confirm_funding()
    pair.mine(1)
    assert not of_kind(pair.a.log, ChannelReady)
    pair.mine(1)
    assert len(of_kind(pair.a.log, ChannelReady)) == len(of_kind(pair.b.log, ChannelReady)) == 1
    pair.settle()
    assert {end.channel.lifecycle for end in pair.ends} == {Lifecycle.NORMAL}
    pair.mine(3)
    assert len(of_kind(pair.a.log, ChannelReady)) == 1


@pytest.mark.proves("C-032")
@pytest.mark.parametrize("change", [{"value": Sat(999_999)}, {"script": p2wpkh(bytes(20))}])
def test_channel_ready_is_never_sent_for_another_output(change: dict[str, object]) -> None:
    pair = funded(1)
    assert pair.funding_tx is not None
    output = replace(pair.funding_tx.outputs[1], **change)
    effects = pair.b.do(ev.FundingConfirmed(height=pair.b.env.height, tx_index=1, output=output))
    assert names(effects) == ["send error", "publish Alarm", "publish ChannelClosed"]
    assert lifecycle(pair.b) is Lifecycle.CLOSED


def test_a_reorg_of_the_funding_stops_new_htlcs() -> None:
    pair = make_pair()
    pair.open()
    effects = pair.a.do(ev.FundingUnconfirmed())
    assert names(effects) == ["publish Alarm"]
    with pytest.raises(ChannelError) as caught:
        pair.add(pair.a, 1_000_000)
    assert caught.value.code is ErrorCode.WRONG_STATE
    pair.confirm_funding()
    pair.add(pair.a, 1_000_000)


def test_a_funding_that_can_never_confirm_ends_the_channel_unless_the_chain_has_it() -> None:
    pair = make_pair()
    pair.open()
    assert pair.a.do(ev.FundingRuledOut()) == ()  # it was said too late: the funding is in a block
    pair.a.do(ev.FundingUnconfirmed())
    assert names(pair.a.do(ev.FundingRuledOut())) == ["send error", "deliver FundingAbandoned", "publish ChannelClosed"]
    assert lifecycle(pair.a) is Lifecycle.CLOSED


def test_a_coinbase_funding_must_mature() -> None:
    pair = funded(1)
    assert pair.funding_tx is not None
    height = pair.a.env.height
    effects = pair.a.do(ev.FundingConfirmed(height=height, tx_index=0, output=pair.funding_tx.outputs[1]))
    assert names(effects) == []
    assert not names(pair.a.do(ev.BlockConnected(height=type(height)(height + 98))))
    assert names(pair.a.do(ev.BlockConnected(height=type(height)(height + 99)))) == ["send channel_ready"]


@pytest.mark.proves("C-033")
def test_the_alias_is_random_and_hides_the_real_id_where_the_type_says_so() -> None:
    features = with_features(Feature.OPTION_SCID_ALIAS)
    aliases = set()
    for announce in (False, True):
        pair = make_pair(features=features)
        pair.open(announce=announce)
        channel = pair.a.channel
        alias, real = channel.local_alias, channel.short_channel_id
        assert alias is not None
        assert real is not None
        assert of_kind(pair.a.log, ChannelReady)[0].short_channel_id == alias
        assert pair.b.channel.remote_alias == alias
        assert addressed_by(channel, alias)
        assert addressed_by(channel, real) is announce
        assert not addressed_by(channel, ShortChannelId(real + 1))
        aliases |= {alias, pair.b.channel.local_alias}
    assert len(aliases) == 2, "one for each side"
    outpoint_bytes = int.from_bytes(channel.setup.funding_outpoint.txid[:8], "big")
    assert outpoint_bytes not in aliases


@pytest.mark.proves("C-034")
def test_a_fundee_forgets_a_funding_that_never_comes() -> None:
    pair = funded(3)
    pair.mine(1)
    opened = pair.b.channel.config.opened_height
    for end in pair.ends:
        end.env = replace(end.env, height=type(opened)(opened + 2_014))
    pair.mine(1)
    assert lifecycle(pair.b) is Lifecycle.AWAIT_CONFIRMATION
    assert pair.b.rows
    pair.mine(1)
    assert lifecycle(pair.b) is Lifecycle.CLOSED
    assert of_kind(pair.b.log, ErrorMessage)
    assert not pair.b.rows
    assert lifecycle(pair.a) is Lifecycle.AWAIT_CONFIRMATION, "the funder never forgets"


def test_a_signer_that_refuses_ends_the_opening() -> None:
    pair = make_pair()
    pair.propose()
    pair.accept()
    pair.settle()
    pair.a.hold_signer = True
    pair.provide_funding()
    request = pair.a.questions[0]
    effects = pair.a.do(ev.SignerFailed(request_id=request.request_id, refused=True, text="too big"))
    assert names(effects) == ["publish Alarm", "send error", "deliver FundingAbandoned", "publish OpenFailed"]


def test_a_slow_signer_on_the_fundee() -> None:
    pair = funding_sent()
    pair.b.hold_signer = True
    pair.deliver(pair.a)
    assert not pair.b.sent
    pair.b.answer_signer(1)
    assert not pair.b.sent
    pair.b.hold_signer = False
    pair.b.answer_signer()
    assert waiting(pair.b, FundingSigned)
