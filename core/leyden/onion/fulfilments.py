"""What goes back with a preimage (BOLT 4, "Hold times for successful payments"; BOLT 2, ``update_fulfill_htlc``).

Attribution data as for failures, without a return packet; and, where the recipient has something to say, a payload that
only the origin can read and that the attribution data protect on its way. None of it ever stands in the way of the
preimage: whatever is missing or broken here is left out.
"""

from collections.abc import Sequence

import msgspec

from leyden.crypto import CryptoError, aead_decrypt, aead_encrypt, chacha20_xor
from leyden.onion import keys
from leyden.onion.attribution import add_attribution, read_attribution
from leyden.onion.errors import OnionError
from leyden.onion.failures import MAX_RETURN_SIZE
from leyden.types.rules import C_200, C_201
from leyden.wire.htlc import AttributionData

_NONCE = bytes(12)


class Fulfilment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """For ``update_fulfill_htlc``: records 1 and 3."""

    attribution_data: AttributionData
    payload: bytes | None = None


class ReturnedFulfilment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the origin read.

    ``hold_times_ms`` and ``suspect`` as in ``HeldTimes``. ``payload``: the recipient's TLV stream, None if there is
    none or it does not decrypt.
    """

    hold_times_ms: tuple[int, ...]
    suspect: int | None
    payload: bytes | None


def make_fulfilment(shared_secret: bytes, *, hold_time_ms: int, payload: bytes | None = None) -> Fulfilment:
    """At the recipient. ``payload``: a TLV stream for the origin alone; ``hold_time_ms`` since the HTLC was added.

    Raises:
        OnionError: C-201, the payload does not fit 32 KiB with its authentication tag.
    """
    hidden = None
    if payload is not None:
        hidden = aead_encrypt(keys.fulfillment(shared_secret), _NONCE, b"", payload)
        if len(hidden) > MAX_RETURN_SIZE and C_201.enabled:
            raise OnionError(C_201, "the fulfilment payload is too long", size=len(hidden), allowed=MAX_RETURN_SIZE)
    return Fulfilment(attribution_data=add_attribution(shared_secret, b"", hold_time_ms, None), payload=hidden)


def wrap_fulfilment(
    shared_secret: bytes, downstream: AttributionData | None, payload: bytes | None, *, hold_time_ms: int
) -> Fulfilment:
    """At a hop on the way back: what came from ``downstream`` with one more layer. Never raises.

    A payload above 32 KiB, which breaks the protocol, is left out.
    """
    if not C_200.enabled:
        downstream = None
    received = b"" if payload is None or len(payload) > MAX_RETURN_SIZE else payload
    hidden = _hide(shared_secret, received) if received and C_201.enabled else None
    return Fulfilment(
        attribution_data=add_attribution(shared_secret, received, hold_time_ms, downstream), payload=hidden
    )


def decode_fulfilment(
    shared_secrets: Sequence[bytes], attribution: AttributionData | None, payload: bytes | None
) -> ReturnedFulfilment:
    """At the origin; ``shared_secrets`` as ``build_onion`` gave them. Any bytes are accepted, nothing is raised."""
    layers = []
    hidden = payload or b""
    for secret in shared_secrets[:-1]:
        hidden = _hide(secret, hidden)
        layers.append(hidden)
    layers.append(b"")  # the recipient's HMACs cover no payload
    held = read_attribution(shared_secrets, layers[: len(shared_secrets)], attribution)
    plain = None
    if hidden and shared_secrets:
        try:
            plain = aead_decrypt(keys.fulfillment(shared_secrets[-1]), _NONCE, b"", hidden)
        except CryptoError:
            plain = None
    return ReturnedFulfilment(hold_times_ms=held.hold_times_ms, suspect=held.suspect, payload=plain)


def _hide(shared_secret: bytes, payload: bytes) -> bytes:
    return chacha20_xor(keys.ammag(shared_secret), payload)
