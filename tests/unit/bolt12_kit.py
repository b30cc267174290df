"""Offers, requests and invoices that are valid, for tests that break them one by one."""

from leyden.crypto import NO_AUX, pubkey_create, schnorr_sign, sha256
from leyden.invoice.bolt12 import (
    BlindedPayinfo,
    Bolt12Invoice,
    InvoiceRequest,
    Offer,
    PayablePath,
    attach_invoice_signature,
    attach_request_signature,
    invoice_digest,
    make_bolt12_invoice,
    make_request,
    request_digest,
)
from leyden.wire import BlindedPath, BlindedPathHop
from leyden.wire.codec import UnknownRecord
from msgspec.structs import replace

ALICE, BOB, CAROL = b"\x41" * 32, b"\x42" * 32, b"\x43" * 32
ALICE_ID, BOB_ID, CAROL_ID = map(pubkey_create, (ALICE, BOB, CAROL))
METADATA = b"unpredictable 16"
HASH = sha256(b"preimage")
NOW = 1_700_000_000
ODD_RECORD = UnknownRecord(33, b"odd")
FAR_RECORD = UnknownRecord(1_000_000_001, b"experiment")

HOP = BlindedPathHop(blinded_node_id=CAROL_ID, encrypted_recipient_data=b"secret")
PATH = BlindedPath(first_node_id=BOB_ID, first_path_key=ALICE_ID, path=(HOP, HOP))
NO_HOPS = BlindedPath(first_node_id=BOB_ID, first_path_key=ALICE_ID, path=())
PRICE = BlindedPayinfo(
    fee_base_msat=1,
    fee_proportional_millionths=100,
    cltv_expiry_delta=40,
    htlc_minimum_msat=1,
    htlc_maximum_msat=10**9,
    features=b"",
)
PAYABLE = PayablePath(path=PATH, payinfo=PRICE)
OFFER = Offer(
    offer_amount=1000,
    offer_description="tea",
    offer_quantity_max=5,
    offer_issuer_id=ALICE_ID,
    unknown=(ODD_RECORD, FAR_RECORD),
)
TIP_JAR = Offer(offer_issuer_id=ALICE_ID)


def signed_request(request: InvoiceRequest, secret: bytes = BOB) -> InvoiceRequest:
    return attach_request_signature(request, schnorr_sign(secret, request_digest(request), NO_AUX))


def resigned(request: InvoiceRequest, secret: bytes = BOB, **changes: object) -> InvoiceRequest:
    """A signed request with other fields, that no check has seen."""
    changed = replace(request, **changes)
    return replace(changed, signature=schnorr_sign(secret, request_digest(changed), NO_AUX))


def request_for(offer: Offer = OFFER, *, quantity: int | None = 2, amount_msat: int | None = None) -> InvoiceRequest:
    return signed_request(
        make_request(offer, metadata=METADATA, payer_id=BOB_ID, quantity=quantity, amount_msat=amount_msat)
    )


def signed_invoice(invoice: Bolt12Invoice, secret: bytes = ALICE) -> Bolt12Invoice:
    return attach_invoice_signature(invoice, schnorr_sign(secret, invoice_digest(invoice), NO_AUX))


def resigned_invoice(invoice: Bolt12Invoice, secret: bytes = ALICE, **changes: object) -> Bolt12Invoice:
    """A signed invoice with other fields, that no check has seen."""
    changed = replace(invoice, **changes)
    return replace(changed, signature=schnorr_sign(secret, invoice_digest(changed), NO_AUX))


def invoice_for(request: InvoiceRequest) -> Bolt12Invoice:
    return signed_invoice(make_bolt12_invoice(request, payment_hash=HASH, paths=[PAYABLE], created_at=NOW))
