"""Invoice requests: asking an offer for an invoice, or publishing that one wants to pay (BOLT 12, Invoice Requests)."""

from collections.abc import Collection

import msgspec

from leyden.invoice.bolt12.records import (
    BITCOIN,
    NO_FEATURES,
    OFFER_RANGES,
    REQUEST_RANGES,
    decode_document,
    first_difference,
    is_for_offer,
    mirrored,
    price_msat,
    require_chain,
    require_hops,
    require_known_features,
    require_ranges,
)
from leyden.invoice.bolt12.signature import REQUEST_NAME, SIGNATURE_TYPES, is_signed_by, signing_digest
from leyden.invoice.bolt12.text import REQUEST_PREFIX, decode_text, encode_text
from leyden.invoice.errors import refuse_unless
from leyden.types import MAX_MONEY_MSAT, Rule
from leyden.types.rules import C_256, C_259, C_260, C_261, C_262, C_263, C_266
from leyden.wire.bolt12 import Bip353Name, InvoiceRequest, Offer
from leyden.wire.codec import encode_struct
from leyden.wire.features import Features
from leyden.wire.onion_message import BlindedPath

_NAME_BYTES = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.")


# --- writing ----------------------------------------------------------------------------------------------------------


def make_request(
    offer: Offer,
    *,
    metadata: bytes,
    payer_id: bytes,
    chain: bytes = BITCOIN,
    amount_msat: int | None = None,
    quantity: int | None = None,
    item_msat: int | None = None,
    payer_note: str | None = None,
    bip_353_name: Bip353Name | None = None,
) -> InvoiceRequest:
    """The unsigned answer to ``offer``: everything it says, and what we want (C-259, C-260).

    ``metadata`` is unpredictable, ``payer_id`` a key for this one purpose whose secret the caller keeps. ``item_msat``
    is the price of one where the offer names a currency. ``InvoiceError`` when the offer does not allow it.
    """
    named = (BITCOIN,) if offer.offer_chains is None else offer.offer_chains
    refuse_unless(chain in named, C_256, "offer is for other chains", offered=chain)
    refuse_unless(metadata, C_259, "request without metadata")
    request = InvoiceRequest(
        **_offer_part(offer),  # type: ignore[arg-type]
        invreq_metadata=metadata,
        invreq_chain=None if chain == BITCOIN else chain,
        invreq_amount=amount_msat,
        invreq_quantity=quantity,
        invreq_payer_id=payer_id,
        invreq_payer_note=payer_note,
        invreq_bip_353_name=bip_353_name,
    )
    _require_order(request, item_msat, C_260)
    return request


def _offer_part(offer: Offer) -> dict[str, object]:
    part = mirrored(offer)
    if not C_259.enabled:
        part["unknown"] = ()
    return part


def make_payout(
    *,
    description: str,
    amount_msat: int,
    metadata: bytes,
    payer_id: bytes,
    chain: bytes = BITCOIN,
    absolute_expiry: int | None = None,
    issuer: str | None = None,
    paths: tuple[BlindedPath, ...] | None = None,
) -> InvoiceRequest:
    """A request that answers no offer (a refund, a cash machine): whoever reads it may send us an invoice.

    It is not signed. ``payer_id`` is where invoices go unless ``paths`` are given.
    """
    request = InvoiceRequest(
        offer_description=description,
        offer_absolute_expiry=absolute_expiry,
        offer_issuer=issuer,
        invreq_metadata=metadata,
        invreq_chain=None if chain == BITCOIN else chain,
        invreq_amount=amount_msat,
        invreq_payer_id=payer_id,
        invreq_paths=paths,
    )
    check_request(request)
    return request


def request_digest(request: InvoiceRequest) -> bytes:
    """What the key behind ``invreq_payer_id`` signs (32 bytes, BIP 340)."""
    return signing_digest(request, REQUEST_NAME)


def attach_request_signature(request: InvoiceRequest, signature: bytes) -> InvoiceRequest:
    """The signed request; ``InvoiceError`` when a reader would refuse it."""
    signed = msgspec.structs.replace(request, signature=signature)
    check_request(signed)
    return signed


def encode_request(request: InvoiceRequest, *, upper: bool = False) -> str:
    """The text of a request; ``InvoiceError`` when no reader would take it."""
    check_request(request)
    return encode_text(REQUEST_PREFIX, encode_struct(request), upper=upper)


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_request(text: str, *, known: Features = NO_FEATURES) -> InvoiceRequest:
    """The request in ``text``, checked as far as its own bytes say. ``InvoiceError``: C-253, C-261, C-266."""
    return decode_request(decode_text(text, REQUEST_PREFIX), known=known)


def decode_request(data: bytes, *, known: Features = NO_FEATURES) -> InvoiceRequest:
    """``parse_request`` for the TLV stream, as it comes in an onion message."""
    request = decode_document(InvoiceRequest, data, C_261)
    check_request(request, known=known)
    return request


def check_request(request: InvoiceRequest, *, known: Features = NO_FEATURES) -> None:
    """``InvoiceError`` when nobody may answer the request, whoever they are (C-261, C-266)."""
    refuse_unless(request.invreq_payer_id is not None, C_261, "request without payer id")
    refuse_unless(request.invreq_metadata is not None, C_261, "request without metadata")
    unknown = tuple(record for record in request.unknown if record.type not in SIGNATURE_TYPES)
    require_ranges(unknown, REQUEST_RANGES, C_261)
    require_known_features(request.invreq_features, known, C_261, "request")
    require_hops(request.invreq_paths, C_261, "request")
    if (name := request.invreq_bip_353_name) is not None:
        odd = set(name.name + name.domain) - _NAME_BYTES
        refuse_unless(not odd, C_261, "name with characters that no name has", offered=bytes(sorted(odd)))
    if not is_for_offer(request):
        _check_payout(request)
    if request.signature is not None or is_for_offer(request):
        signed = request.invreq_payer_id is not None and is_signed_by(request, REQUEST_NAME, request.invreq_payer_id)
        refuse_unless(signed, C_261, "request without a valid signature")


def _check_payout(request: InvoiceRequest) -> None:
    """Without an offer there is no price to refer to, and nothing of an offer but its texts and expiry."""
    refuse_unless(request.invreq_amount, C_266, "request without offer and without amount")
    for name in (
        "offer_chains",
        "offer_metadata",
        "offer_currency",
        "offer_amount",
        "offer_features",
        "offer_quantity_max",
    ):
        refuse_unless(getattr(request, name) is None, C_266, f"request without offer has {name}")


def require_usable_request(request: InvoiceRequest, *, now: int, chains: Collection[bytes]) -> None:
    """``InvoiceError`` when the request is for a chain we do not use (C-261) or has expired (C-262, C-266)."""
    require_chain(request.invreq_chain, chains, C_261)
    expiry = request.offer_absolute_expiry
    rule = C_262 if is_for_offer(request) else C_266
    refuse_unless(expiry is None or now <= expiry, rule, "request has expired", offered=now, allowed=expiry)


def require_matches_offer(request: InvoiceRequest, offer: Offer) -> None:
    """``InvoiceError`` (C-262) unless the request repeats ``offer``, one of ours, to the byte."""
    record = first_difference(request, offer, OFFER_RANGES)
    refuse_unless(record is None, C_262, "request is for another offer than ours", record=record)


def require_order(request: InvoiceRequest, *, item_msat: int | None = None) -> int:
    """The amount of the invoice in millisatoshi (C-263): what was asked for, else price times quantity.

    ``item_msat`` is the price of one, converted, where the offer names a currency. ``InvoiceError`` when the quantity
    or the amount is missing, too low, too high or not allowed.
    """
    _require_order(request, item_msat, C_263)
    return invoice_amount(request, item_msat)


def invoice_amount(request: InvoiceRequest, item_msat: int | None) -> int:
    """What an invoice for ``request`` asks for, in millisatoshi; ``InvoiceError`` when neither side has said."""
    amount = request.invreq_amount
    if amount is None:
        amount = price_msat(request, request.invreq_quantity, item_msat)
    refuse_unless(amount is not None, C_263, "request without amount for an offer without price")
    return amount or 0


def _require_order(request: InvoiceRequest, item_msat: int | None, broken: Rule) -> None:
    limit, quantity = request.offer_quantity_max, request.invreq_quantity
    if limit is None:
        refuse_unless(quantity is None, broken, "quantity for an offer that has none", offered=quantity)
    else:
        refuse_unless(quantity, broken, "quantity is missing or zero", offered=quantity)
        within = not limit or not quantity or quantity <= limit
        refuse_unless(within, broken, "quantity above the limit", offered=quantity, allowed=limit)
    amount = request.invreq_amount
    price = None if request.offer_amount is None else price_msat(request, quantity, item_msat)
    if price is None:
        refuse_unless(amount, broken, "request without amount for an offer without price")
    else:
        enough = amount is None or amount >= price
        refuse_unless(enough, broken, "amount below the price", offered=amount, allowed=price)
        refuse_unless(price <= MAX_MONEY_MSAT, broken, "price above 21 million bitcoin", offered=price)
