"""Onion packets (BOLT 4, "Packet Construction", "Packet Forwarding"): version, ephemeral key, hop payloads, MAC.

Sizes: 1 + 33 + ``payloads_size`` + 32 bytes; 1300 for payments, any size for onion messages.
"""

from collections.abc import Sequence

import msgspec

from leyden.crypto import (
    chacha20_stream,
    chacha20_xor,
    constant_time_equal,
    ecdh,
    hmac_sha256,
    is_valid_point,
    point_tweak_mul,
    pubkey_create,
    secret_mul,
    sha256,
    xor,
)
from leyden.onion import keys
from leyden.onion.errors import OnionError
from leyden.types.rules import C_157, C_158, C_159, C_160
from leyden.wire.codec import read_bigsize, write_bigsize
from leyden.wire.errors import WireError
from leyden.wire.failures import InvalidOnionHmac, InvalidOnionKey, InvalidOnionPayload, InvalidOnionVersion

MAX_HOP_PAYLOADS_SIZE = 1300
"""Bytes for all payloads of a payment with their lengths and MACs."""
PAYMENT_PACKET_SIZE = 1366

_VERSION = b"\x00"
_MAC_SIZE = 32
_NO_MAC = bytes(_MAC_SIZE)
_PAYLOADS_START = 34
_MIN_PACKET_SIZE = _PAYLOADS_START + 1 + _MAC_SIZE


class Peeled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One layer removed: our payload without its length, and the packet for the next hop (None: we are the last)."""

    payload: bytes
    next_packet: bytes | None


def derive_session_secrets(session_key: bytes, route: Sequence[bytes]) -> tuple[bytes, tuple[bytes, ...]]:
    """The first hop's ephemeral key (33 bytes) and the secret shared with every hop.

    ``session_key`` is 32 bytes drawn for this one attempt, ``route`` the hops' public keys in order.

    Raises:
        CryptoError: the session key is no valid secret or a hop's key is no point.
    """
    first = ephemeral = pubkey_create(session_key)
    secret = session_key
    shared_secrets = []
    for hop, public_key in enumerate(route):
        shared = ecdh(secret, public_key)
        shared_secrets.append(shared)
        if hop + 1 < len(route):
            secret = secret_mul(secret, sha256(ephemeral + shared))
            ephemeral = pubkey_create(secret)
    return first, tuple(shared_secrets)


def build_onion(
    session_key: bytes,
    hops: Sequence[tuple[bytes, bytes]],
    associated_data: bytes,
    *,
    payloads_size: int = MAX_HOP_PAYLOADS_SIZE,
) -> tuple[bytes, tuple[bytes, ...]]:
    """The packet for the first hop, and the shared secrets that ``decode_failure`` needs later.

    ``session_key``: 32 fresh random bytes for every attempt. ``hops``: public key and payload (without its length) from
    the first hop to the last. ``associated_data``: the payment hash (empty for onion messages).

    Raises:
        OnionError: C-157, no hops, a payload below 2 bytes, or payloads that do not fit ``payloads_size``.
        CryptoError: the session key is no valid secret or a hop's key is no point.
    """
    framed = [write_bigsize(len(payload)) + payload for _, payload in hops]
    sizes = [len(data) + _MAC_SIZE for data in framed]
    _require_fits(hops, sum(sizes), payloads_size)
    ephemeral, shared_secrets = derive_session_secrets(session_key, [public_key for public_key, _ in hops])
    last = len(hops) - 1
    streams = [
        chacha20_stream(keys.rho(secret), payloads_size + (size if hop < last else 0))
        for hop, (secret, size) in enumerate(zip(shared_secrets, sizes, strict=True))
    ]
    filler = _filler(streams, sizes, payloads_size)
    payloads = chacha20_stream(keys.pad(session_key), payloads_size) if C_157.enabled else bytes(payloads_size)
    mac = _NO_MAC
    for hop in range(last, -1, -1):
        payloads = b"".join((framed[hop], mac, payloads[: payloads_size - sizes[hop]]))
        payloads = xor(payloads, streams[hop][:payloads_size])
        if hop == last and filler:
            payloads = payloads[: -len(filler)] + filler
        mac = hmac_sha256(keys.mu(shared_secrets[hop]), payloads + associated_data)
    return b"".join((_VERSION, ephemeral, payloads, mac)), shared_secrets


def _require_fits(hops: Sequence[tuple[bytes, bytes]], size: int, payloads_size: int) -> None:
    if not C_157.enabled:
        return
    if not hops:
        raise OnionError(C_157, "an onion has at least one hop")
    if any(len(payload) < 2 for _, payload in hops):
        raise OnionError(C_157, "payload lengths 0 and 1 are reserved")
    if size > payloads_size:
        raise OnionError(C_157, "the payloads do not fit the onion", size=size, allowed=payloads_size)


def _filler(streams: Sequence[bytes], sizes: Sequence[int], payloads_size: int) -> bytes:
    """The end of the last hop's payloads: what the zeros that each earlier hop appends have become on their way."""
    filler = b""
    for stream, size in zip(streams[:-1], sizes[:-1], strict=True):
        start = payloads_size - len(filler)
        filler = xor(filler + bytes(size), stream[start : payloads_size + size])
    return filler


def onion_ephemeral_key(packet: bytes) -> bytes:
    """The key (33 bytes) with which this node runs the ECDH that ``peel_onion`` needs.

    Raises:
        OnionError: C-159, cut short, a version other than 0, or a key that is no point (BADONION codes).
    """
    _require_readable(packet)
    key = packet[1:_PAYLOADS_START]
    if not is_valid_point(key):
        _refuse(InvalidOnionKey, "bad ephemeral key", packet)
    return key


def peel_onion(packet: bytes, associated_data: bytes, shared_secret: bytes) -> Peeled:
    """Authenticate the packet and remove our layer.

    ``associated_data``: payment hash of the HTLC (empty for onion messages). ``shared_secret``: ECDH of the node key
    with ``onion_ephemeral_key(packet)``, which has checked that key.

    Raises:
        OnionError: C-159 with a BADONION code: cut short, wrong version or MAC; C-160 (``invalid_onion_payload``): a
            payload length that is malformed, reserved, or leaves no room for the next MAC.
    """
    _require_readable(packet)
    payloads = packet[_PAYLOADS_START:-_MAC_SIZE]
    expected = hmac_sha256(keys.mu(shared_secret), payloads + associated_data)
    if not constant_time_equal(expected, packet[-_MAC_SIZE:]):
        _refuse(InvalidOnionHmac, "wrong MAC", packet)
    size = len(payloads)
    plain = chacha20_xor(keys.rho(shared_secret), payloads + bytes(size))
    start, end = _payload_bounds(plain, size)
    next_mac = plain[end : end + _MAC_SIZE]
    next_packet = None
    if next_mac != _NO_MAC or not C_158.enabled:
        ephemeral = packet[1:_PAYLOADS_START]
        next_ephemeral = point_tweak_mul(ephemeral, sha256(ephemeral + shared_secret))
        next_start = end + _MAC_SIZE
        next_packet = b"".join((_VERSION, next_ephemeral, plain[next_start : next_start + size], next_mac))
    return Peeled(payload=plain[start:end], next_packet=next_packet)


def _require_readable(packet: bytes) -> None:
    if packet[:1] != _VERSION:
        _refuse(InvalidOnionVersion, "unknown onion version", packet)
    if len(packet) < _MIN_PACKET_SIZE:
        _refuse(InvalidOnionHmac, "onion cut short", packet)


def _refuse(
    failure: type[InvalidOnionVersion | InvalidOnionKey | InvalidOnionHmac], message: str, packet: bytes
) -> None:
    if C_159.enabled:
        raise OnionError(C_159, message, failure=failure(sha256_of_onion=sha256(packet)))


def _payload_bounds(plain: bytes, size: int) -> tuple[int, int]:
    """Start and end of our payload in the ``size`` bytes that were under the MAC."""
    try:
        length, start = read_bigsize(plain, 0, size)
    except WireError as error:
        if not C_160.enabled:
            raise
        raise _bad_length("malformed payload length") from error
    room = size - start - _MAC_SIZE
    if C_160.enabled and not 2 <= length <= room:
        raise _bad_length("bad payload length", length, room)
    return start, start + length


def _bad_length(message: str, length: int | None = None, room: int | None = None) -> OnionError:
    return OnionError(C_160, message, failure=InvalidOnionPayload(type=0, offset=0), length=length, room=room)
