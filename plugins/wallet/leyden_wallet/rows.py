"""The wallet's rows in the node's store: keys, values, and the changes of one turn.

Keys, behind the prefix that the core gives: ``a`` purpose index (a destination that was handed out), ``c`` claim id
(locked coins and the transaction they fund), ``h`` (height of the last block seen), ``r`` txid (a transaction itself,
without witnesses: it pays us, or we made it), ``t`` txid (a transaction that touches our coins). A value is a version
byte and a TLV stream; of ``h`` a number behind the version, of ``r`` the transaction. Only this module imports the
versions of the rows.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec
from leyden.bitcoin import Transaction, parse_transaction
from leyden.hooks.types import DestinationPurpose, RecordChanges
from leyden.types import RecordError, Txid
from leyden.wire.stored import DAMAGES, RowKind, exactly, number_kind, struct_kind

from leyden_wallet.stored.v1 import COINBASE, OWN, Claim, Coin, KnownTransaction, StoredDestination

__all__ = [
    "CLAIM",
    "COINBASE",
    "DESTINATION",
    "KINDS",
    "OWN",
    "PURPOSES",
    "RAW",
    "TIP",
    "TRANSACTION",
    "Changes",
    "Claim",
    "Coin",
    "KnownTransaction",
    "StoredDestination",
    "StoredWallet",
    "encode_raw",
    "encode_row",
    "encode_tip",
    "read_rows",
]

DESTINATION = b"a"
CLAIM = b"c"
TIP = b"h"
RAW = b"r"
TRANSACTION = b"t"
PURPOSES = (
    DestinationPurpose.RECEIVE,
    DestinationPurpose.CHANGE,
    DestinationPurpose.SHUTDOWN,
    DestinationPurpose.SWEEP,
    DestinationPurpose.RECEIVE_TAPROOT,
)
"""By their number in keys; new ones go to the end."""

T = TypeVar("T", bound=msgspec.Struct)
AREA = "WALLET"


def _check_claim(claim: Claim) -> None:
    outputs = claim.transaction().outputs
    if claim.change_index is not None and claim.change_index >= len(outputs):
        raise ValueError("the change of a claim is none of its outputs")


KINDS: dict[bytes, RowKind[Any]] = {
    DESTINATION: struct_kind(AREA, StoredDestination),
    CLAIM: struct_kind(AREA, Claim, _check_claim),
    TRANSACTION: struct_kind(AREA, KnownTransaction),
    RAW: RowKind(AREA, lambda tx: tx.serialize_legacy(), parse_transaction),
    TIP: number_kind(AREA, 4),
}
"""By the first byte of the key behind the prefix."""

_KIND_OF = {StoredDestination: DESTINATION, Claim: CLAIM, KnownTransaction: TRANSACTION}


def encode_row(value: msgspec.Struct) -> bytes:
    return KINDS[_KIND_OF[type(value)]].encode(value)


def encode_raw(tx: Transaction) -> bytes:
    return KINDS[RAW].encode(tx)


def encode_tip(height: int) -> bytes:
    return KINDS[TIP].encode(height)


class StoredWallet(msgspec.Struct, kw_only=True):
    """Every row, read."""

    destinations: list[tuple[DestinationPurpose, int, StoredDestination]] = []
    claims: dict[str, Claim] = {}
    transactions: list[tuple[Txid, KnownTransaction]] = []
    raw: dict[Txid, Transaction] = {}
    tip: int = 0


def read_rows(prefix: bytes, rows: Iterable[tuple[bytes, bytes]]) -> StoredWallet:
    """``RecordError`` for rows that are damaged or that a newer program wrote."""
    found = StoredWallet()
    for key, value in rows:
        try:
            read_row(found, key[len(prefix) :], value)
        except RecordError:
            raise
        except DAMAGES as error:
            raise RecordError(AREA, f"row {key.hex()} makes no sense ({error})") from error
    return found


def read_row(found: StoredWallet, key: bytes, value: bytes) -> None:
    """Add one row (``key`` without the prefix); errors as of ``read_rows``, or one of ``DAMAGES``."""
    area = key[:1]
    kind = KINDS.get(area)
    if kind is None:
        raise RecordError(AREA, f"there are no rows {key.hex()}")
    row = kind.decode(value)
    if area == DESTINATION:
        exactly(key, 6)
        found.destinations.append((PURPOSES[key[1]], int.from_bytes(key[2:], "big"), row))
    elif area == CLAIM:
        found.claims[key[1:].decode()] = row
    elif area == TRANSACTION:
        found.transactions.append((Txid(exactly(key[1:], 32)), row))
    elif area == RAW:
        found.raw[Txid(exactly(key[1:], 32))] = row
    else:
        exactly(key, 1)
        found.tip = row


class Changes:
    """Rows written in one turn; the last word on a key counts."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._rows: dict[bytes, bytes | None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        self._rows[self._prefix + key] = value

    def delete(self, key: bytes) -> None:
        self._rows[self._prefix + key] = None

    def take(self) -> RecordChanges:
        return RecordChanges(
            puts=tuple((key, value) for key, value in self._rows.items() if value is not None),
            deletes=tuple(key for key, value in self._rows.items() if value is None),
        )
