"""BOLT 4: a blinded path made and opened, a payment into one, an onion message over two joined ones."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from leyden.crypto import ecdh, point_tweak_mul, pubkey_create, secret_mul, sha256
from leyden.onion import (
    BlindedForward,
    BlindedHtlc,
    BlindedReceipt,
    OnionError,
    PaymentPathHop,
    ReceivedMessage,
    RelayedMessage,
    aggregate_payinfo,
    blinded_ephemeral_key,
    blinded_path_fee,
    build_onion,
    extend_message_path,
    keys,
    make_blinded_hops,
    make_blinded_path,
    make_onion_message,
    onion_ephemeral_key,
    open_recipient_data,
    path_key_of,
    peel_onion_message,
    peel_payment,
    read_blinded_payment,
)
from leyden.types import BlockHeight, CltvDelta, Msat, ShortChannelId
from leyden.wire import decode, encode
from leyden.wire.codec import UnknownRecord, decode_struct, encode_struct, read_bigsize
from leyden.wire.onion_message import BlindedPath, BlindedPathHop, OnionMessage, OnionMessagePayload
from leyden.wire.onion_payload import EncryptedData, PaymentConstraints, PaymentRelay


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((Path(__file__).parent / "data" / f"{name}.json").read_text())
    return data


PATH, PAYMENT, MESSAGE = load("bolt04_route_blinding"), load("bolt04_blinded_payment"), load("bolt04_onion_message")


def by_name(rows: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("position", range(len(rows)), ids=[row["node"] for row in rows])


def raw(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def features_of(bits: list[int] | None) -> bytes | None:
    if bits is None:
        return None
    bitmap = sum(1 << bit for bit in bits)
    return bitmap.to_bytes((bitmap.bit_length() + 7) // 8, "big")


def data_of(row: dict[str, Any]) -> EncryptedData:
    relay, limits = row.get("payment_relay"), row.get("payment_constraints")
    return EncryptedData(
        padding=raw(row.get("padding")),
        short_channel_id=row.get("short_channel_id"),
        next_node_id=raw(row.get("next_node_id")),
        path_id=raw(row.get("path_id")),
        next_path_key_override=raw(row.get("next_path_key_override")),
        payment_relay=relay
        and PaymentRelay(cltv_expiry_delta=relay[0], fee_proportional_millionths=relay[1], fee_base_msat=relay[2]),
        payment_constraints=limits and PaymentConstraints(max_cltv_expiry=limits[0], htlc_minimum_msat=limits[1]),
        allowed_features=features_of(row.get("allowed_features")),
        unknown=tuple(UnknownRecord(number, bytes.fromhex(value)) for number, value in row.get("unknown", ())),
    )


# --- route blinding ---------------------------------------------------------------------------------------------------


@by_name(PATH["hops"])
def test_data_of_the_path(position: int) -> None:
    hop = PATH["hops"][position]
    assert encode_struct(data_of(hop["data"])).hex() == hop["encoded_data"]
    assert decode_struct(EncryptedData, bytes.fromhex(hop["encoded_data"])) == data_of(hop["data"])


def test_path_is_byte_exact() -> None:
    made: list[BlindedPathHop] = []
    for session_key, hops in zip(PATH["session_keys"], (PATH["hops"][:2], PATH["hops"][2:]), strict=True):
        inputs = [(bytes.fromhex(hop["node_id"]), data_of(hop["data"])) for hop in hops]
        path = make_blinded_path(bytes.fromhex(session_key), inputs)
        assert path.first_node_id.hex() == hops[0]["node_id"]
        assert path.first_path_key.hex() == hops[0]["path_key"]
        made += path.path
    for hop, entry in zip(PATH["hops"], made, strict=True):
        assert entry.blinded_node_id.hex() == hop["blinded_node_id"]
        assert entry.encrypted_recipient_data.hex() == hop["encrypted_recipient_data"]


@by_name(PATH["hops"])
def test_secrets_of_a_hop(position: int) -> None:
    hop = PATH["hops"][position]
    node_secret, path_key = bytes.fromhex(hop["node_secret"]), bytes.fromhex(hop["path_key"])
    secret = ecdh(node_secret, path_key)
    assert secret.hex() == hop["path_secret"]
    assert pubkey_create(bytes.fromhex(hop["path_secret_key"])) == path_key
    assert keys.rho(secret).hex() == hop["rho"]
    assert secret_mul(node_secret, keys.blinded_node_id(secret)).hex() == hop["blinded_secret"]
    assert point_tweak_mul(path_key, sha256(path_key + secret)).hex() == hop["derived_next_path_key"]


@pytest.mark.proves("C-181")
def test_every_hop_learns_the_next_path_key() -> None:
    hops = PATH["hops"]
    for hop, following in pairwise(hops):
        opened = open_recipient_data(
            bytes.fromhex(hop["path_key"]),
            bytes.fromhex(hop["path_secret"]),
            bytes.fromhex(hop["encrypted_recipient_data"]),
        )
        assert opened.data == data_of(hop["data"])
        assert opened.next_path_key.hex() == following["path_key"]


@pytest.mark.proves("C-186")
def test_recipient_of_the_vector_allows_an_unknown_feature() -> None:
    """The vector shows the encryption only: its last hop names feature 113, which nobody has defined."""
    hop = PATH["hops"][-1]
    with pytest.raises(OnionError) as caught:
        open_recipient_data(
            bytes.fromhex(hop["path_key"]),
            bytes.fromhex(hop["path_secret"]),
            bytes.fromhex(hop["encrypted_recipient_data"]),
        )
    assert caught.value.rule.id == "C-186"
    assert caught.value.details["offered"] == features_of([113])


# --- a payment --------------------------------------------------------------------------------------------------------

BLINDED = PAYMENT["hops"][1:]
AMOUNT, EXPIRY = Msat(PAYMENT["final_amount_msat"]), BlockHeight(PAYMENT["final_cltv_expiry"])
TOTAL = Msat(PAYMENT["total_amount_msat"])
PAYMENT_PATH = BlindedPath(
    first_node_id=bytes.fromhex(PAYMENT["path"]["first_node_id"]),
    first_path_key=bytes.fromhex(PAYMENT["path"]["first_path_key"]),
    path=tuple(
        BlindedPathHop(blinded_node_id=bytes.fromhex(key), encrypted_recipient_data=bytes.fromhex(blob))
        for key, blob in PAYMENT["path"]["hops"]
    ),
)


def unframed(text: str) -> bytes:
    framed = bytes.fromhex(text)
    length, start = read_bigsize(framed)
    assert start + length == len(framed)
    return framed[start:]


def relays() -> list[PaymentPathHop]:
    return [
        PaymentPathHop(
            node_id=bytes(33),
            short_channel_id=ShortChannelId(1),
            relay=data_of(hop["data"]).payment_relay or pytest.fail("no terms"),
            htlc_minimum_msat=Msat(50),
            htlc_maximum_msat=Msat(10**9),
        )
        for hop in BLINDED[:-1]
    ]


@pytest.mark.proves("C-183")
def test_price_of_the_path() -> None:
    payinfo = aggregate_payinfo(relays(), CltvDelta(0))
    for name, value in PAYMENT["payinfo"].items():
        assert getattr(payinfo, name) == value
    assert AMOUNT + blinded_path_fee(AMOUNT, payinfo) == PAYMENT["hops"][0]["payload"]["amt_to_forward"]


@pytest.mark.proves("C-184")
def test_blinded_payment_is_byte_exact() -> None:
    first = PAYMENT["hops"][0]
    tail = make_blinded_hops(
        PAYMENT_PATH, PAYMENT_PATH.first_node_id, amount_msat=AMOUNT, cltv_expiry=EXPIRY, total_msat=TOTAL
    )
    assert [(key.hex(), payload) for key, payload in tail] == [
        (hop["public_key"], unframed(hop["framed_payload"])) for hop in BLINDED
    ]
    packet, _ = build_onion(
        bytes.fromhex(PAYMENT["session_key"]),
        [(bytes.fromhex(first["public_key"]), unframed(first["framed_payload"])), *tail],
        bytes.fromhex(PAYMENT["associated_data"]),
    )
    assert packet.hex() == first["onion"]


@pytest.mark.proves("C-189")
def test_every_hop_of_the_payment() -> None:
    """From the introduction node to the recipient, each with nothing but its key, the HTLC and the path key before."""
    payment_hash = bytes.fromhex(PAYMENT["associated_data"])
    amount, expiry = (PAYMENT["hops"][0]["payload"][name] for name in ("amt_to_forward", "outgoing_cltv_value"))
    htlc = BlindedHtlc(packet=bytes.fromhex(BLINDED[0]["onion"]), amount_msat=amount, cltv_expiry=expiry)
    for hop in BLINDED:
        node_secret = bytes.fromhex(hop["node_secret"])
        assert htlc.packet.hex() == hop["onion"]
        if htlc.path_key is None:
            point = onion_ephemeral_key(htlc.packet)
        else:
            point = blinded_ephemeral_key(htlc.packet, ecdh(node_secret, htlc.path_key))
        peeled = peel_payment(htlc, payment_hash, ecdh(node_secret, point))
        path_key = path_key_of(peeled, htlc)
        assert path_key is not None
        read = read_blinded_payment(peeled, htlc, path_key, ecdh(node_secret, path_key))
        data = data_of(hop["data"])
        if isinstance(read, BlindedForward):
            assert peeled.next_packet is not None
            assert (read.short_channel_id, read.next_node_id) == (data.short_channel_id, None)
            assert read.path_key.hex() == hop["next_path_key"]
            htlc = BlindedHtlc(
                packet=peeled.next_packet,
                amount_msat=read.amount_msat,
                cltv_expiry=read.cltv_expiry,
                path_key=read.path_key,
            )
    assert hop is BLINDED[-1]
    assert read == BlindedReceipt(amount_msat=AMOUNT, total_msat=TOTAL, cltv_expiry=EXPIRY, path_id=data.path_id)
    assert (htlc.amount_msat, htlc.cltv_expiry) == (AMOUNT, EXPIRY)


# --- an onion message -------------------------------------------------------------------------------------------------


@by_name(MESSAGE["hops"])
def test_secrets_of_a_message_hop(position: int) -> None:
    hop = MESSAGE["hops"][position]
    path_key = bytes.fromhex(hop["path_key"])
    secret = ecdh(bytes.fromhex(hop["node_secret"]), path_key)
    assert secret.hex() == hop["path_secret"]
    assert keys.rho(secret).hex() == hop["rho"]
    assert keys.blinded_node_id(secret).hex() == hop["blinding_factor"]
    assert sha256(path_key + secret).hex() == hop["path_factor"]
    following = secret_mul(bytes.fromhex(hop["path_secret_key"]), sha256(path_key + secret))
    assert following.hex() + "01" == hop["next_path_secret_key"]
    assert encode_struct(data_of(hop["data"])).hex() == hop["encoded_data"]


def joined_path() -> BlindedPath:
    ours, theirs = (bytes.fromhex(key) for key in MESSAGE["path_session_keys"])
    nodes = [pubkey_create(bytes.fromhex(hop["node_secret"])) for hop in MESSAGE["hops"]]
    data = [data_of(hop["data"]) for hop in MESSAGE["hops"]]
    path = make_blinded_path(theirs, list(zip(nodes[1:], data[1:], strict=True)))
    return extend_message_path(ours, nodes[:1], path, nodes[1])


def test_joined_path_is_byte_exact() -> None:
    path = joined_path()
    assert path.first_node_id.hex() == MESSAGE["first_node_id"]
    assert path.first_path_key.hex() == MESSAGE["first_path_key"]
    assert [(hop.blinded_node_id.hex(), hop.encrypted_recipient_data.hex()) for hop in path.path] == [
        (hop["blinded_node_id"], hop["encrypted_recipient_data"]) for hop in MESSAGE["hops"]
    ]


@pytest.mark.proves("C-202")
def test_onion_message_is_byte_exact() -> None:
    content = OnionMessagePayload(
        unknown=tuple(UnknownRecord(number, bytes.fromhex(value)) for number, value in MESSAGE["content"])
    )
    message = make_onion_message(bytes.fromhex(MESSAGE["session_key"]), joined_path(), content)
    assert message.onion_message_packet.hex() == MESSAGE["packet"]
    assert encode(message).hex() == MESSAGE["hops"][0]["message"]


@pytest.mark.proves("C-205")
def test_every_hop_of_the_message() -> None:
    message = decode(bytes.fromhex(MESSAGE["hops"][0]["message"]))
    for hop, following in zip(MESSAGE["hops"], [*MESSAGE["hops"][1:], None], strict=True):
        assert isinstance(message, OnionMessage)
        node_secret = bytes.fromhex(hop["node_secret"])
        path_secret = ecdh(node_secret, message.path_key)
        point = blinded_ephemeral_key(message.onion_message_packet, path_secret)
        peeled = peel_onion_message(message, path_secret, ecdh(node_secret, point))
        if following is None:
            assert isinstance(peeled, ReceivedMessage)
            assert peeled.path_id is not None
            assert peeled.path_id.hex() == hop["data"]["path_id"]
            assert [[record.type, record.value.hex()] for record in peeled.payload.unknown] == MESSAGE["content"]
        else:
            assert isinstance(peeled, RelayedMessage)
            assert peeled.next_node_id is not None
            assert peeled.next_node_id.hex() == hop["data"]["next_node_id"]
            assert encode(peeled.message).hex() == following["message"]
            message = peeled.message
