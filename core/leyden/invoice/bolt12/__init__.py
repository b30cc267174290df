"""BOLT 12: offers, invoice requests and invoices. Values are the streams of ``leyden.wire.bolt12``; here is what makes
them valid, their texts, and what their signatures cover. Sans-IO: clock, randomness and keys are arguments.

Reading goes in steps: ``parse_*`` (text) or ``decode_*`` (bytes) check what a document says by itself, and
``require_*`` what depends on the time, our chains, or the document that it answers.
"""

from leyden.invoice.bolt12.invoice import (
    DEFAULT_EXPIRY,
    PayablePath,
    attach_invoice_signature,
    check_bolt12_invoice,
    decode_bolt12_invoice,
    encode_bolt12_invoice,
    invoice_digest,
    invoice_expires_at,
    make_bolt12_invoice,
    parse_bolt12_invoice,
    require_answers,
    require_usable_invoice,
    usable_fallbacks,
    usable_paths,
)
from leyden.invoice.bolt12.offer import (
    check_offer,
    decode_offer,
    encode_offer,
    parse_offer,
    require_open,
    require_usable_offer,
)
from leyden.invoice.bolt12.records import BITCOIN, is_for_offer, price_msat
from leyden.invoice.bolt12.request import (
    attach_request_signature,
    check_request,
    decode_request,
    encode_request,
    make_payout,
    make_request,
    parse_request,
    request_digest,
    require_matches_offer,
    require_order,
    require_usable_request,
)
from leyden.invoice.bolt12.signature import merkle_root
from leyden.invoice.errors import InvoiceError
from leyden.wire.bolt12 import (
    Bip353Name,
    BlindedPayinfo,
    Bolt12Invoice,
    FallbackAddress,
    InvoiceRequest,
    Offer,
)

__all__ = [
    "BITCOIN",
    "DEFAULT_EXPIRY",
    "Bip353Name",
    "BlindedPayinfo",
    "Bolt12Invoice",
    "FallbackAddress",
    "InvoiceError",
    "InvoiceRequest",
    "Offer",
    "PayablePath",
    "attach_invoice_signature",
    "attach_request_signature",
    "check_bolt12_invoice",
    "check_offer",
    "check_request",
    "decode_bolt12_invoice",
    "decode_offer",
    "decode_request",
    "encode_bolt12_invoice",
    "encode_offer",
    "encode_request",
    "invoice_digest",
    "invoice_expires_at",
    "is_for_offer",
    "make_bolt12_invoice",
    "make_payout",
    "make_request",
    "merkle_root",
    "parse_bolt12_invoice",
    "parse_offer",
    "parse_request",
    "price_msat",
    "request_digest",
    "require_answers",
    "require_matches_offer",
    "require_open",
    "require_order",
    "require_usable_invoice",
    "require_usable_offer",
    "require_usable_request",
    "usable_fallbacks",
    "usable_paths",
]
