"""Blinded paths (BOLT 4, "Route Blinding"): made by whoever wants to be reached, opened hop by hop.

No function here sees the node key. A hop with path key E asks ``NodeIdentity.ecdh(E)`` for its *path secret*; where the
path key came in the message (not in the onion), the onion is made out to the hop's blinded key, and the hop asks
``NodeIdentity.ecdh(blinded_ephemeral_key(packet, path_secret))`` for the secret that opens it. The factor between the
node's key and its blinded key is put on the point instead of the key, which gives the same secret: a signer needs
nothing but plain ECDH.
"""

from collections.abc import Sequence

import msgspec

from leyden.crypto import CryptoError, aead_decrypt, aead_encrypt, point_tweak_mul, sha256
from leyden.onion import keys
from leyden.onion.errors import OnionError
from leyden.onion.packet import derive_session_secrets, onion_ephemeral_key
from leyden.types.rules import C_181, C_186
from leyden.wire.codec import decode_struct, encode_struct
from leyden.wire.errors import WireError
from leyden.wire.failures import InvalidOnionBlinding
from leyden.wire.onion_message import BlindedPath, BlindedPathHop
from leyden.wire.onion_payload import EncryptedData

_NONCE = bytes(12)
_LONGEST_SHORT_RECORD = 2 + 252
_SHORTEST_LONG_RECORD = 4 + 253


class OpenedHop(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the maker of a path tells one hop, and the path key (33 bytes) that goes to the next one."""

    data: EncryptedData
    next_path_key: bytes


def make_blinded_path(session_key: bytes, hops: Sequence[tuple[bytes, EncryptedData]]) -> BlindedPath:
    """Blind a path: node id and data of each hop, from the introduction node to the recipient.

    ``session_key``: 32 fresh random bytes for every path. Two paths are joined by ``next_path_key_override`` in the
    last data of the first and putting the ``path`` of one behind that of the other.

    Raises:
        OnionError: C-181, no hops.
        CryptoError: the session key is no valid secret, or a node id no point.
    """
    if not hops:
        raise OnionError(C_181, "a blinded path has at least one hop")
    first_path_key, secrets = derive_session_secrets(session_key, [node_id for node_id, _ in hops])
    return BlindedPath(
        first_node_id=hops[0][0],
        first_path_key=first_path_key,
        path=tuple(
            BlindedPathHop(
                blinded_node_id=point_tweak_mul(node_id, keys.blinded_node_id(secret)),
                encrypted_recipient_data=aead_encrypt(keys.rho(secret), _NONCE, b"", encode_struct(data)),
            )
            for (node_id, data), secret in zip(hops, secrets, strict=True)
        ),
    )


def pad_to_equal_length(data: Sequence[EncryptedData]) -> tuple[EncryptedData, ...]:
    """The same data with padding such that all encode to one length, which hides where the recipient is."""
    bare = [msgspec.structs.replace(item, padding=None) for item in data]
    sizes = [len(encode_struct(item)) for item in bare]
    target = max(sizes, default=0)
    while not all(_can_fill(target - size) for size in sizes):
        target += 1
    return tuple(
        msgspec.structs.replace(item, padding=bytes(gap - (2 if gap <= _LONGEST_SHORT_RECORD else 4))) if gap else item
        for item, gap in zip(bare, [target - size for size in sizes], strict=True)
    )


def _can_fill(gap: int) -> bool:
    """A record takes at least two bytes, and its length grows by two bytes at once."""
    return gap == 0 or 2 <= gap <= _LONGEST_SHORT_RECORD or gap >= _SHORTEST_LONG_RECORD


def open_recipient_data(path_key: bytes, path_secret: bytes, encrypted_recipient_data: bytes) -> OpenedHop:
    """Decrypt what the maker of the path tells this hop. ``path_secret``: ECDH of the node key with ``path_key``.

    Raises:
        OnionError: C-186, it does not decrypt or parse, has an unknown even record, or allows a feature (none is
            defined). ``failure`` is None: what to answer depends on what the onion is for.
    """
    try:
        plain = aead_decrypt(keys.rho(path_secret), _NONCE, b"", encrypted_recipient_data)
        data = decode_struct(EncryptedData, plain)
    except (CryptoError, WireError) as error:
        if not C_186.enabled:
            raise
        raise OnionError(C_186, "unreadable encrypted_recipient_data", reason=str(error)) from error
    if any(data.allowed_features or b"") and C_186.enabled:
        raise OnionError(C_186, "unknown feature in allowed_features", offered=data.allowed_features)
    if data.next_path_key_override is not None and C_181.enabled:
        return OpenedHop(data=data, next_path_key=data.next_path_key_override)
    return OpenedHop(data=data, next_path_key=point_tweak_mul(path_key, sha256(path_key + path_secret)))


def advance_blinded_path(path: BlindedPath, opened: OpenedHop, next_node_id: bytes) -> BlindedPath:
    """The rest of a path whose introduction node we are ourselves, as a path that starts at the next hop.

    ``opened``: what ``open_recipient_data`` gave for the first hop; ``next_node_id``: the node it names.

    Raises:
        OnionError: C-181, we are the only hop: the path leads to ourselves.
    """
    if len(path.path) < 2:
        raise OnionError(C_181, "the blinded path ends here")
    return BlindedPath(first_node_id=next_node_id, first_path_key=opened.next_path_key, path=path.path[1:])


def blinded_ephemeral_key(packet: bytes, path_secret: bytes) -> bytes:
    """The point (33 bytes) for the ECDH that opens an onion made out to our blinded key.

    Raises:
        OnionError: C-159, the packet cannot be read; ``failure`` is ``invalid_onion_blinding``.
    """
    try:
        ephemeral = onion_ephemeral_key(packet)
    except OnionError as error:
        raise hidden_in_path(error, packet) from error
    return point_tweak_mul(ephemeral, keys.blinded_node_id(path_secret))


def hidden_in_path(error: OnionError, packet: bytes) -> OnionError:
    """The same error with the one failure that hops of a blinded path answer (C-084)."""
    failure = InvalidOnionBlinding(sha256_of_onion=sha256(packet))
    return OnionError(error.rule, error.message, failure=failure, **error.details)
