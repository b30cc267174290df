"""Invoice text: bech32 of up to 7,089 characters with a checksum that costs microseconds (BOLT 11, encoding; BIP 173).

The checksum is linear over bits: each of its 30 bits is the parity of the message under a mask that depends only on the
distance of a symbol from the end. So 30 big-integer ANDs replace one Python step per symbol.
"""

from functools import lru_cache

from leyden.bitcoin.bech32 import CHARSET
from leyden.invoice.errors import InvoiceError, refuse_unless
from leyden.invoice.symbols import int_to_symbols, symbols_to_int
from leyden.types.rules import C_241

MAX_LENGTH = 7089
"""Characters: what one QR code holds."""
_CHECKSUM_SYMBOLS = 6
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_MASK_STEP = 512
_INVALID = 0xFF
_TO_TEXT = CHARSET.encode() + bytes(224)
_TO_SYMBOLS = bytes(CHARSET.index(chr(i)) if chr(i) in CHARSET else _INVALID for i in range(256))
_SPELLED_INVALID = bytes((_INVALID,))


def encode_text(hrp: str, data: bytes) -> str:
    """``hrp`` (lower case), separator, symbols and checksum."""
    checksum = _polymod(hrp, data + bytes(_CHECKSUM_SYMBOLS)) ^ 1
    symbols = data + int_to_symbols(checksum, _CHECKSUM_SYMBOLS)
    return f"{hrp}1{symbols.translate(_TO_TEXT).decode()}"


def decode_text(text: str) -> tuple[str, bytes]:
    """Human-readable part in lower case and the symbols without checksum. Raises ``InvoiceError`` (C-241)."""
    if len(text) > MAX_LENGTH:
        raise InvoiceError(C_241, "invoice too long", offered=len(text), allowed=MAX_LENGTH)
    if not text.isascii():
        raise InvoiceError(C_241, "invoice with characters outside ASCII")
    lower = text.lower()
    refuse_unless(text == lower or text == text.upper(), C_241, "invoice in mixed case")
    hrp, separator, rest = lower.rpartition("1")
    if not separator or not hrp:
        raise InvoiceError(C_241, "invoice without the separator 1", offered=text[:12])
    symbols = rest.encode().translate(_TO_SYMBOLS)
    if _SPELLED_INVALID in symbols:
        place = symbols.index(_SPELLED_INVALID)
        raise InvoiceError(C_241, "invoice with a character that bech32 does not use", offered=rest[place])
    if len(symbols) < _CHECKSUM_SYMBOLS:
        raise InvoiceError(C_241, "invoice too short for a checksum", offered=len(symbols), allowed=_CHECKSUM_SYMBOLS)
    refuse_unless(_polymod(hrp, symbols) == 1, C_241, "invoice checksum is wrong: it was mistyped or cut")
    return hrp, symbols[:-_CHECKSUM_SYMBOLS]


def _polymod(hrp: str, symbols: bytes) -> int:
    """Remainder of the checksum polynomial over the expanded human-readable part and the symbols (BIP 173)."""
    codes = hrp.encode()
    # the leading 1 is the start value of the remainder
    expanded = bytes((1, *(code >> 5 for code in codes), 0, *(code & 31 for code in codes)))
    message = symbols_to_int(expanded + symbols)
    remainder = 0
    size = len(expanded) + len(symbols)
    for mask in _masks(-(-size // _MASK_STEP)):
        remainder = remainder << 1 | (message & mask).bit_count() & 1
    return remainder


@lru_cache(maxsize=16)
def _masks(steps: int) -> tuple[int, ...]:
    """For each remainder bit, most significant first: the message bits that flip it, for messages up to this size."""
    reduced = tuple(_reduce(top) for top in range(32))
    columns = []
    states = [1 << bit for bit in range(5)]
    for _ in range(steps * _MASK_STEP):
        columns.extend(states)
        states = [(state & 0x1FFFFFF) << 5 ^ reduced[state >> 25] for state in states]
    spelled = "".join([format(column, "030b") for column in reversed(columns)])
    return tuple(int(spelled[bit::30], 2) for bit in range(30))


def _reduce(top: int) -> int:
    remainder = 0
    for bit, generator in enumerate(_GENERATOR):
        if top >> bit & 1:
            remainder ^= generator
    return remainder
