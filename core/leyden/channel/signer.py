"""Answers of the signer, its absence, and its refusals.

Every open question stands in ``Channel.pending`` until it is answered. An answer to a question that is not open any
more (it was answered, or the connection that needed it is gone) changes nothing.
"""

from leyden.channel import announce, dance, fail, opening, reestablish, shutdown, simple_close, sweep
from leyden.channel.dance import repeat_validation
from leyden.channel.effects import Sign, Watch
from leyden.channel.events import SignerAnswered, SignerFailed
from leyden.channel.state import ON_CHAIN, OPENING, Channel, Lifecycle
from leyden.channel.turn import Misplaced, Turn
from leyden.crypto import FIRST_INDEX
from leyden.hooks.signing import (
    AnySignerRequest,
    CheckFutureSecret,
    CloseSignatures,
    CommitmentSignatures,
    FutureSecret,
    HolderValidated,
    ReleaseSecret,
    RevocationValidated,
    SecretReleased,
    SignAnnouncement,
    Signature,
    SignCounterpartyCommitment,
    SignGossip,
    SignHolderCommitment,
    SignMutualClose,
    SignSimpleClose,
    SignSweep,
    ValidateCounterpartyRevocation,
    ValidateHolderCommitment,
)

TIMER = "signer"

_ANSWER_TYPES: dict[type, type] = {
    SignCounterpartyCommitment: CommitmentSignatures,
    ValidateHolderCommitment: HolderValidated,
    ReleaseSecret: SecretReleased,
    ValidateCounterpartyRevocation: RevocationValidated,
    SignHolderCommitment: Signature,
    SignMutualClose: Signature,
    SignSimpleClose: CloseSignatures,
    SignSweep: Signature,
    SignAnnouncement: Signature,
    SignGossip: Signature,
    CheckFutureSecret: FutureSecret,
}


def on_signer_answered(turn: Turn, event: SignerAnswered) -> None:
    channel = turn.channel
    for request in channel.pending:
        if request.request_id == event.request_id:
            break
    else:
        return
    if type(event.answer) is not _ANSWER_TYPES[type(request)]:
        turn.alarm("signer", f"the signer answered {type(event.answer).__name__} to {type(request).__name__}")
        return
    turn.set(pending=tuple(r for r in channel.pending if r is not request))
    _dispatch(turn, request, event.answer)


def _dispatch(turn: Turn, request: AnySignerRequest, answer: object) -> None:
    opening_now = turn.channel.lifecycle in OPENING
    if turn.channel.lifecycle in ON_CHAIN and not isinstance(request, SignHolderCommitment | SignSweep):
        return  # nothing is signed, noted or revoked any more
    match request, answer:
        case SignCounterpartyCommitment(), CommitmentSignatures():
            if opening_now:
                opening.on_first_signature(turn, answer)
            else:
                dance.on_commitment_signatures(turn, request, answer)
        case ValidateHolderCommitment(), HolderValidated():
            if opening_now:
                opening.on_first_validated(turn)
            else:
                dance.on_holder_validated(turn, request)
        case ReleaseSecret(), SecretReleased():
            dance.on_secret_released(turn, request, answer)
        case ValidateCounterpartyRevocation(), RevocationValidated():
            dance.on_revocation_validated(turn, request)
        case CheckFutureSecret(), FutureSecret():
            reestablish.on_secret_checked(turn, request, answer)
        case SignHolderCommitment(), Signature():
            fail.on_holder_signature(turn, request, answer)
        case SignMutualClose(), Signature():
            shutdown.on_close_signature(turn, request, answer)
        case SignSimpleClose(), CloseSignatures():
            simple_close.on_signed(turn, request, answer)
        case SignAnnouncement(), Signature():
            announce.on_announcement_signed(turn, request, answer)
        case SignGossip(), Signature():
            announce.on_gossip_signed(turn, request, answer)
        case SignSweep(), Signature():
            sweep.on_sweep_signature(turn, request, answer)
        case _:
            raise Misplaced("the signer's answer does not fit its question")


def on_signer_failed(turn: Turn, event: SignerFailed) -> None:
    """Absence pauses what needs the signer; a refusal is final for that question and closes nothing."""
    channel = turn.channel
    if all(request.request_id != event.request_id for request in channel.pending):
        return
    if not event.refused:
        turn.set_timer(TIMER, turn.env.policy.signer_retry_seconds)
        return
    turn.set(refused=(*channel.refused, event.request_id))
    turn.alarm("signer_refused", f"the signer refuses for channel {channel.channel_id.hex()}: {event.text}")
    if channel.lifecycle in OPENING:
        fail.fail_channel(turn, "our signer does not agree to this channel")


def retry_signer(turn: Turn) -> None:
    """Ask everything that is open again, with the same ids and contents."""
    for request in turn.channel.pending:
        if request.request_id not in turn.channel.refused:
            turn.emit(Sign(request=request))


def on_restarted(turn: Turn) -> None:
    """After ``load``: what is watched, and the questions that the rows show to be open."""
    channel = turn.channel
    turn.emit(Watch(script=channel.funding.script, outpoint=channel.setup.funding_outpoint))
    spend = channel.spend
    if spend is not None and spend.sweep_outpoint is not None:
        output = spend.tx.outputs[spend.sweep_outpoint.vout]
        turn.emit(Watch(script=output.script, outpoint=spend.sweep_outpoint))
    if channel.lifecycle is Lifecycle.FORCE_CLOSING and channel.closing_tx is None:
        turn.ask(fail.holder_request(turn))
    if channel.lifecycle not in (Lifecycle.AWAIT_CONFIRMATION, Lifecycle.NORMAL, Lifecycle.CLOSING):
        return
    _ask_of_the_dance(turn, channel)


def _ask_of_the_dance(turn: Turn, channel: Channel) -> None:
    if channel.revocation_noted < channel.remote_revoked:
        number = channel.remote_revoked - 1
        turn.ask(
            ValidateCounterpartyRevocation(
                request_id=turn.request_id(dance.OP_REVOCATION, number),
                setup=channel.setup,
                number=number,
                secret=channel.secrets.lookup(FIRST_INDEX - number),
            )
        )
    if channel.local_number > channel.local_revoked:
        turn.ask(repeat_validation(turn))
