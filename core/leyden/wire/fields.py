"""Field types of BOLT 1: how one value becomes bytes and back.

A ``Field`` is stateless and shared. ``layout`` asks it for a ``struct`` format, so that runs of fixed fields are packed
in one call, and falls back on ``write`` / ``read``. Numbers are big-endian. BigSize and the truncated integers have
exactly one encoding each.
"""

import struct
from collections.abc import Callable
from typing import Generic, TypeVar

from leyden.crypto import is_valid_point
from leyden.types import MAX_MONEY_MSAT, MAX_MONEY_SAT
from leyden.types.rules import C_131, C_134, C_135, C_136
from leyden.wire.errors import EncodeError, Malformed, refuse

T = TypeVar("T")


class Field(Generic[T]):
    """One kind of value. ``name`` is the BOLT's word; ``size`` is None when the length varies."""

    __slots__ = ("check_read", "check_write", "format", "name", "size")

    name: str
    size: int | None
    format: str | None
    """``struct`` code of the whole value, or None."""
    check_read: Callable[[T], None] | None
    """Called with a value that was unpacked by ``format``; raises ``WireError``."""
    check_write: Callable[[T], None] | None

    def __init__(self, name: str, size: int | None = None, format: str | None = None) -> None:
        self.name = name
        self.size = size
        self.format = format
        self.check_read = None
        self.check_write = None

    def write(self, value: T) -> bytes:
        raise NotImplementedError

    def read(self, data: bytes, offset: int, end: int) -> tuple[T, int]:
        """The value at ``offset`` and the offset behind it; ``Malformed`` when ``end`` comes too early."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.name


# --- integers ---------------------------------------------------------------------------------------------------------


class Int(Field[int]):
    """Fixed integers ``u8`` ... ``u64`` and ``s8`` ... ``s64``; an amount has a ``limit`` (either sign)."""

    __slots__ = ("_struct", "limit", "signed")

    def __init__(self, name: str, code: str, limit: int | None = None) -> None:
        self._struct = struct.Struct(">" + code)
        super().__init__(name, self._struct.size, code)
        self.signed = code.islower()
        """True for two's complement."""
        self.limit = limit
        if limit is not None:
            self.check_read = self.check_write = amount_check(limit)

    def write(self, value: int) -> bytes:
        if self.check_write is not None:
            self.check_write(value)
        try:
            return self._struct.pack(value)
        except struct.error as error:
            raise EncodeError(f"{value!r} is no {self.name}") from error

    def read(self, data: bytes, offset: int, end: int) -> tuple[int, int]:
        stop = offset + self._struct.size
        if stop > end:
            raise Malformed(f"{self.name} cut short")
        value: int = self._struct.unpack_from(data, offset)[0]
        if self.check_read is not None:
            self.check_read(value)
        return value, stop


def amount_check(limit: int) -> Callable[[int], None]:
    """A check that ``-limit <= value <= limit`` (C-135: no amount exceeds all the money there is)."""

    def check(value: int) -> None:
        if not -limit <= value <= limit:
            refuse(C_135, "amount exceeds the money supply", offered=value, allowed=limit)

    return check


class TruncatedInt(Field[int]):
    """``tu16`` ... ``tu64``: big-endian without leading zeros, zero is empty; only at the end of a record."""

    __slots__ = ("limit", "width")

    def __init__(self, name: str, width: int, limit: int | None = None) -> None:
        super().__init__(name)
        self.width = width
        self.limit = limit
        if limit is not None:
            self.check_read = self.check_write = amount_check(limit)

    def write(self, value: int) -> bytes:
        if self.check_write is not None:
            self.check_write(value)
        if not 0 <= value < 1 << 8 * self.width:
            raise EncodeError(f"{value} is no {self.name}")
        return value.to_bytes((value.bit_length() + 7) // 8, "big")

    def read(self, data: bytes, offset: int, end: int) -> tuple[int, int]:
        if end - offset > self.width:
            raise Malformed(f"{self.name} longer than {self.width} bytes")
        if end > offset and data[offset] == 0:
            refuse(C_134, "truncated integer with a leading zero byte", type=self.name)
        value = int.from_bytes(data[offset:end], "big")
        if self.check_read is not None:
            self.check_read(value)
        return value, end


def write_bigsize(value: int) -> bytes:
    """BigSize (BOLT 1, appendix A): 1, 3, 5 or 9 bytes, the shortest that fits."""
    if value < 0xFD:
        if value < 0:
            raise EncodeError(f"{value} is no BigSize")
        return value.to_bytes(1, "big")
    if value < 1 << 16:
        return b"\xfd" + value.to_bytes(2, "big")
    if value < 1 << 32:
        return b"\xfe" + value.to_bytes(4, "big")
    if value < 1 << 64:
        return b"\xff" + value.to_bytes(8, "big")
    raise EncodeError(f"{value} is no BigSize")


def read_bigsize(data: bytes, offset: int = 0, end: int | None = None) -> tuple[int, int]:
    """The BigSize at ``offset`` and the offset behind it; ``WireError`` (C-131) when cut short or not minimal."""
    end = len(data) if end is None else end
    if offset < end:
        first = data[offset]
        if first < 0xFD:
            return first, offset + 1
        stop = offset + 1 + (2 << first - 0xFD)
        if stop <= end:
            value = int.from_bytes(data[offset + 1 : stop], "big")
            if value < _BIGSIZE_MINIMUM[first - 0xFD]:
                refuse(C_131, "BigSize is not minimal", offered=value, bytes=stop - offset)
            return value, stop
    refuse(C_131, "BigSize cut short", offset=offset)
    raise Malformed("BigSize cut short")


_BIGSIZE_MINIMUM = (0xFD, 1 << 16, 1 << 32)


class BigSize(Field[int]):
    """A BigSize as a field of its own."""

    __slots__ = ()

    def write(self, value: int) -> bytes:
        return write_bigsize(value)

    def read(self, data: bytes, offset: int, end: int) -> tuple[int, int]:
        return read_bigsize(data, offset, end)


class Flag(Field[bool]):
    """A record without content: present means True, absent is the default False."""

    __slots__ = ()

    def write(self, value: bool) -> bytes:
        return b""

    def read(self, data: bytes, offset: int, end: int) -> tuple[bool, int]:
        return True, offset


# --- bytes ------------------------------------------------------------------------------------------------------------


class Bytes(Field[bytes]):
    """Exactly ``size`` bytes."""

    __slots__ = ()
    size: int

    def __init__(self, name: str, size: int) -> None:
        super().__init__(name, size, f"{size}s")

    def write(self, value: bytes) -> bytes:
        if len(value) != self.size:
            raise EncodeError(f"{self.name} has {len(value)} bytes instead of {self.size}")
        return value

    def read(self, data: bytes, offset: int, end: int) -> tuple[bytes, int]:
        stop = offset + self.size
        if stop > end:
            raise Malformed(f"{self.name} cut short")
        value = data[offset:stop]
        if self.check_read is not None:
            self.check_read(value)
        return value, stop


class VarBytes(Field[bytes]):
    """Bytes behind their length, a ``u16`` (or ``u8``); BOLT tables list the length as a field of its own."""

    __slots__ = ("prefix",)

    def __init__(self, prefix: int = 2) -> None:
        super().__init__(f"u{8 * prefix} length + bytes")
        self.prefix = prefix

    def write(self, value: bytes) -> bytes:
        try:
            return len(value).to_bytes(self.prefix, "big") + value
        except OverflowError as error:
            raise EncodeError(f"{len(value)} bytes do not fit {self.name}") from error

    def read(self, data: bytes, offset: int, end: int) -> tuple[bytes, int]:
        start = offset + self.prefix
        stop = start + int.from_bytes(data[offset:start], "big")
        if start > end or stop > end:
            raise Malformed("length exceeds what follows")
        return data[start:stop], stop


class RestBytes(Field[bytes]):
    """Everything up to the end of the record (or message)."""

    __slots__ = ()

    def write(self, value: bytes) -> bytes:
        return value

    def read(self, data: bytes, offset: int, end: int) -> tuple[bytes, int]:
        return data[offset:end], end


class RestText(Field[str]):
    """UTF-8 up to the end of the record."""

    __slots__ = ()

    def write(self, value: str) -> bytes:
        return value.encode()

    def read(self, data: bytes, offset: int, end: int) -> tuple[str, int]:
        try:
            return data[offset:end].decode(), end
        except UnicodeDecodeError as error:
            raise Malformed("not UTF-8") from error


class SciddirOrPubkey(Field[bytes]):
    """Direction byte 0 or 1 and a short channel id (9 bytes), or a compressed key (33 bytes); C-136."""

    __slots__ = ()

    def write(self, value: bytes) -> bytes:
        if len(value) != (9 if value[:1] in (b"\0", b"\1") else 33):
            raise EncodeError(f"sciddir_or_pubkey of {len(value)} bytes")
        return value

    def read(self, data: bytes, offset: int, end: int) -> tuple[bytes, int]:
        if offset >= end:
            raise Malformed("sciddir_or_pubkey cut short")
        if data[offset] > 1:
            return point.read(data, offset, end)
        if offset + 9 > end:
            raise Malformed("sciddir_or_pubkey cut short")
        return data[offset : offset + 9], offset + 9


def _check_point(value: bytes) -> None:
    if not is_valid_point(value):
        refuse(C_136, "not a valid compressed public key", offered=value)


# --- the instances ----------------------------------------------------------------------------------------------------

u8 = Int("u8", "B")
u16 = Int("u16", "H")
u32 = Int("u32", "I")
u64 = Int("u64", "Q")
s8 = Int("s8", "b")
s16 = Int("s16", "h")
s32 = Int("s32", "i")
s64 = Int("s64", "q")
byte = Int("byte", "B")
tu16 = TruncatedInt("tu16", 2)
tu32 = TruncatedInt("tu32", 4)
tu64 = TruncatedInt("tu64", 8)
sat = Int("u64", "Q", MAX_MONEY_SAT)
"""``u64`` satoshi, at most 21 million BTC."""
msat = Int("u64", "Q", MAX_MONEY_MSAT)
"""``u64`` millisatoshi, at most 21 million BTC."""
signed_sat = Int("s64", "q", MAX_MONEY_SAT)
tu64_sat = TruncatedInt("tu64", 8, MAX_MONEY_SAT)
tu64_msat = TruncatedInt("tu64", 8, MAX_MONEY_MSAT)
bigsize = BigSize("bigsize")
flag = Flag("flag")
short_channel_id = Int("short_channel_id", "Q")
chain_hash = Bytes("chain_hash", 32)
channel_id = Bytes("channel_id", 32)
sha256 = Bytes("sha256", 32)
signature = Bytes("signature", 64)
bip340sig = Bytes("bip340sig", 64)
point = Bytes("point", 33)
point.check_read = _check_point
trusted_point = Bytes("point", 33)
"""A key that we have checked before: for stored records, where checking again would only cost time."""
sciddir_or_pubkey = SciddirOrPubkey("sciddir_or_pubkey")
var_bytes = VarBytes()
var_bytes_u8 = VarBytes(1)
rest = RestBytes("bytes to the end")
utf8 = RestText("utf8")


def bytes_n(size: int) -> Field[bytes]:
    """Exactly ``size`` bytes."""
    return Bytes(f"byte*{size}", size)
