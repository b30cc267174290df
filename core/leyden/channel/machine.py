"""One step of a channel: look up the table, run the handler, turn a violation into what its rule demands."""

from collections.abc import Callable
from typing import Any

from leyden.bitcoin import BitcoinError
from leyden.channel import announce, dance, fail, opening, ready, reestablish, shutdown, simple_close, sweep, updates
from leyden.channel import events as ev
from leyden.channel.deadlines import check_deadlines
from leyden.channel.effects import Effects
from leyden.channel.env import Env
from leyden.channel.errors import ChannelError, ErrorCode
from leyden.channel.events import AnyInput
from leyden.channel.signer import on_restarted, on_signer_answered, on_signer_failed, retry_signer
from leyden.channel.state import OPENING, Channel, Lifecycle, Link
from leyden.channel.tables import COMMANDS, Verdict, message_verdict, verdict
from leyden.channel.turn import Misplaced, Turn, one_line
from leyden.commitment import CommitmentError
from leyden.crypto import CryptoError
from leyden.types import Reaction, RuleViolation, clean_text
from leyden.wire import (
    AcceptChannel,
    AnnouncementSignatures,
    ChannelReady,
    ChannelReestablish,
    ClosingComplete,
    ClosingSig,
    ClosingSigned,
    CommitmentSigned,
    ErrorMessage,
    FundingCreated,
    FundingSigned,
    RevokeAndAck,
    UpdateAddHtlc,
    UpdateFailHtlc,
    UpdateFailMalformedHtlc,
    UpdateFulfillHtlc,
)
from leyden.wire import Shutdown as ShutdownMessage
from leyden.wire import UpdateFee as UpdateFeeMessage


def step(channel: Channel, event: AnyInput, env: Env) -> tuple[Channel, Effects]:
    """The channel after ``event`` and what the shell has to do, in order.

    A peer's violation is a result: the state fails or stays, with the effects that the rule demands.
    An illegal command raises ``ChannelError``; nothing has changed then.
    """
    turn = Turn(channel, env)
    kind = type(event)
    if kind is ev.MessageReceived:
        _on_message(turn, event.message)  # type: ignore[union-attr]
    elif kind in COMMANDS:
        if verdict(kind, channel.lifecycle) is Verdict.REJECT:
            raise ChannelError(
                ErrorCode.WRONG_STATE,
                f"the channel cannot do that while it is {channel.lifecycle.value}",
                offered=kind.__name__,
            )
        _COMMAND_HANDLERS[kind](turn, event)
    elif verdict(kind, channel.lifecycle) is Verdict.HANDLE:
        try:
            _EVENT_HANDLERS[kind](turn, event)
        except _VIOLATIONS as violation:
            turn = Turn(channel, env)
            _react(turn, violation)
    return turn.channel, tuple(turn.effects)


_VIOLATIONS = (RuleViolation, Misplaced, CommitmentError, CryptoError, BitcoinError)
"""What a handler raises about a peer; the state before the handler stands, its effects are dropped."""


def _on_message(turn: Turn, message: Any) -> None:
    kind, before = type(message), turn.channel
    found = message_verdict(kind, before.lifecycle, before.link)
    if found is Verdict.IGNORE:
        return
    if found is Verdict.REJECT:
        if before.reestablish is not None:  # the peer is up, we still check whether our state is old
            return
        name = getattr(message, "NAME", kind.__name__)
        _react(turn, Misplaced(f"{name} is not expected now"))
        return
    try:
        _MESSAGE_HANDLERS[kind](turn, message)
    except _VIOLATIONS as violation:
        turn.channel = before
        turn.effects.clear()
        _react(turn, violation)


def _react(turn: Turn, violation: Exception) -> None:
    """What the rule demands. Where it leaves a choice we warn and disconnect: the state is sound, deadlines bind."""
    text = clean_text(one_line(violation))
    reaction = violation.reaction if isinstance(violation, RuleViolation) else Reaction.WARN_OR_ERROR
    if reaction is Reaction.IGNORE:
        return
    fatal = turn.channel.lifecycle in OPENING or reaction in (Reaction.ERROR, Reaction.FAIL_CHANNEL)
    if fatal and turn.channel.lifecycle is not Lifecycle.CLOSING:  # a mutual close is out already: that one counts
        fail.fail_channel(turn, text)
        return
    if reaction is not Reaction.DISCONNECT:
        turn.send_warning(text)
    if reaction is not Reaction.WARN:
        turn.disconnect(text)


# -- events that belong to no other file -------------------------------------------------------------------------------


def _on_turn_ended(turn: Turn, _event: ev.TurnEnded) -> None:
    if turn.channel.link is not Link.UP:
        return
    if turn.channel.shutdown.wanted:
        shutdown.send_shutdown_if_due(turn)
    dance.sign_if_due(turn)
    if turn.channel.shutdown.received:
        shutdown.negotiate_if_due(turn)


def _on_block_connected(turn: Turn, event: ev.BlockConnected) -> None:
    ready.ready_if_due(turn, event.height)
    announce.announce_if_due(turn, event.height)
    ready.forget_if_unfunded(turn, event)
    check_deadlines(turn, max(event.height, turn.env.deadline_height))
    if turn.channel.spend is not None:
        sweep.sweep_if_due(turn)
        sweep.finish_if_deep(turn)


def _on_timer_fired(turn: Turn, event: ev.TimerFired) -> None:
    if event.name == shutdown.TIMER:
        shutdown.on_closing_timer(turn)
    elif event.name == "signer":
        retry_signer(turn)


def _on_error_message(turn: Turn, message: ErrorMessage) -> None:
    text = clean_text(message.data)
    fail.fail_channel(turn, f"the peer sent an error: {text}", quiet=True, initiator="remote")


def _on_reestablish(turn: Turn, message: ChannelReestablish) -> None:
    if not reestablish.is_repeatable(turn.channel):
        reestablish.repeat_error(turn)
        return
    reestablish.on_channel_reestablish(turn, message)


def _on_force_close(turn: Turn, command: ev.ForceClose) -> None:
    fail.fail_channel(turn, command.reason)


def _on_fail_channel(turn: Turn, command: ev.FailChannel) -> None:
    fail.fail_channel(turn, command.text)


_Handler = Callable[[Turn, Any], None]

_MESSAGE_HANDLERS: dict[type, _Handler] = {
    AcceptChannel: opening.on_accept_channel,
    FundingCreated: opening.on_funding_created,
    FundingSigned: opening.on_funding_signed,
    ChannelReady: ready.on_channel_ready,
    AnnouncementSignatures: announce.on_announcement_signatures,
    ShutdownMessage: shutdown.on_shutdown_message,
    ClosingSigned: shutdown.on_closing_signed,
    ClosingComplete: simple_close.on_closing_complete,
    ClosingSig: simple_close.on_closing_sig,
    UpdateAddHtlc: updates.on_update_add_htlc,
    UpdateFulfillHtlc: updates.on_update_fulfill_htlc,
    UpdateFailHtlc: updates.on_update_fail_htlc,
    UpdateFailMalformedHtlc: updates.on_update_fail_malformed_htlc,
    UpdateFeeMessage: updates.on_update_fee_message,
    CommitmentSigned: dance.on_commitment_signed,
    RevokeAndAck: dance.on_revoke_and_ack,
    ChannelReestablish: _on_reestablish,
    ErrorMessage: _on_error_message,
}

_EVENT_HANDLERS: dict[type, _Handler] = {
    ev.PeerConnected: lambda turn, _event: reestablish.on_peer_connected(turn),
    ev.PeerDisconnected: lambda turn, _event: reestablish.on_peer_disconnected(turn),
    ev.TurnEnded: _on_turn_ended,
    ev.Restarted: lambda turn, _event: on_restarted(turn),
    ev.SignerAnswered: on_signer_answered,
    ev.SignerFailed: on_signer_failed,
    ev.TimerFired: _on_timer_fired,
    ev.FeerateChanged: updates.on_feerate_changed,
    ev.BlockConnected: _on_block_connected,
    ev.FundingConfirmed: ready.on_funding_confirmed,
    ev.FundingUnconfirmed: ready.on_funding_unconfirmed,
    ev.FundingRuledOut: ready.on_funding_ruled_out,
    ev.FundingSpent: sweep.on_funding_spent,
    ev.FundingUnspent: sweep.on_funding_unspent,
}

_COMMAND_HANDLERS: dict[type, _Handler] = {
    ev.ProvideFunding: opening.on_provide_funding,
    ev.AddHtlc: updates.on_add_htlc,
    ev.FulfillHtlc: updates.on_fulfill_htlc,
    ev.FailHtlc: updates.on_fail_htlc,
    ev.FailMalformedHtlc: updates.on_fail_malformed_htlc,
    ev.UpdateFee: updates.on_update_fee,
    ev.Shutdown: shutdown.on_shutdown,
    ev.ForceClose: _on_force_close,
    ev.FailChannel: _on_fail_channel,
}
