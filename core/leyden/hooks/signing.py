"""What a ``ChannelSigner`` is asked: parameters from which it rebuilds what it signs, never digests.

Every request carries the static facts of its channel (``setup``) and a ``request_id`` that stays the same when the
request is repeated after a crash or a disconnect. Numbers count commitments upwards from 0.
"""

import enum
from functools import lru_cache

import msgspec

from leyden.bitcoin import Transaction, TxOut
from leyden.commitment import ChannelKeys, CloseShape, CommitmentParams, Htlc, SimpleClose
from leyden.types import CltvDelta, FeeRatePerKw, KeysId, LeydenError, Msat, OutPoint, Preimage, Sat, Side
from leyden.wire import ChannelAnnouncement


class SignerRefused(LeydenError):
    """The signer's policy says no. The same request is never sent again unchanged; nothing is closed by it."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"signer refused ({code}): {message}")


class SignerUnavailable(LeydenError):
    """The signer is absent, locked or busy: the channel pauses and the same request is repeated later."""


class SpendPurpose(enum.Enum):
    """Why coins are spent: what a signer with rules or a person at its screen wants to know first."""

    FUNDING = "funding"
    WITHDRAWAL = "withdrawal"
    FEE_BUMP = "fee_bump"


class SignPsbt(msgspec.Struct, frozen=True, kw_only=True):
    """Sign the wallet's inputs of this PSBT (BIP 174, version 0)."""

    request_id: str
    psbt: bytes
    purpose: SpendPurpose


class ChannelSetup(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The static facts of one channel. Delays: ``local_to_self_delay`` is imposed on local outputs (by the peer)."""

    keys_id: KeysId
    anchors: bool
    local_is_funder: bool
    funding_outpoint: OutPoint
    funding_satoshis: Sat
    push_msat: Msat
    local_to_self_delay: CltvDelta
    remote_to_self_delay: CltvDelta
    local_dust_limit: Sat
    remote_dust_limit: Sat
    local_keys: ChannelKeys
    remote_keys: ChannelKeys
    local_shutdown_script: bytes = b""
    remote_shutdown_script: bytes = b""


@lru_cache(maxsize=4096)
def commitment_params(setup: ChannelSetup, owner: Side) -> CommitmentParams:
    """The static facts as seen by the owner of a commitment (cached by identity of ``setup``)."""
    local = owner is Side.LOCAL
    return CommitmentParams(
        anchors=setup.anchors,
        funding_outpoint=setup.funding_outpoint,
        funding_value=setup.funding_satoshis,
        owner_keys=setup.local_keys if local else setup.remote_keys,
        other_keys=setup.remote_keys if local else setup.local_keys,
        owner_is_funder=setup.local_is_funder is local,
        to_self_delay=setup.local_to_self_delay if local else setup.remote_to_self_delay,
        owner_dust_limit=setup.local_dust_limit if local else setup.remote_dust_limit,
    )


class SignerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the requests about one channel."""

    request_id: str
    setup: ChannelSetup


class CommitmentView(msgspec.Struct, frozen=True, kw_only=True):
    """One commitment as parameters: ``owner_msat`` and ``other_msat`` before fees, HTLCs as its owner sees them."""

    number: int
    per_commitment_point: bytes
    feerate: FeeRatePerKw
    owner_msat: Msat
    other_msat: Msat
    htlcs: tuple[Htlc, ...]


class SignCounterpartyCommitment(SignerRequest, frozen=True, kw_only=True):
    """Sign the peer's commitment; the answer is ``CommitmentSignatures`` (HTLC signatures in output order)."""

    view: CommitmentView
    preimages: tuple[Preimage, ...] = ()


class ValidateHolderCommitment(SignerRequest, frozen=True, kw_only=True):
    """Take note of our commitment ``view.number`` and the peer's signatures; the answer is ``HolderValidated``.

    Durable in a stateful signer before it answers. May be repeated with other content until ``number - 1`` is released.
    """

    view: CommitmentView
    signature: bytes
    htlc_signatures: tuple[bytes, ...]
    preimages: tuple[Preimage, ...] = ()


class ReleaseSecret(SignerRequest, frozen=True, kw_only=True):
    """Revoke our commitment ``number``; the answer is ``SecretReleased``. Only after ``number + 1`` was validated."""

    number: int


class ValidateCounterpartyRevocation(SignerRequest, frozen=True, kw_only=True):
    """The peer revealed ``secret`` of its commitment ``number``; the answer is ``RevocationValidated``."""

    number: int
    secret: bytes


class SignHolderCommitment(SignerRequest, frozen=True, kw_only=True):
    """Sign our own commitment for broadcast; from then on it can never be revoked. The answer is a ``Signature``."""

    view: CommitmentView


class SignMutualClose(SignerRequest, frozen=True, kw_only=True):
    """Sign the legacy closing transaction made of these values (satoshi after fees; 0 = output left out)."""

    local_sat: Sat
    remote_sat: Sat
    local_script: bytes
    remote_script: bytes


class SignSimpleClose(SignerRequest, frozen=True, kw_only=True):
    """Sign the closing transaction of a simple close in each of ``shapes``; the answer is ``CloseSignatures``.

    Balances are those of the final commitment before fees; the closer pays ``fee`` satoshi out of its own.
    """

    local_is_closer: bool
    local_msat: Msat
    remote_msat: Msat
    local_script: bytes
    remote_script: bytes
    fee: Sat
    locktime: int
    shapes: tuple[CloseShape, ...]


def simple_close_of(request: SignSimpleClose) -> SimpleClose:
    """What is signed, from the closer's side."""
    local = request.local_is_closer
    return SimpleClose(
        funding_outpoint=request.setup.funding_outpoint,
        closer_script=request.local_script if local else request.remote_script,
        closee_script=request.remote_script if local else request.local_script,
        closer_msat=request.local_msat if local else request.remote_msat,
        closee_msat=request.remote_msat if local else request.local_msat,
        fee=request.fee,
        locktime=request.locktime,
    )


class SignAnnouncement(SignerRequest, frozen=True, kw_only=True):
    """Sign the ``channel_announcement`` with the funding key (BOLT 7); the answer is a ``Signature``."""

    announcement: ChannelAnnouncement


class SignGossip(SignerRequest, frozen=True, kw_only=True):
    """The same with the node key: goes to ``NodeIdentity.sign_gossip``. ``bitcoin_signature`` is kept beside it."""

    announcement: ChannelAnnouncement
    bitcoin_signature: bytes


class SweepKind(enum.Enum):
    DELAYED_TO_LOCAL = "delayed_to_local"
    """``to_local`` of our own commitment ``number`` after its delay."""
    TO_REMOTE = "to_remote"
    """Our balance on the peer's commitment (with anchors: after one block)."""


class SignSweep(SignerRequest, frozen=True, kw_only=True):
    """Sign input ``index`` of ``tx``; all spent outputs are given. The answer is a ``Signature``."""

    kind: SweepKind
    number: int
    tx: Transaction
    index: int
    spent: tuple[TxOut, ...]


class CheckFutureSecret(SignerRequest, frozen=True, kw_only=True):
    """Is ``secret`` ours for commitment ``number`` (data-loss detection)? The answer is ``FutureSecret``."""

    number: int
    secret: bytes


class CommitmentSignatures(msgspec.Struct, frozen=True, kw_only=True):
    signature: bytes
    htlc_signatures: tuple[bytes, ...]


class HolderValidated(msgspec.Struct, frozen=True, kw_only=True):
    pass


class SecretReleased(msgspec.Struct, frozen=True, kw_only=True):
    """The secret of commitment ``number`` and the point of ``number + 2``, which the peer needs next."""

    secret: bytes
    next_point: bytes


class RevocationValidated(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    signature: bytes


class CloseSignatures(msgspec.Struct, frozen=True, kw_only=True):
    """One signature for each shape, in the order of the request."""

    signatures: tuple[bytes, ...]


class FutureSecret(msgspec.Struct, frozen=True, kw_only=True):
    genuine: bool


class NewChannelKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Public keys of a new channel and the points of our commitments 0 and 1."""

    keys: ChannelKeys
    first_point: bytes
    second_point: bytes


AnySignerRequest = (
    SignCounterpartyCommitment
    | ValidateHolderCommitment
    | ReleaseSecret
    | ValidateCounterpartyRevocation
    | SignHolderCommitment
    | SignMutualClose
    | SignSimpleClose
    | SignAnnouncement
    | SignGossip
    | SignSweep
    | CheckFutureSecret
)
AnySignerAnswer = (
    CommitmentSignatures
    | HolderValidated
    | SecretReleased
    | RevocationValidated
    | Signature
    | CloseSignatures
    | FutureSecret
)

SIGNER_METHODS: dict[type, str] = {
    SignCounterpartyCommitment: "sign_counterparty_commitment",
    ValidateHolderCommitment: "validate_holder_commitment",
    ReleaseSecret: "release_secret",
    ValidateCounterpartyRevocation: "validate_counterparty_revocation",
    SignHolderCommitment: "sign_holder_commitment",
    SignMutualClose: "sign_mutual_close",
    SignSimpleClose: "sign_simple_close",
    SignAnnouncement: "sign_announcement",
    SignSweep: "sign_sweep",
    CheckFutureSecret: "check_future_secret",
}
"""Which method of ``ChannelSigner`` takes a request; ``SignGossip`` goes to ``NodeIdentity``."""
