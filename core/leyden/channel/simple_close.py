"""Closing by agreement, ``option_simple_close`` (BOLT 2): each side proposes the close that it pays for.

As *closer* we send ``closing_complete`` and get ``closing_sig``; as *closee* we answer. Whichever transaction is mined
wins; a higher fee replaces an earlier one by a further ``closing_complete``.
"""

from typing import Any

from msgspec.structs import replace

from leyden.bitcoin import dust_limit, funding_script, is_op_return
from leyden.channel.closing_tx import close_witness
from leyden.channel.effects import Broadcast
from leyden.channel.errors import ChannelError, ErrorCode
from leyden.channel.events import Shutdown
from leyden.channel.limits import closing_msat, is_quiet
from leyden.channel.scripts import is_allowed_shutdown_script
from leyden.channel.state import Channel, CloseAnswer, CloseProposal, Lifecycle
from leyden.channel.turn import Misplaced, Turn
from leyden.commitment import (
    CloseShape,
    CommitmentError,
    SimpleClose,
    chosen_shape,
    closing_sighash,
    closing_weight,
    make_simple_closing_tx,
    offered_shapes,
)
from leyden.crypto import ecdsa_verify, sha256
from leyden.hooks.signing import CloseSignatures, SignSimpleClose, simple_close_of
from leyden.hooks.types import BroadcastKind
from leyden.types import FeeRatePerKw, Sat, Side, fee_for_weight, require
from leyden.types.rules import C_065, C_066, C_067, C_068
from leyden.wire import ClosingComplete, ClosingSig
from leyden.wire.features import Feature

OP_CLOSER = "sign_closer"
OP_CLOSEE = "sign_closee"
TIMER = "closing"
RELAY_FEERATE = FeeRatePerKw(250)
"""A replacement pays at least this much on top of what it replaces."""


def is_simple(turn: Turn) -> bool:
    return turn.env.features.offers(Feature.OPTION_SIMPLE_CLOSE)


# -- closer ------------------------------------------------------------------------------------------------------------


def begin(turn: Turn) -> None:
    """Whoever asked for the close goes first; ours follows the peer's, or comes when the peer stays silent."""
    if turn.shutdown.initiator is Side.LOCAL:
        propose(turn)
    else:
        turn.set_timer(TIMER, max(1, turn.env.policy.closing_timeout_seconds // 4))


def propose(turn: Turn) -> None:
    """Have our close signed and propose it; none if we could not pay a fee that is worth relaying (the peer can)."""
    turn.set_shutdown(proposed=True)
    close = _affordable(turn)
    if close is None:
        return
    try:
        shapes = offered_shapes(close)
    except CommitmentError:
        return
    turn.set_shutdown(proposal=CloseProposal(close=close, shapes=shapes))
    turn.ask(_request(turn, close, shapes, local_is_closer=True))


def _affordable(turn: Turn) -> SimpleClose | None:
    channel, state, env = turn.channel, turn.shutdown, turn.env
    local, remote = closing_msat(channel)
    weight = closing_weight(state.local_script, state.remote_script)
    wanted = fee_for_weight(state.target_feerate or env.feerates.close_minimum, weight)
    room = local // 1000
    if local >= remote and not is_op_return(state.local_script):
        room -= dust_limit(state.local_script)  # only the side with less may give up its output
    fee = Sat(min(wanted, state.max_fee or wanted, room))
    if fee < fee_for_weight(env.policy.min_feerate, weight):
        return None
    return SimpleClose(
        funding_outpoint=channel.setup.funding_outpoint,
        closer_script=state.local_script,
        closee_script=state.remote_script,
        closer_msat=local,
        closee_msat=remote,
        fee=fee,
        locktime=0,
    )


def _request(
    turn: Turn, close: SimpleClose, shapes: tuple[CloseShape, ...], *, local_is_closer: bool
) -> SignSimpleClose:
    local, remote = closing_msat(turn.channel)
    scripts = (close.closer_script, close.closee_script)
    content = repr((close.fee, close.locktime, *scripts, [shape.value for shape in shapes]))
    return SignSimpleClose(
        request_id=turn.request_id(OP_CLOSER if local_is_closer else OP_CLOSEE, sha256(content.encode()).hex()[:16]),
        setup=turn.channel.setup,
        local_is_closer=local_is_closer,
        local_msat=local,
        remote_msat=remote,
        local_script=scripts[0] if local_is_closer else scripts[1],
        remote_script=scripts[1] if local_is_closer else scripts[0],
        fee=close.fee,
        locktime=close.locktime,
        shapes=shapes,
    )


def on_signed(turn: Turn, request: SignSimpleClose, answer: CloseSignatures) -> None:
    """Our signatures: propose with them, or finish what the peer proposed. Late ones change nothing."""
    state, close = turn.shutdown, simple_close_of(request)
    if len(answer.signatures) != len(request.shapes):
        turn.alarm("signer", "the signer did not sign every shape of the closing transaction")
    elif request.local_is_closer:
        if state.proposal is not None and state.proposal.close == close and not state.proposal.signatures:
            _send_complete(turn, state.proposal, answer)
    elif state.answer is not None and state.answer.close == close:
        _send_sig(turn, state.answer, answer.signatures[0])


def _send_complete(turn: Turn, proposal: CloseProposal, answer: CloseSignatures) -> None:
    close = proposal.close
    turn.set_shutdown(proposal=replace(proposal, signatures=answer.signatures))
    signed = zip(proposal.shapes, answer.signatures, strict=True)
    turn.send(
        ClosingComplete(
            channel_id=turn.channel.channel_id,
            **_fields(close) | {shape.value: given for shape, given in signed},
        )
    )
    turn.set_timer(TIMER, turn.env.policy.closing_timeout_seconds)


def on_closing_sig(turn: Turn, message: ClosingSig) -> None:
    """The peer signed what we proposed: it is ours to broadcast (C-067)."""
    _expect_simple(turn, "closing_sig")
    proposal = turn.shutdown.proposal
    if proposal is None or not proposal.signatures:
        raise Misplaced("closing_sig without closing_complete")
    close = proposal.close
    for name, ours in _fields(close).items():
        given = getattr(message, name)
        require(given == ours, C_067, f"closing_sig with another {name}", offered=given, allowed=ours)
    signed = _signatures(message)
    require(len(signed) == 1, C_067, "closing_sig needs exactly one signature", offered=len(signed), allowed=1)
    shape, signature = next(iter(signed.items()), (proposal.shapes[0], b""))
    offered = shape in proposal.shapes
    require(offered, C_067, "closing_sig for a shape that was not offered", offered=shape.value)
    require(_verifies(turn.channel, close, shape, signature), C_067, "bad signature in closing_sig", fee=close.fee)
    ours = proposal.signatures[proposal.shapes.index(shape)] if offered else proposal.signatures[0]
    again = turn.shutdown.again
    turn.set_shutdown(proposal=None, again=False)
    turn.set_timer(TIMER, 0)
    _broadcast(turn, close, shape, ours, signature)
    if again:
        propose(turn)


# -- closee ------------------------------------------------------------------------------------------------------------


def on_closing_complete(turn: Turn, message: ClosingComplete) -> None:
    """The peer pays: as long as our output is whole we sign whatever fee it likes (C-065, C-066)."""
    _expect_simple(turn, "closing_complete")
    channel, state = turn.channel, turn.shutdown
    if state.answer is not None:
        raise Misplaced("closing_complete while the last one is not answered")
    script = message.closer_scriptpubkey
    upfront = channel.config.remote.shutdown_script
    require(
        message.closee_scriptpubkey == state.local_script,
        C_066,
        "closing_complete does not pay our script",
        offered=message.closee_scriptpubkey,
        allowed=state.local_script,
    )
    allowed = is_allowed_shutdown_script(script, turn.env.features) and (not upfront or script == upfront)
    require(allowed, C_066, "closer script in a form that is not allowed, or not the upfront one", offered=script)
    local, remote = closing_msat(channel)
    close = SimpleClose(
        funding_outpoint=channel.setup.funding_outpoint,
        closer_script=script,
        closee_script=state.local_script,
        closer_msat=remote,
        closee_msat=local,
        fee=Sat(message.fee_satoshis),
        locktime=message.locktime,
    )
    signed = _signatures(message)
    shape = chosen_shape(close, signed)
    signature = signed.get(shape, b"")
    require(_verifies(channel, close, shape, signature), C_065, "bad signature in closing_complete", fee=close.fee)
    turn.set_shutdown(answer=CloseAnswer(close=close, shape=shape, signature=signature))
    if C_068.enabled:
        turn.set_shutdown(remote_script=script)
    turn.ask(_request(turn, close, (shape,), local_is_closer=False))


def _send_sig(turn: Turn, answer: CloseAnswer, signature: bytes) -> None:
    close = answer.close
    turn.set_shutdown(answer=None)
    turn.send(
        ClosingSig(
            channel_id=turn.channel.channel_id,
            **_fields(close) | {answer.shape.value: signature},
        )
    )
    _broadcast(turn, close, answer.shape, signature, answer.signature)
    if not turn.shutdown.proposed:
        propose(turn)


# -- both --------------------------------------------------------------------------------------------------------------


def _expect_simple(turn: Turn, name: str) -> None:
    state = turn.shutdown
    if not is_simple(turn):
        raise Misplaced(f"{name} without option_simple_close")
    if not (state.sent and state.received) or not is_quiet(turn.channel):
        raise Misplaced(f"{name} before the channel is shut down")


def _fields(close: SimpleClose) -> dict[str, Any]:
    """What both messages say about a close."""
    return {
        "closer_scriptpubkey": close.closer_script,
        "closee_scriptpubkey": close.closee_script,
        "fee_satoshis": close.fee,
        "locktime": close.locktime,
    }


def _signatures(message: ClosingComplete | ClosingSig) -> dict[CloseShape, bytes]:
    found = {shape: getattr(message, shape.value) for shape in CloseShape}
    return {shape: signature for shape, signature in found.items() if signature is not None}


def _verifies(channel: Channel, close: SimpleClose, shape: CloseShape, signature: bytes) -> bool:
    setup = channel.setup
    script = funding_script(setup.local_keys.funding_pubkey, setup.remote_keys.funding_pubkey)
    digest = closing_sighash(make_simple_closing_tx(close, shape), script, setup.funding_satoshis)
    return len(signature) == 64 and ecdsa_verify(setup.remote_keys.funding_pubkey, digest, signature)


def _broadcast(turn: Turn, close: SimpleClose, shape: CloseShape, ours: bytes, theirs: bytes) -> None:
    tx, spent = close_witness(turn.channel, make_simple_closing_tx(close, shape), ours, theirs)
    turn.set(lifecycle=Lifecycle.CLOSING, closing_tx=tx)
    turn.emit(Broadcast(tx=tx, kind=BroadcastKind.MUTUAL_CLOSE, spent=spent))


def on_shutdown_again(turn: Turn, command: Shutdown, script: bytes) -> None:
    """A higher fee, or another script, for a close that is under way: once the last proposal was answered (C-068)."""
    channel, state = turn.channel, turn.shutdown
    if not state.negotiating:
        raise ChannelError(ErrorCode.CLOSING, "the channel is closing already and no fee can be named yet")
    feerate = command.feerate or state.target_feerate or turn.env.feerates.close_minimum
    if channel.closing_tx is not None:
        weight = closing_weight(script, state.remote_script)
        paid = channel.setup.funding_satoshis - sum(output.value for output in channel.closing_tx.outputs)
        least = paid + fee_for_weight(RELAY_FEERATE, weight)
        offered = min(fee_for_weight(feerate, weight), command.max_fee or 1 << 62)
        if offered < least:
            raise ChannelError(
                ErrorCode.BAD_FEERATE, "too little to replace the closing transaction", offered=offered, allowed=least
            )
    busy = state.proposal is not None and C_068.enabled
    turn.set_shutdown(local_script=script, target_feerate=feerate, max_fee=command.max_fee or Sat(0), again=busy)
    if not busy:
        propose(turn)


def on_timer(turn: Turn) -> None:
    """The peer proposes nothing: we do. It answers nothing: begin again on a new connection."""
    if turn.shutdown.negotiating and not turn.shutdown.proposed:
        turn.set_timer(TIMER, turn.env.policy.closing_timeout_seconds)
        propose(turn)
        return
    waiting = turn.shutdown.proposal is not None or turn.channel.closing_tx is None
    if waiting and not (turn.is_pending(OP_CLOSER) or turn.is_pending(OP_CLOSEE)):
        turn.send_warning("the closing transaction was not signed in time")
        turn.disconnect("no closing_sig in time")
