"""The kit of chain sources bites: each of its tests fails, for its own reason, on a source that is wrong there."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from leyden.bitcoin import merkle_branch
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    ChainEvent,
    SourceInfo,
    SourceSynced,
    UtxoAnswer,
    UtxoSpent,
    UtxoUnknown,
    Watch,
)
from leyden.testing.chain import (
    AbsentBackendSuite,
    BackendSwitch,
    ChainBed,
    ChainSourceSuite,
    Lie,
    LyingBackendSuite,
    SlowBackendSuite,
    WrongNetworkSuite,
    lifecycle,
)
from leyden.testing.chain import driver as driving
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, LeydenError, OutPoint
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.inprocess import InProcessChain
from msgspec.structs import replace

from tests.contract.regtest_bed import DirectControl

FEERATE = FeeRatePerKw(1000)
SHORT = 0.3
"""Seconds to wait where a source falls silent. What is said when the time is over does not depend on what took it."""
SILENT = f"within {SHORT:g} s "
GAP = "the source never closes its gap"
LEFT = "stop left tasks behind"


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedChain]:
    monkeypatch.setattr(driving, "TIMEOUT", driving.TIMEOUT)  # remembered: some tests make it short
    monkeypatch.setattr(lifecycle, "ENDING", SHORT)
    with EmbeddedChain(tmp_path / "chain") as chain:
        yield chain


class _HidesReorgs(InProcessChain):
    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            if not isinstance(event, BlocksDisconnected):
                yield event


class _LeavesOut(InProcessChain):
    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            if isinstance(event, BlockConnected):
                event = replace(event, full=False, transactions=event.transactions[:1])
            yield event


class _ForgetsWatches(InProcessChain):
    """Says that the stream was complete all along: nothing is looked at again."""

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        return BlockHeight(0)


class _RepeatsItself(InProcessChain):
    """Starts from the birth height whatever the locator says."""

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        await super().start((), birth_height)


class _NeverSynced(InProcessChain):
    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            if not isinstance(event, SourceSynced):
                yield event


class _LeavesATask(InProcessChain):
    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        await super().start(locator, birth_height)
        self.task = asyncio.ensure_future(asyncio.sleep(3600))


class _NeverEnds(InProcessChain):
    async def stop(self) -> None:
        pass


class _MixesAnswersUp(InProcessChain):
    """Questions wait in one line; whoever gives up leaves its answer to the next."""

    left: BlockHash | None = None

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        asked, self.left = self.left or block_hash, block_hash
        await asyncio.sleep(0)
        self.left = None
        return await super().get_block(asked)


class _OneAtATime(InProcessChain):
    """Two questions at the same time get the answer of the later one."""

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        self.asked = block_hash
        await asyncio.sleep(0)
        return await super().get_block(self.asked)


class _ComesEarly(InProcessChain):
    """Does not wait for the birth height."""

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        await super().start(locator, BlockHeight(min(birth_height, self._chain.height)))


class _StartsOnce(InProcessChain):
    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        if self._cursor is None:
            await super().start(locator, birth_height)


class _SkipsABlock(InProcessChain):
    """Whenever it is started again."""

    starts = 0

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        self.starts += 1
        await super().start(locator, birth_height)

    async def events(self) -> AsyncIterator[ChainEvent]:
        skipped = 1
        async for event in super().events():
            if isinstance(event, BlockConnected) and skipped < self.starts:
                skipped = self.starts
                continue
            yield event


class _CallsTheSpentUnknown(InProcessChain):
    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        answer = await super().find_utxo(outpoint)
        return UtxoUnknown() if isinstance(answer, UtxoSpent) else answer


class _MakesBlocksUp(InProcessChain):
    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        known = any(block_hash == self._chain.hash_at(height) for height in range(self._chain.height + 1))
        return await super().get_block(block_hash if known else self._chain.tip_hash)


class _SeesPaymentsOnly(InProcessChain):
    """Matches transactions by what they pay, not by what they spend, and looks at no block again."""

    scripts: frozenset[bytes] = frozenset()

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(name="payments", full_blocks=False, proofs=True)

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        self.scripts |= {watch.script for watch in watches}
        return await super().watch(watches)

    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            if isinstance(event, BlockConnected):
                txids = [item.tx.txid for item in event.transactions]
                found = tuple(
                    replace(item, branch=tuple(merkle_branch(txids, item.position)))
                    for item in event.transactions
                    if any(output.script in self.scripts for output in item.tx.outputs)
                )
                event = replace(event, full=False, transactions=found)
            yield event


class _Remote(InProcessChain):
    """Its backend can be taken away, and is right otherwise."""

    def __init__(self, chain: EmbeddedChain, feerate_per_kw: FeeRatePerKw, power: asyncio.Event) -> None:
        super().__init__(chain, feerate_per_kw)
        self.power = power

    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            while not (self.power.is_set() or self._stopped):
                await asyncio.sleep(0.001)
            yield event

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        await self.power.wait()
        return await super().find_utxo(outpoint)


class _NeedsNoBackend(_Remote):
    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in InProcessChain.events(self):
            yield event


class _GuessesWhileAlone(_Remote):
    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        return await super().find_utxo(outpoint) if self.power.is_set() else UtxoSpent()


class _WaitsToStop(_Remote):
    async def stop(self) -> None:
        await self.power.wait()
        await super().stop()


class _LeavesATaskAlone(_Remote):
    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        await super().start(locator, birth_height)
        self.task = asyncio.ensure_future(asyncio.sleep(3600))


class _AnswersTheLastQuestion(_Remote):
    """Whoever gave up while it was slow leaves the answer to the next."""

    left: OutPoint | None = None

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        asked, self.left = self.left or outpoint, outpoint
        await self.power.wait()
        self.left = None
        return await InProcessChain.find_utxo(self, asked)


BROKEN: list[tuple[type[InProcessChain], str, str]] = [
    (_NeverSynced, "test_history_comes_in_order_from_the_birth_height", SILENT),
    (_ComesEarly, "test_birth_in_the_future_waits", GAP),
    (_RepeatsItself, "test_locator_resumes_without_repeating", "blocks that were sent"),
    (_HidesReorgs, "test_reorg_while_following", GAP),
    (_HidesReorgs, "test_reorg_while_away", GAP),
    (_RepeatsItself, "test_reorg_while_away", GAP),
    (_StartsOnce, "test_starting_again_from_an_old_place_is_harmless", SILENT),
    (_CallsTheSpentUnknown, "test_block_and_utxo_lookup", "a spent output was not said to be spent"),
    (_MakesBlocksUp, "test_unknown_block_is_an_error", "get_block of an unknown block is no error"),
    (_HidesReorgs, "test_a_reorg_deeper_than_what_counts_as_final", GAP),
    (_HidesReorgs, "test_one_reorg_after_the_other", GAP),
    (_LeavesOut, "test_watched_payment_and_spend_are_delivered_with_position", SILENT),
    (_SeesPaymentsOnly, "test_watch_for_an_output_that_is_already_spent", SILENT),
    (_LeavesOut, "test_watch_before_start_is_complete_from_the_first_block", "when first synced: got frozenset()"),
    (_ForgetsWatches, "test_a_watch_right_after_a_restart", SILENT),
    (_LeavesOut, "test_a_spend_is_found_by_outpoint_alone", SILENT),
    (_SeesPaymentsOnly, "test_a_spend_is_found_by_outpoint_alone", SILENT),
    (_SeesPaymentsOnly, "test_the_same_watch_again_and_from_further_back", SILENT),
    (_LeavesOut, "test_watches_added_while_blocks_arrive", SILENT),
    (_LeavesOut, "test_many_watches", SILENT),
    (_LeavesOut, "test_a_node_that_dies_at_any_point_ends_where_others_do", "transactions of the story: got 0"),
    (_HidesReorgs, "test_a_node_that_dies_and_misses_a_reorg_ends_where_others_do", GAP),
    (_SkipsABlock, "test_start_twice", GAP),
    (_MixesAnswersUp, "test_cancelled_calls_leave_the_source_in_order", "the block asked for"),
    (_OneAtATime, "test_questions_at_the_same_time_get_their_own_answers", "blocks asked for at the same time"),
    (_LeavesATask, "test_stop_while_busy_leaves_nothing_behind", LEFT),
    (_LeavesATask, "test_stop_ends_a_reader_that_waits_and_may_come_twice_or_early", LEFT),
    (_NeverEnds, "test_stop_ends_a_reader_that_waits_and_may_come_twice_or_early", SILENT),
]
ABSENT, SLOW = AbsentBackendSuite, SlowBackendSuite
ALONE: list[tuple[type[object], type[_Remote], str, str]] = [
    (ABSENT, _NeedsNoBackend, "test_a_backend_that_is_absent_at_start_is_waited_for", "it read blocks"),
    (ABSENT, _GuessesWhileAlone, "test_a_backend_that_goes_away_and_comes_back", "an absent backend found"),
    (ABSENT, _LeavesATaskAlone, "test_stop_without_a_backend", LEFT),
    (SLOW, _AnswersTheLastQuestion, "test_a_caller_may_give_up_on_a_slow_backend", "taken for another"),
    (SLOW, _WaitsToStop, "test_stop_while_the_backend_is_slow", SILENT),
]


async def catch(work: Awaitable[None], says: str) -> None:
    """It must fail and say why; what the broken source leaves behind is tidied up."""
    before = asyncio.all_tasks()
    if says == SILENT:
        driving.TIMEOUT = SHORT
    with pytest.raises(AssertionError) as caught:
        await work
    left = asyncio.all_tasks() - before
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert says in str(caught.value)


@pytest.mark.parametrize(("broken", "test", "says"), BROKEN)
async def test_the_suite_catches_broken_sources(
    chain: EmbeddedChain, broken: type[InProcessChain], test: str, says: str
) -> None:
    bed = ChainBed(make_source=lambda: broken(chain, FEERATE), control=DirectControl(chain))
    await catch(getattr(ChainSourceSuite(), test)(bed), says)


def switched(chain: EmbeddedChain, made: Callable[..., _Remote]) -> ChainBed:
    power = asyncio.Event()
    power.set()

    async def off() -> None:
        power.clear()

    async def on() -> None:
        power.set()

    switch = BackendSwitch(off=off, on=on)
    control = DirectControl(chain)
    return ChainBed(make_source=lambda: made(chain, FEERATE, power), control=control, power=switch, freeze=switch)


@pytest.mark.parametrize(("suite", "broken", "test", "says"), ALONE)
async def test_the_suites_of_absent_and_slow_backends_catch_broken_sources(
    chain: EmbeddedChain, suite: type[object], broken: type[_Remote], test: str, says: str
) -> None:
    await catch(getattr(suite(), test)(switched(chain, broken)), says)


async def test_the_suite_catches_a_lie_that_nobody_notices(chain: EmbeddedChain) -> None:
    def honest() -> InProcessChain:
        driving.TIMEOUT = SHORT
        return InProcessChain(chain, FEERATE)

    lie = Lie(name="none", make_source=honest)
    bed = ChainBed(make_source=lambda: InProcessChain(chain, FEERATE), control=DirectControl(chain), lies=[lie])
    await catch(LyingBackendSuite().test_lies_are_noticed_and_not_believed(bed), "was not noticed")


async def test_the_suite_catches_a_source_that_does_not_ask_for_the_network(chain: EmbeddedChain) -> None:
    def anything() -> InProcessChain:
        return InProcessChain(chain, FEERATE)

    bed = ChainBed(make_source=anything, control=DirectControl(chain), make_stranger=anything)
    await catch(WrongNetworkSuite().test_another_network_is_refused(bed), SILENT)


async def test_a_bed_that_lacks_something_is_told_so(chain: EmbeddedChain) -> None:
    bed = ChainBed(make_source=lambda: InProcessChain(chain, FEERATE), control=DirectControl(chain))
    with pytest.raises(LeydenError, match="this suite needs `power` in the ChainBed"):
        await AbsentBackendSuite().test_stop_without_a_backend(bed)


def test_every_test_of_the_kit_has_a_source_that_it_catches() -> None:
    suites = (ChainSourceSuite, ABSENT, SLOW)
    tests = {name for suite in suites for name in dir(suite) if name.startswith("test_")}
    assert {test for _, test, _ in BROKEN} | {test for _, _, test, _ in ALONE} == tests
