"""Bitcoin's variable-length integer."""

from leyden.bitcoin.errors import BitcoinError


def write_varint(value: int) -> bytes:
    """1, 3, 5 or 9 bytes, little-endian; ``BitcoinError`` outside ``0..2**64-1``."""
    if 0 <= value < 0xFD:
        return value.to_bytes(1, "little")
    if 0 <= value <= 0xFFFF:
        return b"\xfd" + value.to_bytes(2, "little")
    if 0 <= value <= 0xFFFFFFFF:
        return b"\xfe" + value.to_bytes(4, "little")
    if 0 <= value <= 0xFFFFFFFFFFFFFFFF:
        return b"\xff" + value.to_bytes(8, "little")
    raise BitcoinError(f"{value} does not fit a variable-length integer")


def read_varint(data: bytes, offset: int = 0) -> tuple[int, int]:
    """The integer at ``offset`` and the offset behind it; ``BitcoinError`` if it is cut off or not in shortest form."""
    if not 0 <= offset < len(data):
        raise BitcoinError("unexpected end of data")
    first = data[offset]
    if first < 0xFD:
        return first, offset + 1
    width = 2 << (first - 0xFD)
    end = offset + 1 + width
    if end > len(data):
        raise BitcoinError("unexpected end of data")
    value = int.from_bytes(data[offset + 1 : end], "little")
    if value < (0xFD, 1 << 16, 1 << 32)[first - 0xFD]:
        raise BitcoinError("variable-length integer is not in its shortest form")
    return value, end
