"""How updates move when a commitment is signed or revoked: the same four moves for both sides.

``Stage`` tells the story of one HTLC. A signature on ``owner``'s commitment is made by the other side, a revocation by
``owner``. Running totals follow the moves that put an HTLC into a next commitment or take it out.
"""

from msgspec.structs import replace

from leyden.channel.limits import (
    LOCAL,
    REMOTE,
    change_unacked,
    compute_totals,
    compute_unacked,
    fulfilled,
    is_trimmed,
    next_feerate,
    with_htlc,
    without_htlc,
)
from leyden.channel.state import Channel, FeeUpdate, LiveHtlc, Stage
from leyden.types import Msat, Side

# stage of an HTLC -> its next stage, for HTLCs that the owner of the commitment offered and those that the other did
_SIGNED_OWN = {3: 4, 6: 7}
_SIGNED_OTHERS = {1: 2, 8: 9}
_REVOKED_OWN = {4: 5, 7: 8}
_REVOKED_OTHERS = {2: 3, 9: 10}

Moved = list[LiveHtlc]


def _move(htlcs: dict[int, LiveHtlc], moves: dict[int, int], done: int = 0) -> tuple[dict[int, LiveHtlc], Moved]:
    """The table after the moves, and the HTLCs that moved (with their new stage); GONE ones have left the table.

    At stage ``done`` nobody needs the onion any more: the table drops it, the list still has it.
    """
    moved: Moved = []
    for htlc in htlcs.values():
        stage = moves.get(htlc.stage)
        if stage is not None:
            moved.append(replace(htlc, stage=stage))
    if not moved:
        return htlcs, moved
    after = htlcs.copy()
    for htlc in moved:
        if htlc.stage == 10:
            del after[htlc.id]
        elif htlc.stage == done:
            after[htlc.id] = replace(htlc, onion_routing_packet=b"", path_key=None)
        else:
            after[htlc.id] = htlc
    return after, moved


def _move_fees(channel: Channel, moves: dict[int, int]) -> tuple[FeeUpdate, ...]:
    return tuple(
        replace(update, stage=moves[update.stage]) if update.stage in moves else update
        for update in channel.fee_updates
    )


def after_signature(channel: Channel, owner: Side) -> Channel:
    """The other side signed ``owner``'s next commitment, which makes it the newest. Totals do not change by that."""
    own, _ = _move(channel.htlcs(owner), _SIGNED_OWN)
    others, _ = _move(channel.htlcs(owner.other), _SIGNED_OTHERS)
    fees = channel.fee_updates
    if fees:
        fees = _move_fees(channel, _SIGNED_OWN if channel.config.funder is owner else _SIGNED_OTHERS)
    if owner is LOCAL:
        return replace(
            channel,
            local_htlcs=own,
            remote_htlcs=others,
            fee_updates=fees,
            local_number=channel.local_number + 1,
            remote_uncommitted=0,
        )
    return replace(
        channel,
        local_htlcs=others,
        remote_htlcs=own,
        fee_updates=fees,
        remote_number=channel.remote_number + 1,
        unsigned=False,
        commitment_sent_last=True,
    )


def after_revocation(channel: Channel, owner: Side) -> tuple[Channel, Moved, Moved]:
    """``owner`` revoked its old commitment.

    Returns the HTLCs of ``owner`` and those of the other side that moved: owner's at COMMITTED may be acted on by the
    other side, the others' at GONE are over. Numbers and points are the caller's business.
    """
    funder = channel.config.funder
    remote = owner is REMOTE
    own, own_moved = _move(channel.htlcs(owner), _REVOKED_OWN, Stage.COMMITTED if remote else 0)
    others, others_moved = _move(
        channel.htlcs(owner.other), _REVOKED_OTHERS, Stage.ADD_REVOKED_BY_OTHER if remote else 0
    )
    before = channel
    channel = _with_fees(channel, owner)
    if owner is LOCAL:
        channel = replace(channel, local_htlcs=own, remote_htlcs=others)
    else:
        channel = replace(channel, local_htlcs=others, remote_htlcs=own)
    channel = _settle(channel, owner.other, others_moved)
    if channel.fee_updates != before.fee_updates and owner is not funder:
        return _recomputed(channel, owner.other), own_moved, others_moved
    return _follow(channel, owner, own_moved, others_moved), own_moved, others_moved


def _with_fees(channel: Channel, owner: Side) -> Channel:
    if not channel.fee_updates:
        return channel
    updates = _move_fees(channel, _REVOKED_OWN if channel.config.funder is owner else _REVOKED_OTHERS)
    for index in range(len(updates) - 1, -1, -1):
        if updates[index].stage == Stage.COMMITTED:  # older ones have been overtaken
            return replace(channel, feerate=updates[index].feerate, fee_updates=updates[index + 1 :])
    return replace(channel, fee_updates=updates)


def _recomputed(channel: Channel, owner: Side) -> Channel:
    if owner is LOCAL:
        return replace(channel, local_next=compute_totals(channel, LOCAL), unacked=compute_unacked(channel))
    return replace(channel, remote_next=compute_totals(channel, REMOTE))


def _settle(channel: Channel, offerer: Side, moved: Moved) -> Channel:
    """Amounts of HTLCs that are GONE find their final owner."""
    paid = sum(htlc.amount_msat for htlc in moved if htlc.stage == Stage.GONE and fulfilled(htlc.removal))
    if not paid:
        return channel
    to_remote = paid if offerer is LOCAL else -paid
    return replace(
        channel,
        local_settled=Msat(channel.local_settled - to_remote),
        remote_settled=Msat(channel.remote_settled + to_remote),
    )


def _follow(channel: Channel, owner: Side, own_moved: Moved, others_moved: Moved) -> Channel:
    """Totals of the other side's next commitment after ``owner`` revoked.

    ``owner`` signs that commitment: the other side's HTLCs enter it at stage 3, the owner's leave it at 8.
    """
    other = owner.other
    totals = channel.local_next if other is LOCAL else channel.remote_next
    unacked = channel.unacked
    feerate = next_feerate(channel, other)
    for htlc in others_moved:
        if htlc.stage == Stage.ADD_REVOKED_BY_OTHER:
            trimmed = is_trimmed(channel, other, other, htlc.amount_msat, feerate)
            totals = with_htlc(totals, other, htlc.amount_msat, trimmed)
            if other is LOCAL:
                unacked = change_unacked(unacked, htlc, trimmed, -1)
    for htlc in own_moved:
        if htlc.stage == Stage.REMOVE_REVOKED_BY_OFFERER:
            trimmed = is_trimmed(channel, other, owner, htlc.amount_msat, feerate)
            totals = without_htlc(totals, owner, htlc.amount_msat, trimmed, fulfilled(htlc.removal))
    if other is LOCAL:
        return replace(channel, local_next=totals, unacked=unacked)
    return replace(channel, remote_next=totals)


def is_unsigned(channel: Channel) -> bool:
    """Whether the peer's next commitment would differ from its newest (what ``Channel.unsigned`` must be)."""
    fee_stage = Stage.ADD_PROPOSED if channel.config.local_is_funder else Stage.ADD_REVOKED_BY_OTHER
    return (
        any(h.stage in _SIGNED_OTHERS for h in channel.local_htlcs.values())
        or any(h.stage in _SIGNED_OWN for h in channel.remote_htlcs.values())
        or any(u.stage == fee_stage for u in channel.fee_updates)
    )


def has_unacked_updates(channel: Channel) -> bool:
    """Updates of ours that the peer has not acknowledged: while there are any, no ``shutdown`` (C-060)."""
    return (
        any(h.stage <= Stage.ADD_SIGNED_BY_OFFERER for h in channel.local_htlcs.values())
        or any(Stage.REMOVE_PROPOSED <= h.stage <= Stage.REMOVE_SIGNED_BY_OTHER for h in channel.remote_htlcs.values())
        or (channel.config.local_is_funder and any(u.stage <= Stage.ADD_SIGNED_BY_OFFERER for u in channel.fee_updates))
    )


def without_uncommitted(channel: Channel) -> Channel:
    """What a disconnect leaves: updates of the peer that it has not signed for are forgotten (C-092)."""
    local, remote, fees = channel.local_htlcs, channel.remote_htlcs, channel.fee_updates
    if any(h.stage == Stage.REMOVE_PROPOSED for h in local.values()):
        local = {
            id: replace(h, stage=int(Stage.COMMITTED), removal=None) if h.stage == Stage.REMOVE_PROPOSED else h
            for id, h in local.items()
        }
    if channel.remote_uncommitted:
        remote = {id: h for id, h in remote.items() if h.stage != Stage.ADD_PROPOSED}
    if fees and not channel.config.local_is_funder:
        fees = tuple(u for u in fees if u.stage != Stage.ADD_PROPOSED)
    return replace(
        channel,
        local_htlcs=local,
        remote_htlcs=remote,
        fee_updates=fees,
        next_remote_id=channel.next_remote_id - channel.remote_uncommitted,
        remote_uncommitted=0,
    )
