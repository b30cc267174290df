"""The regtest chain source, over a real socket and in process, against the conformance suite."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from leyden.bitcoin import merkle_branch
from leyden.crypto import sha256d
from leyden.hooks.types import BlockConnected, BlocksDisconnected, BlockTransaction, ChainEvent, SourceSynced, Watch
from leyden.testing.chain import (
    AbsentBackendSuite,
    BackendSwitch,
    ChainBed,
    ChainSourceSuite,
    Lie,
    LyingBackendSuite,
    SlowBackendSuite,
)
from leyden.testing.chain import driver as driving
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.client import RegtestClient
from leyden_regtest.inprocess import InProcessChain
from leyden_regtest.server import ChainServer
from msgspec.structs import replace

from tests.contract.regtest_bed import DirectControl, SocketControl, server_process


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmbeddedChain]:
    with EmbeddedChain(tmp_path / "chain") as chain:
        yield chain


class TestInProcess(ChainSourceSuite):
    @pytest.fixture
    def bed(self, chain: EmbeddedChain) -> ChainBed:
        return ChainBed(
            make_source=lambda: InProcessChain(chain, FeeRatePerKw(1000)),
            control=DirectControl(chain),
        )


class TestOverSocket(ChainSourceSuite, AbsentBackendSuite):
    @pytest.fixture
    async def bed(self, chain: EmbeddedChain) -> AsyncIterator[ChainBed]:
        with tempfile.TemporaryDirectory() as folder:  # short path, mode 0700
            path = Path(folder) / "chain.sock"
            server = ChainServer(chain, path)
            await server.start()
            power = BackendSwitch(off=server.close, on=server.start)
            yield ChainBed(make_source=lambda: RegtestClient(path), control=DirectControl(chain), power=power)
            await server.close()


class TestServerProcess(AbsentBackendSuite, SlowBackendSuite):
    """The server as a process: killed with SIGKILL, frozen with SIGSTOP."""

    @pytest.fixture
    async def bed(self) -> AsyncIterator[ChainBed]:
        with tempfile.TemporaryDirectory() as folder:
            async with server_process(Path(folder)) as server:
                path = server.socket
                yield ChainBed(
                    make_source=lambda: RegtestClient(path),
                    control=SocketControl(path),
                    power=server.power,
                    freeze=server.freeze,
                )


# -- liars -------------------------------------------------------------------------------------------------------------


class _Liar(InProcessChain):
    """Says something false about each block, in a way that it was told."""

    def __init__(self, chain: EmbeddedChain, lie: Callable[[BlockConnected], BlockConnected]) -> None:
        super().__init__(chain, FeeRatePerKw(1000))
        self._lie = lie

    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            yield self._lie(event) if isinstance(event, BlockConnected) else event


def _without_a_transaction(block: BlockConnected) -> BlockConnected:
    return replace(block, transactions=block.transactions[:-1])


def _with_a_transaction_changed(block: BlockConnected) -> BlockConnected:
    last = block.transactions[-1]
    changed = replace(last, tx=replace(last.tx, locktime=last.tx.locktime + 1))
    return replace(block, transactions=(*block.transactions[:-1], changed))


def _with_a_false_proof(block: BlockConnected) -> BlockConnected:
    """As a server that only proves: a transaction that is not there, with the branch of another."""
    txids = [item.tx.txid for item in block.transactions]
    invented = replace(block.transactions[-1].tx, locktime=7)
    branch = tuple(merkle_branch(txids, len(txids) - 1))
    return replace(block, full=False, transactions=(BlockTransaction(position=0, tx=invented, branch=branch),))


def _without_work(block: BlockConnected) -> BlockConnected:
    """A header that nobody has worked for: the bits of the easiest target are met by every second hash."""
    for nonce in range(1_000):
        header = block.header[:76] + nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(header), "little") >> 255:
            return replace(block, header=header, block_hash=BlockHash(sha256d(header)))
    raise AssertionError("no bad nonce")


def _with_another_hash(block: BlockConnected) -> BlockConnected:
    return replace(block, block_hash=BlockHash(bytes(32)))


def _with_another_height(block: BlockConnected) -> BlockConnected:
    return replace(block, height=BlockHeight(block.height + 1))


LIES = [_without_a_transaction, _with_a_transaction_changed, _with_a_false_proof, _without_work, _with_another_hash]
LIES += [_with_another_height]


class TestLies(LyingBackendSuite):
    """The core sees through them: a source may be nothing but a pipe."""

    @pytest.fixture
    def bed(self, chain: EmbeddedChain) -> ChainBed:
        def lie(how: Callable[[BlockConnected], BlockConnected]) -> Lie:
            return Lie(name=how.__name__, make_source=lambda: _Liar(chain, how))

        return ChainBed(
            make_source=lambda: InProcessChain(chain, FeeRatePerKw(1000)),
            control=DirectControl(chain),
            lies=[lie(how) for how in LIES],
        )


# -- the suite itself --------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (_HidesReorgs, "test_reorg_while_following"),
        (_HidesReorgs, "test_reorg_while_away"),
        (_HidesReorgs, "test_a_reorg_deeper_than_what_counts_as_final"),
        (_HidesReorgs, "test_one_reorg_after_the_other"),
        (_HidesReorgs, "test_a_node_that_dies_and_misses_a_reorg_ends_where_others_do"),
        (_LeavesOut, "test_watched_payment_and_spend_are_delivered_with_position"),
        (_LeavesOut, "test_a_node_that_dies_at_any_point_ends_where_others_do"),
        (_LeavesOut, "test_watch_before_start_is_complete_from_the_first_block"),
        (_LeavesOut, "test_a_spend_is_found_by_outpoint_alone"),
        (_LeavesOut, "test_many_watches"),
        (_LeavesOut, "test_watches_added_while_blocks_arrive"),
        (_ForgetsWatches, "test_a_watch_right_after_a_restart"),
        (_RepeatsItself, "test_reorg_while_away"),
        (_RepeatsItself, "test_locator_resumes_without_repeating"),
        (_NeverSynced, "test_history_comes_in_order_from_the_birth_height"),
        (_LeavesATask, "test_stop_while_busy_leaves_nothing_behind"),
        (_LeavesATask, "test_stop_ends_a_reader_that_waits_and_may_come_twice_or_early"),
        (_NeverEnds, "test_stop_ends_a_reader_that_waits_and_may_come_twice_or_early"),
        (_MixesAnswersUp, "test_cancelled_calls_leave_the_source_in_order"),
        (_OneAtATime, "test_questions_at_the_same_time_get_their_own_answers"),
    ],
)
async def test_the_suite_catches_broken_sources(
    chain: EmbeddedChain, monkeypatch: pytest.MonkeyPatch, broken: type[InProcessChain], test: str
) -> None:
    monkeypatch.setattr(driving, "TIMEOUT", 0.3)
    before = asyncio.all_tasks()
    bed = ChainBed(make_source=lambda: broken(chain, FeeRatePerKw(1000)), control=DirectControl(chain))
    with pytest.raises((AssertionError, TimeoutError)):
        await getattr(ChainSourceSuite(), test)(bed)
    left = asyncio.all_tasks() - before
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def test_the_suite_catches_a_lie_that_nobody_notices(
    chain: EmbeddedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "TIMEOUT", 0.3)
    honest = Lie(name="none", make_source=lambda: InProcessChain(chain, FeeRatePerKw(1000)))
    bed = ChainBed(make_source=honest.make_source, control=DirectControl(chain), lies=[honest])
    with pytest.raises(AssertionError, match="was not noticed"):
        await LyingBackendSuite().test_lies_are_noticed_and_not_believed(bed)
