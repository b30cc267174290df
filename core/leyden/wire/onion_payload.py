"""What one hop of a payment onion finds (BOLT 4): the payload, and the data a blinded route hides in it."""

from typing import Annotated

from msgspec import Struct

from leyden.wire import fields as f
from leyden.wire.layout import nested, tlv_struct, wire_struct
from leyden.wire.tlv import UnknownRecord, keep_unknown, tlv


@wire_struct
class PaymentData(Struct, frozen=True, kw_only=True, gc=False):
    """The secret of the invoice and the sum of all parts in millisatoshi."""

    payment_secret: Annotated[bytes, f.bytes_n(32)]
    total_msat: Annotated[int, f.tu64_msat]


@tlv_struct
class OnionPayload(Struct, frozen=True, kw_only=True, gc=False):
    """Orders for one hop; which records must be there depends on the hop and is not checked here.

    ``amt_to_forward`` and ``total_amount_msat`` in millisatoshi, ``outgoing_cltv_value`` a block height. ``unknown`` is
    for odd records of others (65536 and above), which the recipient may want to see.
    """

    amt_to_forward: Annotated[int | None, tlv(2, f.tu64_msat)] = None
    outgoing_cltv_value: Annotated[int | None, tlv(4, f.tu32)] = None
    short_channel_id: Annotated[int | None, tlv(6, f.short_channel_id)] = None
    payment_data: Annotated[PaymentData | None, tlv(8, nested(PaymentData))] = None
    encrypted_recipient_data: Annotated[bytes | None, tlv(10, f.rest)] = None
    current_path_key: Annotated[bytes | None, tlv(12, f.point)] = None
    payment_metadata: Annotated[bytes | None, tlv(16, f.rest)] = None
    total_amount_msat: Annotated[int | None, tlv(18, f.tu64_msat)] = None
    unknown: Annotated[tuple[UnknownRecord, ...], keep_unknown] = ()


@wire_struct
class PaymentRelay(Struct, frozen=True, kw_only=True, gc=False):
    """Terms of a hop inside a blinded route: blocks, millionths, millisatoshi."""

    cltv_expiry_delta: Annotated[int, f.u16]
    fee_proportional_millionths: Annotated[int, f.u32]
    fee_base_msat: Annotated[int, f.tu32]


@wire_struct
class PaymentConstraints(Struct, frozen=True, kw_only=True, gc=False):
    """Limits of a blinded route: block height and millisatoshi."""

    max_cltv_expiry: Annotated[int, f.u32]
    htlc_minimum_msat: Annotated[int, f.tu64]


@tlv_struct
class EncryptedData(Struct, frozen=True, kw_only=True, gc=False):
    """``encrypted_data_tlv``: what the builder of a blinded route tells one of its hops."""

    padding: Annotated[bytes | None, tlv(1, f.rest)] = None
    short_channel_id: Annotated[int | None, tlv(2, f.short_channel_id)] = None
    next_node_id: Annotated[bytes | None, tlv(4, f.point)] = None
    path_id: Annotated[bytes | None, tlv(6, f.rest)] = None
    next_path_key_override: Annotated[bytes | None, tlv(8, f.point)] = None
    payment_relay: Annotated[PaymentRelay | None, tlv(10, nested(PaymentRelay))] = None
    payment_constraints: Annotated[PaymentConstraints | None, tlv(12, nested(PaymentConstraints))] = None
    allowed_features: Annotated[bytes | None, tlv(14, f.rest)] = None
    unknown: Annotated[tuple[UnknownRecord, ...], keep_unknown] = ()
