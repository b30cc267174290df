"""Coming back after a cut connection or a crash: exact retransmission and lost data (BOLT 2; C-092 to C-098)."""

import pytest
from channel_kit import (
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
from leyden.channel import ErrorCode, Lifecycle, Link
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.hooks.types import Alarm
from leyden.testing.channel_pair import ChannelPair, names
from leyden.types import FeeRatePerKw
from leyden.wire import (
    ChannelReady,
    ChannelReestablish,
    CommitmentSigned,
    ErrorMessage,
    Message,
    RevokeAndAck,
    UpdateAddHtlc,
    decode,
)
from msgspec.structs import replace

FAILED = ["send error", "publish ChannelClosing", "sign SignHolderCommitment", "broadcast unilateral_close"]


def connected(pair: ChannelPair) -> tuple[ChannelReestablish, ChannelReestablish]:
    """Reconnect and keep both ``channel_reestablish`` on the table."""
    pair.disconnect()
    for end in pair.ends:
        forget(end)
    pair.connect()
    return waiting(pair.a, ChannelReestablish), waiting(pair.b, ChannelReestablish)


@pytest.mark.proves("C-092")
def test_reestablish_comes_first_and_everything_else_waits_for_the_peers() -> None:
    pair = open_pair()
    pair.add(pair.a, 5_000_000)
    connected(pair)
    assert waiting_names(pair.a) == ["channel_reestablish"]
    pair.end_turn(pair.a)
    assert waiting_names(pair.a) == ["channel_reestablish"]
    pair.deliver(pair.b)
    assert waiting_names(pair.a) == ["channel_reestablish", "channel_ready", "update_add_htlc"]


@pytest.mark.proves("C-092")
def test_a_disconnect_drops_what_the_peer_has_not_signed_for() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 6_000_000)
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(6_000_000)))
    pair.deliver(pair.b)
    pair.add(pair.a, 5_000_000)
    pair.deliver(pair.a)
    assert len(pair.b.channel.remote_htlcs) == 2
    pair.disconnect()
    assert list(pair.b.channel.remote_htlcs) == [0]
    assert pair.b.channel.next_remote_id == 1
    assert pair.a.channel.local_htlcs[0].removal is None
    assert list(pair.a.channel.local_htlcs) == [0, 1], "our own proposals stay"
    pair.connect()
    pair.settle()
    assert list(pair.a.channel.local_htlcs) == [1]


def test_a_message_before_reestablish_costs_the_connection() -> None:
    pair = open_pair()
    connected(pair)
    message = UpdateAddHtlc(
        channel_id=pair.a.channel.channel_id,
        id=0,
        amount_msat=1_000_000,
        payment_hash=bytes(32),
        cltv_expiry=500,
        onion_routing_packet=bytes(1366),
    )
    assert names(send(pair, pair.b, message)) == ["send warning", "disconnect"]


@pytest.mark.proves("C-093")
def test_rows_exist_from_broadcast_on_the_funder_and_from_funding_signed_on_the_fundee() -> None:
    pair = make_pair()
    pair.propose()
    pair.accept()
    pair.settle()
    pair.provide_funding()
    pair.a.commit()
    assert not pair.a.rows
    assert not pair.b.rows
    pair.deliver(pair.a)
    assert pair.b.commit()
    assert pair.b.rows
    pair.deliver(pair.b)
    assert pair.a.broadcasts
    assert pair.a.commit()
    for end in pair.ends:
        end.restart()
    pair.connect()
    pair.settle()
    pair.confirm_funding()
    pair.settle()
    pay(pair, pair.a, 5_000_000)


@pytest.mark.proves("C-093")
def test_a_failed_channel_only_repeats_its_error() -> None:
    pair = open_pair()
    pair.a.do(ev.ForceClose(reason="enough"))
    pair.a.commit()
    pair.a.restart()
    pair.disconnect()
    forget(pair.a)
    pair.a.do(ev.PeerConnected(features=pair.a.features))
    assert [m.data for m in of_kind(pair.a.log, ErrorMessage)] == [b"enough"]
    assert waiting_names(pair.a) == ["error"]
    forget(pair.a)
    pair.b.do(ev.PeerConnected(features=pair.b.features))
    assert names(send(pair, pair.a, waiting(pair.b, ChannelReestablish))) == ["send error"]


@pytest.mark.proves("C-093")
def test_shutdown_is_repeated() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 5_000_000)
    pair.b.do(ev.Shutdown())
    pair.settle()
    assert pair.a.channel.shutdown.sent
    connected(pair)
    pair.settle()
    for end in pair.ends:
        assert names(end.log).count("send shutdown") == 1
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(5_000_000)))
    pair.settle()
    assert {end.channel.lifecycle for end in pair.ends} == {Lifecycle.CLOSING}


@pytest.mark.proves("C-094")
def test_number_0_asks_for_a_force_close_and_gets_it() -> None:
    pair = open_pair()
    pay(pair, pair.a, 5_000_000)
    message, _ = connected(pair)
    words = names(send(pair, pair.b, replace(message, next_commitment_number=0)))
    assert words == FAILED[1:]
    assert lifecycle(pair.b) is Lifecycle.FORCE_CLOSING


@pytest.mark.proves("C-095")
@pytest.mark.parametrize(
    "change",
    [
        {"next_commitment_number": 1},
        {"next_commitment_number": 2},
        {"next_commitment_number": 4},
        {"next_revocation_number": 0, "your_last_per_commitment_secret": bytes(32)},
        {"next_revocation_number": 3},
        {"next_revocation_number": (1 << 64) - 1},
        {"your_last_per_commitment_secret": b"\1" * 32},
    ],
)
def test_impossible_numbers_and_wrong_secrets_fail_the_channel(change: dict[str, object]) -> None:
    pair = open_pair()
    pay(pair, pair.a, 5_000_000)
    assert pair.b.channel.remote_number == 2
    message, _ = connected(pair)
    words = names(send(pair, pair.b, replace(message, **change)))
    assert [w for w in words if "CheckFutureSecret" not in w][-4:] == FAILED
    assert lifecycle(pair.b) is Lifecycle.FORCE_CLOSING


def lost(pair: ChannelPair, name: str) -> list[Message]:
    """Everything that waits on one side, thrown away with the connection."""
    end = pair.a if name == "a" else pair.b
    messages = [m for m in map(decode, end.sent) if isinstance(m, Message)]
    end.commit()
    return messages


@pytest.mark.proves("C-096")
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("hold", [False, True])
def test_a_lost_commitment_is_repeated_exactly(restart: bool, hold: bool) -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 3_000_000)
    pair.add(pair.a, 5_000_000)
    pair.add(pair.a, 6_000_000)
    pair.a.do(ev.UpdateFee(feerate=FeeRatePerKw(700)))
    pair.a.hold_signer = hold
    pair.end_turn(pair.a)
    pair.a.answer_signer()
    first = lost(pair, "a")
    assert [m.NAME for m in first] == ["update_add_htlc", "update_add_htlc", "update_fee", "commitment_signed"]
    pair.add(pair.a, 7_000_000)
    pair.a.commit()
    if restart:
        pair.a.restart()
        pair.b.do(ev.PeerDisconnected())
    else:
        pair.disconnect()
    pair.connect()
    pair.deliver(pair.b)
    pair.a.answer_signer()
    again = [m for m in map(decode, pair.a.sent) if isinstance(m, Message)][1:]
    assert again[:4] == first
    assert [m.NAME for m in again[4:]] == ["update_add_htlc"]
    pair.a.hold_signer = False
    pair.settle()
    assert len([d for d in pair.b.deliveries if isinstance(d, fx.HtlcReceived)]) == 4
    assert pair.b.channel.feerate == 700


@pytest.mark.proves("C-096")
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("revoke_first", [False, True])
def test_both_lost_messages_are_repeated_in_their_first_order(restart: bool, revoke_first: bool) -> None:
    pair = open_pair(push_msat=500_000_000)
    pair.add(pair.a, 5_000_000)
    pair.add(pair.b, 6_000_000)
    pair.end_turn(pair.a)
    if revoke_first:
        pair.deliver(pair.a)
        pair.end_turn(pair.b)
    else:
        pair.end_turn(pair.b)
        pair.deliver(pair.a)
    first = [m for m in lost(pair, "b") if isinstance(m, CommitmentSigned | RevokeAndAck)]
    order = ["revoke_and_ack", "commitment_signed"] if revoke_first else ["commitment_signed", "revoke_and_ack"]
    assert [m.NAME for m in first] == order
    if restart:
        pair.b.restart()
        pair.b.sent.clear()
        pair.a.do(ev.PeerDisconnected())
        pair.a.sent.clear()
    else:
        pair.disconnect()
    pair.connect()
    pair.deliver(pair.a)
    again = [m for m in map(decode, pair.b.sent) if isinstance(m, CommitmentSigned | RevokeAndAck)]
    assert again == first
    pair.settle()
    for end in pair.ends:
        assert len([d for d in end.deliveries if isinstance(d, fx.HtlcReceived)]) == 1


@pytest.mark.proves("C-097")
@pytest.mark.parametrize("hold", [False, True])
def test_an_old_copy_never_broadcasts(hold: bool) -> None:
    pair = open_pair()
    pay(pair, pair.a, 5_000_000)
    old = dict(pair.b.rows)
    pay(pair, pair.a, 6_000_000)
    pair.disconnect()
    pair.b.rows = old
    pair.b.restart()
    forget(pair.b)
    pair.b.hold_signer = hold
    pair.connect()
    pair.deliver(pair.a)
    if hold:
        assert pair.b.channel.link is Link.REESTABLISHING
        assert names(send(pair, pair.b, waiting(pair.a, ChannelReestablish) if pair.a.sent else _ready(pair))) == []
        pair.b.answer_signer()
    assert lifecycle(pair.b) is Lifecycle.DATA_LOSS
    assert not pair.b.broadcasts
    assert len(of_kind(pair.b.log, ErrorMessage)) == 1
    assert [e.subject for e in pair.b.events if isinstance(e, Alarm)] == ["data_loss"]
    assert not [w for w in names(pair.b.log) if "SignHolder" in w]
    # the peer closes, as it was asked to, and our balance comes back
    pair.deliver(pair.b)
    pair.b.commit()
    pair.b.restart()
    pair.mine(5)
    assert not pair.b.broadcasts
    pair.b.hold_signer = False
    assert lifecycle(pair.a) is Lifecycle.FORCE_CLOSING
    pair.confirm_spend(pair.a.broadcasts[-1].tx)
    assert lifecycle(pair.b) is Lifecycle.REMOTE_CLOSED
    assert [b.kind.value for b in pair.b.broadcasts] == ["sweep"]


def _ready(pair: ChannelPair) -> Message:
    return RevokeAndAck(
        channel_id=pair.b.channel.channel_id,
        per_commitment_secret=bytes(32),
        next_per_commitment_point=pair.b.channel.remote_point,
    )


@pytest.mark.proves("C-097")
def test_a_data_loss_channel_refuses_to_close_by_command() -> None:
    pair = open_pair()
    pay(pair, pair.a, 5_000_000)
    old = dict(pair.b.rows)
    pay(pair, pair.a, 6_000_000)
    pair.disconnect()
    pair.b.rows = old
    pair.b.restart()
    pair.connect()
    pair.deliver(pair.a)
    refused(pair.b, ev.ForceClose(reason="please"), ErrorCode.WRONG_STATE)


@pytest.mark.proves("C-098")
def test_channel_ready_is_repeated_until_the_first_update() -> None:
    pair = open_pair()
    connected(pair)
    pair.settle()
    for end in pair.ends:
        assert names(end.log).count("send channel_ready") == 1
    pay(pair, pair.a, 5_000_000)
    connected(pair)
    pair.settle()
    for end in pair.ends:
        assert "send channel_ready" not in names(end.log)


@pytest.mark.proves("C-098")
def test_a_duplicate_channel_ready_changes_nothing() -> None:
    pair = open_pair()
    point = pair.b.channel.remote_point
    before = pair.b.channel.remote_next_point
    assert point != before
    duplicate = ChannelReady(channel_id=pair.b.channel.channel_id, second_per_commitment_point=point)
    assert names(send(pair, pair.b, duplicate)) == []
    assert pair.b.channel.remote_next_point == before


def test_removals_are_repeated_too() -> None:
    pair = open_pair()
    for n in range(3):
        commit_add(pair, pair.a, 5_000_000 + n)
    pair.b.do(ev.FailHtlc(id=1, reason=b"x" * 292))
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(5_000_000)))
    pair.end_turn(pair.b)
    first = lost(pair, "b")
    pair.b.do(ev.FailMalformedHtlc(id=2, sha256_of_onion=bytes(32), failure_code=0xC006))
    pair.b.commit()
    pair.b.restart()
    pair.a.do(ev.PeerDisconnected())
    pair.connect()
    pair.deliver(pair.a)
    again = [m for m in map(decode, pair.b.sent) if isinstance(m, Message)][1:]
    assert again[:3] == first
    assert [m.NAME for m in again] == [
        "update_fail_htlc",
        "update_fulfill_htlc",
        "commitment_signed",
        "update_fail_malformed_htlc",
    ]
    pair.settle()
    assert not pair.a.channel.local_htlcs


def test_restart_asks_the_signer_again_what_was_open() -> None:
    pair = open_pair()
    pair.add(pair.a, 5_000_000)
    pair.b.hold_signer = True
    pair.end_turn(pair.a)
    pair.deliver(pair.a)
    pair.b.commit()
    asked = pair.b.questions[0]
    pair.b.restart()
    again = pair.b.questions[0]
    assert again.request_id == asked.request_id
    assert replace(again, setup=asked.setup) == replace(asked, setup=asked.setup)
    pair.b.hold_signer = False
    pair.b.answer_signer()
    pair.reconnect()
    assert [d.id for d in pair.b.deliveries if isinstance(d, fx.HtlcReceived)] == [0]
