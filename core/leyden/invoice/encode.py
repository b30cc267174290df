"""From values to invoice text, with the signature made elsewhere (BOLT 11, writer).

``hrp, data = encode_invoice(unsigned)``; the holder of the node key signs ``signing_digest(hrp, data)``, after looking
at what it signs if it cares to; ``attach_signature`` checks the answer and returns the finished invoice.
"""

from leyden.crypto import CryptoError, ecdsa_recover, is_low_s, sha256
from leyden.invoice.amount import format_hrp
from leyden.invoice.errors import InvoiceError, refuse_unless
from leyden.invoice.fields import TAG_OF
from leyden.invoice.model import (
    DEFAULT_EXPIRY,
    DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA,
    Fallback,
    Invoice,
    RouteHint,
    UnsignedInvoice,
)
from leyden.invoice.symbols import bytes_to_symbols, int_to_symbols, symbols_to_padded_bytes
from leyden.invoice.text import encode_text
from leyden.types.rules import C_252

DEFAULT_ORDER = "psdhnmxcfr9"
MAX_FIELD = 1023
"""Symbols that the length of a field can count."""
_TIMESTAMP_SYMBOLS = 7
_MAX_TIMESTAMP = 1 << 35

_Field = tuple[int, int]
"""Bits of a field as a number, and how many symbols they fill."""


def encode_invoice(invoice: UnsignedInvoice, order: str = DEFAULT_ORDER) -> tuple[str, bytes]:
    """Human-readable part and data part (5-bit symbols, no signature): what the node key signs.

    ``order``: field letters in the order to write them. A letter left out must stand for an absent or default value.
    Raises ``InvoiceError`` (C-252, C-243) for terms that no reader would accept.
    """
    _check_terms(invoice)
    fields = _fields(invoice)
    data, count = invoice.timestamp, _TIMESTAMP_SYMBOLS
    for letter in order:
        for value, length in fields.pop(letter, ()):
            refuse_unless(
                length <= MAX_FIELD, C_252, f"invoice field {letter} too long", offered=length, allowed=MAX_FIELD
            )
            data = ((data << 5 | TAG_OF[letter]) << 10 | length) << 5 * length | value
            count += 3 + length
    for letter in fields:
        optional = letter == "c" and invoice.min_final_cltv_expiry_delta == DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA
        refuse_unless(optional, C_252, f"invoice field {letter} has a value but no place in the order", offered=order)
    return format_hrp(invoice.network, invoice.amount_msat), int_to_symbols(data, count)


def signing_digest(hrp: str, data: bytes) -> bytes:
    """The 32 bytes that the payee signs: SHA-256 over the human-readable part and the padded data part."""
    return sha256(hrp.encode() + symbols_to_padded_bytes(data))


def attach_signature(invoice: UnsignedInvoice, hrp: str, data: bytes, signature: bytes, recovery_id: int) -> Invoice:
    """The finished invoice. ``signature`` is 64 bytes r || s over ``signing_digest(hrp, data)``.

    Raises ``InvoiceError`` (C-252) unless it is low-S and recovers ``invoice.payee``: a broken signer must not publish
    an invoice that nobody can pay, or that names somebody else.
    """
    refuse_unless(is_low_s(signature), C_252, "invoice signature is not low-S", offered=signature)
    if C_252.enabled:
        try:
            payee = ecdsa_recover(signing_digest(hrp, data), signature, recovery_id)
        except CryptoError as error:
            raise InvoiceError(C_252, "invoice signature recovers no key") from error
        refuse_unless(
            payee == invoice.payee, C_252, "invoice signed by another key", offered=payee, allowed=invoice.payee
        )
    text = encode_text(hrp, data + bytes_to_symbols(signature + bytes((recovery_id,))))
    terms = {name: getattr(invoice, name) for name in UnsignedInvoice.__struct_fields__}
    return Invoice(**terms, signature=signature, recovery_id=recovery_id, text=text)


def _check_terms(invoice: UnsignedInvoice) -> None:
    given = (invoice.description is not None) + (invoice.description_hash is not None)
    refuse_unless(given == 1, C_252, "invoice needs one of description and description hash", offered=given, allowed=1)
    for name, value, size in (
        ("payment hash", invoice.payment_hash, 32),
        ("payment secret", invoice.payment_secret, 32),
        ("description hash", invoice.description_hash or bytes(32), 32),
        ("payee", invoice.payee, 33),
    ):
        refuse_unless(len(value) == size, C_252, f"invoice {name} has the wrong size", offered=len(value), allowed=size)
    refuse_unless(
        0 <= invoice.timestamp < _MAX_TIMESTAMP, C_252, "invoice timestamp out of range", offered=invoice.timestamp
    )
    refuse_unless(invoice.expiry >= 0, C_252, "invoice expiry out of range", offered=invoice.expiry)
    for fallback in invoice.fallbacks:
        refuse_unless(fallback.is_valid(), C_252, "invoice fallback is no address", offered=fallback.version)
    refuse_unless(all(invoice.route_hints), C_252, "invoice route hint without a hop")


def _fields(invoice: UnsignedInvoice) -> dict[str, tuple[_Field, ...]]:
    """The fields to write by letter; absent and default values have no entry, but ``c`` always has one."""
    fields: dict[str, tuple[_Field, ...]] = {
        "p": (_bytes(invoice.payment_hash),),
        "s": (_bytes(invoice.payment_secret),),
        "c": (_number(invoice.min_final_cltv_expiry_delta),),
    }
    if invoice.description is not None:
        fields["d"] = (_bytes(invoice.description.encode()),)
    if invoice.description_hash is not None:
        fields["h"] = (_bytes(invoice.description_hash),)
    if invoice.names_payee:
        fields["n"] = (_bytes(invoice.payee),)
    if invoice.expiry != DEFAULT_EXPIRY:
        fields["x"] = (_number(invoice.expiry),)
    if invoice.metadata is not None:
        fields["m"] = (_bytes(invoice.metadata),)
    if invoice.features.bits:
        fields["9"] = (_number(invoice.features.bits),)
    if invoice.fallbacks:
        fields["f"] = tuple([_fallback(fallback) for fallback in invoice.fallbacks])
    if invoice.route_hints:
        fields["r"] = tuple([_bytes(_route(hint)) for hint in invoice.route_hints])
    return fields


def _bytes(data: bytes) -> _Field:
    """Whole bytes, filled up with zero bits to the next symbol."""
    size = 8 * len(data)
    return int.from_bytes(data, "big") << -size % 5, (size + 4) // 5


def _number(value: int) -> _Field:
    """Big-endian, in as few symbols as it needs (C-252)."""
    needed = max(1, -(-value.bit_length() // 5))
    return value, needed if C_252.enabled else needed + 1


def _fallback(fallback: Fallback) -> _Field:
    program, count = _bytes(fallback.program)
    return fallback.version << 5 * count | program, count + 1


def _route(hint: RouteHint) -> bytes:
    """The 51 bytes of each hop, in forward order."""
    return b"".join(
        hop.node_id
        + hop.short_channel_id.to_bytes(8, "big")
        + hop.fee_base_msat.to_bytes(4, "big")
        + hop.fee_proportional_millionths.to_bytes(4, "big")
        + hop.cltv_expiry_delta.to_bytes(2, "big")
        for hop in hint
    )
