"""Watches: what pays or spends something watched is delivered, whenever the watch came."""

import asyncio

from leyden.bitcoin import p2wsh
from leyden.crypto import sha256
from leyden.hooks.types import Watch
from leyden.testing.chain.bed import ANYONE_SCRIPT, ChainBed, anyone_script, spend_anyone
from leyden.testing.chain.order import follow
from leyden.testing.expectations import expect, expect_equal
from leyden.types import BlockHeight, OutPoint, Sat, Txid

MANY = 1_000


class WatchTests:
    """Part of ``ChainSourceSuite``."""

    async def test_watched_payment_and_spend_are_delivered_with_position(self, bed: ChainBed) -> None:
        """Parent and child are in one block, in that order."""
        script = p2wsh(ANYONE_SCRIPT)
        height, tip = await bed.control.tip()
        driver = await follow(bed, height)
        await driver.run_until(height, tip)
        await driver.watch([Watch(script=script, since_height=BlockHeight(height + 1))])
        paid = await bed.control.pay(script, Sat(50_000))
        spent = spend_anyone(paid, Sat(49_000))
        await bed.control.submit(spent)
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        await driver.run_until(height, tip)
        await driver.run_until_found({(height, paid.txid), (height, spent.txid)})
        found = [(at, item.tx.txid) for at, item in driver.transactions() if item.position > 0]
        expect_equal(list(dict.fromkeys(found)), [(height, paid.txid), (height, spent.txid)], "matched, in this order")
        await driver.stop()

    async def test_watch_for_an_output_that_is_already_spent(self, bed: ChainBed) -> None:
        """Its payment and its spend come from history, and the source says once more that it is synced."""
        witness_script = anyone_script(b"spent before")
        script = p2wsh(witness_script)
        since = (await bed.control.tip())[0] + 1
        paid = await bed.control.pay(script, Sat(60_000))
        await bed.control.mine(2)
        spent = spend_anyone(paid, Sat(59_000), witness_script)
        await bed.control.submit(spent)
        await bed.control.mine(2)
        height, tip = await bed.control.tip()
        driver = await follow(bed, since)
        await driver.run_until(height, tip)
        expect(driver.transactions() == [], "something matched before anything was watched")
        await driver.watch([Watch(script=script, outpoint=spent.inputs[0].prevout, since_height=BlockHeight(since))])
        await driver.run_until_found({(since, paid.txid), (since + 2, spent.txid)})
        if not driver.source.info.full_blocks:
            await driver.run_until_synced()
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        await driver.run_until(height, tip)
        heights = [at for at, _ in driver.transactions()]
        expect(heights == sorted(heights), f"history came in the order {heights}")
        expect_equal(driver.conclusions.found, {(since, paid.txid), (since + 2, spent.txid)}, "found in the end")
        await driver.stop()

    async def test_watch_before_start_is_complete_from_the_first_block(self, bed: ChainBed) -> None:
        witness_script = anyone_script(b"before start")
        script = p2wsh(witness_script)
        birth = (await bed.control.tip())[0] + 1
        paid = await bed.control.pay(script, Sat(60_000))
        await bed.control.mine(1)
        spent = spend_anyone(paid, Sat(59_000), witness_script)
        await bed.control.submit(spent)
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        driver = await follow(bed, birth, [Watch(script=script, since_height=BlockHeight(birth))])
        await driver.run_until(height, tip)
        expect_equal(driver.conclusions.found, {(birth, paid.txid), (birth + 1, spent.txid)}, "when first synced")
        await driver.stop()

    async def test_a_watch_right_after_a_restart(self, bed: ChainBed) -> None:
        """Before the first event of the new stream: blocks below its locator are history all the same."""
        witness_script = anyone_script(b"after a restart")
        script = p2wsh(witness_script)
        birth = (await bed.control.tip())[0] + 1
        paid = await bed.control.pay(script, Sat(60_000))
        await bed.control.mine(4)
        height, tip = await bed.control.tip()
        driver = await follow(bed, birth)
        await driver.run_until(height, tip)
        later = await driver.successor(bed.make_source())
        await later.start()
        await later.watch([Watch(script=script, since_height=BlockHeight(birth))])
        await later.run_until_found({(birth, paid.txid)})
        await later.stop()
        again = await follow(bed, birth)
        await again.run_until(height, tip)
        await again.start()
        await again.watch([Watch(script=script, since_height=BlockHeight(birth))])
        await again.run_until_found({(birth, paid.txid)})
        await again.stop()

    async def test_a_spend_is_found_by_outpoint_alone(self, bed: ChainBed) -> None:
        """The script watched beside it is another one: what pays there would be a match by itself."""
        witness_script = anyone_script(b"outpoint")
        paid = await bed.control.pay(p2wsh(witness_script), Sat(60_000))
        await bed.control.mine(1)
        height, tip = await bed.control.tip()
        driver = await follow(bed, height + 1)
        await driver.run_until(height, tip)
        spent = spend_anyone(paid, Sat(59_000), witness_script)
        outpoint = spent.inputs[0].prevout
        await driver.watch(
            [Watch(script=p2wsh(witness_script), outpoint=outpoint, since_height=BlockHeight(height + 1))]
        )
        await bed.control.submit(spent)
        await bed.control.mine(1)
        await driver.run_until_found({(height + 1, spent.txid)})
        await driver.stop()

    async def test_the_same_watch_again_and_from_further_back(self, bed: ChainBed) -> None:
        witness_script = anyone_script(b"again")
        script = p2wsh(witness_script)
        since = (await bed.control.tip())[0] + 1
        paid = await bed.control.pay(script, Sat(60_000))
        await bed.control.mine(3)
        height, tip = await bed.control.tip()
        driver = await follow(bed, since)
        await driver.run_until(height, tip)
        late = Watch(script=script, since_height=BlockHeight(height))
        await driver.watch([late, late])
        await driver.watch([late])
        await driver.watch([Watch(script=script, since_height=BlockHeight(since))])
        await driver.run_until_found({(since, paid.txid)})
        spent = spend_anyone(paid, Sat(59_000), witness_script)
        await bed.control.submit(spent)
        await bed.control.mine(1)
        await driver.run_until_found({(since, paid.txid), (height + 1, spent.txid)})
        await driver.stop()

    async def test_watches_added_while_blocks_arrive(self, bed: ChainBed) -> None:
        """The node does not know which is first, and need not: nothing is lost between the two."""
        height, tip = await bed.control.tip()
        driver = await follow(bed, height)
        await driver.run_until(height, tip)
        wanted: set[tuple[int, Txid]] = set()
        for number in range(6):
            script = p2wsh(anyone_script(b"while %d" % number))
            paid = await bed.control.pay(script, Sat(50_000))
            watch = Watch(script=script, since_height=BlockHeight(height + 1))
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
        witness_scripts = [anyone_script(b"many %d" % number) for number in (0, MANY // 2, MANY - 1)]
        height, tip = await bed.control.tip()
        since = BlockHeight(height + 1)
        watches = [Watch(script=p2wsh(sha256(b"nobody %d" % n)), since_height=since) for n in range(MANY - 3)]
        watches += [Watch(script=p2wsh(script), since_height=since) for script in witness_scripts]
        watches += [
            Watch(script=watch.script, outpoint=OutPoint(Txid(sha256(b"%d" % n)), n), since_height=since)
            for n, watch in enumerate(watches[:100])
        ]
        driver = await follow(bed, height)
        await driver.run_until(height, tip)
        half = len(watches) // 2
        await asyncio.gather(driver.watch(watches[:half]), *(driver.watch([watch]) for watch in watches[half:]))
        paid = [await bed.control.pay(p2wsh(script), Sat(50_000)) for script in witness_scripts]
        await bed.control.mine(1)
        height, _ = await bed.control.tip()
        await driver.run_until_found({(height, tx.txid) for tx in paid})
        await driver.stop()
