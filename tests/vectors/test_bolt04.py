"""BOLT 4: the packet of five hops built and peeled, the failure returned from the last of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.crypto import ecdh
from leyden.onion import (
    build_onion,
    decode_failure,
    derive_session_secrets,
    keys,
    make_failure,
    onion_ephemeral_key,
    peel_onion,
    wrap_failure,
)
from leyden.wire.codec import read_bigsize

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt04.json").read_text())
PACKET, FAILURE = DATA["packet"], DATA["failure"]


def payload_of(hop: dict[str, str]) -> bytes:
    """The vector prints payloads behind their length."""
    framed = bytes.fromhex(hop["framed_payload"])
    length, start = read_bigsize(framed)
    assert start + length == len(framed)
    return framed[start:]


@pytest.mark.proves("C-157")
def test_packet_is_byte_exact() -> None:
    packet, secrets = build_onion(
        bytes.fromhex(PACKET["session_key"]),
        [(bytes.fromhex(hop["public_key"]), payload_of(hop)) for hop in PACKET["hops"]],
        bytes.fromhex(PACKET["associated_data"]),
    )
    assert packet.hex() == PACKET["onion"]
    assert [s.hex() for s in secrets] == [hop["shared_secret"] for hop in FAILURE["hops"]]


@pytest.mark.proves("C-158")
def test_every_hop_peels() -> None:
    packet = bytes.fromhex(PACKET["onion"])
    associated_data = bytes.fromhex(PACKET["associated_data"])
    for number, hop in enumerate(PACKET["hops"]):
        secret = ecdh(bytes.fromhex(hop["node_secret"]), onion_ephemeral_key(packet))
        peeled = peel_onion(packet, associated_data, secret)
        assert peeled.payload == payload_of(hop)
        if number < len(PACKET["hops"]) - 1:
            assert peeled.next_packet is not None
            assert len(peeled.next_packet) == len(packet)
            packet = peeled.next_packet
        else:
            assert peeled.next_packet is None


def test_keys_of_the_failure() -> None:
    for hop in FAILURE["hops"]:
        secret = bytes.fromhex(hop["shared_secret"])
        assert keys.ammag(secret).hex() == hop["ammag"]
        if "um" in hop:
            assert keys.um(secret).hex() == hop["um"]


@pytest.mark.proves("C-192")
def test_failure_is_byte_exact_on_its_way_back() -> None:
    secrets = [bytes.fromhex(hop["shared_secret"]) for hop in FAILURE["hops"]]
    packet = make_failure(secrets[-1], bytes.fromhex(FAILURE["message"]))
    unwrapped = wrap_failure(secrets[-1], packet)  # a layer twice is no layer
    assert unwrapped[32:].hex() == FAILURE["hops"][-1]["padded_message"]
    for secret in reversed(secrets[:-1]):
        packet = wrap_failure(secret, packet)
    assert packet.hex() == FAILURE["packet"]


def test_origin_reads_the_failure() -> None:
    session_key = bytes.fromhex(FAILURE["session_key"])
    _, secrets = derive_session_secrets(session_key, [bytes.fromhex(hop["public_key"]) for hop in FAILURE["hops"]])
    found = decode_failure(secrets, bytes.fromhex(FAILURE["packet"]))
    assert found == (4, bytes.fromhex(FAILURE["message"]))
