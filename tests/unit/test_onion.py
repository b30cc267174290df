"""Onions beyond the vectors: any route comes back as it went in, and garbage costs one HTLC."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import chacha20_xor, ecdh, hmac_sha256, pubkey_create, sha256
from leyden.onion import (
    FAILURE_ROUNDS,
    MAX_HOP_PAYLOADS_SIZE,
    PAYMENT_PACKET_SIZE,
    OnionError,
    Peeled,
    build_onion,
    decode_failure,
    failures,
    keys,
    make_failure,
    onion_ephemeral_key,
    peel_onion,
    wrap_failure,
)

SECRETS = [sha256(b"node %d" % i) for i in range(26)]
NODES = [pubkey_create(secret) for secret in SECRETS]
SESSION_KEY = b"\x41" * 32
PAYMENT_HASH = b"\x42" * 32

INVALID_VERSION, INVALID_HMAC, INVALID_KEY, INVALID_PAYLOAD = 0xC004, 0xC005, 0xC006, 0x4016


def build(payloads: list[bytes], size: int = MAX_HOP_PAYLOADS_SIZE) -> tuple[bytes, tuple[bytes, ...]]:
    return build_onion(SESSION_KEY, list(zip(NODES, payloads, strict=False)), PAYMENT_HASH, payloads_size=size)


def peel(packet: bytes, hop: int = 0, payment_hash: bytes = PAYMENT_HASH) -> Peeled:
    return peel_onion(packet, payment_hash, ecdh(SECRETS[hop], onion_ephemeral_key(packet)))


def packet_saying(plain: bytes) -> bytes:
    """A packet for node 0 whose decrypted payloads start with ``plain``, correctly authenticated."""
    shared = ecdh(SESSION_KEY, NODES[0])
    payloads = chacha20_xor(keys.rho(shared), plain.ljust(MAX_HOP_PAYLOADS_SIZE, b"\0"))
    mac = hmac_sha256(keys.mu(shared), payloads + PAYMENT_HASH)
    return b"\0" + pubkey_create(SESSION_KEY) + payloads + mac


# --- packets ----------------------------------------------------------------------------------------------------------


@given(
    payloads=st.lists(st.binary(min_size=2, max_size=330), min_size=1, max_size=26),
    size=st.sampled_from([MAX_HOP_PAYLOADS_SIZE, 32768]),
)
@settings(deadline=None, max_examples=40)
def test_any_route_peels_to_what_was_put_in(payloads: list[bytes], size: int) -> None:
    while sum(len(p) + 35 for p in payloads) > size:
        payloads.pop()
    packet, secrets = build(payloads, size)
    assert len(packet) == 66 + size
    for hop, payload in enumerate(payloads):
        assert secrets[hop] == ecdh(SECRETS[hop], onion_ephemeral_key(packet))
        peeled = peel(packet, hop)
        assert peeled.payload == payload
        assert (peeled.next_packet is None) == (hop == len(payloads) - 1)
        packet = peeled.next_packet or b""


@pytest.mark.proves("C-157")
def test_space_is_used_to_the_last_byte_and_not_beyond() -> None:
    largest = MAX_HOP_PAYLOADS_SIZE - 32 - 3
    packet, _ = build([bytes(largest)])
    assert len(packet) == PAYMENT_PACKET_SIZE
    assert peel(packet).payload == bytes(largest)
    for payloads in ([bytes(largest + 1)], [bytes(700), bytes(600)], [], [b"x"], [b"ok", b""]):
        with pytest.raises(OnionError) as caught:
            build(payloads)
        assert caught.value.rule.id == "C-157"
        assert caught.value.failure_code is None


def test_packets_do_not_tell_their_length() -> None:
    """The unused space must look like the rest: no run of zeros, and nothing repeated under another session key."""
    packet, _ = build([b"only hop"])
    assert bytes(4) not in packet[34:]


@pytest.mark.proves("C-158")
def test_the_last_hop_is_the_one_with_the_zero_mac() -> None:
    packet, _ = build([b"first", b"second"])
    first = peel(packet)
    assert first.next_packet is not None
    assert peel(first.next_packet, 1) == Peeled(payload=b"second", next_packet=None)


@pytest.mark.proves("C-159")
@pytest.mark.parametrize(
    ("position", "code"),
    [(0, INVALID_VERSION), (1, INVALID_KEY), (34, INVALID_HMAC), (700, INVALID_HMAC), (1365, INVALID_HMAC)],
)
def test_a_changed_byte(position: int, code: int) -> None:
    packet = bytearray(build([b"payload"])[0])
    packet[position] ^= 0x10
    with pytest.raises(OnionError) as caught:
        peel(bytes(packet))
    assert caught.value.rule.id == "C-159"
    assert caught.value.failure_code == code
    assert caught.value.sha256_of_onion == sha256(bytes(packet))


@pytest.mark.proves("C-159")
def test_a_packet_for_another_payment() -> None:
    packet, _ = build([b"payload"])
    with pytest.raises(OnionError) as caught:
        peel(packet, payment_hash=b"\x43" * 32)
    assert caught.value.failure_code == INVALID_HMAC


@pytest.mark.proves("C-159")
@pytest.mark.parametrize("size", [0, 1, 33, 34, 66])
def test_a_packet_cut_short(size: int) -> None:
    packet = build([b"payload"])[0][:size]
    with pytest.raises(OnionError) as caught:
        onion_ephemeral_key(packet)
    assert caught.value.rule.id == "C-159"
    with pytest.raises(OnionError):
        peel_onion(packet, PAYMENT_HASH, bytes(32))


@pytest.mark.proves("C-160")
@pytest.mark.parametrize(
    "start",
    [
        b"\x00",
        b"\x01\x00",
        b"\xfd\x00\xfc",  # not minimal
        b"\xfd\x04\xf2",  # one byte more than leaves room for the MAC
        b"\xfd\xff\xff",
        b"\xfe\x00\x01\x00\x00",
        b"\xff" * 9,
    ],
)
def test_payload_lengths(start: bytes) -> None:
    with pytest.raises(OnionError) as caught:
        peel(packet_saying(start))
    assert caught.value.rule.id == "C-160"
    assert caught.value.failure_code == INVALID_PAYLOAD
    assert caught.value.sha256_of_onion is None


def test_the_longest_payload_that_leaves_room() -> None:
    assert len(peel(packet_saying(b"\xfd\x04\xf1")).payload) == MAX_HOP_PAYLOADS_SIZE - 3 - 32


@given(packet=st.binary(max_size=1500) | st.binary(max_size=1400).map(lambda b: b"\0" + NODES[3] + b))
@settings(deadline=None, max_examples=100)
def test_garbage_raises_onion_error_only(packet: bytes) -> None:
    with pytest.raises(OnionError):
        peel(packet)


@given(plain=st.binary(max_size=MAX_HOP_PAYLOADS_SIZE))
@settings(deadline=None, max_examples=60)
def test_authenticated_garbage_is_peeled_or_refused(plain: bytes) -> None:
    try:
        peeled = peel(packet_saying(plain))
    except OnionError as error:
        assert error.rule.id == "C-160"  # noqa: PT017
    else:
        assert peeled.payload in plain.ljust(MAX_HOP_PAYLOADS_SIZE, b"\0")


# --- returned failures ------------------------------------------------------------------------------------------------


def returned(secrets: tuple[bytes, ...], hop: int, message: bytes) -> bytes:
    packet = make_failure(secrets[hop], message)
    for secret in reversed(secrets[:hop]):
        packet = wrap_failure(secret, packet)
    return packet


@given(hop=st.integers(0, 25), message=st.binary(min_size=2, max_size=600))
@settings(deadline=None, max_examples=40)
def test_every_hop_can_report(hop: int, message: bytes) -> None:
    secrets = tuple(SECRETS)
    packet = returned(secrets, hop, message)
    assert len(packet) == 32 + 2 + 2 + max(256, len(message))
    assert decode_failure(secrets, packet) == (hop, message)


@pytest.mark.proves("C-192")
def test_short_failures_all_have_one_size() -> None:
    assert len({len(make_failure(SECRETS[0], bytes(n))) for n in (0, 2, 100, 256)}) == 1


@pytest.mark.proves("C-192")
def test_a_failure_that_fits_no_message() -> None:
    with pytest.raises(OnionError) as caught:
        make_failure(SECRETS[0], bytes(65_500))
    assert caught.value.rule.id == "C-192"


@given(packet=st.binary(max_size=1000), hops=st.integers(0, 20))
@settings(deadline=None, max_examples=60)
def test_garbage_failures_are_nobodys(packet: bytes, hops: int) -> None:
    assert decode_failure(SECRETS[:hops], packet) is None
    assert len(wrap_failure(SECRETS[0], packet)) == len(packet)


def raw_failure(body: bytes) -> bytes:
    return wrap_failure(SECRETS[0], hmac_sha256(keys.um(SECRETS[0]), body) + body)


@pytest.mark.proves("C-193")
def test_extra_bytes_are_ignored() -> None:
    body = b"\x00\x02\x20\x02" + b"\x00\x00" + b"more than the padding says"
    assert decode_failure(SECRETS[:3], raw_failure(body)) == (0, b"\x20\x02")


@pytest.mark.parametrize("body", [b"", b"\x01", b"\x00\x00", b"\x00\x01a", b"\x00\x05abcd", b"\xff\xff"])
def test_a_lying_length_still_names_the_hop(body: bytes) -> None:
    assert decode_failure(SECRETS[:3], raw_failure(body)) == (0, b"\0\0")


@pytest.mark.proves("C-193")
@pytest.mark.parametrize("hop", [0, 2, None])
def test_decoding_takes_27_rounds_wherever_it_failed(hop: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0

    def counting(key: bytes, data: bytes) -> bytes:
        nonlocal rounds
        rounds += 1
        return chacha20_xor(key, data)

    secrets = tuple(SECRETS[:3])
    packet = bytes(292) if hop is None else returned(secrets, hop, b"\x20\x02")
    monkeypatch.setattr(failures, "chacha20_xor", counting)
    found = decode_failure(secrets, packet)
    assert found == (None if hop is None else (hop, b"\x20\x02"))
    assert rounds == FAILURE_ROUNDS == 27
