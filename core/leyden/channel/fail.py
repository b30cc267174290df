"""Failing a channel: to the peer by an error, on chain by our newest commitment (BOLT 2, BOLT 5)."""

from leyden.channel.closing_tx import close_witness
from leyden.channel.effects import Broadcast
from leyden.channel.limits import LOCAL
from leyden.channel.opening import abandon
from leyden.channel.state import ON_CHAIN, OPENING, TERMINAL, Channel, Lifecycle, Link
from leyden.channel.turn import Turn
from leyden.channel.views import signed_view
from leyden.commitment import make_commitment
from leyden.hooks.signing import Signature, SignHolderCommitment, ValidateHolderCommitment, commitment_params
from leyden.hooks.types import BroadcastKind, ChannelClosing
from leyden.types import clean_text

OP_HOLDER = "sign_holder"


def fail_channel(turn: Turn, text: str, *, quiet: bool = False, initiator: str = "local") -> None:
    """Tell the peer (unless ``quiet``) and close on chain; an unfunded channel is dropped.

    From now on the channel takes no update, whatever happens to the transaction.
    """
    channel = turn.channel
    if channel.lifecycle in TERMINAL or channel.lifecycle in ON_CHAIN:
        return
    text = clean_text(text)
    if not quiet and _may_send(channel):
        turn.send_error(text)
    if channel.lifecycle in OPENING:
        abandon(turn, text)
        return
    turn.set(
        lifecycle=Lifecycle.FORCE_CLOSING,
        failure=text,
        link=Link.DOWN,
        outbox=(),
        reestablish=None,
        # a signer that keeps state must have noted a commitment before it signs it for broadcast
        pending=tuple(r for r in channel.pending if isinstance(r, ValidateHolderCommitment)),
    )
    turn.publish(ChannelClosing(channel_id=channel.channel_id, initiator=initiator, reason=text))
    turn.ask(holder_request(turn))


def _may_send(channel: Channel) -> bool:
    return channel.link is not Link.DOWN


def holder_request(turn: Turn) -> SignHolderCommitment:
    """Sign our newest commitment for broadcast: it can never be revoked after that."""
    channel = turn.channel
    return SignHolderCommitment(
        request_id=turn.request_id(OP_HOLDER, channel.local_number),
        setup=channel.setup,
        view=signed_view(channel, LOCAL),
    )


def on_holder_signature(turn: Turn, request: SignHolderCommitment, answer: Signature) -> None:
    channel = turn.channel
    signatures = channel.funding.signatures
    if channel.lifecycle is not Lifecycle.FORCE_CLOSING or signatures is None:
        return
    view, params = request.view, commitment_params(channel.setup, LOCAL)
    commitment = make_commitment(
        params, view.number, view.per_commitment_point, view.owner_msat, view.other_msat, view.htlcs, view.feerate
    )
    tx, spent = close_witness(channel, commitment.tx, answer.signature, signatures.signature)
    turn.set(closing_tx=tx)
    turn.emit(Broadcast(tx=tx, kind=BroadcastKind.UNILATERAL_CLOSE, spent=spent))
    if view.htlcs:
        warn_of_htlcs(turn, len(view.htlcs))


def warn_of_htlcs(turn: Turn, count: int) -> None:
    turn.alarm("htlcs_on_chain", f"{count} HTLC(s) of a channel went on chain; they are not claimed automatically yet")


def lose_data(turn: Turn, number: int) -> None:
    """The peer proved that it knows a later state than we do: broadcasting ours would lose everything (C-097)."""
    channel = turn.channel
    text = "our state of this channel is old: please close it with your newest commitment"
    turn.send_error(text)
    turn.set(lifecycle=Lifecycle.DATA_LOSS, failure=text, link=Link.DOWN, outbox=(), pending=(), reestablish=None)
    turn.alarm(
        "data_loss",
        f"the peer has revocation {number - 1} of ours, we know {channel.local_revoked}: this store is an old copy. "
        "Nothing is broadcast; the peer was asked to close",
    )
    turn.publish(ChannelClosing(channel_id=channel.channel_id, initiator="local", reason="data_loss"))
