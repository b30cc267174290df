"""Channel and node discovery (BOLT 7).

The three signed messages are relayed byte for byte, so what follows their known fields stays in ``excess``: it is
signed and somebody else's, and a peer that only passes it on is not judged by it.
"""

from typing import Annotated

from msgspec import Struct

from leyden.wire import fields as f
from leyden.wire.layout import list_of, nested, wire_struct
from leyden.wire.message import Message, message
from leyden.wire.tlv import tlv


@wire_struct
class QueryFlags(Struct, frozen=True, kw_only=True, gc=False):
    """One flag per queried channel, as an encoded array."""

    encoding_type: Annotated[int, f.byte]
    encoded_query_flags: Annotated[bytes, f.rest]


@wire_struct
class EncodedTimestamps(Struct, frozen=True, kw_only=True, gc=False):
    """Two timestamps per channel of the reply, as an encoded array."""

    encoding_type: Annotated[int, f.byte]
    encoded_timestamps: Annotated[bytes, f.rest]


@wire_struct
class ChannelUpdateTimestamps(Struct, frozen=True, kw_only=True, gc=False):
    """Unix times of the newest ``channel_update`` of either node, 0 for none."""

    timestamp_node_id_1: Annotated[int, f.u32]
    timestamp_node_id_2: Annotated[int, f.u32]


@wire_struct
class ChannelUpdateChecksums(Struct, frozen=True, kw_only=True, gc=False):
    """CRC32C of the newest ``channel_update`` of either node without signature and timestamp, 0 for none."""

    checksum_node_id_1: Annotated[int, f.u32]
    checksum_node_id_2: Annotated[int, f.u32]


@message(259, "announcement_signatures")
class AnnouncementSignatures(Message, frozen=True, kw_only=True, gc=False):
    """The sender's two signatures of the ``channel_announcement``; consent to announce."""

    channel_id: Annotated[bytes, f.channel_id]
    short_channel_id: Annotated[int, f.short_channel_id]
    node_signature: Annotated[bytes, f.signature]
    bitcoin_signature: Annotated[bytes, f.signature]


@message(256, "channel_announcement")
class ChannelAnnouncement(Message, frozen=True, kw_only=True, gc=False):
    """Proof that a funding output is a channel of two nodes, signed by both with both keys."""

    node_signature_1: Annotated[bytes, f.signature]
    node_signature_2: Annotated[bytes, f.signature]
    bitcoin_signature_1: Annotated[bytes, f.signature]
    bitcoin_signature_2: Annotated[bytes, f.signature]
    features: Annotated[bytes, f.var_bytes]
    chain_hash: Annotated[bytes, f.chain_hash]
    short_channel_id: Annotated[int, f.short_channel_id]
    node_id_1: Annotated[bytes, f.point]
    node_id_2: Annotated[bytes, f.point]
    bitcoin_key_1: Annotated[bytes, f.point]
    bitcoin_key_2: Annotated[bytes, f.point]
    excess: Annotated[bytes, f.rest] = b""


@message(257, "node_announcement")
class NodeAnnouncement(Message, frozen=True, kw_only=True, gc=False):
    """A node's alias, colour, features and addresses (descriptors of BOLT 7, one behind the other)."""

    signature: Annotated[bytes, f.signature]
    features: Annotated[bytes, f.var_bytes]
    timestamp: Annotated[int, f.u32]
    node_id: Annotated[bytes, f.point]
    rgb_color: Annotated[bytes, f.bytes_n(3)]
    alias: Annotated[bytes, f.bytes_n(32)]
    addresses: Annotated[bytes, f.var_bytes]
    excess: Annotated[bytes, f.rest] = b""


@message(258, "channel_update")
class ChannelUpdate(Message, frozen=True, kw_only=True, gc=False):
    """Terms for forwarding through a channel in one direction.

    ``timestamp`` in Unix seconds, ``cltv_expiry_delta`` in blocks, fees as ``fee_base_msat`` plus millionths. Bit 0 of
    ``channel_flags`` is the direction, bit 1 says disabled.
    """

    signature: Annotated[bytes, f.signature]
    chain_hash: Annotated[bytes, f.chain_hash]
    short_channel_id: Annotated[int, f.short_channel_id]
    timestamp: Annotated[int, f.u32]
    message_flags: Annotated[int, f.byte]
    channel_flags: Annotated[int, f.byte]
    cltv_expiry_delta: Annotated[int, f.u16]
    htlc_minimum_msat: Annotated[int, f.u64]
    fee_base_msat: Annotated[int, f.u32]
    fee_proportional_millionths: Annotated[int, f.u32]
    htlc_maximum_msat: Annotated[int, f.u64]
    excess: Annotated[bytes, f.rest] = b""


@message(261, "query_short_channel_ids")
class QueryShortChannelIds(Message, frozen=True, kw_only=True, gc=False):
    """Ask for the gossip of named channels."""

    chain_hash: Annotated[bytes, f.chain_hash]
    encoded_short_ids: Annotated[bytes, f.var_bytes]
    query_flags: Annotated[QueryFlags | None, tlv(1, nested(QueryFlags))] = None


@message(262, "reply_short_channel_ids_end")
class ReplyShortChannelIdsEnd(Message, frozen=True, kw_only=True, gc=False):
    """The answer to ``query_short_channel_ids`` is complete."""

    chain_hash: Annotated[bytes, f.chain_hash]
    full_information: Annotated[int, f.byte]


@message(263, "query_channel_range")
class QueryChannelRange(Message, frozen=True, kw_only=True, gc=False):
    """Ask which channels were funded in a range of blocks."""

    chain_hash: Annotated[bytes, f.chain_hash]
    first_blocknum: Annotated[int, f.u32]
    number_of_blocks: Annotated[int, f.u32]
    query_option: Annotated[int | None, tlv(1, f.bigsize)] = None


@message(264, "reply_channel_range")
class ReplyChannelRange(Message, frozen=True, kw_only=True, gc=False):
    """Channels funded in a range of blocks; one of several replies unless ``sync_complete``."""

    chain_hash: Annotated[bytes, f.chain_hash]
    first_blocknum: Annotated[int, f.u32]
    number_of_blocks: Annotated[int, f.u32]
    sync_complete: Annotated[int, f.byte]
    encoded_short_ids: Annotated[bytes, f.var_bytes]
    timestamps_tlv: Annotated[EncodedTimestamps | None, tlv(1, nested(EncodedTimestamps))] = None
    checksums_tlv: Annotated[tuple[ChannelUpdateChecksums, ...] | None, tlv(3, list_of(ChannelUpdateChecksums))] = None


@message(265, "gossip_timestamp_filter")
class GossipTimestampFilter(Message, frozen=True, kw_only=True, gc=False):
    """Send gossip with timestamps in this range (Unix seconds), and only that."""

    chain_hash: Annotated[bytes, f.chain_hash]
    first_timestamp: Annotated[int, f.u32]
    timestamp_range: Annotated[int, f.u32]
