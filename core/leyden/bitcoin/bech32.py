"""Bech32 and bech32m (BIP 173, BIP 350): segwit addresses and, without the length limit, Lightning invoices."""

import enum

from leyden.bitcoin.errors import Bech32Error

CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
MAX_ADDRESS_LENGTH = 90
_CHECKSUM = 6
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_INVALID = 0xFF

_TO_CHAR = bytes.maketrans(bytes(range(32)), CHARSET.encode())
_TO_VALUE = bytes(CHARSET.find(chr(c)) if chr(c) in CHARSET else _INVALID for c in range(256))
_TO_DIGIT = bytes.maketrans(bytes(range(32)), b"0123456789abcdefghijklmnopqrstuv")  # the digits of int(text, 32)
_PAIRS = [bytes((i >> 5, i & 31)) for i in range(1024)]


class Encoding(enum.Enum):
    """The two variants; the value is what their checksum comes to."""

    BECH32 = 1
    BECH32M = 0x2BC830A3


def _two_symbols_table() -> list[int]:
    """What the ten bits that leave the checksum register feed back when two symbols are shifted in at once."""

    def step(register: int) -> int:
        top, register = register >> 25, (register & 0x1FFFFFF) << 5
        for i, generator in enumerate(_GENERATOR):
            if top >> i & 1:
                register ^= generator
        return register

    table = [0]
    for bit in range(10):  # the code is linear: each further bit doubles the table
        feedback = step(step(1 << (20 + bit)))
        table += [known ^ feedback for known in table]
    return table


_FEEDBACK = _two_symbols_table()


def _polymod(values: bytes) -> int:
    if len(values) % 2:
        register = (1 << 5) ^ values[0]  # nothing is fed back yet
        values = values[1:]
    else:
        register = 1
    pairs = iter(values)
    for high, low in zip(pairs, pairs, strict=True):
        register = ((register & 0xFFFFF) << 10) ^ (high << 5 | low) ^ _FEEDBACK[register >> 20]
    return register


def _expand(hrp: str) -> bytes:
    raw = hrp.encode("ascii")
    return bytes(c >> 5 for c in raw) + b"\0" + bytes(c & 31 for c in raw)


def _check_hrp(hrp: str) -> None:
    if not 1 <= len(hrp) <= 83 or any(not 33 <= ord(c) <= 126 for c in hrp):
        raise Bech32Error("the human-readable part must be 1 to 83 visible ASCII characters")


def bech32_encode(hrp: str, data5: bytes, encoding: Encoding = Encoding.BECH32) -> str:
    """Text in lower case for a sequence of 5-bit values; ``Bech32Error`` for a bad ``hrp`` or larger values."""
    _check_hrp(hrp)
    if hrp != hrp.lower():
        raise Bech32Error("the human-readable part must be in lower case")
    if data5 and max(data5) > 31:
        raise Bech32Error("only 5-bit values can be encoded")
    register = _polymod(_expand(hrp) + data5 + bytes(_CHECKSUM)) ^ encoding.value
    checksum = bytes(register >> 5 * (_CHECKSUM - 1 - i) & 31 for i in range(_CHECKSUM))
    return hrp + "1" + (data5 + checksum).translate(_TO_CHAR).decode()


def bech32_decode(
    text: str, *, max_length: int = MAX_ADDRESS_LENGTH, encoding: Encoding = Encoding.BECH32
) -> tuple[str, bytes]:
    """Human-readable part in lower case and 5-bit values without the checksum.

    ``Bech32Error`` if the text is longer than ``max_length`` or not valid in this ``encoding``.
    """
    hrp, data5, found = bech32_decode_any(text, max_length=max_length)
    if found is not encoding:
        raise Bech32Error(f"checksum is that of {found.name.lower()}, expected {encoding.name.lower()}")
    return hrp, data5


def bech32_decode_any(text: str, *, max_length: int = MAX_ADDRESS_LENGTH) -> tuple[str, bytes, Encoding]:
    """As ``bech32_decode`` for text of either variant; tells which one it is."""
    if len(text) > max_length:
        raise Bech32Error(f"{len(text)} characters are more than the {max_length} allowed")
    if not text.isascii():
        raise Bech32Error("only ASCII characters are allowed")
    lower = text.lower()
    if text not in (lower, text.upper()):
        raise Bech32Error("upper and lower case are mixed")
    hrp, separator, payload = lower.rpartition("1")
    if not separator:
        raise Bech32Error("the separator '1' is missing")
    _check_hrp(hrp)
    values = payload.encode().translate(_TO_VALUE)
    if len(values) < _CHECKSUM:
        raise Bech32Error("too short for a checksum")
    if max(values) > 31:
        raise Bech32Error("a character behind the separator is not in the alphabet")
    try:
        encoding = Encoding(_polymod(_expand(hrp) + values))
    except ValueError:
        raise Bech32Error("checksum does not match") from None
    return hrp, values[:-_CHECKSUM], encoding


def to_base32(data: bytes) -> bytes:
    """Regroup bytes into 5-bit values, the last one filled up with zero bits."""
    size = len(data)
    padded = data + bytes(-size % 5)
    out: list[bytes] = []
    for start in range(0, len(padded), 5):
        bits = int.from_bytes(padded[start : start + 5], "big")
        out += (_PAIRS[bits >> 30], _PAIRS[bits >> 20 & 1023], _PAIRS[bits >> 10 & 1023], _PAIRS[bits & 1023])
    return b"".join(out)[: (size * 8 + 4) // 5]


def from_base32(data5: bytes, *, pad: bool = False) -> bytes:
    """Regroup 5-bit values into bytes.

    Without ``pad`` the bits left over must be fewer than five and zero, else ``Bech32Error`` (BIP 173); with it they
    are filled up with zeros to one more byte (BOLT 11, the hash that is signed). ``Bech32Error`` for values above 31.
    """
    if not data5:
        return b""
    if max(data5) > 31:
        raise Bech32Error("only 5-bit values can be regrouped")
    bits = len(data5) * 5
    number = int(data5.translate(_TO_DIGIT), 32)
    rest = bits % 8
    if pad:
        return (number << (-bits % 8)).to_bytes((bits + 7) // 8, "big")
    if rest >= 5 or number & ((1 << rest) - 1):
        raise Bech32Error("bits left over at the end")
    return (number >> rest).to_bytes(bits // 8, "big")


def convertbits(data: bytes, from_bits: int, to_bits: int, *, pad: bool) -> bytes:
    """Regroup 8-bit into 5-bit values (always filled up: ``pad`` must be True) or back; the name BIP 173 made known."""
    if (from_bits, to_bits) == (8, 5) and pad:
        return to_base32(data)
    if (from_bits, to_bits) == (5, 8):
        return from_base32(data, pad=pad)
    raise Bech32Error(f"no regrouping from {from_bits} to {to_bits} bits with pad={pad}")
