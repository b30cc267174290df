"""Closing: ``shutdown``, legacy ``closing_signed``, and by force (BOLT 2, BOLT 5; C-060 to C-063, C-069, C-070)."""

import pytest
from channel_kit import (
    SIGNERS,
    commit_add,
    forget,
    lifecycle,
    make_pair,
    of_kind,
    open_pair,
    pay,
    preimage_of,
    refused,
    send,
    waiting,
    waiting_names,
)
from leyden.bitcoin import op_return, p2pkh, p2tr, p2wpkh
from leyden.channel import ErrorCode, Lifecycle
from leyden.channel import events as ev
from leyden.hooks.signing import SignMutualClose
from leyden.hooks.types import Alarm, BroadcastKind, ChannelClosed, ChannelClosing
from leyden.node.host import run_inline
from leyden.testing.channel_pair import ChannelEnd, ChannelPair, names
from leyden.types import BlockHeight, FeeRatePerKw, Msat, Sat
from leyden.wire import ClosingSigned, ErrorMessage, FeeRange, UpdateAddHtlc
from leyden.wire import Shutdown as ShutdownMessage
from leyden.wire.features import Feature, Features
from msgspec.structs import replace

PLAIN = Features.of(Feature.OPTION_STATIC_REMOTEKEY, Feature.OPTION_ANCHORS)
WARNED = ["send warning", "disconnect"]
FAILED = ["send error", "publish ChannelClosing", "sign SignHolderCommitment", "broadcast unilateral_close"]


def closed_cooperatively(pair: ChannelPair) -> Sat:
    """Both broadcast the same transaction; its fee in satoshi."""
    tx = pair.a.broadcasts[-1].tx
    assert tx.txid == pair.b.broadcasts[-1].tx.txid
    assert {end.channel.lifecycle for end in pair.ends} == {Lifecycle.CLOSING}
    assert pair.a.broadcasts[-1].kind is BroadcastKind.MUTUAL_CLOSE
    return Sat(pair.a.channel.config.funding_satoshis - sum(o.value for o in tx.outputs))


@pytest.mark.parametrize("first", ["a", "b"])
def test_a_cooperative_close(first: str) -> None:
    pair = open_pair(push_msat=300_000_000)
    pay(pair, pair.a, 50_000_000)
    end = pair.a if first == "a" else pair.b
    end.do(ev.Shutdown())
    pair.settle()
    fee = closed_cooperatively(pair)
    tx = pair.a.broadcasts[-1].tx
    paid = {o.script: o.value for o in tx.outputs}
    assert paid == {pair.a.env.shutdown_script: 650_000 - fee, pair.b.env.shutdown_script: 350_000}
    assert [e.initiator for e in end.events if isinstance(e, ChannelClosing)] == ["local"]
    assert [e.initiator for e in pair.other(end).events if isinstance(e, ChannelClosing)] == ["remote"]
    pair.confirm_spend(tx)
    pair.mine(4)
    assert pair.a.rows
    pair.mine(1)
    for side in pair.ends:
        closed = [e for e in side.events if isinstance(e, ChannelClosed)]
        assert [(c.how, c.txid) for c in closed] == [("cooperative", tx.txid)]
        assert not side.rows


def test_a_balance_of_dust_gets_no_output() -> None:
    pair = open_pair()
    pair.a.do(ev.Shutdown())
    pair.settle()
    closed_cooperatively(pair)
    assert len(pair.a.broadcasts[-1].tx.outputs) == 1


@pytest.mark.proves("C-060")
def test_shutdown_waits_until_our_updates_are_acknowledged_and_is_sent_once() -> None:
    pair = open_pair()
    pair.add(pair.a, 5_000_000)
    pair.a.do(ev.Shutdown())
    refused(pair.a, ev.Shutdown(), ErrorCode.CLOSING)
    assert waiting_names(pair.a) == ["update_add_htlc"]
    pair.end_turn(pair.a)
    assert waiting_names(pair.a) == ["update_add_htlc", "commitment_signed"]
    pair.deliver(pair.a)
    pair.end_turn(pair.b)
    pair.deliver(pair.b)
    pair.end_turn(pair.a)
    assert waiting_names(pair.a) == ["revoke_and_ack", "shutdown"]
    pair.settle()
    assert names(pair.a.log).count("send shutdown") == 1


@pytest.mark.proves("C-060")
def test_a_shutdown_before_the_funding_ends_the_opening() -> None:
    pair = make_pair()
    pair.propose()
    pair.accept()
    message = ShutdownMessage(channel_id=pair.b.channel.channel_id, scriptpubkey=p2wpkh(bytes(20)))
    assert names(send(pair, pair.b, message))[0] == "send error"
    assert lifecycle(pair.b) is Lifecycle.ABANDONED


@pytest.mark.proves("C-061")
def test_after_shutdown_htlcs_are_removed_but_not_added() -> None:
    pair = open_pair(push_msat=100_000_000)
    commit_add(pair, pair.a, 5_000_000)
    commit_add(pair, pair.b, 6_000_000)
    pair.a.do(ev.Shutdown())
    add = ev.AddHtlc(
        amount_msat=Msat(1_000_000),
        payment_hash=bytes(32),
        cltv_expiry=BlockHeight(500),
        onion_routing_packet=bytes(1366),
    )
    refused(pair.a, add, ErrorCode.CLOSING)
    refused(pair.a, ev.UpdateFee(feerate=FeeRatePerKw(1_000)), ErrorCode.CLOSING)
    pair.settle()
    refused(pair.b, add, ErrorCode.CLOSING)
    message = UpdateAddHtlc(
        channel_id=pair.a.channel.channel_id,
        id=1,
        amount_msat=1_000_000,
        payment_hash=bytes(32),
        cltv_expiry=500,
        onion_routing_packet=bytes(1366),
    )
    assert names(send(pair, pair.b, message)) == WARNED
    assert "send closing_signed" not in names(pair.a.log)
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(5_000_000)))
    pair.settle()
    assert "send closing_signed" not in names(pair.a.log)
    pair.a.do(ev.FailHtlc(id=0, reason=b""))
    pair.settle()
    closed_cooperatively(pair)


def test_a_pending_fee_change_is_finished_first() -> None:
    pair = open_pair()
    pair.a.do(ev.UpdateFee(feerate=FeeRatePerKw(900)))
    pair.b.do(ev.Shutdown())
    pair.settle()
    closed_cooperatively(pair)
    assert pair.a.channel.feerate == 900


@pytest.mark.proves("C-062")
@pytest.mark.parametrize(
    ("script", "features", "allowed"),
    [
        (p2wpkh(bytes(20)), PLAIN, True),
        (b"\x00\x20" + bytes(32), PLAIN, True),
        (p2tr(b"\x79" * 32), PLAIN, False),
        (p2tr(b"\x79" * 32), PLAIN | Features.of(Feature.OPTION_SHUTDOWN_ANYSEGWIT), True),
        (p2pkh(bytes(20)), PLAIN, False),
        (b"", PLAIN, False),
        (op_return(bytes(6)), PLAIN, False),
        (op_return(bytes(6)), PLAIN | Features.of(Feature.OPTION_SIMPLE_CLOSE), True),
        (op_return(bytes(80)), PLAIN | Features.of(Feature.OPTION_SIMPLE_CLOSE), True),
        (op_return(bytes(5)), PLAIN | Features.of(Feature.OPTION_SIMPLE_CLOSE), False),
        (op_return(bytes(6)) + b"\x51", PLAIN | Features.of(Feature.OPTION_SIMPLE_CLOSE), False),
        (b"\x00\x15" + bytes(21), PLAIN | Features.of(Feature.OPTION_SHUTDOWN_ANYSEGWIT), False),
    ],
)
def test_only_allowed_scripts_pass(script: bytes, features: Features, allowed: bool) -> None:
    pair = open_pair(features=PLAIN)
    pair.b.env = replace(pair.b.env, features=features)
    message = ShutdownMessage(channel_id=pair.b.channel.channel_id, scriptpubkey=script)
    effects = names(send(pair, pair.b, message))
    assert effects == (["publish ChannelClosing"] if allowed else ["send warning"])
    if not allowed and script:
        pair.a.env = replace(pair.a.env, features=features)
        refused(pair.a, ev.Shutdown(script=script), ErrorCode.BAD_SCRIPT)


@pytest.mark.proves("C-063")
def test_another_script_than_the_one_committed_upfront_costs_the_connection() -> None:
    pair = open_pair()
    message = ShutdownMessage(channel_id=pair.b.channel.channel_id, scriptpubkey=p2wpkh(bytes(20)))
    before = pair.b.channel
    assert names(send(pair, pair.b, message)) == ["disconnect"]
    assert pair.b.channel is before
    refused(pair.b, ev.Shutdown(script=p2wpkh(bytes(20))), ErrorCode.BAD_SCRIPT)


# -- the fee -----------------------------------------------------------------------------------------------------------


def closing_message(
    pair: ChannelPair, signer: ChannelEnd, fee: int, fee_range: tuple[int, int] | None
) -> ClosingSigned:
    """A properly signed ``closing_signed`` of one side at any fee."""
    channel, state = signer.channel, signer.channel.shutdown
    local, remote = channel.local_settled // 1000, channel.remote_settled // 1000
    if channel.config.local_is_funder:
        local -= fee
    else:
        remote -= fee
    request = SignMutualClose(
        request_id="test",
        setup=channel.setup,
        local_sat=Sat(local),
        remote_sat=Sat(remote),
        local_script=state.local_script,
        remote_script=state.remote_script,
    )
    signature = run_inline(SIGNERS[0 if signer is pair.a else 1].sign_mutual_close(request)).signature
    ranged = None if fee_range is None else FeeRange(min_fee_satoshis=fee_range[0], max_fee_satoshis=fee_range[1])
    return ClosingSigned(channel_id=channel.channel_id, fee_satoshis=fee, signature=signature, fee_range=ranged)


def negotiating(**kwargs: object) -> tuple[ChannelPair, ClosingSigned]:
    """Both are shut down; the funder's offer waits."""
    pair = open_pair(push_msat=300_000_000)
    pair.a.do(ev.Shutdown(**kwargs))
    pair.end_turn(pair.a)
    pair.deliver(pair.a)
    pair.end_turn(pair.b)
    pair.deliver(pair.b)
    pair.end_turn(pair.a)
    offer = waiting(pair.a, ClosingSigned)
    for end in pair.ends:
        forget(end)
    return pair, offer


def test_the_funder_offers_its_target_with_a_range_and_a_fitting_offer_is_taken() -> None:
    pair, offer = negotiating(feerate=FeeRatePerKw(1_000), max_fee=Sat(3_000))
    assert offer.fee_range is not None
    assert offer.fee_range.min_fee_satoshis < offer.fee_satoshis < offer.fee_range.max_fee_satoshis == 3_000
    pair.settle()
    assert closed_cooperatively(pair) == offer.fee_satoshis


@pytest.mark.parametrize(("feerate", "highest"), [(500, 1_338), (4_000, 5_408)])
def test_a_funder_offers_twice_its_target_or_a_little_more(feerate: int, highest: int) -> None:
    """Some fundees (LDK) answer with the highest fee of the range; all close alone if the range is too low."""
    _, offer = negotiating(feerate=FeeRatePerKw(feerate))
    assert offer.fee_range is not None
    assert offer.fee_range.max_fee_satoshis == highest


def test_the_fundee_counters_inside_the_overlap() -> None:
    pair, offer = negotiating()
    assert offer.fee_range is not None
    low = offer.fee_range.min_fee_satoshis
    strange = closing_message(pair, pair.a, low - 50, (low - 50, low + 50))
    effects = send(pair, pair.b, strange)
    answer = of_kind(effects, ClosingSigned)[0]
    assert low <= answer.fee_satoshis <= low + 50
    assert lifecycle(pair.b) is Lifecycle.NORMAL
    effects = send(pair, pair.a, answer)
    assert "broadcast mutual_close" in names(effects)
    effects = send(pair, pair.b, of_kind(effects, ClosingSigned)[0])
    assert names(effects)[-1] == "broadcast mutual_close"
    assert closed_cooperatively(pair) == answer.fee_satoshis


@pytest.mark.proves("C-069")
def test_ranges_that_do_not_overlap_fail_the_channel() -> None:
    pair, offer = negotiating()
    assert offer.fee_range is not None
    low = offer.fee_range.min_fee_satoshis
    effects = send(pair, pair.b, closing_message(pair, pair.a, low - 50, (low - 100, low - 10)))
    assert names(effects) == FAILED
    assert of_kind(effects, ErrorMessage)[0].data == b"fee ranges do not overlap"


@pytest.mark.proves("C-069")
def test_an_answer_outside_the_range_fails_the_channel() -> None:
    pair, offer = negotiating()
    assert offer.fee_range is not None
    high = offer.fee_range.max_fee_satoshis
    effects = send(pair, pair.a, closing_message(pair, pair.b, high + 10, (1, 100_000)))
    assert names(effects) == FAILED


@pytest.mark.proves("C-069")
def test_no_answer_in_time_fails_the_channel() -> None:
    pair, _ = negotiating()
    assert pair.a.timers["closing"] == 120
    assert names(pair.a.do(ev.TimerFired(name="closing"))) == FAILED[:3]
    assert lifecycle(pair.a) is Lifecycle.FORCE_CLOSING


@pytest.mark.proves("C-069")
def test_a_dust_output_fails_the_channel() -> None:
    pair = open_pair(push_msat=300_000_000, features=PLAIN)
    pair.a.do(ev.Shutdown())
    pair.end_turn(pair.a)
    pair.deliver(pair.a)
    pair.end_turn(pair.b)
    pair.deliver(pair.b)
    pair.end_turn(pair.a)
    # a funder that leaves itself less than what its script needs, but more than its own dust limit
    fee = 700_000 - 320
    for end in pair.ends:
        config = end.channel.config
        low = {side: replace(getattr(config, side), dust_limit=Sat(300)) for side in ("local", "remote")}
        shutdown = replace(end.channel.shutdown, **scripts(end, pair))
        end.take(replace(end.channel, config=replace(config, **low), shutdown=shutdown), ())
    message = closing_message(pair, pair.a, fee, (1, 700_000))
    assert names(send(pair, pair.b, message)) == FAILED


def scripts(end: ChannelEnd, pair: ChannelPair) -> dict[str, bytes]:
    """The funder's script becomes P2WSH, whose dust threshold is 330."""
    wide = b"\x00\x20" + bytes(32)
    return {"local_script": wide} if end is pair.a else {"remote_script": wide}


@pytest.mark.proves("C-069")
def test_a_fee_that_nobody_can_pay_fails_the_channel() -> None:
    pair, offer = negotiating()
    assert names(send(pair, pair.b, replace(offer, fee_satoshis=700_001))) == FAILED


@pytest.mark.proves("C-070")
@pytest.mark.parametrize("bad", ["zeros", "other_fee", "high_s"])
def test_a_bad_closing_signature_costs_the_connection(bad: str) -> None:
    pair, offer = negotiating()
    message = {
        "zeros": replace(offer, signature=bytes(64)),
        "other_fee": replace(offer, fee_satoshis=offer.fee_satoshis + 1),
        "high_s": replace(offer, signature=high_s(offer.signature)),
    }[bad]
    assert names(send(pair, pair.b, message)) == WARNED
    assert not pair.b.broadcasts


def high_s(signature: bytes) -> bytes:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    return signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


def test_without_ranges_offers_close_in_on_each_other() -> None:
    pair, offer = negotiating(max_fee=Sat(3_000))
    high = (offer.fee_range or FeeRange(min_fee_satoshis=0, max_fee_satoshis=0)).max_fee_satoshis
    fee, rounds = high + 1_000, 0
    while True:
        effects = send(pair, pair.a, closing_message(pair, pair.b, fee, None))
        answers = of_kind(effects, ClosingSigned)
        if "broadcast mutual_close" in names(effects):
            break
        rounds += 1
        answer = answers[0].fee_satoshis
        fee = answer + (fee - answer) // 8
    assert rounds >= 1
    assert fee <= high
    assert lifecycle(pair.a) is Lifecycle.CLOSING


@pytest.mark.proves("C-070")
def test_without_ranges_a_step_back_costs_the_connection() -> None:
    pair, offer = negotiating()
    high = (offer.fee_range or FeeRange(min_fee_satoshis=0, max_fee_satoshis=0)).max_fee_satoshis
    send(pair, pair.a, closing_message(pair, pair.b, high + 1_000, None))
    assert names(send(pair, pair.a, closing_message(pair, pair.b, high + 2_000, None))) == WARNED


def test_a_variant_without_the_peers_own_output_is_finished() -> None:
    pair, offer = negotiating()
    channel, state = pair.a.channel, pair.a.channel.shutdown
    request = SignMutualClose(
        request_id="test",
        setup=channel.setup,
        local_sat=Sat(0),
        remote_sat=Sat(300_000),
        local_script=state.local_script,
        remote_script=state.remote_script,
    )
    signature = run_inline(SIGNERS[0].sign_mutual_close(request)).signature
    effects = send(pair, pair.b, replace(offer, signature=signature))
    assert names(effects)[-1] == "broadcast mutual_close"
    assert [o.value for o in pair.b.broadcasts[-1].tx.outputs] == [300_000]


def test_the_negotiation_starts_again_after_a_reconnect() -> None:
    pair, _ = negotiating()
    pair.deliver(pair.a)  # the fundee has agreed and broadcast; its answer is lost
    assert lifecycle(pair.b) is Lifecycle.CLOSING
    assert lifecycle(pair.a) is Lifecycle.NORMAL
    for end in pair.ends:
        end.commit()
        end.restart()
    pair.connect()
    pair.settle()
    closed_cooperatively(pair)


def test_closing_signed_out_of_turn_costs_the_connection() -> None:
    pair = open_pair()
    message = ClosingSigned(channel_id=pair.a.channel.channel_id, fee_satoshis=1, signature=bytes(64))
    assert names(send(pair, pair.a, message)) == WARNED


def test_our_signers_refusal_closes_nothing() -> None:
    pair = open_pair()
    pair.a.hold_signer = True
    pair.a.do(ev.Shutdown())
    pair.settle()
    request = pair.a.questions.popleft()
    pair.a.do(ev.SignerFailed(request_id=request.request_id, refused=True, text="no"))
    assert names(pair.a.do(ev.TimerFired(name="closing"))) == []
    assert lifecycle(pair.a) is Lifecycle.NORMAL


# -- by force ----------------------------------------------------------------------------------------------------------


def test_a_force_close_recovers_both_balances() -> None:
    pair = open_pair(push_msat=300_000_000)
    pay(pair, pair.a, 50_000_000)
    for end in pair.ends:
        forget(end)
    pair.a.do(ev.ForceClose(reason="why not"))
    assert names(pair.a.log) == FAILED
    pair.settle()
    assert lifecycle(pair.b) is Lifecycle.FORCE_CLOSING, "the error makes the peer close too"
    commitment = pair.a.broadcasts[-1].tx
    pair.a.commit()
    pair.a.restart()
    pair.confirm_spend(commitment)
    height = pair.a.env.height
    assert lifecycle(pair.b) is Lifecycle.REMOTE_CLOSED
    sweep = pair.b.broadcasts[-1]
    assert sweep.kind is BroadcastKind.SWEEP
    assert sweep.spent[0].value == 350_000
    assert sweep.tx.inputs[0].sequence == 1
    assert sweep.tx.outputs[0].script == pair.b.env.sweep_script
    pair.confirm_spend(sweep.tx)
    pair.mine(144 - 3)
    assert pair.a.broadcasts[-1].kind is BroadcastKind.UNILATERAL_CLOSE
    pair.mine(1)
    own = pair.a.broadcasts[-1]
    assert own.kind is BroadcastKind.SWEEP
    assert pair.a.env.height == height + 143, "it may be in the next block"
    assert own.tx.inputs[0].sequence == 144
    pair.a.commit()
    pair.a.restart()
    pair.confirm_spend(own.tx)
    pair.mine(5)
    for end, how in ((pair.a, "local_force"), (pair.b, "remote_force")):
        closed = [e for e in end.events if isinstance(e, ChannelClosed)]
        assert [(c.how, c.txid) for c in closed] == [(how, commitment.txid)]
        assert not end.rows


def test_a_force_close_with_htlcs_says_that_they_are_not_claimed() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 5_000_000)
    forget(pair.a)
    pair.a.do(ev.FailChannel(text="lost patience"))
    assert [e.subject for e in pair.a.events if isinstance(e, Alarm)] == ["htlcs_on_chain"]
    values = sorted(o.value for o in pair.a.broadcasts[-1].tx.outputs)
    assert values[:3] == [330, 330, 5_000], "two anchors and the HTLC"


def test_an_error_of_the_peer_closes_on_chain() -> None:
    pair = open_pair()
    message = ErrorMessage(channel_id=pair.a.channel.channel_id, data=b"oops\n\x1b[31m")
    assert names(send(pair, pair.a, message)) == FAILED[1:]
    assert pair.a.channel.failure == "the peer sent an error: oops??[31m"


def test_a_refused_holder_signature_is_told_and_a_restart_asks_again() -> None:
    pair = open_pair()
    pair.a.hold_signer = True
    pair.a.do(ev.ForceClose(reason="x"))
    pair.a.commit()
    pair.a.restart()
    assert len(pair.a.questions) == 1
    pair.a.answer_signer()
    assert pair.a.broadcasts[-1].kind is BroadcastKind.UNILATERAL_CLOSE


def test_a_revoked_commitment_raises_the_alarm() -> None:
    pair = open_pair(push_msat=300_000_000)
    old = pair.b.channel
    other = make_pair()
    other.b.take(old, ())
    other.b.do(ev.ForceClose(reason="cheat"))
    stale = other.b.broadcasts[-1].tx
    pay(pair, pair.a, 50_000_000)
    forget(pair.a)
    pair.a.do(ev.FundingSpent(tx=stale, height=pair.a.env.height))
    assert [e.subject for e in pair.a.events if isinstance(e, Alarm)] == ["breach"]
    assert lifecycle(pair.a) is Lifecycle.REMOTE_CLOSED
    assert pair.a.broadcasts[-1].kind is BroadcastKind.SWEEP


def test_a_reorg_of_the_close_is_survived() -> None:
    pair = open_pair(push_msat=300_000_000)
    pair.a.do(ev.ForceClose(reason="x"))
    tx = pair.a.broadcasts[-1].tx
    for end in pair.ends:
        end.do(ev.FundingSpent(tx=tx, height=end.env.height))
        end.do(ev.FundingUnspent())
        assert end.channel.lifecycle in (Lifecycle.FORCE_CLOSING, Lifecycle.REMOTE_CLOSED)
        assert end.channel.spend is None
    pair.confirm_spend(tx)
    assert pair.b.channel.spend is not None


def test_a_channel_that_was_failed_releases_no_secret() -> None:
    pair = open_pair()
    pair.b.hold_signer = True
    pair.add(pair.a, 5_000_000)
    pair.end_turn(pair.a)
    pair.deliver(pair.a)
    pair.b.do(ev.ForceClose(reason="x"))
    assert [type(q).__name__ for q in pair.b.questions] == ["ValidateHolderCommitment", "SignHolderCommitment"]
    pair.b.answer_signer()
    assert not pair.b.questions
    assert pair.b.channel.local_revoked == 0
    assert pair.b.broadcasts[-1].kind is BroadcastKind.UNILATERAL_CLOSE
    assert not pair.b.channel.pending


def test_a_refused_question_is_not_asked_again_after_a_reconnect() -> None:
    pair = open_pair()
    pair.a.hold_signer = True
    pair.add(pair.a, 5_000_000)
    pair.end_turn(pair.a)
    request = pair.a.questions.popleft()
    pair.a.do(ev.SignerFailed(request_id=request.request_id, refused=True, text="no"))
    pair.disconnect()
    pair.a.restart()
    pair.connect()
    pair.deliver(pair.b)
    assert not [q for q in pair.a.questions if q.request_id == request.request_id]
    assert "commitment_signed" not in waiting_names(pair.a)
    assert lifecycle(pair.a) is Lifecycle.NORMAL
