"""A storm over a real bitcoind: reorgs, restarts of it and of us, ZMQ cut, payments and on-chain spends meanwhile."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from leyden.bitcoin import Block, parse_block
from leyden.hooks.types import Alarm, LoggedEvent, PaymentReceived, PaymentSent
from leyden.node import Node
from leyden.node.txtracker import IRREVOCABLE_DEPTH
from leyden.types import LeydenError, Msat, NodeId, PaymentHash, Sat

from tests.storm.simulated import DEEPEST, SHALLOW_SHARE
from tests.storm.truth import Coin, read_chain
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.leyden import DEPTH, Leyden

CAPACITY = Sat(2_000_000)
PUSH = Msat(700_000_000)
PATIENCE = 120.0
CALM_ROUNDS = 3
"""So many blocks at least: what was lost with a mempool is broadcast again with the next one."""


class RealStorm:
    """Use ``storm``; ``run`` ends with every check, ``AssertionError`` if one fails."""

    def __init__(self, seed: int, folder: Path, daemon: Bitcoind) -> None:
        self.random = random.Random(seed)
        self.daemon = daemon
        self.alice = Leyden(folder / "alice", daemon)
        self.bob = Leyden(folder / "bob", daemon)
        self.nodes = (self.alice, self.bob)
        self.invoices: list[tuple[Leyden, Leyden, PaymentHash, int]] = []
        self.paying: set[asyncio.Task[None]] = set()
        self.told: list[str] = []
        self.deep = 0
        """Reorgs deeper than what counts as final, with both nodes at the tip before and after."""

    async def begin(self) -> None:
        for each in self.nodes:
            await each.start()
            await self._deposit_to(each, 0.5)
        self.daemon.mine()
        await self._at_tip()
        await self._connect()
        alice, bob = self.alice.node, self.bob.node
        await self._until(lambda: alice.wallet_balance().free > CAPACITY, "coins")
        await alice.open_channel(bob.node_id, CAPACITY, push=PUSH)
        await self._until(lambda: self.daemon.rpc("getrawmempool"), "the funding transaction in the mempool")
        self.daemon.mine(DEPTH + 1)
        await self._until(self._usable, "an open channel")

    async def end(self) -> None:
        for task in self.paying:
            task.cancel()
        await asyncio.gather(*self.paying, return_exceptions=True)
        for each in self.nodes:
            await each.stop()

    async def run(self, reorgs: int, report: Callable[[str], None] = lambda _line: None) -> None:
        for number in range(reorgs):
            if self.random.random() < 0.5:
                self.daemon.mine(DEPTH + 1)
            for _ in range(self.random.randint(1, 3)):
                await self.random.choice(self._gusts())()
            await self._reorg()
            if (number + 1) % 25 == 0:
                report(f"{number + 1} reorgs, {self.deep} of them deep, {len(self.invoices)} payments")
        await self._calm()
        await self.check()

    # -- what happens --------------------------------------------------------------------------------------------------

    def _gusts(self) -> list[Callable[[], Awaitable[None]]]:
        usual = [self._pay, self._pay, self._pay, self._pay, self._deposit, self._withdraw]
        return [*usual, self._restart_node, self._restart_bitcoind]

    async def _reorg(self) -> None:
        shallow = self.random.random() < SHALLOW_SHARE
        depth = self.random.randint(1, 5) if shallow else self.random.randint(6, DEEPEST)
        watched = self.random.random() < 0.7
        if watched:
            await self._at_tip()
        height = self.daemon.rpc("getblockcount")
        empty = self.random.random() < 0.5
        self.told.append(f"reorg of {depth} at {height}{', empty blocks' * empty}")
        self.daemon.rpc("invalidateblock", self.daemon.rpc("getblockhash", height - depth + 1))
        if empty:
            for _ in range(depth + 1):
                self.daemon.rpc("generateblock", self.daemon.rpc("getnewaddress"), [])
        else:
            self.daemon.mine(depth + self.random.randint(1, 2))
        if watched:
            await self._at_tip()
            self.deep += depth >= IRREVOCABLE_DEPTH

    async def _pay(self) -> None:
        payer, payee = self.random.sample(self.nodes, 2)
        amount = self.random.randint(1_000, 3_000_000)
        try:
            invoice = await payee.node.create_invoice(Msat(amount), "storm")
        except LeydenError as error:
            self.told.append(f"{payee.name} makes no invoice: {error}")
            return
        payment_hash = PaymentHash(bytes.fromhex(invoice.payment_hash))
        self.invoices.append((payer, payee, payment_hash, amount))

        async def pay(node: Node) -> None:
            try:
                await node.pay(invoice.bolt11, timeout=PATIENCE)
            except (LeydenError, TimeoutError) as error:
                self.told.append(f"{payer.name} could not pay: {error}")

        task = asyncio.ensure_future(pay(payer.node))
        self.paying.add(task)
        task.add_done_callback(self.paying.discard)
        await asyncio.sleep(self.random.random() * 0.05)

    async def _deposit(self) -> None:
        await self._deposit_to(self.random.choice(self.nodes), 0.001)

    async def _deposit_to(self, node: Leyden, bitcoin: float) -> None:
        self.daemon.rpc("sendtoaddress", await node.node.new_address(), bitcoin)

    async def _withdraw(self) -> None:
        node = self.random.choice(self.nodes)
        try:
            await node.node.send_coins(self.daemon.rpc("getnewaddress"), Sat(self.random.randint(10_000, 40_000)))
        except LeydenError as error:
            self.told.append(f"{node.name} could not withdraw: {error}")

    async def _restart_node(self) -> None:
        node = self.random.choice(self.nodes)
        self.told.append(f"{node.name} restarts")
        await node.stop()
        if self.random.random() < 0.5:
            self.daemon.mine(self.random.randint(1, 3))
        await node.start()
        await self._connect()

    async def _restart_bitcoind(self) -> None:
        """Stopped or killed; it comes back without its mempool, and sometimes without ZMQ."""
        kill = self.random.random() < 0.5
        self.daemon.publishes = self.random.random() < 0.7
        self.told.append(f"bitcoind {'dies' if kill else 'restarts'}{' and is silent' * (not self.daemon.publishes)}")
        if kill:
            self.daemon.flush()
            self.daemon.kill()
        else:
            await asyncio.to_thread(self.daemon.stop)
        await asyncio.sleep(self.random.random() * 0.2)
        await asyncio.to_thread(self.daemon.start)

    # -- waiting -------------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        """Whoever was restarted has a new port."""
        bob = self.bob.node
        address = bob.info().address
        assert address is not None
        host, _, port = address.partition("@")[2].rpartition(":")
        if not self._connected():
            try:
                await self.alice.node.connect(NodeId(bob.node_id), host, int(port))
            except (LeydenError, OSError) as error:
                self.told.append(f"no connection: {error}")

    def _connected(self) -> bool:
        bob = self.bob.node.node_id.hex()
        return any(peer.node_id == bob for peer in self.alice.node.peers())

    async def _at_tip(self) -> None:
        tip = bytes.fromhex(self.daemon.rpc("getbestblockhash"))[::-1]
        await self._until(
            lambda: all(each.node.core.chain.follower.best_hash == tip for each in self.nodes if each.runs),
            "both nodes at the tip",
        )

    async def _until(self, reached: Callable[[], object], goal: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not reached():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"never came true: {goal}\n{self.story()}") from None

    def _usable(self) -> bool:
        return all(any(c.usable for c in each.node.channels()) for each in self.nodes)

    async def _calm(self) -> None:
        """Everything that was under way comes to its end, and is buried."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._await_calm()
        except TimeoutError:
            raise AssertionError(f"no calm after the storm\n{self.story()}") from None
        self.daemon.mine(8)
        await self._at_tip()

    async def _await_calm(self) -> None:
        rounds = 0
        while not await self._is_calm() or rounds < CALM_ROUNDS:
            await self._connect()
            # No block without need: whoever is merely slow would run into the deadlines of his payments.
            if rounds < CALM_ROUNDS or self._waits_for_blocks():
                self.daemon.mine(1)
            await self._at_tip()
            await asyncio.sleep(0.2)
            rounds += 1

    async def _is_calm(self) -> bool:
        htlcs = any(c.htlcs for n in self.nodes for c in n.node.channels())
        busy = self.daemon.rpc("getrawmempool") or htlcs or self.paying or not self._usable()
        return not busy and not await self._pending()

    def _waits_for_blocks(self) -> bool:
        return bool(self.daemon.rpc("getrawmempool")) or (self._connected() and not self._usable())

    async def _pending(self) -> bool:
        for payer, _, payment_hash, _ in self.invoices:
            view = await payer.node.payment(payment_hash)
            if view is not None and view.status == "pending":
                return True
        return False

    # -- what must be true ---------------------------------------------------------------------------------------------

    async def check(self) -> None:
        for each in self.nodes:
            self._check_chain(each)
            alarms = [e for e in await self._events(each) if isinstance(e.event, Alarm)]
            deep = sum(e.event.subject == "deep_reorg" for e in alarms if isinstance(e.event, Alarm))
            assert deep >= self.deep, f"{each.name}: {deep} alarms for {self.deep} deep reorgs\n{self.story()}"
        await self._check_payments()

    def _blocks(self) -> Iterator[tuple[int, Block]]:
        for height in range(1, self.daemon.rpc("getblockcount") + 1):
            yield (
                height,
                parse_block(bytes.fromhex(self.daemon.rpc("getblock", self.daemon.rpc("getblockhash", height), 0))),
            )

    def _check_chain(self, each: Leyden) -> None:
        core = each.node.core
        wallet = core.services.wallet
        truth = read_chain(self._blocks(), wallet.scripts())
        believed = frozenset(Coin(coin.outpoint, coin.value, coin.height) for coin in wallet.coins())
        assert believed == truth.coins, f"{each.name}: {believed ^ truth.coins}\n{self.story()}"
        (channel,) = core.channels.channels()
        where, outpoint = channel.funding.confirmation, channel.funding_outpoint
        assert where is not None, self.story()
        assert outpoint is not None
        assert (where.height, where.tx_index) == truth.places[outpoint.txid], self.story()
        for txid, _kind, height in core.tracker.pending():
            assert truth.places.get(txid, (0, 0))[0] == height, f"{txid[::-1].hex()}\n{self.story()}"

    async def _check_payments(self) -> None:
        moved = succeeded = 0
        sent = {each.name: await self._hashes(each, PaymentSent) for each in self.nodes}
        received = {each.name: await self._hashes(each, PaymentReceived) for each in self.nodes}
        for payer, payee, payment_hash, amount in self.invoices:
            view = await payer.node.payment(payment_hash)
            done = view is not None and view.status == "succeeded"
            assert view is None or view.status in ("succeeded", "failed"), f"{view}\n{self.story()}"
            assert sent[payer.name].count(payment_hash) == done, self.story()
            assert received[payee.name].count(payment_hash) == done, self.story()
            succeeded += done
            moved += done * (amount if payer is self.alice else -amount)
        assert succeeded, f"no payment succeeded\n{self.story()}"
        (ours,), (theirs,) = self.alice.node.channels(), self.bob.node.channels()
        assert ours.local_msat == theirs.remote_msat == CAPACITY * 1000 - PUSH - moved, self.story()
        assert ours.remote_msat == theirs.local_msat == PUSH + moved, self.story()

    async def _hashes(self, each: Leyden, kind: type[PaymentSent] | type[PaymentReceived]) -> list[PaymentHash]:
        return [e.event.payment_hash for e in await self._events(each) if isinstance(e.event, kind)]

    async def _events(self, each: Leyden) -> list[LoggedEvent]:
        found: list[LoggedEvent] = []
        while more := await each.node.events(found[-1].index if found else 0, 500):
            found += more
        return found

    def story(self) -> str:
        """The newest of what happened."""
        return "\n".join(self.told[-30:])


@asynccontextmanager
async def storm(seed: int, folder: Path) -> AsyncIterator[RealStorm]:
    """``Unavailable`` if there is no bitcoind."""
    daemon = Bitcoind(folder / "bitcoind", options=("-persistmempool=0",))
    try:
        daemon.start().make_wallet()
        made = RealStorm(seed, folder, daemon)
        try:
            await made.begin()
            yield made
        finally:
            await made.end()
    finally:
        daemon.stop()
