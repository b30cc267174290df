"""Why a payment failed: the messages inside a failure onion (BOLT 4)."""

import enum
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from leyden.types.rules import C_127
from leyden.wire import fields as f
from leyden.wire.errors import Malformed, WireError, refuse
from leyden.wire.layout import StructCodec, register

BADONION = 0x8000
"""The hop could not read the onion, so the hop before it answers."""
PERM = 0x4000
"""Trying again is pointless."""
NODE = 0x2000
"""The node is at fault, not a channel."""
UPDATE = 0x1000
"""A ``channel_update`` is enclosed; its sender may lie about it."""


class FailureCode(enum.IntEnum):
    """All codes of BOLT 4, flags included."""

    TEMPORARY_NODE_FAILURE = NODE | 2
    PERMANENT_NODE_FAILURE = PERM | NODE | 2
    REQUIRED_NODE_FEATURE_MISSING = PERM | NODE | 3
    INVALID_ONION_VERSION = BADONION | PERM | 4
    INVALID_ONION_HMAC = BADONION | PERM | 5
    INVALID_ONION_KEY = BADONION | PERM | 6
    TEMPORARY_CHANNEL_FAILURE = UPDATE | 7
    PERMANENT_CHANNEL_FAILURE = PERM | 8
    REQUIRED_CHANNEL_FEATURE_MISSING = PERM | 9
    UNKNOWN_NEXT_PEER = PERM | 10
    AMOUNT_BELOW_MINIMUM = UPDATE | 11
    FEE_INSUFFICIENT = UPDATE | 12
    INCORRECT_CLTV_EXPIRY = UPDATE | 13
    EXPIRY_TOO_SOON = UPDATE | 14
    INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS = PERM | 15
    FINAL_INCORRECT_CLTV_EXPIRY = 18
    FINAL_INCORRECT_HTLC_AMOUNT = 19
    CHANNEL_DISABLED = UPDATE | 20
    EXPIRY_TOO_FAR = 21
    INVALID_ONION_PAYLOAD = PERM | 22
    MPP_TIMEOUT = 23
    INVALID_ONION_BLINDING = BADONION | PERM | 24


class Failure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One of the failures that BOLT 4 defines. ``channel_update`` is the whole message with its type, or empty."""

    CODE: ClassVar[int] = 0
    NAME: ClassVar[str] = ""

    @property
    def is_permanent(self) -> bool:
        return bool(self.CODE & PERM)

    @property
    def blames_node(self) -> bool:
        return bool(self.CODE & NODE)


class UnknownFailure(msgspec.Struct, frozen=True, gc=False):
    """A code that nobody has defined, or a known one with data that do not fit it; the flags still count."""

    code: int
    data: bytes

    @property
    def is_permanent(self) -> bool:
        return bool(self.code & PERM)

    @property
    def blames_node(self) -> bool:
        return bool(self.code & NODE)


F = TypeVar("F", bound=Failure)

FAILURES: dict[int, type[Failure]] = {}
"""Every defined failure by code."""

_CODECS: dict[int, StructCodec[Any]] = {}


def failure(code: FailureCode) -> Callable[[type[F]], type[F]]:
    """Class decorator: declare the failure with this code."""

    def declare(cls: type[F]) -> type[F]:
        cls.CODE, cls.NAME = code, code.name.lower()
        _CODECS[code] = register(cls)
        FAILURES[code] = cls
        return cls

    return declare


def failure_code(value: Failure | UnknownFailure) -> int:
    """The code with its flags."""
    return value.CODE if isinstance(value, Failure) else value.code


def encode_failure(value: Failure | UnknownFailure) -> bytes:
    """Code and data: the ``failuremsg`` that the onion of failures wraps."""
    if isinstance(value, UnknownFailure):
        return value.code.to_bytes(2, "big") + value.data
    return value.CODE.to_bytes(2, "big") + _CODECS[value.CODE].write(value)


def decode_failure(data: bytes) -> Failure | UnknownFailure:
    """A ``failuremsg``; ``WireError`` (C-127) only when there is not even a code.

    Bytes behind the known data are ignored, as BOLT 4 asks; data that do not fit make an ``UnknownFailure``.
    """
    if len(data) < 2:
        refuse(C_127, "failure without a code", length=len(data))
    code = int.from_bytes(data[:2], "big")
    codec = _CODECS.get(code)
    if codec is not None:
        try:
            value: Failure = codec.read(data, 2, len(data))[0]
            return value
        except (Malformed, WireError):
            pass
    return UnknownFailure(code, data[2:])


@failure(FailureCode.TEMPORARY_NODE_FAILURE)
class TemporaryNodeFailure(Failure, frozen=True, kw_only=True, gc=False):
    """The whole node cannot forward for now."""


@failure(FailureCode.PERMANENT_NODE_FAILURE)
class PermanentNodeFailure(Failure, frozen=True, kw_only=True, gc=False):
    """The whole node will not forward any more."""


@failure(FailureCode.REQUIRED_NODE_FEATURE_MISSING)
class RequiredNodeFeatureMissing(Failure, frozen=True, kw_only=True, gc=False):
    """The node requires a feature that the onion does not have."""


@failure(FailureCode.INVALID_ONION_VERSION)
class InvalidOnionVersion(Failure, frozen=True, kw_only=True, gc=False):
    """The version byte of the onion is unknown."""

    sha256_of_onion: Annotated[bytes, f.sha256]


@failure(FailureCode.INVALID_ONION_HMAC)
class InvalidOnionHmac(Failure, frozen=True, kw_only=True, gc=False):
    """The onion was changed on its way, or the associated data differ."""

    sha256_of_onion: Annotated[bytes, f.sha256]


@failure(FailureCode.INVALID_ONION_KEY)
class InvalidOnionKey(Failure, frozen=True, kw_only=True, gc=False):
    """The ephemeral key of the onion is no public key."""

    sha256_of_onion: Annotated[bytes, f.sha256]


@failure(FailureCode.TEMPORARY_CHANNEL_FAILURE)
class TemporaryChannelFailure(Failure, frozen=True, kw_only=True, gc=False):
    """The channel cannot carry this payment for now (balance, limits, peer away)."""

    channel_update: Annotated[bytes, f.var_bytes] = b""


@failure(FailureCode.PERMANENT_CHANNEL_FAILURE)
class PermanentChannelFailure(Failure, frozen=True, kw_only=True, gc=False):
    """The channel is gone."""


@failure(FailureCode.REQUIRED_CHANNEL_FEATURE_MISSING)
class RequiredChannelFeatureMissing(Failure, frozen=True, kw_only=True, gc=False):
    """The channel requires a feature that the onion does not have."""


@failure(FailureCode.UNKNOWN_NEXT_PEER)
class UnknownNextPeer(Failure, frozen=True, kw_only=True, gc=False):
    """The channel named in the payload is unknown."""


@failure(FailureCode.AMOUNT_BELOW_MINIMUM)
class AmountBelowMinimum(Failure, frozen=True, kw_only=True, gc=False):
    """The amount (millisatoshi) is below the minimum of the channel."""

    htlc_msat: Annotated[int, f.msat]
    channel_update: Annotated[bytes, f.var_bytes] = b""


@failure(FailureCode.FEE_INSUFFICIENT)
class FeeInsufficient(Failure, frozen=True, kw_only=True, gc=False):
    """The fee is too small; the amount was in millisatoshi."""

    htlc_msat: Annotated[int, f.msat]
    channel_update: Annotated[bytes, f.var_bytes] = b""


@failure(FailureCode.INCORRECT_CLTV_EXPIRY)
class IncorrectCltvExpiry(Failure, frozen=True, kw_only=True, gc=False):
    """The expiry of the HTLC leaves the hop less time than it asks."""

    cltv_expiry: Annotated[int, f.u32]
    channel_update: Annotated[bytes, f.var_bytes] = b""


@failure(FailureCode.EXPIRY_TOO_SOON)
class ExpiryTooSoon(Failure, frozen=True, kw_only=True, gc=False):
    """The HTLC would end too soon from now."""

    channel_update: Annotated[bytes, f.var_bytes] = b""


@failure(FailureCode.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS)
class IncorrectOrUnknownPaymentDetails(Failure, frozen=True, kw_only=True, gc=False):
    """The recipient knows no such payment, or its amount, secret or expiry is wrong."""

    htlc_msat: Annotated[int, f.msat]
    height: Annotated[int, f.u32]


@failure(FailureCode.FINAL_INCORRECT_CLTV_EXPIRY)
class FinalIncorrectCltvExpiry(Failure, frozen=True, kw_only=True, gc=False):
    """The HTLC at the recipient does not end where the payload says."""

    cltv_expiry: Annotated[int, f.u32]


@failure(FailureCode.FINAL_INCORRECT_HTLC_AMOUNT)
class FinalIncorrectHtlcAmount(Failure, frozen=True, kw_only=True, gc=False):
    """The HTLC at the recipient does not carry what the payload says (millisatoshi)."""

    incoming_htlc_amt: Annotated[int, f.msat]


@failure(FailureCode.CHANNEL_DISABLED)
class ChannelDisabled(Failure, frozen=True, kw_only=True, gc=False):
    """The channel is disabled by its update."""

    disabled_flags: Annotated[int, f.u16]
    channel_update: Annotated[bytes, f.var_bytes] = b""


@failure(FailureCode.EXPIRY_TOO_FAR)
class ExpiryTooFar(Failure, frozen=True, kw_only=True, gc=False):
    """The HTLC would end too far in the future."""


@failure(FailureCode.INVALID_ONION_PAYLOAD)
class InvalidOnionPayload(Failure, frozen=True, kw_only=True, gc=False):
    """Record ``type`` at ``offset`` of the payload is missing or wrong."""

    type: Annotated[int, f.bigsize]
    offset: Annotated[int, f.u16]


@failure(FailureCode.MPP_TIMEOUT)
class MppTimeout(Failure, frozen=True, kw_only=True, gc=False):
    """The other parts of the payment did not arrive in time."""


@failure(FailureCode.INVALID_ONION_BLINDING)
class InvalidOnionBlinding(Failure, frozen=True, kw_only=True, gc=False):
    """Something inside a blinded route failed; nothing more is told."""

    sha256_of_onion: Annotated[bytes, f.sha256]
