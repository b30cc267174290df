"""Running totals of the next commitments, and what fits into them (BOLT 2, adding an HTLC).

Everything here is pure arithmetic on ``Totals``. Amounts are millisatoshi.
"""

from msgspec.structs import replace

from leyden.channel.state import Channel, FeeUpdate, LiveHtlc, Removal, Stage, Totals, Unacked
from leyden.commitment import anchors_cost, commitment_fee, trim_threshold
from leyden.types import FeeRatePerKw, Msat, Sat, Side
from leyden.wire.features import Feature

LOCAL, REMOTE = Side.LOCAL, Side.REMOTE


def has_anchors(channel: Channel) -> bool:
    return channel.config.channel_type.offers(Feature.OPTION_ANCHORS)


def next_feerate(channel: Channel, owner: Side) -> FeeRatePerKw:
    """The feerate of ``owner``'s next commitment: a fee update counts from the stage at which its signer may use it."""
    updates = channel.fee_updates
    if not updates:
        return channel.feerate
    least = Stage.ADD_REVOKED_BY_OTHER if owner is channel.config.funder else Stage.ADD_PROPOSED
    return _newest(updates, least, channel.feerate)


def signed_feerate(channel: Channel, owner: Side) -> FeeRatePerKw:
    """The feerate of ``owner``'s newest signed commitment."""
    least = Stage.ADD_SIGNED_BY_OTHER if owner is channel.config.funder else Stage.ADD_SIGNED_BY_OFFERER
    return _newest(channel.fee_updates, least, channel.feerate)


def _newest(updates: tuple[FeeUpdate, ...], least: int, otherwise: FeeRatePerKw) -> FeeRatePerKw:
    for update in reversed(updates):
        if update.stage >= least:
            return update.feerate
    return otherwise


def is_trimmed(channel: Channel, owner: Side, offerer: Side, amount_msat: Msat, feerate: FeeRatePerKw) -> bool:
    """Whether an HTLC has no output on ``owner``'s commitment (BOLT 3, trimming)."""
    dust_limit = channel.config.terms(owner).dust_limit
    return amount_msat // 1000 < trim_threshold(has_anchors(channel), dust_limit, feerate, offerer is owner)


def in_next(stage: int, owner_offered: bool) -> bool:
    """Whether an HTLC of this stage stands in the next commitment of an owner."""
    return 3 <= stage <= 5 if owner_offered else stage <= 7


def in_signed(stage: int, owner_offered: bool) -> bool:
    """Whether it stands in the owner's newest signed commitment."""
    return 4 <= stage <= 6 if owner_offered else 2 <= stage <= 8


# -- running totals ----------------------------------------------------------------------------------------------------


def with_htlc(totals: Totals, offerer: Side, amount: Msat, trimmed: bool) -> Totals:
    """One more HTLC."""
    untrimmed = totals.untrimmed + (not trimmed)
    dust = Msat(totals.dust_msat + amount) if trimmed else totals.dust_msat
    if offerer is LOCAL:
        return Totals(
            local_msat=Msat(totals.local_msat - amount),
            remote_msat=totals.remote_msat,
            local_count=totals.local_count + 1,
            local_in_flight=Msat(totals.local_in_flight + amount),
            remote_count=totals.remote_count,
            remote_in_flight=totals.remote_in_flight,
            untrimmed=untrimmed,
            dust_msat=dust,
        )
    return Totals(
        local_msat=totals.local_msat,
        remote_msat=Msat(totals.remote_msat - amount),
        local_count=totals.local_count,
        local_in_flight=totals.local_in_flight,
        remote_count=totals.remote_count + 1,
        remote_in_flight=Msat(totals.remote_in_flight + amount),
        untrimmed=untrimmed,
        dust_msat=dust,
    )


def without_htlc(totals: Totals, offerer: Side, amount: Msat, trimmed: bool, fulfilled: bool) -> Totals:
    """One HTLC less: its amount goes to the other side if fulfilled, back to its offerer if not."""
    untrimmed = totals.untrimmed - (not trimmed)
    dust = Msat(totals.dust_msat - amount) if trimmed else totals.dust_msat
    to_local = (offerer is LOCAL) is not fulfilled
    local = offerer is LOCAL
    return Totals(
        local_msat=Msat(totals.local_msat + amount) if to_local else totals.local_msat,
        remote_msat=totals.remote_msat if to_local else Msat(totals.remote_msat + amount),
        local_count=totals.local_count - local,
        local_in_flight=Msat(totals.local_in_flight - amount) if local else totals.local_in_flight,
        remote_count=totals.remote_count - (not local),
        remote_in_flight=totals.remote_in_flight if local else Msat(totals.remote_in_flight - amount),
        untrimmed=untrimmed,
        dust_msat=dust,
    )


def fulfilled(removal: Removal | None) -> bool:
    return removal is not None and removal.preimage is not None


def compute_totals(channel: Channel, owner: Side) -> Totals:
    """The totals of ``owner``'s next commitment from scratch: after a restart, a disconnect, a fee change."""
    feerate = next_feerate(channel, owner)
    totals = Totals(local_msat=channel.local_settled, remote_msat=channel.remote_settled)
    for offerer in (LOCAL, REMOTE):
        owner_offered = offerer is owner
        for htlc in channel.htlcs(offerer).values():
            if htlc.stage < Stage.ADD_REVOKED_BY_OTHER and owner_offered:
                continue
            trimmed = is_trimmed(channel, owner, offerer, htlc.amount_msat, feerate)
            totals = with_htlc(totals, offerer, htlc.amount_msat, trimmed)
            if not in_next(htlc.stage, owner_offered):
                totals = without_htlc(totals, offerer, htlc.amount_msat, trimmed, fulfilled(htlc.removal))
    return totals


def compute_unacked(channel: Channel) -> Unacked:
    """What ``Channel.unacked`` must be, from scratch."""
    feerate = next_feerate(channel, LOCAL)
    unacked = Unacked()
    for htlc in channel.local_htlcs.values():
        if htlc.stage <= Stage.ADD_SIGNED_BY_OFFERER:
            unacked = change_unacked(unacked, htlc, is_trimmed(channel, LOCAL, LOCAL, htlc.amount_msat, feerate), 1)
    return unacked


def change_unacked(unacked: Unacked, htlc: LiveHtlc, trimmed: bool, sign: int) -> Unacked:
    """One HTLC of ours more (``sign`` 1) or less (-1) that the peer has not acknowledged."""
    return Unacked(
        msat=Msat(unacked.msat + sign * htlc.amount_msat),
        untrimmed=unacked.untrimmed + (0 if trimmed else sign),
        dust_msat=Msat(unacked.dust_msat + sign * htlc.amount_msat) if trimmed else unacked.dust_msat,
    )


def with_computed_totals(channel: Channel) -> Channel:
    """The channel with every running figure recomputed."""
    return replace(
        channel,
        local_next=compute_totals(channel, LOCAL),
        remote_next=compute_totals(channel, REMOTE),
        unacked=compute_unacked(channel),
    )


# -- value without outputs --------------------------------------------------------------------------------------------


def max_exposure_msat(channel: Channel, feerate: FeeRatePerKw, offerer: Side = LOCAL, amount: int = 0) -> Msat:
    """The value without outputs at ``feerate`` on the worse of both commitments, everything in flight counted.

    One more HTLC of ``amount`` is imagined; where it would have an output it adds nothing, and the result is 0 if it
    would have one on both. Only channels without anchors need this: with them trimming does not depend on feerates.
    """
    worst = 0
    for owner in (LOCAL, REMOTE):
        if amount and not is_trimmed(channel, owner, offerer, Msat(amount), feerate):
            continue
        exposure = int(amount)
        for side in (LOCAL, REMOTE):
            for htlc in channel.htlcs(side).values():
                if is_trimmed(channel, owner, side, htlc.amount_msat, feerate):
                    exposure += htlc.amount_msat
        worst = max(worst, exposure)
    return Msat(worst)


def buffered_exposure_msat(channel: Channel, offerer: Side, amount: Msat) -> Msat:
    """The same at a feerate some way above the present one (BOLT 2: by a quarter, by 2530 sat/kw at least)."""
    feerate = max(next_feerate(channel, LOCAL), next_feerate(channel, REMOTE))
    return max_exposure_msat(channel, FeeRatePerKw(max(feerate + 2530, feerate * 5 // 4)), offerer, amount)


# -- what the funder pays ----------------------------------------------------------------------------------------------


def funder_cost_msat(anchors: bool, feerate: FeeRatePerKw, untrimmed: int) -> Msat:
    """Commitment fee and both anchors in millisatoshi."""
    return Msat((commitment_fee(anchors, feerate, untrimmed) + anchors_cost(anchors)) * 1000)


def reserve_msat(channel: Channel, side: Side) -> Msat:
    """What ``side`` must keep: the other side demands it."""
    return Msat(channel.config.terms(side.other).reserve * 1000)


def available_to_send(channel: Channel, fee_spike_multiple: int) -> Msat:
    """What one more HTLC could carry at most by balances alone (reserve, fees, fee-spike buffer), never negative."""
    balance = channel.remote_next.local_msat - reserve_msat(channel, LOCAL)
    if channel.config.local_is_funder:
        untrimmed = max(channel.remote_next.untrimmed, channel.local_next.untrimmed + channel.unacked.untrimmed)
        feerate = next_feerate(channel, REMOTE)
        spiked = FeeRatePerKw(feerate * fee_spike_multiple)
        balance -= funder_cost_msat(has_anchors(channel), spiked, untrimmed + 2)
    return Msat(max(0, balance))


def is_quiet(channel: Channel) -> bool:
    """No HTLC, no fee update, no revocation owed by either side."""
    return (
        not channel.local_htlcs
        and not channel.remote_htlcs
        and not channel.fee_updates
        and channel.local_number == channel.local_revoked
        and channel.remote_number == channel.remote_revoked
    )


def closing_msat(channel: Channel) -> tuple[Msat, Msat]:
    """Both balances, without HTLCs."""
    return channel.local_settled, channel.remote_settled


def closing_balances(channel: Channel) -> tuple[Sat, Sat]:
    """Both balances in whole satoshi, without HTLCs."""
    return Sat(channel.local_settled // 1000), Sat(channel.remote_settled // 1000)
