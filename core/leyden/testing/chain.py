"""Conformance suite of chain sources.

Subclass ``ChainSourceSuite``, supply the fixture ``bed`` with a fresh source and control over the real chain behind it,
and run pytest (with pytest-asyncio in auto mode). The source is driven as the core drives it: through a
``ChainFollower``, which must accept all of it and ask for no restart unless the test provokes one.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from leyden.bitcoin import SEQUENCE_RBF, Network, Transaction, TxIn, TxOut, finalize_transaction, p2wsh
from leyden.chain import (
    BlockFetched,
    BlockRescanned,
    ChainFollower,
    FetchBlock,
    FollowerInput,
    FollowerOutput,
    RestartSource,
    SourceFault,
    WatchesAdded,
    load,
    step,
)
from leyden.hooks.services import ChainSource
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    SourceSynced,
    UtxoFound,
    UtxoSpent,
    UtxoUnknown,
    Watch,
)
from leyden.types import BlockHash, BlockHeight, LeydenError, OutPoint, Sat, Txid

TIMEOUT = 20.0
"""Seconds after which a silent source has failed."""
MAX_RESTARTS = 10
ANYONE_SCRIPT = b"\x51"
"""OP_TRUE: as a P2WSH script it lets the suite spend without keys."""


class ChainControl(Protocol):
    """What a test bed must be able to do to the real chain behind the source (regtest)."""

    async def tip(self) -> tuple[BlockHeight, BlockHash]: ...

    async def mine(self, blocks: int) -> None:
        """The first block takes the whole mempool."""
        ...

    async def reorg(self, depth: int, blocks: int) -> None:
        """Replace ``depth`` blocks by ``blocks`` others, without the transactions of the old ones."""
        ...

    async def pay(self, script: bytes, value: Sat) -> Transaction:
        """Put a payment of ``value`` satoshi to ``script`` into the mempool."""
        ...

    async def submit(self, tx: Transaction) -> None:
        """Put ``tx`` into the mempool."""
        ...


class ChainBed(msgspec.Struct, frozen=True, kw_only=True):
    """``make_source`` gives a new, unstarted source on the same chain each time."""

    make_source: Callable[[], ChainSource]
    control: ChainControl


class ChainDriver:
    """Runs a source through a follower as the core does, and keeps what came out."""

    def __init__(self, source: ChainSource, birth_height: int) -> None:
        self.source = source
        self.birth_height = BlockHeight(birth_height)
        self.follower: ChainFollower = load((), b"", Network.REGTEST, self.birth_height)
        self.outputs: list[FollowerOutput] = []
        self.restarts = 0
        self._events: AsyncIterator[object] | None = None

    async def start(self) -> None:
        await self.source.start(self.follower.locator, self.birth_height)
        if self._events is None:
            self._events = aiter(self.source.events())

    async def run_until(self, height: int, block_hash: bytes) -> None:
        """Take events until the source says that it is synced with this tip; ``AssertionError`` if it never does."""
        if self._events is None:
            raise LeydenError("start first")
        async with asyncio.timeout(TIMEOUT):
            while True:
                event = await anext(self._events)
                await asyncio.sleep(0)  # a source that never suspends must not outrun the timeout
                expect(
                    isinstance(event, BlockConnected | BlocksDisconnected | SourceSynced), f"no chain event: {event}"
                )
                await self.take(event)  # type: ignore[arg-type]
                synced = isinstance(event, SourceSynced) and event.block_hash == block_hash
                if synced and self.follower.synced and self.follower.best_hash in (block_hash, None):
                    expect(self.follower.height in (height, self.birth_height - 1), "synced at another height")
                    return

    async def take(self, happened: FollowerInput) -> None:
        self.follower, outputs = step(self.follower, happened)
        for output in outputs:
            expect(not isinstance(output, SourceFault), f"the source is at fault: {output}")
            self.outputs.append(output)
            if isinstance(output, FetchBlock):
                await self.take(BlockFetched(block=await self.source.get_block(output.block_hash)))
            elif isinstance(output, RestartSource):
                self.restarts += 1
                expect(self.restarts <= MAX_RESTARTS, f"the source never closes its gap: {output.reason}")
                await self.source.start(output.locator, self.birth_height)

    async def watch(self, watches: Sequence[Watch]) -> None:
        active_from = await self.source.watch(watches)
        await self.take(WatchesAdded(watches=tuple(watches), active_from=active_from))

    async def stop(self) -> None:
        await self.source.stop()
        if self._events is not None:
            async with asyncio.timeout(TIMEOUT):
                async for _ in self._events:
                    pass

    def connected(self) -> list[int]:
        return [output.height for output in self.outputs if isinstance(output, BlockConnected)]

    def transactions(self) -> list[tuple[int, BlockTransaction]]:
        """(height, transaction) of everything matched, when connected or looked at again."""
        kinds = BlockConnected | BlockRescanned
        return [(o.height, found) for o in self.outputs if isinstance(o, kinds) for found in o.transactions]


def expect(condition: object, message: str) -> None:
    """``AssertionError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise AssertionError(message)


def spend_anyone(tx: Transaction, value: Sat) -> Transaction:
    """A transaction that spends the output of ``tx`` that pays P2WSH of OP_TRUE, to the same script again."""
    script = p2wsh(ANYONE_SCRIPT)
    vout = next(index for index, output in enumerate(tx.outputs) if output.script == script)
    txin = TxIn(prevout=OutPoint(tx.txid, vout), sequence=SEQUENCE_RBF, witness=(ANYONE_SCRIPT,))
    spend = Transaction(version=2, inputs=(txin,), outputs=(TxOut(value=value, script=script),), locktime=0)
    return finalize_transaction(spend, [tx.outputs[vout]])


class ChainSourceSuite:
    """Subclass and supply the fixture ``bed`` (a ``ChainBed``); the chain may already have blocks."""

    async def _follow(self, bed: ChainBed, birth_height: int) -> ChainDriver:
        driver = ChainDriver(bed.make_source(), birth_height)
        await driver.start()
        return driver

    async def test_history_comes_in_order_from_the_birth_height(self, bed: ChainBed) -> None:
        await bed.control.mine(5)
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height - 3)
        await driver.run_until(height, tip)
        expect(driver.connected() == list(range(height - 3, height + 1)), f"got heights {driver.connected()}")
        expect(driver.restarts == 0, "the follower saw a gap")
        await bed.control.mine(2)
        height, tip = await bed.control.tip()
        await driver.run_until(height, tip)
        expect(driver.connected()[-2:] == [height - 1, height], "new blocks did not follow in order")
        await driver.stop()

    async def test_birth_in_the_future_waits(self, bed: ChainBed) -> None:
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height + 3)
        await driver.run_until(height, tip)
        expect(driver.connected() == [], "blocks came before the birth height")
        await bed.control.mine(4)
        height, tip = await bed.control.tip()
        await driver.run_until(height, tip)
        expect(driver.connected() == [height - 1, height], f"got heights {driver.connected()}")
        await driver.stop()

    async def test_locator_resumes_without_repeating(self, bed: ChainBed) -> None:
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height - 1)
        await driver.run_until(height, tip)
        await driver.stop()
        await bed.control.mine(3)
        later = ChainDriver(bed.make_source(), driver.birth_height)
        later.follower = msgspec.structs.replace(driver.follower, newest=None, synced=False)
        await later.start()
        height, tip = await bed.control.tip()
        await later.run_until(height, tip)
        expect(later.connected() == [height - 2, height - 1, height], f"got heights {later.connected()}")
        expect(not any(isinstance(o, BlocksDisconnected) for o in later.outputs), "a fork point without a fork")
        await later.stop()

    async def test_reorg_while_following(self, bed: ChainBed) -> None:
        await bed.control.mine(4)
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height - 4)
        await driver.run_until(height, tip)
        fork_hash = driver.follower.chain.hash_at(height - 3)
        await bed.control.reorg(3, 5)
        height, tip = await bed.control.tip()
        await driver.run_until(height, tip)
        self._check_reorg(driver, height - 5, fork_hash)
        await driver.stop()

    async def test_reorg_while_away(self, bed: ChainBed) -> None:
        await bed.control.mine(4)
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height - 4)
        await driver.run_until(height, tip)
        await driver.stop()
        fork_hash = driver.follower.chain.hash_at(height - 3)
        await bed.control.reorg(3, 5)
        later = ChainDriver(bed.make_source(), driver.birth_height)
        later.follower = msgspec.structs.replace(driver.follower, newest=None, synced=False)
        await later.start()
        height, tip = await bed.control.tip()
        await later.run_until(height, tip)
        self._check_reorg(later, height - 5, fork_hash)
        await later.stop()

    def _check_reorg(self, driver: ChainDriver, fork_height: int, fork_hash: BlockHash | None) -> None:
        forks = [output for output in driver.outputs if isinstance(output, BlocksDisconnected)]
        # A source that polls may see the old branch shrink in steps, but the last fork point must be the right one.
        expect(forks, "no fork point was named")
        expect((forks[-1].fork_height, forks[-1].fork_hash) == (fork_height, fork_hash), f"wrong fork point {forks}")
        after = driver.outputs[driver.outputs.index(forks[-1]) :]
        heights = [output.height for output in after if isinstance(output, BlockConnected)]
        expect(heights == list(range(fork_height + 1, fork_height + 6)), f"the new branch came as {heights}")
        expect(driver.restarts == 0, "the follower saw a gap")

    async def test_watched_payment_and_spend_are_delivered_with_position(self, bed: ChainBed) -> None:
        script = p2wsh(ANYONE_SCRIPT)
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height)
        await driver.run_until(height, tip)
        await driver.watch([Watch(script=script, since_height=BlockHeight(height + 1))])
        paid = await bed.control.pay(script, Sat(50_000))
        spent = spend_anyone(paid, Sat(49_000))
        await bed.control.submit(spent)
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        await driver.run_until(height, tip)
        found = [(at, item.tx.txid) for at, item in driver.transactions() if item.position > 0]
        expect(found == [(height, paid.txid), (height, spent.txid)], f"matched {found}")
        await driver.stop()

    async def test_watch_for_an_output_that_is_already_spent(self, bed: ChainBed) -> None:
        script = p2wsh(ANYONE_SCRIPT)
        since = (await bed.control.tip())[0] + 1
        paid = await bed.control.pay(script, Sat(60_000))
        await bed.control.mine(2)
        spent = spend_anyone(paid, Sat(59_000))
        await bed.control.submit(spent)
        await bed.control.mine(2)
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, since)
        await driver.run_until(height, tip)
        expect(driver.transactions() == [], "something matched before anything was watched")
        await driver.watch([Watch(script=script, outpoint=spent.inputs[0].prevout, since_height=BlockHeight(since))])
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        await driver.run_until(height, tip)
        found = [(at, item.tx.txid) for at, item in driver.transactions()]
        expect(found == [(since, paid.txid), (since + 2, spent.txid)], f"the rescan found {found}")
        await driver.stop()

    async def test_starting_again_from_an_old_place_is_harmless(self, bed: ChainBed) -> None:
        await bed.control.mine(4)
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height - 4)
        await driver.run_until(height, tip)
        old = tuple(place for place in driver.follower.locator if place[0] <= height - 2)
        before = list(driver.connected())
        await driver.source.start(old, driver.birth_height)
        await driver.run_until(height, tip)
        expect(driver.connected() == before, "blocks came through twice")
        expect(driver.follower.best_hash == tip, "the follower lost its place")
        await driver.stop()

    async def test_block_and_utxo_lookup(self, bed: ChainBed) -> None:
        script = p2wsh(ANYONE_SCRIPT)
        paid = await bed.control.pay(script, Sat(70_000))
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height)
        await driver.run_until(height, tip)
        source = driver.source
        block = await source.get_block(tip)
        expect(paid.txid in [item.tx.txid for item in block.transactions], "get_block lacks a transaction")
        spend = spend_anyone(paid, Sat(69_000))
        outpoint = spend.inputs[0].prevout
        found = await source.find_utxo(outpoint)
        expect(isinstance(found, UtxoFound) and found.output.script == script and found.height == height, f"{found}")
        await bed.control.submit(spend)
        await bed.control.mine(1)
        expect(await source.find_utxo(outpoint) == UtxoSpent(), "a spent output was not said to be spent")
        unknown = await source.find_utxo(OutPoint(Txid(b"\x77" * 32), 0))
        expect(isinstance(unknown, UtxoUnknown), "an unknown output was not said to be unknown")
        await driver.stop()

    async def test_unknown_block_is_an_error(self, bed: ChainBed) -> None:
        height, tip = await bed.control.tip()
        driver = await self._follow(bed, height)
        await driver.run_until(height, tip)
        try:
            await driver.source.get_block(BlockHash(b"\x66" * 32))
        except LeydenError:
            pass
        else:
            raise AssertionError("get_block invented a block")
        await driver.stop()
