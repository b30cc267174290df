"""Rows that the node itself writes: transactions, peers, events, cursors and ``META``.

Only this module imports the versions of these rows.
"""

from leyden.bitcoin import parse_transaction
from leyden.hooks.types import BroadcastKind
from leyden.node.stored.v1 import (
    PeerAddress,
    StoredEvent,
    TrackedTransaction,
    decode_event,
    decode_peer,
    encode_msgpack,
)
from leyden.types import RecordError
from leyden.wire.stored import RowKind, bytes_kind, number_kind, struct_kind

__all__ = [
    "BROADCAST_KINDS",
    "CURSOR",
    "EVENT",
    "EVENT_COUNT",
    "NODE_ID",
    "PEER",
    "SCHEMA",
    "SCHEMA_VERSION",
    "TRANSACTION",
    "PeerAddress",
    "StoredEvent",
    "TrackedTransaction",
    "check_schema",
]

SCHEMA_VERSION = 1
"""Of the database as a whole: raised whenever an area or a version of a row is new, so that an older program refuses
at once and in one sentence, before it has loaded anything."""

BROADCAST_KINDS = tuple(BroadcastKind)
"""By position: append only."""


def _check_transaction(record: TrackedTransaction) -> None:
    parse_transaction(record.raw)
    if record.kind >= len(BROADCAST_KINDS):
        raise ValueError(f"there is no kind {record.kind} of transactions")


TRANSACTION = struct_kind("TRANSACTION", TrackedTransaction, _check_transaction)
PEER: RowKind[PeerAddress] = RowKind("PEER", encode_msgpack, decode_peer)
EVENT: RowKind[StoredEvent] = RowKind("EVENT", encode_msgpack, decode_event)
CURSOR = number_kind("CURSOR", 8)
EVENT_COUNT = number_kind("META", 8)
NODE_ID = bytes_kind("META", 33)
SCHEMA = number_kind("META", 4)


def check_schema(row: bytes | None, *, is_new: bool) -> bool:
    """Whether the schema number must be written. ``RecordError`` for a database of a newer program.

    ``row`` is the stored one, if there is any; ``is_new`` says that the database is empty.
    """
    if row is None:
        if not is_new:
            raise RecordError("META", "the schema number is missing")
        return True
    found = SCHEMA.decode(row)
    if found > SCHEMA_VERSION:
        raise RecordError.newer("META", f"schema {found}, this one knows {SCHEMA_VERSION}")
    if not found:
        raise RecordError("META", "schema 0, which no release wrote")
    return found < SCHEMA_VERSION
