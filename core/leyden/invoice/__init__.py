"""BOLT 11 invoices: values, text and the signature that binds them. Sans-IO: clock and node key are arguments."""

from leyden.invoice.decode import parse_invoice, require_description, require_unexpired
from leyden.invoice.encode import DEFAULT_ORDER, attach_signature, encode_invoice, signing_digest
from leyden.invoice.errors import InvoiceError
from leyden.invoice.model import (
    DEFAULT_EXPIRY,
    DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA,
    Fallback,
    HopHint,
    Invoice,
    RouteHint,
    UnsignedInvoice,
)

__all__ = [
    "DEFAULT_EXPIRY",
    "DEFAULT_MIN_FINAL_CLTV_EXPIRY_DELTA",
    "DEFAULT_ORDER",
    "Fallback",
    "HopHint",
    "Invoice",
    "InvoiceError",
    "RouteHint",
    "UnsignedInvoice",
    "attach_signature",
    "encode_invoice",
    "parse_invoice",
    "require_description",
    "require_unexpired",
    "signing_digest",
]
