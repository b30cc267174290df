"""Signing and revoking: ``commitment_signed`` and ``revoke_and_ack``, with the signer between them (BOLT 2).

Order matters more than time here: the state moves when the signer is asked, and the message that belongs to the move
keeps its place in the outbox, so that a slow signer never reorders what the peer sees.
"""

from msgspec.structs import replace

from leyden.channel.effects import HtlcFailed, HtlcFulfilled, HtlcReceived
from leyden.channel.limits import LOCAL, REMOTE
from leyden.channel.stages import Moved, after_revocation, after_signature, is_unsigned
from leyden.channel.state import Channel, Lifecycle, Link, LiveHtlc, Removal, Signatures, Stage
from leyden.channel.turn import Misplaced, Turn
from leyden.channel.views import next_view, preimages_leaving, preimages_left, signed_view
from leyden.commitment import make_commitment, verify_commitment_signatures
from leyden.crypto import FIRST_INDEX, is_valid_point, pubkey_create
from leyden.crypto.errors import CryptoError
from leyden.hooks.signing import (
    CommitmentSignatures,
    ReleaseSecret,
    SecretReleased,
    SignCounterpartyCommitment,
    ValidateCounterpartyRevocation,
    ValidateHolderCommitment,
    commitment_params,
)
from leyden.types import require
from leyden.types.rules import C_076, C_077, C_079, C_087, C_089
from leyden.wire import CommitmentSigned, RevokeAndAck

OP_SIGN = "sign_counterparty"
OP_VALIDATE = "validate_holder"
OP_RELEASE = "release_secret"
OP_REVOCATION = "validate_revocation"


# -- we sign -----------------------------------------------------------------------------------------------------------


def sign_if_due(turn: Turn) -> None:
    """At the end of a turn: sign the peer's next commitment for everything gathered, if it would differ (C-087)."""
    channel = turn.channel
    if not channel.unsigned and C_087.enabled:
        return
    if channel.lifecycle is not Lifecycle.NORMAL or channel.link is not Link.UP:
        return
    if channel.remote_number != channel.remote_revoked or channel.pending or channel.outbox:
        return
    request = SignCounterpartyCommitment(
        request_id=turn.request_id(OP_SIGN, channel.remote_number + 1),
        setup=channel.setup,
        view=next_view(channel, REMOTE),
        preimages=preimages_leaving(channel, REMOTE),
    )
    turn.channel = after_signature(channel, REMOTE)
    turn.hold_place(request.request_id)
    turn.ask(request)


def repeat_signature_request(channel: Channel, request_id: str) -> SignCounterpartyCommitment:
    """The question that made our newest ``commitment_signed``, word for word."""
    return SignCounterpartyCommitment(
        request_id=request_id,
        setup=channel.setup,
        view=signed_view(channel, REMOTE),
        preimages=preimages_left(channel, REMOTE),
    )


def on_commitment_signatures(turn: Turn, request: SignCounterpartyCommitment, answer: CommitmentSignatures) -> None:
    message = CommitmentSigned(
        channel_id=turn.channel.channel_id, signature=answer.signature, htlc_signature=answer.htlc_signatures
    )
    turn.fill_place(request.request_id, message)


# -- the peer signs ----------------------------------------------------------------------------------------------------


def on_commitment_signed(turn: Turn, message: CommitmentSigned) -> None:
    """Check the signatures on our next commitment, then have the signer note it; revocation follows its answers."""
    channel = turn.channel
    if channel.local_number != channel.local_revoked:
        raise Misplaced("commitment_signed before our revoke_and_ack")
    view = next_view(channel, LOCAL)
    params = commitment_params(channel.setup, LOCAL)
    commitment = make_commitment(
        params, view.number, view.per_commitment_point, view.owner_msat, view.other_msat, view.htlcs, view.feerate
    )
    verify_commitment_signatures(params, commitment, message.signature, message.htlc_signature)
    signatures = Signatures(
        number=view.number, signature=message.signature, htlc_signatures=tuple(message.htlc_signature)
    )
    request = ValidateHolderCommitment(
        request_id=turn.request_id(OP_VALIDATE, view.number),
        setup=channel.setup,
        view=view,
        signature=message.signature,
        htlc_signatures=signatures.htlc_signatures,
        preimages=preimages_leaving(channel, LOCAL),
    )
    turn.channel = after_signature(channel, LOCAL)
    turn.set(fundings=(replace(channel.funding, signatures=signatures), *channel.fundings[1:]))
    turn.ask(request)
    if not C_076.enabled:
        for htlc in turn.channel.remote_htlcs.values():
            if htlc.stage == Stage.ADD_SIGNED_BY_OFFERER:
                _deliver_received(turn, htlc)


def on_holder_validated(turn: Turn, request: ValidateHolderCommitment) -> None:
    """The signer has our new commitment: only now may the old one be revoked."""
    channel = turn.channel
    if request.view.number != channel.local_revoked + 1:
        return
    turn.ask(release_request(turn, channel.local_revoked))


def release_request(turn: Turn, number: int) -> ReleaseSecret:
    return ReleaseSecret(request_id=turn.request_id(OP_RELEASE, number), setup=turn.channel.setup, number=number)


def repeat_validation(turn: Turn) -> ValidateHolderCommitment:
    """The note of our newest commitment again, after a restart (nothing older was released since)."""
    channel = turn.channel
    signatures = channel.funding.signatures or Signatures(number=0, signature=b"")
    return ValidateHolderCommitment(
        request_id=turn.request_id(OP_VALIDATE, channel.local_number),
        setup=channel.setup,
        view=signed_view(channel, LOCAL),
        signature=signatures.signature,
        htlc_signatures=signatures.htlc_signatures,
        preimages=preimages_left(channel, LOCAL),
    )


def on_secret_released(turn: Turn, request: ReleaseSecret, answer: SecretReleased) -> None:
    channel = turn.channel
    message = RevokeAndAck(
        channel_id=channel.channel_id,
        per_commitment_secret=answer.secret,
        next_per_commitment_point=answer.next_point,
    )
    if request.number != channel.local_revoked:  # asked again for a revoke_and_ack that was lost
        turn.fill_place(request.request_id, message)
        return
    channel, _, _ = after_revocation(channel, LOCAL)
    turn.channel = replace(
        channel,
        local_revoked=channel.local_revoked + 1,
        local_point=channel.local_next_point,
        local_next_point=answer.next_point,
        commitment_sent_last=False,
        unsigned=channel.unsigned or is_unsigned(channel),
    )
    turn.send(message)


# -- the peer revokes --------------------------------------------------------------------------------------------------


def on_revoke_and_ack(turn: Turn, message: RevokeAndAck) -> None:
    """Check and keep the secret, move on; deliver what has become irrevocable."""
    channel = turn.channel
    number = channel.remote_revoked
    if channel.remote_number == number:
        raise Misplaced("revoke_and_ack without a commitment_signed of ours")
    secret = message.per_commitment_secret
    require(_is_secret_of(secret, channel.remote_point), C_089, "secret does not match the point", number=number)
    require(is_valid_point(message.next_per_commitment_point), C_089, "next point is no valid key", number=number)
    secrets = channel.secrets.insert(FIRST_INDEX - number, secret)
    channel, theirs, ours = after_revocation(channel, REMOTE)
    turn.channel = replace(
        channel,
        remote_revoked=number + 1,
        secrets=secrets,
        remote_point=channel.remote_next_point,
        remote_next_point=message.next_per_commitment_point,
    )
    turn.ask(
        ValidateCounterpartyRevocation(
            request_id=turn.request_id(OP_REVOCATION, number), setup=channel.setup, number=number, secret=secret
        )
    )
    _deliver(turn, theirs, ours)


def _is_secret_of(secret: bytes, point: bytes) -> bool:
    try:
        return pubkey_create(secret) == point
    except CryptoError:
        return False


def _deliver(turn: Turn, theirs: Moved, ours: Moved) -> None:
    for htlc in theirs:
        if htlc.stage == Stage.COMMITTED and C_076.enabled:
            _deliver_received(turn, htlc)
    for htlc in ours:
        if htlc.stage != Stage.GONE or htlc.removal is None:
            continue
        removal = htlc.removal
        if removal.preimage is not None:
            if not C_079.enabled:
                turn.deliver(HtlcFulfilled(id=htlc.id, preimage=removal.preimage))
        elif C_077.enabled:
            turn.deliver(failed_delivery(htlc))


def _deliver_received(turn: Turn, htlc: LiveHtlc) -> None:
    turn.deliver(
        HtlcReceived(
            id=htlc.id,
            amount_msat=htlc.amount_msat,
            payment_hash=htlc.payment_hash,
            cltv_expiry=htlc.cltv_expiry,
            onion_routing_packet=htlc.onion_routing_packet,
            path_key=htlc.path_key,
            must_fail=htlc.must_fail,
        )
    )


def failed_delivery(htlc: LiveHtlc) -> HtlcFailed:
    """What the payment is told when the removal of its HTLC has become irrevocable."""
    removal = htlc.removal or Removal()
    return HtlcFailed(
        id=htlc.id,
        amount_msat=htlc.amount_msat,
        payment_hash=htlc.payment_hash,
        reason=removal.reason or b"",
        sha256_of_onion=removal.sha256_of_onion,
        failure_code=removal.failure_code,
    )


def on_revocation_validated(turn: Turn, request: ValidateCounterpartyRevocation) -> None:
    turn.set(revocation_noted=max(turn.channel.revocation_noted, request.number + 1))
