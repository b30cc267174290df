"""Tagged fields as they are read (BOLT 11, tagged fields)."""

from typing import Final

from leyden.bitcoin.bech32 import CHARSET
from leyden.crypto import is_valid_point
from leyden.invoice.errors import InvoiceError, refuse_unless
from leyden.invoice.model import Fallback, HopHint, RouteHint
from leyden.invoice.symbols import symbols_to_bytes, symbols_to_int
from leyden.types import CltvDelta, NodeId, ShortChannelId
from leyden.types.rules import C_241, C_245, C_246, C_247, C_248, C_249
from leyden.wire.features import Features

TAG_OF: Final = {letter: CHARSET.index(letter) for letter in "pshdnxcfrm9"}
"""Field letters and the 5-bit number each stands for."""

HASH_SYMBOLS = 52
KEY_SYMBOLS = 53
HOP_BYTES = 51
_MAX_NUMBER_SYMBOLS = 12
"""60 bits of expiry or block delta; a longer number is nonsense."""


class Fields:
    """What was found, in order; filled field by field and then judged as a whole by ``decode``."""

    __slots__ = (
        "description",
        "description_hash",
        "expiry",
        "fallbacks",
        "features",
        "metadata",
        "min_final_delta",
        "payee",
        "payment_hashes",
        "payment_secrets",
        "route_hints",
    )

    def __init__(self) -> None:
        self.payment_hashes: list[bytes] = []
        self.payment_secrets: list[bytes] = []
        self.description: str | None = None
        self.description_hash: bytes | None = None
        self.payee: bytes | None = None
        self.expiry: int | None = None
        self.min_final_delta: int | None = None
        self.features = Features(0)
        self.fallbacks: list[Fallback] = []
        self.route_hints: list[RouteHint] = []
        self.metadata: bytes | None = None

    # one reader per letter; ``data`` is the field's symbols

    def read_p(self, data: bytes) -> None:
        self.payment_hashes.append(symbols_to_bytes(data))

    def read_s(self, data: bytes) -> None:
        self.payment_secrets.append(symbols_to_bytes(data))

    def read_h(self, data: bytes) -> None:
        refuse_unless(self.description_hash is None, C_247, "invoice with several description hashes")
        self.description_hash = symbols_to_bytes(data)

    def read_n(self, data: bytes) -> None:
        refuse_unless(self.payee is None, C_245, "invoice with several n fields", offered=2, allowed=1)
        self.payee = symbols_to_bytes(data)

    def read_d(self, data: bytes) -> None:
        refuse_unless(self.description is None, C_247, "invoice with several descriptions")
        raw = symbols_to_bytes(data)
        try:
            self.description = raw.decode()
        except UnicodeDecodeError:
            refuse_unless(False, C_247, "invoice description is not UTF-8", offered=raw[:40])
            self.description = raw.decode(errors="replace")

    def read_x(self, data: bytes) -> None:
        if self.expiry is None:
            self.expiry = _number(data, "x")

    def read_c(self, data: bytes) -> None:
        if self.min_final_delta is None:
            self.min_final_delta = _number(data, "c")

    def read_9(self, data: bytes) -> None:
        refuse_unless(not data or data[0] != 0, C_248, "invoice features with a leading zero element")
        bitmap = symbols_to_int(data)
        self.features = Features(self.features.bits | bitmap)

    def read_f(self, data: bytes) -> None:
        """An address with an unknown version or an impossible length is skipped."""
        if not data:
            return
        fallback = Fallback(version=data[0], program=symbols_to_bytes(data[1:]))
        if fallback.is_valid():
            self.fallbacks.append(fallback)
        elif not C_249.enabled:
            raise InvoiceError(C_249, "unknown fallback", offered=fallback.version)

    def read_r(self, data: bytes) -> None:
        raw = symbols_to_bytes(data)
        if not raw or len(raw) % HOP_BYTES:
            raise InvoiceError(C_249, "invoice route hint is cut short", offered=len(raw), allowed=f"n * {HOP_BYTES}")
        self.route_hints.append(tuple(_hop(raw[i : i + HOP_BYTES]) for i in range(0, len(raw), HOP_BYTES)))

    def read_m(self, data: bytes) -> None:
        if self.metadata is None:
            self.metadata = symbols_to_bytes(data)


_READERS = {tag: getattr(Fields, f"read_{letter}") for letter, tag in TAG_OF.items()}
_EXACT = {TAG_OF["p"]: HASH_SYMBOLS, TAG_OF["s"]: HASH_SYMBOLS, TAG_OF["h"]: HASH_SYMBOLS, TAG_OF["n"]: KEY_SYMBOLS}


def parse_fields(data: bytes, start: int) -> Fields:
    """Read all tagged fields of ``data`` (symbols, without the signature) from ``start``. Raises ``InvoiceError``."""
    fields = Fields()
    end = len(data)
    while start < end:
        if start + 3 > end:
            raise InvoiceError(C_241, "invoice ends inside a field", offered=end - start, allowed=3)
        tag = data[start]
        length = data[start + 1] << 5 | data[start + 2]
        start += 3
        if start + length > end:
            raise InvoiceError(C_241, "invoice field is longer than the invoice", offered=length, allowed=end - start)
        reader = _READERS.get(tag)
        if reader is not None:
            if _EXACT.get(tag, length) == length or not C_246.enabled:
                reader(fields, data[start : start + length])
        elif not C_249.enabled:
            raise InvoiceError(C_249, "unknown invoice field", offered=CHARSET[tag])
        start += length
    return fields


def _number(data: bytes, name: str) -> int:
    """A big-endian number without a leading zero element; zero itself is one element or none."""
    refuse_unless(len(data) < 2 or data[0] != 0, C_248, f"invoice field {name} with a leading zero element")
    if len(data) > _MAX_NUMBER_SYMBOLS:
        raise InvoiceError(C_248, f"invoice field {name} is too long", offered=len(data), allowed=_MAX_NUMBER_SYMBOLS)
    return symbols_to_int(data)


def _hop(raw: bytes) -> HopHint:
    node_id = raw[:33]
    refuse_unless(is_valid_point(node_id), C_249, "invoice route hint names an invalid key", offered=node_id)
    return HopHint(
        node_id=NodeId(node_id),
        short_channel_id=ShortChannelId(int.from_bytes(raw[33:41], "big")),
        fee_base_msat=int.from_bytes(raw[41:45], "big"),
        fee_proportional_millionths=int.from_bytes(raw[45:49], "big"),
        cltv_expiry_delta=CltvDelta(int.from_bytes(raw[49:51], "big")),
    )
