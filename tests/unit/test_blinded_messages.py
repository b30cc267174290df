"""Onion messages: they arrive over any joined paths, relays learn nothing, whatever is odd is dropped."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import aead_encrypt, ecdh, pubkey_create, sha256
from leyden.onion import (
    OnionError,
    ReceivedMessage,
    RelayedMessage,
    blinded_ephemeral_key,
    build_onion,
    extend_message_path,
    keys,
    make_blinded_path,
    make_message_path,
    make_onion_message,
    open_recipient_data,
    peel_onion_message,
)
from leyden.wire.codec import UnknownRecord, encode_struct
from leyden.wire.onion_message import BlindedPath, OnionMessage, OnionMessagePayload
from leyden.wire.onion_payload import EncryptedData, PaymentConstraints, PaymentRelay

SECRETS = [sha256(b"node %d" % i) for i in range(8)]
NODES = [pubkey_create(secret) for secret in SECRETS]
THEIRS, OURS, SESSION_KEY = b"\x51" * 32, b"\x52" * 32, b"\x41" * 32
CONTENT = OnionMessagePayload(invoice_request=b"request")


def peel(message: OnionMessage, node: int) -> RelayedMessage | ReceivedMessage:
    path_secret = ecdh(SECRETS[node], message.path_key)
    point = blinded_ephemeral_key(message.onion_message_packet, path_secret)
    return peel_onion_message(message, path_secret, ecdh(SECRETS[node], point))


@given(before=st.integers(0, 4), hops=st.integers(1, 4), content=st.binary(max_size=2000), reply=st.booleans())
@settings(deadline=None, max_examples=30)
def test_messages_arrive(before: int, hops: int, content: bytes, reply: bool) -> None:
    nodes = NODES[: before + hops]
    path = make_message_path(THEIRS, nodes[before:], path_id=b"for you")
    joined = extend_message_path(OURS, nodes[:before], path, path.first_node_id)
    back = make_message_path(b"\x53" * 32, NODES[4:6], path_id=b"answer") if reply else None
    message = make_onion_message(SESSION_KEY, joined, OnionMessagePayload(invoice=content, reply_path=back))
    assert joined.first_node_id == nodes[0]
    for node in range(len(nodes) - 1):
        relayed = peel(message, node)
        assert isinstance(relayed, RelayedMessage)
        assert (relayed.next_node_id, relayed.short_channel_id) == (nodes[node + 1], None)
        assert len(relayed.message.onion_message_packet) == len(message.onion_message_packet)
        message = relayed.message
    received = peel(message, len(nodes) - 1)
    assert isinstance(received, ReceivedMessage)
    assert (received.path_id, received.payload.invoice, received.payload.reply_path) == (b"for you", content, back)


@pytest.mark.proves("C-202")
def test_packets_have_one_of_two_sizes() -> None:
    path = make_message_path(THEIRS, NODES[:3])
    sizes = {
        len(make_onion_message(SESSION_KEY, path, OnionMessagePayload(invoice=bytes(size))).onion_message_packet)
        for size in (0, 10, 500, 1300, 20_000)
    }
    assert sizes == {1366, 32834}
    with pytest.raises(OnionError) as caught:
        make_onion_message(SESSION_KEY, path, OnionMessagePayload(invoice=bytes(33_000)))
    assert caught.value.rule.id == "C-202"


@pytest.mark.proves("C-202")
def test_recipient_data_come_from_the_path() -> None:
    with pytest.raises(OnionError) as caught:
        make_onion_message(
            SESSION_KEY, make_message_path(THEIRS, NODES[:2]), OnionMessagePayload(encrypted_recipient_data=b"mine")
        )
    assert caught.value.rule.id == "C-202"


def test_paths_for_messages_carry_no_terms_and_look_alike() -> None:
    path = extend_message_path(OURS, NODES[:2], make_message_path(THEIRS, NODES[2:5], path_id=bytes(40)), NODES[2])
    sizes = [len(hop.encrypted_recipient_data) for hop in path.path]
    assert len(set(sizes[:2])) == len(set(sizes[2:])) == 1
    path_key = path.first_path_key
    for secret, hop in zip(SECRETS, path.path, strict=False):
        opened = open_recipient_data(path_key, ecdh(secret, path_key), hop.encrypted_recipient_data)
        assert (opened.data.payment_relay, opened.data.payment_constraints) == (None, None)
        path_key = opened.next_path_key
    with pytest.raises(OnionError):
        make_message_path(THEIRS, [])
    untouched = make_message_path(THEIRS, NODES[:2])
    assert extend_message_path(OURS, [], untouched, NODES[0]) is untouched


# --- what is dropped --------------------------------------------------------------------------------------------------


def crafted(
    first: EncryptedData | bytes, payload: OnionMessagePayload | bytes = b"", *, relay: bool = True
) -> OnionMessage:
    """A message for node 0 whose data and payload are put together by hand."""
    path = make_blinded_path(THEIRS, [(NODES[0], EncryptedData()), (NODES[1], EncryptedData(path_id=b"x"))])
    secret = ecdh(SECRETS[0], path.first_path_key)
    plain = first if isinstance(first, bytes) else encode_struct(first)
    data = aead_encrypt(keys.rho(secret), bytes(12), b"", plain)
    if isinstance(payload, bytes):
        own = payload or encode_struct(OnionMessagePayload(encrypted_recipient_data=data))
    else:
        fields = {name: getattr(payload, name) for name in payload.__struct_fields__}
        own = encode_struct(OnionMessagePayload(**(fields | {"encrypted_recipient_data": data})))
    hops = [(path.path[0].blinded_node_id, own)]
    if relay:
        hops.append((path.path[1].blinded_node_id, b"ok"))
    packet, _ = build_onion(SESSION_KEY, hops, b"")
    return OnionMessage(path_key=path.first_path_key, onion_message_packet=packet)


def dropped(rule: str, message: OnionMessage) -> None:
    with pytest.raises(OnionError) as caught:
        peel(message, 0)
    assert caught.value.rule.id == rule
    assert caught.value.failure is None


NEXT = EncryptedData(next_node_id=NODES[1])


@pytest.mark.proves("C-203")
@pytest.mark.parametrize("position", [40, 700, -1])
def test_a_changed_packet(position: int) -> None:
    message = make_onion_message(SESSION_KEY, make_message_path(THEIRS, NODES[:2]), CONTENT)
    packet = bytearray(message.onion_message_packet)
    packet[position] ^= 1
    dropped("C-203", OnionMessage(path_key=message.path_key, onion_message_packet=bytes(packet)))


@pytest.mark.proves("C-203")
@pytest.mark.parametrize(
    "message",
    [
        crafted(EncryptedData()),  # no next hop
        crafted(EncryptedData(next_node_id=NODES[1], allowed_features=b"\x02")),
        crafted(b"\x10\x00"),  # unknown even record
        crafted(b"\x04\x21"),  # cut short
        crafted(NEXT, b"\x06\x00"),  # unknown even record in the payload
        crafted(NEXT, b"\x01\x00"),  # nothing from the maker of the path
        crafted(NEXT, b"\x04\x00"),
        crafted(EncryptedData(), OnionMessagePayload(invoice=b"", invoice_error=b""), relay=False),
        crafted(EncryptedData(), OnionMessagePayload(invoice=b"", unknown=(UnknownRecord(65537, b""),)), relay=False),
    ],
)
def test_messages_that_make_no_sense(message: OnionMessage) -> None:
    dropped("C-203", message)


@pytest.mark.proves("C-204")
@pytest.mark.parametrize(
    "message",
    [
        crafted(NEXT, OnionMessagePayload(invoice_request=b"")),
        crafted(NEXT, OnionMessagePayload(reply_path=make_message_path(OURS, NODES[:1]))),
        crafted(NEXT, OnionMessagePayload(unknown=(UnknownRecord(1, b""),))),
        crafted(EncryptedData(next_node_id=NODES[1], path_id=b"")),
    ],
)
def test_a_relay_is_told_nothing_else(message: OnionMessage) -> None:
    dropped("C-204", message)


def test_one_content_beside_small_odd_records() -> None:
    payload = OnionMessagePayload(invoice=b"", unknown=(UnknownRecord(1, b"hello"),))
    received = peel(crafted(EncryptedData(), payload, relay=False), 0)
    assert isinstance(received, ReceivedMessage)
    assert (received.payload.invoice, received.path_id) == (b"", None)


@pytest.mark.proves("C-205")
def test_the_node_comes_before_the_channel() -> None:
    both = peel(crafted(EncryptedData(next_node_id=NODES[1], short_channel_id=7)), 0)
    assert isinstance(both, RelayedMessage)
    assert (both.next_node_id, both.short_channel_id) == (NODES[1], None)


def test_a_channel_alone_names_the_next_hop() -> None:
    relayed = peel(crafted(EncryptedData(short_channel_id=7)), 0)
    assert isinstance(relayed, RelayedMessage)
    assert (relayed.next_node_id, relayed.short_channel_id) == (None, 7)


def test_terms_of_payments_do_not_matter() -> None:
    """They are not to be written; a message that has them all the same is relayed."""
    data = EncryptedData(
        next_node_id=NODES[1],
        payment_relay=PaymentRelay(cltv_expiry_delta=1, fee_proportional_millionths=1, fee_base_msat=1),
        payment_constraints=PaymentConstraints(max_cltv_expiry=0, htlc_minimum_msat=1),
    )
    assert isinstance(peel(crafted(data), 0), RelayedMessage)


@given(packet=st.binary(max_size=1500), key=st.sampled_from(NODES))
@settings(deadline=None, max_examples=60)
def test_garbage_is_dropped(packet: bytes, key: bytes) -> None:
    message: Any = OnionMessage(path_key=key, onion_message_packet=b"\0" + NODES[3] + packet)
    with pytest.raises(OnionError):
        peel(message, 0)


def test_a_path_that_leads_back_to_us() -> None:
    path: BlindedPath = make_message_path(THEIRS, NODES[:1], path_id=b"me")
    received = peel(make_onion_message(SESSION_KEY, path, CONTENT), 0)
    assert received == ReceivedMessage(
        payload=OnionMessagePayload(
            invoice_request=b"request", encrypted_recipient_data=path.path[0].encrypted_recipient_data
        ),
        path_id=b"me",
    )
