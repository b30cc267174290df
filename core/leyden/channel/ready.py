"""From funded to usable: depth, ``channel_ready``, aliases (BOLT 2); a funding that never comes or leaves the chain."""

from msgspec.structs import replace

from leyden.bitcoin import TxOut
from leyden.channel.announce import announce_if_due
from leyden.channel.effects import FundingAbandoned
from leyden.channel.events import BlockConnected, FundingConfirmed, FundingRuledOut, FundingUnconfirmed
from leyden.channel.state import OPERATING, Channel, Confirmation, Lifecycle
from leyden.channel.turn import Turn
from leyden.hooks.types import ChannelClosed, ChannelReadyEvent
from leyden.types import ShortChannelId
from leyden.types.rules import C_032, C_033, C_034, C_098
from leyden.wire import ChannelReady
from leyden.wire.features import Feature

COINBASE_MATURITY = 100


def on_funding_confirmed(turn: Turn, event: FundingConfirmed) -> None:
    """The exact outpoint must pay the exact amount to the funding script (C-032); checked again after every reorg."""
    channel = turn.channel
    funding = channel.funding
    wanted = TxOut(value=funding.setup.funding_satoshis, script=funding.script)
    if event.output != wanted and C_032.enabled:
        if channel.lifecycle not in OPERATING:
            return  # on chain already: nothing that confirms now may make us forget what we still have to sweep
        turn.send_error("the funding output does not pay what was agreed")
        turn.alarm("funding", "the funding output of a channel does not pay what was agreed; the channel is dropped")
        _close_unfunded(turn, "funding output does not pay what was agreed")
        return
    where = Confirmation(height=event.height, tx_index=event.tx_index)
    if where != funding.confirmation:
        turn.set(local_announcement=None, remote_announcement=None, announcement_sent=False)
    turn.set(fundings=(replace(funding, confirmation=where), *channel.fundings[1:]))
    ready_if_due(turn, event.height)


def on_funding_unconfirmed(turn: Turn, _event: FundingUnconfirmed) -> None:
    """A reorg: what was sent stays sent, but no new HTLC is offered until the funding is back."""
    channel = turn.channel
    turn.set(fundings=(replace(channel.funding, confirmation=None), *channel.fundings[1:]))
    if channel.local_ready_sent and channel.config.minimum_depth:
        turn.alarm("reorg", "a reorg took the funding transaction of an open channel out of the chain")


def on_funding_ruled_out(turn: Turn, _event: FundingRuledOut) -> None:
    """A channel that can never exist ends, whatever was decided about it: there is nothing to close or to claim."""
    channel = turn.channel
    if channel.funding.confirmation is not None or channel.spend is not None:
        return  # a reorg deeper than any that is expected: what the chain shows counts
    reason = "another transaction spent a coin of the funding transaction"
    turn.send_error(reason)
    _close_unfunded(turn, reason)


def ready_if_due(turn: Turn, height: int = 0) -> None:
    """Send ``channel_ready`` once the funding is deep enough."""
    channel = turn.channel
    if channel.local_ready_sent or channel.lifecycle not in (Lifecycle.AWAIT_CONFIRMATION, Lifecycle.NORMAL):
        return
    if not _deep_enough(channel, max(turn.env.height, height)) and C_032.enabled:
        return
    turn.set(local_ready_sent=True)
    turn.send(channel_ready_message(turn.channel))
    normal_if_ready(turn)


def _deep_enough(channel: Channel, height: int) -> bool:
    depth = channel.config.minimum_depth
    if depth == 0:
        return True
    where = channel.funding.confirmation
    if where is None:
        return False
    if where.tx_index == 0:
        depth = max(depth, COINBASE_MATURITY)
    return height - where.height + 1 >= depth


def channel_ready_message(channel: Channel) -> ChannelReady:
    return ChannelReady(
        channel_id=channel.channel_id,
        second_per_commitment_point=channel.local_next_point,
        short_channel_id=channel.local_alias,
    )


def on_channel_ready(turn: Turn, message: ChannelReady) -> None:
    """The peer's funding is deep enough for it; a duplicate changes at most its alias (C-098)."""
    channel = turn.channel
    if message.short_channel_id is not None:
        turn.set(remote_alias=ShortChannelId(message.short_channel_id))
    if channel.remote_ready and C_098.enabled:
        return
    turn.set(remote_ready=True, remote_next_point=message.second_per_commitment_point)
    normal_if_ready(turn)


def normal_if_ready(turn: Turn) -> None:
    channel = turn.channel
    if channel.lifecycle is Lifecycle.AWAIT_CONFIRMATION and channel.local_ready_sent and channel.remote_ready:
        turn.set(lifecycle=Lifecycle.NORMAL)
        turn.publish(ChannelReadyEvent(channel_id=channel.channel_id, node_id=channel.config.peer))
        announce_if_due(turn)


def addressed_by(channel: Channel, scid: ShortChannelId) -> bool:
    """Whether ``scid`` means this channel: always its alias; its real id unless the type hides it (C-033)."""
    if channel.local_alias is not None and scid == channel.local_alias:
        return True
    hidden = channel.config.channel_type.offers(Feature.OPTION_SCID_ALIAS) and C_033.enabled
    return scid == channel.short_channel_id and not hidden


def forget_if_unfunded(turn: Turn, event: BlockConnected) -> None:
    """A fundee waits two weeks for the funding, not for ever (C-034)."""
    channel = turn.channel
    failed = channel.lifecycle is Lifecycle.FORCE_CLOSING and not channel.local_ready_sent  # it never had its depth
    if channel.config.local_is_funder or not (failed or channel.lifecycle is Lifecycle.AWAIT_CONFIRMATION):
        return
    waited = event.height - channel.config.opened_height
    if channel.funding.confirmation is None and waited >= turn.env.policy.funding_timeout and C_034.enabled:
        turn.send_error("the funding transaction was not seen in time")
        _close_unfunded(turn, f"funding not seen for {waited} blocks")


def _close_unfunded(turn: Turn, reason: str) -> None:
    channel = turn.channel
    turn.set(lifecycle=Lifecycle.CLOSED, failure=reason, outbox=(), pending=())
    if claim := channel.config.claim_id:
        turn.deliver(FundingAbandoned(claim_id=claim))
    turn.publish(ChannelClosed(channel_id=channel.channel_id, how="unfunded", reason=reason, txid=None))
