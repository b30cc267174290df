"""BOLT 7: extended-queries, channel ids, the fee formula and the routing example."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import Network
from leyden.types import CltvDelta, Msat, ShortChannelId, format_short_channel_id, parse_short_channel_id
from leyden.types.rules import C_230
from leyden.wire import QueryChannelRange, QueryShortChannelIds, ReplyChannelRange, WireError, decode, encode
from leyden.wire.forwarding import HopTerms, route_offers
from leyden.wire.gossip import ChannelUpdateChecksums, ChannelUpdateTimestamps
from leyden.wire.gossip_queries import (
    ChannelSummary,
    QueryOption,
    asked_for,
    encode_query_flags,
    encode_short_ids,
    encode_timestamps,
    make_range_replies,
    summaries_of,
)
from leyden.wire.node_addresses import BODY_SIZES, AddressType

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt07.json").read_text("utf-8"))
PLAIN = [case for case in DATA["queries"] if not case["zlib"]]
COMPRESSED = [case for case in DATA["queries"] if case["zlib"]]


def ids_of(case: dict[str, Any]) -> list[int]:
    return [parse_short_channel_id(text) for text in case["short_channel_ids"]]


def summaries(case: dict[str, Any]) -> list[ChannelSummary]:
    nothing = [[0, 0]] * len(case["short_channel_ids"])
    columns = zip(ids_of(case), case.get("timestamps", nothing), case.get("checksums", nothing), strict=True)
    return [
        ChannelSummary(
            short_channel_id=id,
            timestamps=ChannelUpdateTimestamps(timestamp_node_id_1=times[0], timestamp_node_id_2=times[1]),
            checksums=ChannelUpdateChecksums(checksum_node_id_1=sums[0], checksum_node_id_2=sums[1]),
        )
        for id, times, sums in columns
    ]


def number(case: dict[str, Any]) -> str:
    return f"{DATA['queries'].index(case)} {case['message']}"


@pytest.mark.parametrize("case", PLAIN, ids=number)
def test_queries(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["bytes"])
    message = decode(data)
    assert type(message).__name__ == case["message"]
    assert encode(message) == data
    match message:
        case QueryChannelRange():
            assert message.first_blocknum == case["first_blocknum"]
            assert message.number_of_blocks == case["number_of_blocks"]
            assert message.query_option == case.get("query_option")
            if message.query_option is not None:
                assert message.query_option == QueryOption.TIMESTAMPS | QueryOption.CHECKSUMS
        case ReplyChannelRange():
            assert summaries_of(message) == tuple(summaries(case))
            assert message.sync_complete == case["sync_complete"]
            assert message.encoded_short_ids == encode_short_ids(ids_of(case))
            if message.timestamps_tlv is not None:
                assert message.timestamps_tlv == encode_timestamps([c.timestamps for c in summaries(case)])
        case QueryShortChannelIds():
            assert [id for id, _ in asked_for(message)] == ids_of(case)
            assert message.encoded_short_ids == encode_short_ids(ids_of(case))
        case _:
            pytest.fail("another message")
    assert message.chain_hash.hex() == case["chain_hash"]


@pytest.mark.parametrize("case", COMPRESSED, ids=number)
@pytest.mark.proves("C-230")
def test_compressed_arrays_are_refused(case: dict[str, Any]) -> None:
    message = decode(bytes.fromhex(case["bytes"]))
    with pytest.raises(WireError) as caught:
        if isinstance(message, ReplyChannelRange):
            summaries_of(message)
        else:
            assert isinstance(message, QueryShortChannelIds)
            asked_for(message)
    assert caught.value.rule is C_230
    assert "must not be used" in str(caught.value)


def test_compressed_case_in_the_plain_encoding() -> None:
    """The same flags that the compressed case carries, as they are sent now."""
    flags = [case["query_flags"] for case in COMPRESSED if "query_flags" in case]
    assert flags == [[1, 2, 4], [1, 2, 4]]
    assert encode_query_flags(flags[0]).encoded_query_flags == b"\1\2\4"


@pytest.mark.proves("C-232")
def test_reply_is_made_as_the_vector_has_it() -> None:
    """The full reply, made anew from its contents; its ids lie outside the range that it claims, so the range moves."""
    (case,) = [case for case in PLAIN if "checksums" in case]
    sent = decode(bytes.fromhex(case["bytes"]))
    assert isinstance(sent, ReplyChannelRange)
    query = QueryChannelRange(
        chain_hash=sent.chain_hash,
        first_blocknum=0,
        number_of_blocks=case["number_of_blocks"],
        query_option=QueryOption.TIMESTAMPS | QueryOption.CHECKSUMS,
    )
    (reply,) = make_range_replies(query, list(reversed(summaries(case))))
    assert encode(reply)[42:] == encode(sent)[42:], "all behind first_blocknum and number_of_blocks"


@pytest.mark.parametrize("case", DATA["short_channel_ids"], ids=lambda case: case["text"])
def test_short_channel_ids(case: dict[str, Any]) -> None:
    id = parse_short_channel_id(case["text"])
    assert id.to_bytes(8, "big").hex() == case["hex"]
    assert (id >> 40, id >> 16 & 0xFFFFFF, id & 0xFFFF) == (case["block"], case["tx_index"], case["output"])
    assert format_short_channel_id(ShortChannelId(int(case["hex"], 16))) == case["text"]


def terms(case: dict[str, int]) -> HopTerms:
    return HopTerms(
        fee_base_msat=Msat(case["fee_base_msat"]),
        fee_proportional_millionths=case["fee_proportional_millionths"],
        cltv_expiry_delta=CltvDelta(case.get("cltv_expiry_delta", 0)),
    )


@pytest.mark.parametrize("case", DATA["fees"], ids=lambda case: str(case["fee_msat"]))
@pytest.mark.proves("C-237")
def test_fees(case: dict[str, int]) -> None:
    hop, forwarded = terms(case), Msat(case["amount_to_forward_msat"])
    assert hop.fee(forwarded) == case["fee_msat"]
    assert hop.is_paid_by(Msat(forwarded + case["fee_msat"]), forwarded)
    assert hop.is_paid_by(Msat(forwarded + case["fee_msat"] + 1), forwarded)
    assert not hop.is_paid_by(Msat(forwarded + case["fee_msat"] - 1), forwarded)


@pytest.mark.parametrize("route", DATA["routing"]["routes"], ids=lambda route: route["path"])
@pytest.mark.proves("C-238")
def test_routing_example(route: dict[str, Any]) -> None:
    example = DATA["routing"]
    path = route["path"]
    assert all([one, two] in example["edges"] for one, two in itertools.pairwise(path))
    final = CltvDelta(example["nodes"]["C"]["min_final_cltv_expiry_delta"] + example["shadow_route_cltv"])
    channels = [terms(example["nodes"][origin]) for origin in path[:-1]]
    offers = route_offers(channels, Msat(example["payment_msat"]), final)
    first = route["first_hop"]
    assert (offers[0].amount_msat, offers[0].cltv_delta) == (first["amount_msat"], first["cltv_over_height"])
    # A payload names what its hop sends on; the payee's own is the last.
    forwarded = [*offers[1:], offers[-1]] if len(offers) > 1 else list(offers)
    for payload, offer in zip(route["payloads"], forwarded, strict=False):
        assert payload == {"amt_to_forward": offer.amount_msat, "cltv_over_height": offer.cltv_delta}


@pytest.mark.parametrize("case", DATA["addresses"], ids=lambda case: case["name"])
def test_sizes_of_addresses(case: dict[str, Any]) -> None:
    kind = AddressType(case["type"])
    assert case["body_len"] == ("1+hostname_len+2" if kind is AddressType.DNS else BODY_SIZES[kind])


def test_chain_hash_of_bitcoin() -> None:
    assert Network.MAINNET.chain_hash.hex() == DATA["bitcoin_chain_hash"]
