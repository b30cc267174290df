"""Returned failures (BOLT 4, "Returning Errors"): the erring hop writes one, every hop on the way back wraps it."""

from collections.abc import Sequence

from leyden.crypto import chacha20_xor, constant_time_equal, hmac_sha256, sha256
from leyden.onion import keys
from leyden.onion.errors import OnionError
from leyden.types.rules import C_192, C_193

FAILURE_ROUNDS = 27
"""Rounds of every decoding, so that its time does not tell which hop failed or how long the route was."""

_PADDED_SIZE = 256
_MAC_SIZE = 32
_UNREADABLE = bytes(2)
_MAX_MESSAGE_SIZE = 65535 - 2 - 32 - 4 - 512
"""What fits ``update_fail_htlc`` with room for its other fields."""


def make_failure(shared_secret: bytes, failure_message: bytes) -> bytes:
    """The packet of the erring hop, ready for ``update_fail_htlc.reason``: padded to 256, authenticated, wrapped once.

    ``failure_message``: code and data, from ``leyden.wire.failures``.

    Raises:
        OnionError: C-192, the message does not fit a packet.
    """
    size = len(failure_message)
    if size > _MAX_MESSAGE_SIZE and C_192.enabled:
        raise OnionError(C_192, "the failure message does not fit a packet", size=size)
    pad_size = max(0, _PADDED_SIZE - size) if C_192.enabled else 0
    body = b"".join((size.to_bytes(2, "big"), failure_message, pad_size.to_bytes(2, "big"), bytes(pad_size)))
    return wrap_failure(shared_secret, hmac_sha256(keys.um(shared_secret), body) + body)


def wrap_failure(shared_secret: bytes, packet: bytes) -> bytes:
    """One more layer, from a hop between the erring one and the origin; whatever downstream sent is passed on."""
    return chacha20_xor(keys.ammag(shared_secret), packet)


def decode_failure(shared_secrets: Sequence[bytes], packet: bytes) -> tuple[int, bytes] | None:
    """At the origin: which hop failed (0 is the first) and its failure message; None if the packet is nobody's.

    ``shared_secrets`` are those that ``build_onion`` returned. Any bytes are accepted as ``packet``; a message whose
    length field lies, or that has no code, comes back as the code 0, which nobody defines. Runs 27 rounds whatever it
    finds.
    """
    found: tuple[int, bytes] | None = None
    secret = bytes(32)
    rounds = max(FAILURE_ROUNDS, len(shared_secrets)) if C_193.enabled else len(shared_secrets)
    for hop in range(rounds):
        real = hop < len(shared_secrets)
        secret = shared_secrets[hop] if real else sha256(secret)
        packet = wrap_failure(secret, packet)
        body = packet[_MAC_SIZE:]
        if constant_time_equal(hmac_sha256(keys.um(secret), body), packet[:_MAC_SIZE]) and real and found is None:
            found = hop, _message_of(body)
    return found


def _message_of(body: bytes) -> bytes:
    """The message without padding and whatever follows."""
    size = int.from_bytes(body[:2], "big")
    if not C_193.enabled:
        size = len(body) - 2
    return body[2 : 2 + size] if 2 <= size <= len(body) - 2 else _UNREADABLE
