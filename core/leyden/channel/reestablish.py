"""Coming back: ``channel_reestablish``, exact retransmission, and finding out that somebody lost data (BOLT 2).

The comparison of numbers decides; the secret in the message is checked by the signer first, because only it can say
whether a secret is really ours. What was lost is sent again in its first order, then our proposals that were never
signed, then ``shutdown``.
"""

from msgspec.structs import replace

from leyden.channel.announce import announce_if_due
from leyden.channel.dance import OP_RELEASE, OP_SIGN, failed_delivery, release_request, repeat_signature_request
from leyden.channel.fail import fail_channel, lose_data
from leyden.channel.limits import LOCAL, REMOTE, with_computed_totals
from leyden.channel.opening import abandon
from leyden.channel.ready import channel_ready_message
from leyden.channel.shutdown import after_reestablish, without_connection
from leyden.channel.stages import is_unsigned, without_uncommitted
from leyden.channel.state import OPENING, Channel, FeeUpdate, Lifecycle, Link, LiveHtlc, Stage
from leyden.channel.turn import Misplaced, Turn
from leyden.channel.updates import update_message
from leyden.commitment import MAX_COMMITMENT_NUMBER
from leyden.crypto import FIRST_INDEX
from leyden.hooks.signing import (
    CheckFutureSecret,
    FutureSecret,
    ReleaseSecret,
    SignHolderCommitment,
    SignSweep,
    ValidateCounterpartyRevocation,
    ValidateHolderCommitment,
)
from leyden.types import Side, require
from leyden.types.rules import C_029, C_092, C_093, C_094, C_095, C_096, C_097, C_098
from leyden.wire import ChannelReestablish, Message, UpdateFee

OP_SECRET = "check_secret"
_KEPT = (ValidateHolderCommitment, ReleaseSecret, ValidateCounterpartyRevocation, SignHolderCommitment, SignSweep)
"""Questions whose answers are of use without a connection; the others are asked again when needed."""


def on_peer_disconnected(turn: Turn) -> None:
    channel = turn.channel
    unfunded = channel.lifecycle in OPENING and channel.lifecycle is not Lifecycle.FUNDER_VALIDATING
    if unfunded:
        if C_029.enabled:
            abandon(turn, "the peer disconnected before the channel was funded")
        return
    if channel.link is Link.DOWN:
        return
    turn.channel = without_connection(channel)
    if C_092.enabled:
        turn.channel = with_computed_totals(without_uncommitted(turn.channel))
    turn.set(
        link=Link.DOWN,
        outbox=(),
        reestablish=None,
        announcement_sent=False,
        early_announcement=None,
        pending=tuple(request for request in turn.channel.pending if isinstance(request, _KEPT)),
    )


def on_peer_connected(turn: Turn) -> None:
    """``channel_reestablish`` comes first; a channel that failed only repeats its error (C-093)."""
    on_peer_disconnected(turn)
    channel = turn.channel
    if channel.lifecycle in OPENING and channel.lifecycle is not Lifecycle.FUNDER_VALIDATING:
        return
    if not is_repeatable(channel):
        repeat_error(turn)
        return
    turn.set(link=Link.REESTABLISHING if C_092.enabled else Link.UP)
    turn.send_now(make_reestablish(channel))


def is_repeatable(channel: Channel) -> bool:
    """Whether a reconnected peer gets ``channel_reestablish`` (and not the error of a failed channel)."""
    alive = (Lifecycle.FUNDER_VALIDATING, Lifecycle.AWAIT_CONFIRMATION, Lifecycle.NORMAL, Lifecycle.CLOSING)
    return channel.lifecycle in alive or not C_093.enabled


def repeat_error(turn: Turn) -> None:
    turn.send_error(turn.channel.failure or "this channel is closed")


def make_reestablish(channel: Channel) -> ChannelReestablish:
    revoked = channel.remote_revoked
    secret = channel.secrets.lookup(FIRST_INDEX - (revoked - 1)) if revoked else bytes(32)
    return ChannelReestablish(
        channel_id=channel.channel_id,
        next_commitment_number=channel.local_number + 1,
        next_revocation_number=revoked,
        your_last_per_commitment_secret=secret,
        my_current_per_commitment_point=channel.local_point,
    )


def on_channel_reestablish(turn: Turn, message: ChannelReestablish) -> None:
    channel = turn.channel
    if channel.reestablish is not None:
        raise Misplaced("a second channel_reestablish while the first is being checked")
    if message.next_commitment_number == 0 and C_094.enabled:
        fail_channel(turn, "the peer asks for a force close (next_commitment_number 0)", quiet=True)
        return
    known = message.next_revocation_number <= MAX_COMMITMENT_NUMBER
    require(known, C_095, "impossible next_revocation_number", offered=message.next_revocation_number)
    if message.next_revocation_number > channel.local_revoked:
        turn.set(reestablish=message)  # is that a bluff? Only the signer can say; until then nothing else counts
    else:
        _compare(turn, message)
    if message.next_revocation_number:
        _check_secret(turn, message)


def _check_secret(turn: Turn, message: ChannelReestablish) -> None:
    number = message.next_revocation_number - 1
    turn.ask(
        CheckFutureSecret(
            request_id=turn.request_id(OP_SECRET, number),
            setup=turn.channel.setup,
            number=number,
            secret=message.your_last_per_commitment_secret,
        )
    )


def on_secret_checked(turn: Turn, request: CheckFutureSecret, answer: FutureSecret) -> None:
    require(answer.genuine, C_095, "wrong your_last_per_commitment_secret", number=request.number)
    message = turn.channel.reestablish
    if message is None or message.next_revocation_number != request.number + 1:
        return  # a secret vouches for the message that it came with and for no other
    turn.set(reestablish=None)
    if C_097.enabled:
        lose_data(turn, message.next_revocation_number)
    else:
        _compare(turn, message)


def _compare(turn: Turn, message: ChannelReestablish) -> None:
    """Both numbers must be possible; then send again what the peer does not have."""
    channel = turn.channel
    theirs, revoked = message.next_revocation_number, channel.local_revoked
    require(
        theirs == revoked or theirs == revoked - 1,
        C_095,
        "impossible next_revocation_number",
        offered=theirs,
        allowed=f"{max(0, revoked - 1)} or {revoked}",
    )
    expected, number = message.next_commitment_number, channel.remote_number
    awaiting = number != channel.remote_revoked
    require(
        expected == number + 1 or (expected == number and awaiting),
        C_095,
        "impossible next_commitment_number",
        offered=expected,
        allowed=f"{number} or {number + 1}" if awaiting else number + 1,
    )
    turn.set(link=Link.UP)
    if _repeats_channel_ready(channel, expected):
        turn.send(channel_ready_message(channel))
    _retransmit(turn, lost_revocation=theirs == revoked - 1, lost_commitment=expected == number)
    _drop_late_proposals(turn)
    _propose_again(turn)
    after_reestablish(turn)
    announce_if_due(turn)


def _repeats_channel_ready(channel: Channel, expected: int) -> bool:
    """Only while neither side has moved past its first commitment (C-098)."""
    if not channel.local_ready_sent:
        return False
    return (expected == 1 and channel.local_number == 0) or not C_098.enabled


def _retransmit(turn: Turn, *, lost_revocation: bool, lost_commitment: bool) -> None:
    """The lost messages in the order in which they were first sent (C-096)."""
    commitment_last = turn.channel.commitment_sent_last or not C_096.enabled
    if lost_revocation and commitment_last:
        _repeat_revocation(turn)
    if lost_commitment and C_096.enabled:
        _repeat_commitment(turn)
    if lost_revocation and not commitment_last:
        _repeat_revocation(turn)


def _repeat_revocation(turn: Turn) -> None:
    number = turn.channel.local_revoked - 1
    turn.hold_place(turn.request_id(OP_RELEASE, number))
    turn.ask(release_request(turn, number))


def _repeat_commitment(turn: Turn) -> None:
    """The same updates, then the same ``commitment_signed`` under the same number."""
    _send_updates(turn, signed=True)
    request = repeat_signature_request(turn.channel, turn.request_id(OP_SIGN, turn.channel.remote_number))
    turn.hold_place(request.request_id)
    turn.ask(request)


def _drop_late_proposals(turn: Turn) -> None:
    """HTLCs that we never signed for fail here once they are about to expire: offered now, their deadline would close
    the channel. Ids have no gaps, so those proposed after the first of them go too."""
    channel = turn.channel
    limit = turn.env.height + turn.env.policy.late_proposal_margin
    late = [h.id for h in channel.local_htlcs.values() if h.stage == Stage.ADD_PROPOSED and h.cltv_expiry <= limit]
    if not late:
        return
    first = min(late)
    for id in sorted(id for id in channel.local_htlcs if id >= first):
        turn.deliver(failed_delivery(channel.local_htlcs[id]))
    kept = {id: htlc for id, htlc in channel.local_htlcs.items() if id < first}
    channel = with_computed_totals(replace(channel, local_htlcs=kept, next_local_id=first))
    turn.channel = replace(channel, unsigned=is_unsigned(channel))


def _propose_again(turn: Turn) -> None:
    _send_updates(turn, signed=False)


def _send_updates(turn: Turn, *, signed: bool) -> None:
    """Our updates in the commitment that is not revoked yet, or those not signed yet, in their first order."""
    channel = turn.channel
    add_stage, remove_stage = (2, 7) if signed else (1, 6)
    found: list[tuple[int, Message]] = []
    groups: tuple[tuple[Side, int], ...] = ((LOCAL, add_stage), (REMOTE, remove_stage))
    for offerer, stage in groups:
        htlcs: dict[int, LiveHtlc] = channel.htlcs(offerer)
        found += [(h.order, update_message(channel, offerer, h)) for h in htlcs.values() if h.stage == stage]
    if channel.config.local_is_funder:
        found += [(u.order, _fee_message(channel, u)) for u in channel.fee_updates if u.stage == add_stage]
    found.sort(key=lambda item: item[0])
    for _, message in found:
        turn.send(message)


def _fee_message(channel: Channel, update: FeeUpdate) -> UpdateFee:
    return UpdateFee(channel_id=channel.channel_id, feerate_per_kw=update.feerate)
