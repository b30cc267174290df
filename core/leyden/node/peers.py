"""PeerManager: connections in and out, one session per node, limits, vetting, reconnecting."""

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from leyden.channel import OPENING
from leyden.hooks.services import NodeIdentity
from leyden.hooks.types import PeerInfo
from leyden.node import keyspace
from leyden.node.channels import ChannelManager
from leyden.node.host import Caller, Host
from leyden.node.journal import Journal, Table
from leyden.node.opening import Opener
from leyden.node.peer import Peer, PeerState, Wire
from leyden.node.rows import PEER, PeerAddress
from leyden.types import ChannelId, LeydenError, NodeId, clean_text
from leyden.types.rules import C_141, C_142, C_143
from leyden.wire import ErrorMessage, Init, Message, OpenChannel, WarningMessage
from leyden.wire.features import Features

log = structlog.get_logger("leyden.peers")

MAX_PEERS_WITHOUT_CHANNEL = 2_500
HANDSHAKES_PER_SECOND = 20
HANDSHAKE_BURST = 100
REPLACE_SECONDS = 3.0
FIRST_RETRY = 0.5
MAX_RETRY = 60.0
EXCUSED = frozenset({"internal error", "link failed to shutdown"})
"""Errors that LND sends about channels that are well, the first whenever something is in its way: while it stops, say.

Nothing is lost by keeping the channel: if the peer wants it closed it has a commitment to broadcast.
"""
MAX_EXCUSES = 5
EXCUSE_SECONDS = 600.0
"""So often in so much time; once more, and it is meant."""
NOT_ACCEPTED = "connection not accepted"
DISCONNECTED = "disconnected on request"

AskPeer = Callable[[PeerInfo, Callable[[str | None], None]], None]
Dial = Callable[[NodeId, str, int], None]


class ConnectFailed(LeydenError):
    """The peer could not be reached or was not kept."""


class PeerManager:
    """Owns every connection; a node id has at most one (C-141)."""

    def __init__(
        self,
        *,
        host: Host,
        caller: Caller,
        post: Callable[[Callable[[], None]], None],
        identity: NodeIdentity,
        local_node_id: NodeId,
        features: Features,
        chain_hash: bytes,
        channels: ChannelManager,
        opener: Opener,
        ask_peer: AskPeer,
    ) -> None:
        self._host = host
        self._caller = caller
        self.post = post
        """Mail of a turn: for timers, and for what a failed turn leaves to do."""
        self._identity = identity
        self._local_node_id = local_node_id
        self._init = Init(globalfeatures=b"", features=features.to_bytes(), networks=(chain_hash,))
        self._chain_hash = chain_hash
        self._channels = channels
        self._opener = opener
        self._ask_peer = ask_peer
        self._connections: set[Peer] = set()
        self._by_node: dict[NodeId, Peer] = {}
        self._since: dict[NodeId, float] = {}
        self._touched: dict[Peer, None] = {}
        self._waiting: dict[NodeId, list[Callable[[BaseException | None], None]]] = {}
        self._dialling: dict[NodeId, list[PeerAddress]] = {}
        """Where no socket is open yet. Not of a turn: a dial goes on whatever becomes of the turn that began it."""
        self._retry: dict[NodeId, float] = {}
        self._away: frozenset[NodeId] = frozenset()
        """Peers that somebody disconnected: not dialled until somebody connects. Not durable, so that a peer whose
        HTLCs run out is not left alone for ever by mistake."""
        self._away_before_turn = self._away
        self._excuses: dict[ChannelId, list[float]] = {}
        self._tokens = float(HANDSHAKE_BURST)
        self._tokens_at = 0.0
        self._addresses: Table[NodeId, PeerAddress] = Table(
            keyspace.PEER, lambda node_id: node_id, PEER.encode, PEER.decode
        )
        self.dial: Dial = lambda _node, _host, _port: None
        self.stopping = False
        self._paused = False

    def load(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        self._addresses.load((NodeId(key[1:]), value) for key, value in rows)

    # -- looking ---------------------------------------------------------------------------------------------------

    def connected(self) -> list[Peer]:
        return [peer for peer in self._by_node.values() if peer.state is PeerState.READY]

    def get(self, node_id: NodeId) -> Peer | None:
        peer = self._by_node.get(node_id)
        return peer if peer is not None and peer.state is PeerState.READY else None

    # -- connecting ------------------------------------------------------------------------------------------------

    def connect(self, node_id: NodeId, host: str, port: int, done: Callable[[BaseException | None], None]) -> None:
        """Dial unless connected or about to be; ``done(None)`` once our side accepts the peer.

        Handshake and ``init`` are done then and no plugin of ours objected. Whether the peer keeps us we cannot know: a
        refusal of its own ends the connection later. ``done(ConnectFailed)`` if it comes to nothing before.
        A peer that was disconnected is dialled again from now on.
        """
        self._away -= {node_id}
        address = PeerAddress(host=host, port=port)
        self._addresses.set(node_id, address)
        if self.get(node_id) is not None:
            done(None)
            return
        self._waiting.setdefault(node_id, []).append(done)
        # A second connection would end one of the two, and which one is up to the other side.
        if address in self._dialling.get(node_id, ()) or f"{host}:{port}" in self._shaking_hands(node_id):
            return
        self._dial(node_id, address)

    def _dial(self, node_id: NodeId, address: PeerAddress) -> None:
        self._dialling.setdefault(node_id, []).append(address)
        self.dial(node_id, address.host, address.port)

    def _dialled(self, node_id: NodeId) -> None:
        """One dial, the oldest, has ended: in a socket or in nothing."""
        addresses = self._dialling.get(node_id, [])
        if len(addresses) > 1:
            addresses.pop(0)
        else:
            self._dialling.pop(node_id, None)

    def _shaking_hands(self, node_id: NodeId) -> list[str]:
        """Addresses of connections that we began and that are not ready yet."""
        early = (PeerState.HANDSHAKE, PeerState.AWAITING_INIT, PeerState.VETTING)
        return [
            peer.address
            for peer in self._connections
            if peer.node_id == node_id and not peer.inbound and peer.state in early
        ]

    def reconnect_all(self) -> None:
        """Dial every channel peer that has an address (at start)."""
        for node_id in self._channels.peer_nodes():
            self._dial_known(node_id)

    def _dial_known(self, node_id: NodeId) -> None:
        address = self._addresses.get(node_id)
        if address is None or self.stopping or node_id in self._away or node_id in self._by_node:
            return
        if not self._goes_on(node_id):  # if that comes to nothing, its end is followed by a retry
            self._dial(node_id, address)

    def on_dial_failed(self, node_id: NodeId, error: BaseException) -> None:
        self._dialled(node_id)
        if self._goes_on(node_id):
            return
        self._answer(node_id, ConnectFailed(f"cannot reach {node_id.hex()}: {error}"))
        self._retry_later(node_id)

    def _goes_on(self, node_id: NodeId) -> bool:
        """Whether another attempt is under way: that one answers who waits."""
        return node_id in self._dialling or bool(self._shaking_hands(node_id))

    def _retry_later(self, node_id: NodeId) -> None:
        """Back off, for peers that we share a channel with."""
        if self.stopping or node_id in self._away or not self._dials_by_itself(node_id):
            return
        delay = self._retry.get(node_id, FIRST_RETRY)
        self._retry[node_id] = min(delay * 2, MAX_RETRY)
        jitter = 0.75 + self._host.entropy(1)[0] / 512
        self._host.call_later(delay * jitter, lambda: self.post(lambda: self._dial_known(node_id)))

    def _dials_by_itself(self, node_id: NodeId) -> bool:
        return bool(self._channels.of_peer(node_id)) and node_id in self._addresses

    def _answer(self, node_id: NodeId, error: BaseException | None) -> None:
        for done in self._waiting.pop(node_id, ()):
            done(error)

    def may_accept(self) -> bool:
        """Whether one more inbound handshake is within the rate; asked before any key operation."""
        now = self._host.wall_time()
        self._tokens = min(
            float(HANDSHAKE_BURST), self._tokens + max(0.0, now - self._tokens_at) * HANDSHAKES_PER_SECOND
        )
        self._tokens_at = now
        if self._tokens < 1 or self.stopping or self._paused:
            return False
        self._tokens -= 1
        without = sum(
            1 for peer in self._connections if peer.node_id is None or not self._channels.of_peer(peer.node_id)
        )
        return without < MAX_PEERS_WITHOUT_CHANNEL

    def new_connection(self, wire: Wire, address: str, remote_node_id: NodeId | None) -> Peer:
        """A socket is open; ``remote_node_id`` when we dialled."""
        if remote_node_id is not None:
            self._dialled(remote_node_id)
        peer = Peer(
            wire=wire,
            owner=self,
            host=self._host,
            caller=self._caller,
            identity=self._identity,
            local_node_id=self._local_node_id,
            local_init=self._init,
            chain_hash=self._chain_hash,
            address=address,
            remote_node_id=remote_node_id,
        )
        self._connections.add(peer)
        peer.start()
        if remote_node_id in self._away:  # while it was dialled
            peer.fail(DISCONNECTED, warn=False)
        return peer

    def receive(self, peer: Peer, data: bytes) -> None:
        peer.receive(data)

    # -- PeerOwner -------------------------------------------------------------------------------------------------

    def on_init(self, peer: Peer) -> None:
        node_id = peer.node_id
        if node_id is None:
            return
        if node_id == self._local_node_id:
            peer.fail("connected to ourselves")
            return
        now = self._host.wall_time()
        older = self._by_node.get(node_id)
        if older is not None and C_141.enabled and not self._replaces(peer, older, now):
            peer.fail("connected a moment ago", warn=False)
            return
        self._by_node[node_id] = peer
        self._since[node_id] = now
        if older is not None and C_141.enabled:
            older.fail("replaced by a newer connection", warn=False)
        info = PeerInfo(node_id=node_id, address=peer.address, inbound=peer.inbound, features=peer.features.to_bytes())

        def answered(refusal: str | None) -> None:
            if peer.state is not PeerState.VETTING:
                return
            if refusal is not None:
                log.info("peer_refused", peer=repr(peer), reason=refusal)
                self._answer(node_id, ConnectFailed("this node refused the peer; its log says why"))
                peer.fail(NOT_ACCEPTED)  # why is our own affair
                return
            self._retry.pop(node_id, None)
            peer.accept_ready()
            self._channels.on_peer_ready(peer)
            self._answer(node_id, None)
            peer.deliver_held()

        self._ask_peer(info, answered)

    def _replaces(self, newer: Peer, older: Peer, now: float) -> bool:
        """Never twice within seconds, or two nodes chase each other; when both dialled, both keep the same one."""
        if abs(now - self._since.get(newer.node_id or self._local_node_id, 0.0)) >= REPLACE_SECONDS:
            return True
        if newer.inbound == older.inbound:
            return False
        return newer.inbound == ((newer.node_id or b"") < self._local_node_id)

    def on_message(self, peer: Peer, message: Message) -> None:
        if isinstance(message, OpenChannel):
            known = self._channels.get(ChannelId(message.temporary_channel_id))
            if known is not None and known.peer_id != peer.node_id:  # nobody takes the place of another's opening
                peer.send_error(message.temporary_channel_id, "temporary_channel_id is in use")
                return
            self._opener.on_open_channel(peer, message)
            return
        if isinstance(message, ErrorMessage | WarningMessage):
            self._on_trouble(peer, message)
            return
        channel_id = getattr(message, "channel_id", None) or getattr(message, "temporary_channel_id", None)
        if channel_id is not None:
            self._channels.on_message(peer, ChannelId(channel_id), message)

    def _on_trouble(self, peer: Peer, message: ErrorMessage | WarningMessage) -> None:
        """A warning is for people to read and fails nothing; an error fails the channels it names."""
        text = clean_text(message.data)
        log.warning("peer_says", peer=repr(peer), message=message.NAME, channel=message.channel_id.hex(), text=text)
        if isinstance(message, WarningMessage) and C_143.enabled:
            return
        if self._excused(peer, message.channel_id, text):
            peer.fail("this error is taken for a passing one, the channel is kept")  # a new link may do better
            return
        if C_142.enabled:
            error = ErrorMessage(channel_id=message.channel_id, data=message.data)
            self._channels.on_message(peer, ChannelId(message.channel_id), error)

    def _excused(self, peer: Peer, raw_channel_id: bytes, text: str) -> bool:
        """Whether an error is one that is not meant, about a funded channel of this peer, and not for ever."""
        channel_id = ChannelId(raw_channel_id)
        actor = self._channels.get(channel_id)
        if text not in EXCUSED or actor is None or actor.peer_id != peer.node_id or actor.channel.lifecycle in OPENING:
            return False
        now = self._host.wall_time()
        recent = [at for at in self._excuses.get(channel_id, ()) if abs(now - at) < EXCUSE_SECONDS]
        if len(recent) >= MAX_EXCUSES:
            return False
        self._excuses[channel_id] = [*recent, now]
        return True

    def on_peer_closed(self, peer: Peer) -> None:
        self._connections.discard(peer)
        node_id = peer.node_id
        if node_id is None:
            return
        self._channels.on_peer_gone(peer)
        was_current = self._by_node.get(node_id) is peer
        if was_current:
            del self._by_node[node_id]
            del self._since[node_id]
        if node_id not in self._by_node and (was_current or not peer.inbound) and not self._goes_on(node_id):
            self._retry_later(node_id)
            self._answer(node_id, ConnectFailed(f"connection lost: {peer.closed_because}"))

    def touch(self, peer: Peer) -> None:
        self._touched[peer] = None

    def disconnect(self, node_id: NodeId) -> bool:
        """End every connection and attempt; the peer is not dialled again before somebody says ``connect``, or the
        node starts again. It may dial us. Whoever waits for a connection gets ``ConnectFailed``.

        Returns whether there was anything to end: a connection, an attempt, or attempts to come.
        """
        ending = [peer for peer in self._connections if peer.node_id == node_id]
        attempts = node_id in self._dialling or self._dials_by_itself(node_id)
        if not ending and (not attempts or node_id in self._away):
            return False
        log.info("peer_disconnected", peer=node_id.hex(), channels=len(self._channels.of_peer(node_id)))
        self._away |= {node_id}
        self._retry.pop(node_id, None)
        self._answer(node_id, ConnectFailed(DISCONNECTED))
        for peer in ending:
            peer.close()
        return True

    def drop_all(self, reason: str) -> None:
        """Every connection ends at once; peers that we share a channel with are dialled again."""
        for peer in list(self._connections):
            peer.abandon(reason)

    def close_all(self) -> None:
        self.stopping = True
        for peer in list(self._connections):
            peer.close()

    # -- turn ------------------------------------------------------------------------------------------------------

    def end_turn(self) -> bool:
        return False

    def write(self, journal: Journal) -> None:
        self._addresses.write(journal)

    def commit(self) -> None:
        self._addresses.commit()
        self._away_before_turn = self._away
        touched, self._touched = self._touched, {}
        self._paused = False
        for peer in touched:
            peer.flush()

    def rollback(self) -> None:
        """Nothing of the turn leaves, and nobody is heard until the store works: every connection ends.

        Channels are back at their durable state then; reestablish tells their peers, whoever took part in the turn.
        """
        self._addresses.rollback()
        undone, self._away = self._away - self._away_before_turn, self._away_before_turn
        for node_id in undone:
            self.post(partial(self._retry_later, node_id))
        self._paused = True
        ending = {**dict.fromkeys(self._touched), **dict.fromkeys(self._connections)}
        self._touched = {}
        for peer in ending:
            peer.abandon("storage trouble")
