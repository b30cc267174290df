"""Checks of what reads the store: a damaged database is refused, never guessed at and never a crash."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

from leyden.bitcoin import Network
from leyden.chain.headers import load as load_headers
from leyden.chain.headers import records as header_records
from leyden.channel import load as load_channel
from leyden.channel.rows import AREA_HTLC, AREA_SECRET, AREAS
from leyden.types import BlockHeight, RecordError
from leyden.wire.stored import RowKind

from tests.fuzz.target import each

MODULES = (
    "leyden.chain.rows",
    "leyden.channel.rows",
    "leyden.node.rows",
    "leyden.payments.records",
    "leyden_wallet.rows",
)
"""All that declare rows; each is the dispatcher of its versions."""

Row = tuple[int, int, bytes]
"""Area (its place in a list), a byte of the key behind it, and the value."""


def kinds() -> Iterator[RowKind[Any]]:
    """Every kind of row that the modules declare."""
    for name in MODULES:
        module = vars(import_module(name))
        tables = [value.values() for value in module.values() if isinstance(value, dict)]
        candidates = [*module.values(), *(entry for table in tables for entry in table)]
        yield from {id(entry): entry for entry in candidates if isinstance(entry, RowKind)}.values()


def _read(kind: RowKind[Any], row: bytes) -> None:
    value = kind.decode(row)
    assert kind.decode(kind.encode(value)) == value


_READERS = tuple(partial(_read, kind) for kind in kinds())


def rows(data: bytes) -> None:
    """One row, read as every kind."""
    each(data, _READERS, RecordError)


def pack(rows: Iterator[Row] | list[Row]) -> bytes:
    """Several rows in one input: area, key byte, two bytes of length, value."""
    return b"".join(bytes((area, key)) + len(value).to_bytes(2, "big") + value for area, key, value in rows)


def unpack(data: bytes) -> Iterator[Row]:
    while len(data) >= 4:
        size = int.from_bytes(data[2:4], "big")
        yield data[0], data[1], data[4 : 4 + size]
        data = data[4 + size :]


def channel(data: bytes) -> None:
    """All rows of one channel."""
    keyed = []
    for number, (index, key, value) in enumerate(unpack(data)):
        area = AREAS[index % len(AREAS)]
        tail = bytes((key,)) if area in (AREA_HTLC, AREA_SECRET) else b""
        if area == AREA_HTLC:
            tail += number.to_bytes(8, "big")
        keyed.append((area + bytes(32) + tail, value))
    load_channel(keyed)


def headers(data: bytes) -> None:
    """The height of the first header, then the rows; the row of the base is the last."""
    first = int.from_bytes(data[:4], "big")
    found = [value for _, _, value in unpack(data[4:])]
    keys = [(first + n).to_bytes(5, "big")[-4:] for n in range(len(found) - 1)] + [b"\xff" * 4]
    stored = {b"b" + key: row for key, row in zip(keys, found, strict=False)}
    chain = load_headers(list(stored.items()), b"b", Network.REGTEST, BlockHeight(1))
    if chain.base_hash is not None:
        assert dict(header_records(None, chain, b"b").puts) == stored
