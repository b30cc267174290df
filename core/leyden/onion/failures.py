"""Returned failures (BOLT 4, "Returning Errors"): the erring hop writes one, every hop on the way back wraps it."""

from collections.abc import Sequence

import msgspec

from leyden.crypto import chacha20_xor, constant_time_equal, hmac_sha256, sha256
from leyden.onion import keys
from leyden.onion.attribution import add_attribution, read_attribution
from leyden.onion.errors import OnionError
from leyden.types.rules import C_192, C_193, C_199
from leyden.wire.htlc import AttributionData

FAILURE_ROUNDS = 27
"""Rounds of every decoding, so that its time does not tell which hop failed or how long the route was."""

MAX_RETURN_SIZE = 32768
"""Bytes of a return packet, and of a fulfilment payload: leaves room for attribution data in the same message."""

_PADDED_SIZE = 256
_MAC_SIZE = 32
_UNREADABLE = bytes(2)
_MAX_MESSAGE_SIZE = MAX_RETURN_SIZE - _MAC_SIZE - 2 - 2


class ReturnedFailure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the origin read from a failure with attribution data.

    ``hop``: who wrote ``message`` (0 is the first); None: the packet is nobody's, and ``message`` is empty.
    ``hold_times_ms``: of the hops from the first on, up to the one that failed and as far as they verify.
    ``suspect``: index of the first hop whose data do not hold; penalise it together with the hop before it. Where
    ``hop`` is None it is the only trace; None there: no attribution data came.
    """

    hop: int | None
    message: bytes
    hold_times_ms: tuple[int, ...]
    suspect: int | None


def make_failure(shared_secret: bytes, failure_message: bytes) -> bytes:
    """The packet of the erring hop, ready for ``update_fail_htlc.reason``: padded to 256, authenticated, wrapped once.

    ``failure_message``: code and data, from ``leyden.wire.failures``.

    Raises:
        OnionError: C-192, the message does not fit a packet.
    """
    return _hide(shared_secret, _authenticated(shared_secret, failure_message))


def make_attributed_failure(
    shared_secret: bytes, failure_message: bytes, *, hold_time_ms: int
) -> tuple[bytes, AttributionData]:
    """``make_failure`` with the attribution data for the same message; ``hold_time_ms`` since the HTLC was added.

    Raises:
        OnionError: C-192, the message does not fit a packet.
    """
    plain = _authenticated(shared_secret, failure_message)
    return _hide(shared_secret, plain), add_attribution(shared_secret, plain, hold_time_ms, None)


def _authenticated(shared_secret: bytes, failure_message: bytes) -> bytes:
    size = len(failure_message)
    if size > _MAX_MESSAGE_SIZE and C_192.enabled:
        raise OnionError(C_192, "the failure message does not fit a packet", size=size)
    pad_size = max(0, _PADDED_SIZE - size) if C_192.enabled else 0
    body = b"".join((size.to_bytes(2, "big"), failure_message, pad_size.to_bytes(2, "big"), bytes(pad_size)))
    return hmac_sha256(keys.um(shared_secret), body) + body


def _hide(shared_secret: bytes, packet: bytes) -> bytes:
    return chacha20_xor(keys.ammag(shared_secret), packet)


def wrap_failure(shared_secret: bytes, packet: bytes) -> bytes:
    """One more layer, from a hop between the erring one and the origin; whatever downstream sent is passed on.

    A packet above 32 KiB, which no honest hop makes, is cut to that: the message upstream must have room for it.
    """
    return _hide(shared_secret, packet[:MAX_RETURN_SIZE])


def wrap_attributed_failure(
    shared_secret: bytes, packet: bytes, downstream: AttributionData | None, *, hold_time_ms: int
) -> tuple[bytes, AttributionData]:
    """``wrap_failure`` with the attribution data for the same message; ``downstream``: what came, None if nothing."""
    packet = packet[:MAX_RETURN_SIZE]
    return _hide(shared_secret, packet), add_attribution(shared_secret, packet, hold_time_ms, downstream)


def decode_failure(shared_secrets: Sequence[bytes], packet: bytes) -> tuple[int, bytes] | None:
    """At the origin: which hop failed (0 is the first) and its failure message; None if the packet is nobody's.

    ``shared_secrets`` are those that ``build_onion`` returned. Any bytes are accepted as ``packet``; a message whose
    length field lies, or that has no code, comes back as the code 0, which nobody defines. Runs 27 rounds whatever it
    finds.
    """
    return _unwrap(shared_secrets, packet)[0]


def decode_attributed_failure(
    shared_secrets: Sequence[bytes], packet: bytes, attribution: AttributionData | None
) -> ReturnedFailure:
    """``decode_failure`` that also reads the attribution data; any bytes are accepted, the rounds are as many."""
    found, layers = _unwrap(shared_secrets, packet)
    held = read_attribution(shared_secrets, layers, attribution)
    times, suspect = held.hold_times_ms, held.suspect
    if found is not None:
        # Behind the hop that failed there is nothing to verify.
        hop, message = found
        return ReturnedFailure(
            hop=hop,
            message=message,
            hold_times_ms=times[: hop + 1],
            suspect=suspect if suspect is not None and suspect <= hop else None,
        )
    if suspect is None and times and C_199.enabled:
        suspect = len(times) - 1  # the recipient authenticated a packet that nobody can read
    return ReturnedFailure(hop=None, message=b"", hold_times_ms=times, suspect=suspect)


def _unwrap(shared_secrets: Sequence[bytes], packet: bytes) -> tuple[tuple[int, bytes] | None, list[bytes]]:
    """Who failed and why, and what each hop had before it hid the packet, dummy hops included."""
    found: tuple[int, bytes] | None = None
    layers = []
    secret = bytes(32)
    rounds = max(FAILURE_ROUNDS, len(shared_secrets)) if C_193.enabled else len(shared_secrets)
    for hop in range(rounds):
        real = hop < len(shared_secrets)
        secret = shared_secrets[hop] if real else sha256(secret)
        packet = _hide(secret, packet)
        layers.append(packet)
        body = packet[_MAC_SIZE:]
        if constant_time_equal(hmac_sha256(keys.um(secret), body), packet[:_MAC_SIZE]) and real and found is None:
            found = hop, _message_of(body)
    return found, layers


def _message_of(body: bytes) -> bytes:
    """The message without padding and whatever follows."""
    size = int.from_bytes(body[:2], "big")
    if not C_193.enabled:
        size = len(body) - 2
    return body[2 : 2 + size] if 2 <= size <= len(body) - 2 else _UNREADABLE
