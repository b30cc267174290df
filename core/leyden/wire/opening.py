"""Opening a channel, versions 1 and 2 (BOLT 2)."""

from typing import Annotated

from leyden.wire import fields as f
from leyden.wire.features import Feature
from leyden.wire.message import Message, message
from leyden.wire.tlv import tlv


@message(32, "open_channel", unless=Feature.OPTION_DUAL_FUND)
class OpenChannel(Message, frozen=True, kw_only=True, gc=False):
    """Offer to open a channel (version 1); the sender pays for the funding.

    ``push_msat`` is a gift to the receiver. ``max_htlc_value_in_flight_msat`` and ``htlc_minimum_msat`` are limits: any
    u64 is allowed. ``feerate_per_kw`` in satoshi per 1000 weight; ``to_self_delay`` in blocks, imposed on the receiver.
    Bit 0 of ``channel_flags`` asks for an announced channel. ``channel_type`` is a feature bitmap.
    """

    chain_hash: Annotated[bytes, f.chain_hash]
    temporary_channel_id: Annotated[bytes, f.bytes_n(32)]
    funding_satoshis: Annotated[int, f.sat]
    push_msat: Annotated[int, f.msat]
    dust_limit_satoshis: Annotated[int, f.sat]
    max_htlc_value_in_flight_msat: Annotated[int, f.u64]
    channel_reserve_satoshis: Annotated[int, f.sat]
    htlc_minimum_msat: Annotated[int, f.u64]
    feerate_per_kw: Annotated[int, f.u32]
    to_self_delay: Annotated[int, f.u16]
    max_accepted_htlcs: Annotated[int, f.u16]
    funding_pubkey: Annotated[bytes, f.point]
    revocation_basepoint: Annotated[bytes, f.point]
    payment_basepoint: Annotated[bytes, f.point]
    delayed_payment_basepoint: Annotated[bytes, f.point]
    htlc_basepoint: Annotated[bytes, f.point]
    first_per_commitment_point: Annotated[bytes, f.point]
    channel_flags: Annotated[int, f.byte]
    upfront_shutdown_script: Annotated[bytes | None, tlv(0, f.rest)] = None
    channel_type: Annotated[bytes | None, tlv(1, f.rest)] = None


@message(33, "accept_channel", unless=Feature.OPTION_DUAL_FUND)
class AcceptChannel(Message, frozen=True, kw_only=True, gc=False):
    """Terms of the accepting side; units as in ``OpenChannel``, ``minimum_depth`` in confirmations."""

    temporary_channel_id: Annotated[bytes, f.bytes_n(32)]
    dust_limit_satoshis: Annotated[int, f.sat]
    max_htlc_value_in_flight_msat: Annotated[int, f.u64]
    channel_reserve_satoshis: Annotated[int, f.sat]
    htlc_minimum_msat: Annotated[int, f.u64]
    minimum_depth: Annotated[int, f.u32]
    to_self_delay: Annotated[int, f.u16]
    max_accepted_htlcs: Annotated[int, f.u16]
    funding_pubkey: Annotated[bytes, f.point]
    revocation_basepoint: Annotated[bytes, f.point]
    payment_basepoint: Annotated[bytes, f.point]
    delayed_payment_basepoint: Annotated[bytes, f.point]
    htlc_basepoint: Annotated[bytes, f.point]
    first_per_commitment_point: Annotated[bytes, f.point]
    upfront_shutdown_script: Annotated[bytes | None, tlv(0, f.rest)] = None
    channel_type: Annotated[bytes | None, tlv(1, f.rest)] = None


@message(34, "funding_created", unless=Feature.OPTION_DUAL_FUND)
class FundingCreated(Message, frozen=True, kw_only=True, gc=False):
    """The funding output and the opener's signature of the accepter's first commitment.

    ``funding_txid`` is in internal byte order.
    """

    temporary_channel_id: Annotated[bytes, f.bytes_n(32)]
    funding_txid: Annotated[bytes, f.sha256]
    funding_output_index: Annotated[int, f.u16]
    signature: Annotated[bytes, f.signature]


@message(35, "funding_signed", unless=Feature.OPTION_DUAL_FUND)
class FundingSigned(Message, frozen=True, kw_only=True, gc=False):
    """The accepter's signature of the opener's first commitment, under the final channel id."""

    channel_id: Annotated[bytes, f.channel_id]
    signature: Annotated[bytes, f.signature]


@message(36, "channel_ready")
class ChannelReady(Message, frozen=True, kw_only=True, gc=False):
    """The funding is deep enough for the sender; carries its second per-commitment point and perhaps an alias."""

    channel_id: Annotated[bytes, f.channel_id]
    second_per_commitment_point: Annotated[bytes, f.point]
    short_channel_id: Annotated[int | None, tlv(1, f.short_channel_id)] = None


@message(64, "open_channel2", needs=(Feature.OPTION_DUAL_FUND,))
class OpenChannel2(Message, frozen=True, kw_only=True, gc=False):
    """Offer to open a channel that both may fund (version 2).

    Units as in ``OpenChannel``; both feerates in satoshi per 1000 weight; ``locktime`` is for the funding transaction.
    """

    chain_hash: Annotated[bytes, f.chain_hash]
    temporary_channel_id: Annotated[bytes, f.channel_id]
    funding_feerate_perkw: Annotated[int, f.u32]
    commitment_feerate_perkw: Annotated[int, f.u32]
    funding_satoshis: Annotated[int, f.sat]
    dust_limit_satoshis: Annotated[int, f.sat]
    max_htlc_value_in_flight_msat: Annotated[int, f.u64]
    htlc_minimum_msat: Annotated[int, f.u64]
    to_self_delay: Annotated[int, f.u16]
    max_accepted_htlcs: Annotated[int, f.u16]
    locktime: Annotated[int, f.u32]
    funding_pubkey: Annotated[bytes, f.point]
    revocation_basepoint: Annotated[bytes, f.point]
    payment_basepoint: Annotated[bytes, f.point]
    delayed_payment_basepoint: Annotated[bytes, f.point]
    htlc_basepoint: Annotated[bytes, f.point]
    first_per_commitment_point: Annotated[bytes, f.point]
    second_per_commitment_point: Annotated[bytes, f.point]
    channel_flags: Annotated[int, f.byte]
    upfront_shutdown_script: Annotated[bytes | None, tlv(0, f.rest)] = None
    channel_type: Annotated[bytes | None, tlv(1, f.rest)] = None
    require_confirmed_inputs: Annotated[bool, tlv(2, f.flag)] = False


@message(65, "accept_channel2", needs=(Feature.OPTION_DUAL_FUND,))
class AcceptChannel2(Message, frozen=True, kw_only=True, gc=False):
    """Terms and contribution of the accepting side (version 2); units as in ``OpenChannel2``."""

    temporary_channel_id: Annotated[bytes, f.channel_id]
    funding_satoshis: Annotated[int, f.sat]
    dust_limit_satoshis: Annotated[int, f.sat]
    max_htlc_value_in_flight_msat: Annotated[int, f.u64]
    htlc_minimum_msat: Annotated[int, f.u64]
    minimum_depth: Annotated[int, f.u32]
    to_self_delay: Annotated[int, f.u16]
    max_accepted_htlcs: Annotated[int, f.u16]
    funding_pubkey: Annotated[bytes, f.point]
    revocation_basepoint: Annotated[bytes, f.point]
    payment_basepoint: Annotated[bytes, f.point]
    delayed_payment_basepoint: Annotated[bytes, f.point]
    htlc_basepoint: Annotated[bytes, f.point]
    first_per_commitment_point: Annotated[bytes, f.point]
    second_per_commitment_point: Annotated[bytes, f.point]
    upfront_shutdown_script: Annotated[bytes | None, tlv(0, f.rest)] = None
    channel_type: Annotated[bytes | None, tlv(1, f.rest)] = None
    require_confirmed_inputs: Annotated[bool, tlv(2, f.flag)] = False
