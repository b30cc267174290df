"""Life: starts, restarts at any point, cancelled and concurrent calls, a stop that leaves nothing behind."""

import asyncio
from collections.abc import Awaitable, Callable

from leyden.bitcoin import Transaction, p2wsh
from leyden.hooks.services import ChainSource
from leyden.hooks.types import UtxoAnswer, UtxoFound, Watch
from leyden.testing.chain import driver as driving
from leyden.testing.chain.bed import ChainBed, anyone_script, spend_anyone
from leyden.testing.chain.driver import ChainDriver
from leyden.testing.chain.order import follow
from leyden.testing.expectations import expect, expect_equal
from leyden.types import BlockHash, BlockHeight, LeydenError, OutPoint, Sat, Txid

CANCEL_AFTER = (0, 1, 2, 5, 10)
"""Passes of the event loop that a call gets before it is cancelled."""


async def settled(before: set["asyncio.Task[object]"]) -> set["asyncio.Task[object]"]:
    """Tasks that are not in ``before`` and do not end by themselves."""
    left = asyncio.all_tasks() - before
    if left:
        _, left = await asyncio.wait(left, timeout=driving.TIMEOUT)
    return left


class LifecycleTests:
    """Part of ``ChainSourceSuite``."""

    async def _story(self, bed: ChainBed) -> tuple[int, Watch]:
        """A few blocks with a payment, its spend in a later block, and another pair inside one; (birth, watch)."""
        witness_script = anyone_script(b"story")
        script = p2wsh(witness_script)
        height, _ = await bed.control.tip()
        paid = await bed.control.pay(script, Sat(90_000))
        await bed.control.mine(1)
        spent = spend_anyone(paid, Sat(88_000), witness_script)
        await bed.control.submit(spent)
        await bed.control.mine(1)
        second = spend_anyone(spent, Sat(86_000), witness_script)
        await bed.control.submit(second)
        await bed.control.submit(spend_anyone(second, Sat(84_000), witness_script))
        await bed.control.mine(2)
        return height + 1, Watch(script=script, since_height=BlockHeight(height + 1))

    async def test_a_node_that_dies_at_any_point_ends_where_others_do(self, bed: ChainBed) -> None:
        """Killed between any two events: the next source starts from the locator that was stored."""
        birth, watch = await self._story(bed)
        height, tip = await bed.control.tip()
        whole = await follow(bed, birth, [watch])
        await whole.run_until(height, tip)
        expect_equal(len(whole.conclusions.found), 4, "transactions of the story")
        await whole.stop()
        for taken in range(whole.events_taken + 1):
            driver = await follow(bed, birth, [watch])
            for _ in range(taken):
                await driver.take_event()
            later = await driver.successor(bed.make_source())
            await later.start()
            await later.run_until(height, tip)
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
            height, tip = await bed.control.tip()
            await later.start()
            await later.run_until(height, tip)
            fresh = await follow(bed, birth, [watch])
            await fresh.run_until(height, tip)
            await later.run_until_found(fresh.conclusions.found)
            expect_equal(later.conclusions, fresh.conclusions, f"killed after {taken} events, then a reorg")
            await later.stop()
            await fresh.stop()

    async def test_start_twice(self, bed: ChainBed) -> None:
        await bed.control.mine(4)
        height, tip = await bed.control.tip()
        driver = await follow(bed, height - 3)
        await driver.start()
        await driver.take_event()
        await driver.start()
        await driver.start()
        await driver.run_until(height, tip)
        expect_equal(driver.connected(), [height - 3, height - 2, height - 1, height], "blocks, each once")
        await bed.control.mine(1)
        await driver.run_until_synced()
        expect_equal(driver.connected()[4:], [height + 1], "blocks after that")
        await driver.stop()

    async def test_cancelled_calls_leave_the_source_in_order(self, bed: ChainBed) -> None:
        """An answer that nobody waits for any more must not become that of the next question."""
        witness_script = anyone_script(b"cancelled")
        paid = await bed.control.pay(p2wsh(witness_script), Sat(50_000))
        await bed.control.mine(2)
        height, tip = await bed.control.tip()
        driver = await follow(bed, height - 1)
        await driver.run_until(height, tip)
        source, older = driver.source, driver.conclusions.blocks[height - 1]
        outpoint = _outpoint(paid, p2wsh(witness_script))
        watch = Watch(script=p2wsh(witness_script), since_height=BlockHeight(height))
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: source.find_utxo(OutPoint(Txid(b"\x77" * 32), 0)),
            lambda: source.watch([watch]),
        ]
        if source.info.full_blocks:
            calls.append(lambda: source.get_block(tip))
        for call in calls:
            for passes in CANCEL_AFTER:
                await _cancelled(call, passes)
                await self._check_answers(source, older, outpoint)
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        await driver.run_until(height, tip)
        await driver.stop()

    async def _check_answers(self, source: ChainSource, block_hash: BlockHash, outpoint: OutPoint) -> None:
        async with asyncio.timeout(driving.TIMEOUT):
            if source.info.full_blocks:
                expect_equal((await source.get_block(block_hash)).block_hash, block_hash, "the block asked for")
            found = await source.find_utxo(outpoint)
            expect(isinstance(found, UtxoFound) and found.output.value == 50_000, f"find_utxo: {found}")

    async def test_questions_at_the_same_time_get_their_own_answers(self, bed: ChainBed) -> None:
        witness_scripts = [anyone_script(b"at once %d" % number) for number in range(8)]
        paid = [await bed.control.pay(p2wsh(s), Sat(50_000 + n)) for n, s in enumerate(witness_scripts)]
        await bed.control.mine(4)
        height, tip = await bed.control.tip()
        driver = await follow(bed, height - 3)
        await driver.run_until(height, tip)
        source, blocks = driver.source, driver.conclusions.blocks
        outpoints = [_outpoint(tx, p2wsh(s)) for tx, s in zip(paid, witness_scripts, strict=True)]
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
            driver = await follow(bed, height - 11, [Watch(script=p2wsh(anyone_script(b"busy")))])
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
            left = await settled(before)
            expect(not left, f"stop left tasks behind: {left}")

    async def test_stop_ends_a_reader_that_waits_and_may_come_twice_or_early(self, bed: ChainBed) -> None:
        before = asyncio.all_tasks()
        height, tip = await bed.control.tip()
        driver = await follow(bed, height)
        await driver.run_until(height, tip)
        waiting = asyncio.ensure_future(_next_or_none(driver))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(driving.TIMEOUT):
            await driver.source.stop()
            await waiting
            await driver.source.stop()
            await bed.make_source().stop()
        left = await settled(before)
        expect(not left, f"stop left tasks behind: {left}")


def _outpoint(tx: Transaction, script: bytes) -> OutPoint:
    return OutPoint(tx.txid, next(n for n, output in enumerate(tx.outputs) if output.script == script))


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


async def _cancelled(call: Callable[[], Awaitable[object]], passes: int) -> None:
    task = asyncio.ensure_future(call())
    for _ in range(passes):
        await asyncio.sleep(0)
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    fine = isinstance(outcome, asyncio.CancelledError) or not isinstance(outcome, BaseException)
    expect(fine, f"a cancelled call raised {outcome!r}")
