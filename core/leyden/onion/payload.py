"""Payment payloads of one hop: the writers' rules and the reader's that need nothing but the bytes (BOLT 4, "Payload").

The records are declared in ``leyden.wire.onion_payload``; what a payload means for an HTLC is the business of payments.
"""

from leyden.onion.errors import OnionError
from leyden.types import BlockHeight, CltvDelta, Msat, PaymentSecret, ShortChannelId
from leyden.types.rules import C_162, C_173
from leyden.wire.codec import decode_struct, encode_struct
from leyden.wire.errors import WireError
from leyden.wire.failures import InvalidOnionPayload
from leyden.wire.onion_payload import OnionPayload, PaymentData

HopPayload = OnionPayload
"""What one hop reads; amounts in msat, expiry as an absolute height. ``parse_payload`` returns it."""

_AMOUNT_RECORD = 2
_EXPIRY_RECORD = 4


def make_forward_payload(*, amount_msat: Msat, cltv_expiry: BlockHeight, short_channel_id: ShortChannelId) -> bytes:
    """For a hop that forwards: amount and absolute expiry of the outgoing HTLC, and the channel to use."""
    return encode_struct(
        HopPayload(amt_to_forward=amount_msat, outgoing_cltv_value=cltv_expiry, short_channel_id=short_channel_id)
    )


def make_final_payload(
    amount_msat: Msat,
    cltv_expiry: BlockHeight,
    payment_secret: PaymentSecret,
    total_msat: Msat,
    metadata: bytes | None = None,
) -> bytes:
    """For the recipient. Secret, total and metadata are the same in every part of a payment (C-173).

    ``amount_msat``: this part. ``cltv_expiry``: absolute, see ``final_cltv_expiry``. ``metadata``: as in the invoice.

    Raises:
        OnionError: C-173, a part larger than the total.
    """
    if C_173.enabled and total_msat < amount_msat:
        raise OnionError(C_173, "a part exceeds the total", part=amount_msat, total=total_msat)
    return encode_struct(
        HopPayload(
            amt_to_forward=amount_msat,
            outgoing_cltv_value=cltv_expiry,
            payment_data=PaymentData(payment_secret=payment_secret, total_msat=total_msat),
            payment_metadata=metadata if C_173.enabled else None,
        )
    )


def final_cltv_expiry(height: BlockHeight, final_delta: CltvDelta, offset: CltvDelta) -> BlockHeight:
    """The absolute expiry for the recipient: now, plus the delta its invoice asks for, plus a random offset (C-173)."""
    return BlockHeight((height if C_173.enabled else 0) + final_delta + offset)


def parse_payload(payload: bytes) -> HopPayload:
    """What ``peel_onion`` gave, as records; unknown odd ones are kept aside.

    A payload with ``encrypted_recipient_data`` may lack amount and expiry: the hops of a blinded path compute them.

    Raises:
        OnionError: C-162 (``invalid_onion_payload``), naming the record and its offset where known.
    """
    try:
        parsed = decode_struct(HopPayload, payload)
    except WireError as error:
        if not C_162.enabled:
            raise
        raise _invalid(str(error), _number(error, "record"), _number(error, "offset")) from error
    if C_162.enabled and parsed.encrypted_recipient_data is None:
        if parsed.amt_to_forward is None:
            raise _invalid("the payload has no amount", _AMOUNT_RECORD, 0)
        if parsed.outgoing_cltv_value is None:
            raise _invalid("the payload has no expiry", _EXPIRY_RECORD, 0)
    return parsed


def _invalid(reason: str, tlv_type: int, offset: int) -> OnionError:
    return OnionError(C_162, reason, failure=InvalidOnionPayload(type=tlv_type, offset=min(offset, 0xFFFF)))


def _number(error: WireError, name: str) -> int:
    value = error.details.get(name)
    return value if isinstance(value, int) else 0
