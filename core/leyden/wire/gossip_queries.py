"""Asking for gossip: encoded arrays, flags, timestamps and checksums, and the replies made of them (BOLT 7, queries).

Every array starts with its encoding; 0 (plain) is the only one left, 1 (zlib) must not be used any more. A received
array that does not decode is a ``WireError`` (C-230: drop the message, warn, close the connection).
"""

import enum
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from leyden.types.rules import C_230, C_231, C_232
from leyden.wire.errors import EncodeError, WireError, refuse
from leyden.wire.fields import read_bigsize, write_bigsize
from leyden.wire.gossip import (
    ChannelUpdate,
    ChannelUpdateChecksums,
    ChannelUpdateTimestamps,
    EncodedTimestamps,
    QueryChannelRange,
    QueryFlags,
    QueryShortChannelIds,
    ReplyChannelRange,
    ReplyShortChannelIdsEnd,
)
from leyden.wire.message import MAX_MESSAGE, encode

PLAIN = 0
"""The encoding of arrays: items one behind the other."""
_UPDATE_BODY = 2 + 64
"""Bytes of type and signature in front of a ``channel_update``'s chain hash."""


class QueryFlag(enum.IntFlag):
    """What is wanted of one channel."""

    CHANNEL_ANNOUNCEMENT = 1
    CHANNEL_UPDATE_1 = 2
    CHANNEL_UPDATE_2 = 4
    NODE_ANNOUNCEMENT_1 = 8
    NODE_ANNOUNCEMENT_2 = 16


EVERYTHING = QueryFlag(31)


class QueryOption(enum.IntFlag):
    """What is wanted beside the ids of a range."""

    TIMESTAMPS = 1
    CHECKSUMS = 2


# --- arrays -----------------------------------------------------------------------------------------------------------


def encode_short_ids(ids: Sequence[int]) -> bytes:
    """The encoded array of ids; ``EncodeError`` unless they ascend."""
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise EncodeError("short channel ids do not ascend")
    return bytes((PLAIN,)) + struct.pack(f">{len(ids)}Q", *ids)


def decode_short_ids(data: bytes) -> tuple[int, ...]:
    """The ids of an encoded array, in the order sent; ``WireError`` (C-230)."""
    _require_plain(data[:1], "encoded_short_ids")
    return _integers(data[1:], "Q", "short channel ids")


def encode_query_flags(flags: Sequence[int]) -> QueryFlags:
    """One flag per queried channel."""
    return QueryFlags(encoding_type=PLAIN, encoded_query_flags=b"".join(map(write_bigsize, flags)))


def decode_query_flags(array: QueryFlags, count: int) -> tuple[QueryFlag, ...]:
    """The ``count`` flags of an encoded array, unknown bits dropped; ``WireError`` (C-230)."""
    _require_plain(bytes((array.encoding_type,)), "query_flags")
    data, offset, flags = array.encoded_query_flags, 0, []
    while offset < len(data):
        try:
            flag, offset = read_bigsize(data, offset)
        except WireError as error:
            refuse(C_230, f"query flags: {error.message}", offset=offset)
            break
        flags.append(QueryFlag(flag & EVERYTHING))
    if len(flags) != count:
        refuse(C_230, "not one query flag per channel", offered=len(flags), allowed=count)
    return tuple(flags)


def encode_timestamps(timestamps: Sequence[ChannelUpdateTimestamps]) -> EncodedTimestamps:
    """Two Unix times per channel, 0 where there is no update."""
    numbers = [n for pair in timestamps for n in (pair.timestamp_node_id_1, pair.timestamp_node_id_2)]
    return EncodedTimestamps(encoding_type=PLAIN, encoded_timestamps=struct.pack(f">{len(numbers)}I", *numbers))


def decode_timestamps(array: EncodedTimestamps, count: int) -> tuple[ChannelUpdateTimestamps, ...]:
    """The timestamps of ``count`` channels; ``WireError`` (C-230)."""
    _require_plain(bytes((array.encoding_type,)), "timestamps")
    numbers = _integers(array.encoded_timestamps, "I", "timestamps")
    if len(numbers) != 2 * count:
        refuse(C_230, "not one pair of timestamps per channel", offered=len(numbers) // 2, allowed=count)
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple(ChannelUpdateTimestamps(timestamp_node_id_1=one, timestamp_node_id_2=two) for one, two in pairs)


def _require_plain(encoding: bytes, name: str) -> None:
    if encoding != b"\0":
        refuse(C_230, f"{name} in an encoding that must not be used", offered=encoding, allowed=PLAIN)


def _integers(data: bytes, code: str, name: str) -> tuple[int, ...]:
    """All the integers (``code`` of ``struct``) in ``data``; what belongs to one channel has eight bytes."""
    whole = len(data) // 8 * 8
    if whole != len(data):
        refuse(C_230, f"no whole number of {name}", offered=len(data))
    return struct.unpack(f">{whole // struct.calcsize(code)}{code}", data[:whole])


# --- checksums --------------------------------------------------------------------------------------------------------


def _crc32c_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    """The checksum of RFC 3720, appendix B.4 (Castagnoli's polynomial)."""
    table, register = _CRC32C, 0xFFFFFFFF
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return register ^ 0xFFFFFFFF


def update_checksum(update: ChannelUpdate) -> int:
    """CRC32C of an update without type, signature and timestamp: equal while only the time has changed."""
    data = encode(update)[_UPDATE_BODY:]
    return crc32c(data[:40] + data[44:])


# --- replies ----------------------------------------------------------------------------------------------------------


_NO_TIMESTAMPS = ChannelUpdateTimestamps(timestamp_node_id_1=0, timestamp_node_id_2=0)
_NO_CHECKSUMS = ChannelUpdateChecksums(checksum_node_id_1=0, checksum_node_id_2=0)


class ChannelSummary(Struct, frozen=True, kw_only=True):
    """What a range reply says of a channel: Unix times and checksums of its two updates, 0 for none."""

    short_channel_id: int
    timestamps: ChannelUpdateTimestamps = _NO_TIMESTAMPS
    checksums: ChannelUpdateChecksums = _NO_CHECKSUMS


class KnownChannel(Struct, frozen=True, kw_only=True):
    """The newest gossip of a channel, as whole messages."""

    announcement: bytes
    update_1: bytes | None = None
    update_2: bytes | None = None
    node_1: bytes | None = None
    node_2: bytes | None = None


def make_range_replies(
    query: QueryChannelRange, channels: Iterable[ChannelSummary], *, max_channels: int | None = None
) -> list[ReplyChannelRange]:
    """The complete answer to ``query`` (C-232): one or more replies that ascend and together cover the range.

    ``channels`` in any order, those outside the range are left out; ``max_channels`` per reply, by default and at most
    what fits into a message.
    """
    option = QueryOption((query.query_option or 0) & 3)
    end = query.first_blocknum + query.number_of_blocks
    wanted = [c for c in channels if query.first_blocknum <= c.short_channel_id >> 40 < end]
    if C_232.enabled:
        wanted.sort(key=lambda channel: channel.short_channel_id)
    room = (MAX_MESSAGE - _REPLY_OVERHEAD) // (8 + 8 * option.bit_count())
    size = room if max_channels is None else max(1, min(room, max_channels))
    parts = [wanted[i : i + size] for i in range(0, len(wanted), size)] or [[]]
    replies = []
    first = query.first_blocknum
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        stop = end if following is None else (part[-1].short_channel_id >> 40) + 1
        replies.append(_range_reply(query, part, option, first, stop, following is None))
        if following is not None:
            # A block that did not fit whole is named by the next reply too.
            first = min(stop, following[0].short_channel_id >> 40)
    return replies


_REPLY_OVERHEAD = 80
"""Bytes of a reply that are not ids, timestamps or checksums, rounded up."""


def _range_reply(
    query: QueryChannelRange, part: Sequence[ChannelSummary], option: QueryOption, first: int, stop: int, last: bool
) -> ReplyChannelRange:
    timestamps = encode_timestamps([c.timestamps for c in part]) if option & QueryOption.TIMESTAMPS else None
    checksums = tuple(c.checksums for c in part) if option & QueryOption.CHECKSUMS else None
    return ReplyChannelRange(
        chain_hash=query.chain_hash,
        first_blocknum=first,
        number_of_blocks=stop - first,
        sync_complete=int(last),
        encoded_short_ids=encode_short_ids([c.short_channel_id for c in part]),
        timestamps_tlv=timestamps,
        checksums_tlv=checksums,
    )


def summaries_of(reply: ReplyChannelRange) -> tuple[ChannelSummary, ...]:
    """The channels of a received reply; ``WireError`` (C-230). What was not asked for is all 0."""
    ids = decode_short_ids(reply.encoded_short_ids)
    timestamps = [_NO_TIMESTAMPS] * len(ids)
    if reply.timestamps_tlv is not None:
        timestamps = list(decode_timestamps(reply.timestamps_tlv, len(ids)))
    checksums = [_NO_CHECKSUMS] * len(ids) if reply.checksums_tlv is None else list(reply.checksums_tlv)
    if len(checksums) != len(ids):
        refuse(C_230, "not one pair of checksums per channel", offered=len(checksums), allowed=len(ids))
    return tuple(
        ChannelSummary(short_channel_id=id, timestamps=times, checksums=sums)
        for id, times, sums in zip(ids, timestamps, checksums, strict=False)
    )


def make_id_queries(
    chain_hash: bytes, ids: Sequence[int], flags: Sequence[int] | None = None
) -> list[QueryShortChannelIds]:
    """Queries for ascending ``ids``, to be sent one after the other: each waits for the end of the one before (C-231).

    Without ``flags`` everything is asked for.
    """
    if flags is not None and len(flags) != len(ids):
        raise EncodeError(f"{len(flags)} query flags for {len(ids)} channels")
    size = _IDS_PER_QUERY
    return [
        QueryShortChannelIds(
            chain_hash=chain_hash,
            encoded_short_ids=encode_short_ids(ids[i : i + size]),
            query_flags=None if flags is None else encode_query_flags(flags[i : i + size]),
        )
        for i in range(0, len(ids), size)
    ]


_IDS_PER_QUERY = 7000
"""Fits a message with one byte of flag per id."""


def asked_for(query: QueryShortChannelIds) -> tuple[tuple[int, QueryFlag], ...]:
    """The ids of a received query and what is wanted of each; ``WireError`` (C-230)."""
    ids = decode_short_ids(query.encoded_short_ids)
    flags: tuple[QueryFlag, ...] = (EVERYTHING,) * len(ids)
    if query.query_flags is not None:
        flags = decode_query_flags(query.query_flags, len(ids))
    return tuple(zip(ids, flags, strict=False))


def make_ids_answer(
    query: QueryShortChannelIds, known: Mapping[int, KnownChannel], *, full_information: bool = True
) -> list[bytes]:
    """Whole messages that answer ``query`` (C-231): what its flags want of each channel in ``known``, and the end.

    Announcements of nodes follow those of their channels, each once. ``full_information`` is False when we do not keep
    up with that chain. ``WireError`` (C-230).
    """
    answer: list[bytes] = []
    sent: set[bytes] = set()
    for id, flag in asked_for(query):
        channel = known.get(id)
        if channel is None:
            continue
        for bit, message in (
            (QueryFlag.CHANNEL_ANNOUNCEMENT, channel.announcement),
            (QueryFlag.CHANNEL_UPDATE_1, channel.update_1),
            (QueryFlag.CHANNEL_UPDATE_2, channel.update_2),
            (QueryFlag.NODE_ANNOUNCEMENT_1, channel.node_1),
            (QueryFlag.NODE_ANNOUNCEMENT_2, channel.node_2),
        ):
            if flag & bit and message is not None and message not in sent:
                sent.add(message)
                answer.append(message)
    if C_231.enabled:
        end = ReplyShortChannelIdsEnd(chain_hash=query.chain_hash, full_information=int(full_information))
        answer.append(encode(end))
    return answer
