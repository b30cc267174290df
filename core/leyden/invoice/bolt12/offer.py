"""Offers: reading, checking and writing what is for sale (BOLT 12, Offers)."""

from collections.abc import Collection

from leyden.invoice.bolt12.records import (
    BITCOIN,
    NO_FEATURES,
    OFFER_RANGES,
    decode_document,
    require_hops,
    require_known_features,
    require_ranges,
)
from leyden.invoice.bolt12.text import OFFER_PREFIX, decode_text, encode_text
from leyden.invoice.errors import refuse_unless
from leyden.types.rules import C_255, C_256
from leyden.wire.bolt12 import Offer
from leyden.wire.codec import encode_struct
from leyden.wire.features import Features


def parse_offer(text: str, *, known: Features = NO_FEATURES) -> Offer:
    """The offer in ``text``, checked as far as its own bytes say. ``InvoiceError``: C-253, C-255, C-256.

    Whether it is still open and for our chain says ``require_usable_offer``.
    """
    return decode_offer(decode_text(text, OFFER_PREFIX), known=known)


def decode_offer(data: bytes, *, known: Features = NO_FEATURES) -> Offer:
    """``parse_offer`` for the TLV stream."""
    offer = decode_document(Offer, data, C_255)
    check_offer(offer, known=known)
    return offer


def encode_offer(offer: Offer, *, upper: bool = False) -> str:
    """The text of an offer of ours; ``InvoiceError`` when no reader would take it."""
    check_offer(offer)
    return encode_text(OFFER_PREFIX, encode_struct(offer), upper=upper)


def check_offer(offer: Offer, *, known: Features = NO_FEATURES) -> None:
    """``InvoiceError`` when nobody may answer the offer, whoever and whenever they are (C-255, C-256)."""
    require_ranges(offer.unknown, OFFER_RANGES, C_255)
    require_known_features(offer.offer_features, known, C_255, "offer")
    amount = offer.offer_amount
    refuse_unless(amount != 0, C_256, "offer for nothing", offered=amount)
    refuse_unless(amount is None or offer.offer_description is not None, C_256, "offer has a price but no description")
    refuse_unless(offer.offer_currency is None or amount is not None, C_256, "offer has a currency but no price")
    refuse_unless(offer.offer_issuer_id is not None or offer.offer_paths, C_256, "offer names neither issuer nor paths")
    require_hops(offer.offer_paths, C_256, "offer")
    refuse_unless(offer.offer_chains != (), C_256, "offer is for no chain at all")


def require_usable_offer(offer: Offer, *, now: int, chains: Collection[bytes]) -> None:
    """``InvoiceError`` (C-256) when the offer has expired at ``now`` (Unix seconds) or is for none of ``chains``."""
    require_open(offer, now)
    named = (BITCOIN,) if offer.offer_chains is None else offer.offer_chains
    refuse_unless(
        any(chain in chains for chain in named), C_256, "offer is for other chains", offered=named[0] if named else None
    )


def require_open(offer: Offer, now: int) -> None:
    """``InvoiceError`` (C-256) behind the last second of ``offer_absolute_expiry``."""
    expiry = offer.offer_absolute_expiry
    refuse_unless(expiry is None or now <= expiry, C_256, "offer has expired", offered=now, allowed=expiry)
