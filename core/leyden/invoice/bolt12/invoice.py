"""Invoices: the answer to a request, payable through blinded paths only (BOLT 12, Invoices)."""

from collections.abc import Collection, Sequence

import msgspec

from leyden.invoice.bolt12.records import (
    BITCOIN,
    NO_FEATURES,
    REQUEST_RANGES,
    decode_document,
    first_difference,
    is_for_offer,
    mirrored,
    require_chain,
    require_hops,
    require_known_features,
    unknown_even_bit,
)
from leyden.invoice.bolt12.request import invoice_amount
from leyden.invoice.bolt12.signature import INVOICE_NAME, is_signed_by, signing_digest
from leyden.invoice.bolt12.text import INVOICE_PREFIX, decode_text, encode_text
from leyden.invoice.errors import refuse_unless
from leyden.types.rules import C_267, C_268, C_269, C_270, C_271, C_273, C_274
from leyden.wire.bolt12 import BlindedPayinfo, Bolt12Invoice, FallbackAddress, InvoiceRequest
from leyden.wire.codec import encode_struct
from leyden.wire.features import Feature, Features
from leyden.wire.onion_message import BlindedPath

DEFAULT_EXPIRY = 7200
"""Seconds, when the invoice does not say."""
KNOWN_FEATURES = Features.of(Feature.BASIC_MPP)
"""All that BOLT 9 defines for invoices."""


class PayablePath(msgspec.Struct, frozen=True, kw_only=True):
    """A blinded path with its price; ``allowed_features`` as written into the path for the hops (BOLT 4)."""

    path: BlindedPath
    payinfo: BlindedPayinfo
    allowed_features: bytes = b""


# --- writing ----------------------------------------------------------------------------------------------------------


def make_bolt12_invoice(
    request: InvoiceRequest,
    *,
    payment_hash: bytes,
    paths: Sequence[PayablePath],
    created_at: int,
    node_id: bytes | None = None,
    item_msat: int | None = None,
    relative_expiry: int = DEFAULT_EXPIRY,
    features: Features = NO_FEATURES,
    fallbacks: tuple[FallbackAddress, ...] = (),
) -> Bolt12Invoice:
    """The unsigned invoice for a checked ``request``: all it says, and how to pay us (C-267, C-268).

    ``paths`` best first; ``created_at`` in Unix seconds, ``relative_expiry`` in seconds. ``node_id`` is the key that
    signs: the last blinded id of the offer's path by which the request came, or any key when there is no offer; an
    issuer id in the offer goes before it. ``InvoiceError`` when there is no path, no amount or no key.
    """
    key = node_id
    if C_267.enabled and request.offer_issuer_id is not None:
        key = request.offer_issuer_id
    refuse_unless(key is not None, C_267, "no key to sign the invoice with")
    refuse_unless(paths, C_268, "invoice without a path")
    for path in paths:
        refuse_unless(
            int.from_bytes(path.payinfo.features, "big") == int.from_bytes(path.allowed_features, "big"),
            C_268,
            "features of a path and of its price differ",
            offered=path.payinfo.features,
            allowed=path.allowed_features,
        )
    require_hops([path.path for path in paths], C_268, "invoice")
    return Bolt12Invoice(
        **mirrored(request),  # type: ignore[arg-type]
        invoice_paths=tuple(path.path for path in paths),
        invoice_blindedpay=tuple(path.payinfo for path in paths),
        invoice_created_at=created_at,
        invoice_relative_expiry=None if relative_expiry == DEFAULT_EXPIRY else relative_expiry,
        invoice_payment_hash=payment_hash,
        invoice_amount=invoice_amount(request, item_msat),
        invoice_fallbacks=fallbacks or None,
        invoice_features=features.to_bytes() or None,
        invoice_node_id=key,
    )


def invoice_digest(invoice: Bolt12Invoice) -> bytes:
    """What the key behind ``invoice_node_id`` signs (32 bytes, BIP 340)."""
    return signing_digest(invoice, INVOICE_NAME)


def attach_invoice_signature(invoice: Bolt12Invoice, signature: bytes) -> Bolt12Invoice:
    """The signed invoice; ``InvoiceError`` when a reader would refuse it."""
    signed = msgspec.structs.replace(invoice, signature=signature)
    check_bolt12_invoice(signed)
    return signed


def encode_bolt12_invoice(invoice: Bolt12Invoice) -> str:
    """The text of a signed invoice, for storing and showing; on the wire it travels as bytes."""
    check_bolt12_invoice(invoice)
    return encode_text(INVOICE_PREFIX, encode_struct(invoice))


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_bolt12_invoice(text: str, *, known: Features = KNOWN_FEATURES) -> Bolt12Invoice:
    """The invoice in ``text``, checked as far as its own bytes say. ``InvoiceError``: C-253, C-269, C-270."""
    return decode_bolt12_invoice(decode_text(text, INVOICE_PREFIX), known=known)


def decode_bolt12_invoice(data: bytes, *, known: Features = KNOWN_FEATURES) -> Bolt12Invoice:
    """``parse_bolt12_invoice`` for the TLV stream, as it comes in an onion message."""
    invoice = decode_document(Bolt12Invoice, data, C_269)
    check_bolt12_invoice(invoice, known=known)
    return invoice


def check_bolt12_invoice(invoice: Bolt12Invoice, *, known: Features = KNOWN_FEATURES) -> None:
    """``InvoiceError`` when nobody may pay the invoice (C-269) or its signature is wrong (C-270)."""
    for name in ("invoice_amount", "invoice_created_at", "invoice_payment_hash", "invoice_node_id"):
        refuse_unless(getattr(invoice, name) is not None, C_269, f"invoice without {name}")
    paths, prices = invoice.invoice_paths, invoice.invoice_blindedpay
    refuse_unless(paths, C_269, "invoice without a path")
    require_hops(paths, C_269, "invoice")
    refuse_unless(
        prices is not None and len(prices) == len(paths or ()),
        C_269,
        "prices do not match the paths",
        offered=len(prices or ()),
        allowed=len(paths or ()),
    )
    require_known_features(invoice.invoice_features, known, C_269, "invoice")
    signed = invoice.invoice_node_id is not None and is_signed_by(invoice, INVOICE_NAME, invoice.invoice_node_id)
    refuse_unless(signed, C_270, "invoice without a valid signature")


def invoice_expires_at(invoice: Bolt12Invoice) -> int:
    """Last second (since 1970) in which a payment may start."""
    lifetime = invoice.invoice_relative_expiry
    return (invoice.invoice_created_at or 0) + (DEFAULT_EXPIRY if lifetime is None else lifetime)


def require_usable_invoice(invoice: Bolt12Invoice, *, now: int, chains: Collection[bytes]) -> None:
    """``InvoiceError`` (C-269) when the invoice has expired at ``now`` (Unix seconds) or is for another chain."""
    require_chain(invoice.invreq_chain, chains, C_269)
    last = invoice_expires_at(invoice)
    refuse_unless(now <= last, C_269, "invoice has expired", offered=now, allowed=last)


def require_answers(invoice: Bolt12Invoice, request: InvoiceRequest, *, asked: bytes | None = None) -> None:
    """``InvoiceError`` unless the invoice answers ``request``, one of ours, to the byte (C-270, C-271).

    ``asked`` is the last blinded id of the offer's path that we used, where the offer has no issuer id.
    """
    record = first_difference(invoice, request, REQUEST_RANGES)
    refuse_unless(record is None, C_270, "invoice is for another request than ours", record=record)
    expected = request.offer_issuer_id if request.offer_issuer_id is not None else asked
    if is_for_offer(request) or asked is not None:
        signer = invoice.invoice_node_id
        refuse_unless(signer == expected, C_270, "invoice of another node", offered=signer, allowed=expected)
    wanted = request.invreq_amount
    refuse_unless(
        wanted is None or invoice.invoice_amount == wanted,
        C_271,
        "invoice over another amount",
        offered=invoice.invoice_amount,
        allowed=wanted,
    )


def usable_paths(invoice: Bolt12Invoice, *, known: Features = NO_FEATURES) -> tuple[PayablePath, ...]:
    """The paths that a payment may take, best first (C-273); ``InvoiceError`` when there is none.

    ``known`` are the features of payments inside blinded paths; none is defined yet.
    """
    pairs = zip(invoice.invoice_paths or (), invoice.invoice_blindedpay or (), strict=False)
    found = tuple(
        PayablePath(path=path, payinfo=payinfo)
        for path, payinfo in pairs
        if not C_273.enabled or unknown_even_bit(payinfo.features, known) is None
    )
    refuse_unless(found, C_273, "invoice has only paths that we cannot use")
    return found


def usable_fallbacks(invoice: Bolt12Invoice) -> tuple[FallbackAddress, ...]:
    """The on-chain addresses that make sense, best first; only bitcoin has any (C-274)."""
    found = invoice.invoice_fallbacks or ()
    if not C_274.enabled:
        return found
    if invoice.invreq_chain not in (None, BITCOIN):
        return ()
    return tuple(fallback for fallback in found if _is_witness_program(fallback))


def _is_witness_program(fallback: FallbackAddress) -> bool:
    size = len(fallback.address)
    if fallback.version == 0:
        return size in (20, 32)
    return fallback.version <= 16 and 2 <= size <= 40
