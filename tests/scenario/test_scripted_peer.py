"""The scripted peer itself: it reaches every place of a channel's life with everything right, in both roles."""

import pytest
from leyden.channel import Lifecycle
from leyden.testing.scripted_peer import ScriptedPeer, ScriptError
from leyden.wire import (
    AcceptChannel,
    ChannelReady,
    ChannelReestablish,
    ClosingComplete,
    ClosingSig,
    ClosingSigned,
    CommitmentSigned,
    ErrorMessage,
    FundingCreated,
    FundingSigned,
    Message,
    OpenChannel,
    Pong,
    RevokeAndAck,
    Shutdown,
    UpdateAddHtlc,
    UpdateFailHtlc,
    UpdateFulfillHtlc,
    WarningMessage,
)
from leyden.wire.failures import IncorrectOrUnknownPaymentDetails
from leyden.wire.features import Feature

from tests.scenario.sim_kit import BusyNode


def test_a_script_of_ten_lines(busy: BusyNode) -> None:
    peer = ScriptedPeer(busy.simulation, busy.node).connect()
    channel = peer.open(peer.propose())
    channel.offer(5_000_000)
    peer.run(channel, before=CommitmentSigned)
    peer.send(channel.changed(signature=bytes(64)))
    assert b"bad commitment signature" in peer.expect(WarningMessage).data
    peer.expect_closed()
    peer.reestablish(channel)
    peer.run(channel)
    assert channel.is_open


OPENINGS: dict[str, list[type[Message]]] = {
    "propose": [OpenChannel, FundingCreated, ChannelReady],
    "answer": [AcceptChannel, FundingSigned, ChannelReady],
}


@pytest.mark.parametrize("role", OPENINGS)
def test_every_message_of_an_opening(busy: BusyNode, role: str) -> None:
    peer = busy.script().connect()
    channel = getattr(peer, role)()
    *first, ready = OPENINGS[role]
    for kind in first:
        held = peer.run(channel, before=kind)
        assert isinstance(held, kind)
        assert channel.held == held
        peer.send(channel.take())
    peer.run(channel)
    peer.mine(3)
    peer.run(channel, before=ready)
    peer.run(channel)
    assert channel.is_open
    peer.expect_silence()


@pytest.mark.parametrize("role", OPENINGS)
def test_payments_both_ways(busy: BusyNode, role: str) -> None:
    peer = busy.script().connect()
    channel = peer.open(getattr(peer, role)())
    before = channel.channel.local_settled
    channel.pay(peer.let_invoice(2_000_000))
    for kind in (UpdateAddHtlc, CommitmentSigned, RevokeAndAck, RevokeAndAck):
        peer.run(channel, before=kind)
        peer.send(channel.take())
    peer.run(channel)
    _, preimage = peer.let_pay(3_000_000)
    peer.run(channel, until=UpdateAddHtlc)
    peer.run(channel)
    channel.fulfil(channel.received[0].id, preimage)
    assert isinstance(channel.held, UpdateFulfillHtlc)
    peer.run(channel)
    assert channel.channel.local_settled == before - 2_000_000 + 3_000_000
    payee = channel.offer(1_000_000)
    reason = peer.run(channel, until=UpdateFailHtlc)
    assert isinstance(reason, UpdateFailHtlc)
    assert reason.id == payee
    assert isinstance(channel.failure(reason), IncorrectOrUnknownPaymentDetails)
    peer.run(channel)
    invoice, _ = peer.let_pay(4_000_000)
    peer.run(channel)
    channel.fail(channel.received[-1], IncorrectOrUnknownPaymentDetails(htlc_msat=4_000_000, height=1))
    peer.run(channel)
    assert not channel.channel.local_htlcs
    assert not channel.channel.remote_htlcs
    assert not busy.core.payments.is_pending(invoice.payment_hash)


@pytest.mark.parametrize("role", OPENINGS)
def test_places_of_a_simple_close(busy: BusyNode, role: str) -> None:
    peer = busy.script().connect()
    channel = peer.open(getattr(peer, role)())
    channel.shut_down()
    for kind in (Shutdown, ClosingComplete, ClosingSig):
        peer.run(channel, before=kind)
        peer.send(channel.take())
    peer.run(channel)
    assert channel.channel.lifecycle is Lifecycle.CLOSING


@pytest.mark.parametrize("role", OPENINGS)
def test_places_of_a_legacy_close(busy: BusyNode, role: str) -> None:
    peer = busy.script().without(Feature.OPTION_SIMPLE_CLOSE).connect()
    channel = peer.open(getattr(peer, role)())
    channel.shut_down()
    peer.run(channel, before=ClosingSigned)
    peer.run(channel)
    assert channel.channel.lifecycle is Lifecycle.CLOSING


def test_a_reconnection(busy: BusyNode) -> None:
    peer = busy.script().connect()
    channel = peer.open(peer.propose())
    channel.pay(peer.let_invoice(2_000_000))
    peer.run(channel, before=RevokeAndAck)
    peer.vanish()
    peer.reconnect()
    assert isinstance(channel.held, ChannelReestablish)
    peer.run(channel)
    assert channel.channel.local_settled == 698_000_000


def test_what_a_script_is_told(busy: BusyNode) -> None:
    """Errors of a script say what happened instead."""
    peer = busy.script().connect()
    with pytest.raises(ScriptError, match="expected Pong, the node is silent"):
        peer.expect(Pong)
    channel = peer.propose()
    with pytest.raises(ScriptError, match="ClosingSig never came: the script's end is await_funding"):
        peer.run(channel, before=FundingCreated)
        peer.send(channel.changed(signature=bytes(64)))
        peer.run(channel, until=ClosingSig)
    assert peer.expect(ErrorMessage).channel_id == channel.channel.config.temporary_channel_id
    with pytest.raises(ScriptError, match="nothing to send"):
        channel.take()
    stranger = ScriptedPeer(busy.simulation, busy.node, "stranger")
    with pytest.raises(ScriptError, match="no session yet"):
        stranger.send(b"\x00\x12")
    with pytest.raises(ScriptError, match="no connection to stranger"):
        stranger.let_open()
