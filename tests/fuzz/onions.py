"""Checks of what reads onions. Random bytes never pass a MAC, so these wrap the input as an honest sender would."""

from leyden.crypto import aead_encrypt, chacha20_xor, hmac_sha256, pubkey_create
from leyden.onion import (
    BlindedHtlc,
    OnionError,
    PeeledPayment,
    decode_attributed_failure,
    decode_fulfilment,
    keys,
    onion_ephemeral_key,
    open_recipient_data,
    parse_payload,
    path_key_of,
    peel_onion,
    peel_onion_message,
    peel_payment,
    read_blinded_payment,
    wrap_attributed_failure,
    wrap_fulfilment,
)
from leyden.types import BlockHeight, Msat
from leyden.wire import AttributionData, OnionMessage
from leyden.wire.codec import decode_struct, encode_struct, write_bigsize
from leyden.wire.errors import WireError

from tests.fuzz.target import Target, each, pieces

SECRET = b"\x02" * 32
PATH_SECRET = b"\x03" * 32
HASH = b"\x01" * 32
EPHEMERAL = pubkey_create(b"\x04" * 32)
PATH_KEY = pubkey_create(b"\x05" * 32)


def _packet(plain: bytes, size: int, associated_data: bytes) -> bytes:
    """A packet that peels to ``plain``."""
    payloads = chacha20_xor(keys.rho(SECRET), plain[:size].ljust(size, b"\0"))
    return b"\0" + EPHEMERAL + payloads + hmac_sha256(keys.mu(SECRET), payloads + associated_data)


def _data(plain: bytes) -> bytes:
    """``encrypted_recipient_data`` that decrypts to ``plain``."""
    return aead_encrypt(keys.rho(PATH_SECRET), bytes(12), b"", plain)


def _raw(data: bytes) -> None:
    onion_ephemeral_key(data)
    peel_onion(data, HASH, SECRET)


def _peeled(data: bytes) -> None:
    packet = _packet(data, 1300, HASH)
    assert onion_ephemeral_key(packet) == EPHEMERAL
    peeled = peel_onion(packet, HASH, SECRET)
    if peeled.next_packet is not None:
        assert len(peeled.next_packet) == len(packet)


def onion(data: bytes) -> None:
    each(data, (_raw, _peeled), OnionError)


def onion_payload(data: bytes) -> None:
    parsed = parse_payload(data)
    assert parse_payload(encode_struct(parsed)) == parsed


def blinded_payment(data: bytes) -> None:
    """Pieces: the payload up to the recipient's data, those data, the rest, and what says how the HTLC came."""
    payload, recipient_data, rest, how, *_ = [*pieces(data), b"", b"", b"", b""]
    flags = how[0] if how else 0
    if recipient_data:
        hidden = _data(recipient_data)
        payload += write_bigsize(10) + write_bigsize(len(hidden)) + hidden
    payload += rest
    htlc = BlindedHtlc(
        packet=_packet(write_bigsize(len(payload)) + payload, 1300, HASH),
        amount_msat=Msat(int.from_bytes(how[1:8], "big")),
        cltv_expiry=BlockHeight(int.from_bytes(how[8:12], "big")),
        path_key=PATH_KEY if flags & 1 else None,
    )
    peeled = peel_payment(htlc, HASH, SECRET)
    if flags & 2:
        peeled = PeeledPayment(payload=peeled.payload, next_packet=htlc.packet)
    path_key = path_key_of(peeled, htlc)
    if path_key is not None:
        read_blinded_payment(peeled, htlc, path_key, PATH_SECRET)


def recipient_data(data: bytes) -> None:
    Target(lambda raw: open_recipient_data(PATH_KEY, PATH_SECRET, raw), (OnionError,)).run(data)
    open_recipient_data(PATH_KEY, PATH_SECRET, _data(data))


def onion_message(data: bytes) -> None:
    """Pieces: the payload and the recipient's data."""
    payload, hidden, *_ = [*pieces(data), b"", b""]
    if hidden:
        blob = _data(hidden)
        payload = write_bigsize(4) + write_bigsize(len(blob)) + blob + payload
    packet = _packet(write_bigsize(len(payload)) + payload, 1300, b"")
    peel_onion_message(OnionMessage(path_key=PATH_KEY, onion_message_packet=packet), PATH_SECRET, SECRET)


def _attribution(data: bytes) -> AttributionData | None:
    try:
        return decode_struct(AttributionData, data)
    except WireError:
        return None


def returned(data: bytes) -> None:
    """What comes back along a route: nothing may be raised, whatever it is."""
    found = _attribution(data)
    rest = data if found is None else data[920:]
    secrets = [bytes((n + 1,)) * 32 for n in range(rest[0] % 4 if rest else 1)]
    decode_attributed_failure(secrets, rest, found)
    decode_fulfilment(secrets, found, rest)
    wrap_fulfilment(SECRET, found, rest, hold_time_ms=1)
    wrap_attributed_failure(SECRET, rest, found, hold_time_ms=1)
