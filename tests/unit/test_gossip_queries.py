"""Gossip queries: encoded arrays, what a query asks for, and complete answers."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.testing.wire_strategies import structs
from leyden.types import make_short_channel_id
from leyden.types.rules import C_230
from leyden.wire import (
    MAX_MESSAGE,
    ChannelUpdate,
    ChannelUpdateChecksums,
    ChannelUpdateTimestamps,
    EncodedTimestamps,
    EncodeError,
    QueryChannelRange,
    QueryFlags,
    QueryShortChannelIds,
    ReplyChannelRange,
    ReplyShortChannelIdsEnd,
    WireError,
    decode,
    encode,
)
from leyden.wire.gossip_queries import (
    EVERYTHING,
    ChannelSummary,
    KnownChannel,
    QueryFlag,
    QueryOption,
    asked_for,
    crc32c,
    decode_query_flags,
    decode_short_ids,
    decode_timestamps,
    encode_query_flags,
    encode_short_ids,
    encode_timestamps,
    make_id_queries,
    make_ids_answer,
    make_range_replies,
    summaries_of,
    update_checksum,
)
from msgspec.structs import replace

CHAIN = b"\x06" * 32
QUICK = settings(deadline=None, max_examples=60)
u32 = st.integers(0, 2**32 - 1)
ids = st.lists(st.integers(0, 2**64 - 1), max_size=30, unique=True).map(sorted)
UPDATE = ChannelUpdate(
    signature=b"\1" * 64,
    chain_hash=CHAIN,
    short_channel_id=5,
    timestamp=7,
    message_flags=1,
    channel_flags=0,
    cltv_expiry_delta=40,
    htlc_minimum_msat=1,
    fee_base_msat=1000,
    fee_proportional_millionths=100,
    htlc_maximum_msat=10**9,
)


def summary(id: int, n: int = 0) -> ChannelSummary:
    return ChannelSummary(
        short_channel_id=id,
        timestamps=ChannelUpdateTimestamps(timestamp_node_id_1=n, timestamp_node_id_2=n + 1),
        checksums=ChannelUpdateChecksums(checksum_node_id_1=n + 2, checksum_node_id_2=n + 3),
    )


# --- arrays -----------------------------------------------------------------------------------------------------------


@QUICK
@given(ids, st.lists(st.integers(0, 31), max_size=30), st.lists(st.tuples(u32, u32), max_size=30))
def test_round_trip(numbers: list[int], flags: list[int], times: list[tuple[int, int]]) -> None:
    assert decode_short_ids(encode_short_ids(numbers)) == tuple(numbers)
    assert decode_query_flags(encode_query_flags(flags), len(flags)) == tuple(flags)
    pairs = tuple(ChannelUpdateTimestamps(timestamp_node_id_1=one, timestamp_node_id_2=two) for one, two in times)
    assert decode_timestamps(encode_timestamps(pairs), len(pairs)) == pairs


@QUICK
@given(st.binary(max_size=40), st.integers(0, 1), st.integers(0, 5))
def test_garbage(data: bytes, encoding: int, count: int) -> None:
    flags = QueryFlags(encoding_type=encoding, encoded_query_flags=data)
    times = EncodedTimestamps(encoding_type=encoding, encoded_timestamps=data)
    for read in (
        lambda: decode_short_ids(data),
        lambda: decode_query_flags(flags, count),
        lambda: decode_timestamps(times, count),
    ):
        with contextlib.suppress(WireError):
            read()


@QUICK
@given(structs(ReplyChannelRange), structs(QueryShortChannelIds))
def test_any_message(reply: ReplyChannelRange, query: QueryShortChannelIds) -> None:
    with contextlib.suppress(WireError):
        summaries_of(reply)
    with contextlib.suppress(WireError):
        make_ids_answer(query, {})


@pytest.mark.proves("C-230")
@pytest.mark.parametrize("data", [b"", b"\0\1", b"\0" * 8, b"\1" + bytes(8), b"\2" + bytes(8), b"\0" * 10])
def test_ids_that_do_not_decode(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_short_ids(data)
    assert caught.value.rule is C_230


@pytest.mark.proves("C-230")
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        pytest.param(0, b"\1", id="too few"),
        pytest.param(0, b"\1\2\3", id="too many"),
        pytest.param(0, b"\1\xfd\0\2", id="not minimal"),
        pytest.param(0, b"\1\xfd", id="cut short"),
        pytest.param(1, b"\1\2", id="another encoding"),
    ],
)
def test_flags_that_do_not_decode(encoding: int, data: bytes) -> None:
    query = QueryShortChannelIds(
        chain_hash=CHAIN,
        encoded_short_ids=encode_short_ids([1, 2]),
        query_flags=QueryFlags(encoding_type=encoding, encoded_query_flags=data),
    )
    with pytest.raises(WireError) as caught:
        asked_for(query)
    assert caught.value.rule is C_230


@pytest.mark.proves("C-230")
@pytest.mark.parametrize("size", [7, 8, 9, 24])
def test_timestamps_and_checksums_for_each_channel(size: int) -> None:
    reply = ReplyChannelRange(
        chain_hash=CHAIN,
        first_blocknum=0,
        number_of_blocks=1,
        sync_complete=1,
        encoded_short_ids=encode_short_ids([1, 2]),
        timestamps_tlv=EncodedTimestamps(encoding_type=0, encoded_timestamps=bytes(size)),
    )
    checksums = (ChannelUpdateChecksums(checksum_node_id_1=1, checksum_node_id_2=1),) * (size // 8)
    for broken in (reply, replace(reply, timestamps_tlv=None, checksums_tlv=checksums)):
        with pytest.raises(WireError) as caught:
            summaries_of(broken)
        assert caught.value.rule is C_230


def test_unknown_flags_ask_for_nothing() -> None:
    flags = QueryFlags(encoding_type=0, encoded_query_flags=b"\x20\xfd\x01\x01")
    assert decode_query_flags(flags, 2) == (QueryFlag(0), QueryFlag.CHANNEL_ANNOUNCEMENT)


def test_our_ids_ascend() -> None:
    for wrong in ([2, 1], [1, 1]):
        with pytest.raises(EncodeError):
            encode_short_ids(wrong)


# --- checksums --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_crc32c(data: bytes, checksum: int) -> None:
    """RFC 3720, B.4 (which prints the bytes in the order of the wire), and the check value of the algorithm."""
    assert crc32c(data) == checksum


@pytest.mark.proves("C-232")
def test_checksum_leaves_out_signature_and_timestamp() -> None:
    """And nothing else; the contents are laid out here by hand."""
    plain = CHAIN + (5).to_bytes(8, "big") + b"\1\0\0\x28" + (1).to_bytes(8, "big")
    plain += (1000).to_bytes(4, "big") + (100).to_bytes(4, "big") + (10**9).to_bytes(8, "big")
    assert update_checksum(UPDATE) == crc32c(plain)
    assert update_checksum(replace(UPDATE, timestamp=8, signature=b"\2" * 64)) == update_checksum(UPDATE)
    assert update_checksum(replace(UPDATE, fee_base_msat=1001)) != update_checksum(UPDATE)
    (reply,) = make_range_replies(RANGE, [summary(HIGH), summary(LOW)])
    assert [c.short_channel_id for c in summaries_of(reply)] == [LOW, HIGH]


# --- ranges -----------------------------------------------------------------------------------------------------------


RANGE = QueryChannelRange(chain_hash=CHAIN, first_blocknum=100, number_of_blocks=50)
LOW, HIGH = make_short_channel_id(100, 0, 0), make_short_channel_id(149, 2**24 - 1, 2**16 - 1)


def covers(query: QueryChannelRange, replies: list[ReplyChannelRange]) -> None:
    """What BOLT 7 demands of the shape of replies."""
    assert [reply.sync_complete for reply in replies] == [0] * (len(replies) - 1) + [1]
    at = query.first_blocknum
    for reply in replies:
        assert reply.chain_hash == query.chain_hash
        assert query.first_blocknum <= reply.first_blocknum <= at
        assert at - reply.first_blocknum <= 1, "only the block that was split is named again"
        assert reply.number_of_blocks >= 1
        at = reply.first_blocknum + reply.number_of_blocks
        for channel in summaries_of(reply):
            assert reply.first_blocknum <= channel.short_channel_id >> 40 < at
    assert at == query.first_blocknum + query.number_of_blocks


@QUICK
@given(
    st.lists(st.tuples(st.integers(90, 160), st.integers(0, 3)), max_size=40, unique=True),
    st.integers(1, 8),
    st.sampled_from([None, 0, 1, 2, 3, 7]),
)
def test_replies_cover_the_range(places: list[tuple[int, int]], size: int, option: int | None) -> None:
    query = replace(RANGE, query_option=option)
    channels = [summary(make_short_channel_id(block, index, 0), index) for block, index in places]
    replies = make_range_replies(query, channels, max_channels=size)
    covers(query, replies)
    got = [channel for reply in replies for channel in summaries_of(reply)]
    wanted = sorted((c.short_channel_id, c) for c in channels if 100 <= c.short_channel_id >> 40 < 150)
    assert [channel.short_channel_id for channel in got] == [id for id, _ in wanted]
    for reply in replies:
        assert (reply.timestamps_tlv is not None) == bool((option or 0) & QueryOption.TIMESTAMPS)
        assert (reply.checksums_tlv is not None) == bool((option or 0) & QueryOption.CHECKSUMS)
    if option == 3:
        assert got == [channel for _, channel in wanted]


def test_nothing_known() -> None:
    (reply,) = make_range_replies(RANGE, [])
    covers(RANGE, [reply])
    assert reply.encoded_short_ids == b"\0"


def test_last_possible_blocks() -> None:
    query = replace(RANGE, first_blocknum=2**32 - 1, number_of_blocks=2**32 - 1)
    (reply,) = make_range_replies(query, [])
    assert decode(encode(reply)) == reply


@pytest.mark.parametrize("option", [None, 1, 3])
def test_replies_fill_messages_and_no_more(option: int | None) -> None:
    query = replace(RANGE, query_option=option)
    channels = [summary(make_short_channel_id(100 + i % 50, i, 0)) for i in range(9000)]
    replies = make_range_replies(query, channels)
    covers(query, replies)
    sizes = [len(encode(reply)) for reply in replies]
    assert MAX_MESSAGE - 100 < max(sizes) <= MAX_MESSAGE
    assert sum(len(summaries_of(reply)) for reply in replies) == 9000


# --- ids --------------------------------------------------------------------------------------------------------------

KNOWN = {
    1: KnownChannel(announcement=b"a1", update_1=b"u11", update_2=b"u12", node_1=b"n1", node_2=b"n2"),
    2: KnownChannel(announcement=b"a2", update_1=b"u21", node_1=b"n1", node_2=b"n3"),
}


@pytest.mark.proves("C-231")
@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (None, b"a1 u11 u12 n1 n2 a2 u21 n3"),
        ([EVERYTHING, 0, 0], b"a1 u11 u12 n1 n2"),
        ([QueryFlag.CHANNEL_ANNOUNCEMENT, 2, 31], b"a1 u21"),
        ([4, 4, 4], b"u12"),
        ([8, 24, 8], b"n1 n3"),
        ([0, 0, 31], b""),
    ],
)
def test_answer(flags: list[int] | None, messages: bytes) -> None:
    """Channel 3 is unknown, channel 2 has no second update, and both share a node."""
    (query,) = make_id_queries(CHAIN, [1, 2, 3], flags)
    assert decode(encode(query)) == query
    *answer, end = make_ids_answer(query, KNOWN)
    assert answer == messages.split()
    assert decode(end) == ReplyShortChannelIdsEnd(chain_hash=CHAIN, full_information=1)
    assert decode(make_ids_answer(query, KNOWN, full_information=False)[-1]) == ReplyShortChannelIdsEnd(
        chain_hash=CHAIN, full_information=0
    )


def test_queries_fit_messages() -> None:
    numbers = list(range(20_000))
    flags = [EVERYTHING] * len(numbers)
    queries = make_id_queries(CHAIN, numbers, flags)
    assert all(len(encode(query)) <= MAX_MESSAGE for query in queries)
    assert [pair for query in queries for pair in asked_for(query)] == list(zip(numbers, flags, strict=True))
    assert make_id_queries(CHAIN, []) == []
    with pytest.raises(EncodeError):
        make_id_queries(CHAIN, numbers, flags[1:])
