"""Feature bits (BOLT 9): what is offered, what is required, what two nodes have in common, and channel types.

A feature owns a pair of bits: the even one says "required", the odd one "optional". ``Feature`` values are the even
bits. A feature that is *assumed* is part of every node today; peers may still set either bit and we accept both.
"""

import enum
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from leyden.types.rules import C_138, C_139
from leyden.wire.errors import EncodeError, refuse


class Feature(enum.IntEnum):
    """Names of BOLT 9 (and of the bLIPs for the last block); the value is the even bit."""

    OPTION_DATA_LOSS_PROTECT = 0
    OPTION_UPFRONT_SHUTDOWN_SCRIPT = 4
    GOSSIP_QUERIES = 6
    VAR_ONION_OPTIN = 8
    GOSSIP_QUERIES_EX = 10
    OPTION_STATIC_REMOTEKEY = 12
    PAYMENT_SECRET = 14
    BASIC_MPP = 16
    OPTION_SUPPORT_LARGE_CHANNEL = 18
    OPTION_ANCHORS = 22
    OPTION_ROUTE_BLINDING = 24
    OPTION_SHUTDOWN_ANYSEGWIT = 26
    OPTION_DUAL_FUND = 28
    OPTION_QUIESCE = 34
    OPTION_ATTRIBUTION_DATA = 36
    OPTION_ONION_MESSAGES = 38
    ZERO_FEE_COMMITMENTS = 40
    OPTION_PROVIDE_STORAGE = 42
    OPTION_CHANNEL_TYPE = 44
    OPTION_SCID_ALIAS = 46
    OPTION_PAYMENT_METADATA = 48
    OPTION_ZEROCONF = 50
    OPTION_SIMPLE_CLOSE = 60
    OPTION_SPLICE = 62
    OPTION_ONION_MESSAGES_ONLY_CHANNELS = 66
    OPTION_SIMPLE_TAPROOT = 80

    KEYSEND = 54
    TRAMPOLINE_ROUTING = 56
    HOSTED_CHANNELS = 256
    DNS_RESOLVER = 258
    HTLC_ENDORSEMENT = 260
    BOLT11_BLINDED_PATH = 262
    OPTION_SUPPORTS_LSPS = 728


class Context(enum.Flag):
    """Where a bit may be presented (the letters of BOLT 9's table)."""

    NOWHERE = 0
    INIT = enum.auto()
    NODE_ANNOUNCEMENT = enum.auto()
    INVOICE = enum.auto()
    CHANNEL_TYPE = enum.auto()


class FeatureInfo(msgspec.Struct, frozen=True):
    """What BOLT 9 says of one feature. ``former`` are contexts of an assumed one, which old peers still look for."""

    contexts: Context = Context.NOWHERE
    needs: tuple[Feature, ...] = ()
    assumed: bool = False
    former: Context = Context.NOWHERE


_F = Feature
_IN = Context.INIT | Context.NODE_ANNOUNCEMENT
_IN9 = _IN | Context.INVOICE
_INT = _IN | Context.CHANNEL_TYPE
_N = Context.NODE_ANNOUNCEMENT
_9 = Context.INVOICE

FEATURES: Mapping[Feature, FeatureInfo] = {
    _F.OPTION_DATA_LOSS_PROTECT: FeatureInfo(assumed=True, former=_IN),
    _F.OPTION_UPFRONT_SHUTDOWN_SCRIPT: FeatureInfo(_IN),
    _F.GOSSIP_QUERIES: FeatureInfo(former=_IN),
    _F.VAR_ONION_OPTIN: FeatureInfo(assumed=True, former=_IN9),
    _F.GOSSIP_QUERIES_EX: FeatureInfo(_IN),
    _F.OPTION_STATIC_REMOTEKEY: FeatureInfo(assumed=True, former=_INT),
    _F.PAYMENT_SECRET: FeatureInfo(assumed=True, former=_IN9),
    _F.BASIC_MPP: FeatureInfo(_IN9, (_F.PAYMENT_SECRET,)),
    _F.OPTION_SUPPORT_LARGE_CHANNEL: FeatureInfo(_IN),
    _F.OPTION_ANCHORS: FeatureInfo(_INT),
    _F.OPTION_ROUTE_BLINDING: FeatureInfo(_IN9),
    _F.OPTION_SHUTDOWN_ANYSEGWIT: FeatureInfo(_IN),
    _F.OPTION_DUAL_FUND: FeatureInfo(_IN),
    _F.OPTION_QUIESCE: FeatureInfo(_IN),
    _F.OPTION_ATTRIBUTION_DATA: FeatureInfo(_IN9),
    _F.OPTION_ONION_MESSAGES: FeatureInfo(_IN),
    _F.ZERO_FEE_COMMITMENTS: FeatureInfo(_INT, (_F.OPTION_CHANNEL_TYPE,)),
    _F.OPTION_PROVIDE_STORAGE: FeatureInfo(_IN),
    _F.OPTION_CHANNEL_TYPE: FeatureInfo(assumed=True, former=_IN),
    _F.OPTION_SCID_ALIAS: FeatureInfo(_INT),
    _F.OPTION_PAYMENT_METADATA: FeatureInfo(_9),
    _F.OPTION_ZEROCONF: FeatureInfo(_INT, (_F.OPTION_SCID_ALIAS,)),
    _F.OPTION_SIMPLE_CLOSE: FeatureInfo(_IN, (_F.OPTION_SHUTDOWN_ANYSEGWIT,)),
    _F.OPTION_SPLICE: FeatureInfo(_IN),
    _F.OPTION_ONION_MESSAGES_ONLY_CHANNELS: FeatureInfo(_IN, (_F.OPTION_ONION_MESSAGES,)),
    _F.OPTION_SIMPLE_TAPROOT: FeatureInfo(_INT, (_F.OPTION_CHANNEL_TYPE, _F.OPTION_SIMPLE_CLOSE)),
    _F.KEYSEND: FeatureInfo(_N),
    _F.TRAMPOLINE_ROUTING: FeatureInfo(_IN9),
    _F.HOSTED_CHANNELS: FeatureInfo(_IN),
    _F.DNS_RESOLVER: FeatureInfo(_N),
    _F.HTLC_ENDORSEMENT: FeatureInfo(_N),
    _F.BOLT11_BLINDED_PATH: FeatureInfo(_9),
    _F.OPTION_SUPPORTS_LSPS: FeatureInfo(_IN),
}


class Features(msgspec.Struct, frozen=True):
    """A feature bitmap; ``bits`` has bit *n* set when feature bit *n* is. Equal bitmaps are equal values."""

    bits: int = 0

    @classmethod
    def of(cls, *bits: int) -> "Features":
        """``Features.of(12, 22)``; a ``Feature`` stands for its even bit."""
        return cls(sum(1 << bit for bit in set(bits)))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Features":
        """A bitmap off the wire; leading zero bytes mean nothing."""
        return cls(int.from_bytes(data, "big"))

    def to_bytes(self) -> bytes:
        """The shortest bitmap with these bits; nothing at all when there are none."""
        return self.bits.to_bytes((self.bits.bit_length() + 7) // 8, "big")

    def offers(self, feature: int) -> bool:
        """Either bit of the pair is set."""
        return bool(self.bits >> (feature & ~1) & 3)

    def requires(self, feature: int) -> bool:
        """The even bit is set, whatever the odd one says."""
        return bool(self.bits >> (feature & ~1) & 1)

    def __or__(self, other: "Features") -> "Features":
        return Features(self.bits | other.bits)

    def __iter__(self) -> Iterator[int]:
        """Bits that are set, lowest first."""
        for i, byte in enumerate(reversed(self.to_bytes())):
            while byte:
                low = byte & -byte
                yield 8 * i + low.bit_length() - 1
                byte ^= low

    def __str__(self) -> str:
        """Names of the lowest 64 bits that are set (a peer may send half a million)."""
        names = [_bit_name(bit) for bit in islice(self, 65)]
        return ", ".join(names[:64] + ["..."] * (len(names) > 64)) or "none"


def _bit_name(bit: int) -> str:
    try:
        name = Feature(bit & ~1).name.lower()
    except ValueError:
        return f"bit {bit}"
    return name if bit & 1 else f"{name} (required)"


def negotiated(ours: Features, theirs: Features, feature: Feature) -> bool:
    """Both nodes have it: both offer it, or we require it (then a peer without it has left), or it is assumed."""
    return ours.requires(feature) or (ours.offers(feature) and theirs.offers(feature)) or FEATURES[feature].assumed


def missing_dependencies(features: Features) -> tuple[tuple[Feature, Feature], ...]:
    """(feature, what it needs) for every offered feature whose direct dependency is neither offered nor assumed.

    Checking direct dependencies of everything offered covers the transitive ones.
    """
    return tuple(
        (feature, needed)
        for feature, info in FEATURES.items()
        if info.needs and features.offers(feature)
        for needed in info.needs
        if not features.offers(needed) and not FEATURES[needed].assumed
    )


def received_features(globalfeatures: bytes, features: bytes) -> Features:
    """The features of a received ``init``: both bitmaps together (C-139)."""
    theirs = Features.from_bytes(features)
    return theirs | Features.from_bytes(globalfeatures) if C_139.enabled else theirs


def check_init_features(ours: Features, theirs: Features) -> None:
    """``WireError`` (C-138: disconnect) when the peer requires what we do not offer or offers without dependencies.

    Unknown odd bits are ignored. Assumed features, and ``gossip_queries``, which only says that asking is worth while,
    ask nothing of us in either form.
    """
    even = int.from_bytes(b"\x55" * (theirs.bits.bit_length() // 8 + 1), "big")
    # An odd bit of ours moves down to the even one that it answers.
    accepted = ours.bits | ours.bits >> 1 | _HARMLESS.bits
    if unknown := theirs.bits & even & ~accepted:
        bit = (unknown & -unknown).bit_length() - 1
        refuse(C_138, f"peer requires {_bit_name(bit)}, which we do not support", offered=bit)
    for feature, needed in missing_dependencies(theirs):
        refuse(C_138, f"peer offers {feature.name.lower()} without {needed.name.lower()}", offered=int(feature))


_HARMLESS = Features.of(Feature.GOSSIP_QUERIES, *(f for f, info in FEATURES.items() if info.assumed))


def make_features(context: Context, *, optional: Iterable[Feature] = (), required: Iterable[Feature] = ()) -> Features:
    """The bitmap that we present in ``context`` (C-139): bits that belong there, one of each pair, and with
    everything they depend on (added as optional).

    ``EncodeError`` when a feature was asked for both ways.
    """
    must, may = set(required), set(optional)
    if both := must & may:
        raise EncodeError(f"feature {min(both).name} is both optional and required")
    if C_139.enabled:
        may |= _dependencies(must | may) - must
        must = {feature for feature in must if _belongs(feature, context)}
        may = {feature for feature in may if _belongs(feature, context)}
    return Features.of(*must, *(feature + 1 for feature in may))


def _belongs(feature: Feature, context: Context) -> bool:
    info = FEATURES[feature]
    return bool((info.contexts | info.former) & context)


def _dependencies(features: set[Feature]) -> set[Feature]:
    found: set[Feature] = set()
    todo = list(features)
    while todo:
        for needed in FEATURES[todo.pop()].needs:
            if needed not in found:
                found.add(needed)
                todo.append(needed)
    return found


# --- channel types (BOLT 2) -------------------------------------------------------------------------------------------

ChannelType = Features
"""A channel type is a bitmap of even bits only, compared as a whole."""

STATIC_REMOTEKEY = Features.of(Feature.OPTION_STATIC_REMOTEKEY)
ANCHORS_ZERO_FEE = Features.of(Feature.OPTION_STATIC_REMOTEKEY, Feature.OPTION_ANCHORS)
ZERO_FEE_COMMITMENTS = Features.of(Feature.ZERO_FEE_COMMITMENTS)
SIMPLE_TAPROOT = Features.of(Feature.OPTION_SIMPLE_TAPROOT)

_VARIANTS = Features.of(Feature.OPTION_SCID_ALIAS, Feature.OPTION_ZEROCONF)
_BASE_TYPES = {
    STATIC_REMOTEKEY: "static_remotekey",
    ANCHORS_ZERO_FEE: "anchors",
    ZERO_FEE_COMMITMENTS: "zero_fee_commitments",
    SIMPLE_TAPROOT: "simple_taproot",
}


def base_channel_type(channel_type: ChannelType) -> ChannelType:
    """The type without its ``option_scid_alias`` and ``option_zeroconf`` variants: what decides the transactions."""
    return Features(channel_type.bits & ~_VARIANTS.bits)


def is_defined_channel_type(channel_type: ChannelType) -> bool:
    """Some BOLT defines this combination (which does not say that we support it)."""
    return base_channel_type(channel_type) in _BASE_TYPES


def channel_type_name(channel_type: ChannelType) -> str:
    """``anchors+scid_alias``; for logs and screens."""
    base = base_channel_type(channel_type)
    name = _BASE_TYPES.get(base, f"unknown ({base})")
    if channel_type.offers(Feature.OPTION_SCID_ALIAS):
        name += "+scid_alias"
    if channel_type.offers(Feature.OPTION_ZEROCONF):
        name += "+zeroconf"
    return name
