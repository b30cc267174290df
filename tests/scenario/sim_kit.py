"""What scenarios in the simulation share: a node with a real channel to a friend, and a check that it still works."""

from pathlib import Path
from typing import Any, TypeVar

from leyden.channel import Channel
from leyden.hooks.types import DestinationPurpose
from leyden.node import keyspace
from leyden.node.core import NodeCore
from leyden.node.eventlog import decode_event
from leyden.payments import PaymentStatus
from leyden.payments.records import decode_payment_record
from leyden.testing.scripted_peer import ScriptedPeer, make_node_invoice
from leyden.testing.simulation import SimNode, Simulation
from leyden.types import ChannelId, Msat, Sat

E = TypeVar("E")
CAPACITY = Sat(1_000_000)
PUSH = Msat(300_000_000)
FUNDS = Sat(5_000_000)


def fund(simulation: Simulation, node: SimNode, amount: Sat = FUNDS) -> None:
    def faucet() -> None:
        destination, changes = node.core.services.wallet.next_destination(DestinationPurpose.RECEIVE)
        node.core.engine.journal.merge(changes)
        simulation.chain.faucet(destination.script, amount)

    node.core.engine.post(faucet)
    simulation.settle()
    simulation.mine(1)


def start_opening(node: SimNode, remote: bytes, capacity: Sat = CAPACITY, push: Msat = PUSH) -> list[object]:
    """Begin to open; the list gets the channel id or the error."""
    answers: list[object] = []
    core = node.core

    def begin() -> None:
        peer = core.peers.get(remote)
        if peer is None:
            raise AssertionError("not connected")
        core.opener.open(peer, capacity, push, False, None, answers.append, answers.append)

    core.engine.post(begin)
    node.simulation.settle()
    return answers


def give(node: SimNode, channel_id: ChannelId, command: Any) -> list[object]:
    """``command`` to a channel of ``node``: what came of it, ``None`` or the error."""
    answers: list[object] = []
    core = node.core

    def work() -> None:
        actor = core.channels.get(channel_id)
        if actor is None:
            raise AssertionError("no such channel")
        core.channels.apply(actor, command)

    core.engine.request(work, answers.append, answers.append)
    node.simulation.settle()
    return answers


def logged(node: SimNode, kind: type[E]) -> list[E]:
    """The events of one kind in the log of ``node``, on its disk."""
    rows = sorted((key, row) for key, row in node.disk.rows.items() if key.startswith(keyspace.EVENT))
    found = (decode_event(0, row).event for _, row in rows)
    return [event for event in found if isinstance(event, kind)]


def channels(node: SimNode) -> list[Channel]:
    return list(node.core.channels.channels())


class BusyNode:
    """``node`` with an open channel to ``friend`` and a quiet bystander: what an attack must leave alone."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.simulation = Simulation(seed, folder / "chain")
        self.node = self.simulation.add_node("alice")
        self.friend = self.simulation.add_node("bob")
        self.simulation.connect(self.node, self.friend)
        fund(self.simulation, self.node)
        answers = start_opening(self.node, self.friend.node_id)
        self.simulation.mine(4)
        if not all(isinstance(answer, bytes) for answer in answers) or not answers:
            raise AssertionError(f"the channel did not open: {answers}")
        self.channel_id = ChannelId(answers[0])
        self._scripts: list[ScriptedPeer] = []
        self.paid = 0
        self.bystander = self.script("bystander").connect()
        self.check()

    @property
    def core(self) -> NodeCore:
        return self.node.core

    @property
    def channel(self) -> Channel:
        actor = self.core.channels.get(self.channel_id)
        if actor is None:
            raise AssertionError("the channel is gone")
        return actor.channel

    def script(self, name: str = "mallory") -> ScriptedPeer:
        script = ScriptedPeer(self.simulation, self.node, name)
        self._scripts.append(script)
        return script

    def dismiss(self) -> None:
        """Every script but the bystander hangs up."""
        for script in self._scripts[1:]:
            if script.dialled and not script.closed:
                script.hang_up()
        del self._scripts[1:]

    def pay(self) -> None:
        """A payment over the unrelated channel: by turns out and in, of an amount that was not there before."""
        self.paid += 1
        payer, payee = (self.node, self.friend) if self.paid % 2 else (self.friend, self.node)
        invoice = make_node_invoice(payee, 1_000_000 + self.paid)
        core = payer.core
        core.engine.post(lambda: core.payments.send(invoice, Msat(1_000_000 + self.paid), ""))
        self.simulation.settle()
        record = decode_payment_record(payer.disk.rows[keyspace.payment_key(invoice.payment_hash)])
        if record.status != PaymentStatus.SUCCEEDED:
            raise AssertionError(f"the unrelated channel does not pay: {record.status} {record.failure}")

    def check(self) -> None:
        """The unrelated connection answers, the unrelated channel works."""
        self.bystander.ping()
        if not self.channel.is_usable or not any(c.is_usable for c in channels(self.friend)):
            raise AssertionError(f"the channel no longer works: {self.channel.lifecycle} {self.channel.failure}")
        if self.core.engine.degraded or self.core.engine.fenced:
            raise AssertionError("the node is degraded")

    def connections(self) -> int:
        """Connections besides those to the friend and the bystander."""
        return len(self.core.peers._connections) - 2

    def close(self) -> None:
        self.simulation.close()
