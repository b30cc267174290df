"""The four documents of BOLT 12 as TLV streams. Each mirrors the records of the one before it.

Unknown odd records are kept: they are signed, and mirrored into the answer. Whether a document makes sense, and its
signature, is not checked here.
"""

from typing import Annotated

from msgspec import Struct

from leyden.wire import fields as f
from leyden.wire.layout import list_of, nested, tlv_struct, wire_struct
from leyden.wire.onion_message import BlindedPath
from leyden.wire.tlv import UnknownRecord, keep_unknown, tlv


@wire_struct
class Bip353Name(Struct, frozen=True, kw_only=True, gc=False):
    """The human-readable name that was resolved to the offer."""

    name: Annotated[bytes, f.var_bytes_u8]
    domain: Annotated[bytes, f.var_bytes_u8]


@wire_struct
class BlindedPayinfo(Struct, frozen=True, kw_only=True, gc=False):
    """What a blinded path costs as a whole: millisatoshi, millionths, blocks; limits in millisatoshi."""

    fee_base_msat: Annotated[int, f.u32]
    fee_proportional_millionths: Annotated[int, f.u32]
    cltv_expiry_delta: Annotated[int, f.u16]
    htlc_minimum_msat: Annotated[int, f.u64]
    htlc_maximum_msat: Annotated[int, f.u64]
    features: Annotated[bytes, f.var_bytes]


@wire_struct
class FallbackAddress(Struct, frozen=True, kw_only=True, gc=False):
    """A segwit program to pay on chain."""

    version: Annotated[int, f.byte]
    address: Annotated[bytes, f.var_bytes]


@tlv_struct
class Offer(Struct, frozen=True, kw_only=True, gc=False):
    """What is for sale. ``offer_amount`` is in millisatoshi unless a currency (ISO 4217) is named."""

    offer_chains: Annotated[tuple[bytes, ...] | None, tlv(2, list_of(f.chain_hash))] = None
    offer_metadata: Annotated[bytes | None, tlv(4, f.rest)] = None
    offer_currency: Annotated[str | None, tlv(6, f.utf8)] = None
    offer_amount: Annotated[int | None, tlv(8, f.tu64)] = None
    offer_description: Annotated[str | None, tlv(10, f.utf8)] = None
    offer_features: Annotated[bytes | None, tlv(12, f.rest)] = None
    offer_absolute_expiry: Annotated[int | None, tlv(14, f.tu64)] = None
    offer_paths: Annotated[tuple[BlindedPath, ...] | None, tlv(16, list_of(BlindedPath))] = None
    offer_issuer: Annotated[str | None, tlv(18, f.utf8)] = None
    offer_quantity_max: Annotated[int | None, tlv(20, f.tu64)] = None
    offer_issuer_id: Annotated[bytes | None, tlv(22, f.point)] = None
    unknown: Annotated[tuple[UnknownRecord, ...], keep_unknown] = ()


@tlv_struct
class InvoiceRequest(Offer, frozen=True, kw_only=True, gc=False):
    """A request for an invoice: the records of the offer, and what the payer wants."""

    invreq_metadata: Annotated[bytes | None, tlv(0, f.rest)] = None
    invreq_chain: Annotated[bytes | None, tlv(80, f.chain_hash)] = None
    invreq_amount: Annotated[int | None, tlv(82, f.tu64_msat)] = None
    invreq_features: Annotated[bytes | None, tlv(84, f.rest)] = None
    invreq_quantity: Annotated[int | None, tlv(86, f.tu64)] = None
    invreq_payer_id: Annotated[bytes | None, tlv(88, f.point)] = None
    invreq_payer_note: Annotated[str | None, tlv(89, f.utf8)] = None
    invreq_paths: Annotated[tuple[BlindedPath, ...] | None, tlv(90, list_of(BlindedPath))] = None
    invreq_bip_353_name: Annotated[Bip353Name | None, tlv(91, nested(Bip353Name))] = None
    signature: Annotated[bytes | None, tlv(240, f.bip340sig)] = None


@tlv_struct
class Bolt12Invoice(InvoiceRequest, frozen=True, kw_only=True, gc=False):
    """An invoice: the records of the request, and how to pay. ``invoice_amount`` in millisatoshi, times in seconds."""

    invoice_paths: Annotated[tuple[BlindedPath, ...] | None, tlv(160, list_of(BlindedPath))] = None
    invoice_blindedpay: Annotated[tuple[BlindedPayinfo, ...] | None, tlv(162, list_of(BlindedPayinfo))] = None
    invoice_created_at: Annotated[int | None, tlv(164, f.tu64)] = None
    invoice_relative_expiry: Annotated[int | None, tlv(166, f.tu32)] = None
    invoice_payment_hash: Annotated[bytes | None, tlv(168, f.sha256)] = None
    invoice_amount: Annotated[int | None, tlv(170, f.tu64_msat)] = None
    invoice_fallbacks: Annotated[tuple[FallbackAddress, ...] | None, tlv(172, list_of(FallbackAddress))] = None
    invoice_features: Annotated[bytes | None, tlv(174, f.rest)] = None
    invoice_node_id: Annotated[bytes | None, tlv(176, f.point)] = None


@tlv_struct
class InvoiceError(Struct, frozen=True, kw_only=True, gc=False):
    """Why there is no invoice: the record at fault, a value that would do, and a text."""

    erroneous_field: Annotated[int | None, tlv(1, f.tu64)] = None
    suggested_value: Annotated[bytes | None, tlv(3, f.rest)] = None
    error: Annotated[str | None, tlv(5, f.utf8)] = None
    unknown: Annotated[tuple[UnknownRecord, ...], keep_unknown] = ()
