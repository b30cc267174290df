"""One connection to a peer, without the socket: BOLT 8 handshake, ``init``, ping and the limits on both.

Bytes come in through ``receive``; what goes out is gathered and written once by ``flush`` after the turn's commit.
A violation costs this connection and nothing else.
"""

import enum
from collections.abc import Callable
from typing import Protocol

import structlog

from leyden.crypto import CryptoError
from leyden.hooks.services import NodeIdentity
from leyden.node.host import Caller, Host, TimerHandle
from leyden.transport import (
    ACT_ONE_SIZE,
    ACT_THREE_SIZE,
    ACT_TWO_SIZE,
    ActBuffer,
    InitiatorHandshake,
    ResponderHandshake,
    Session,
    TransportError,
)
from leyden.types import NodeId, RuleViolation, clean_text, require
from leyden.types.rules import C_127, C_137, C_140, C_145, C_146
from leyden.wire import ErrorMessage, Init, Message, Ping, Pong, UnknownMessage, WarningMessage, decode, encode
from leyden.wire.features import Features, check_init_features, negotiated, received_features

log = structlog.get_logger("leyden.peer")

HANDSHAKE_TIMEOUT = 10.0
PING_INTERVAL = 30.0
MAX_PINGS_PER_INTERVAL = 240
MAX_PONG_BYTES = 65532
MAX_HELD_BYTES = 256 * 1024
"""What a peer may say before we have decided about it: while our key answers, and while plugins vet it."""
ALL_CHANNELS = bytes(32)


class Wire(Protocol):
    """The socket of one connection, owned by the driver."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        """Flush what was written, then close; ``Peer.on_closed`` follows."""
        ...


class PeerState(enum.Enum):
    HANDSHAKE = "handshake"
    AWAITING_INIT = "awaiting_init"
    VETTING = "vetting"
    READY = "ready"
    CLOSED = "closed"


class PeerOwner(Protocol):
    """Who is told what happens on a connection (the PeerManager)."""

    def on_init(self, peer: "Peer") -> None:
        """``init`` was exchanged: decide whether to keep the peer (``accept`` or ``fail``)."""
        ...

    def on_message(self, peer: "Peer", message: Message) -> None: ...

    def on_peer_closed(self, peer: "Peer") -> None: ...

    def touch(self, peer: "Peer") -> None:
        """The peer has something to flush."""
        ...

    def post(self, work: Callable[[], None]) -> None:
        """Do ``work`` as mail of a turn (timers fire outside of turns)."""
        ...


class Peer:
    """A connection from the first act to the end. ``node_id`` is proven once the state is past the handshake."""

    def __init__(
        self,
        *,
        wire: Wire,
        owner: PeerOwner,
        host: Host,
        caller: Caller,
        identity: NodeIdentity,
        local_node_id: NodeId,
        local_init: Init,
        chain_hash: bytes,
        address: str,
        remote_node_id: NodeId | None,
    ) -> None:
        """``remote_node_id`` is given when we dial, and unknown until act three when we listen."""
        self.address = address
        self.inbound = remote_node_id is None
        self.state = PeerState.HANDSHAKE
        self.features = Features()
        self.node_id = remote_node_id
        self.closed_because = ""
        self._wire = wire
        self._owner = owner
        self._host = host
        self._caller = caller
        self._identity = identity
        self._local_init = local_init
        self._chain_hash = chain_hash
        self._acts = ActBuffer()
        self._session: Session | None = None
        self._raw = bytearray()
        self._outgoing: list[bytes] = []
        self._held: list[Message] = []
        self._held_bytes = 0
        self._initialised = False
        self._waiting = False
        self._pings = 0
        self._pong_due: int | None = None
        self._heard = True
        self._timer: TimerHandle | None = self._later(HANDSHAKE_TIMEOUT, self._on_handshake_timeout)
        ephemeral = host.entropy(32)
        self._dialler: InitiatorHandshake | None = None
        self._listener: ResponderHandshake | None = None
        if remote_node_id is not None:
            self._dialler = InitiatorHandshake(local_node_id, remote_node_id, ephemeral)
        else:
            self._listener = ResponderHandshake(local_node_id, ephemeral)

    def __repr__(self) -> str:
        return f"<Peer {(self.node_id or b'').hex()[:16] or '?'} {self.address} {self.state.value}>"

    # -- in --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The socket is open: the dialler speaks first."""
        if self._dialler is not None:
            try:
                self._raw += self._dialler.act_one()
            except CryptoError as error:
                self.fail(str(error))
                return
            self._owner.touch(self)

    def receive(self, data: bytes) -> None:
        """Bytes as the socket gave them."""
        if self.state is not PeerState.CLOSED:
            self._guard(lambda: self._on_bytes(data))

    def _guard(self, work: Callable[[], None]) -> None:
        """Whatever goes wrong with this peer's bytes costs this connection and nothing else."""
        try:
            work()
        except RuleViolation as violation:
            self.fail(str(violation), warn=not isinstance(violation, TransportError))
        except Exception:  # a bug: the message is lost, so the connection must go and reestablish put it right
            log.exception("peer_handler_failed", peer=repr(self))
            self.fail("internal error")

    def _on_bytes(self, data: bytes) -> None:
        if self._session is not None:
            self._on_frames(self._session, data)
        else:
            if self._waiting:
                self._hold(len(data))
            self._acts.feed(data)
            self._advance()

    def _hold(self, size: int) -> None:
        self._held_bytes += size
        if self._held_bytes > MAX_HELD_BYTES:
            self.fail("too much said before we could answer")

    def _on_frames(self, session: Session, data: bytes) -> None:
        """What came before a bad frame counts, however TCP cut the stream."""
        try:
            messages, broken = session.feed(data), None
        except TransportError as error:
            messages, broken = list(error.messages), error
        self._on_plain(messages)
        if broken is not None:
            raise broken

    def _advance(self) -> None:
        """Take as many handshake acts as have arrived; stops while an ECDH answer is awaited."""
        if self._waiting:
            return
        if self._dialler is not None:
            act = self._acts.take(ACT_TWO_SIZE)
            if act is not None:
                self._ecdh(self._dialler.on_act_two(act))
        elif self._listener is not None:
            if self._listener_waits_for_act_three:
                act = self._acts.take(ACT_THREE_SIZE)
                if act is not None:
                    self.node_id = self._listener.on_act_three(act)
                    self._begin_session(self._listener.session())
            else:
                act = self._acts.take(ACT_ONE_SIZE)
                if act is not None:
                    self._ecdh(self._listener.on_act_one(act))

    _listener_waits_for_act_three = False

    def _ecdh(self, point: bytes) -> None:
        self._waiting = True
        self._caller.call(self._identity, self._identity.ecdh(point), self._on_ecdh, "handshake ecdh")

    def _on_ecdh(self, shared: bytes | None, error: BaseException | None) -> None:
        self._waiting = False
        if self.state is not PeerState.HANDSHAKE:
            return
        if shared is None:
            self.fail(f"node identity could not answer: {error}", warn=False)
            return
        self._guard(lambda: self._on_shared_secret(shared))

    def _on_shared_secret(self, shared: bytes) -> None:
        if self._dialler is not None:
            self._raw += self._dialler.act_three(shared)
            self._owner.touch(self)
            self._begin_session(self._dialler.session())
        elif self._listener is not None:
            self._raw += self._listener.act_two(shared)
            self._listener_waits_for_act_three = True
            self._owner.touch(self)
            self._advance()

    def _begin_session(self, session: Session) -> None:
        self._session = session
        self._dialler = self._listener = None
        self.state = PeerState.AWAITING_INIT
        self.send(self._local_init)
        rest = self._acts.rest()
        if rest:
            self._on_frames(session, rest)

    def _on_plain(self, messages: list[bytes]) -> None:
        for data in messages:
            if self.state is PeerState.CLOSED:
                return
            message = decode(data)
            self._heard = True
            if self.state is PeerState.AWAITING_INIT:
                self._on_init(message)
            else:
                self._on_message(message, len(data))

    def _on_init(self, message: Message | UnknownMessage) -> None:
        require(isinstance(message, Init), C_137, "the first message is not init", got=type(message).__name__)
        if not isinstance(message, Init):
            return
        self._initialised = True
        theirs = received_features(message.globalfeatures, message.features)
        check_init_features(Features.from_bytes(self._local_init.features), theirs)
        if message.networks is not None:
            require(self._chain_hash in message.networks, C_140, "no chain in common")
        self.features = theirs
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._later(PING_INTERVAL, self._on_tick)
        self._held_bytes = 0
        self.state = PeerState.VETTING
        self._owner.on_init(self)

    def _on_message(self, message: Message | UnknownMessage, size: int) -> None:
        if isinstance(message, Ping):
            self._on_ping(message)
        elif isinstance(message, Pong):
            due, self._pong_due = self._pong_due, None
            require(due == len(message.ignored), C_146, "pong we did not ask for", length=len(message.ignored))
        elif isinstance(message, Init | UnknownMessage):
            pass  # a repeated init changes nothing; unknown odd types are skipped (decode refuses even ones)
        elif message.NEEDS and not self._is_negotiated(message):  # as if we did not know the type
            require(message.TYPE & 1, C_127, f"{message.NAME} was not negotiated", offered=message.TYPE)
        elif self.state is PeerState.VETTING:
            self._held.append(message)
            self._hold(size)
        else:
            self._owner.on_message(self, message)

    def _is_negotiated(self, message: Message) -> bool:
        ours = Features.from_bytes(self._local_init.features)
        return any(negotiated(ours, self.features, feature) for feature in message.NEEDS)

    def _on_ping(self, message: Ping) -> None:
        self._pings += 1
        if self._pings > MAX_PINGS_PER_INTERVAL:
            self.fail("too many pings")
        elif message.num_pong_bytes < MAX_PONG_BYTES or not C_145.enabled:
            self.send(Pong(ignored=bytes(min(message.num_pong_bytes, MAX_PONG_BYTES - 1))))

    def accept_ready(self) -> None:
        """The peer may stay; what arrived meanwhile waits for ``deliver_held``."""
        if self.state is PeerState.VETTING:
            self.state = PeerState.READY

    def deliver_held(self) -> None:
        """Messages that arrived while the peer was vetted, in order."""
        held, self._held = self._held, []
        for message in held:
            if self.state is PeerState.READY:
                self._guard(lambda message=message: self._owner.on_message(self, message))  # type: ignore[misc]

    # -- timers ----------------------------------------------------------------------------------------------------

    def _later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        return self._host.call_later(seconds, lambda: self._owner.post(callback))

    def _on_handshake_timeout(self) -> None:
        if self.state in (PeerState.HANDSHAKE, PeerState.AWAITING_INIT):
            self.fail("handshake timed out", warn=False)

    def _on_tick(self) -> None:
        if self.state is PeerState.CLOSED:
            return
        self._pings = 0
        if self._pong_due is not None:
            self.fail("no pong", warn=False)
            return
        if not self._heard:
            self._pong_due = 8
            self.send(Ping(num_pong_bytes=8, ignored=b""))
        self._heard = False
        self._timer = self._later(PING_INTERVAL, self._on_tick)

    # -- out -------------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> None:
        """Leaves with the next ``flush``."""
        if self.state is not PeerState.CLOSED:
            self._outgoing.append(encode(message))
            self._owner.touch(self)

    def fail(self, reason: str, *, warn: bool = True) -> None:
        """Close the connection, with a ``warning`` unless the peer's ``init`` is still due (C-137); channels stay."""
        if self.state is PeerState.CLOSED:
            return
        self.closed_because = clean_text(reason)
        log.info("peer_failed", peer=(self.node_id or b"").hex(), address=self.address, reason=self.closed_because)
        if warn and self._initialised:
            self._outgoing.append(encode(WarningMessage(channel_id=ALL_CHANNELS, data=self.closed_because.encode())))
        self.close()

    def send_error(self, channel_id: bytes, text: str) -> None:
        self.send(ErrorMessage(channel_id=channel_id, data=text.encode()))

    def close(self) -> None:
        """Flush, then close. ``on_peer_closed`` is told at once; the channels see a disconnect in this turn."""
        if self.state is PeerState.CLOSED:
            return
        self._stop()
        self._owner.touch(self)
        self._closing = True
        self._owner.on_peer_closed(self)

    def on_socket_closed(self) -> None:
        """The socket is gone, whoever closed it."""
        if self.state is not PeerState.CLOSED:
            self.closed_because = self.closed_because or "connection lost"
            self._stop()
            self._owner.on_peer_closed(self)

    _closing = False

    def _stop(self) -> None:
        self.state = PeerState.CLOSED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def flush(self) -> None:
        """Write everything gathered in one call. Only after the commit of the turn."""
        out = self._raw
        if self._session is not None and self._outgoing:
            encrypt = self._session.encrypt
            for message in self._outgoing:
                out += encrypt(message)
        self._outgoing.clear()
        if out:
            self._raw = bytearray()
            self._wire.write(bytes(out))
        if self._closing:
            self._closing = False
            self._wire.close()

    def abandon(self, reason: str) -> None:
        """The turn's commit failed: nothing of it may leave, so the connection ends without another byte."""
        self._outgoing.clear()
        self._raw.clear()
        self._closing = False
        self._wire.close()
        if self.state is not PeerState.CLOSED:
            self.closed_because = reason
            self._stop()
            self._owner.post(lambda: self._owner.on_peer_closed(self))
