"""Runs a chain source as a node does, and keeps what a node would have concluded."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec

from leyden.bitcoin import Network
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
    ChainEvent,
    HistoryFound,
    SourceSynced,
    SourceTip,
    SourceTrouble,
    SourceWarning,
    Watch,
)
from leyden.testing.chain.bed import ChainControl
from leyden.testing.expectations import expect
from leyden.types import BlockHash, BlockHeight, LeydenError, Txid

TIMEOUT = 20.0
"""Seconds after which a silent source has failed."""
MAX_RESTARTS = 10
Found = frozenset[tuple[int, Txid]]


@asynccontextmanager
async def in_time(what: str) -> AsyncIterator[None]:
    """``AssertionError`` that says ``what`` if it is not done within ``TIMEOUT``."""
    try:
        async with asyncio.timeout(TIMEOUT):
            yield
    except TimeoutError:
        raise AssertionError(f"within {TIMEOUT:g} s {what}") from None


class Conclusions(msgspec.Struct, frozen=True, kw_only=True):
    """What a node believes: the blocks it has connected, and the watched transactions in them, by height."""

    blocks: dict[int, BlockHash] = {}
    found: Found = frozenset()


class ChainDriver:
    """Runs a source through a follower as the core does, and keeps what came out.

    ``tolerant``: a fault of the source is kept in ``faults`` instead of failing the test.
    """

    def __init__(self, source: ChainSource, birth_height: int, *, tolerant: bool = False) -> None:
        self.source = source
        self.birth_height = BlockHeight(birth_height)
        self.follower: ChainFollower = load((), b"", Network.REGTEST, self.birth_height)
        self.outputs: list[FollowerOutput] = []
        self.restarts = 0
        self.notices: list[SourceTip | SourceTrouble | SourceWarning] = []
        self.faults: list[str] = []
        self.events_taken = 0
        self.delivered: list[int] = []
        """Heights of the blocks that the source sent, whatever the follower made of them."""
        self.conclusions = Conclusions()
        self.watched: list[Watch] = []
        self._tolerant = tolerant
        self._events: AsyncIterator[ChainEvent] | None = None

    async def start(self) -> None:
        """Start the source where the node is; before it is told again of everything that is watched."""
        async with asyncio.timeout(TIMEOUT):
            if self.watched:
                await self.source.watch(tuple(self.watched))
            await self.source.start(self.follower.locator, self.birth_height)
        if self._events is None:
            self._events = aiter(self.source.events())

    # -- taking events -----------------------------------------------------------------------------------------------

    async def take_event(self) -> ChainEvent:
        """The next event, absorbed; ``TimeoutError`` if none comes."""
        if self._events is None:
            raise LeydenError("start first")
        async with asyncio.timeout(TIMEOUT):
            event = await anext(self._events)
            await asyncio.sleep(0)  # a source that never suspends must not outrun the timeout
            self.events_taken += 1
            if isinstance(event, SourceTip | SourceTrouble | SourceWarning):
                self.notices.append(event)
            else:
                known = isinstance(event, BlockConnected | BlocksDisconnected | HistoryFound | SourceSynced)
                expect(known, f"no chain event: {event!r}")
                if isinstance(event, BlockConnected):
                    self.delivered.append(event.height)
                await self.take(event)
        return event

    async def run_until(self, height: int, block_hash: bytes) -> None:
        """Take events until the source says that it is synced with this tip; ``AssertionError`` if it never does."""
        await self._run(lambda event: self._synced_at(event, height, block_hash), f"synced at {height}")

    async def reach_tip(self, control: ChainControl) -> BlockHeight:
        """``run_until`` the tip that the chain behind the source has now; its height."""
        height, tip = await control.tip()
        await self.run_until(height, tip)
        return height

    async def run_until_found(self, wanted: Iterable[tuple[int, Txid]]) -> None:
        """Take events until the node knows of exactly these transactions, at these heights; ``AssertionError`` if it
        never does, or once the source has nothing more to say."""
        target = frozenset(wanted)
        if self.conclusions.found != target:
            await self._run(lambda _: self.conclusions.found == target, f"found {_shown(target)}")

    async def run_until_synced(self) -> None:
        """Take events until the source says that it is synced, wherever."""
        await self._run(lambda event: isinstance(event, SourceSynced) and self.follower.synced, "synced")

    async def _run(self, done: Callable[[ChainEvent], bool], goal: str) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                while not done(await self.take_event()):
                    pass
        except TimeoutError:
            raise AssertionError(
                f"within {TIMEOUT:g} s the source did not bring the node so far: {goal}; {self}"
            ) from None
        except StopAsyncIteration:
            raise AssertionError(f"the events ended before the source was stopped: {goal}; {self}") from None

    def _synced_at(self, event: ChainEvent, height: int, block_hash: bytes) -> bool:
        if not isinstance(event, SourceSynced) or event.block_hash != block_hash or not self.follower.synced:
            return False
        if self.follower.best_hash not in (block_hash, None):
            return False
        expect(self.follower.height in (height, self.birth_height - 1), "synced at another height")
        return True

    async def take(self, happened: FollowerInput) -> None:
        """Give one input to the follower and do what it asks for."""
        self.follower, outputs = step(self.follower, happened)
        for output in outputs:
            if isinstance(output, SourceFault):
                self.faults.append(output.reason)
                expect(self._tolerant, f"the source is at fault: {output.reason}")
            self.outputs.append(output)
            self._conclude(output)
            if isinstance(output, FetchBlock):
                await self.take(BlockFetched(block=await self.source.get_block(output.block_hash)))
            elif isinstance(output, RestartSource):
                self.restarts += 1
                if self._tolerant and self.restarts > MAX_RESTARTS:
                    self.faults.append(output.reason)
                    continue
                expect(self.restarts <= MAX_RESTARTS, f"the source never closes its gap: {output.reason}")
                await self.start()

    def _conclude(self, output: FollowerOutput) -> None:
        held = self.conclusions
        match output:
            case BlockConnected(height=height, block_hash=block_hash):
                found = held.found | _places(height, output.transactions)
                self.conclusions = Conclusions(blocks=held.blocks | {height: block_hash}, found=found)
            case BlockRescanned(height=height):
                found = held.found | _places(height, output.transactions)
                self.conclusions = Conclusions(blocks=held.blocks, found=found)
            case BlocksDisconnected(fork_height=fork):
                self.conclusions = Conclusions(
                    blocks={height: h for height, h in held.blocks.items() if height <= fork},
                    found=frozenset(place for place in held.found if place[0] <= fork),
                )

    # -- watching ----------------------------------------------------------------------------------------------------

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        """Watch, as the core does; ``active_from``. A source without full blocks then delivers history in its own time:
        go on with ``run_until_found``."""
        async with asyncio.timeout(TIMEOUT):
            active_from = await self.source.watch(watches)
        expect(isinstance(active_from, int), f"watch answered {active_from!r}, not a height")
        self.watched.extend(watches)
        looks_again_itself = not self.source.info.full_blocks
        asked_from = BlockHeight(0) if looks_again_itself else active_from
        await self.take(WatchesAdded(watches=tuple(watches), active_from=asked_from))
        return active_from

    # -- ends --------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop the source; its events must end."""
        async with in_time("the source did not stop, or its events did not end"):
            await self.source.stop()
            if self._events is not None:
                async for _ in self._events:
                    pass

    async def successor(self, source: ChainSource) -> "ChainDriver":
        """The next life of this node on a new ``source``, not started yet. This one ends: what it had stored is left,
        and what it watched is watched again from the block on that it stood at."""
        await self.stop()
        later = ChainDriver(source, self.birth_height)
        later.follower = ChainFollower(chain=self.follower.chain)
        later.conclusions = self.conclusions
        since = max(self.follower.height, self.birth_height)
        again = [msgspec.structs.replace(w, since_height=BlockHeight(max(since, w.since_height))) for w in self.watched]
        if again:
            await later.watch(again)
        return later

    # -- looking -----------------------------------------------------------------------------------------------------

    def connected(self) -> list[int]:
        """Heights of the blocks that were connected, in order; one may be there twice after a reorg."""
        return [output.height for output in self.outputs if isinstance(output, BlockConnected)]

    def transactions(self) -> list[tuple[int, BlockTransaction]]:
        """(height, transaction) of everything matched, when connected or looked at again."""
        kinds = BlockConnected | BlockRescanned
        return [(o.height, found) for o in self.outputs if isinstance(o, kinds) for found in o.transactions]

    def __str__(self) -> str:
        said = "; ".join(str(notice) for notice in self.notices[-3:])
        return (
            f"it stands at {self.follower.height} after {self.events_taken} events, {self.restarts} restarts, "
            f"found {_shown(self.conclusions.found)}" + (f", the source said {said}" if said else "")
        )


def _places(height: int, transactions: Iterable[BlockTransaction]) -> Found:
    return frozenset((height, item.tx.txid) for item in transactions)


def _shown(found: Found) -> str:
    return ", ".join(f"{txid[::-1].hex()[:12]}… in {height}" for height, txid in sorted(found)) or "nothing"
