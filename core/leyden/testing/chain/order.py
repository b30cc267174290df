"""Order: blocks in strict order, forks named, nothing twice, nothing left out."""

from collections.abc import Sequence

from leyden.bitcoin import parse_block
from leyden.hooks.types import BlockConnected, BlocksDisconnected, UtxoFound, UtxoSpent, UtxoUnknown, Watch
from leyden.testing.chain.bed import ChainBed, Purse
from leyden.testing.chain.driver import ChainDriver
from leyden.testing.expectations import expect, expect_equal, expect_refusal
from leyden.types import BlockHash, OutPoint, Txid

DEEP = 9
"""Blocks of a deep reorg: more than the six after which what is on chain counts as final."""


async def follow(bed: ChainBed, birth_height: int, watches: Sequence[Watch] = ()) -> ChainDriver:
    """A started source; ``watches`` are given to it before that, as a node does."""
    driver = ChainDriver(bed.make_source(), birth_height)
    if watches:
        await driver.watch(watches)
    await driver.start()
    return driver


async def caught_up(bed: ChainBed, birth_height: int, watches: Sequence[Watch] = ()) -> ChainDriver:
    """As ``follow``, and it has told everything up to the tip."""
    driver = await follow(bed, birth_height, watches)
    await driver.reach_tip(bed.control)
    return driver


class OrderTests:
    """Part of ``ChainSourceSuite``."""

    async def test_history_comes_in_order_from_the_birth_height(self, bed: ChainBed) -> None:
        await bed.control.mine(5)
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height - 3)
        expect(driver.connected() == list(range(height - 3, height + 1)), f"got heights {driver.connected()}")
        expect(driver.restarts == 0, "the follower saw a gap")
        await bed.control.mine(2)
        height = await driver.reach_tip(bed.control)
        expect(driver.connected()[-2:] == [height - 1, height], "new blocks did not follow in order")
        await driver.stop()

    async def test_birth_in_the_future_waits(self, bed: ChainBed) -> None:
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height + 3)
        expect(driver.connected() == [], "blocks came before the birth height")
        await bed.control.mine(4)
        height = await driver.reach_tip(bed.control)
        expect(driver.connected() == [height - 1, height], f"got heights {driver.connected()}")
        await driver.stop()

    async def test_locator_resumes_without_repeating(self, bed: ChainBed) -> None:
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height - 1)
        later = await driver.successor(bed.make_source())
        await bed.control.mine(3)
        await later.start()
        height = await later.reach_tip(bed.control)
        expect_equal(later.delivered, [height - 2, height - 1, height], "blocks that were sent")
        expect_equal(later.connected(), later.delivered, "blocks that were connected")
        expect(not any(isinstance(o, BlocksDisconnected) for o in later.outputs), "a fork point without a fork")
        await later.stop()

    async def test_reorg_while_following(self, bed: ChainBed) -> None:
        driver = await self._before_a_reorg(bed)
        fork_hash = driver.follower.chain.hash_at(driver.follower.height - 3)
        await bed.control.reorg(3, 5)
        height = await driver.reach_tip(bed.control)
        self._check_reorg(driver, height - 5, fork_hash)
        await driver.stop()

    async def test_reorg_while_away(self, bed: ChainBed) -> None:
        driver = await self._before_a_reorg(bed)
        later = await driver.successor(bed.make_source())
        fork_hash = driver.follower.chain.hash_at(driver.follower.height - 3)
        await bed.control.reorg(3, 5)
        await later.start()
        height = await later.reach_tip(bed.control)
        self._check_reorg(later, height - 5, fork_hash)
        await later.stop()

    async def _before_a_reorg(self, bed: ChainBed) -> ChainDriver:
        """Five blocks are known."""
        await bed.control.mine(4)
        height, _ = await bed.control.tip()
        return await caught_up(bed, height - 4)

    def _check_reorg(self, driver: ChainDriver, fork_height: int, fork_hash: BlockHash | None) -> None:
        forks = [output for output in driver.outputs if isinstance(output, BlocksDisconnected)]
        # A source that polls may see the old branch shrink in steps, but the last fork point must be the right one.
        expect(forks, "no fork point was named")
        expect((forks[-1].fork_height, forks[-1].fork_hash) == (fork_height, fork_hash), f"wrong fork point {forks}")
        after = driver.outputs[driver.outputs.index(forks[-1]) :]
        heights = [output.height for output in after if isinstance(output, BlockConnected)]
        expect(heights == list(range(fork_height + 1, fork_height + 6)), f"the new branch came as {heights}")
        expect(driver.restarts == 0, "the follower saw a gap")

    async def test_starting_again_from_an_old_place_is_harmless(self, bed: ChainBed) -> None:
        driver = await self._before_a_reorg(bed)
        height, tip = await bed.control.tip()
        old = tuple(place for place in driver.follower.locator if place[0] <= height - 2)
        before = list(driver.connected())
        await driver.source.start(old, driver.birth_height)
        await driver.run_until(height, tip)
        expect(driver.connected() == before, "blocks came through twice")
        expect(driver.follower.best_hash == tip, "the follower lost its place")
        await driver.stop()

    async def test_block_and_utxo_lookup(self, bed: ChainBed) -> None:
        purse = Purse(bed.control, "looked up")
        paid = await purse.pay()
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        driver = await caught_up(bed, height)
        source = driver.source
        if source.info.full_blocks:
            block = await source.get_block(tip)
            expect_equal((block.height, block.block_hash, block.full), (height, tip, True), "get_block")
            txids = [tx.txid for tx in parse_block(block.raw).transactions] if block.raw else []
            txids += [item.tx.txid for item in block.transactions]
            expect(paid.txid in txids, "get_block lacks a transaction")
        outpoint = purse.outpoint(paid)
        found = await source.find_utxo(outpoint)
        fits = isinstance(found, UtxoFound) and found.output.script == purse.script and found.height == height
        expect(fits, f"an unspent output in block {height} was looked up: {found}")
        await purse.submit_spend(paid)
        await bed.control.mine(1)
        expect(await source.find_utxo(outpoint) == UtxoSpent(), "a spent output was not said to be spent")
        unknown = await source.find_utxo(OutPoint(Txid(b"\x77" * 32), 0))
        expect(isinstance(unknown, UtxoUnknown), "an unknown output was not said to be unknown")
        await driver.stop()

    async def test_unknown_block_is_an_error(self, bed: ChainBed) -> None:
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height)
        await expect_refusal(driver.source.get_block(BlockHash(b"\x66" * 32)), "get_block of an unknown block")
        await driver.stop()

    async def test_a_reorg_deeper_than_what_counts_as_final(self, bed: ChainBed) -> None:
        """A payment was confirmed, vanishes with its block, and is confirmed again elsewhere. What a node then believes
        is what one believes that has seen nothing but the last chain."""
        purse = Purse(bed.control, "deep reorg")
        birth, _ = await bed.control.tip()
        paid = await purse.pay()
        await bed.control.mine(1)
        spent = await purse.submit_spend(paid)
        await bed.control.mine(DEEP - 1)
        watch = purse.watch(birth)
        driver = await caught_up(bed, birth, [watch])
        expect_equal(driver.conclusions.found, {(birth + 1, paid.txid), (birth + 2, spent.txid)}, "found at first")
        await bed.control.reorg(DEEP, DEEP + 1)
        await driver.reach_tip(bed.control)
        expect_equal(driver.conclusions.found, frozenset(), "found after the reorg took it away")
        await bed.control.submit(paid)
        await bed.control.submit(spent)
        await bed.control.mine(2)
        await driver.reach_tip(bed.control)
        fresh = await caught_up(bed, birth, [watch])
        expect_equal({txid for _, txid in fresh.conclusions.found}, {paid.txid, spent.txid}, "found by a fresh node")
        expect_equal(driver.conclusions, fresh.conclusions, "after a deep reorg")
        await driver.stop()
        await fresh.stop()

    async def test_one_reorg_after_the_other(self, bed: ChainBed) -> None:
        """Nobody waits for the source between them: what it finds may be any part of what happened."""
        await bed.control.mine(6)
        birth, _ = await bed.control.tip()
        driver = await follow(bed, birth - 5)
        await driver.run_until_synced()
        for depth in (1, 3, 2, 5):
            await bed.control.reorg(depth, depth + 1)
        await driver.reach_tip(bed.control)
        fresh = await caught_up(bed, birth - 5)
        expect_equal(driver.conclusions, fresh.conclusions, "after four reorgs")
        await driver.stop()
        await fresh.stop()
