"""What nodes say of themselves and their channels: addresses, aliases, signatures, fees."""

import contextlib
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import ecdsa_sign, pubkey_create, sha256d
from leyden.types import CltvDelta, Msat
from leyden.types.rules import C_213, C_219, C_226
from leyden.wire import ChannelAnnouncement, ChannelUpdate, EncodeError, NodeAnnouncement, WireError, decode, encode
from leyden.wire.forwarding import HopTerms, route_offers
from leyden.wire.gossip_signatures import (
    channel_announcement_digest,
    channel_update_digest,
    check_channel_announcement,
    check_channel_update,
    check_node_announcement,
    node_announcement_digest,
)
from leyden.wire.node_addresses import (
    AddressType,
    NodeAddress,
    decode_addresses,
    decode_alias,
    encode_addresses,
    encode_alias,
    next_timestamp,
)
from msgspec.structs import replace

QUICK = settings(deadline=None, max_examples=80)
SECRETS = [bytes([i]) * 32 for i in (1, 2, 3, 4)]
KEYS = [pubkey_create(secret) for secret in SECRETS]
CHAIN = b"\x06" * 32

V4 = NodeAddress(type=AddressType.IPV4, host=IPv4Address("1.2.3.4").packed, port=9735)
V6 = NodeAddress(type=AddressType.IPV6, host=IPv6Address("::1").packed, port=9736)
ONION = NodeAddress(type=AddressType.TOR_V3, host=bytes(range(35)), port=1)
NAME = NodeAddress(type=AddressType.DNS, host=b"example.org", port=65535)
V4_BYTES = b"\1\1\2\3\4\x26\x07"
TOR_V2_BYTES = b"\3" + b"\7" * 10 + b"\x26\x07"
NAME_BYTES = b"\5\x0bexample.org\xff\xff"


def sizes(kind: AddressType) -> st.SearchStrategy[bytes]:
    if kind is AddressType.DNS:
        return st.text("abc.-1", min_size=1, max_size=20).map(str.encode)
    size = {AddressType.IPV4: 4, AddressType.IPV6: 16, AddressType.TOR_V3: 35}[kind]
    return st.binary(min_size=size, max_size=size)


addresses = st.sampled_from([AddressType.IPV4, AddressType.IPV6, AddressType.TOR_V3, AddressType.DNS]).flatmap(
    lambda kind: st.builds(NodeAddress, type=st.just(kind), host=sizes(kind), port=st.integers(1, 65535))
)


# --- addresses --------------------------------------------------------------------------------------------------------


@QUICK
@given(st.lists(addresses, max_size=8))
def test_addresses_round_trip(found: list[NodeAddress]) -> None:
    names = [a for a in found if a.type is AddressType.DNS]
    ours = [a for a in found if a.type is not AddressType.DNS] + names[:1]
    read = decode_addresses(encode_addresses(ours))
    assert read.addresses == tuple(sorted(ours, key=lambda a: a.type))
    assert read.may_relay


@QUICK
@given(st.one_of(st.binary(max_size=60), st.lists(st.sampled_from([V4_BYTES, NAME_BYTES, b"\2", b"\4"])).map(b"".join)))
def test_garbage(data: bytes) -> None:
    with contextlib.suppress(WireError):
        for address in decode_addresses(data).addresses:
            assert str(address).endswith(f":{address.port}")


def test_addresses_for_people() -> None:
    assert [str(a) for a in (V4, V6, NAME)] == ["1.2.3.4:9735", "[::1]:9736", "example.org:65535"]
    assert str(ONION) == "aaaqeayeaudaocajbifqydiob4ibceqtcqkrmfyydenbwha5dypsaijc.onion:1"
    assert str(replace(NAME, host=b"a\x1b[31m\xff")) == "a?[31m\ufffd:65535"


@pytest.mark.proves("C-220")
@pytest.mark.parametrize(
    ("data", "found", "may_relay"),
    [
        pytest.param(V4_BYTES + b"\6" + V4_BYTES, (V4,), True, id="stops at an unknown type"),
        pytest.param(b"\0" + V4_BYTES, (), True, id="type 0 is unknown too"),
        pytest.param(TOR_V2_BYTES + V4_BYTES, (V4,), True, id="Tor v2 is skipped"),
        pytest.param(V4_BYTES[:-2] + b"\0\0" + V4_BYTES, (V4,), True, id="port 0 is skipped"),
        pytest.param(NAME_BYTES[:-2] + b"\0\0", (), True, id="port 0 of a name"),
        pytest.param(V4_BYTES + NAME_BYTES + NAME_BYTES + V4_BYTES, (V4, NAME), False, id="a second name"),
    ],
)
def test_addresses_that_are_not_taken(data: bytes, found: tuple[NodeAddress, ...], may_relay: bool) -> None:
    read = decode_addresses(data)
    assert (read.addresses, read.may_relay) == (found, may_relay)


@pytest.mark.proves("C-219")
@pytest.mark.parametrize(
    "data", [V4_BYTES[:-1], b"\1", b"\2" + bytes(17), TOR_V2_BYTES[:-1], b"\4" + bytes(36), b"\5", NAME_BYTES[:-1]]
)
def test_addresses_cut_short(data: bytes) -> None:
    with pytest.raises(WireError) as caught:
        decode_addresses(V4_BYTES + data)
    assert caught.value.rule is C_219


@pytest.mark.proves("C-221")
def test_our_announcement() -> None:
    assert encode_addresses([NAME, V4]) == V4_BYTES + NAME_BYTES, "in order of type"
    assert encode_alias("tea") == b"tea" + bytes(29)
    assert encode_alias("\u00e9" * 16) == b"\xc3\xa9" * 16
    assert (next_timestamp(100, 50), next_timestamp(100, 100), next_timestamp(100, 200)) == (100, 101, 201)


@pytest.mark.parametrize(
    "wrong",
    [
        [NAME, replace(NAME, host=b"example.com")],
        [replace(V4, port=0)],
        [replace(V4, port=65536)],
        [replace(V4, host=b"\1\2\3")],
        [replace(NAME, host="t\u00e9.org".encode())],
        [replace(NAME, host=b"")],
        [replace(NAME, host=b"x" * 256)],
        [NodeAddress(type=AddressType.TOR_V2, host=bytes(10), port=1)],
    ],
)
def test_addresses_that_we_do_not_announce(wrong: list[NodeAddress]) -> None:
    with pytest.raises(EncodeError):
        encode_addresses(wrong)


@pytest.mark.parametrize("alias", ["x" * 33, "\u00e9" * 17, "a\0b", "\ud800"])
def test_aliases_that_we_do_not_announce(alias: str) -> None:
    with pytest.raises(EncodeError):
        encode_alias(alias)


@pytest.mark.parametrize(
    ("alias", "text"),
    [(b"tea" + bytes(29), "tea"), (b"a\0b", "a?b"), (b"\xff\xfe", "\ufffd\ufffd"), (b"a\xe2\x80\xaeb", "a?b")],
)
def test_aliases_for_people(alias: bytes, text: str) -> None:
    assert decode_alias(alias) == text


# --- signatures -------------------------------------------------------------------------------------------------------


def announcement(excess: bytes = b"") -> ChannelAnnouncement:
    blank = ChannelAnnouncement(
        node_signature_1=bytes(64),
        node_signature_2=bytes(64),
        bitcoin_signature_1=bytes(64),
        bitcoin_signature_2=bytes(64),
        features=b"",
        chain_hash=CHAIN,
        short_channel_id=5,
        node_id_1=KEYS[0],
        node_id_2=KEYS[1],
        bitcoin_key_1=KEYS[2],
        bitcoin_key_2=KEYS[3],
        excess=excess,
    )
    one, two, three, four = (ecdsa_sign(secret, channel_announcement_digest(blank)) for secret in SECRETS)
    return replace(
        blank, node_signature_1=one, node_signature_2=two, bitcoin_signature_1=three, bitcoin_signature_2=four
    )


def update(direction: int) -> ChannelUpdate:
    blank = ChannelUpdate(
        signature=bytes(64),
        chain_hash=CHAIN,
        short_channel_id=5,
        timestamp=7,
        message_flags=1,
        channel_flags=direction,
        cltv_expiry_delta=40,
        htlc_minimum_msat=1,
        fee_base_msat=1000,
        fee_proportional_millionths=100,
        htlc_maximum_msat=10**9,
        excess=b"later field",
    )
    return replace(blank, signature=ecdsa_sign(SECRETS[direction], channel_update_digest(blank)))


def node(secret: bytes = SECRETS[0]) -> NodeAnnouncement:
    blank = NodeAnnouncement(
        signature=bytes(64),
        features=b"\x02",
        timestamp=7,
        node_id=KEYS[0],
        rgb_color=b"\1\2\3",
        alias=encode_alias("tea"),
        addresses=encode_addresses([V4]),
        excess=b"later field",
    )
    return replace(blank, signature=ecdsa_sign(secret, node_announcement_digest(blank)))


def test_what_is_signed() -> None:
    assert channel_announcement_digest(announcement()) == sha256d(encode(announcement())[2 + 256 :])
    assert channel_update_digest(update(0)) == sha256d(encode(update(0))[2 + 64 :])
    assert node_announcement_digest(node()) == sha256d(encode(node())[2 + 64 :])


@pytest.mark.proves("C-213")
@pytest.mark.parametrize("name", ["node_signature_1", "node_signature_2", "bitcoin_signature_1", "bitcoin_signature_2"])
def test_each_signature_of_a_channel_counts(name: str) -> None:
    good = announcement(b"later field")
    check_channel_announcement(good)
    received = decode(encode(good))
    assert isinstance(received, ChannelAnnouncement)
    check_channel_announcement(received)
    signature = getattr(good, name)
    for broken in (
        replace(good, **{name: signature[:-1] + bytes([signature[-1] ^ 1])}),
        replace(good, **{name: bytes(64)}),
        replace(good, **{name: b"\xff" * 64}),
    ):
        with pytest.raises(WireError, match=name) as caught:
            check_channel_announcement(broken)
        assert caught.value.rule is C_213


@pytest.mark.proves("C-213")
def test_all_of_a_channel_is_signed() -> None:
    good = announcement(b"later field")
    for changes in ({"excess": b""}, {"features": b"\1"}, {"short_channel_id": 6}, {"node_id_1": KEYS[1]}):
        with pytest.raises(WireError):
            check_channel_announcement(replace(good, **changes))


@pytest.mark.proves("C-226")
@pytest.mark.parametrize("direction", [0, 1])
def test_signature_of_updates(direction: int) -> None:
    good = update(direction)
    check_channel_update(good, KEYS[0], KEYS[1])
    for broken in (
        replace(good, excess=b""),
        replace(good, timestamp=8),
        replace(good, signature=bytes(64)),
        replace(good, channel_flags=direction ^ 1),
    ):
        with pytest.raises(WireError) as caught:
            check_channel_update(broken, KEYS[0], KEYS[1])
        assert caught.value.rule is C_226


@pytest.mark.proves("C-219")
def test_signature_of_nodes() -> None:
    check_node_announcement(node())
    for broken in (node(SECRETS[1]), replace(node(), excess=b""), replace(node(), alias=bytes(32))):
        with pytest.raises(WireError) as caught:
            check_node_announcement(broken)
        assert caught.value.rule is C_219


def test_no_key_is_no_signature() -> None:
    with pytest.raises(WireError):
        check_channel_update(update(0), bytes(33), KEYS[1])


# --- fees -------------------------------------------------------------------------------------------------------------

hops = st.builds(
    HopTerms,
    fee_base_msat=st.integers(0, 10**6).map(Msat),
    fee_proportional_millionths=st.integers(0, 10**6),
    cltv_expiry_delta=st.integers(0, 2000).map(CltvDelta),
)


@QUICK
@given(st.lists(hops, min_size=1, max_size=6), st.integers(1, 10**12))
def test_every_hop_is_paid(channels: list[HopTerms], amount: int) -> None:
    offers = route_offers(channels, Msat(amount), CltvDelta(18))
    assert len(offers) == len(channels)
    assert (offers[-1].amount_msat, offers[-1].cltv_delta) == (amount, 18)
    for terms, incoming, outgoing in zip(channels[1:], offers[:-1], offers[1:], strict=True):
        assert terms.is_paid_by(incoming.amount_msat, outgoing.amount_msat)
        assert not terms.is_paid_by(Msat(incoming.amount_msat - 1), outgoing.amount_msat), "and not more"
        assert incoming.cltv_delta - outgoing.cltv_delta == terms.cltv_expiry_delta
