"""Rows of payments, version 1. A released layout never changes; see ``docs/keyspace.md``."""

import enum
from typing import Annotated

from msgspec import Struct

from leyden.types import Msat, PaymentHash, PaymentSecret, Preimage
from leyden.wire.codec import (
    channel_id,
    flag,
    list_of,
    rest,
    sha256,
    tlv,
    tlv_struct,
    u8,
    u16,
    u32,
    u64,
    utf8,
    wire_struct,
)


class InvoiceStatus(enum.IntEnum):
    """Stored values: append only."""

    UNPAID = 0
    PAID = 1


class PaymentStatus(enum.IntEnum):
    """Stored values: append only."""

    PENDING = 0
    SUCCEEDED = 1
    FAILED = 2


@tlv_struct
class InvoiceRecord(Struct, frozen=True, kw_only=True):
    """An invoice of ours. ``amount_msat`` 0: the payer chooses. Times in unix seconds."""

    payment_hash: Annotated[PaymentHash, tlv(1, sha256)]
    preimage: Annotated[Preimage, tlv(3, sha256)]
    payment_secret: Annotated[PaymentSecret, tlv(5, sha256)]
    amount_msat: Annotated[Msat, tlv(7, u64)]
    bolt11: Annotated[str, tlv(9, utf8)]
    created: Annotated[int, tlv(11, u64)]
    expiry: Annotated[int, tlv(13, u32)]
    min_final_cltv: Annotated[int, tlv(15, u16)]
    status: Annotated[int, tlv(17, u8)] = 0
    received_msat: Annotated[Msat, tlv(19, u64)] = Msat(0)
    label: Annotated[str, tlv(21, utf8)] = ""

    def expires_at(self) -> int:
        return self.created + self.expiry


@wire_struct
class Attempt(Struct, frozen=True, kw_only=True):
    """One HTLC sent: where it is, and the hop secrets that decode its failure."""

    channel_id: Annotated[bytes, channel_id]
    htlc_id: Annotated[int, u64]
    amount_msat: Annotated[int, u64]
    cltv_expiry: Annotated[int, u32]
    shared_secret: Annotated[bytes, sha256]


@tlv_struct
class PaymentRecord(Struct, frozen=True, kw_only=True):
    """A payment of ours. ``key`` is the caller's idempotency key; ``attempts`` lists every HTLC ever sent for it."""

    payment_hash: Annotated[PaymentHash, tlv(1, sha256)]
    bolt11: Annotated[str, tlv(3, utf8)]
    amount_msat: Annotated[Msat, tlv(5, u64)]
    created: Annotated[int, tlv(7, u64)]
    status: Annotated[int, tlv(9, u8)] = 0
    attempts: Annotated[tuple[Attempt, ...], tlv(11, list_of(Attempt))] = ()
    preimage: Annotated[bytes, tlv(13, rest)] = b""
    failure: Annotated[str, tlv(15, utf8)] = ""
    key: Annotated[str, tlv(17, utf8)] = ""
    fee_msat: Annotated[Msat, tlv(19, u64)] = Msat(0)


@tlv_struct
class MailRow(Struct, frozen=True, kw_only=True):
    """A received HTLC that nobody has decided on yet."""

    id: Annotated[int, tlv(1, u64)]
    amount_msat: Annotated[int, tlv(3, u64)]
    payment_hash: Annotated[bytes, tlv(5, sha256)]
    cltv_expiry: Annotated[int, tlv(7, u32)]
    onion_routing_packet: Annotated[bytes, tlv(9, rest)]
    path_key: Annotated[bytes | None, tlv(11, rest)] = None
    must_fail: Annotated[bool, tlv(13, flag)] = False
