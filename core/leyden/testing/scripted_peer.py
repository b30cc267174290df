"""A peer whose every byte the test decides: BOLT 8 outside, any message or any bytes inside.

    peer = ScriptedPeer(simulation, node).connect()
    peer.send(Ping(num_pong_bytes=4, ignored=b""))
    assert peer.expect(Pong).ignored == bytes(4)
    peer.send(b"\\x00\\x02")
    peer.expect_closed("C-127")

A channel has an engine behind it, so that everything is right up to where the script wants it wrong:

    channel = peer.open(peer.propose())
    channel.offer(5_000_000)
    peer.run(channel, before=CommitmentSigned)
    peer.send(channel.changed(signature=bytes(64)))
    peer.expect(WarningMessage)

Everything happens in the simulation: a call returns once nobody has work left. ``ScriptedSocket`` is the same for a
node that runs for real.
"""

from collections.abc import Callable
from typing import Any

from leyden.channel import ChannelPolicy
from leyden.hooks.services import NodeIdentity
from leyden.hooks.types import DestinationPurpose
from leyden.invoice import Invoice
from leyden.node.host import run_inline
from leyden.node.paying import make_invoice
from leyden.testing.script import M, Script
from leyden.testing.scripted_channel import ScriptedChannel, ScriptError
from leyden.testing.simulation import SimNode, Simulation, SimWire
from leyden.transport import (
    ACT_ONE_SIZE,
    ACT_THREE_SIZE,
    ACT_TWO_SIZE,
    InitiatorHandshake,
    ResponderHandshake,
    Session,
)
from leyden.types import Msat, NodeId, Preimage, Sat
from leyden.wire import Init, Message, OpenChannel, Ping, Pong

CAPACITY = 1_000_000
PUSH = 300_000_000


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


class ScriptedPeer(Script):
    """A made-up node with one connection at a time to ``node``; the same name is the same node id.

    With ``identity`` the script speaks for somebody who exists, say a node of the simulation that was killed.
    """

    def __init__(
        self, simulation: Simulation, node: SimNode, name: str = "script", *, identity: NodeIdentity | None = None
    ) -> None:
        super().__init__(name, identity, node.node_id)
        self.simulation = simulation
        self.node = node
        self._wire: _ScriptWire | None = None

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
        self.forget_connection()
        place = SimNode(self.simulation, self.name, bytes(32), ChannelPolicy())  # never started: no core, no disk
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

    def reconnect(self) -> "ScriptedPeer":
        """A new connection; ``channel_reestablish`` of every channel waits to be sent."""
        if not self.closed:
            self.vanish()
        self.simulation.advance(4)  # a newer connection replaces an older one only after some seconds
        return self.connect()

    def begin(self, session: Session) -> None:
        """From here on the node's bytes are frames (after a handshake that the test took act by act)."""
        self._session = session
        self._on_bytes(b"")

    def initiator(self) -> InitiatorHandshake:
        """A fresh handshake with the node, to be taken act by act."""
        return self.initiate(self.entropy())

    def entropy(self) -> bytes:
        return self.simulation.random.randbytes(32)

    def _exchange_init(self, init: bool | Init) -> "ScriptedPeer":
        self.remote_init = self.expect(Init)
        if init:
            self.send(self.make_init() if init is True else init)
            for channel in self.channels:
                channel.connected(self.negotiated)
        return self

    # -- out -------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Raw bytes on the wire."""
        self.wire.write(data)
        self.simulation.settle()

    def send(self, *messages: Message | bytes) -> None:
        """One frame for each message (or for bytes that pretend to be one), all in one write."""
        self.write(b"".join(self.seal(message) for message in messages))

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
        return self.take_raw(size)

    def expect(self, kind: type[M]) -> M:
        """The node's next message, which must be a ``kind``."""
        self.simulation.settle()
        return self.pop(kind, self.closed)

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
        return self.last_warning(reason)

    def ping(self, size: int = 3) -> None:
        """The node still answers on this connection."""
        self.send(Ping(num_pong_bytes=size, ignored=b""))
        if self.expect(Pong).ignored != bytes(size):
            raise ScriptError("the pong has another length or content than asked for")

    def _on_bytes(self, data: bytes) -> None:
        answer = self.unseal(data)
        if answer:
            self.wire.write(answer)

    # -- channels --------------------------------------------------------------------------------------------------

    def propose(self, funding: int = CAPACITY, push_msat: int = PUSH, **params: Any) -> ScriptedChannel:
        """A channel that the script funds: ``open_channel`` waits to be sent. ``params`` as in ``OpenParams``."""
        channel = self.new_channel(self.simulation.chain.height, self.simulation.now)
        channel.on_funding = self.simulation.chain.faucet
        channel.propose(funding, push_msat, **params)
        return channel

    def answer(self, funding: int = CAPACITY, push_msat: int = PUSH, **options: Any) -> ScriptedChannel:
        """A channel that the node funds: it has proposed, ``accept_channel`` waits to be sent."""
        self.let_open(funding, push_msat, **options)
        channel = self.new_channel(self.simulation.chain.height, self.simulation.now)
        channel.answer(self.expect(OpenChannel))
        return channel

    def run(
        self,
        channel: ScriptedChannel,
        *,
        before: type[Message] | None = None,
        until: type[Message] | None = None,
    ) -> Message | None:
        """Let the engine talk to the node until it is about to send ``before``, or has received ``until``.

        Returns that message (``before`` is not sent: it waits). Without either, until both are silent; ``ScriptError``
        if the place is never reached.
        """
        self._follow()
        while True:
            channel.turn()
            held = channel.held
            if held is not None:
                if before is not None and isinstance(held, before):
                    return held
                self.send(channel.take())
                continue
            self.simulation.settle()
            taken = self.feed(channel)
            found = next((m for m in taken if until is not None and isinstance(m, until)), None)
            if found is not None:
                return found
            if not taken:
                break
        wanted = before or until
        if wanted is not None:
            raise self.missed(channel, wanted)
        return None

    def open(self, channel: ScriptedChannel) -> ScriptedChannel:
        """The rest of the opening, three blocks included; both sides can pay."""
        self.run(channel)
        self.mine(3)
        self.run(channel)
        if not channel.is_open:
            raise ScriptError(f"the channel did not open: {channel.channel.lifecycle.value} {channel.channel.failure}")
        return channel

    def reestablish(self, channel: ScriptedChannel) -> ScriptedChannel:
        """A new connection on which the channel works again."""
        self.reconnect()
        self.run(channel)
        if not channel.is_open:
            raise ScriptError(f"the channel did not come back: {channel.channel.failure or self.rest()}")
        return channel

    def mine(self, count: int = 1) -> None:
        """Blocks that the script sees too."""
        for _ in range(count):
            self.simulation.mine(1)
            self._follow()

    def _follow(self) -> None:
        """Tell every engine about the blocks that it has not seen."""
        chain = self.simulation.chain
        for channel in self.channels:
            for height in range(channel.height + 1, chain.height + 1):
                funded = channel.channel.fundings[0].outpoint.txid if channel.channel.fundings else None
                for position, tx in enumerate(chain.block_at(height).block.transactions):
                    if tx.txid == funded:
                        channel.confirm(height, position)
                channel.block(height)

    # -- what the node is asked to do ------------------------------------------------------------------------------

    def let_open(
        self, funding: int = CAPACITY, push_msat: int = PUSH, *, announce: bool = False, zero_conf: bool = False
    ) -> None:
        """The node's user opens a channel to the script (with coins from the faucet): ``open_channel`` is under way."""
        core = self.node.core
        peer = core.peers.get(self.node_id)
        if peer is None:
            raise ScriptError(f"the node has no connection to {self.name}")
        self._fund_node(Sat(funding + 100_000))

        def begin() -> None:
            core.opener.open(
                peer,
                Sat(funding),
                Msat(push_msat),
                announce,
                None,
                lambda _id: None,
                lambda _error: None,
                zero_conf=zero_conf,
            )

        core.engine.post(begin)
        self.simulation.settle()

    def _fund_node(self, amount: Sat) -> None:
        core = self.node.core
        balance = core.services.wallet.balance()
        if balance.confirmed - balance.locked >= amount:
            return

        def give() -> None:
            destination, changes = core.services.wallet.next_destination(DestinationPurpose.RECEIVE)
            core.engine.journal.merge(changes)
            self.simulation.chain.faucet(destination.script, Sat(10 * amount))

        core.engine.post(give)
        self.simulation.settle()
        self.mine(1)

    def let_invoice(self, amount: int) -> Invoice:
        """The node's user makes an invoice over ``amount`` msat, for ``ScriptedChannel.pay``."""
        return make_node_invoice(self.node, amount)

    def let_pay(self, amount: int, name: str = "") -> tuple[Invoice, Preimage]:
        """The node's user pays an invoice of the script over ``amount`` msat: the HTLC is under way."""
        invoice, preimage = self.invoice(amount, self.simulation.now, name)
        core = self.node.core
        failures: list[BaseException] = []
        core.engine.request(
            lambda: core.payments.send(invoice, Msat(amount), ""), lambda _record: None, failures.append
        )
        self.simulation.settle()
        if failures:
            raise ScriptError(f"the node does not pay: {failures[0]}")
        return invoice, preimage


def make_node_invoice(node: SimNode, amount: int) -> Invoice:
    """An invoice that ``node`` has stored and will take, as ``Node.create_invoice`` makes it."""
    core = node.core
    invoice, record = run_inline(make_invoice(core, Msat(amount), "scripted"))
    core.engine.post(lambda: core.payments.add_invoice(record))
    node.simulation.settle()
    return invoice


__all__ = ["CAPACITY", "PUSH", "ScriptError", "ScriptedChannel", "ScriptedPeer", "make_node_invoice"]
