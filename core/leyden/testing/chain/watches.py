"""Watches: what pays or spends something watched is delivered, whenever the watch came."""

import asyncio

from leyden.bitcoin import p2wsh
from leyden.crypto import sha256
from leyden.hooks.types import Watch
from leyden.testing.chain.bed import ChainBed, Purse
from leyden.testing.chain.order import caught_up
from leyden.testing.expectations import expect, expect_equal
from leyden.types import BlockHeight, OutPoint, Txid

MANY = 1_000


class WatchTests:
    """Part of ``ChainSourceSuite``."""

    async def test_watched_payment_and_spend_are_delivered_with_position(self, bed: ChainBed) -> None:
        """Parent and child are in one block, in that order."""
        purse = Purse(bed.control, "in one block")
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height)
        await driver.watch([purse.watch(height + 1)])
        paid = await purse.pay()
        spent = await purse.submit_spend(paid)
        await bed.control.mine(1)
        height = await driver.reach_tip(bed.control)
        await driver.run_until_found({(height, paid.txid), (height, spent.txid)})
        found = [(at, item.tx.txid) for at, item in driver.transactions() if item.position > 0]
        expect_equal(list(dict.fromkeys(found)), [(height, paid.txid), (height, spent.txid)], "matched, in this order")
        await driver.stop()

    async def test_watch_for_an_output_that_is_already_spent(self, bed: ChainBed) -> None:
        """Its payment and its spend come from history, and the source says once more that it is synced."""
        purse = Purse(bed.control, "spent before")
        since = (await bed.control.tip())[0] + 1
        paid = await purse.pay()
        await bed.control.mine(2)
        spent = await purse.submit_spend(paid)
        await bed.control.mine(2)
        driver = await caught_up(bed, since)
        expect(driver.transactions() == [], "something matched before anything was watched")
        await driver.watch([purse.watch(since, outpoint=purse.outpoint(paid))])
        await driver.run_until_found({(since, paid.txid), (since + 2, spent.txid)})
        if not driver.source.info.full_blocks:
            await driver.run_until_synced()
        await bed.control.mine(1)
        await driver.reach_tip(bed.control)
        heights = [at for at, _ in driver.transactions()]
        expect(heights == sorted(heights), f"history came in the order {heights}")
        expect_equal(driver.conclusions.found, {(since, paid.txid), (since + 2, spent.txid)}, "found in the end")
        await driver.stop()

    async def test_watch_before_start_is_complete_from_the_first_block(self, bed: ChainBed) -> None:
        purse = Purse(bed.control, "before start")
        birth = (await bed.control.tip())[0] + 1
        paid = await purse.pay()
        await bed.control.mine(1)
        spent = await purse.submit_spend(paid)
        await bed.control.mine(1)
        driver = await caught_up(bed, birth, [purse.watch(birth)])
        expect_equal(driver.conclusions.found, {(birth, paid.txid), (birth + 1, spent.txid)}, "when first synced")
        await driver.stop()

    async def test_a_watch_right_after_a_restart(self, bed: ChainBed) -> None:
        """Before the first event of the new stream: blocks below its locator are history all the same."""
        purse = Purse(bed.control, "after a restart")
        birth = (await bed.control.tip())[0] + 1
        paid = await purse.pay()
        await bed.control.mine(4)
        driver = await caught_up(bed, birth)
        later = await driver.successor(bed.make_source())
        await later.start()
        await later.watch([purse.watch(birth)])
        await later.run_until_found({(birth, paid.txid)})
        await later.stop()
        again = await caught_up(bed, birth)
        await again.start()
        await again.watch([purse.watch(birth)])
        await again.run_until_found({(birth, paid.txid)})
        await again.stop()

    async def test_a_spend_is_found_by_outpoint_alone(self, bed: ChainBed) -> None:
        """It pays another script than the one that is watched, and so does not match by itself."""
        purse = Purse(bed.control, "outpoint")
        elsewhere = Purse(bed.control, "outpoint, elsewhere").script
        paid = await purse.pay()
        await bed.control.mine(1)
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height + 1)
        await driver.watch([purse.watch(height + 1, outpoint=purse.outpoint(paid))])
        spent = purse.spend(paid, to=elsewhere)
        await bed.control.submit(spent)
        await bed.control.mine(1)
        await driver.run_until_found({(height + 1, spent.txid)})
        await driver.stop()

    async def test_the_same_watch_again_and_from_further_back(self, bed: ChainBed) -> None:
        purse = Purse(bed.control, "again")
        since = (await bed.control.tip())[0] + 1
        paid = await purse.pay()
        await bed.control.mine(3)
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, since)
        late = purse.watch(height)
        await driver.watch([late, late])
        await driver.watch([late])
        await driver.watch([purse.watch(since)])
        await driver.run_until_found({(since, paid.txid)})
        spent = await purse.submit_spend(paid)
        await bed.control.mine(1)
        await driver.run_until_found({(since, paid.txid), (height + 1, spent.txid)})
        await driver.stop()

    async def test_watches_added_while_blocks_arrive(self, bed: ChainBed) -> None:
        """The node does not know which is first, and need not: nothing is lost between the two."""
        height, _ = await bed.control.tip()
        driver = await caught_up(bed, height)
        wanted: set[tuple[int, Txid]] = set()
        for number in range(6):
            purse = Purse(bed.control, f"while {number}")
            paid = await purse.pay()
            watch = purse.watch(height + 1)
            mining = asyncio.ensure_future(bed.control.mine(1))
            for _ in range(number):
                await asyncio.sleep(0)
            if number % 2:
                await asyncio.gather(driver.take_event(), driver.watch([watch]))
            else:
                await driver.watch([watch])
            await mining
            height, _ = await bed.control.tip()
            wanted.add((height, paid.txid))
            await driver.run_until_found(wanted)
        await driver.stop()

    async def test_many_watches(self, bed: ChainBed) -> None:
        """A wallet's look-ahead and many channels: most of them never see a transaction."""
        purses = [Purse(bed.control, f"many {number}") for number in range(3)]
        height, _ = await bed.control.tip()
        since = BlockHeight(height + 1)
        watches = [Watch(script=p2wsh(sha256(b"nobody %d" % n)), since_height=since) for n in range(MANY - 3)]
        watches += [purse.watch(since) for purse in purses]
        watches += [
            Watch(script=watch.script, outpoint=OutPoint(Txid(sha256(b"%d" % n)), n), since_height=since)
            for n, watch in enumerate(watches[:100])
        ]
        driver = await caught_up(bed, height)
        half = len(watches) // 2
        await asyncio.gather(driver.watch(watches[:half]), *(driver.watch([watch]) for watch in watches[half:]))
        paid = [await purse.pay() for purse in purses]
        await bed.control.mine(1)
        height, _ = await bed.control.tip()
        await driver.run_until_found({(height, tx.txid) for tx in paid})
        await driver.stop()
