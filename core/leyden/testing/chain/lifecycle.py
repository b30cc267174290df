"""Life: starts, restarts at any point, cancelled and concurrent calls, a stop that leaves nothing behind."""

import asyncio
from collections.abc import Awaitable, Callable

from leyden.hooks.services import ChainSource
from leyden.hooks.types import UtxoAnswer, UtxoFound, Watch
from leyden.testing.chain import driver as driving
from leyden.testing.chain.bed import ChainBed, Purse
from leyden.testing.chain.driver import ChainDriver
from leyden.testing.chain.order import caught_up, follow
from leyden.testing.expectations import CANCEL_AFTER, cancel, expect, expect_equal
from leyden.types import BlockHash, LeydenError, OutPoint, Sat, Txid

ENDING = 20.0
"""Seconds after which a task that is still there was left behind."""


async def expect_no_task_left(before: set["asyncio.Task[object]"]) -> None:
    """Every task that is not in ``before`` ends by itself."""
    left = asyncio.all_tasks() - before
    if left:
        _, left = await asyncio.wait(left, timeout=ENDING)
    expect(not left, f"stop left tasks behind: {left}")


class LifecycleTests:
    """Part of ``ChainSourceSuite``."""

    async def _story(self, bed: ChainBed) -> tuple[int, Watch]:
        """A few blocks with a payment, its spend in a later block, and another pair inside one; (birth, watch)."""
        purse = Purse(bed.control, "story")
        height, _ = await bed.control.tip()
        paid = await purse.pay()
        await bed.control.mine(1)
        spent = await purse.submit_spend(paid)
        await bed.control.mine(1)
        await purse.submit_spend(await purse.submit_spend(spent))
        await bed.control.mine(2)
        return height + 1, purse.watch(height + 1)

    async def test_a_node_that_dies_at_any_point_ends_where_others_do(self, bed: ChainBed) -> None:
        """Killed between any two events: the next source starts from the locator that was stored."""
        birth, watch = await self._story(bed)
        whole = await caught_up(bed, birth, [watch])
        expect_equal(len(whole.conclusions.found), 4, "transactions of the story")
        await whole.stop()
        for taken in range(whole.events_taken + 1):
            driver = await follow(bed, birth, [watch])
            for _ in range(taken):
                await driver.take_event()
            later = await driver.successor(bed.make_source())
            await later.start()
            await later.reach_tip(bed.control)
            await later.run_until_found(whole.conclusions.found)
            expect_equal(later.conclusions, whole.conclusions, f"killed after {taken} events")
            await later.stop()

    async def test_a_node_that_dies_and_misses_a_reorg_ends_where_others_do(self, bed: ChainBed) -> None:
        birth, watch = await self._story(bed)
        for taken in (1, 3, 4, 5):
            driver = await follow(bed, birth, [watch])
            for _ in range(taken):
                await driver.take_event()
            later = await driver.successor(bed.make_source())
            height, _ = await bed.control.tip()
            depth = height - later.follower.height + 1  # what it saw last is lost
            await bed.control.reorg(depth, depth + 1)
            await later.start()
            await later.reach_tip(bed.control)
            fresh = await caught_up(bed, birth, [watch])
            await later.run_until_found(fresh.conclusions.found)
            expect_equal(later.conclusions, fresh.conclusions, f"killed after {taken} events, then a reorg")
            await later.stop()
            await fresh.stop()

    async def test_start_twice(self, bed: ChainBed) -> None:
        await bed.control.mine(4)
        height, _ = await bed.control.tip()
        driver = await follow(bed, height - 3)
        await driver.start()
        await driver.take_event()
        await driver.start()
        await driver.start()
        await driver.reach_tip(bed.control)
        expect_equal(driver.connected(), [height - 3, height - 2, height - 1, height], "blocks, each once")
        await bed.control.mine(1)
        await driver.run_until_synced()
        expect_equal(driver.connected()[4:], [height + 1], "blocks after that")
        await driver.stop()

    async def test_cancelled_calls_leave_the_source_in_order(self, bed: ChainBed) -> None:
        """An answer that nobody waits for any more must not become that of the next question."""
        purse = Purse(bed.control, "cancelled")
        paid = await purse.pay(50_000)
        await bed.control.mine(2)
        height, tip = await bed.control.tip()
        driver = await caught_up(bed, height - 1)
        source, older = driver.source, driver.conclusions.blocks[height - 1]
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: source.find_utxo(OutPoint(Txid(b"\x77" * 32), 0)),
            lambda: source.watch([purse.watch(height)]),
        ]
        if source.info.full_blocks:
            calls.append(lambda: source.get_block(tip))
        for call in calls:
            for passes in CANCEL_AFTER:
                await cancel(call, passes)
                await self._check_answers(source, older, purse.outpoint(paid))
        await bed.control.mine(1)
        await driver.reach_tip(bed.control)
        await driver.stop()

    async def _check_answers(self, source: ChainSource, block_hash: BlockHash, outpoint: OutPoint) -> None:
        async with asyncio.timeout(driving.TIMEOUT):
            if source.info.full_blocks:
                expect_equal((await source.get_block(block_hash)).block_hash, block_hash, "the block asked for")
            found = await source.find_utxo(outpoint)
            expect(isinstance(found, UtxoFound) and found.output.value == 50_000, f"find_utxo: {found}")

    async def test_questions_at_the_same_time_get_their_own_answers(self, bed: ChainBed) -> None:
        purses = [Purse(bed.control, f"at once {number}") for number in range(8)]
        outpoints = [purse.outpoint(await purse.pay(50_000 + number)) for number, purse in enumerate(purses)]
        await bed.control.mine(4)
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height - 3)
        source, blocks = driver.source, driver.conclusions.blocks
        async with asyncio.timeout(driving.TIMEOUT):
            answers = await asyncio.gather(*(source.find_utxo(outpoint) for outpoint in outpoints))
            expect_equal(
                [_value(answer) for answer in answers],
                [50_000 + number for number in range(8)],
                "outputs asked for at the same time",
            )
            if source.info.full_blocks:
                found = await asyncio.gather(*(source.get_block(block_hash) for block_hash in blocks.values()))
                expect_equal([b.block_hash for b in found], list(blocks.values()), "blocks asked for at the same time")
        await driver.stop()

    async def test_stop_while_busy_leaves_nothing_behind(self, bed: ChainBed) -> None:
        """In the middle of a catch-up, with questions open: they are answered or fail, and every task ends."""
        await bed.control.mine(12)
        height, tip = await bed.control.tip()
        for taken in (0, 1, 5):
            before = asyncio.all_tasks()
            driver = await follow(bed, height - 11, [Purse(bed.control, "busy").watch(0)])
            for _ in range(taken):
                await driver.take_event()
            work: list[Awaitable[object]] = [driver.source.find_utxo(OutPoint(Txid(tip), 0))]
            if driver.source.info.full_blocks:
                work.append(driver.source.get_block(tip))
            questions = [asyncio.ensure_future(_answered(question)) for question in work]
            await asyncio.sleep(0)
            await driver.stop()
            async with asyncio.timeout(driving.TIMEOUT):
                await asyncio.gather(*questions)
            await expect_no_task_left(before)

    async def test_stop_ends_a_reader_that_waits_and_may_come_twice_or_early(self, bed: ChainBed) -> None:
        before = asyncio.all_tasks()
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height)
        waiting = asyncio.ensure_future(_next_or_none(driver))
        await asyncio.sleep(0.01)
        async with driving.in_time("the source did not stop, or its reader waits for ever"):
            await driver.source.stop()
            await waiting
            await driver.source.stop()
            await bed.make_source().stop()
        await expect_no_task_left(before)


def _value(answer: UtxoAnswer) -> Sat | None:
    return answer.output.value if isinstance(answer, UtxoFound) else None


async def _next_or_none(driver: ChainDriver) -> None:
    try:
        while True:
            await driver.take_event()
    except StopAsyncIteration:
        return


async def _answered(question: Awaitable[object]) -> None:
    try:
        await question
    except LeydenError:
        return
