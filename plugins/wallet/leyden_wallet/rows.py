"""The wallet's rows in the node's store: keys, values, and the changes of one turn.

Keys, behind the prefix that the core gives: ``a`` purpose index (a destination that was handed out), ``c`` claim id
(locked coins and the transaction they fund), ``h`` (height of the last block seen), ``r`` txid (a transaction itself,
without witnesses: it pays us, or we made it), ``t`` txid (a transaction that touches our coins). A value is a version
byte and a TLV stream; of ``h`` a number, of ``r`` a version byte and the transaction.
"""

from typing import Annotated, TypeVar

import msgspec
from leyden.bitcoin import BitcoinError, Transaction, TxOut, parse_transaction
from leyden.hooks.types import DestinationPurpose, RecordChanges
from leyden.types import OutPoint, Sat, Txid
from leyden.wire.codec import (
    Field,
    WireError,
    decode_struct,
    encode_struct,
    list_of,
    rest,
    sat,
    tlv,
    tu32,
    tu64,
    tu64_sat,
    u8,
    u32,
    var_bytes,
    wire_struct,
)

from leyden_wallet.errors import WalletError

DESTINATION = b"a"
CLAIM = b"c"
TIP = b"h"
RAW = b"r"
TRANSACTION = b"t"
_VERSION = b"\x01"

PURPOSES = (
    DestinationPurpose.RECEIVE,
    DestinationPurpose.CHANGE,
    DestinationPurpose.SHUTDOWN,
    DestinationPurpose.SWEEP,
)
"""By their number in keys; new ones go to the end."""

T = TypeVar("T", bound=msgspec.Struct)


class _OutPointField(Field[OutPoint]):
    """36 bytes: txid in internal order and output index."""

    def __init__(self) -> None:
        super().__init__("outpoint", 36)

    def write(self, value: OutPoint) -> bytes:
        return value.txid + value.vout.to_bytes(4, "big")

    def read(self, data: bytes, offset: int, end: int) -> tuple[OutPoint, int]:
        raw = data[offset : min(offset + 36, end)]
        if len(raw) != 36:
            raise WalletError("the wallet's rows are damaged: an outpoint is cut short; restore the database")
        return OutPoint(Txid(raw[:32]), int.from_bytes(raw[32:], "big")), offset + 36


outpoint = _OutPointField()


@wire_struct
class Coin(msgspec.Struct, frozen=True, kw_only=True):
    """An output of ours. ``value`` in satoshi."""

    outpoint: Annotated[OutPoint, outpoint]
    value: Annotated[Sat, sat]
    script: Annotated[bytes, var_bytes]

    @property
    def output(self) -> TxOut:
        return TxOut(value=self.value, script=self.script)


@wire_struct
class KnownTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that touches our coins: what it takes from us and gives to us.

    ``height`` 0 means unconfirmed, which only transactions of our own (``flags`` has ``OWN``) can be; ``order`` counts
    those in the order in which we made them. ``spends`` are coins of ours; ``others`` further outputs it spends, kept
    for transactions of our own and for what conflicts with them. ``coins`` are its outputs that are ours.
    """

    height: Annotated[int, tlv(1, tu32)] = 0
    flags: Annotated[int, tlv(3, u8)] = 0
    order: Annotated[int, tlv(5, tu64)] = 0
    spends: Annotated[tuple[OutPoint, ...], tlv(7, list_of(outpoint))] = ()
    others: Annotated[tuple[OutPoint, ...], tlv(9, list_of(outpoint))] = ()
    coins: Annotated[tuple[Coin, ...], tlv(11, list_of(Coin))] = ()

    @property
    def own(self) -> bool:
        return bool(self.flags & OWN)

    @property
    def coinbase(self) -> bool:
        return bool(self.flags & COINBASE)


OWN = 1
COINBASE = 2


@wire_struct
class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Coins that one purpose has locked, and the unsigned transaction that it built of them. ``fee`` in satoshi."""

    raw_tx: Annotated[bytes, tlv(1, rest)]
    fee: Annotated[Sat, tlv(3, tu64_sat)]
    change_index: Annotated[int | None, tlv(5, tu32)] = None
    coins: Annotated[tuple[Coin, ...], tlv(7, list_of(Coin))]

    def transaction(self) -> Transaction:
        return parse_transaction(self.raw_tx)

    def pays(self) -> tuple[TxOut, ...]:
        """What was asked for: every output but the change."""
        return tuple(o for i, o in enumerate(self.transaction().outputs) if i != self.change_index)


@wire_struct
class StoredDestination(msgspec.Struct, frozen=True, kw_only=True):
    """A destination that was handed out: script, derivation path, key and fingerprint of the root key.

    The first rows had no key: it is asked for again.
    """

    script: Annotated[bytes, tlv(1, rest)]
    path: Annotated[tuple[int, ...], tlv(3, list_of(u32))] = ()
    pubkey: Annotated[bytes | None, tlv(5, rest)] = None
    fingerprint: Annotated[bytes | None, tlv(7, rest)] = None


def encode_row(value: msgspec.Struct) -> bytes:
    return _VERSION + encode_struct(value)


def decode_row(cls: type[T], data: bytes) -> T:
    """``WalletError`` for a row of a later version or a damaged one."""
    if data[:1] != _VERSION:
        raise WalletError(f"the wallet's rows have version {data[:1].hex()}: a newer Leyden wrote them, use that one")
    try:
        return decode_struct(cls, data[1:])
    except WireError as error:
        raise WalletError(f"the wallet's rows are damaged ({error}): restore the database") from error


def encode_raw(tx: Transaction) -> bytes:
    return _VERSION + tx.serialize_legacy()


def decode_raw(data: bytes) -> Transaction:
    """``WalletError`` as ``decode_row``."""
    if data[:1] != _VERSION:
        raise WalletError(f"the wallet's rows have version {data[:1].hex()}: a newer Leyden wrote them, use that one")
    try:
        return parse_transaction(data[1:])
    except BitcoinError as error:
        raise WalletError(f"the wallet's rows are damaged ({error}): restore the database") from error


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
