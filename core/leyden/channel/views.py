"""Commitments as parameters: what the signer is asked to sign or to note, and what we verify."""

from leyden.channel.limits import LOCAL, REMOTE, fulfilled, in_signed, next_feerate, signed_feerate
from leyden.channel.state import Channel, Stage
from leyden.commitment import Htlc
from leyden.hooks.signing import CommitmentView
from leyden.types import Msat, Preimage, Side


def next_point(channel: Channel, owner: Side) -> bytes:
    """The per-commitment point of the commitment after ``owner``'s oldest unrevoked one."""
    return channel.local_next_point if owner is LOCAL else channel.remote_next_point


def next_view(channel: Channel, owner: Side) -> CommitmentView:
    """``owner``'s next commitment as the other side would sign it now."""
    local = owner is LOCAL
    totals = channel.local_next if local else channel.remote_next
    own, others = channel.htlcs(owner), channel.htlcs(owner.other)
    # the stages of limits.in_next(), spelled out: this runs over every HTLC for every commitment
    htlcs = [
        Htlc(
            offered_by_owner=True,
            amount_msat=h.amount_msat,
            payment_hash=h.payment_hash,
            cltv_expiry=h.cltv_expiry,
            id=h.id,
        )
        for h in own.values()
        if 3 <= h.stage <= 5
    ]
    htlcs += [
        Htlc(
            offered_by_owner=False,
            amount_msat=h.amount_msat,
            payment_hash=h.payment_hash,
            cltv_expiry=h.cltv_expiry,
            id=h.id,
        )
        for h in others.values()
        if h.stage <= 7
    ]
    return CommitmentView(
        number=(channel.local_number if local else channel.remote_number) + 1,
        per_commitment_point=next_point(channel, owner),
        feerate=next_feerate(channel, owner),
        owner_msat=totals.local_msat if local else totals.remote_msat,
        other_msat=totals.remote_msat if local else totals.local_msat,
        htlcs=tuple(htlcs),
    )


def signed_view(channel: Channel, owner: Side) -> CommitmentView:
    """``owner``'s newest signed commitment, reconstructed from the stages: to repeat it or to broadcast it."""
    balance = {LOCAL: int(channel.local_settled), REMOTE: int(channel.remote_settled)}
    htlcs: list[Htlc] = []
    for offerer in (owner, owner.other):
        owner_offered = offerer is owner
        for h in channel.htlcs(offerer).values():
            if in_signed(h.stage, owner_offered):
                balance[offerer] -= h.amount_msat
                htlcs.append(
                    Htlc(
                        offered_by_owner=owner_offered,
                        amount_msat=h.amount_msat,
                        payment_hash=h.payment_hash,
                        cltv_expiry=h.cltv_expiry,
                        id=h.id,
                    )
                )
            elif h.stage > Stage.COMMITTED and fulfilled(h.removal):  # removed from it and paid
                balance[offerer] -= h.amount_msat
                balance[offerer.other] += h.amount_msat
    local = owner is LOCAL
    number = channel.local_number if local else channel.remote_number
    revoked = channel.local_revoked if local else channel.remote_revoked
    if local:
        point = channel.local_point if number == revoked else channel.local_next_point
    else:
        point = channel.remote_point if number == revoked else channel.remote_next_point
    return CommitmentView(
        number=number,
        per_commitment_point=point,
        feerate=signed_feerate(channel, owner),
        owner_msat=Msat(balance[owner]),
        other_msat=Msat(balance[owner.other]),
        htlcs=tuple(htlcs),
    )


def preimages_leaving(channel: Channel, owner: Side) -> tuple[Preimage, ...]:
    """Preimages of HTLCs that will leave ``owner``'s commitment with the next signature (for signers with accounts)."""
    return _preimages(channel, owner, 6, 8)


def preimages_left(channel: Channel, owner: Side) -> tuple[Preimage, ...]:
    """The same for ``owner``'s newest signed commitment, while the one before is not revoked."""
    return _preimages(channel, owner, 7, 9)


def _preimages(channel: Channel, owner: Side, own_stage: int, others_stage: int) -> tuple[Preimage, ...]:
    found: list[Preimage] = []
    for offerer, stage in ((owner, own_stage), (owner.other, others_stage)):
        for h in channel.htlcs(offerer).values():
            if h.stage == stage and h.removal is not None and h.removal.preimage is not None:
                found.append(h.removal.preimage)
    return tuple(found)
