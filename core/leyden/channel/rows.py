"""How a channel looks in the store: the rows that are written, and every version of them read.

A value is a version byte and a BOLT TLV stream, so that older programs refuse what they do not know (even types) and
skip what they need not (odd ones). Only this module imports the versions.
"""

from typing import Any, TypeVar

from msgspec import Struct

from leyden.channel.stored.v1 import (
    FLAG_COMMITMENT_LAST,
    FLAG_LOCAL_READY,
    FLAG_REMOTE_INITIATED,
    FLAG_REMOTE_READY,
    FLAG_SHUTDOWN_SENT,
    FLAG_SHUTDOWN_WANTED,
    FLAG_SWEPT,
    ConfigRow,
    DynamicRow,
    HtlcRow,
    SecretRow,
    SignaturesRow,
    StoredAnnouncement,
    StoredConfirmation,
    StoredDance,
    StoredFee,
    StoredHtlc,
    StoredKeys,
    StoredOutpoint,
    StoredSpend,
    StoredTerms,
)
from leyden.wire.stored import RowKind, struct_kind

__all__ = [
    "AREAS",
    "AREA_CONFIG",
    "AREA_DYNAMIC",
    "AREA_HTLC",
    "AREA_SECRET",
    "AREA_SIGNATURES",
    "FLAG_COMMITMENT_LAST",
    "FLAG_LOCAL_READY",
    "FLAG_REMOTE_INITIATED",
    "FLAG_REMOTE_READY",
    "FLAG_SHUTDOWN_SENT",
    "FLAG_SHUTDOWN_WANTED",
    "FLAG_SWEPT",
    "KINDS",
    "ConfigRow",
    "DynamicRow",
    "HtlcRow",
    "SecretRow",
    "SignaturesRow",
    "StoredAnnouncement",
    "StoredConfirmation",
    "StoredDance",
    "StoredFee",
    "StoredHtlc",
    "StoredKeys",
    "StoredOutpoint",
    "StoredSpend",
    "StoredTerms",
    "decode_row",
    "encode_row",
]

RowT = TypeVar("RowT", bound=Struct)

AREA_CONFIG = b"c"
AREA_DYNAMIC = b"d"
AREA_HTLC = b"h"
AREA_SIGNATURES = b"g"
AREA_SECRET = b"s"
AREAS = (AREA_CONFIG, AREA_DYNAMIC, AREA_SIGNATURES, AREA_HTLC, AREA_SECRET)

KINDS: dict[type, RowKind[Any]] = {
    ConfigRow: struct_kind("CHANNEL_CONFIG", ConfigRow),
    DynamicRow: struct_kind("CHANNEL_STATE", DynamicRow),
    HtlcRow: struct_kind("CHANNEL_HTLC", HtlcRow),
    SignaturesRow: struct_kind("CHANNEL_SIGNATURES", SignaturesRow),
    SecretRow: struct_kind("CHANNEL_SECRET", SecretRow),
}


def encode_row(row: Struct) -> bytes:
    return KINDS[type(row)].encode(row)


def decode_row(kind: type[RowT], value: bytes) -> RowT:
    """``RecordError`` for a row of a newer program or a damaged one."""
    row: RowT = KINDS[kind].decode(value)
    return row
