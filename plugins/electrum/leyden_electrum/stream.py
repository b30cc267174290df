"""The stream of blocks made of what one server after another says, each word of it checked."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing

import structlog
from leyden.bitcoin import HEADER_LENGTH, Network
from leyden.chain import ChainSourceError
from leyden.chain.checkpoints import newest_checkpoint
from leyden.chain.difficulty import MEDIAN_SPAN, RETARGET_INTERVAL, linked_hashes, start_at
from leyden.chain.errors import HeaderFromFuture
from leyden.crypto import sha256d
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    ChainEvent,
    HistoryFound,
    SourceSynced,
    SourceTip,
    SourceTrouble,
    SourceWarning,
    Watch,
)
from leyden.types import BlockHash, BlockHeight

from leyden_electrum.address import ServerAddress
from leyden_electrum.branches import extend_down, fetch_branch, find_fork
from leyden_electrum.errors import OtherMoment, ServerFault, ServerRefused, ServerUnavailable
from leyden_electrum.headers import HeaderStore
from leyden_electrum.histories import Histories
from leyden_electrum.pool import NoServer, ServerPool
from leyden_electrum.server import HEADERS_AT_ONCE, Server, Tip

log = structlog.get_logger("leyden.electrum")

KEEP_ALIVE_SECONDS = 60.0
FIRST_CONNECT_SECONDS = 5.0
"""How long the start of a node waits to hear that its servers cannot be used as they are configured."""
PATIENCE = 6
"""How often answers may contradict each other, as they do while the server takes in a new block, before that is its
fault."""
SHOWN_PROGRESS = 100
"""Blocks to catch up with from which on that is told beforehand."""

Place = tuple[BlockHeight, BlockHash]


class ChainStream:
    """What ``ElectrumNode`` delivers as a chain source. One ``events()`` at a time."""

    def __init__(self, pool: ServerPool, network: Network) -> None:
        self._pool = pool
        pool.on_fault = self._warn
        self._network = network
        self._histories = Histories()
        self.book = self._histories.book
        self.headers: HeaderStore | None = None
        self.server: Server | None = None
        self._wake = asyncio.Event()
        self._locator: tuple[Place, ...] = ()
        self._birth = BlockHeight(0)
        self._run = 0
        self._goes_back = False
        """``start`` was called, and the stream has not begun again yet."""
        self._next = BlockHeight(0)
        """The first block that is not in the stream yet."""
        self._told_fork: Place | None = None
        """Blocks above this one have to be taken back."""
        self._synced: BlockHash | None = None
        self._strikes = 0
        self._notes: deque[SourceWarning | SourceTrouble] = deque()
        self._trouble = ""
        self._accused: dict[ServerAddress, ServerFault] = {}
        self._stopped = False
        self._connecting: asyncio.Future[Server] | None = None
        self.synced_once = asyncio.Event()

    # -- what the core calls -----------------------------------------------------------------------------------------

    async def start(self, locator: Sequence[Place], birth_height: BlockHeight) -> None:
        """``NoServer`` if none of the servers can ever be used as it is configured."""
        self._run += 1
        self._locator, self._birth = tuple(locator), birth_height
        self._goes_back = True
        if self._run == 1:
            try:
                async with asyncio.timeout(FIRST_CONNECT_SECONDS):
                    self.server = await self._connect()
            except (TimeoutError, ServerUnavailable):
                pass
            except NoServer as error:
                if error.unusable:
                    raise
        self._wake.set()

    def _go_back(self) -> None:
        """To the newest block of the locator that we have; if there is none, the headers are begun anew."""
        self._goes_back = False
        self._synced, self._told_fork = None, None
        headers = self.headers
        place = next((place for place in self._locator if headers.has(*place)), None) if headers is not None else None
        if headers is not None and place is None and not self._locator and self._birth > headers.base:
            self._set_next(self._birth)
        elif place is not None:
            self._told_fork = place if place != self._locator[0] else None
            self._set_next(BlockHeight(place[0] + 1))
        else:
            self.headers = None
            self._set_next(BlockHeight(self._locator[0][0] + 1) if self._locator else self._birth)

    def _set_next(self, height: BlockHeight) -> None:
        """What was found from this block on is looked for again: another branch may have it too."""
        self._next = height
        self._histories.forget_from(height)

    def watch(self, watches: Iterable[Watch]) -> BlockHeight:
        """Noted; asked about before the next block is delivered."""
        self.book.add(watches)
        self._wake.set()
        if self._goes_back:
            return BlockHeight(min(self._next, self._locator[0][0] + 1 if self._locator else self._birth))
        return self._next

    def accuse(self, address: ServerAddress, fault: ServerFault) -> None:
        """Another server has shown that this one lies or lags behind."""
        self._accused[address] = fault
        self._wake.set()

    def _warn(self, address: ServerAddress, reason: str) -> None:
        self._notes.append(SourceWarning(text=f"Electrum server {address} was left: {reason}"))
        self._wake.set()

    async def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        if self._connecting is not None:
            self._connecting.cancel()
        await self._hang_up()

    async def events(self) -> AsyncIterator[ChainEvent]:
        while not self._stopped:
            self._wake.clear()
            run = self._run
            if self._goes_back:
                self._go_back()
            try:
                server = await self._connected()
                async with aclosing(self._advance(server)) as advance:
                    async for event in advance:
                        if run == self._run:
                            yield event
                        if run != self._run:
                            break
                self._strikes = 0
            except OtherMoment as why:
                await self._be_patient(str(why))
            except (ServerFault, ServerUnavailable) as error:
                await self._leave(error)
            except ServerRefused as error:
                await self._leave(error.as_trouble())
            except NoServer as error:
                self._say_trouble(str(error))
                while self._notes:
                    yield self._notes.popleft()
                await self._pause(error.wait)
                continue
            while self._notes:
                yield self._notes.popleft()
            if not self._wake.is_set():
                await self._pause(KEEP_ALIVE_SECONDS, keep_alive=True)
        await self._hang_up()  # a connection that was made while we were stopped

    @property
    def settled(self) -> bool:
        """Everything up to the tip was asked for and delivered."""
        headers, book = self.headers, self.book
        return (
            headers is not None
            and self._synced == headers.tip.hash
            and not (book.fresh or book.doubtful or self._goes_back)
        )

    # -- servers -----------------------------------------------------------------------------------------------------

    async def _connected(self) -> Server:
        server = self.server
        if server is not None and server.address in self._accused:
            raise self._accused.pop(server.address)
        self._accused.clear()
        if server is not None and server.session.ended is not None:
            raise server.session.ended
        if server is None:
            server = self.server = await self._connect()
        if server.tip is None:
            self._histories.ask_all_again()
            await server.follow_tip()
            log.info("electrum_server_used", server=str(server.address), software=server.software)
        return server

    async def _connect(self) -> Server:
        """``stop`` need not wait for it."""
        self._connecting = asyncio.ensure_future(self._pool.connect(self._wake.set))
        try:
            return await self._connecting
        except asyncio.CancelledError:
            if not self._stopped:
                raise
            raise ServerUnavailable("we were stopped") from None
        finally:
            self._connecting = None

    async def _leave(self, error: ServerFault | ServerUnavailable) -> None:
        server = self.server
        await self._hang_up()
        self._strikes = 0
        if server is not None and not self._stopped:
            self._pool.leave(server.address, error)
        self._wake.set()

    async def _hang_up(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.close()

    async def _be_patient(self, why: str) -> None:
        self._strikes += 1
        if self._strikes > PATIENCE:
            await self._leave(ServerFault(why))
            return
        await self._pause(0.05 * 2**self._strikes)
        server = self.server
        if server is not None and server.session.ended is None:
            try:
                await server.follow_tip()
            except (ServerFault, ServerUnavailable):
                pass  # the next round will find that out
            except ServerRefused as error:
                await self._leave(error.as_trouble())
        self._wake.set()

    async def _pause(self, seconds: float, *, keep_alive: bool = False) -> None:
        if self._stopped:
            return
        if not keep_alive:
            self._wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            if keep_alive and self.server is not None:
                await self._ask_for_tip(self.server)

    async def _ask_for_tip(self, server: Server) -> None:
        try:
            await server.follow_tip()
        except (ServerFault, ServerUnavailable) as error:
            await self._leave(error)
        except ServerRefused as error:
            await self._leave(error.as_trouble())

    def _say_trouble(self, reason: str) -> None:
        if reason != self._trouble:
            self._trouble = reason
            self._notes.append(SourceTrouble(reason=reason))

    # -- one round ---------------------------------------------------------------------------------------------------

    async def _advance(self, server: Server) -> AsyncGenerator[ChainEvent, None]:
        """Everything between where we are and the server's tip."""
        tip = server.tip
        if tip is None:
            raise ServerFault("it names no tip")
        try:
            headers = await self._follow_headers(server, tip)
        except HeaderFromFuture as error:
            raise ServerUnavailable(str(error)) from error
        except ChainSourceError as error:
            raise ServerFault(f"its chain is no chain: {error}") from error
        if self._told_fork is not None:
            (height, block_hash), self._told_fork = self._told_fork, None
            yield BlocksDisconnected(fork_height=height, fork_hash=block_hash)
        if headers.height - self._next > SHOWN_PROGRESS:
            yield SourceTip(height=headers.height)
        await self._histories.ask(server, headers)
        for event in await self._take_late(server, headers):
            yield event
        while self._next <= headers.height:
            if self.book.fresh:
                self._wake.set()
                return
            yield self._take_next(headers)
        if self.book.fresh:
            self._wake.set()
            return
        if self.book.doubtful:
            raise OtherMoment("it tells of transactions in blocks above the tip that it names")
        self._pool.proved_good(server.address)
        self._say_trouble("")
        while self._notes:
            yield self._notes.popleft()
        if self._synced != headers.tip.hash:
            self._synced = headers.tip.hash
            self.synced_once.set()
            yield SourceSynced(height=headers.height, block_hash=headers.tip.hash)

    def _take_next(self, headers: HeaderStore) -> BlockConnected:
        height = self._next
        self._next = BlockHeight(height + 1)
        header = headers.header(height)
        return BlockConnected(
            height=height,
            block_hash=BlockHash(sha256d(header)),
            header=header,
            transactions=self._histories.take(height),
            full=False,
        )

    async def _take_late(self, server: Server, headers: HeaderStore) -> list[HistoryFound]:
        """History of blocks that were delivered before; the end of it is told as the tip is."""
        late = self._histories.below(self._next)
        if not late:
            return []
        await extend_down(server, headers, late[0])
        self._synced = None
        return [
            HistoryFound(
                height=BlockHeight(height),
                block_hash=headers.hash(height),
                transactions=self._histories.take(height),
            )
            for height in late
        ]

    # -- headers -----------------------------------------------------------------------------------------------------

    async def _follow_headers(self, server: Server, tip: Tip) -> HeaderStore:
        """Ours are extended to the server's tip, over a fork if its branch has more work."""
        if self.headers is None:
            self.headers = await self._begin(server, tip)
        headers = self.headers
        tip_hash = sha256d(tip.header)
        if headers.tip.hash == tip_hash and headers.height == tip.height:
            return headers
        if headers.has(tip.height, tip_hash):
            raise ServerUnavailable(
                f"it is behind: its chain ends at block {tip.height}, we know {headers.height} already"
            )
        if tip.height > headers.height:
            run = await server.headers(headers.height + 1, min(tip.height - headers.height, HEADERS_AT_ONCE))
            if run[4:36] == headers.tip.hash:
                while run:
                    headers.extend(run, int(time.time()))
                    missing = tip.height - headers.height
                    run = await server.headers(headers.height + 1, min(missing, HEADERS_AT_ONCE)) if missing else b""
                if not headers.has(tip.height, tip_hash):
                    raise OtherMoment(f"its headers do not lead to the tip that it names, block {tip.height}")
                return headers
        await self._reorganise(server, headers, tip)
        return headers

    async def _begin(self, server: Server, tip: Tip) -> HeaderStore:
        """From the newest block of our locator that the server has, else from a block that everybody knows."""
        for height, block_hash in self._locator:
            if height > tip.height or sha256d(await server.header(height)) != block_hash:
                continue
            if height != self._locator[0][0]:
                self._check_ahead(tip)
                self._told_fork = height, block_hash
            self._set_next(BlockHeight(height + 1))
            first = _context_start(height)
            raw = await server.headers(first, height - first + 1)
            linked_hashes(raw, last=block_hash)
            return HeaderStore(self._network, height + 1 - len(raw) // HEADER_LENGTH, raw)
        checkpoint = newest_checkpoint(self._network, max(self._birth - 1, 0))
        if self._locator:
            self._check_ahead(tip)
            self._told_fork = checkpoint.height, checkpoint.hash
            self._set_next(BlockHeight(checkpoint.height + 1))
        if tip.height < checkpoint.height:
            raise ServerUnavailable(f"it is behind: its chain ends at block {tip.height}")
        first = _context_start(checkpoint.height)
        raw = await server.headers(first, checkpoint.height - first + 1)
        start_at(self._network, checkpoint, raw)
        return HeaderStore(self._network, checkpoint.height + 1 - len(raw) // HEADER_LENGTH, raw)

    def _check_ahead(self, tip: Tip) -> None:
        """Our newest block is none of the server's: believable only of a chain that has grown past ours."""
        if tip.height <= self._locator[0][0]:
            raise ServerUnavailable(
                f"it is behind or on a weaker chain: that ends at block {tip.height} and lacks our "
                f"block {self._locator[0][0]}"
            )

    async def _reorganise(self, server: Server, headers: HeaderStore, tip: Tip) -> None:
        fork = await find_fork(server, headers, min(tip.height, headers.height))
        if fork is None:
            self.headers = None
            self._locator = self._places_below(headers)
            raise OtherMoment(f"its chain has nothing in common with ours from block {headers.base} on")
        branch, end = await fetch_branch(server, headers.tip_at(fork), tip)
        if end.work <= headers.work_above(fork):
            raise ServerUnavailable(
                f"it is on a weaker chain: its branch from block {fork} to {end.height} has less work than ours"
            )
        log.info("chain_reorganised", fork_height=fork, tip=end.height, server=str(server.address))
        headers.replace(fork, branch, end)
        self._histories.forget_from(fork + 1)
        if fork < self._next - 1:
            self._told_fork = BlockHeight(fork), headers.hash(fork)
            self._next = BlockHeight(fork + 1)

    def _places_below(self, headers: HeaderStore) -> tuple[Place, ...]:
        """What is left to go back to when none of our headers is the server's: our tip, and older blocks."""
        older = tuple(place for place in self._locator if place[0] < headers.base)
        return ((BlockHeight(self._next - 1), BlockHash(bytes(32))), *older)


def _context_start(height: int) -> int:
    """The first header that is needed to judge those above ``height``: of its period, and enough for a median time."""
    return max(0, height - height % RETARGET_INTERVAL - MEDIAN_SPAN + 1)
