"""A peer whose every byte the test decides: BOLT 8 outside, any message or any bytes inside.

    peer = ScriptedPeer(simulation, node).connect()
    peer.send(Ping(num_pong_bytes=4, ignored=b""))
    assert peer.expect(Pong).ignored == bytes(4)
    peer.send(b"\\x00\\x02")
    peer.expect_closed("C-127")

Everything happens in the simulation: a call returns once nobody has work left.
"""

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from leyden.bitcoin import Network
from leyden.channel import ChannelPolicy
from leyden.crypto import ecdh, pubkey_create, sha256
from leyden.hooks.services import NodeIdentity
from leyden.node.core import LOCAL_FEATURES
from leyden.node.host import run_inline
from leyden.testing.simulation import SimNode, Simulation, SimWire
from leyden.transport import (
    ACT_ONE_SIZE,
    ACT_THREE_SIZE,
    ACT_TWO_SIZE,
    InitiatorHandshake,
    ResponderHandshake,
    Session,
)
from leyden.types import LeydenError, NodeId
from leyden.wire import Init, Message, Ping, Pong, UnknownMessage, WarningMessage, decode, encode
from leyden.wire.features import Features

M = TypeVar("M", bound=Message)


class ScriptError(LeydenError, AssertionError):
    """The node did something else than the script expects."""


class _ScriptWire(SimWire):
    """The script's end of the connection: bytes go to the script, not into a node."""

    def __init__(self, simulation: Simulation, place: SimNode, take: Callable[[bytes], None]) -> None:
        super().__init__(simulation, place)
        self._take = take

    def receive(self, data: bytes) -> None:
        if not self.closed:
            self._take(data)

    def lost(self) -> None:
        self.closed = True
        self._forget()


class ScriptedPeer:
    """One connection to ``node`` from a made-up node; make another one to connect again (same name, same node id).

    With ``identity`` the script speaks for somebody who exists, say a node of the simulation that was killed.
    """

    def __init__(
        self, simulation: Simulation, node: SimNode, name: str = "script", *, identity: NodeIdentity | None = None
    ) -> None:
        self.simulation = simulation
        self.node = node
        self.name = name
        self._secret = sha256(f"secret of {name}".encode())
        self._identity = identity
        self.node_id = NodeId(pubkey_create(self._secret)) if identity is None else run_inline(identity.node_id())
        self.answer_pings = True
        """Answer the node's own pings, which then do not show up in ``expect``."""
        self.features = LOCAL_FEATURES
        self.remote_init: Init | None = None
        self._session: Session | None = None
        self._raw = bytearray()
        self._wire: _ScriptWire | None = None
        self._messages: deque[Message | UnknownMessage] = deque()

    @property
    def session(self) -> Session:
        if self._session is None:
            raise ScriptError(f"{self.name} has no session yet")
        return self._session

    # -- connecting ------------------------------------------------------------------------------------------------

    @property
    def wire(self) -> _ScriptWire:
        if self._wire is None:
            raise ScriptError(f"{self.name} has not dialled yet")
        return self._wire

    @property
    def dialled(self) -> bool:
        return self._wire is not None

    @property
    def closed(self) -> bool:
        """The node (or the script) has closed the connection."""
        return self.wire.closed

    def dial(self) -> "ScriptedPeer":
        """Only the TCP connection, from the script to the node."""
        return self._open(None)

    def listen(self) -> "ScriptedPeer":
        """Only the TCP connection, from the node to the script."""
        return self._open(self.node_id)

    def _open(self, remote: NodeId | None) -> "ScriptedPeer":
        place = SimNode(self.simulation, self.name, self._secret, ChannelPolicy())  # never started: no core, no disk
        self._wire = near = _ScriptWire(self.simulation, place, self._on_bytes)
        far = SimWire(self.simulation, self.node)
        near.other, far.other = far, near
        far.open(remote)
        self.simulation.settle()
        return self

    def connect(self, *, init: bool | Init = True) -> "ScriptedPeer":
        """Dial, shake hands and exchange ``init`` (the node's own by default, or another; False: none from us)."""
        self.dial()
        shake = self.initiator()
        self.write(shake.act_one())
        point = shake.on_act_two(self.take(ACT_TWO_SIZE))
        self.write(shake.act_three(self.ecdh(point)))
        self.begin(shake.session())
        return self._exchange_init(init)

    def accept(self, *, init: bool | Init = True) -> "ScriptedPeer":
        """As ``connect``, but the node dials."""
        self.listen()
        shake = ResponderHandshake(self.node_id, self.entropy())
        point = shake.on_act_one(self.take(ACT_ONE_SIZE))
        self.write(shake.act_two(self.ecdh(point)))
        shake.on_act_three(self.take(ACT_THREE_SIZE))
        self.begin(shake.session())
        return self._exchange_init(init)

    def begin(self, session: Session) -> None:
        """From here on the node's bytes are frames (after a handshake that the test took act by act)."""
        self._session = session
        self._on_bytes(b"")

    def initiator(self) -> InitiatorHandshake:
        """A fresh handshake with the node, to be taken act by act."""
        return InitiatorHandshake(self.node_id, self.node.node_id, self.entropy())

    def ecdh(self, point: bytes) -> bytes:
        """With the script's static key (what the handshake asks for)."""
        return ecdh(self._secret, point) if self._identity is None else run_inline(self._identity.ecdh(point))

    def entropy(self) -> bytes:
        return self.simulation.random.randbytes(32)

    def make_init(self, features: Features | None = None) -> Init:
        """An ``init`` that the node accepts, or one with other features."""
        chosen = self.features if features is None else features
        return Init(globalfeatures=b"", features=chosen.to_bytes(), networks=(Network.REGTEST.chain_hash,))

    def _exchange_init(self, init: bool | Init) -> "ScriptedPeer":
        self.remote_init = self.expect(Init)
        if init:
            self.send(self.make_init() if init is True else init)
        return self

    # -- out -------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Raw bytes on the wire."""
        self.wire.write(data)
        self.simulation.settle()

    def send(self, *messages: Message | bytes) -> None:
        """One frame for each message (or for bytes that pretend to be one), all in one write."""
        self.write(b"".join(self.seal(message) for message in messages))

    def seal(self, message: Message | bytes) -> bytes:
        """The encrypted frame; the session moves on, so it has to be written next."""
        return self.session.encrypt(message if isinstance(message, bytes) else encode(message))

    def vanish(self) -> None:
        """The connection breaks at both ends at once."""
        self.wire.break_off()
        self.simulation.settle()

    def hang_up(self) -> None:
        """The script closes in an orderly way."""
        self.wire.close()
        self.simulation.settle()

    # -- in --------------------------------------------------------------------------------------------------------

    def take(self, size: int) -> bytes:
        """The next ``size`` raw bytes that the node wrote."""
        if len(self._raw) < size:
            raise ScriptError(f"the node wrote {len(self._raw)} bytes, {size} were due")
        data = bytes(self._raw[:size])
        del self._raw[:size]
        return data

    def expect(self, kind: type[M]) -> M:
        """The node's next message, which must be a ``kind``."""
        self.simulation.settle()
        if not self._messages:
            raise ScriptError(f"expected {kind.__name__}, the node {'closed' if self.closed else 'is silent'}")
        message = self._messages.popleft()
        if not isinstance(message, kind):
            raise ScriptError(f"expected {kind.__name__}, got {message}")
        return message

    def expect_silence(self) -> None:
        """The connection is open and the node has said nothing more."""
        self.simulation.settle()
        if self.closed:
            raise ScriptError(f"the node closed: {list(self._messages)}")
        if self._messages:
            raise ScriptError(f"expected silence, got {self._messages.popleft()}")

    def expect_closed(self, reason: str = "") -> str:
        """The node has closed; returns the text of the ``warning`` that it left, which must hold ``reason``."""
        self.simulation.settle()
        if not self.closed:
            raise ScriptError(f"the node keeps the connection; its messages: {list(self._messages)}")
        text = ""
        if self._messages:
            last = self._messages.pop()
            if not isinstance(last, WarningMessage) or self._messages:
                raise ScriptError(f"expected nothing but a warning before the end, got {[*self._messages, last]}")
            text = last.data.decode()
        if reason not in text:
            raise ScriptError(f"expected {reason} in the last warning, got {text or 'none'}")
        return text

    def ping(self, size: int = 3) -> None:
        """The node still answers on this connection."""
        self.send(Ping(num_pong_bytes=size, ignored=b""))
        if self.expect(Pong).ignored != bytes(size):
            raise ScriptError("the pong has another length or content than asked for")

    def _on_bytes(self, data: bytes) -> None:
        self._raw += data
        if self._session is None:
            return
        data = bytes(self._raw)
        self._raw.clear()
        for plain in self._session.feed(data):
            message = decode(plain)
            if isinstance(message, Ping) and self.answer_pings:
                self.wire.write(self.seal(Pong(ignored=bytes(message.num_pong_bytes))))
            else:
                self._messages.append(message)
