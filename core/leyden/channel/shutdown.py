"""Closing by agreement: ``shutdown``, then legacy ``closing_signed`` until both name the same fee (BOLT 2).

With ``option_simple_close`` what follows ``shutdown`` is in ``simple_close``.
"""

from msgspec.structs import replace

from leyden.bitcoin import Transaction, dust_limit, funding_script
from leyden.channel import simple_close
from leyden.channel.closing_tx import close_witness
from leyden.channel.effects import Broadcast
from leyden.channel.errors import ChannelError, ErrorCode
from leyden.channel.events import Shutdown
from leyden.channel.limits import LOCAL, REMOTE, closing_balances, is_quiet
from leyden.channel.scripts import is_allowed_shutdown_script
from leyden.channel.stages import has_unacked_updates
from leyden.channel.state import OPENING, OPERATING, Channel, CloseOffer, Lifecycle, Link
from leyden.channel.turn import Misplaced, Turn
from leyden.commitment import closing_sighash, closing_weight, make_closing_tx
from leyden.crypto import ecdsa_verify
from leyden.hooks.signing import Signature, SignMutualClose
from leyden.hooks.types import BroadcastKind, ChannelClosing
from leyden.types import FeeRatePerKw, Msat, Sat, Side, fee_for_weight, require
from leyden.types.rules import C_060, C_061, C_062, C_063, C_069, C_070, C_093
from leyden.wire import ClosingSigned, FeeRange
from leyden.wire import Shutdown as ShutdownMessage

OP_CLOSE = "sign_close"
TIMER = "closing"
MOST_LEFT_OUT = Sat(546)
"""Up to here the peer's dust limit may take our output out of the close; a higher one burns money that is ours."""


# -- shutdown ----------------------------------------------------------------------------------------------------------


def on_shutdown(turn: Turn, command: Shutdown) -> None:
    """Begin to close: no new HTLC from now on; the message leaves when our updates are acknowledged."""
    channel = turn.channel
    if channel.shutdown.wanted and simple_close.is_simple(turn) and channel.link is Link.UP:
        simple_close.on_shutdown_again(
            turn, command, _own_script(turn, command.script or channel.shutdown.local_script)
        )
        return
    closing = channel.shutdown.wanted or channel.lifecycle is Lifecycle.CLOSING
    if closing and C_060.enabled:
        raise ChannelError(ErrorCode.CLOSING, "the channel is closing already")
    script = _own_script(turn, command.script)
    turn.set_shutdown(
        wanted=True,
        local_script=script,
        initiator=LOCAL,
        target_feerate=command.feerate or FeeRatePerKw(0),
        max_fee=command.max_fee or Sat(0),
    )
    turn.publish(ChannelClosing(channel_id=channel.channel_id, initiator="local", reason="cooperative close"))
    send_shutdown_if_due(turn)


def _own_script(turn: Turn, wanted: bytes) -> bytes:
    upfront = turn.channel.config.local.shutdown_script
    script = wanted or upfront or turn.env.shutdown_script
    if upfront and script != upfront:
        raise ChannelError(
            ErrorCode.BAD_SCRIPT, "another script was committed upfront", offered=script, allowed=upfront
        )
    if not is_allowed_shutdown_script(script, turn.env.features):
        raise ChannelError(ErrorCode.BAD_SCRIPT, "script in a form that shutdown does not allow", offered=script)
    return script


def send_shutdown_if_due(turn: Turn) -> None:
    """Not before the peer has acknowledged every update of ours (C-060)."""
    channel = turn.channel
    if not channel.shutdown.wanted or channel.shutdown.sent:
        return
    if channel.link is not Link.UP or channel.lifecycle not in OPERATING:
        return
    if has_unacked_updates(channel) and C_060.enabled:
        return
    turn.set_shutdown(sent=True)
    turn.send(_shutdown_message(channel))


def _shutdown_message(channel: Channel) -> ShutdownMessage:
    return ShutdownMessage(channel_id=channel.channel_id, scriptpubkey=channel.shutdown.local_script)


def on_shutdown_message(turn: Turn, message: ShutdownMessage) -> None:
    channel = turn.channel
    script = message.scriptpubkey
    require(channel.lifecycle not in OPENING, C_060, "shutdown before the channel is funded")
    if channel.lifecycle in OPENING:
        return
    upfront = channel.config.remote.shutdown_script
    require(
        not upfront or script == upfront, C_063, "not the script committed upfront", offered=script, allowed=upfront
    )
    allowed = is_allowed_shutdown_script(script, turn.env.features)
    require(allowed, C_062, "shutdown script in a form that is not allowed", offered=script)
    turn.set_shutdown(received=True, remote_script=script)
    if not channel.shutdown.wanted:
        try:
            ours = _own_script(turn, b"")
        except ChannelError as error:  # the peer no longer offers the feature that our script needs
            raise Misplaced(f"we cannot answer: {error.message}") from error
        turn.set_shutdown(wanted=True, local_script=ours, initiator=REMOTE)
        turn.publish(ChannelClosing(channel_id=channel.channel_id, initiator="remote", reason="cooperative close"))


def without_connection(channel: Channel) -> Channel:
    """A disconnect restarts the negotiation; ``shutdown`` will be repeated by both."""
    state = channel.shutdown
    if not (state.wanted or state.received):
        return channel
    return replace(channel, shutdown=state.durable())


def after_reestablish(turn: Turn) -> None:
    """``shutdown`` is repeated (C-093)."""
    if turn.shutdown.sent and C_093.enabled:
        turn.send(_shutdown_message(turn.channel))


# -- the fee -----------------------------------------------------------------------------------------------------------


def negotiate_if_due(turn: Turn) -> None:
    """When both said ``shutdown`` and all is quiet the funder names a fee; the other side waits, but not for ever."""
    channel, state = turn.channel, turn.channel.shutdown
    if not (state.sent and state.received) or state.negotiating or channel.link is not Link.UP:
        return
    if not is_quiet(channel) and C_061.enabled:
        return
    if channel.pending or channel.outbox or channel.lifecycle not in (*OPERATING, Lifecycle.CLOSING):
        return
    turn.set_shutdown(negotiating=True)
    turn.set_timer(TIMER, turn.env.policy.closing_timeout_seconds)
    if simple_close.is_simple(turn):
        simple_close.begin(turn)
    elif channel.config.local_is_funder:
        _offer(turn, _fees(turn)[1])


def _fees(turn: Turn) -> tuple[Sat, Sat, Sat]:
    """Lowest fee, target and highest fee that we agree to, in satoshi; never more than the funder has."""
    channel, state, env = turn.channel, turn.shutdown, turn.env
    if state.agreed_fee is not None:
        return state.agreed_fee, state.agreed_fee, state.agreed_fee
    weight = closing_weight(state.local_script, state.remote_script)
    balance = closing_balances(channel)[0 if channel.config.local_is_funder else 1]
    lowest = Sat(min(fee_for_weight(env.policy.min_feerate, weight), balance))
    target = fee_for_weight(state.target_feerate or env.feerates.close_minimum, weight)
    if channel.config.local_is_funder:
        most = max(target * env.policy.close_fee_multiple, target + env.policy.close_fee_margin)
        highest = Sat(min(state.max_fee or most, balance))
    else:
        highest = balance
    highest = Sat(max(lowest, highest))
    return lowest, Sat(max(lowest, min(target, highest))), highest


def _values(channel: Channel, fee: Sat, proposer: Side) -> tuple[Sat, Sat] | None:
    """Both outputs after the fee, without what is below the proposer's dust limit; None if the fee cannot be paid."""
    local, remote = closing_balances(channel)
    if channel.config.local_is_funder:
        local = Sat(local - fee)
    else:
        remote = Sat(remote - fee)
    if local < 0 or remote < 0:
        return None
    least = channel.config.terms(proposer).dust_limit
    ours = least if proposer is LOCAL else min(least, MOST_LEFT_OUT)
    local, remote = Sat(local if local >= ours else 0), Sat(remote if remote >= least else 0)
    return (local, remote) if local or remote else None


def _request(turn: Turn, local: Sat, remote: Sat) -> SignMutualClose:
    channel, state = turn.channel, turn.shutdown
    return SignMutualClose(
        request_id=turn.request_id(OP_CLOSE, f"{local}-{remote}"),
        setup=channel.setup,
        local_sat=local,
        remote_sat=remote,
        local_script=state.local_script,
        remote_script=state.remote_script,
    )


def _offer(turn: Turn, fee: Sat) -> None:
    channel = turn.channel
    values = _values(channel, fee, LOCAL)
    require(values is not None, C_069, "no closing transaction is possible at this fee", offered=fee)
    if values is None:
        return
    lowest, _, highest = _fees(turn)
    turn.set_shutdown(local_offer=CloseOffer(fee=fee, min_fee=lowest, max_fee=highest))
    turn.ask(_request(turn, *values))


def on_closing_signed(turn: Turn, message: ClosingSigned) -> None:
    channel, state = turn.channel, turn.channel.shutdown
    if simple_close.is_simple(turn):
        raise Misplaced("closing_signed although option_simple_close is negotiated")
    if not (state.sent and state.received) or not is_quiet(channel):
        raise Misplaced("closing_signed before the channel is shut down")
    if turn.is_pending(OP_CLOSE):
        raise Misplaced("closing_signed out of turn")
    fee = Sat(message.fee_satoshis)
    local, remote = _check_signature(turn, message, fee)
    for value, script in ((local, state.local_script), (remote, state.remote_script)):
        require(value == 0 or value >= dust_limit(script), C_069, "closing output below its dust limit", offered=value)
    theirs = CloseOffer(
        fee=fee,
        min_fee=Sat(message.fee_range.min_fee_satoshis if message.fee_range else 0),
        max_fee=Sat(message.fee_range.max_fee_satoshis) if message.fee_range else None,
    )
    answer = _decide(turn, theirs)
    turn.set_shutdown(remote_offer=theirs, negotiating=True)
    if answer != fee:
        _offer(turn, answer)
        return
    tx = _make_tx(channel, local, remote)
    turn.set_shutdown(final=tx, remote_signature=message.signature)
    turn.ask(_request(turn, local, remote))


def _check_signature(turn: Turn, message: ClosingSigned, fee: Sat) -> tuple[Sat, Sat]:
    """The outputs of the variant that the peer signed: by its dust limit, or also without its own output (BOLT 3)."""
    channel = turn.channel
    values = _values(channel, fee, REMOTE)
    require(values is not None, C_069, "closing fee cannot be paid", offered=fee)
    if values is None:
        raise Misplaced("closing fee cannot be paid")
    local, remote = values
    ours, theirs = channel.setup.local_keys.funding_pubkey, channel.setup.remote_keys.funding_pubkey
    script = funding_script(ours, theirs)
    variants = [(local, remote)] + ([(local, Sat(0))] if local and remote else [])
    for variant in variants:
        tx = _make_tx(channel, *variant)
        digest = closing_sighash(tx, script, channel.setup.funding_satoshis)
        if ecdsa_verify(theirs, digest, message.signature):
            return variant
    require(False, C_070, "bad signature on the closing transaction", fee=fee)
    return local, remote


def _make_tx(channel: Channel, local: Sat, remote: Sat) -> Transaction:
    """The closing transaction with these outputs (0: left out); fees are already taken off."""
    return make_closing_tx(
        funding_outpoint=channel.setup.funding_outpoint,
        local_script=channel.shutdown.local_script,
        remote_script=channel.shutdown.remote_script,
        local_msat=Msat(local * 1000),
        remote_msat=Msat(remote * 1000),
        fee=Sat(0),
        local_is_funder=True,
        dust_limit=Sat(1),
    )


def _decide(turn: Turn, theirs: CloseOffer) -> Sat:
    """The fee we answer with: the same one means agreement. No possible fee fails the channel (C-069)."""
    channel, state = turn.channel, turn.shutdown
    lowest, target, highest = _fees(turn)
    ours, fee = state.local_offer, theirs.fee
    if ours is not None and fee == ours.fee:
        return fee
    if theirs.max_fee is not None:
        low, high = max(lowest, theirs.min_fee), min(highest, theirs.max_fee)
        require(
            low <= high,
            C_069,
            "fee ranges do not overlap",
            offered=f"{theirs.min_fee}..{theirs.max_fee}",
            allowed=f"{lowest}..{highest}",
        )
        if channel.config.local_is_funder:
            require(low <= fee <= high, C_069, "fee outside the agreed range", offered=fee, allowed=f"{low}..{high}")
        return fee if low <= fee <= high else Sat(max(low, min(target, high)))
    before = state.remote_offer
    if ours is not None and before is not None:
        between = min(ours.fee, before.fee) < fee < max(ours.fee, before.fee)
        require(between, C_070, "fee not between the last two offers", offered=fee, allowed=(before.fee, ours.fee))
    if lowest <= fee <= highest:
        return fee
    reference = ours.fee if ours is not None else target
    answer = Sat(max(lowest, min((fee + reference) // 2, highest)))
    possible = min(fee, reference) < answer < max(fee, reference)
    if ours is None and not possible:
        answer, possible = target, target != fee
    require(possible, C_069, "no fee is possible for both", offered=fee, allowed=f"{lowest}..{highest}")
    return answer


def on_close_signature(turn: Turn, request: SignMutualClose, answer: Signature) -> None:
    """Our signature: an offer, or what was missing to finish."""
    channel, state = turn.channel, turn.channel.shutdown
    final, theirs, ours = state.final, state.remote_offer, state.local_offer
    if final is None or theirs is None:
        if ours is not None:
            _send_closing_signed(turn, ours.fee, answer.signature)
        return
    if ours is None or ours.fee != theirs.fee:
        _send_closing_signed(turn, theirs.fee, answer.signature)
    tx, spent = close_witness(channel, final, answer.signature, state.remote_signature)
    turn.set_timer(TIMER, 0)
    turn.set(lifecycle=Lifecycle.CLOSING, closing_tx=tx)
    turn.set_shutdown(agreed_fee=theirs.fee, final=None, local_offer=CloseOffer(fee=theirs.fee))
    turn.emit(Broadcast(tx=tx, kind=BroadcastKind.MUTUAL_CLOSE, spent=spent))


def _send_closing_signed(turn: Turn, fee: Sat, signature: bytes) -> None:
    lowest, _, highest = _fees(turn)
    turn.send(
        ClosingSigned(
            channel_id=turn.channel.channel_id,
            fee_satoshis=fee,
            signature=signature,
            fee_range=FeeRange(min_fee_satoshis=lowest, max_fee_satoshis=highest),
        )
    )


def on_closing_timer(turn: Turn) -> None:
    """No answer in time fails the channel (C-069); our own signer's silence does not."""
    channel = turn.channel
    if simple_close.is_simple(turn) and channel.link is Link.UP:
        simple_close.on_timer(turn)
        return
    waiting = turn.shutdown.negotiating and channel.link is Link.UP and channel.lifecycle in OPERATING
    if waiting and not turn.is_pending(OP_CLOSE):
        require(False, C_069, "no closing fee was agreed in time")
