"""Bytes, integers and the 5-bit symbols of bech32 text (BOLT 11, data part), at the speed of big integers.

A run of symbols is ``bytes`` with values 0-31, most significant symbol first. Everything here works on the whole run at
once: an invoice of 400 symbols costs a few microseconds instead of one Python step per symbol.
"""

_DIGITS = b"0123456789abcdefghijklmnopqrstuv"
"""The digits that ``int(text, 32)`` reads."""
_TO_DIGITS = _DIGITS + bytes(224)
"""Translation from symbols to digits; a value above 31 becomes NUL, which ``int`` refuses."""
_CHUNK_LEVELS = 9
_CHUNK = 1 << _CHUNK_LEVELS
"""Symbols that one run of ``_spread`` handles."""


def _spread_steps() -> tuple[tuple[int, int, int], ...]:
    """Masks and shifts that move ``_CHUNK`` packed symbols apart, halving the block size in each step."""
    steps = []
    for level in range(_CHUNK_LEVELS, 0, -1):
        half = 1 << (level - 1)
        low = 0
        for block in range(_CHUNK >> level):
            low |= ((1 << 5 * half) - 1) << (block * 16 * half)
        steps.append((low, low << (5 * half), 3 * half))
    return tuple(steps)


_SPREAD = _spread_steps()


def int_to_symbols(value: int, count: int) -> bytes:
    """The ``count`` symbols of ``value``, most significant first; ``value`` must fit into ``5 * count`` bits."""
    chunks = []
    while count > _CHUNK:
        chunks.append(_spread(value & ((1 << 5 * _CHUNK) - 1), _CHUNK))
        value >>= 5 * _CHUNK
        count -= _CHUNK
    chunks.append(_spread(value, count))
    return chunks[0] if len(chunks) == 1 else b"".join(reversed(chunks))


def _spread(value: int, count: int) -> bytes:
    for low, high, shift in _SPREAD:
        value = (value & low) | ((value & high) << shift)
    return value.to_bytes(count, "big")


def symbols_to_int(symbols: bytes) -> int:
    """The big-endian number that the symbols spell; ``ValueError`` when one of them is above 31."""
    return int(symbols.translate(_TO_DIGITS), 32) if symbols else 0


def symbols_to_bytes(symbols: bytes) -> bytes:
    """Whole bytes of a field; the padding bits behind the last whole byte are dropped."""
    bits = 5 * len(symbols)
    return (symbols_to_int(symbols) >> bits % 8).to_bytes(bits // 8, "big")


def symbols_to_padded_bytes(symbols: bytes) -> bytes:
    """All bits of the run, zero bits appended up to the next byte: what a signature covers (BOLT 11, data part)."""
    bits = 5 * len(symbols)
    return (symbols_to_int(symbols) << -bits % 8).to_bytes((bits + 7) // 8, "big")


def bytes_to_symbols(data: bytes) -> bytes:
    """The bits of ``data`` as symbols, zero bits appended up to the next symbol."""
    bits = 8 * len(data)
    return int_to_symbols(int.from_bytes(data, "big") << -bits % 5, (bits + 4) // 5)
