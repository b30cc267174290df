"""Declared structs: one class gives encode, decode and a table for docs and tests.

A class is a frozen ``msgspec.Struct`` whose attributes carry their field type in ``Annotated``. Attributes without
``tlv`` come first and are laid out one behind the other; attributes with ``tlv`` are records of the TLV stream behind
them. Messages, sub-types, onion payloads and stored records are all declared this way::

    @wire_struct
    class StoredHtlc(Struct, frozen=True, kw_only=True):
        id: Annotated[int, u64]
        amount_msat: Annotated[int, msat]
        payment_hash: Annotated[bytes, sha256]

    @wire_struct
    class ChannelRecord(Struct, frozen=True, kw_only=True):
        balance_msat: Annotated[int, tlv(1, msat)]                       # no default: must be there
        point: Annotated[bytes | None, tlv(3, trusted_point)] = None     # absent while it equals its default
        htlcs: Annotated[tuple[StoredHtlc, ...], tlv(5, list_of(StoredHtlc))] = ()

    data = encode_struct(record)
    record = decode_struct(ChannelRecord, data)

Everything that can be decided at import is decided there: runs of fixed fields share one ``struct.Struct``.
"""

import struct
from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from leyden.types.rules import C_127
from leyden.wire.errors import EncodeError, Malformed, refuse
from leyden.wire.fields import Bytes, Field
from leyden.wire.tlv import Record, TlvCodec, UnknownKeeper

S = TypeVar("S", bound=msgspec.Struct)

_Emit = Callable[[Any], bytes]
_Take = Callable[[bytes, int, int, dict[str, Any]], int]

_CODECS: dict[type, "StructCodec[Any]"] = {}


class StructCodec(Generic[S]):
    """Encoder and decoder of one declared class; ``encode`` and ``decode`` are the whole value, nothing behind it."""

    __slots__ = ("_emitters", "cls", "fields", "records", "size", "takers", "tlv")

    def __init__(self, cls: type[S]) -> None:
        self.cls = cls
        self.fields, self.records, keeper = _declared(cls)
        self.tlv = TlvCodec(cls.__name__, self.records, keeper) if self.records or keeper else None
        sizes = [field.size for _, field in self.fields]
        self.size: int | None = None if self.tlv or None in sizes else sum(size or 0 for size in sizes)
        self._emitters: list[_Emit] = []
        self.takers: list[_Take] = []
        for run in _runs(self.fields):
            emit, take = _fixed_run(run) if run[0][1].format is not None else _single(*run[0])
            self._emitters.append(emit)
            self.takers.append(take)

    def write(self, value: S) -> bytes:
        """Fields, then records."""
        if len(self._emitters) == 1:
            head = self._emitters[0](value)
        else:
            head = b"".join([emit(value) for emit in self._emitters])
        return head if self.tlv is None else head + self.tlv.write(value)

    encode = write

    def read(self, data: bytes, offset: int, end: int) -> tuple[S, int]:
        """A value out of the middle of ``data``; records, if declared, reach to ``end``."""
        values: dict[str, Any] = {}
        for take in self.takers:
            offset = take(data, offset, end, values)
        if self.tlv is not None:
            self.tlv.read(data, offset, end, values)
            offset = end
        return self.cls(**values), offset

    def decode(self, data: bytes) -> S:
        """The whole of ``data`` as one value; ``WireError`` when it is cut short, too long or breaks a rule."""
        try:
            value, offset = self.read(data, 0, len(data))
        except Malformed as error:
            refuse(C_127, f"{self.cls.__name__}: {error}")
            raise
        if offset != len(data):
            refuse(C_127, f"{self.cls.__name__}: {len(data) - offset} bytes too many")
        return value


def register(cls: type[S]) -> StructCodec[S]:
    """Compile the declaration of ``cls`` and remember it."""
    codec = _CODECS[cls] = StructCodec(cls)
    return codec


def wire_struct(cls: type[S]) -> type[S]:
    """Class decorator: compile the declaration at once, so that a mistake in it fails at import."""
    register(cls)
    return cls


def tlv_struct(cls: type[S]) -> type[S]:
    """``wire_struct`` for a pure TLV stream (stored records, onion payloads)."""
    codec = register(cls)
    if codec.fields:
        raise TypeError(f"{cls.__name__}.{codec.fields[0][0]} has no TLV number")
    return cls


def codec_of(cls: type[S]) -> StructCodec[S]:
    """The codec of a declared class; keep it when speed matters."""
    try:
        return _CODECS[cls]
    except KeyError:
        raise TypeError(f"{cls.__name__} is not declared with @wire_struct") from None


def encode_struct(value: msgspec.Struct) -> bytes:
    """The bytes of a declared struct; ``EncodeError`` when a value does not fit, ``WireError`` (C-135) by rule."""
    return codec_of(type(value)).write(value)


def decode_struct(cls: type[S], data: bytes) -> S:
    """The inverse of ``encode_struct``; ``WireError`` and nothing else on any other bytes."""
    return codec_of(cls).decode(data)


def describe(cls: type[msgspec.Struct]) -> list[tuple[str, int | None, str]]:
    """For docs: (attribute, TLV number or None, kind) in the order of the bytes."""
    codec = codec_of(cls)
    rows: list[tuple[str, int | None, str]] = [(name, None, field.name) for name, field in codec.fields]
    return rows + [(r.name, r.type, r.field.name) for r in sorted(codec.records, key=lambda r: r.type)]


# --- fields made of other fields --------------------------------------------------------------------------------------


class Nested(Field[S]):
    """A declared class as a field of another one."""

    __slots__ = ("codec", "read", "write")

    def __init__(self, cls: type[S]) -> None:
        self.codec = codec_of(cls)
        super().__init__(cls.__name__, self.codec.size)
        self.read = self.codec.read  # type: ignore[method-assign]  # the codec's own, a call less per field
        self.write = self.codec.write  # type: ignore[method-assign]  # the codec's own, a call less per field


class ListOf(Field[tuple[Any, ...]]):
    """Items one behind the other: a fixed number, behind a count of ``prefix`` bytes, or up to the end."""

    __slots__ = ("count", "item", "prefix")

    def __init__(self, item: Field[Any], count: int | None, prefix: int) -> None:
        if count is not None:
            name = f"{item.name}*{count}"
        else:
            name = f"u{8 * prefix} count + {item.name}" if prefix else f"{item.name}..."
        super().__init__(name, None if count is None or item.size is None else count * item.size)
        self.item = item
        self.count = count
        self.prefix = prefix

    def write(self, value: tuple[Any, ...]) -> bytes:
        if self.count is not None and len(value) != self.count:
            raise EncodeError(f"{len(value)} items instead of {self.count}")
        body = b"".join(map(self.item.write, value))
        if not self.prefix:
            return body
        try:
            return len(value).to_bytes(self.prefix, "big") + body
        except OverflowError as error:
            raise EncodeError(f"{len(value)} items do not fit {self.name}") from error

    def read(self, data: bytes, offset: int, end: int) -> tuple[tuple[Any, ...], int]:
        count = self.count
        if self.prefix:
            if offset + self.prefix > end:
                raise Malformed("count cut short")
            count = int.from_bytes(data[offset : offset + self.prefix], "big")
            offset += self.prefix
        if isinstance(self.item, Bytes) and self.item.check_read is None:
            return self._read_bytes(data, offset, end, count)
        read = self.item.read
        items: list[Any] = []
        # Every item takes at least one byte, so a lying count ends at once.
        while offset < end if count is None else len(items) < count:
            item, offset = read(data, offset, end)
            items.append(item)
        return tuple(items), offset

    def _read_bytes(self, data: bytes, offset: int, end: int, count: int | None) -> tuple[tuple[bytes, ...], int]:
        """Slices of equal length: up to 483 signatures come this way."""
        size = self.item.size or 1
        stop = end if count is None else offset + count * size
        if stop > end or (stop - offset) % size:
            raise Malformed(f"{self.item.name} cut short")
        return tuple([data[i : i + size] for i in range(offset, stop, size)]), stop


def nested(cls: type[S]) -> Field[S]:
    """A field that is itself a declared struct."""
    return Nested(cls)


def list_of(item: "Field[Any] | type[msgspec.Struct]", *, count: int | None = None, prefix: int = 0) -> ListOf:
    """A tuple of ``item`` (field or declared class): ``count`` of them, counted by ``prefix`` bytes, or to the end."""
    return ListOf(item if isinstance(item, Field) else Nested(item), count, prefix)


# --- compiling a class ------------------------------------------------------------------------------------------------


def _declared(cls: type[msgspec.Struct]) -> tuple[list[tuple[str, Field[Any]]], list[Record], str | None]:
    """Fields, records and the name of the attribute that keeps unknown records, in the order of the class body."""
    hints = get_type_hints(cls, include_extras=True)
    defaults = {info.name: info.default for info in msgspec.structs.fields(cls)}
    fields: list[tuple[str, Field[Any]]] = []
    records: list[Record] = []
    keeper: str | None = None
    for name in cls.__struct_fields__:
        marks = get_args(hints[name])[1:] if get_origin(hints[name]) is Annotated else ()
        for mark in marks:
            if isinstance(mark, Record):
                records.append(mark.named(name, defaults[name]))
            elif isinstance(mark, UnknownKeeper):
                keeper = name
            elif isinstance(mark, Field) and not records:
                fields.append((name, mark))
            else:
                continue
            break
        else:
            raise TypeError(f"{cls.__name__}.{name} names no field type (or stands behind a TLV record)")
    return fields, records, keeper


def _runs(fields: list[tuple[str, Field[Any]]]) -> list[list[tuple[str, Field[Any]]]]:
    """Fields grouped so that neighbours of fixed format share a group."""
    runs: list[list[tuple[str, Field[Any]]]] = []
    for name, field in fields:
        if runs and field.format is not None and runs[-1][0][1].format is not None:
            runs[-1].append((name, field))
        else:
            runs.append([(name, field)])
    return runs


def _fixed_run(run: list[tuple[str, Field[Any]]]) -> tuple[_Emit, _Take]:
    """One ``struct`` call for neighbouring fixed fields. Bytes are measured first: ``struct`` would pad or cut them."""
    names = [name for name, _ in run]
    packer = struct.Struct(">" + "".join(field.format or "" for _, field in run))
    pack, unpack_from, size = packer.pack, packer.unpack_from, packer.size
    get = attrgetter(*names)
    single = len(run) == 1
    measured = [(i, f.size or 0) for i, (_, f) in enumerate(run) if (f.format or "").endswith("s")]
    write_checks = [(i, f.check_write) for i, (_, f) in enumerate(run) if f.check_write]
    read_checks = [(i, f.check_read) for i, (_, f) in enumerate(run) if f.check_read]

    def emit(value: Any) -> bytes:
        values = (get(value),) if single else get(value)
        for i, length in measured:
            if len(values[i]) != length:
                raise EncodeError(f"{names[i]} has {len(values[i])} bytes instead of {length}")
        for i, check in write_checks:
            check(values[i])
        try:
            return pack(*values)
        except struct.error as error:
            raise EncodeError(f"{type(value).__name__}: {error}") from error

    def take(data: bytes, offset: int, end: int, into: dict[str, Any]) -> int:
        stop = offset + size
        if stop > end:
            raise Malformed(f"cut short before the end of {names[-1]}")
        values = unpack_from(data, offset)
        for i, check in read_checks:
            check(values[i])
        into.update(zip(names, values, strict=True))
        return stop

    return emit, take


def _single(name: str, field: Field[Any]) -> tuple[_Emit, _Take]:
    get, write, read = attrgetter(name), field.write, field.read

    def emit(value: Any) -> bytes:
        return write(get(value))

    def take(data: bytes, offset: int, end: int, into: dict[str, Any]) -> int:
        into[name], offset = read(data, offset, end)
        return offset

    return emit, take
