"""Proposing and receiving updates: HTLCs added and removed, feerates (BOLT 2, normal operation)."""

from hashlib import sha256

from msgspec.structs import replace

from leyden.channel.effects import HtlcAdded, HtlcFulfilled
from leyden.channel.errors import ChannelError, ErrorCode
from leyden.channel.events import AddHtlc, FailHtlc, FailMalformedHtlc, FeerateChanged, FulfillHtlc, UpdateFee
from leyden.channel.limits import (
    LOCAL,
    REMOTE,
    buffered_exposure_msat,
    change_unacked,
    compute_totals,
    compute_unacked,
    funder_cost_msat,
    has_anchors,
    is_trimmed,
    max_exposure_msat,
    next_feerate,
    reserve_msat,
    with_htlc,
    without_htlc,
)
from leyden.channel.state import Channel, FeeUpdate, Link, LiveHtlc, Removal, Stage
from leyden.channel.turn import Misplaced, Turn
from leyden.commitment import MAX_HTLCS_PER_SIDE
from leyden.hooks.types import Alarm
from leyden.types import BlockHeight, FeeRatePerKw, Msat, PaymentHash, Preimage, Side, require
from leyden.types.rules import C_061, C_071, C_072, C_073, C_074, C_079, C_081, C_082, C_086, C_090
from leyden.wire import (
    Message,
    UpdateAddHtlc,
    UpdateFailHtlc,
    UpdateFailMalformedHtlc,
    UpdateFulfillHtlc,
)
from leyden.wire import UpdateFee as UpdateFeeMessage

BADONION = 0x8000
MAX_CLTV_EXPIRY = 500_000_000
ONION_BYTES = 1366
MAX_REASON_BYTES = 65_535 - 2 - 32 - 8 - 2


def update_message(channel: Channel, offerer: Side, htlc: LiveHtlc) -> Message:
    """Our last message about an HTLC, as it was or will be sent."""
    if offerer is LOCAL:
        return UpdateAddHtlc(
            channel_id=channel.channel_id,
            id=htlc.id,
            amount_msat=htlc.amount_msat,
            payment_hash=htlc.payment_hash,
            cltv_expiry=htlc.cltv_expiry,
            onion_routing_packet=htlc.onion_routing_packet,
            blinded_path=htlc.path_key,
        )
    removal = htlc.removal or Removal(reason=b"")
    if removal.preimage is not None:
        return UpdateFulfillHtlc(channel_id=channel.channel_id, id=htlc.id, payment_preimage=removal.preimage)
    if removal.sha256_of_onion is not None:
        return UpdateFailMalformedHtlc(
            channel_id=channel.channel_id,
            id=htlc.id,
            sha256_of_onion=removal.sha256_of_onion,
            failure_code=removal.failure_code or BADONION,
        )
    return UpdateFailHtlc(channel_id=channel.channel_id, id=htlc.id, reason=removal.reason or b"")


# -- adding, our side --------------------------------------------------------------------------------------------------


def on_add_htlc(turn: Turn, command: AddHtlc) -> None:
    """Offer an HTLC if every limit of the peer and of ours allows it; ``ChannelError`` otherwise."""
    channel = turn.channel
    _check_may_add(channel)
    if channel.config.minimum_depth and channel.funding.confirmation is None:
        raise ChannelError(ErrorCode.WRONG_STATE, "the funding transaction left the chain: no new HTLCs")
    amount = command.amount_msat
    _check_add_fields(channel, command)
    remote, totals = channel.config.remote, channel.remote_next
    allowed = min(remote.max_accepted_htlcs, MAX_HTLCS_PER_SIDE)
    if C_072.enabled and totals.local_count >= allowed:
        raise ChannelError(
            ErrorCode.TOO_MANY_HTLCS, "too many HTLCs in flight", offered=totals.local_count + 1, allowed=allowed
        )
    if C_072.enabled and totals.local_in_flight + amount > remote.max_in_flight_msat:
        raise ChannelError(
            ErrorCode.IN_FLIGHT_LIMIT,
            "the peer's limit of value in flight is reached",
            offered=totals.local_in_flight + amount,
            allowed=remote.max_in_flight_msat,
        )
    feerate = next_feerate(channel, REMOTE)
    trimmed_remote = is_trimmed(channel, REMOTE, LOCAL, amount, feerate)
    trimmed_local = is_trimmed(channel, LOCAL, LOCAL, amount, feerate)
    _check_affordable(turn, amount, trimmed_local, trimmed_remote, feerate)
    _check_dust(turn, amount, trimmed_local, trimmed_remote)
    id = channel.next_local_id
    htlc = LiveHtlc(
        id=id,
        amount_msat=amount,
        payment_hash=command.payment_hash,
        cltv_expiry=command.cltv_expiry,
        stage=1,
        onion_routing_packet=command.onion_routing_packet,
        path_key=command.path_key,
        order=channel.next_order,
    )
    htlcs = channel.local_htlcs.copy()
    htlcs[id] = htlc
    turn.set(
        local_htlcs=htlcs,
        next_local_id=id + 1 if C_074.enabled else 0,
        next_order=channel.next_order + 1,
        remote_next=with_htlc(totals, LOCAL, amount, trimmed_remote),
        unacked=change_unacked(channel.unacked, htlc, trimmed_local, 1),
        unsigned=True,
    )
    turn.emit(HtlcAdded(id=id))
    turn.send(update_message(channel, LOCAL, htlc))


def _check_may_add(channel: Channel) -> None:
    shutdown = channel.shutdown
    if C_061.enabled and (shutdown.wanted or shutdown.received):
        raise ChannelError(ErrorCode.CLOSING, "the channel is closing: no new HTLCs")
    if channel.link is not Link.UP:
        raise ChannelError(ErrorCode.NOT_CONNECTED, "the peer is not connected")


def _check_add_fields(channel: Channel, command: AddHtlc) -> None:
    least = max(1, channel.config.remote.htlc_minimum_msat)
    if C_071.enabled and command.amount_msat < least:
        raise ChannelError(
            ErrorCode.AMOUNT_TOO_SMALL,
            "amount below the peer's minimum",
            offered=command.amount_msat,
            allowed=least,
        )
    if C_071.enabled and not 0 < command.cltv_expiry < MAX_CLTV_EXPIRY:
        raise ChannelError(
            ErrorCode.BAD_EXPIRY,
            "cltv_expiry must be a block height",
            offered=command.cltv_expiry,
            allowed=MAX_CLTV_EXPIRY - 1,
        )
    if len(command.onion_routing_packet) != ONION_BYTES:
        raise ChannelError(
            ErrorCode.BAD_ONION,
            "wrong size of the onion packet",
            offered=len(command.onion_routing_packet),
            allowed=ONION_BYTES,
        )
    if len(command.payment_hash) != 32:
        raise ChannelError(ErrorCode.BAD_PARAMETERS, "a payment hash has 32 bytes", offered=len(command.payment_hash))


def _check_affordable(
    turn: Turn, amount: Msat, trimmed_local: bool, trimmed_remote: bool, feerate: FeeRatePerKw
) -> None:
    """Both reserves hold after fees; as funder with room for a fee spike and one more HTLC (C-073)."""
    if not C_073.enabled:
        return
    channel, policy = turn.channel, turn.env.policy
    anchors, we_fund = has_anchors(channel), channel.config.local_is_funder
    untrimmed = max(
        channel.remote_next.untrimmed + (not trimmed_remote),
        channel.local_next.untrimmed + channel.unacked.untrimmed + (not trimmed_local),
    )
    need = reserve_msat(channel, LOCAL)
    if we_fund:
        spiked = FeeRatePerKw(feerate * policy.fee_spike_multiple)
        need = Msat(need + funder_cost_msat(anchors, spiked, untrimmed + 1))
    balance = channel.remote_next.local_msat
    if amount > balance - need:
        raise ChannelError(
            ErrorCode.INSUFFICIENT_BALANCE,
            "not enough spendable balance",
            offered=amount,
            allowed=max(0, balance - need),
            reserve_and_fees=need,
        )
    if not we_fund:
        need = Msat(reserve_msat(channel, REMOTE) + funder_cost_msat(anchors, feerate, untrimmed))
        balance = min(channel.remote_next.remote_msat, channel.local_next.remote_msat)
        if balance < need:
            raise ChannelError(
                ErrorCode.INSUFFICIENT_BALANCE,
                "the peer could not pay the fee of another HTLC",
                offered=balance,
                allowed=need,
            )


def _check_dust(turn: Turn, amount: Msat, trimmed_local: bool, trimmed_remote: bool) -> None:
    channel, limit = turn.channel, turn.env.policy.max_dust_exposure_msat
    if has_anchors(channel):
        exposure = max(
            channel.remote_next.dust_msat + amount if trimmed_remote else 0,
            channel.local_next.dust_msat + channel.unacked.dust_msat + amount if trimmed_local else 0,
        )
    else:
        exposure = buffered_exposure_msat(channel, LOCAL, amount)
    if C_086.enabled and exposure > limit:
        raise ChannelError(ErrorCode.DUST_EXPOSURE, "too much value without outputs", offered=exposure, allowed=limit)


# -- removing, our side ------------------------------------------------------------------------------------------------


def on_fulfill_htlc(turn: Turn, command: FulfillHtlc) -> None:
    htlc = _removable(turn.channel, command.id)
    if sha256(command.preimage).digest() != htlc.payment_hash:
        raise ChannelError(
            ErrorCode.WRONG_PREIMAGE, "preimage does not hash to the payment hash", offered=command.preimage
        )
    if htlc.must_fail and C_086.enabled:
        raise ChannelError(ErrorCode.DUST_EXPOSURE, "this HTLC exceeds the limit of value without outputs: fail it")
    _remove(turn, htlc, Removal(preimage=command.preimage))


def on_fail_htlc(turn: Turn, command: FailHtlc) -> None:
    htlc = _removable(turn.channel, command.id)
    if len(command.reason) > MAX_REASON_BYTES:
        raise ChannelError(
            ErrorCode.BAD_FAILURE, "failure too long", offered=len(command.reason), allowed=MAX_REASON_BYTES
        )
    _remove(turn, htlc, Removal(reason=command.reason))


def on_fail_malformed_htlc(turn: Turn, command: FailMalformedHtlc) -> None:
    htlc = _removable(turn.channel, command.id)
    if not command.failure_code & BADONION or command.failure_code > 0xFFFF or len(command.sha256_of_onion) != 32:
        raise ChannelError(
            ErrorCode.BAD_FAILURE, "a malformed report needs the BADONION bit", offered=command.failure_code
        )
    _remove(turn, htlc, Removal(sha256_of_onion=command.sha256_of_onion, failure_code=command.failure_code))


def _removable(channel: Channel, id: int) -> LiveHtlc:
    htlc = channel.remote_htlcs.get(id)
    if htlc is None:
        raise ChannelError(ErrorCode.UNKNOWN_HTLC, "the peer has no such HTLC in flight", offered=id)
    if C_081.enabled and htlc.stage != Stage.COMMITTED:
        raise ChannelError(
            ErrorCode.HTLC_NOT_COMMITTED,
            "not irrevocably committed, or already being removed",
            offered=id,
            stage=htlc.stage,
            allowed=int(Stage.COMMITTED),
        )
    return htlc


def _remove(turn: Turn, htlc: LiveHtlc, removal: Removal) -> None:
    channel = turn.channel
    removed = replace(htlc, stage=6, removal=removal, order=channel.next_order)
    htlcs = channel.remote_htlcs.copy()
    htlcs[htlc.id] = removed
    trimmed = is_trimmed(channel, REMOTE, REMOTE, htlc.amount_msat, next_feerate(channel, REMOTE))
    turn.set(
        remote_htlcs=htlcs,
        next_order=channel.next_order + 1,
        remote_next=without_htlc(channel.remote_next, REMOTE, htlc.amount_msat, trimmed, removal.preimage is not None),
        unsigned=True,
    )
    turn.send(update_message(channel, REMOTE, removed))


# -- adding and removing, the peer's side ------------------------------------------------------------------------------


def on_update_add_htlc(turn: Turn, message: UpdateAddHtlc) -> None:
    channel = turn.channel
    local, totals = channel.config.local, channel.local_next
    amount = Msat(message.amount_msat)
    require(not channel.shutdown.received, C_061, "update_add_htlc after shutdown")
    require(
        message.id == channel.next_remote_id, C_074, "wrong HTLC id", offered=message.id, allowed=channel.next_remote_id
    )
    least = max(1, local.htlc_minimum_msat)
    require(amount >= least, C_071, "HTLC amount below our minimum", offered=amount, allowed=least)
    require(
        message.cltv_expiry < MAX_CLTV_EXPIRY,
        C_071,
        "cltv_expiry is not a block height",
        offered=message.cltv_expiry,
        allowed=MAX_CLTV_EXPIRY - 1,
    )
    require(
        totals.remote_count < local.max_accepted_htlcs,
        C_072,
        "too many HTLCs",
        offered=totals.remote_count + 1,
        allowed=local.max_accepted_htlcs,
    )
    require(
        totals.remote_in_flight + amount <= local.max_in_flight_msat,
        C_072,
        "too much value in flight",
        offered=totals.remote_in_flight + amount,
        allowed=local.max_in_flight_msat,
    )
    feerate = next_feerate(channel, LOCAL)
    trimmed = is_trimmed(channel, LOCAL, REMOTE, amount, feerate)
    need = reserve_msat(channel, REMOTE)
    if not channel.config.local_is_funder:
        cost = funder_cost_msat(has_anchors(channel), feerate, totals.untrimmed + (not trimmed))
        need = Msat(need + cost)
    require(
        totals.remote_msat - amount >= need,
        C_073,
        "sender cannot pay this HTLC and keep its reserve",
        offered=totals.remote_msat - amount,
        allowed=need,
    )
    htlcs = channel.remote_htlcs.copy()
    htlcs[message.id] = LiveHtlc(
        id=message.id,
        amount_msat=amount,
        payment_hash=PaymentHash(message.payment_hash),
        cltv_expiry=BlockHeight(message.cltv_expiry),
        stage=1,
        onion_routing_packet=message.onion_routing_packet,
        path_key=message.blinded_path,
        must_fail=_exceeds_dust(turn, amount, trimmed),
    )
    turn.set(
        remote_htlcs=htlcs,
        next_remote_id=message.id + 1,
        remote_uncommitted=channel.remote_uncommitted + 1,
        local_next=with_htlc(totals, REMOTE, amount, trimmed),
    )


def _exceeds_dust(turn: Turn, amount: Msat, trimmed_local: bool) -> bool:
    """Whether a received HTLC pushes the value without outputs over our limit on either commitment (C-086)."""
    channel, limit = turn.channel, turn.env.policy.max_dust_exposure_msat
    if not C_086.enabled:
        return False
    if not has_anchors(channel):
        return buffered_exposure_msat(channel, REMOTE, amount) > limit
    if trimmed_local and channel.local_next.dust_msat + channel.unacked.dust_msat + amount > limit:
        return True
    feerate = next_feerate(channel, REMOTE)
    if not is_trimmed(channel, REMOTE, REMOTE, amount, feerate):
        return False
    coming = sum(
        htlc.amount_msat
        for htlc in channel.remote_htlcs.values()  # not in the totals of the peer's commitment before we revoked
        if htlc.stage <= Stage.ADD_SIGNED_BY_OFFERER and is_trimmed(channel, REMOTE, REMOTE, htlc.amount_msat, feerate)
    )
    return channel.remote_next.dust_msat + coming + amount > limit


def on_update_fulfill_htlc(turn: Turn, message: UpdateFulfillHtlc) -> None:
    htlc = _removable_by_peer(turn.channel, message.id)
    require(
        sha256(message.payment_preimage).digest() == htlc.payment_hash,
        C_082,
        "preimage does not hash to the payment hash",
        offered=message.payment_preimage,
        id=message.id,
    )
    preimage = Preimage(message.payment_preimage)
    _removed_by_peer(turn, htlc, Removal(preimage=preimage))
    if C_079.enabled:
        turn.deliver(HtlcFulfilled(id=htlc.id, preimage=preimage))


def on_update_fail_htlc(turn: Turn, message: UpdateFailHtlc) -> None:
    _removed_by_peer(turn, _removable_by_peer(turn.channel, message.id), Removal(reason=message.reason))


def on_update_fail_malformed_htlc(turn: Turn, message: UpdateFailMalformedHtlc) -> None:
    require(
        message.failure_code & BADONION,
        C_082,
        "malformed report without the BADONION bit",
        offered=message.failure_code,
        id=message.id,
    )
    removal = Removal(sha256_of_onion=message.sha256_of_onion, failure_code=message.failure_code)
    _removed_by_peer(turn, _removable_by_peer(turn.channel, message.id), removal)


def _removable_by_peer(channel: Channel, id: int) -> LiveHtlc:
    htlc = channel.local_htlcs.get(id)
    if htlc is None:
        require(False, C_082, "no such HTLC in flight", offered=id)
        raise Misplaced(f"no HTLC {id} in flight")
    require(htlc.stage == Stage.COMMITTED, C_082, "HTLC cannot be removed now", offered=id, stage=htlc.stage, allowed=5)
    return htlc


def _removed_by_peer(turn: Turn, htlc: LiveHtlc, removal: Removal) -> None:
    channel = turn.channel
    htlcs = channel.local_htlcs.copy()
    htlcs[htlc.id] = replace(htlc, stage=6, removal=removal)
    trimmed = is_trimmed(channel, LOCAL, LOCAL, htlc.amount_msat, next_feerate(channel, LOCAL))
    paid = removal.preimage is not None
    turn.set(
        local_htlcs=htlcs,
        local_next=without_htlc(channel.local_next, LOCAL, htlc.amount_msat, trimmed, paid),
    )


# -- feerate -----------------------------------------------------------------------------------------------------------


def on_update_fee(turn: Turn, command: UpdateFee) -> None:
    """Propose a feerate (funder only) that we can pay on both commitments."""
    channel, feerate = turn.channel, command.feerate
    if not channel.config.local_is_funder:
        raise ChannelError(ErrorCode.NOT_FUNDER, "only the funder sets the feerate")
    _check_may_add(channel)
    policy = turn.env.policy
    highest = turn.env.highest_feerate
    if not policy.min_feerate <= feerate <= highest:
        raise ChannelError(
            ErrorCode.BAD_FEERATE, "feerate out of bounds", offered=feerate, allowed=f"{policy.min_feerate}..{highest}"
        )
    untrimmed = max(channel.remote_next.untrimmed, channel.local_next.untrimmed + channel.unacked.untrimmed)
    need = reserve_msat(channel, LOCAL) + funder_cost_msat(has_anchors(channel), feerate, untrimmed)
    if channel.remote_next.local_msat < need:
        raise ChannelError(
            ErrorCode.INSUFFICIENT_BALANCE,
            "we could not pay this feerate",
            offered=channel.remote_next.local_msat,
            allowed=need,
        )
    exposure, limit = _exposure_of_raise(channel, feerate), policy.max_dust_exposure_msat
    if exposure > limit and C_086.enabled:
        raise ChannelError(
            ErrorCode.DUST_EXPOSURE, "too much value without outputs at that feerate", offered=exposure, allowed=limit
        )
    update = FeeUpdate(feerate=feerate, stage=1, order=channel.next_order)
    turn.set(fee_updates=_with_update(channel, update), next_order=channel.next_order + 1, unsigned=True)
    turn.set(remote_next=compute_totals(turn.channel, REMOTE))
    turn.send(UpdateFeeMessage(channel_id=channel.channel_id, feerate_per_kw=feerate))


def _exposure_of_raise(channel: Channel, feerate: FeeRatePerKw) -> Msat:
    """The value without outputs once ``feerate`` holds; 0 if it is no higher, or if trimming ignores feerates."""
    if has_anchors(channel) or feerate <= channel.feerate:
        return Msat(0)
    return max_exposure_msat(channel, feerate)


def _with_update(channel: Channel, update: FeeUpdate) -> tuple[FeeUpdate, ...]:
    """An update that was not signed yet is overtaken by the next one."""
    kept = tuple(u for u in channel.fee_updates if u.stage != Stage.ADD_PROPOSED)
    return (*kept, update)


def on_update_fee_message(turn: Turn, message: UpdateFeeMessage) -> None:
    channel, env = turn.channel, turn.env
    feerate = FeeRatePerKw(message.feerate_per_kw)
    require(not channel.config.local_is_funder, C_090, "update_fee from the side that does not pay", offered=feerate)
    least = env.feerates.least_remote(has_anchors(channel))
    lowest = min(least, max(env.policy.min_feerate, next_feerate(channel, LOCAL)))
    highest = env.highest_feerate
    require(feerate >= lowest, C_090, "feerate too low", offered=feerate, allowed=lowest)
    require(feerate <= highest, C_090, "feerate too high", offered=feerate, allowed=highest)
    totals = channel.local_next
    need = reserve_msat(channel, REMOTE) + funder_cost_msat(has_anchors(channel), feerate, totals.untrimmed)
    require(
        totals.remote_msat >= need, C_090, "sender cannot pay this feerate", offered=totals.remote_msat, allowed=need
    )
    exposure, limit = _exposure_of_raise(channel, feerate), env.policy.max_dust_exposure_msat
    require(
        exposure <= limit,
        C_090,
        "feerate leaves too much value without outputs",
        offered=exposure,
        allowed=limit,
    )
    turn.set(fee_updates=_with_update(channel, FeeUpdate(feerate=feerate, stage=1)))
    turn.set(local_next=compute_totals(turn.channel, LOCAL), unacked=compute_unacked(turn.channel))


def on_feerate_changed(turn: Turn, _event: FeerateChanged) -> None:
    """Raise whenever the estimate rises; lower only when it has halved, so that noise costs no commitments.

    A feerate that policy names is no noise.
    """
    channel = turn.channel
    if not channel.config.local_is_funder or channel.link is not Link.UP:
        return
    target = turn.env.commitment_feerate(has_anchors(channel))
    current = next_feerate(channel, REMOTE)
    if target == current or (current // 2 < target < current and not turn.env.policy.commitment_feerate):
        return
    try:
        on_update_fee(turn, UpdateFee(feerate=target))
    except ChannelError as error:
        if error.code in (ErrorCode.INSUFFICIENT_BALANCE, ErrorCode.DUST_EXPOSURE):
            turn.publish(Alarm(subject="feerate", text=f"cannot raise the feerate to {target} sat/kw: {error}"))


__all__ = [
    "on_add_htlc",
    "on_fail_htlc",
    "on_fail_malformed_htlc",
    "on_feerate_changed",
    "on_fulfill_htlc",
    "on_update_add_htlc",
    "on_update_fail_htlc",
    "on_update_fail_malformed_htlc",
    "on_update_fee",
    "on_update_fee_message",
    "on_update_fulfill_htlc",
    "update_message",
]
