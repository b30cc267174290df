"""TLV streams (BOLT 1): records of type, length, value in strictly increasing order of type.

Unknown odd records are skipped, or kept byte for byte when the class has an attribute marked ``keep_unknown``;
unknown even ones make the stream invalid.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from leyden.types.rules import C_127, C_129, C_130, C_131, C_132, C_133
from leyden.wire.errors import EncodeError, Malformed, WireError, refuse
from leyden.wire.features import Feature
from leyden.wire.fields import Field, Flag, read_bigsize, write_bigsize

FIRST_CUSTOM_RECORD = 1 << 16
"""Record types from here on belong to nobody in particular (BOLT 1)."""


class UnknownRecord(msgspec.Struct, frozen=True):
    """A record that this program has no declaration for."""

    type: int
    value: bytes


class Record:
    """Mark of an attribute: TLV ``type`` and the field inside. ``needs`` names the feature without which the record
    may not be sent."""

    __slots__ = ("default", "field", "name", "needs", "type")

    def __init__(
        self, type: int, field: Field[Any], needs: Feature | None = None, name: str = "", default: Any = None
    ) -> None:
        self.type = type
        self.field = field
        self.needs = needs
        self.name = name
        self.default = default

    def named(self, name: str, default: Any) -> "Record":
        return Record(self.type, self.field, self.needs, name, default)


class UnknownKeeper:
    """Mark of the attribute that keeps unknown records; see ``keep_unknown``."""

    __slots__ = ()


def tlv(type: int, field: Field[Any], *, needs: Feature | None = None) -> Record:
    """The attribute is TLV record ``type``; it is absent from the stream while it equals its default."""
    return Record(type, field, needs)


keep_unknown = UnknownKeeper()
"""``unknown: Annotated[tuple[UnknownRecord, ...], keep_unknown] = ()`` keeps odd ones and writes them back."""


def split_records(data: bytes, offset: int = 0, end: int | None = None) -> list[tuple[int, int, int, int]]:
    """Frame a TLV stream: (type, start of record, start of value, end of value) of each record.

    ``WireError``: C-130 (order), C-131 (BigSize, length).
    """
    end = len(data) if end is None else end
    records = []
    previous = -1
    while offset < end:
        start = offset
        kind, offset = read_bigsize(data, offset, end)
        if kind <= previous:
            refuse(C_130, "TLV types do not increase", record=kind, previous=previous, offset=start)
        length, offset = read_bigsize(data, offset, end)
        if length > end - offset:
            refuse(C_131, "TLV length exceeds the stream", record=kind, offered=length, allowed=end - offset)
            length = end - offset
        records.append((kind, start, offset, offset + length))
        offset += length
        previous = kind
    return records


class TlvCodec:
    """All records of one class."""

    __slots__ = ("_by_type", "_defaults", "_get", "_keeper", "_required", "_writers", "name")

    def __init__(self, name: str, records: list[Record], keeper: str | None) -> None:
        records = sorted(records, key=lambda record: record.type)
        if len({record.type for record in records}) != len(records):
            raise TypeError(f"{name}: a TLV number is given twice")
        self.name = name
        self._keeper = keeper
        self._by_type = {r.type: (r.name, r.field) for r in records}
        self._required = [r.name for r in records if r.default is msgspec.NODEFAULT]
        self._defaults = tuple(r.default for r in records)
        self._writers = [_record_writer(r) for r in records]
        names = [r.name for r in records]
        get = attrgetter(*names) if names else None
        self._get: Callable[[Any], tuple[Any, ...]]
        if get is None:
            self._get = lambda value: ()
        else:
            self._get = get if len(names) > 1 else lambda value: (get(value),)

    def write(self, value: Any) -> bytes:
        values = self._get(value)
        unknown = getattr(value, self._keeper) if self._keeper else ()
        if values == self._defaults and not unknown:
            return b""
        parts = [
            write(item)
            for item, default, write in zip(values, self._defaults, self._writers, strict=True)
            if item is not default and item != default
        ]
        if unknown:
            return self._merge(b"".join(parts), unknown)
        return b"".join(parts)

    def _merge(self, known: bytes, unknown: tuple[UnknownRecord, ...]) -> bytes:
        pieces = {kind: known[start:end] for kind, start, _, end in split_records(known)}
        for record in unknown:
            if record.type in self._by_type or record.type in pieces:
                raise EncodeError(f"record {record.type} is given twice")
            pieces[record.type] = write_bigsize(record.type) + write_bigsize(len(record.value)) + record.value
        return b"".join([pieces[kind] for kind in sorted(pieces)])

    def read(self, data: bytes, offset: int, end: int, into: dict[str, Any]) -> None:
        """Put the records between ``offset`` and ``end`` into ``into``; a missing required one is a ``WireError``."""
        by_type = self._by_type
        base = offset
        unknown = []
        previous = -1
        while offset < end:
            start = offset
            # Types and lengths below 253 are one byte; everything else takes the long way.
            kind = data[offset]
            if kind < 0xFD:
                offset += 1
            else:
                kind, offset = read_bigsize(data, offset, end)
            if kind <= previous:
                refuse(C_130, "TLV types do not increase", record=kind, previous=previous, offset=start - base)
            previous = kind
            if offset < end and data[offset] < 0xFD:
                stop = offset + 1 + data[offset]
                offset += 1
            else:
                length, offset = read_bigsize(data, offset, end)
                stop = offset + length
            if stop > end:
                refuse(C_131, "TLV length exceeds the stream", record=kind, offset=start - base)
                stop = end
            known = by_type.get(kind)
            if known is None:
                if not kind & 1:
                    refuse(C_133, "unknown even TLV record", record=kind, offset=start - base)
                if self._keeper:
                    unknown.append(UnknownRecord(kind, data[offset:stop]))
            else:
                name, field = known
                try:
                    into[name], used = field.read(data, offset, stop)
                    if used != stop:
                        raise Malformed(f"{stop - used} bytes too many")
                except Malformed as error:
                    refuse(C_132, f"{self.name}.{name}: {error}", record=kind, offset=start - base)
                except WireError as error:
                    error.details.setdefault("record", kind)
                    error.details.setdefault("offset", start - base)
                    raise
            offset = stop
        if unknown and self._keeper:
            into[self._keeper] = tuple(unknown)
        for name in self._required:
            if name not in into:
                raise WireError(C_127, f"{self.name}: record {name} is missing")


def _record_writer(record: Record) -> Callable[[Any], bytes]:
    """A function from the value to the whole record. Fixed fields have a constant header."""
    kind = write_bigsize(record.type)
    write = record.field.write
    if isinstance(record.field, Flag) or record.field.size is not None:
        header = kind + write_bigsize(record.field.size or 0)
        return lambda value: header + write(value)

    def emit(value: Any) -> bytes:
        body = write(value)
        length = len(body)
        return kind + (_ONE_BYTE[length] if length < 0xFD else write_bigsize(length)) + body

    return emit


_ONE_BYTE = [i.to_bytes(1, "big") for i in range(0xFD)]


def encode_records(records: tuple[UnknownRecord, ...]) -> bytes:
    """Custom records (2^16 and above, C-129) in order of type; ``EncodeError`` on a repeat."""
    out = []
    previous = -1
    for record in sorted(records, key=lambda r: r.type):
        if record.type < FIRST_CUSTOM_RECORD:
            refuse(C_129, "custom TLV records start at 65536", offered=record.type)
        if record.type == previous:
            raise EncodeError(f"record {record.type} is given twice")
        previous = record.type
        out.append(write_bigsize(record.type) + write_bigsize(len(record.value)) + record.value)
    return b"".join(out)
