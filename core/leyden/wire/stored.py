"""Stored rows: a version byte, then the layout of that version.

Each area has one module per version (``stored/v1.py``), which never changes once a release has written it, and one
dispatcher, the only module that imports them. A row of a version that this program does not know is refused, never
guessed at.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from leyden.types import LeydenError, RecordError
from leyden.wire.layout import codec_of

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

DAMAGES = (LeydenError, msgspec.MsgspecError, ValueError, LookupError, OverflowError)
"""What reading damaged bytes may raise."""


class RowKind(Generic[T]):
    """The rows of one kind: how the newest version is written, and every version read."""

    __slots__ = ("_prefix", "_readers", "_write", "area", "version")

    def __init__(self, area: str, write: Callable[[T], bytes], *readers: Callable[[bytes], T]) -> None:
        """``readers[n - 1]`` reads version ``n``; ``write`` writes the last of them."""
        self.area = area
        self.version = len(readers)
        self._write = write
        self._readers = readers
        self._prefix = bytes((self.version,))

    def encode(self, value: T) -> bytes:
        return self._prefix + self._write(value)

    def decode(self, row: bytes) -> T:
        """``RecordError`` for a row of a newer program or a damaged one, and nothing else."""
        version = row[0] if row else 0
        if version > self.version:
            raise RecordError.newer(self.area, f"version {version}, this one knows {self.version}")
        if not version:
            raise RecordError(self.area, "a row has no version")
        try:
            return self._readers[version - 1](row[1:])
        except RecordError:
            raise
        except DAMAGES as error:
            raise RecordError(self.area, f"a row cannot be read ({error})") from error


def struct_kind(area: str, newest: type[S], check: Callable[[S], object] | None = None) -> RowKind[S]:
    """Rows of one declared struct with a single version so far; ``check`` raises for values that make no sense."""
    codec = codec_of(newest)
    if check is None:
        return RowKind(area, codec.write, codec.decode)

    def read(data: bytes) -> S:
        value = codec.decode(data)
        check(value)
        return value

    return RowKind(area, codec.write, read)


def number_kind(area: str, size: int) -> RowKind[int]:
    """Rows that are one unsigned number of ``size`` bytes, big-endian."""

    def read(data: bytes) -> int:
        return int.from_bytes(exactly(data, size), "big")

    return RowKind(area, lambda value: value.to_bytes(size, "big"), read)


def bytes_kind(area: str, size: int) -> RowKind[bytes]:
    """Rows that are ``size`` bytes."""
    return RowKind(area, lambda value: exactly(value, size), lambda data: exactly(data, size))


def exactly(data: bytes, size: int) -> bytes:
    """``data``, or ``ValueError`` when its length is not ``size``."""
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
    return bytes(data)
