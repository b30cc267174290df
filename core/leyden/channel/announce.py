"""Consent to announce a public channel: ``announcement_signatures`` (BOLT 7; C-209 to C-212).

Both sides sign the ``channel_announcement`` with node key and funding key. What both signed is kept in the channel.
"""

from msgspec.structs import replace

from leyden.channel.state import Announcement, Channel, Lifecycle, Link
from leyden.channel.turn import Misplaced, Turn
from leyden.crypto import ecdsa_verify
from leyden.hooks.signing import SignAnnouncement, Signature, SignGossip
from leyden.types import NodeId, ShortChannelId
from leyden.types.rules import C_209, C_210, C_211, C_212
from leyden.wire import AnnouncementSignatures, ChannelAnnouncement
from leyden.wire.gossip_signatures import channel_announcement_digest

OP_NODE = "sign_gossip"
OP_BITCOIN = "sign_announcement"
DEPTH = 6
_NOTHING = bytes(64)


def unsigned_announcement(
    channel: Channel, node_id: NodeId, chain_hash: bytes, scid: ShortChannelId
) -> ChannelAnnouncement:
    """What both sides sign: node ids ascending, funding keys in the same order, no features (C-212)."""
    setup = channel.setup
    sides = [
        (bytes(node_id), setup.local_keys.funding_pubkey),
        (bytes(channel.config.peer), setup.remote_keys.funding_pubkey),
    ]
    if C_212.enabled:
        sides.sort()
    return ChannelAnnouncement(
        node_signature_1=_NOTHING,
        node_signature_2=_NOTHING,
        bitcoin_signature_1=_NOTHING,
        bitcoin_signature_2=_NOTHING,
        features=b"",
        chain_hash=chain_hash,
        short_channel_id=scid,
        node_id_1=sides[0][0],
        node_id_2=sides[1][0],
        bitcoin_key_1=sides[0][1],
        bitcoin_key_2=sides[1][1],
    )


def channel_announcement(channel: Channel, node_id: NodeId, chain_hash: bytes) -> ChannelAnnouncement | None:
    """The announcement with all four signatures, once both sides have given theirs."""
    local, remote, scid = channel.local_announcement, channel.remote_announcement, channel.short_channel_id
    if local is None or remote is None or scid is None:
        return None
    first, second = (local, remote) if node_id < channel.config.peer else (remote, local)
    return replace(
        unsigned_announcement(channel, node_id, chain_hash, scid),
        node_signature_1=first.node_signature,
        node_signature_2=second.node_signature,
        bitcoin_signature_1=first.bitcoin_signature,
        bitcoin_signature_2=second.bitcoin_signature,
    )


def announce_if_due(turn: Turn, height: int = 0) -> None:
    """Send our signatures: on a new connection until the peer's are there, and in answer to the peer's."""
    channel = turn.channel
    if not _may_announce(channel, max(turn.env.height, height)):
        return
    early = channel.early_announcement
    if early is not None:
        turn.set(early_announcement=None)
        _take(turn, early)
        channel = turn.channel
    if channel.announcement_sent and C_210.enabled:
        return
    if channel.local_announcement is None:
        _ask(turn)
    elif channel.remote_announcement is None or early is not None or not C_210.enabled:
        _send(turn, channel.local_announcement)


def _may_announce(channel: Channel, height: int) -> bool:
    """Public, ready on both sides, not shutting down, and deep enough never to be reorganised (C-209)."""
    where = channel.fundings[0].confirmation if channel.fundings else None
    if channel.lifecycle is not Lifecycle.NORMAL or channel.link is not Link.UP or where is None:
        return False
    if not C_209.enabled:
        return True
    return channel.config.announce and not channel.shutdown.wanted and height - where.height + 1 >= DEPTH


def _ask(turn: Turn) -> None:
    channel, scid = turn.channel, turn.channel.short_channel_id
    if scid is None or turn.is_pending(OP_NODE) or turn.is_pending(OP_BITCOIN):
        return
    announcement = unsigned_announcement(channel, turn.env.node_id, turn.env.chain_hash, scid)
    turn.ask(
        SignAnnouncement(request_id=turn.request_id(OP_BITCOIN, scid), setup=channel.setup, announcement=announcement)
    )


def on_announcement_signed(turn: Turn, request: SignAnnouncement, answer: Signature) -> None:
    """The funding key has signed; now the node key."""
    scid = ShortChannelId(request.announcement.short_channel_id)
    if scid != turn.channel.short_channel_id:
        return
    turn.ask(
        SignGossip(
            request_id=turn.request_id(OP_NODE, scid),
            setup=turn.channel.setup,
            announcement=request.announcement,
            bitcoin_signature=answer.signature,
        )
    )


def on_gossip_signed(turn: Turn, request: SignGossip, answer: Signature) -> None:
    channel = turn.channel
    scid = ShortChannelId(request.announcement.short_channel_id)
    if scid != channel.short_channel_id:
        return
    ours = Announcement(
        short_channel_id=scid, node_signature=answer.signature, bitcoin_signature=request.bitcoin_signature
    )
    turn.set(local_announcement=ours)
    if _may_announce(channel, turn.env.height) and not channel.announcement_sent:
        _send(turn, ours)


def _send(turn: Turn, ours: Announcement) -> None:
    turn.set(announcement_sent=True)
    turn.send(
        AnnouncementSignatures(
            channel_id=turn.channel.channel_id,
            short_channel_id=ours.short_channel_id,
            node_signature=ours.node_signature,
            bitcoin_signature=ours.bitcoin_signature,
        )
    )


def on_announcement_signatures(turn: Turn, message: AnnouncementSignatures) -> None:
    """Kept until we may announce too; then checked, stored and answered once (C-210)."""
    channel = turn.channel
    if not channel.config.announce:
        raise Misplaced("announcement_signatures for a channel that is not public")
    turn.set(early_announcement=message)
    announce_if_due(turn)


def _take(turn: Turn, message: AnnouncementSignatures) -> None:
    channel, scid = turn.channel, turn.channel.short_channel_id
    if scid is None or message.short_channel_id != scid:
        if C_211.enabled:
            turn.send_warning("announcement_signatures for another short_channel_id")
        return
    digest = channel_announcement_digest(unsigned_announcement(channel, turn.env.node_id, turn.env.chain_hash, scid))
    for name, key, signature in (
        ("node_signature", channel.config.peer, message.node_signature),
        ("bitcoin_signature", channel.setup.remote_keys.funding_pubkey, message.bitcoin_signature),
    ):
        if not ecdsa_verify(key, digest, signature) and C_211.enabled:
            # no exception: it may have waited for the block whose deadlines are checked in this very step
            turn.send_warning(f"announcement_signatures with a wrong {name}")
            turn.disconnect(f"announcement_signatures with a wrong {name}")
            return
    turn.set(
        remote_announcement=Announcement(
            short_channel_id=scid,
            node_signature=message.node_signature,
            bitcoin_signature=message.bitcoin_signature,
        )
    )
