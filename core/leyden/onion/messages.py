"""Onion messages (BOLT 4, "Onion Messages"): always over blinded paths, never answered by hops, never stored.

A node that got an ``onion_message`` asks for two ECDHs of its key: with ``message.path_key`` for the path secret, then
with ``blinded_ephemeral_key(message.onion_message_packet, path_secret)`` for the onion secret; ``peel_onion_message``
does the rest. Every error means: drop the message silently.
"""

from collections.abc import Sequence

import msgspec

from leyden.onion.blinding import make_blinded_path, open_recipient_data, pad_to_equal_length
from leyden.onion.errors import OnionError
from leyden.onion.packet import MAX_HOP_PAYLOADS_SIZE, build_onion, peel_onion
from leyden.types import ShortChannelId
from leyden.types.rules import C_202, C_203, C_204, C_205
from leyden.wire.codec import decode_struct, encode_struct, write_bigsize
from leyden.wire.errors import WireError
from leyden.wire.onion_message import BlindedPath, OnionMessage, OnionMessagePayload
from leyden.wire.onion_payload import EncryptedData

LARGE_PAYLOADS_SIZE = 32768
"""Bytes for payloads of a message that does not fit the size of a payment onion: packets have one of two sizes."""

_FIRST_CONTENT_RECORD = 64
_MAC_SIZE = 32


class RelayedMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``message`` goes to the node, or else to the peer at the other end of the channel (a real id or our alias)."""

    next_node_id: bytes | None
    short_channel_id: ShortChannelId | None
    message: OnionMessage


class ReceivedMessage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message for us; ``path_id``: which of our paths it came by (None: one that somebody else made to us)."""

    payload: OnionMessagePayload
    path_id: bytes | None


def make_message_path(session_key: bytes, nodes: Sequence[bytes], *, path_id: bytes | None = None) -> BlindedPath:
    """A path for messages through ``nodes``, the last being the recipient; ``session_key``: 32 fresh random bytes.

    ``path_id``: what the recipient, if that is us, recognises the path by.

    Raises:
        OnionError: C-181, no nodes.
        CryptoError: the session key is no valid secret, or a node id no point.
    """
    data = [EncryptedData(next_node_id=node) for node in nodes[1:]]
    data.append(EncryptedData(path_id=path_id))
    return make_blinded_path(session_key, list(zip(nodes, pad_to_equal_length(data), strict=False)))


def extend_message_path(
    session_key: bytes, nodes: Sequence[bytes], path: BlindedPath, introduction: bytes
) -> BlindedPath:
    """``path`` with ``nodes`` of our choice before it, which blinds us from its introduction node.

    ``introduction``: node id of that node. Without ``nodes`` it is ``path`` itself.

    Raises:
        CryptoError: the session key is no valid secret, or a node id no point.
    """
    if not nodes:
        return path
    data = [EncryptedData(next_node_id=node) for node in nodes[1:]]
    data.append(EncryptedData(next_node_id=introduction, next_path_key_override=path.first_path_key))
    ours = make_blinded_path(session_key, list(zip(nodes, pad_to_equal_length(data), strict=True)))
    return msgspec.structs.replace(ours, path=ours.path + path.path)


def make_onion_message(session_key: bytes, path: BlindedPath, content: OnionMessagePayload) -> OnionMessage:
    """The message to send to the first node of ``path``; ``content`` is for its last.

    ``session_key``: 32 fresh random bytes, not those of a path.

    Raises:
        OnionError: C-202, the content does not fit, or names recipient data of its own; C-157, a path without hops.
        CryptoError: the session key is no valid secret.
    """
    if content.encrypted_recipient_data is not None and C_202.enabled:
        raise OnionError(C_202, "the recipient's data come from the path")
    last = len(path.path) - 1
    hops = []
    for position, hop in enumerate(path.path):
        blob = hop.encrypted_recipient_data
        payload = (
            msgspec.structs.replace(content, encrypted_recipient_data=blob)
            if position == last
            else OnionMessagePayload(encrypted_recipient_data=blob)
        )
        hops.append((hop.blinded_node_id, encode_struct(payload)))
    size = _payloads_size(sum(len(write_bigsize(len(data))) + len(data) + _MAC_SIZE for _, data in hops))
    packet, _ = build_onion(session_key, hops, b"", payloads_size=size)
    return OnionMessage(path_key=path.first_path_key, onion_message_packet=packet)


def _payloads_size(needed: int) -> int:
    if not C_202.enabled:
        return needed
    if needed > LARGE_PAYLOADS_SIZE:
        raise OnionError(C_202, "the message is too long", size=needed, allowed=LARGE_PAYLOADS_SIZE)
    return MAX_HOP_PAYLOADS_SIZE if needed <= MAX_HOP_PAYLOADS_SIZE else LARGE_PAYLOADS_SIZE


def peel_onion_message(
    message: OnionMessage, path_secret: bytes, onion_secret: bytes
) -> RelayedMessage | ReceivedMessage:
    """Open a message as a hop or as its recipient; for the two secrets see the head of this module.

    Raises:
        OnionError: C-203 or C-204, drop the message silently; ``failure`` is None.
    """
    try:
        peeled = peel_onion(message.onion_message_packet, b"", onion_secret)
        payload = decode_struct(OnionMessagePayload, peeled.payload)
        opened = open_recipient_data(message.path_key, path_secret, payload.encrypted_recipient_data or b"")
    except (OnionError, WireError) as error:
        if not C_203.enabled:
            raise
        raise OnionError(C_203, "unreadable onion message", reason=error.message) from error
    if peeled.next_packet is None:
        _check_content(payload)
        return ReceivedMessage(payload=payload, path_id=opened.data.path_id)
    relayed = OnionMessage(path_key=opened.next_path_key, onion_message_packet=peeled.next_packet)
    return _relay(payload, opened.data, relayed)


def _check_content(payload: OnionMessagePayload) -> None:
    known = (payload.invoice_request, payload.invoice, payload.invoice_error)
    contents = sum(field is not None for field in known)
    contents += sum(record.type >= _FIRST_CONTENT_RECORD for record in payload.unknown)
    if contents > 1 and C_203.enabled:
        raise OnionError(C_203, "more than one content", offered=contents)


def _relay(payload: OnionMessagePayload, data: EncryptedData, message: OnionMessage) -> RelayedMessage:
    if C_204.enabled:
        if payload != OnionMessagePayload(encrypted_recipient_data=payload.encrypted_recipient_data):
            raise OnionError(C_204, "content for a node that only relays")
        if data.path_id is not None:
            raise OnionError(C_204, "a path_id for a node that only relays")
    if data.next_node_id is None and data.short_channel_id is None and C_203.enabled:
        raise OnionError(C_203, "no next hop")
    by_channel = data.next_node_id is None or not C_205.enabled
    return RelayedMessage(
        next_node_id=data.next_node_id if C_205.enabled else None,
        short_channel_id=(
            ShortChannelId(data.short_channel_id) if by_channel and data.short_channel_id is not None else None
        ),
        message=message,
    )
