"""What the API shows: flat, JSON-shaped records; ids as hex, amounts in the unit that the name says."""

from typing import TYPE_CHECKING

import msgspec

from leyden.types import Side, format_short_channel_id

if TYPE_CHECKING:
    from leyden.channel import Channel
    from leyden.node.peer import Peer
    from leyden.payments import InvoiceRecord, PaymentRecord


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records below."""


class NodeInfo(View, frozen=True, kw_only=True):
    node_id: str
    network: str
    address: str | None
    height: int
    synced: bool
    peers: int
    channels: int
    pending_payments: int
    degraded: str
    last_event: int
    chain_source: str = ""
    """The one that is followed now."""
    chain_tip: int = 0
    """The highest block that this source is known to have."""
    chain_degraded: str = ""
    """Why no channel is opened and no payment offered now; empty while the chain is trusted."""
    blocks_done: int = 0
    blocks_total: int = 0
    """Of the catch-up that is going on; 0 when there is none."""
    blocks_per_second: int = 0


class PeerView(View, frozen=True, kw_only=True):
    node_id: str
    address: str
    inbound: bool
    channels: int


class ChannelView(View, frozen=True, kw_only=True):
    """Balances are what each side would have if every HTLC in flight failed."""

    channel_id: str
    node_id: str
    state: str
    link: str
    usable: bool
    local_is_funder: bool
    capacity_sat: int
    local_msat: int
    remote_msat: int
    reserve_sat: int
    htlcs: int
    local_number: int
    feerate_per_kw: int
    funding: str | None
    short_channel_id: str | None
    failure: str
    channel_type: str = ""
    local_alias: str | None = None
    """The short channel id by which the peer may call the channel; the peer's own name for it is ``remote_alias``."""
    remote_alias: str | None = None


class PaymentView(View, frozen=True, kw_only=True):
    payment_hash: str
    status: str
    amount_msat: int
    fee_msat: int
    attempts: int
    preimage: str | None
    failure: str
    key: str


class InvoiceView(View, frozen=True, kw_only=True):
    payment_hash: str
    bolt11: str
    amount_msat: int | None
    expires_at: int
    label: str
    status: str
    received_msat: int


# What follows imports at its first call: who only reads such records needs no node, and not its modules.


def view_channel(channel: "Channel") -> ChannelView:
    from leyden.wire.features import channel_type_name

    config, scid, outpoint = channel.config, channel.short_channel_id, channel.funding_outpoint
    return ChannelView(
        channel_id=channel.channel_id.hex(),
        node_id=config.peer.hex(),
        state=channel.lifecycle.value,
        link=channel.link.value,
        usable=channel.is_usable,
        local_is_funder=config.local_is_funder,
        capacity_sat=config.funding_satoshis,
        local_msat=channel.local_settled,
        remote_msat=channel.remote_settled,
        reserve_sat=config.remote.reserve,
        htlcs=sum(len(channel.htlcs(side)) for side in Side),
        local_number=channel.local_number,
        feerate_per_kw=channel.feerate,
        funding=None if outpoint is None else str(outpoint),
        short_channel_id=None if scid is None else format_short_channel_id(scid),
        failure=channel.failure,
        channel_type=channel_type_name(config.channel_type),
        local_alias=None if channel.local_alias is None else format_short_channel_id(channel.local_alias),
        remote_alias=None if channel.remote_alias is None else format_short_channel_id(channel.remote_alias),
    )


def view_peer(peer: "Peer", channels: int) -> PeerView:
    return PeerView(node_id=(peer.node_id or b"").hex(), address=peer.address, inbound=peer.inbound, channels=channels)


def view_payment(record: "PaymentRecord") -> PaymentView:
    from leyden.payments import PaymentStatus

    return PaymentView(
        payment_hash=record.payment_hash.hex(),
        status=PaymentStatus(record.status).name.lower(),
        amount_msat=record.amount_msat,
        fee_msat=record.fee_msat,
        attempts=len(record.attempts),
        preimage=record.preimage.hex() or None,
        failure=record.failure,
        key=record.key,
    )


def view_invoice(record: "InvoiceRecord") -> InvoiceView:
    from leyden.payments import InvoiceStatus

    return InvoiceView(
        payment_hash=record.payment_hash.hex(),
        bolt11=record.bolt11,
        amount_msat=record.amount_msat or None,
        expires_at=record.expires_at(),
        label=record.label,
        status=InvoiceStatus(record.status).name.lower(),
        received_msat=record.received_msat,
    )
