"""What the three documents have in common: reading with a rule, ranges, features, paths, mirrored records."""

from collections.abc import Collection, Sequence
from typing import TypeVar

from msgspec import Struct

from leyden.bitcoin import Network
from leyden.invoice.bolt12.signature import SIGNATURE_TYPES
from leyden.invoice.errors import InvoiceError, refuse_unless
from leyden.types import Rule
from leyden.types.rules import C_260
from leyden.wire.bolt12 import InvoiceRequest, Offer
from leyden.wire.codec import UnknownRecord, WireError, decode_struct, encode_struct, split_records
from leyden.wire.features import Features
from leyden.wire.onion_message import BlindedPath

D = TypeVar("D", bound=Struct)

BITCOIN = Network.MAINNET.chain_hash
"""The chain that is meant where none is named."""
NO_FEATURES = Features(0)
"""BOLT 9 defines none for offers, requests and blinded paths."""
OFFER_RANGES = (range(1, 80), range(1_000_000_000, 2_000_000_000))
"""Records that an offer may have."""
REQUEST_RANGES = (range(160), range(1_000_000_000, 3_000_000_000))
"""Records that an invoice request may have besides signatures; an invoice repeats them."""

Ranges = tuple[range, ...]


def decode_document(cls: type[D], data: bytes, broken: Rule) -> D:
    """The records of ``data``; ``InvoiceError`` naming ``broken`` when a rule of the TLV stream is violated."""
    try:
        return decode_struct(cls, data)
    except WireError as error:
        if not broken.enabled:
            raise
        raise InvoiceError(broken, error.message, tlv_rule=error.rule.id, **error.details) from error


def require_ranges(unknown: Sequence[UnknownRecord], allowed: Ranges, broken: Rule) -> None:
    """No unknown record lies outside ``allowed`` (the known ones are where they belong by their declaration)."""
    for record in unknown:
        refuse_unless(any(record.type in span for span in allowed), broken, "record out of range", record=record.type)


def require_known_features(bitmap: bytes | None, known: Features, broken: Rule, name: str) -> None:
    """No even bit is set that ``known`` does not offer; odd ones mean nothing."""
    bit = unknown_even_bit(bitmap, known)
    refuse_unless(bit is None, broken, f"{name} requires a feature that we do not know", offered=bit)


def unknown_even_bit(bitmap: bytes | None, known: Features) -> int | None:
    """The lowest even bit that is set and that ``known`` does not offer, or None."""
    bits = int.from_bytes(bitmap or b"", "big")
    even = int.from_bytes(b"\x55" * (bits.bit_length() // 8 + 1), "big")
    unknown = bits & even & ~(known.bits | known.bits >> 1)
    return (unknown & -unknown).bit_length() - 1 if unknown else None


def require_hops(paths: Sequence[BlindedPath] | None, broken: Rule, name: str) -> None:
    """Every blinded path has a hop."""
    refuse_unless(all(path.path for path in paths or ()), broken, f"{name} has a path without hops")


def require_chain(chain: bytes | None, chains: Collection[bytes], broken: Rule) -> None:
    """The chain of a request or an invoice (None: bitcoin) is one that we accept."""
    offered = BITCOIN if chain is None else chain
    refuse_unless(offered in chains, broken, "a chain that we do not use", offered=offered)


def records_within(document: Offer, ranges: Ranges) -> dict[int, bytes]:
    """The records of ``document`` in ``ranges``, unknown ones too: type to bytes (BOLT 12 compares them exactly)."""
    stream = encode_struct(document)
    return {
        kind: stream[start:end] for kind, start, _, end in split_records(stream) if any(kind in span for span in ranges)
    }


def first_difference(theirs: Offer, ours: Offer, ranges: Ranges) -> int | None:
    """The lowest record type in ``ranges`` in which two documents differ, or None."""
    left, right = records_within(theirs, ranges), records_within(ours, ranges)
    return next((kind for kind in sorted(left | right) if left.get(kind) != right.get(kind)), None)


def mirrored(document: Offer) -> dict[str, object]:
    """The attributes that an answer repeats: all but signatures, the unknown ones included."""
    values = {name: getattr(document, name) for name in document.__struct_fields__}
    values.pop("signature", None)
    values["unknown"] = tuple(record for record in document.unknown if record.type not in SIGNATURE_TYPES)
    return values


def is_for_offer(document: InvoiceRequest) -> bool:
    """The request answers an offer, rather than being published by somebody who wants to pay."""
    return document.offer_issuer_id is not None or document.offer_paths is not None


def price_msat(document: Offer, quantity: int | None, item_msat: int | None) -> int | None:
    """The expected amount in millisatoshi: price of one times ``quantity``; None when the offer leaves it open.

    ``item_msat`` is the price of one converted from ``offer_currency``; ``InvoiceError`` when it is needed and missing.
    """
    price = document.offer_amount
    if price is None:
        return None
    if document.offer_currency is not None:
        if item_msat is None:
            raise InvoiceError(C_260, "the price needs a conversion", offered=document.offer_currency)
        price = item_msat
    return price * (1 if quantity is None else quantity)
