"""Identifiers of things on the wire and on the chain, and the two sides of a channel."""

import enum
from typing import NamedTuple, NewType

from leyden.types.errors import require
from leyden.types.rules import C_208

NodeId = NewType("NodeId", bytes)
"""33 bytes, compressed public key."""
ChannelId = NewType("ChannelId", bytes)
"""32 bytes: temporary, or funding txid XOR output index (BOLT 2)."""
KeysId = NewType("KeysId", bytes)
"""32 random bytes from which a ``ChannelSigner`` derives every key of one channel."""
PaymentHash = NewType("PaymentHash", bytes)
Preimage = NewType("Preimage", bytes)
PaymentSecret = NewType("PaymentSecret", bytes)
Txid = NewType("Txid", bytes)
"""32 bytes in internal order (as hashed); screens show it reversed."""
BlockHash = NewType("BlockHash", bytes)
"""32 bytes in internal order (as hashed)."""
ShortChannelId = NewType("ShortChannelId", int)
"""block height << 40 | transaction index << 16 | output index (BOLT 7)."""


class Side(enum.Enum):
    """One end of a channel as seen from this node. The same code serves both."""

    LOCAL = 0
    REMOTE = 1

    @property
    def other(self) -> "Side":
        return Side.REMOTE if self is Side.LOCAL else Side.LOCAL


class OutPoint(NamedTuple):
    """A transaction output: txid in internal order and output index."""

    txid: Txid
    vout: int

    def __str__(self) -> str:
        return f"{self.txid[::-1].hex()}:{self.vout}"


def make_short_channel_id(height: int, tx_index: int, vout: int) -> ShortChannelId:
    return ShortChannelId(height << 40 | tx_index << 16 | vout)


def format_short_channel_id(scid: ShortChannelId) -> str:
    """``539268x845x1`` (BOLT 7)."""
    return f"{scid >> 40}x{scid >> 16 & 0xFFFFFF}x{scid & 0xFFFF}"


def parse_short_channel_id(text: str) -> ShortChannelId:
    """The inverse of ``format_short_channel_id``; ``RuleViolation`` (C-208) on anything else."""
    parts = text.split("x")
    digits = len(parts) == 3 and all(p.isascii() and p.isdigit() and len(p) <= 12 for p in parts)
    require(digits, C_208, f"not a short channel id: {text[:40]!r} (expected BLOCKxINDEXxOUTPUT)")
    height, index, vout = map(int, parts)
    fits = height < 1 << 24 and index < 1 << 24 and vout < 1 << 16
    require(fits, C_208, f"short channel id out of range: {text[:40]!r}")
    return make_short_channel_id(height, index, vout)
