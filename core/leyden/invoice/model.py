"""What an invoice says, as values (BOLT 11)."""

import msgspec

from leyden.bitcoin import Network
from leyden.types import CltvDelta, Msat, NodeId, PaymentHash, PaymentSecret, ShortChannelId
from leyden.wire.features import Features

DEFAULT_EXPIRY = 3600
"""Seconds, when the invoice has no ``x`` field."""
DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA = CltvDelta(18)
"""Blocks, when the invoice has no ``c`` field."""


class HopHint(msgspec.Struct, frozen=True, kw_only=True):
    """One private channel on the way to the payee: from ``node_id`` through ``short_channel_id``, at these terms."""

    node_id: NodeId
    short_channel_id: ShortChannelId
    fee_base_msat: int
    fee_proportional_millionths: int
    cltv_expiry_delta: CltvDelta


RouteHint = tuple[HopHint, ...]
"""The last hops of a route in forward order, ending at the payee."""


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """An on-chain address to pay instead: witness version 0-16, or 17 (P2PKH) or 18 (P2SH) with a 20-byte hash."""

    version: int
    program: bytes

    def is_valid(self) -> bool:
        """The program has a length that its version can have."""
        size = len(self.program)
        if self.version == 0:
            return size in (20, 32)
        return 2 <= size <= 40 if self.version <= 16 else self.version <= 18 and size == 20

    def script(self) -> bytes:
        """The output script that pays this fallback."""
        if self.version == 17:
            return b"\x76\xa9\x14" + self.program + b"\x88\xac"
        if self.version == 18:
            return b"\xa9\x14" + self.program + b"\x87"
        opcode = 0x50 + self.version if self.version else 0
        return bytes((opcode, len(self.program))) + self.program


class UnsignedInvoice(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an invoice says, before the payee has signed it. Exactly one of the two descriptions is set.

    ``timestamp`` is seconds since 1970 (below 2**35), ``expiry`` seconds after it. ``payee`` is the node that signs;
    ``names_payee`` says whether its key is written out (``n``) or left to be recovered from the signature.
    """

    network: Network
    amount_msat: Msat | None = None
    timestamp: int
    payment_hash: PaymentHash
    payment_secret: PaymentSecret
    description: str | None = None
    description_hash: bytes | None = None
    expiry: int = DEFAULT_EXPIRY
    min_final_cltv_expiry_delta: CltvDelta = DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA
    features: Features
    route_hints: tuple[RouteHint, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    metadata: bytes | None = None
    payee: NodeId
    names_payee: bool = False

    @property
    def expires_at(self) -> int:
        """Last second (since 1970) in which a payment may start."""
        return self.timestamp + self.expiry


class Invoice(UnsignedInvoice, frozen=True, kw_only=True):
    """A signed invoice, checked: ``payee`` made ``signature`` (64 bytes r || s, with ``recovery_id``) over the rest."""

    signature: bytes
    recovery_id: int
    text: str
    """The invoice as it travels, lower case, without a URI scheme."""
