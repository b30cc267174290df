"""The story that the crash test tells: two nodes, one channel, everything that may go wrong on purpose."""

import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from leyden.channel import ChannelPolicy, Lifecycle, Link
from leyden.channel.events import Shutdown, UpdateFee
from leyden.hooks.types import Alarm, ChannelClosed, ChannelClosing, DestinationPurpose, PaymentReceived, PaymentSent
from leyden.invoice import Invoice
from leyden.node import keyspace
from leyden.node.channels import ChannelActor
from leyden.node.eventlog import decode_event
from leyden.node.host import run_inline
from leyden.node.paying import make_invoice
from leyden.payments import InvoiceStatus, PaymentRecord, PaymentStatus
from leyden.payments.records import decode_invoice_record, decode_payment_record
from leyden.testing.guard_ledger import GuardViolation, take_violations
from leyden.testing.memory_store import CommitMoment, MemoryStore
from leyden.testing.sim_device import DeviceMemory
from leyden.testing.simulation import Crash, SimNode, Simulation
from leyden.types import FeeRatePerKw, Msat, NodeId, Sat

CAPACITY = Sat(1_000_000)
PUSH = Msat(300_000_000)
FUNDS = {"alice": Sat(5_000_000), "bob": Sat(2_000_000)}
PATIENCE = 60
"""Rounds of reviving, connecting, mining and waiting before a goal counts as missed."""


class Lost(Exception):
    """The story did not come to its end, or ended wrong."""


class Deal(msgspec.Struct):
    """One payment of the story: who pays whom, and the invoice once it is durable.

    ``known`` False: it must fail. ``loses_blocks``: blocks are lost while it is in flight, it may fail for that.
    """

    payer: str
    payee: str
    amount: Msat
    known: bool = True
    loses_blocks: bool = False
    invoice: Invoice | None = None


class Plan(msgspec.Struct, frozen=True):
    """What goes wrong in one story. Points count from 1 over all lives of a node, commits likewise.

    As text: ``alice@17`` dies there, ``alice@17+`` both nodes die there, ``alice@17~2`` the newest two blocks are
    replaced then, ``alice#30x5`` five commits fail from the 30th on, ``alice#30!`` the 30th is durable but reported as
    failed, ``device`` signers with state, that are slow and sometimes away, and connections that break; ``static``
    a channel without anchors.
    """

    deaths: tuple[tuple[str, int], ...] = ()
    together: tuple[tuple[str, int], ...] = ()
    reorgs: tuple[tuple[str, int, int], ...] = ()
    failures: tuple[tuple[str, int, int], ...] = ()
    """Node, commit, and how many fail in a row; 0: one, durable all the same."""
    device: bool = False
    static: bool = False

    def __str__(self) -> str:
        parts = [f"{node}@{index}" for node, index in self.deaths]
        parts += [f"{node}@{index}+" for node, index in self.together]
        parts += [f"{node}@{index}~{depth}" for node, index, depth in self.reorgs]
        parts += [f"{node}#{index}" + (f"x{count}" if count else "!") for node, index, count in self.failures]
        return ",".join(parts + ["device"] * self.device + ["static"] * self.static) or "no crash"


def parse_plan(text: str) -> Plan:
    """The plan that ``str`` shows."""
    deaths, together, reorgs, failures = [], [], [], []
    for part in text.split(","):
        if part in ("device", "static"):
            continue
        if found := re.fullmatch(r"(\w+)@(\d+)", part):
            deaths.append((found[1], int(found[2])))
        elif found := re.fullmatch(r"(\w+)@(\d+)\+", part):
            together.append((found[1], int(found[2])))
        elif found := re.fullmatch(r"(\w+)@(\d+)~(\d)", part):
            reorgs.append((found[1], int(found[2]), int(found[3])))
        elif found := re.fullmatch(r"(\w+)#(\d+)(?:x(\d+)|!)", part):
            failures.append((found[1], int(found[2]), int(found[3] or 0)))
        else:
            raise ValueError(f"not understood: {part}")
    words = text.split(",")
    return Plan(tuple(deaths), tuple(together), tuple(reorgs), tuple(failures), "device" in words, "static" in words)


class Story:
    """Fund, connect, open, pay both ways, fail one, lose blocks while HTLCs fly, raise the fee, close, and count."""

    def __init__(self, seed: int, folder: Path, plan: Plan) -> None:
        self.plan = plan
        self.depth = 1 + seed % 3
        self.simulation = Simulation(seed, folder)
        self._rng = random.Random(seed)
        devices = [DeviceMemory(seed + i) if plan.device else None for i in range(2)]
        policy = ChannelPolicy(minimum_depth=3)
        if plan.static:
            policy = ChannelPolicy(minimum_depth=3, channel_types=("static_remotekey",))
        self.alice = self.simulation.add_node("alice", policy, devices[0])
        self.bob = self.simulation.add_node("bob", policy, devices[1])
        self.nodes = (self.alice, self.bob)
        self.deals: list[Deal] = []
        self.happened: list[str] = []
        """What went wrong on purpose."""
        self.closing = False

    def tell(self) -> dict[str, list[str]]:
        """The whole story; the points that each node passed. ``Lost`` if it goes wrong."""
        take_violations()
        try:
            self._fund()
            for node in self.nodes:
                node.points.clear()
                node.on_point = self._on_point(node)
                node.on_store = self._failing(node)
                node.on_store(node.store)
            self._open()
            self._pay([Deal("alice", "bob", Msat(20_000_000 + i * 1_111)) for i in range(4)])
            self._pay(
                [Deal("bob", "alice", Msat(3_000_000 + i * 7)) for i in range(3)]
                + [Deal("alice", "bob", Msat(1_000 + i)) for i in range(2)]
                + [Deal("alice", "bob", Msat(5_000_000), known=False)]
            )
            self._lose_blocks()
            self._raise_fee()
            self._check_balances()
            self._close()
        except GuardViolation as violation:
            raise Lost(f"unsafe order to a signer: {violation}") from violation
        finally:
            self.simulation.close()
        self._check_silence()
        return {node.name: node.points for node in self.nodes}

    def _check_silence(self) -> None:
        """Whatever else was noted on the way."""
        noted = [str(violation) for violation in take_violations()]
        for node in self.nodes:
            noted += node.leaks
            noted += node.device.faults if node.device is not None else []
        if noted:
            raise Lost(f"{len(noted)} faults: {'; '.join(noted[:3])}")

    def _on_point(self, node: SimNode) -> Callable[[str], None]:
        plan = self.plan
        dies = {index for name, index in plan.deaths if name == node.name}
        both = {index for name, index in plan.together if name == node.name}
        reorgs = {index: depth for name, index, depth in plan.reorgs if name == node.name}

        def on_point(point: str) -> None:
            index = len(node.points)
            if index in reorgs:
                self.happened.append(f"reorg of {reorgs[index]} at {node.name} {point} #{index}")
                self.simulation.chain.reorg(reorgs[index])
                for each in self.nodes:
                    self.simulation.soon(each, each.poll_chain)
            if index in dies or index in both:
                self.happened.append(f"{node.name} {point} #{index}")
                if index in both:
                    other = self.bob if node is self.alice else self.alice
                    self.simulation.soon(other, other.kill)
                raise Crash

        return on_point

    def _failing(self, node: SimNode) -> Callable[[MemoryStore], None]:
        """Counts the commits of all lives and lets those of the plan fail."""
        failures = {index: count for name, index, count in self.plan.failures if name == node.name}
        commits = 0

        def before(moment: CommitMoment, _number: int) -> None:
            nonlocal commits
            if moment is CommitMoment.BEFORE:
                commits += 1
                if commits + 1 in failures:
                    count = failures.pop(commits + 1)
                    self.happened.append(f"{node.name} commit {commits + 1} fails")
                    node.store.fail_next(max(count, 1), durable=not count)

        return lambda store: store.hooks.insert(0, before)

    # -- keeping the world going -------------------------------------------------------------------------------------

    def _revive(self) -> None:
        if self.plan.device and self._rng.random() < 0.05:
            self.simulation.cut(self.alice, self.bob)
        for node in self.nodes:
            for _ in range(5):
                if not node.alive:
                    node.start()
        if all(node.alive for node in self.nodes) and self.bob.node_id not in self._connected():
            self.simulation.connect(self.alice, self.bob)

    def _connected(self) -> set[NodeId]:
        return {peer.node_id for peer in self.alice.core.peers.connected() if peer.node_id}

    def _until(self, goal: str, reached: Callable[[], bool], act: Callable[[], None] = lambda: None) -> None:
        """Act, settle and revive until ``reached()``."""
        for _ in range(PATIENCE * (4 if self.plan.device else 1)):
            self._revive()
            if all(node.alive for node in self.nodes):
                if reached():
                    return
                act()
                self.simulation.settle()
                self._revive()
                if all(node.alive for node in self.nodes) and reached():
                    return
            self.simulation.advance(1.0)
            if not self._is_confirmed():
                self.simulation.mine(1)  # a reorg returned it to the mempool
        raise Lost(f"never came true: {goal} ({self._describe()})")

    def _describe(self) -> str:
        return "; ".join(
            f"{node.name}: "
            + ", ".join(
                f"{c.lifecycle.value}/{c.link.value} {c.local_settled}/{c.remote_settled} "
                f"htlcs {sorted((h.id, int(h.stage)) for h in c.local_htlcs.values())} {c.failure}"
                for c in node.core.channels.channels()
            )
            if node.alive
            else f"{node.name}: down"
            for node in self.nodes
        )

    def _channel(self, node: SimNode) -> ChannelActor | None:
        found = [a for a in (node.core.channels.get(c.channel_id) for c in node.core.channels.channels()) if a]
        live = [a for a in found if self._exists(a)]
        return live[0] if live else None

    def _exists(self, actor: ChannelActor) -> bool:
        """Its funding transaction is on the chain or on its way there: openings that a crash lost do not count."""
        outpoint = actor.channel.funding_outpoint
        return outpoint is not None and self.simulation.chain.find_transaction(outpoint.txid) is not None

    def _is_confirmed(self) -> bool:
        """Of the funding transaction, if there is one on its way."""
        for node in self.nodes:
            actor = self._channel(node) if node.alive else None
            if actor is not None and (outpoint := actor.channel.funding_outpoint) is not None:
                found = self.simulation.chain.find_transaction(outpoint.txid)
                return found is None or found[1] is not None
        return True

    # -- the story -----------------------------------------------------------------------------------------------------

    def _fund(self) -> None:
        for node in self.nodes:
            node.core.engine.post(partial(self._faucet, node))
            self.simulation.settle()
        self.simulation.mine(1)

    def _faucet(self, node: SimNode) -> None:
        destination, changes = node.core.services.wallet.next_destination(DestinationPurpose.RECEIVE)
        node.core.engine.journal.merge(changes)
        self.simulation.chain.faucet(destination.script, FUNDS[node.name])

    def _open(self) -> None:
        def reached() -> bool:
            actors = [self._channel(node) for node in self.nodes]
            return all(a is not None and a.channel.is_usable for a in actors)

        asked = 0
        """The life of alice in which she opens; 0 when that failed."""

        def failed(_error: BaseException) -> None:
            nonlocal asked
            asked = 0

        def act() -> None:
            nonlocal asked
            core, peer = self.alice.core, self.alice.core.peers.get(self.bob.node_id)
            begun = self._channel(self.alice) is not None or self._opening() or asked == self.alice.life
            if not begun and peer is not None:
                asked = self.alice.life
                core.engine.post(lambda: core.opener.open(peer, CAPACITY, PUSH, False, None, lambda _: None, failed))
            self.simulation.settle()
            self.simulation.mine(1)

        self._until("an open channel", reached, act)

    def _opening(self) -> bool:
        return any(
            c.lifecycle not in (Lifecycle.ABANDONED, Lifecycle.CLOSED) for c in self.alice.core.channels.channels()
        )

    def _node(self, name: str) -> SimNode:
        return self.alice if name == "alice" else self.bob

    def _pay(self, deals: list[Deal]) -> None:
        for deal in deals:
            self._until("an invoice", partial(_has_invoice, deal), partial(self._ask, deal))
        self.deals += deals

        def act() -> None:
            for deal in deals:
                self._send(deal)

        self._until("every payment is final", lambda: all(self._final(deal) for deal in deals), act)

    def _lose_blocks(self) -> None:
        """HTLCs both ways stay in flight while the newest blocks are replaced; then they are paid after all."""
        deals = [Deal("alice", "bob", Msat(10_000_000 + i), loses_blocks=True) for i in range(2)]
        deals += [Deal("bob", "alice", Msat(7_000_000 + i), loses_blocks=True) for i in range(2)]
        self._fly(deals)
        self.simulation.reorg(self.depth)
        self._land(deals)

    def _fly(self, deals: list[Deal]) -> None:
        """Offer them and let the payees think, until every HTLC is irrevocably committed."""
        for deal in deals:
            self._until("an invoice", partial(_has_invoice, deal), partial(self._ask, deal))
        self.deals += deals
        payees = [self._node(deal.payee) for deal in deals]
        for node in payees:
            node.holding = True

        def act() -> None:
            for deal in deals:
                self._send(deal)

        def reached() -> bool:
            """Each one waits at its payee, or was sent back at once because blocks are being lost."""
            ended = [self._node(deal.payee) for deal in deals if self._final(deal)]
            return all(node.held + ended.count(node) >= payees.count(node) for node in payees)

        self._until("HTLCs in flight", reached, act)

    def _land(self, deals: list[Deal]) -> None:
        for node in self.nodes:
            if node.alive:
                node.release_payments()
            node.holding = False
        self._until("every payment is final", lambda: all(self._final(deal) for deal in deals))

    def _ask(self, deal: Deal) -> None:
        """The payee makes an invoice; it counts once it is durable. An unknown one is never stored."""
        node = self._node(deal.payee)
        core = node.core
        invoice, record = run_inline(make_invoice(core, deal.amount, "story"))

        def done(_: None) -> None:
            deal.invoice = invoice

        if not deal.known:
            done(None)
            return
        core.engine.request(lambda: core.payments.add_invoice(record), done, lambda _: None)

    def _send(self, deal: Deal) -> None:
        """Like a careful caller: only if no row says that it was begun."""
        node, invoice = self._node(deal.payer), deal.invoice
        if invoice is None or self._payment(deal) is not None:
            return
        core = node.core
        core.engine.request(
            lambda: core.payments.send(invoice, deal.amount, ""), lambda _record: None, lambda _error: None
        )

    def _payment(self, deal: Deal) -> PaymentRecord | None:
        if deal.invoice is None:
            return None
        row = self._node(deal.payer).disk.rows.get(keyspace.payment_key(deal.invoice.payment_hash))
        return None if row is None else decode_payment_record(row)

    def _final(self, deal: Deal) -> bool:
        record = self._payment(deal)
        return record is not None and record.status != PaymentStatus.PENDING

    def _paid(self, deal: Deal) -> bool:
        if deal.invoice is None:
            return False
        row = self._node(deal.payee).disk.rows.get(keyspace.invoice_key(deal.invoice.payment_hash))
        return row is not None and decode_invoice_record(row).status == InvoiceStatus.PAID

    def _raise_fee(self) -> None:
        rate = FeeRatePerKw(1_500)

        def reached() -> bool:
            actors = [self._channel(node) for node in self.nodes]
            return all(a is not None and a.channel.feerate == rate for a in actors)

        def act() -> None:
            actor = self._channel(self.alice)
            if actor is not None and not actor.channel.fee_updates and actor.channel.is_usable:
                core = self.alice.core
                core.engine.request(
                    lambda: core.channels.apply(actor, UpdateFee(feerate=rate)), lambda _: None, lambda _: None
                )

        self._until("a new feerate", reached, act)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _check_balances(self) -> None:
        """Both nodes agree with each other and with the payments that both call settled."""

        def reached() -> bool:
            actors = [self._channel(node) for node in self.nodes]
            return all(a is not None and not a.channel.local_htlcs and not a.channel.remote_htlcs for a in actors)

        self._until("no HTLC left", reached)
        near, far = self._channel(self.alice), self._channel(self.bob)
        if near is None or far is None:
            raise Lost("the channel is gone")
        expected = self._expected_msat()
        if (near.channel.local_settled, near.channel.remote_settled) != (expected, CAPACITY * 1000 - expected):
            raise Lost(f"alice has {near.channel.local_settled} msat instead of {expected}")
        if (far.channel.remote_settled, far.channel.local_settled) != (expected, CAPACITY * 1000 - expected):
            raise Lost(f"bob has {far.channel.local_settled} msat instead of {CAPACITY * 1000 - expected}")
        self._check_events()

    def _expected_msat(self) -> int:
        """What alice must have, by the payments that both call settled."""
        net = 0
        for deal in self.deals:
            record = self._payment(deal)
            succeeded = record is not None and record.status == PaymentStatus.SUCCEEDED
            if succeeded != self._paid(deal):
                raise Lost(f"{deal.payer} and {deal.payee} disagree about {deal.amount} msat")
            # An HTLC that is decided on while the funding transaction is out of the chain goes back.
            sent_back = record is not None and record.failure == "temporary_channel_failure"
            if succeeded != deal.known and not (sent_back and (deal.loses_blocks or self.plan.reorgs)):
                raise Lost(f"a payment of {deal.amount} msat ended as {record}")
            if succeeded:
                net += deal.amount if deal.payer == "alice" else -deal.amount
        return CAPACITY * 1000 - PUSH - net

    def _check_events(self) -> None:
        for node in self.nodes:
            live = self._channel(node)
            seen: dict[object, int] = {}
            for entry in self._events(node):
                match entry:
                    case Alarm(subject="source_warning" | "reorg"):
                        pass
                    case Alarm(subject="storage") if self.plan.failures:
                        pass
                    case Alarm(text=text):
                        raise Lost(f"{node.name} raised an alarm: {text}")
                    case ChannelClosing(channel_id=channel_id) | ChannelClosed(channel_id=channel_id):
                        if live is not None and channel_id == live.channel.channel_id:
                            raise Lost(f"{node.name} closes a channel that nobody asked to close: {entry}")
                    case PaymentSent(payment_hash=payment_hash) | PaymentReceived(payment_hash=payment_hash):
                        seen[payment_hash] = seen.get(payment_hash, 0) + 1
            if any(count != 1 for count in seen.values()):
                raise Lost(f"{node.name} published a payment more than once")

    def _events(self, node: SimNode) -> Iterator[object]:
        for key in sorted(node.disk.rows):
            if key.startswith(keyspace.EVENT):
                yield decode_event(int.from_bytes(key[1:], "big"), node.disk.rows[key]).event

    def _close(self) -> None:
        near, far = self._channel(self.alice), self._channel(self.bob)
        if near is None or far is None:
            raise Lost("the channel is gone")
        outpoint = near.channel.fundings[0].outpoint
        last = [Deal("alice", "bob", Msat(2_222_222))]
        self._fly(last)

        def reached() -> bool:
            if self.simulation.chain.spender_of(outpoint) is None:
                return False
            return all(self._channel(node) is None for node in self.nodes)

        def act() -> None:
            actor = self._channel(self.alice)
            if actor is not None and actor.channel.lifecycle is Lifecycle.NORMAL and actor.channel.link is Link.UP:
                core = self.alice.core
                if not actor.channel.shutdown.wanted and not actor.channel.shutdown.sent:
                    core.engine.request(lambda: core.channels.apply(actor, Shutdown()), lambda _: None, lambda _: None)
                    self.simulation.settle()
                    self._revive()
                if actor.channel.shutdown.wanted and self.bob.alive:
                    self.bob.release_payments()  # the last HTLC is paid in the middle of the shutdown
            self.simulation.settle()
            if self.simulation.chain.spender_of(outpoint) is not None or actor is None:
                self.simulation.mine(1)

        self._until("a closed channel", reached, act)
        spender = self.simulation.chain.spender_of(outpoint)
        found = self.simulation.chain.find_transaction(spender)
        closing = found[0] if found is not None else None
        if closing is None or closing.locktime != 0:
            raise Lost("the channel was not closed cooperatively")
        funding, _ = self.simulation.chain.find_transaction(outpoint.txid)
        funding_fee = sum(
            self.simulation.chain.find_transaction(i.prevout.txid)[0].outputs[i.prevout.vout].value
            for i in funding.inputs
        ) - sum(o.value for o in funding.outputs)
        closing_fee = CAPACITY - sum(o.value for o in closing.outputs)
        self._until("settled wallets", lambda: self._settled(), lambda: self.simulation.mine(1))
        alice = self._expected_msat()
        balance = {"alice": alice, "bob": CAPACITY * 1000 - alice}
        for node in self.nodes:
            has = node.core.services.wallet.balance().confirmed
            spent = CAPACITY + funding_fee + closing_fee if node is self.alice else 0
            expected = FUNDS[node.name] - spent + -(-balance[node.name] // 1000)
            if not expected - 1 <= has <= expected:
                raise Lost(f"{node.name} ends with {has} sat instead of {expected} (fees {funding_fee}, {closing_fee})")

    def _settled(self) -> bool:
        return all(node.core.services.wallet.balance().unconfirmed == 0 for node in self.nodes)


def _has_invoice(deal: Deal) -> bool:
    return deal.invoice is not None
