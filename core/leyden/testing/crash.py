"""Crash test: two nodes, one story, and a process that dies at every point of it.

``python -m leyden.testing.crash --seed 1`` first tells the story once without a crash and counts the points at which a
process can die: before and after every commit, every write to a socket and every reply of the signer. Then the story is
told again for each point: the node dies there, starts from its last synced image, and the story must still come to its
end: no satoshi lost, no payment in two minds, no channel closed that nobody asked to close. Random instants (two
crashes a story, anywhere, either node) follow.
"""

import argparse
import concurrent.futures
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from leyden.bitcoin import Network
from leyden.channel import Lifecycle, Link
from leyden.channel.events import Shutdown, UpdateFee
from leyden.crypto import sha256
from leyden.hooks.types import Alarm, ChannelClosed, ChannelClosing, DestinationPurpose, PaymentReceived, PaymentSent
from leyden.invoice import Invoice, UnsignedInvoice, attach_signature, encode_invoice
from leyden.node import keyspace
from leyden.node.channels import ChannelActor
from leyden.node.eventlog import decode_event
from leyden.node.host import run_inline
from leyden.node.node import INVOICE_FEATURES, MIN_FINAL_CLTV
from leyden.payments import InvoiceRecord, InvoiceStatus, PaymentRecord, PaymentStatus
from leyden.payments.records import decode_invoice_record, decode_payment_record
from leyden.testing.simulation import Crash, SimNode, Simulation
from leyden.types import FeeRatePerKw, Msat, NodeId, PaymentHash, PaymentSecret, Preimage, Sat

CAPACITY = Sat(1_000_000)
PUSH = Msat(300_000_000)
FUNDS = {"alice": Sat(5_000_000), "bob": Sat(2_000_000)}
PATIENCE = 60
"""Rounds of reviving, connecting, mining and waiting before a goal counts as missed."""


class Lost(Exception):
    """The story did not come to its end, or ended wrong."""


class Deal(msgspec.Struct):
    """One payment of the story: who pays whom, and the invoice once it is durable. ``known`` False: it must fail."""

    payer: str
    payee: str
    amount: Msat
    known: bool = True
    invoice: Invoice | None = None


class CrashPlan(msgspec.Struct, frozen=True):
    """Die at the n-th point (from 1, over all lives) of each named node."""

    points: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return ", ".join(f"{node}@{index}" for node, index in self.points) or "no crash"


class Story:
    """Fund, connect, open, pay both ways, raise the fee, fail one, close, and count."""

    def __init__(self, seed: int, folder: Path, plan: CrashPlan) -> None:
        self.plan = plan
        self.simulation = Simulation(seed, folder)
        self.alice = self.simulation.add_node("alice")
        self.bob = self.simulation.add_node("bob")
        self.nodes = (self.alice, self.bob)
        self.deals: list[Deal] = []
        self.died_at: list[str] = []

    def tell(self) -> dict[str, list[str]]:
        """The whole story; the points that each node passed. ``Lost`` if it goes wrong."""
        try:
            self._fund()
            for node in self.nodes:
                node.points.clear()
                node.on_point = self._dying(node)
            self._open()
            self._pay([Deal("alice", "bob", Msat(20_000_000 + i * 1_111)) for i in range(4)])
            self._pay(
                [Deal("bob", "alice", Msat(3_000_000 + i * 7)) for i in range(3)]
                + [Deal("alice", "bob", Msat(1_000 + i)) for i in range(2)]
                + [Deal("alice", "bob", Msat(5_000_000), known=False)]
            )
            self._raise_fee()
            self._pay([Deal("bob", "alice", Msat(10_000_000)), Deal("alice", "bob", Msat(123_456))])
            self._check_balances()
            self._close()
            return {node.name: node.points for node in self.nodes}
        finally:
            self.simulation.close()

    def _dying(self, node: SimNode) -> Callable[[str], None]:
        targets = {index for name, index in self.plan.points if name == node.name}

        def on_point(point: str) -> None:
            if len(node.points) in targets:
                self.died_at.append(f"{node.name} {point} #{len(node.points)}")
                raise Crash

        return on_point

    # -- keeping the world going -------------------------------------------------------------------------------------

    def _revive(self) -> None:
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
        for _ in range(PATIENCE):
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

        def act() -> None:
            if self._channel(self.alice) is None and not self._opening():
                core, peer = self.alice.core, self.alice.core.peers.get(self.bob.node_id)
                if peer is not None:
                    core.engine.post(
                        lambda: core.opener.open(peer, CAPACITY, PUSH, False, None, lambda _: None, lambda _: None)
                    )
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

    def _ask(self, deal: Deal) -> None:
        """The payee makes an invoice; it counts once it is durable. An unknown one is never stored."""
        node = self._node(deal.payee)
        core = node.core
        preimage = Preimage(node.entropy(32))
        unsigned = UnsignedInvoice(
            network=Network.REGTEST,
            amount_msat=deal.amount,
            timestamp=int(node.wall_time()),
            payment_hash=PaymentHash(sha256(preimage)),
            payment_secret=PaymentSecret(node.entropy(32)),
            description="story",
            min_final_cltv_expiry_delta=MIN_FINAL_CLTV,
            features=INVOICE_FEATURES,
            payee=node.node_id,
        )
        hrp, data = encode_invoice(unsigned)
        signature, recovery_id = run_inline(core.services.node_identity.sign_bolt11(hrp, data))
        invoice = attach_signature(unsigned, hrp, data, signature, recovery_id)
        record = InvoiceRecord(
            payment_hash=unsigned.payment_hash,
            preimage=preimage,
            payment_secret=unsigned.payment_secret,
            amount_msat=deal.amount,
            bolt11=invoice.text,
            created=unsigned.timestamp,
            expiry=unsigned.expiry,
            min_final_cltv=MIN_FINAL_CLTV,
        )

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
        net = 0
        for deal in self.deals:
            record = self._payment(deal)
            succeeded = record is not None and record.status == PaymentStatus.SUCCEEDED
            if succeeded != self._paid(deal):
                raise Lost(f"{deal.payer} and {deal.payee} disagree about {deal.amount} msat")
            if succeeded != deal.known:
                raise Lost(f"a payment of {deal.amount} msat ended as {record}")
            if succeeded:
                net += deal.amount if deal.payer == "alice" else -deal.amount
        near, far = self._channel(self.alice), self._channel(self.bob)
        if near is None or far is None:
            raise Lost("the channel is gone")
        expected = CAPACITY * 1000 - PUSH - net
        if (near.channel.local_settled, near.channel.remote_settled) != (expected, CAPACITY * 1000 - expected):
            raise Lost(f"alice has {near.channel.local_settled} msat instead of {expected}")
        if (far.channel.remote_settled, far.channel.local_settled) != (expected, CAPACITY * 1000 - expected):
            raise Lost(f"bob has {far.channel.local_settled} msat instead of {CAPACITY * 1000 - expected}")
        self._check_events()

    def _check_events(self) -> None:
        for node in self.nodes:
            live = self._channel(node)
            seen: dict[object, int] = {}
            for entry in self._events(node):
                match entry:
                    case Alarm(subject="chain_source"):
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
        balance = {"alice": near.channel.local_settled, "bob": far.channel.local_settled}

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


def tell(seed: int, plan: CrashPlan) -> tuple[str, dict[str, list[str]]]:
    """One story; empty text if it came to its end, else what went wrong."""
    with tempfile.TemporaryDirectory(prefix="leyden-crash-") as folder:
        story = Story(seed, Path(folder) / "chain", plan)
        try:
            points = story.tell()
        except Lost as error:
            return f"{plan} [{'; '.join(story.died_at)}]: {error}", {}
        except Exception as error:
            return f"{plan} [{'; '.join(story.died_at)}]: {type(error).__name__}: {error}", {}
        return "", points


def make_plans(points: dict[str, list[str]], seed: int, instants: int, every: int) -> list[CrashPlan]:
    """A crash at each point (each ``every``-th, starting with the seed), then ``instants`` pairs of random ones."""
    plans = [
        CrashPlan(((node, index),))
        for node, passed in points.items()
        for index in range(1 + seed % every, len(passed) + 1, every)
    ]
    rng = random.Random(seed)
    for _ in range(instants):
        pair = [(name, rng.randint(1, len(points[name]))) for name in (rng.choice(list(points)) for _ in range(2))]
        plans.append(CrashPlan(tuple(pair)))
    return plans


def _drop(_logger: object, _method: str, _event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    raise structlog.DropEvent


def _init_worker() -> None:
    """What nodes log while they are killed is of no interest."""
    structlog.configure(processors=[_drop])


def _tell(task: tuple[int, CrashPlan]) -> str:
    return tell(*task)[0]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m leyden.testing.crash", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--instants", type=int, default=100, help="stories with two crashes at random points")
    parser.add_argument("--every", type=int, default=1, help="only each n-th point")
    parser.add_argument("--quick", action="store_true", help="each 7th point and 20 instants")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help="one plan, e.g. alice@17 or alice@17,bob@3")
    options = parser.parse_args(arguments)
    _init_worker()
    if options.only:
        pairs = tuple((n, int(i)) for n, i in (part.split("@") for part in options.only.split(",")))
        wrong, _ = tell(options.seed, CrashPlan(pairs))
        print(wrong or "the story came to its end")
        return 1 if wrong else 0
    started = time.monotonic()
    wrong, points = tell(options.seed, CrashPlan())
    if wrong:
        print(f"the story fails without a crash: {wrong}")
        return 1
    kinds: dict[str, int] = {}
    for passed in points.values():
        for point in passed:
            kinds[point] = kinds.get(point, 0) + 1
    print(f"seed {options.seed}: points " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())))
    every, instants = (7, 20) if options.quick else (options.every, options.instants)
    plans = make_plans(points, options.seed, instants, every)
    failures = []
    with concurrent.futures.ProcessPoolExecutor(options.jobs, initializer=_init_worker) as pool:
        for number, wrong in enumerate(pool.map(_tell, [(options.seed, plan) for plan in plans], chunksize=4), start=1):
            if wrong:
                failures.append(wrong)
                print(f"FAILED {wrong}", flush=True)
            if number % 100 == 0:
                print(f"{number} of {len(plans)} stories, {len(failures)} failed", flush=True)
    seconds = time.monotonic() - started
    good = len(plans) - len(failures)
    print(f"crash test: {len(plans)} stories in {seconds:.0f} s, {good} passed, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
