"""What the signatures of gossip cover, and whether they are good (BOLT 7): pure functions for any process.

Everything behind the signatures is signed, bytes that we do not know included; the type in front is not.
"""

from leyden.crypto import CryptoError, ecdsa_verify, sha256d
from leyden.types.rules import C_213, C_219, C_226
from leyden.wire.errors import refuse
from leyden.wire.gossip import ChannelAnnouncement, ChannelUpdate, NodeAnnouncement
from leyden.wire.message import encode

_TYPE = 2
_SIGNATURE = 64


def channel_announcement_digest(announcement: ChannelAnnouncement) -> bytes:
    """The 32 bytes that both nodes sign with both keys; the four signatures in the message do not matter."""
    return sha256d(encode(announcement)[_TYPE + 4 * _SIGNATURE :])


def channel_update_digest(update: ChannelUpdate) -> bytes:
    """The 32 bytes that the origin node signs; the signature in the message does not matter."""
    return sha256d(encode(update)[_TYPE + _SIGNATURE :])


def node_announcement_digest(announcement: NodeAnnouncement) -> bytes:
    """The 32 bytes that the node signs; the signature in the message does not matter."""
    return sha256d(encode(announcement)[_TYPE + _SIGNATURE :])


def check_channel_announcement(announcement: ChannelAnnouncement) -> None:
    """``WireError`` (C-213) unless all four signatures are good."""
    digest = channel_announcement_digest(announcement)
    for name, key, signature in (
        ("node_signature_1", announcement.node_id_1, announcement.node_signature_1),
        ("node_signature_2", announcement.node_id_2, announcement.node_signature_2),
        ("bitcoin_signature_1", announcement.bitcoin_key_1, announcement.bitcoin_signature_1),
        ("bitcoin_signature_2", announcement.bitcoin_key_2, announcement.bitcoin_signature_2),
    ):
        if not _is_good(key, digest, signature):
            refuse(C_213, f"channel_announcement with a wrong {name}", channel=announcement.short_channel_id)


def check_channel_update(update: ChannelUpdate, node_id_1: bytes, node_id_2: bytes) -> None:
    """``WireError`` (C-226) unless the node that the direction bit names has signed."""
    signer = node_id_2 if update.channel_flags & 1 else node_id_1
    if not _is_good(signer, channel_update_digest(update), update.signature):
        refuse(C_226, "channel_update with a wrong signature", channel=update.short_channel_id)


def check_node_announcement(announcement: NodeAnnouncement) -> None:
    """``WireError`` (C-219) unless the node has signed."""
    if not _is_good(announcement.node_id, node_announcement_digest(announcement), announcement.signature):
        refuse(C_219, "node_announcement with a wrong signature", node=announcement.node_id)


def _is_good(key: bytes, digest: bytes, signature: bytes) -> bool:
    try:
        return ecdsa_verify(key, digest, signature)
    except CryptoError:
        return False
