"""Hypothesis strategies for everything that ``leyden.wire`` declares, read off the same declarations.

``messages()`` draws any message, ``structs(cls)`` any value of one declared class.
"""

from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st

from leyden.crypto import pubkey_create
from leyden.wire import fields as f
from leyden.wire.layout import ListOf, Nested, codec_of
from leyden.wire.message import MESSAGES, Message
from leyden.wire.tlv import FIRST_CUSTOM_RECORD, Record, UnknownRecord

S = TypeVar("S", bound=msgspec.Struct)

POINTS = tuple(pubkey_create(i.to_bytes(32, "big")) for i in range(1, 9))
"""Some valid public keys, of both parities."""

points = st.sampled_from(POINTS)


def messages() -> st.SearchStrategy[Message]:
    """Any declared message."""
    return st.sampled_from(sorted(MESSAGES)).flatmap(lambda number: structs(MESSAGES[number]))


def structs(cls: type[S]) -> st.SearchStrategy[S]:
    """Any value of a declared class; records with a default are absent in half of the draws."""
    codec = codec_of(cls)
    parts: dict[str, st.SearchStrategy[Any]] = {name: values_of(field) for name, field in codec.fields}
    for record in codec.records:
        parts[record.name] = _record(record)
    if "unknown" in cls.__struct_fields__:
        parts["unknown"] = unknown_records()
    return st.builds(cls, **parts)


def unknown_records() -> st.SearchStrategy[tuple[UnknownRecord, ...]]:
    """Odd custom records in order of type."""
    odd = st.integers(FIRST_CUSTOM_RECORD // 2, (1 << 63) - 1).map(lambda n: 2 * n + 1)
    return st.dictionaries(odd, st.binary(max_size=20), max_size=2).map(
        lambda found: tuple(UnknownRecord(kind, found[kind]) for kind in sorted(found))
    )


def _record(record: Record) -> st.SearchStrategy[Any]:
    if isinstance(record.field, f.Flag):
        return st.booleans()
    values = values_of(record.field)
    return values if record.default is msgspec.NODEFAULT else st.one_of(st.just(record.default), values)


def values_of(field: f.Field[Any]) -> st.SearchStrategy[Any]:
    """Any value that the field type can carry."""
    match field:
        case f.Int():
            bits = 8 * (field.size or 0)
            low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if field.signed else (0, (1 << bits) - 1)
            if field.limit is not None:
                low, high = max(low, -field.limit), min(high, field.limit)
            return st.integers(low, high)
        case f.TruncatedInt():
            return st.integers(0, (1 << 8 * field.width) - 1 if field.limit is None else field.limit)
        case f.BigSize():
            return st.integers(0, (1 << 64) - 1)
        case f.Bytes():
            return points if field.name == "point" else _exactly(field.size)
        case f.VarBytes() | f.RestBytes():
            return st.binary(max_size=40)
        case f.RestText():
            return st.text(max_size=20)
        case f.SciddirOrPubkey():
            return st.one_of(points, st.builds(bytes.__add__, st.sampled_from([b"\0", b"\1"]), _exactly(8)))
        case Nested():
            return structs(field.codec.cls)
        case ListOf():
            low, high = (0, 3) if field.count is None else (field.count, field.count)
            return st.lists(values_of(field.item), min_size=low, max_size=high).map(tuple)
        case _:
            raise TypeError(f"no strategy for {field!r}")


def _exactly(size: int) -> st.SearchStrategy[bytes]:
    """``size`` bytes; long ones repeat a short pattern, which costs Hypothesis less."""
    if size <= 33:
        return st.binary(min_size=size, max_size=size)
    return st.binary(min_size=1, max_size=8).map(lambda pattern: (pattern * size)[:size])
