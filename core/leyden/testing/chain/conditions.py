"""Suites for what some beds can do besides: take the backend away, freeze it, let it lie, be on another network.

Subclass those that fit beside ``ChainSourceSuite``.
"""

import asyncio
from collections.abc import Awaitable

from leyden.hooks.types import BlockConnected, SourceWarning, UtxoFound, UtxoUnknown, Watch
from leyden.testing.chain import driver as driving
from leyden.testing.chain.bed import ChainBed, Lie, Purse
from leyden.testing.chain.driver import ChainDriver
from leyden.testing.chain.lifecycle import expect_no_task_left
from leyden.testing.chain.order import caught_up, follow
from leyden.testing.expectations import expect, expect_equal, expect_one_line, needed
from leyden.types import LeydenError, OutPoint, Txid

BRIEF = 0.2
"""Seconds that a caller waits for a frozen backend before it gives up."""
PASSES = 100
"""Passes of the event loop that a source gets besides, to do what it must not: a busy machine may leave it none."""


async def _a_while() -> None:
    await asyncio.sleep(BRIEF)
    for _ in range(PASSES):
        await asyncio.sleep(0)


class AbsentBackendSuite:
    """The bed's ``power`` takes the backend away and gives it back."""

    async def test_a_backend_that_is_absent_at_start_is_waited_for(self, bed: ChainBed) -> None:
        power = needed(bed.power, "power", bed)
        height, tip = await bed.control.tip()
        await power.off()
        driver = ChainDriver(bed.make_source(), height)
        await driver.watch([Purse(bed.control, "absent").watch(0)])
        await driver.start()
        reading = asyncio.ensure_future(driver.run_until(height, tip))
        await _a_while()
        expect(not reading.done(), "it read blocks from a backend that is not there")
        await power.on()
        await reading
        await driver.stop()

    async def test_a_backend_that_goes_away_and_comes_back(self, bed: ChainBed) -> None:
        """Meanwhile watches are noted, look-ups fail in words; afterwards nothing is missing."""
        power = needed(bed.power, "power", bed)
        purse = Purse(bed.control, "meanwhile")
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height)
        await power.off()
        await driver.watch([purse.watch(height + 1)])
        reading = asyncio.ensure_future(self._next_block(driver))
        async with asyncio.timeout(driving.TIMEOUT):
            await self._check_absence(driver)
        await _a_while()
        await power.on()
        paid = await purse.pay()
        await bed.control.mine(2)
        await reading
        await driver.reach_tip(bed.control)
        await driver.run_until_found({(height + 1, paid.txid)})
        expect_equal(driver.connected()[-2:], [height + 1, height + 2], "blocks after the absence")
        await driver.stop()

    async def _next_block(self, driver: ChainDriver) -> None:
        while not isinstance(await driver.take_event(), BlockConnected):
            pass

    async def _check_absence(self, driver: ChainDriver) -> None:
        tip = driver.follower.best_hash
        try:
            found = await driver.source.find_utxo(OutPoint(Txid(b"\x77" * 32), 0))
            expect(isinstance(found, UtxoUnknown), f"an absent backend found {found}")
        except LeydenError as error:
            expect_one_line(str(error), "the error of find_utxo")
        if tip is not None and driver.source.info.full_blocks:
            try:
                await driver.source.get_block(tip)
            except LeydenError as error:
                expect_one_line(str(error), "the error of get_block")

    async def test_stop_without_a_backend(self, bed: ChainBed) -> None:
        power = needed(bed.power, "power", bed)
        before = asyncio.all_tasks()
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height)
        await power.off()
        await driver.stop()
        never_connected = await follow(bed, height)
        await never_connected.stop()
        await power.on()
        await expect_no_task_left(before)


class SlowBackendSuite:
    """The bed's ``freeze`` stops the backend in the middle of things and lets it go on."""

    async def test_a_caller_may_give_up_on_a_slow_backend(self, bed: ChainBed) -> None:
        freeze = needed(bed.freeze, "freeze", bed)
        purse = Purse(bed.control, "slow")
        paid = await purse.pay()
        await bed.control.mine(1)
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height)
        source = driver.source
        await freeze.off()
        try:
            for _ in range(3):
                await self._give_up(source.find_utxo(OutPoint(Txid(b"\x77" * 32), 0)))
            await driver.watch([purse.watch(height)])
        finally:
            await freeze.on()
        async with asyncio.timeout(driving.TIMEOUT):
            found = await source.find_utxo(purse.outpoint(paid))
        expect(isinstance(found, UtxoFound), f"after it was slow the backend's answer was taken for another: {found}")
        await driver.run_until_found({(height, paid.txid)})
        await bed.control.mine(1)
        await driver.run_until_synced()
        await driver.stop()

    async def _give_up(self, question: Awaitable[object]) -> None:
        try:
            async with asyncio.timeout(BRIEF):
                answer = await question
        except (TimeoutError, LeydenError):
            return
        expect(isinstance(answer, UtxoUnknown), f"a frozen backend answered {answer}")

    async def test_stop_while_the_backend_is_slow(self, bed: ChainBed) -> None:
        freeze = needed(bed.freeze, "freeze", bed)
        before = asyncio.all_tasks()
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height - 2)
        await freeze.off()
        try:
            await driver.stop()
            await expect_no_task_left(before)
        finally:
            await freeze.on()


class WrongNetworkSuite:
    """The bed's ``make_stranger`` gives sources whose backend is on another network than they were told."""

    async def test_another_network_is_refused(self, bed: ChainBed) -> None:
        """When it starts, or as soon as it can tell; in words, and before any block came through."""
        make_stranger = needed(bed.make_stranger, "make_stranger", bed)
        height, _ = await bed.control.tip()
        driver = ChainDriver(make_stranger(), height - 2)
        async with driving.in_time("another network was not refused"):
            try:
                await driver.start()
                while True:
                    await driver.take_event()
            except LeydenError as error:
                expect_one_line(str(error), "the refusal of another network")
        expect_equal(driver.connected(), [], "blocks of another network that came through")
        await driver.stop()


class LyingBackendSuite:
    """Each of the bed's ``lies`` must be noticed, and nothing false may become part of what a node believes."""

    async def test_lies_are_noticed_and_not_believed(self, bed: ChainBed) -> None:
        lies = needed(bed.lies or None, "lies", bed)
        purse = Purse(bed.control, "lies")
        birth, _ = await bed.control.tip()
        paid = await purse.pay()
        await bed.control.mine(3)
        watch = purse.watch(birth)
        honest = await caught_up(bed, birth, [watch])
        expect_equal(honest.conclusions.found, {(birth + 1, paid.txid)}, "what an honest backend tells")
        await honest.stop()
        for lie in lies:
            await self._check_lie(lie, honest, watch)

    async def _check_lie(self, lie: Lie, honest: ChainDriver, watch: Watch) -> None:
        driver = ChainDriver(lie.make_source(), honest.birth_height, tolerant=True)
        await driver.watch([watch])
        try:
            async with asyncio.timeout(driving.TIMEOUT):
                try:
                    await driver.start()
                    while not self._noticed(lie, driver):
                        await driver.take_event()
                except LeydenError as error:  # it gave up on this backend, and says why
                    expect_one_line(str(error), f"what is said about the lie {lie.name!r}")
                    driver.faults.append(str(error))
        except TimeoutError:
            expect(self._noticed(lie, driver), f"the lie {lie.name!r} was not noticed: {driver}")
        for text in driver.faults:
            expect_one_line(text, f"what is said about the lie {lie.name!r}")
        believed = driver.conclusions
        false_blocks = {h: b for h, b in believed.blocks.items() if honest.conclusions.blocks.get(h) != b}
        expect(not false_blocks, f"the lie {lie.name!r} was believed: blocks {sorted(false_blocks)}")
        invented = believed.found - honest.conclusions.found
        expect(not invented, f"the lie {lie.name!r} was believed: {invented}")
        await driver.stop()

    def _noticed(self, lie: Lie, driver: ChainDriver) -> bool:
        warned = any(isinstance(notice, SourceWarning) for notice in driver.notices)
        return bool(driver.faults) or warned or lie.noticed()
