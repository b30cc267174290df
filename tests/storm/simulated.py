"""A storm in the simulation: two nodes on the embedded chain, everything a function of the seed."""

import random
from collections.abc import Callable
from pathlib import Path

from leyden.bitcoin import Transaction
from leyden.channel import Channel
from leyden.hooks.types import Alarm, DestinationPurpose, PaymentFailed, PaymentReceived, PaymentSent
from leyden.invoice import Invoice
from leyden.node import keyspace
from leyden.node.txtracker import IRREVOCABLE_DEPTH
from leyden.payments import PaymentStatus
from leyden.payments.records import decode_payment_record
from leyden.testing.scripted_peer import make_node_invoice
from leyden.testing.simulation import SimNode, Simulation
from leyden.types import ChannelId, Msat, Sat, Txid

from tests.scenario.sim_kit import CAPACITY, FUNDS, PUSH, logged, start_opening
from tests.storm.truth import Coin, read_chain

DEEPEST = 20
SHALLOW_SHARE = 0.8
"""Of the reorgs that are at most five blocks deep."""
SETTLED_BLOCKS = 8
PATIENCE = 60


class Storm:
    """Alice funds a channel with Bob; then it blows. ``run`` ends with every check; ``AssertionError`` if one fails."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random = random.Random(seed)
        self.simulation = Simulation(seed, folder / "chain", blocks=140)
        self.alice = self.simulation.add_node("alice")
        self.bob = self.simulation.add_node("bob")
        self.nodes = (self.alice, self.bob)
        self.invoices: list[tuple[SimNode, SimNode, Invoice]] = []
        self.told: list[str] = []
        """What happened, for a failing run."""
        self.deep = 0
        """Reorgs deeper than what counts as final, that a running node saw at once."""
        self.deposits: list[Transaction] = []
        """Payments from outside to our wallets: whoever made them repeats them."""
        for node in self.nodes:
            self._deposit_to(node, FUNDS)
        self.simulation.mine(1)
        self.simulation.connect(self.alice, self.bob)
        (channel_id,) = start_opening(self.alice, self.bob.node_id)
        assert isinstance(channel_id, bytes), channel_id
        self.channel_id = ChannelId(channel_id)
        self.simulation.mine(4)
        assert self._usable()

    def close(self) -> None:
        self.simulation.close()

    def run(self, reorgs: int) -> None:
        for _ in range(reorgs):
            if self.random.random() < 0.6:
                self.simulation.mine(4)  # else the channel would hardly ever take payments
            for _ in range(self.random.randint(1, 4)):
                self.random.choice(self._gusts())()
            self._reorg()
        self._calm()
        self.check()

    # -- what happens --------------------------------------------------------------------------------------------------

    def _gusts(self) -> list[Callable[[], None]]:
        return [self._pay, self._pay, self._pay, self._mine, self._restart, self._cut, self._deposit]

    def _reorg(self) -> None:
        shallow = self.random.random() < SHALLOW_SHARE
        depth = self.random.randint(1, 5) if shallow else self.random.randint(6, DEEPEST)
        # Six blocks deep nobody repeats a transaction any more: it must return to the mempool by itself.
        forget = shallow and self.random.random() < 0.5
        away = self.random.choice((None, None, None, *self.nodes))
        if away is not None and away.alive:
            away.kill()
        self.told.append(f"reorg of {depth}{', forgetting' * forget}{f', {away.name} is down' if away else ''}")
        self.simulation.chain.reorg(depth, depth + self.random.randint(1, 2), forget=forget)
        if depth >= IRREVOCABLE_DEPTH and away is None and all(node.alive for node in self.nodes):
            self.deep += 1
        for node in self.nodes:
            node.poll_chain()
        self.simulation.settle()
        self._revive()

    def _mine(self) -> None:
        self.simulation.mine(self.random.randint(1, 3))

    def _restart(self) -> None:
        node = self.random.choice(self.nodes)
        self.told.append(f"{node.name} restarts")
        if node.alive:
            node.kill()
        self._revive()

    def _cut(self) -> None:
        self.simulation.cut(self.alice, self.bob)
        self.simulation.connect(self.alice, self.bob)

    def _pay(self) -> None:
        payer, payee = self.random.sample(self.nodes, 2)
        if not self._usable():
            return
        invoice = make_node_invoice(payee, self.random.randint(1_000, 3_000_000))
        payee.holding = self.random.random() < 0.5
        core = payer.core
        answers: list[object] = []
        core.engine.request(
            lambda: core.payments.send(invoice, Msat(invoice.amount_msat or 0), ""),
            lambda _: answers.append(None),
            answers.append,
        )
        self.simulation.settle()
        if answers == [None]:
            self.invoices.append((payer, payee, invoice))
        else:  # the funding transaction is out of the chain, or the balance does not do
            self.told.append(f"{payer.name} cannot pay: {answers}")

    def _deposit(self) -> None:
        self._deposit_to(self.random.choice(self.nodes), Sat(self.random.randint(50_000, 200_000)))

    def _deposit_to(self, node: SimNode, value: Sat) -> None:
        def faucet() -> None:
            destination, changes = node.core.services.wallet.next_destination(DestinationPurpose.RECEIVE)
            node.core.engine.journal.merge(changes)
            self.deposits.append(self.simulation.chain.faucet(destination.script, value))

        node.core.engine.post(faucet)
        self.simulation.settle()

    def _repeat_deposits(self) -> None:
        chain = self.simulation.chain
        for tx in self.deposits:
            if chain.find_transaction(tx.txid) is None:
                chain.submit([tx])

    def _revive(self) -> None:
        self._repeat_deposits()
        for node in self.nodes:
            if not node.alive:
                node.start()
            node.poll_chain()
        peers = [peer.node_id for peer in self.alice.core.peers.connected()]
        if self.bob.node_id not in peers:
            self.simulation.connect(self.alice, self.bob)
        for node in self.nodes:
            if self.random.random() < 0.7:
                node.release_payments()
        self.simulation.settle()

    def _calm(self) -> None:
        """Everything that was under way comes to its end."""
        for _ in range(PATIENCE):
            self._revive()
            for node in self.nodes:
                node.release_payments()
            self.simulation.advance(30.0)
            self.simulation.mine(1)
            if self._usable() and not self._pending() and self._settled():
                break
        else:
            raise AssertionError(f"no calm after the storm: {self._pending()} payments pending\n" + self.story())
        self.simulation.mine(SETTLED_BLOCKS)

    def _settled(self) -> bool:
        return not self.simulation.chain.mempool.entries and not any(
            channel.local_htlcs or channel.remote_htlcs for node in self.nodes for channel in self._channels(node)
        )

    # -- what must be true ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        for node in self.nodes:
            self._check_chain(node)
            self._check_alarms(node)
        self._check_payments()
        before = len(self.invoices)
        self._pay()
        self.bob.release_payments()
        self.alice.release_payments()
        self.simulation.settle()
        assert len(self.invoices) == before + 1, "the channel takes no payment any more\n" + self.story()
        assert self._status(*self.invoices[-1]) is PaymentStatus.SUCCEEDED, self.story()

    def _check_chain(self, node: SimNode) -> None:
        """What the final chain alone says is what the node believes."""
        chain, core = self.simulation.chain, node.core
        wallet = core.services.wallet
        blocks = ((height, chain.block_at(height).block) for height in range(1, chain.height + 1))
        truth = read_chain(blocks, wallet.scripts())
        assert core.chain.follower.best_hash == chain.tip_hash, self.story()
        believed = frozenset(Coin(coin.outpoint, coin.value, coin.height) for coin in wallet.coins())
        assert believed == truth.coins, f"{node.name}: {believed ^ truth.coins}\n" + self.story()
        (channel,) = self._channels(node)
        where, outpoint = channel.funding.confirmation, channel.funding_outpoint
        assert where is not None
        assert outpoint is not None
        assert (where.height, where.tx_index) == truth.places[outpoint.txid], self.story()
        for txid, _kind, height in core.tracker.pending():
            assert (truth.places.get(Txid(txid), (0, 0))[0]) == height, f"{txid[::-1].hex()}\n" + self.story()

    def _check_alarms(self, node: SimNode) -> None:
        deep = sum(alarm.subject == "deep_reorg" for alarm in logged(node, Alarm))
        assert deep >= self.deep, f"{node.name} raised {deep} alarms for {self.deep} deep reorgs\n" + self.story()

    def _check_payments(self) -> None:
        """Each ended once, both sides agree, and the balances are their sum."""
        moved = 0
        for payer, payee, invoice in self.invoices:
            status = self._status(payer, payee, invoice)
            received = [e for e in logged(payee, PaymentReceived) if e.payment_hash == invoice.payment_hash]
            sent = [e for e in logged(payer, PaymentSent) if e.payment_hash == invoice.payment_hash]
            assert status in (PaymentStatus.SUCCEEDED, PaymentStatus.FAILED), self.story()
            assert len(sent) == len(received) == (status is PaymentStatus.SUCCEEDED), self.story()
            failed = [e for e in logged(payer, PaymentFailed) if e.payment_hash == invoice.payment_hash]
            assert len(failed) == (status is PaymentStatus.FAILED), self.story()
            if status is PaymentStatus.SUCCEEDED:
                moved += (invoice.amount_msat or 0) * (1 if payer is self.alice else -1)
        (ours,), (theirs,) = self._channels(self.alice), self._channels(self.bob)
        assert ours.local_settled == theirs.remote_settled == CAPACITY * 1000 - PUSH - moved, self.story()
        assert ours.remote_settled == theirs.local_settled == PUSH + moved, self.story()

    # -- looking -------------------------------------------------------------------------------------------------------

    def _channels(self, node: SimNode) -> list[Channel]:
        return list(node.core.channels.channels())

    def _usable(self) -> bool:
        return all(node.alive and any(c.is_usable for c in self._channels(node)) for node in self.nodes)

    def _pending(self) -> int:
        return sum(self._status(*each) is PaymentStatus.PENDING for each in self.invoices)

    def _status(self, payer: SimNode, _payee: SimNode, invoice: Invoice) -> PaymentStatus | None:
        row = payer.disk.rows.get(keyspace.payment_key(invoice.payment_hash))
        return None if row is None else PaymentStatus(decode_payment_record(row).status)

    def story(self) -> str:
        """The newest of what happened."""
        return "\n".join(self.told[-30:])
