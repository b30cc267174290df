"""The chain of one bitcoind as events in order, whatever happens to it: absent, loading, restarted, reorganised."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing

import structlog
from leyden.bitcoin import Network
from leyden.hooks.errors import PluginError
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    ChainEvent,
    SourceSynced,
    SourceTip,
    SourceTrouble,
)
from leyden.types import BlockHash, BlockHeight, LeydenError

from leyden_bitcoind.backend import Backend, hash_of, look, pruned_message, shown
from leyden_bitcoind.blocks import Blocks, connected
from leyden_bitcoind.client import RpcClient, RpcRefused, RpcUnavailable
from leyden_bitcoind.news import News

log = structlog.get_logger("leyden.bitcoind")

FETCH_AHEAD = 8
"""Blocks asked for in parallel while catching up."""
HASHES_AHEAD = 200
"""Hashes asked for in one request."""
LONG_CATCH_UP = 10
"""Blocks from which on the goal is told first, so that progress can be shown."""
KEPT_PLACES = 200
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
NOT_FOUND = -5
OUT_OF_RANGE = -8

Place = tuple[BlockHeight, BlockHash]


class _Lagging(LeydenError):
    """bitcoind is behind what this node has seen, or still loading: nothing to do but wait."""


class _Moved(Exception):
    """The chain changed, or the core asked for another start, while we read."""


class BlockStream:
    """Follows the best chain. ``on_look`` is told what each look found."""

    def __init__(
        self,
        client: RpcClient,
        blocks: Blocks,
        network: Network,
        news: News,
        *,
        poll_seconds: float,
        on_look: Callable[[Backend], None],
    ) -> None:
        self._client = client
        self._blocks = blocks
        self._network = network
        self._news = news
        self._poll_seconds = poll_seconds
        self._on_look = on_look
        self._places: deque[Place] = deque(maxlen=KEPT_PLACES)
        """The newest blocks that were delivered, and before them those of the locator."""
        self.next_height = BlockHeight(0)
        self._run = 0
        self._stopped = False
        self._told_tip: BlockHeight | None = None
        self._synced_with: BlockHash | None = None

    async def start(self, locator: Sequence[Place], birth_height: BlockHeight) -> None:
        """Go (back) to ``locator``. ``PluginError`` if it can never work: another network, pruned too far, a password
        that is wrong. A bitcoind that is away is waited for by ``events``."""
        self._run += 1
        self._places = deque(reversed(locator), maxlen=max(KEPT_PLACES, len(locator)))
        self.next_height = BlockHeight(locator[0][0] + 1) if locator else birth_height
        self._synced_with = None
        self._blocks.look_for_rest()
        self._news.open()
        self._news.wake()
        try:
            backend = await self._look()
        except RpcUnavailable as error:
            if getattr(error, "final", False):
                raise PluginError(str(error)) from error
            log.warning("bitcoind_unavailable", reason=str(error))
            return
        except RpcRefused as error:
            log.warning("bitcoind_unavailable", reason=str(error))
            return
        if not backend.loading:
            self._check_pruned(backend)

    def stop(self) -> None:
        self._stopped = True
        self._news.close()

    async def events(self) -> AsyncIterator[ChainEvent]:
        failures, trouble = 0, ""
        while not self._stopped:
            run, problem = self._run, ""
            try:
                async with aclosing(self._advance(run)) as advance:
                    async for event in advance:
                        yield event
                failures = 0
            except _Moved:
                continue
            except _Lagging as error:
                problem = str(error)
            except (RpcUnavailable, RpcRefused, PluginError) as error:
                problem, failures = str(error), failures + 1
            if self._is_over():
                return
            if problem != trouble:
                trouble = problem
                log.warning("bitcoind_unavailable", reason=problem) if problem else log.info("bitcoind_available")
                yield SourceTrouble(reason=problem)
            if run == self._run and not self._is_over():
                retry = RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1] if failures else self._poll_seconds
                await self._news.wait(retry)

    def _is_over(self) -> bool:
        return self._stopped

    async def _look(self) -> Backend:
        backend = await look(self._client, self._network)
        self._on_look(backend)
        return backend

    def _still(self, run: int) -> None:
        """The core may ask for another start, or stop, whenever we wait."""
        if run != self._run or self._stopped:
            raise _Moved

    # -- one look ----------------------------------------------------------------------------------------------------

    async def _advance(self, run: int) -> AsyncGenerator[ChainEvent, None]:
        """Everything between where we are and bitcoind's tip. ``_Moved`` when it is to be begun again at once."""
        early = self._from_news()
        if early is not None:
            yield self._deliver(early)
        self._still(run)
        backend = await self._look()
        self._still(run)
        fork = await self._fork(backend)
        self._still(run)
        if fork is not None:
            self._go_back(fork)
            yield BlocksDisconnected(fork_height=fork[0], fork_hash=fork[1])
            self._still(run)
        goal = backend.headers if backend.loading else backend.height
        if goal - self.next_height >= LONG_CATCH_UP and goal != self._told_tip:
            self._told_tip = goal
            yield SourceTip(height=goal)
        if backend.height >= self.next_height:
            self._check_pruned(backend)
            async with aclosing(self._fetched(run, backend.height)) as blocks:
                async for block in blocks:
                    yield block
                    self._still(run)
        if backend.loading:
            raise _Lagging(f"bitcoind is loading blocks: it has {backend.height} of {backend.headers}")
        if self._synced_with != backend.tip:
            self._synced_with = backend.tip
            yield SourceSynced(height=backend.height, block_hash=backend.tip)

    def _from_news(self) -> BlockConnected | None:
        """A block that came by ZMQ right on top of ours needs no look; the one that follows finds what is more."""
        if not self._places or self._places[-1][0] + 1 != self.next_height or self._synced_with != self._places[-1][1]:
            return None
        raw = self._news.child_of(self._places[-1][1])
        return None if raw is None else connected(self.next_height, raw)

    def _deliver(self, block: BlockConnected) -> BlockConnected:
        if not self._places:  # what a reorg of the very first block would go back to
            self._places.append((BlockHeight(block.height - 1), BlockHash(block.header[4:36])))
        self._places.append((block.height, block.block_hash))
        self.next_height = BlockHeight(block.height + 1)
        return block

    def _check_pruned(self, backend: Backend) -> None:
        if self.next_height < backend.prune_height:
            raise PluginError(pruned_message(self.next_height, backend.prune_height))

    # -- reorgs ------------------------------------------------------------------------------------------------------

    async def _fork(self, backend: Backend) -> Place | None:
        """Where our chain leaves bitcoind's, ``None`` if it does not. ``_Lagging`` if bitcoind is merely behind: after
        a crash it may have lost blocks, which is no reason to take anything back."""
        if not self._places or self._places[-1][1] == backend.tip:
            return None
        height = self._places[-1][0]
        if any(place == (backend.height, backend.tip) for place in self._places):
            raise _Lagging(f"bitcoind is at block {backend.height}, behind this node at {height}: it is catching up")
        if backend.height < self._places[0][0]:
            raise _Lagging(f"bitcoind is at block {backend.height}, far behind this node at {height}: it is loading")
        lost: Place | None = None
        for place in reversed(self._places):
            lost = await self._active_ancestor(place[1])
            if lost == self._places[-1]:
                return None
            if lost is not None:
                break
        if lost is None:
            raise _Lagging(
                f"bitcoind's chain contains none of the blocks that this node knows (up to {height}): "
                "is it the right one, or was its data deleted?"
            )
        if lost == (backend.height, backend.tip):
            raise _Lagging(f"bitcoind is at block {backend.height}, behind this node at {height}: it is catching up")
        return lost

    async def _active_ancestor(self, block_hash: BlockHash) -> Place | None:
        """The newest block of bitcoind's best chain in the branch that ends with ``block_hash``; ``None`` if bitcoind
        does not know that one."""
        header = await self._header(block_hash)
        while header is not None:
            height, found, confirmations, previous = header
            if confirmations >= 0:
                return height, found
            header = await self._header(previous)
        return None

    async def _header(self, block_hash: BlockHash) -> tuple[BlockHeight, BlockHash, int, BlockHash] | None:
        """(height, hash, confirmations (-1: not in the best chain), previous hash)."""
        try:
            header = await self._client.call("getblockheader", shown(block_hash))
        except RpcRefused as error:
            if error.code == NOT_FOUND:
                return None
            raise
        previous = hash_of(header["previousblockhash"]) if "previousblockhash" in header else BlockHash(bytes(32))
        return BlockHeight(header["height"]), block_hash, header["confirmations"], previous

    def _go_back(self, fork: Place) -> None:
        while self._places and self._places[-1][0] >= fork[0]:
            self._places.pop()
        self._places.append(fork)
        self.next_height = BlockHeight(fork[0] + 1)
        self._synced_with = None

    # -- blocks ------------------------------------------------------------------------------------------------------

    async def _fetched(self, run: int, last: BlockHeight) -> AsyncGenerator[BlockConnected, None]:
        """Blocks up to ``last`` in order, several asked for ahead. ``_Moved`` if the chain changes meanwhile."""
        fetching: deque[asyncio.Task[bytes]] = deque()
        hashes: deque[BlockHash] = deque()
        asked = int(self.next_height)
        try:
            while asked <= last or fetching:
                while asked <= last and len(fetching) < FETCH_AHEAD:
                    if not hashes:
                        hashes.extend(await self._hashes(range(asked, min(last, asked + HASHES_AHEAD - 1) + 1)))
                    fetching.append(asyncio.ensure_future(self._block(hashes.popleft())))
                    asked += 1
                raw = await fetching.popleft()
                self._still(run)
                if self._places and raw[4:36] != self._places[-1][1]:
                    raise _Moved
                yield self._deliver(connected(self.next_height, raw))
        finally:
            for task in fetching:
                task.cancel()
            await asyncio.gather(*fetching, return_exceptions=True)

    async def _hashes(self, heights: Iterable[int]) -> list[BlockHash]:
        try:
            return [hash_of(found) for found in await self._client.batch("getblockhash", [(h,) for h in heights])]
        except RpcRefused as error:
            if error.code == OUT_OF_RANGE:  # the chain became shorter
                raise _Moved from error
            raise

    async def _block(self, block_hash: BlockHash) -> bytes:
        return self._news.take(block_hash) or await self._blocks.fetch(block_hash)
