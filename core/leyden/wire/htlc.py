"""HTLCs, commitments and reconnection (BOLT 2)."""

from typing import Annotated

from msgspec import Struct

from leyden.wire import fields as f
from leyden.wire.features import Feature
from leyden.wire.layout import list_of, nested, wire_struct
from leyden.wire.message import Message, message
from leyden.wire.tlv import tlv


@wire_struct
class AttributionData(Struct, frozen=True, kw_only=True, gc=False):
    """Who held an HTLC for how long (BOLT 4): 20 times in units of 100 ms, 210 HMACs cut to 4 bytes each."""

    htlc_hold_times: Annotated[tuple[int, ...], list_of(f.u32, count=20)]
    truncated_hmacs: Annotated[bytes, f.bytes_n(840)]


@wire_struct
class NextFunding(Struct, frozen=True, kw_only=True, gc=False):
    """The funding transaction whose signatures are still wanted; bit 0 of the flags asks for ``commitment_signed``."""

    next_funding_txid: Annotated[bytes, f.sha256]
    retransmit_flags: Annotated[int, f.byte]


@wire_struct
class FundingLocked(Struct, frozen=True, kw_only=True, gc=False):
    """The funding that the sender has locked last; bit 0 of the flags asks for ``announcement_signatures``."""

    my_current_funding_locked_txid: Annotated[bytes, f.sha256]
    retransmit_flags: Annotated[int, f.byte]


@message(128, "update_add_htlc")
class UpdateAddHtlc(Message, frozen=True, kw_only=True, gc=False):
    """Offer an HTLC of ``amount_msat`` that ends at block ``cltv_expiry``.

    ``id`` counts from 0 per channel and sender. The onion packet is 1366 bytes; ``blinded_path`` is the path key for a
    hop inside a blinded route.
    """

    channel_id: Annotated[bytes, f.channel_id]
    id: Annotated[int, f.u64]
    amount_msat: Annotated[int, f.msat]
    payment_hash: Annotated[bytes, f.sha256]
    cltv_expiry: Annotated[int, f.u32]
    onion_routing_packet: Annotated[bytes, f.bytes_n(1366)]
    blinded_path: Annotated[bytes | None, tlv(0, f.point, needs=Feature.OPTION_ROUTE_BLINDING)] = None


@message(130, "update_fulfill_htlc")
class UpdateFulfillHtlc(Message, frozen=True, kw_only=True, gc=False):
    """The preimage for HTLC ``id``, which the receiver had offered."""

    channel_id: Annotated[bytes, f.channel_id]
    id: Annotated[int, f.u64]
    payment_preimage: Annotated[bytes, f.bytes_n(32)]
    attribution_data: Annotated[AttributionData | None, tlv(1, nested(AttributionData))] = None


@message(131, "update_fail_htlc")
class UpdateFailHtlc(Message, frozen=True, kw_only=True, gc=False):
    """HTLC ``id`` failed; ``reason`` is the onion-encrypted failure."""

    channel_id: Annotated[bytes, f.channel_id]
    id: Annotated[int, f.u64]
    reason: Annotated[bytes, f.var_bytes]
    attribution_data: Annotated[AttributionData | None, tlv(1, nested(AttributionData))] = None


@message(135, "update_fail_malformed_htlc")
class UpdateFailMalformedHtlc(Message, frozen=True, kw_only=True, gc=False):
    """HTLC ``id`` failed because its onion could not be read; ``failure_code`` has the BADONION bit."""

    channel_id: Annotated[bytes, f.channel_id]
    id: Annotated[int, f.u64]
    sha256_of_onion: Annotated[bytes, f.sha256]
    failure_code: Annotated[int, f.u16]


@message(134, "update_fee")
class UpdateFee(Message, frozen=True, kw_only=True, gc=False):
    """New feerate of both commitments in satoshi per 1000 weight; only the opener sends it."""

    channel_id: Annotated[bytes, f.channel_id]
    feerate_per_kw: Annotated[int, f.u32]


@message(132, "commitment_signed")
class CommitmentSigned(Message, frozen=True, kw_only=True, gc=False):
    """The sender's signatures of the receiver's next commitment and of its HTLC transactions, in output order."""

    channel_id: Annotated[bytes, f.channel_id]
    signature: Annotated[bytes, f.signature]
    htlc_signature: Annotated[tuple[bytes, ...], list_of(f.signature, prefix=2)]
    funding_txid: Annotated[bytes | None, tlv(1, f.sha256)] = None


@message(133, "revoke_and_ack")
class RevokeAndAck(Message, frozen=True, kw_only=True, gc=False):
    """The secret of the sender's old commitment, which revokes it, and the point of the next."""

    channel_id: Annotated[bytes, f.channel_id]
    per_commitment_secret: Annotated[bytes, f.bytes_n(32)]
    next_per_commitment_point: Annotated[bytes, f.point]


@message(136, "channel_reestablish")
class ChannelReestablish(Message, frozen=True, kw_only=True, gc=False):
    """Where the sender stands, sent for each channel after a reconnect.

    ``next_commitment_number`` is the next ``commitment_signed`` it expects, ``next_revocation_number`` the next
    ``revoke_and_ack``; ``your_last_per_commitment_secret`` is the last secret it received, or zeros.
    """

    channel_id: Annotated[bytes, f.channel_id]
    next_commitment_number: Annotated[int, f.u64]
    next_revocation_number: Annotated[int, f.u64]
    your_last_per_commitment_secret: Annotated[bytes, f.bytes_n(32)]
    my_current_per_commitment_point: Annotated[bytes, f.point]
    next_funding: Annotated[NextFunding | None, tlv(1, nested(NextFunding))] = None
    my_current_funding_locked: Annotated[FundingLocked | None, tlv(5, nested(FundingLocked))] = None
