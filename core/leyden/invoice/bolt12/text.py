"""BOLT 12 text: a prefix, ``1``, bech32 symbols without checksum; ``+`` may break it anywhere (C-253)."""

import re

from leyden.bitcoin.bech32 import CHARSET
from leyden.invoice.errors import InvoiceError, refuse_unless
from leyden.invoice.symbols import bytes_to_symbols, symbols_to_bytes
from leyden.types.rules import C_253

OFFER_PREFIX = "lno"
REQUEST_PREFIX = "lnr"
INVOICE_PREFIX = "lni"

MAX_BYTES = 65535
"""Longer documents fit into no message that could carry them."""
_MAX_SYMBOLS = (8 * MAX_BYTES + 4) // 5
_MAX_TEXT = 2 * _MAX_SYMBOLS
_JOINT = re.compile(r"(?<=[0-9a-z])\+[ \t\r\n\v\f]*(?=[0-9a-z])", re.IGNORECASE)
_INVALID = 0xFF
_TO_TEXT = CHARSET.encode() + bytes(224)
_TO_SYMBOLS = bytes(CHARSET.index(chr(i)) if chr(i) in CHARSET else _INVALID for i in range(256))


def encode_text(prefix: str, data: bytes, *, upper: bool = False) -> str:
    """The text of a document in lower case, or in upper case, which QR codes store best."""
    text = f"{prefix}1{bytes_to_symbols(data).translate(_TO_TEXT).decode()}"
    return text.upper() if upper else text


def decode_text(text: str, prefix: str) -> bytes:
    """The TLV stream in ``text``; ``InvoiceError`` (C-253) when it is no text of this ``prefix``."""
    if len(text) > _MAX_TEXT:
        raise InvoiceError(C_253, "text is too long", offered=len(text), allowed=_MAX_TEXT)
    if not text.isascii():
        raise InvoiceError(C_253, "characters outside ASCII")
    joined = _JOINT.sub("", text)
    lower = joined.lower()
    refuse_unless(joined in (lower, joined.upper()), C_253, "upper and lower case are mixed")
    found, separator, rest = lower.partition("1")
    if not separator or found != prefix:
        raise InvoiceError(C_253, "another kind of text", offered=lower[:12], allowed=f"{prefix}1...")
    symbols = rest.encode().translate(_TO_SYMBOLS)
    place = symbols.find(_INVALID)
    if place >= 0:
        raise InvoiceError(C_253, "a character that bech32 does not use", offered=rest[place])
    if len(symbols) > _MAX_SYMBOLS:
        raise InvoiceError(C_253, "document is too long", offered=len(symbols), allowed=_MAX_SYMBOLS)
    padding = 5 * len(symbols) % 8
    refuse_unless(padding <= 4, C_253, "too many bits behind the last byte", offered=padding, allowed=4)
    return symbols_to_bytes(symbols)
