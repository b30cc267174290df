"""``option_simple_close``: both sides propose, sign and replace closing transactions (BOLT 2; C-064 to C-068)."""

from typing import Any, TypeVar

import pytest
from channel_kit import SIGNERS, commit_add, forget, lifecycle, open_pair, preimage_of, refused, send, waiting
from leyden.bitcoin import op_return, p2pkh, p2tr, p2wpkh
from leyden.channel import ChannelPolicy, ErrorCode, Lifecycle, load
from leyden.channel import events as ev
from leyden.commitment import CloseShape, SimpleClose, make_simple_closing_tx
from leyden.hooks.signing import SignSimpleClose
from leyden.hooks.types import BroadcastKind, ChannelClosed
from leyden.node.host import run_inline
from leyden.testing.channel_pair import PAIR_FEATURES, ChannelEnd, ChannelPair, names
from leyden.testing.guard_ledger import GuardViolation, take_violations
from leyden.testing.signer import GuardingSigner
from leyden.types import FeeRatePerKw, Msat, Sat
from leyden.types.errors import Rule
from leyden.types.rules import C_065, C_066, C_067
from leyden.wire import ClosingComplete, ClosingSig, ClosingSigned
from leyden.wire import Shutdown as ShutdownMessage
from leyden.wire.features import Feature, Features
from msgspec.structs import replace

M = TypeVar("M")
SIMPLE = PAIR_FEATURES | Features.of(Feature.OPTION_SIMPLE_CLOSE)
FREE = Features(SIMPLE.bits & ~(1 << Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT))
WARNED = ["send warning", "disconnect"]
SECOND = p2wpkh(b"\x07" * 20)


def simple_pair(push_msat: int = 300_000_000, features: Features = SIMPLE) -> ChannelPair:
    return open_pair(push_msat=push_msat, features=features)


def fee_of(end: ChannelEnd, index: int) -> int:
    tx = [b for b in end.broadcasts if b.kind is BroadcastKind.MUTUAL_CLOSE][index].tx
    return end.channel.config.funding_satoshis - sum(output.value for output in tx.outputs)


def closes(end: ChannelEnd) -> list[bytes]:
    return [b.tx.txid for b in end.broadcasts if b.kind is BroadcastKind.MUTUAL_CLOSE]


def until_complete(pair: ChannelPair) -> ClosingComplete:
    """``a`` has proposed; its message waits."""
    pair.a.do(ev.Shutdown())
    pair.end_turn(pair.a)
    pair.deliver(pair.a)
    pair.end_turn(pair.b)
    pair.deliver(pair.b)
    pair.end_turn(pair.a)
    return waiting(pair.a, ClosingComplete)


@pytest.mark.parametrize("first", ["a", "b"])
def test_both_sides_get_the_transaction_that_they_pay_for(first: str) -> None:
    pair = simple_pair()
    end = pair.a if first == "a" else pair.b
    other = pair.other(end)
    end.do(ev.Shutdown())
    pair.settle()
    assert {e.channel.lifecycle for e in pair.ends} == {Lifecycle.CLOSING}
    assert closes(pair.a) == closes(pair.b)
    assert len(set(closes(pair.a))) == 2, "that of whoever asked comes first"
    mine, theirs = (b.tx for b in end.broadcasts if b.kind is BroadcastKind.MUTUAL_CLOSE)
    balance = {pair.a.env.shutdown_script: 700_000, pair.b.env.shutdown_script: 300_000}
    for tx, payer in ((mine, end), (theirs, other)):
        assert tx.inputs[0].sequence == 0xFFFFFFFD
        short = {o.script: balance[o.script] - o.value for o in tx.outputs}
        assert short.pop(payer.env.shutdown_script) > 0
        assert set(short.values()) == {0}
    for loser in (theirs, mine):  # a reorg may change which one wins
        pair.confirm_spend(loser)
        assert {e.channel.spend.tx.txid for e in pair.ends if e.channel.spend} == {loser.txid}
        if loser is theirs:
            for e in pair.ends:
                e.do(ev.FundingUnspent())
    pair.mine(6)
    for e in pair.ends:
        assert [c.how for c in e.events if isinstance(c, ChannelClosed)] == ["cooperative"]
        assert not e.rows


def test_peers_without_the_feature_close_as_before() -> None:
    pair = simple_pair()
    for end in pair.ends:
        end.env = replace(end.env, features=PAIR_FEATURES)
    pair.a.do(ev.Shutdown())
    pair.settle()
    assert pair.a.broadcasts[-1].tx.inputs[0].sequence == 0xFFFFFFFF
    complete = ClosingComplete(
        channel_id=pair.a.channel.channel_id,
        closer_scriptpubkey=b"",
        closee_scriptpubkey=b"",
        fee_satoshis=1,
        locktime=0,
        closer_output_only=bytes(64),
    )
    assert names(send(pair, pair.a, complete)) == WARNED


def test_closing_signed_costs_the_connection_once_simple_close_is_negotiated() -> None:
    pair = simple_pair()
    until_complete(pair)
    message = ClosingSigned(channel_id=pair.b.channel.channel_id, fee_satoshis=500, signature=bytes(64))
    assert names(send(pair, pair.b, message)) == WARNED


def test_htlcs_are_resolved_first() -> None:
    pair = simple_pair()
    id = commit_add(pair, pair.a, 20_000_000)
    pair.a.do(ev.Shutdown())
    pair.settle()
    assert not closes(pair.a)
    pair.b.do(ev.FulfillHtlc(id=id, preimage=preimage_of(20_000_000)))
    pair.settle()
    assert len(closes(pair.a)) == 2


# -- C-064: what we propose --------------------------------------------------------------------------------------------


@pytest.mark.proves("C-064")
@pytest.mark.parametrize(
    ("push_msat", "closer", "fields"),
    [
        (300_000_000, "a", {"closer_output_only", "closer_and_closee_outputs"}),
        (300_000_000, "b", {"closer_and_closee_outputs"}),
        (0, "a", {"closer_output_only"}),
        (500_000_000, "a", {"closer_output_only", "closer_and_closee_outputs"}),
        (500_000, "b", {"closee_output_only"}),
    ],
)
def test_the_shapes_that_we_sign_follow_who_has_less(push_msat: int, closer: str, fields: set[str]) -> None:
    pair = simple_pair(push_msat)
    end = pair.a if closer == "a" else pair.b
    end.do(ev.Shutdown())
    pair.settle()
    message = next(m for m in sent(end, ClosingComplete))
    assert {shape.value for shape in CloseShape if getattr(message, shape.value) is not None} == fields
    assert {e.channel.lifecycle for e in pair.ends} == {Lifecycle.CLOSING}


def sent(end: ChannelEnd, kind: type[M]) -> list[M]:
    messages = [getattr(effect, "message", None) for effect in end.log]
    return [message for message in messages if isinstance(message, kind)]


def test_a_fee_above_our_balance_is_never_proposed() -> None:
    pair = simple_pair(push_msat=400_000)
    pair.b.do(ev.Shutdown(feerate=FeeRatePerKw(20_000)))
    pair.settle()
    message = sent(pair.b, ClosingComplete)[0]
    assert message.fee_satoshis == 400
    nothing = simple_pair(push_msat=0)
    nothing.b.do(ev.Shutdown())
    nothing.settle()
    assert not sent(nothing.b, ClosingComplete), "it has nothing to pay with"
    assert not closes(nothing.a)
    nothing.a.do(ev.TimerFired(name="closing"))  # whoever asked stays silent
    nothing.settle()
    assert len(closes(nothing.a)) == len(closes(nothing.b)) == 1


def test_an_own_output_that_would_be_dust_limits_the_fee() -> None:
    pair = simple_pair()
    pair.a.do(ev.Shutdown(feerate=FeeRatePerKw(249_000), max_fee=Sat(10**9)))
    pair.settle()
    fee = sent(pair.a, ClosingComplete)[0].fee_satoshis
    assert fee < 700_000 - 294
    big = FeeRatePerKw(2_000_000)
    pair = simple_pair()
    pair.a.do(ev.Shutdown(feerate=big, max_fee=Sat(10**9)))
    pair.settle()
    assert sent(pair.a, ClosingComplete)[0].fee_satoshis == 700_000 - 294


@pytest.mark.proves("C-108")
def test_an_op_return_script_gives_everything_to_the_miners() -> None:
    pair = simple_pair(features=FREE)
    pair.a.do(ev.Shutdown(script=op_return(b"goodbye")))
    pair.settle()
    tx = next(b.tx for b in pair.a.broadcasts if b.kind is BroadcastKind.MUTUAL_CLOSE)
    assert {o.script: o.value for o in tx.outputs} == {
        op_return(b"goodbye"): 0,
        pair.b.env.shutdown_script: 300_000,
    }


# -- C-065, C-066: what we sign ----------------------------------------------------------------------------------------


def peer_signed(pair: ChannelPair, shape: CloseShape, fee: int, script: bytes) -> bytes:
    """What ``a`` would sign as closer."""
    channel = pair.a.channel
    request = SignSimpleClose(
        request_id="x",
        setup=channel.setup,
        local_is_closer=True,
        local_msat=channel.local_settled,
        remote_msat=channel.remote_settled,
        local_script=script,
        remote_script=pair.b.env.shutdown_script,
        fee=Sat(fee),
        locktime=0,
        shapes=(shape,),
    )
    return run_inline(SIGNERS[0].sign_simple_close(request)).signatures[0]


HALF = (0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141).to_bytes(32, "big")


def high_s(signature: bytes) -> bytes:
    order = int.from_bytes(HALF, "big")
    return signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


@pytest.mark.proves("C-065", "C-066")
@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (C_065, {"fee_satoshis": 700_001}),
        (C_065, {"fee_satoshis": 1_234}),
        (C_065, {"closer_and_closee_outputs": None}),
        (C_065, {"closer_and_closee_outputs": bytes(64)}),
        (C_065, {"closer_and_closee_outputs": "high"}),
        (C_066, {"closee_scriptpubkey": SECOND}),
        (C_066, {"closer_scriptpubkey": p2pkh(bytes(20))}),
        (C_066, {"closer_scriptpubkey": SECOND}),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_proposal_that_we_do_not_sign(rule: Rule, change: dict[str, object]) -> None:
    pair = simple_pair()
    message = until_complete(pair)
    if change.get("closer_and_closee_outputs") == "high":
        change = {"closer_and_closee_outputs": high_s(message.closer_and_closee_outputs or b"")}
    forget(pair.b)
    assert names(send(pair, pair.b, replace(message, **change))) == WARNED
    assert lifecycle(pair.b) is Lifecycle.NORMAL
    pair.reconnect()
    assert lifecycle(pair.b) is Lifecycle.CLOSING, "the next attempt is sound"


def test_any_fee_and_any_locktime_of_the_peers_is_signed() -> None:
    pair = simple_pair()
    message = until_complete(pair)
    for shape, fee in ((CloseShape.BOTH, 699_000), (CloseShape.BOTH, 0)):
        signature = peer_signed(pair, shape, fee, pair.a.env.shutdown_script)
        changed = replace(message, fee_satoshis=fee, closer_output_only=None, closer_and_closee_outputs=signature)
        forget(pair.b)
        words = names(send(pair, pair.b, changed))
        assert words[:3] == ["sign SignSimpleClose", "send closing_sig", "broadcast mutual_close"]


def test_our_output_is_left_out_only_when_it_is_dust() -> None:
    pair = simple_pair(push_msat=200_000)
    pair.a.do(ev.Shutdown())
    pair.settle()
    assert len(pair.b.broadcasts[-1].tx.outputs) == 1
    pair = simple_pair()
    message = until_complete(pair)
    only = replace(message, closer_and_closee_outputs=None)
    assert names(send(pair, pair.b, only)) == WARNED


def test_a_second_proposal_before_our_answer_costs_the_connection() -> None:
    pair = simple_pair()
    message = until_complete(pair)
    pair.b.hold_signer = True
    assert names(send(pair, pair.b, message)) == ["sign SignSimpleClose"]
    assert names(send(pair, pair.b, message)) == WARNED
    pair.disconnect()
    pair.b.hold_signer = False
    pair.b.answer_signer()
    assert not closes(pair.b), "an answer of the last connection"
    pair.connect()
    pair.settle()
    assert len(set(closes(pair.b))) == 2


# -- C-067: what we finish ---------------------------------------------------------------------------------------------


@pytest.mark.proves("C-067")
@pytest.mark.parametrize(
    "change",
    [
        {"closer_scriptpubkey": SECOND},
        {"closee_scriptpubkey": SECOND},
        {"fee_satoshis": 1},
        {"locktime": 1},
        {"closer_and_closee_outputs": None},
        {"closer_output_only": bytes(64)},
        {"closer_and_closee_outputs": None, "closee_output_only": "moved"},
        {"closer_and_closee_outputs": bytes(64)},
        {"closer_and_closee_outputs": "high"},
    ],
    ids=str,
)
def test_an_answer_that_we_do_not_take(change: dict[str, Any]) -> None:
    pair = simple_pair()
    until_complete(pair)
    pair.deliver(pair.a)
    answer = waiting(pair.b, ClosingSig)
    signature = answer.closer_and_closee_outputs or b""
    known = {"moved": signature, "high": high_s(signature)}
    forget(pair.a)
    changes: dict[str, Any] = {name: known.get(value, value) for name, value in change.items()}
    words = names(send(pair, pair.a, replace(answer, **changes)))
    assert words == WARNED
    assert not closes(pair.a)
    assert C_067.enabled


def test_an_answer_without_a_question_costs_the_connection() -> None:
    pair = simple_pair()
    until_complete(pair)
    pair.deliver(pair.a)
    answer = waiting(pair.b, ClosingSig)
    send(pair, pair.a, answer)
    assert len(closes(pair.a)) == 1
    assert names(send(pair, pair.a, answer)) == WARNED


def test_no_answer_in_time_costs_the_connection_and_not_the_channel() -> None:
    pair = simple_pair()
    until_complete(pair)
    assert pair.a.timers["closing"]
    assert names(pair.a.do(ev.TimerFired(name="closing"))) == WARNED
    assert lifecycle(pair.a) is Lifecycle.NORMAL
    pair.reconnect()
    assert len(set(closes(pair.a))) == 2
    assert pair.a.timers["closing"] == 0


# -- C-068: again ------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-068")
def test_a_higher_fee_waits_for_the_answer_to_the_last_one() -> None:
    pair = simple_pair()
    until_complete(pair)
    pair.a.do(ev.Shutdown(feerate=FeeRatePerKw(2_000)))
    assert len(sent(pair.a, ClosingComplete)) == 1
    pair.settle()
    fees = [m.fee_satoshis for m in sent(pair.a, ClosingComplete)]
    assert fees == [fees[0], 4 * fees[0]]
    assert len(set(closes(pair.a))) == 3
    assert set(closes(pair.a)) == set(closes(pair.b))


@pytest.mark.parametrize("who", ["a", "b"])
def test_either_side_replaces_a_close_that_is_out(who: str) -> None:
    pair = simple_pair()
    pair.a.do(ev.Shutdown())
    pair.settle()
    end = pair.a if who == "a" else pair.b
    refused(end, ev.Shutdown(), ErrorCode.BAD_FEERATE)
    refused(end, ev.Shutdown(feerate=FeeRatePerKw(600)), ErrorCode.BAD_FEERATE)
    end.do(ev.Shutdown(feerate=FeeRatePerKw(3_000)))
    pair.settle()
    assert closes(pair.a)[-1] == closes(pair.b)[-1]
    assert fee_of(end, -1) == 6 * fee_of(end, 0)
    for each in pair.ends:
        assert load(each.rows.items()).closing_tx is not None
    pair.disconnect()
    refused(end, ev.Shutdown(feerate=FeeRatePerKw(9_000)), ErrorCode.CLOSING)


@pytest.mark.proves("C-068")
def test_another_script_is_adopted_for_the_peers_next_proposal() -> None:
    pair = simple_pair(features=FREE)
    pair.a.do(ev.Shutdown())
    pair.settle()
    pair.a.do(ev.Shutdown(script=p2tr(b"\x02" * 32), feerate=FeeRatePerKw(2_000)))
    pair.settle()
    pair.b.do(ev.Shutdown(feerate=FeeRatePerKw(4_000)))
    pair.settle()
    tx = pair.b.broadcasts[-1].tx
    assert len(sent(pair.b, ClosingComplete)) == 2
    assert not pair.a.disconnects
    assert {o.script for o in tx.outputs} == {p2tr(b"\x02" * 32), pair.b.env.shutdown_script}
    assert tx.txid == pair.a.broadcasts[-1].tx.txid
    pair.a.restart()
    pair.b.restart()
    pair.connect()
    pair.deliver(pair.a, 1)
    pair.deliver(pair.b, 1)
    again = next(m for m in sent(pair.a, ShutdownMessage)[::-1])
    assert again.scriptpubkey == p2tr(b"\x02" * 32)
    pair.settle()


def test_a_script_committed_upfront_stays() -> None:
    pair = simple_pair()
    pair.a.do(ev.Shutdown())
    pair.settle()
    refused(pair.a, ev.Shutdown(script=SECOND, feerate=FeeRatePerKw(2_000)), ErrorCode.BAD_SCRIPT)


@pytest.mark.parametrize("cut", range(12))
def test_the_connection_is_cut_after_each_message_and_both_restart(cut: int) -> None:
    pair = simple_pair()
    pair.a.do(ev.Shutdown())
    pair.end_turn(pair.a)
    for step in range(cut):
        source = pair.ends[step % 2]
        pair.deliver(source, 1)
        for end in pair.ends:
            pair.end_turn(end)
    pair.disconnect()
    for end in pair.ends:
        end.restart()
    pair.connect()
    pair.settle()
    assert {end.channel.lifecycle for end in pair.ends} == {Lifecycle.CLOSING}
    assert closes(pair.a)
    assert set(closes(pair.a)) == set(closes(pair.b))


# -- the guard ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"local_msat": Msat(600_000_000), "remote_msat": Msat(400_000_000)},
        {"fee": Sat(700_001)},
        {"local_script": SECOND},
        {"local_is_closer": False, "shapes": (CloseShape.CLOSER_ONLY,)},
    ],
    ids=str,
)
def test_the_guard_refuses_an_unsafe_close(change: dict[str, object]) -> None:
    guard = GuardingSigner(SIGNERS[0])
    pair = ChannelPair(guard, SIGNERS[1], features=SIMPLE)
    pair.open(1_000_000, 300_000_000)
    channel = pair.a.channel
    request = SignSimpleClose(
        request_id="x",
        setup=channel.setup,
        local_is_closer=True,
        local_msat=Msat(700_000_000),
        remote_msat=Msat(300_000_000),
        local_script=pair.a.env.shutdown_script,
        remote_script=pair.b.env.shutdown_script,
        fee=Sat(400),
        locktime=0,
        shapes=(CloseShape.BOTH,),
    )
    try:
        with pytest.raises(GuardViolation):
            run_inline(guard.sign_simple_close(replace(request, **change)))
    finally:
        take_violations()
    assert len(run_inline(guard.sign_simple_close(request)).signatures) == 1


def test_the_transaction_is_that_of_bolt_3() -> None:
    pair = simple_pair()
    pair.a.do(ev.Shutdown())
    pair.settle()
    first = next(b.tx for b in pair.a.broadcasts if b.kind is BroadcastKind.MUTUAL_CLOSE)
    close = SimpleClose(
        funding_outpoint=pair.a.channel.setup.funding_outpoint,
        closer_script=pair.a.env.shutdown_script,
        closee_script=pair.b.env.shutdown_script,
        closer_msat=Msat(700_000_000),
        closee_msat=Msat(300_000_000),
        fee=Sat(fee_of(pair.a, 0)),
        locktime=0,
    )
    assert first.txid == make_simple_closing_tx(close, CloseShape.BOTH).txid
    assert ChannelPolicy().closing_timeout_seconds
