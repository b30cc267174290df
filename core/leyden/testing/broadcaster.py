"""Conformance suite of broadcasters.

Subclass ``BroadcasterSuite``, supply the fixture ``bed`` (a ``BroadcasterBed``) and run pytest (with pytest-asyncio in
auto mode). Transactions are real: the bed's chain judges them. ``AbsentBroadcasterSuite`` is for beds that can take the
backend away.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from leyden.bitcoin import SEQUENCE_RBF, Transaction, TxIn, TxOut
from leyden.hooks.services import Broadcaster
from leyden.hooks.types import BroadcastKind, BroadcastRefusal, BroadcastResult
from leyden.testing.chain.bed import BackendSwitch, ChainControl, Purse, anyone_script, unchecked_spend
from leyden.testing.expectations import CANCEL_AFTER, cancel, expect, expect_equal, expect_one_line, needed
from leyden.types import OutPoint, Sat, Txid

TIMEOUT = 20.0
VALUE = Sat(100_000)
FEE = 2_000
"""Satoshi: well above what is relayed, for the small transactions of this suite."""


class BroadcasterBed(msgspec.Struct, frozen=True, kw_only=True):
    """``make_broadcaster`` gives one in front of the chain that ``control`` moves."""

    make_broadcaster: Callable[[], Broadcaster]
    control: ChainControl
    says_why: bool = True
    """Whether the backend tells of a refusal at all. Where transactions are only handed on (a folder, a satellite link)
    it does not, and only what leaves and what never raises is looked at."""
    says_kind: bool = False
    """Whether it knows the kind of every refusal of this suite, so that ``OTHER`` is no fair answer."""
    packages: bool = True
    """Whether a child can pay for a parent below the feerate that is relayed."""
    power: BackendSwitch | None = None
    """``AbsentBroadcasterSuite``."""


class _Bench(Purse):
    """One broadcaster and coins to spend, each of a script of its own."""

    def __init__(self, bed: BroadcasterBed, name: str) -> None:
        super().__init__(bed.control, name, FEE)
        self.bed = bed
        self.broadcaster = bed.make_broadcaster()

    async def coin(self) -> Transaction:
        """In a block."""
        paid = await self.pay(VALUE)
        await self.control.mine(1)
        return paid

    async def send(self, *package: Transaction, kind: BroadcastKind = BroadcastKind.WALLET) -> BroadcastResult:
        try:
            async with asyncio.timeout(TIMEOUT):
                result = await self.broadcaster.broadcast(package, kind)
        except TimeoutError:
            raise AssertionError(f"no answer to a broadcast within {TIMEOUT:g} s") from None
        except Exception as error:
            raise AssertionError(f"broadcast raised {error!r}: a refusal is an answer") from error
        expect(isinstance(result, BroadcastResult), f"broadcast answered {result!r}")
        if not result.accepted:
            expect_one_line(result.reason, "the reason of a refusal")
        return result

    async def accepted(self, *package: Transaction, kind: BroadcastKind = BroadcastKind.WALLET) -> None:
        result = await self.send(*package, kind=kind)
        expect(result.accepted, f"refused: {result.reason}")

    async def refused(self, *package: Transaction, because: Sequence[BroadcastRefusal]) -> None:
        """``OTHER`` is a fair answer too, unless the bed ``says_kind``: not every backend tells."""
        result = await self.send(*package)
        if not self.bed.says_why:
            return
        expect(not result.accepted, "accepted, but no miner could take it")
        self.refused_for(result, because)

    def refused_for(self, result: BroadcastResult, because: Sequence[BroadcastRefusal]) -> None:
        kinds = [kind.value for kind in because] + ([] if self.bed.says_kind else [BroadcastRefusal.OTHER.value])
        found = result.refusal.value
        expect(found in kinds, f"refusal {found!r}, expected one of {kinds}: {result.reason}")

    async def confirmed(self, *transactions: Transaction) -> None:
        """They are in the next block: their outputs can be spent past the broadcaster under test."""
        await self.control.mine(1)
        for tx in transactions:
            try:
                await self.submit_spend(tx)
            except Exception as error:
                raise AssertionError(f"{tx.txid[::-1].hex()} was accepted but is not in the next block") from error
        await self.control.mine(1)


class BroadcasterSuite:
    """Subclass and supply the fixture ``bed``."""

    async def test_what_is_accepted_is_in_the_next_block(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "accepted")
        for kind in BroadcastKind:
            tx = bench.spend(await bench.coin())
            await bench.accepted(tx, kind=kind)
            await bench.confirmed(tx)

    async def test_what_is_known_or_confirmed_already_is_accepted(self, bed: BroadcasterBed) -> None:
        """The core repeats a transaction with every block; that must not look like a failure."""
        bench = _Bench(bed, "known")
        tx = bench.spend(await bench.coin())
        await bench.accepted(tx)
        await bench.accepted(tx)
        await bench.control.mine(1)
        await bench.accepted(tx)
        await bench.control.mine(2)
        await bench.accepted(tx)

    async def test_confirmed_and_spent_already(self, bed: BroadcasterBed) -> None:
        """Its outputs are gone again. Accepted is right; a backend without an index of transactions cannot tell it from
        one whose inputs are missing."""
        bench = _Bench(bed, "spent already")
        tx = bench.spend(await bench.coin())
        await bench.accepted(tx)
        await bench.confirmed(tx)
        result = await bench.send(tx)
        if not result.accepted:
            bench.refused_for(result, [BroadcastRefusal.MISSING_INPUTS])

    async def test_an_unconfirmed_chain_sent_one_by_one(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "chain")
        parent = bench.spend(await bench.coin())
        child = bench.spend(parent)
        await bench.accepted(parent)
        await bench.accepted(child)
        await bench.confirmed(child)

    async def test_a_package_of_parent_and_child(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "package")
        parent = bench.spend(await bench.coin())
        child = bench.spend(parent)
        await bench.accepted(parent, child)
        await bench.accepted(parent, child)
        await bench.control.mine(1)
        await bench.accepted(parent, child)
        await bench.confirmed(child)

    async def test_a_package_whose_parent_is_confirmed(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "half known")
        parent = bench.spend(await bench.coin())
        child = bench.spend(parent)
        await bench.accepted(parent)
        await bench.control.mine(1)
        await bench.accepted(parent, child)
        await bench.confirmed(child)

    async def test_a_child_that_pays_for_its_parent(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "pays for its parent")
        # Nodes take a parent without any fee from packages of version 3 only (BIP 431).
        parent = msgspec.structs.replace(bench.spend(await bench.coin(), fee=0), version=3)
        child = msgspec.structs.replace(bench.spend(parent, fee=5_000), version=3)
        if bed.packages:
            await bench.accepted(parent, child)
            await bench.confirmed(child)
        else:
            await bench.send(parent, child)

    async def test_inputs_that_nobody_knows(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "missing")
        txin = TxIn(prevout=OutPoint(Txid(b"\x11" * 32), 0), sequence=SEQUENCE_RBF, witness=(bench.witness_script,))
        output = TxOut(value=Sat(50_000), script=bench.script)
        stray = Transaction(version=2, inputs=(txin,), outputs=(output,), locktime=0)
        await bench.refused(stray, because=[BroadcastRefusal.MISSING_INPUTS])

    async def test_a_conflict_with_a_block(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "spent in a block")
        coin = await bench.coin()
        winner, loser = bench.spend(coin), bench.spend(coin, fee=FEE + 1_000)
        await bench.accepted(winner)
        await bench.control.mine(1)
        await bench.refused(loser, because=[BroadcastRefusal.MISSING_INPUTS, BroadcastRefusal.CONFLICT])

    async def test_a_conflict_that_pays_less_and_one_that_pays_more(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "replacement")
        coin = await bench.coin()
        first, cheaper, dearer = bench.spend(coin), bench.spend(coin, fee=FEE - 500), bench.spend(coin, fee=3 * FEE)
        await bench.accepted(first)
        await bench.refused(cheaper, because=[BroadcastRefusal.CONFLICT, BroadcastRefusal.LOW_FEE])
        await bench.accepted(dearer)
        await bench.confirmed(dearer)

    async def test_too_low_a_fee(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "low fee")
        free = bench.spend(await bench.coin(), fee=0)
        await bench.refused(free, because=[BroadcastRefusal.LOW_FEE])

    async def test_too_early(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "too early")
        coin = await bench.coin()
        immature = unchecked_spend(coin, Sat(VALUE - FEE), bench.witness_script, sequence=50)
        await bench.refused(immature, because=[BroadcastRefusal.TOO_EARLY])
        height, _ = await bench.control.tip()
        good = unchecked_spend(coin, Sat(VALUE - FEE), bench.witness_script)
        later = msgspec.structs.replace(good, locktime=height + 50)
        await bench.refused(later, because=[BroadcastRefusal.TOO_EARLY])

    async def test_what_breaks_the_rules(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "invalid")
        coin = await bench.coin()
        good = unchecked_spend(coin, Sat(VALUE - FEE), bench.witness_script)
        (txin,) = good.inputs
        wrong_script = msgspec.structs.replace(txin, witness=(anyone_script(b"another"),))
        invalid = [BroadcastRefusal.INVALID, BroadcastRefusal.LOW_FEE, BroadcastRefusal.CONFLICT]
        await bench.refused(msgspec.structs.replace(good, inputs=(wrong_script,)), because=invalid)
        await bench.refused(unchecked_spend(coin, Sat(VALUE + 1), bench.witness_script), because=invalid)
        await bench.refused(unchecked_spend(coin, Sat(1), bench.witness_script), because=invalid)
        await bench.refused(msgspec.structs.replace(good, outputs=()), because=invalid)
        await bench.refused(
            msgspec.structs.replace(good, inputs=(txin, txin)), because=[*invalid, BroadcastRefusal.MISSING_INPUTS]
        )
        await bench.accepted(bench.spend(coin))

    async def test_many_at_the_same_time_get_their_own_answers(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "at once")
        coins = [await bench.pay(VALUE) for _ in range(6)]
        await bench.control.mine(1)
        good = [bench.spend(coin) for coin in coins]
        bad = [unchecked_spend(coin, Sat(VALUE + 1), bench.witness_script) for coin in coins]
        results = await asyncio.gather(*(bench.send(tx) for pair in zip(good, bad, strict=True) for tx in pair))
        if bed.says_why:
            expect_equal([result.accepted for result in results], [True, False] * 6, "accepted")
        await bench.confirmed(*good)

    async def test_a_cancelled_broadcast_leaves_it_in_order(self, bed: BroadcasterBed) -> None:
        bench = _Bench(bed, "cancelled")
        for passes in CANCEL_AFTER:
            tx = bench.spend(await bench.coin())
            await cancel(partial(bench.broadcaster.broadcast, [tx], BroadcastKind.WALLET), passes)
            await bench.accepted(tx)
            too_much = unchecked_spend(tx, VALUE, bench.witness_script)
            await bench.refused(too_much, because=[BroadcastRefusal.INVALID, BroadcastRefusal.LOW_FEE])
            await bench.confirmed(tx)


class AbsentBroadcasterSuite:
    """The bed's ``power`` takes the backend away and gives it back."""

    async def test_an_absent_backend_is_a_refusal_in_words(self, bed: BroadcasterBed) -> None:
        power = needed(bed.power, "power", bed)
        bench = _Bench(bed, "absent")
        tx, second = bench.spend(await bench.coin()), bench.spend(await bench.coin())
        await bench.accepted(tx)
        await bench.control.mine(1)
        await power.off()
        result = await bench.send(second)
        expect(not result.accepted, "an absent backend accepted a transaction")
        bench.refused_for(result, [BroadcastRefusal.UNAVAILABLE])
        await power.on()
        await bench.accepted(second)
        await bench.confirmed(second)
