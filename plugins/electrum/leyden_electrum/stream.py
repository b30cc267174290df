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
from leyden.chain.difficulty import MEDIAN_SPAN, RETARGET_INTERVAL, HeaderTip, linked_hashes, start_at
from leyden.chain.errors import HeaderFromFuture
from leyden.crypto import sha256d
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
from leyden.types import BlockHash, BlockHeight, Txid

from leyden_electrum.address import ServerAddress
from leyden_electrum.errors import ServerFault, ServerRefused, ServerUnavailable
from leyden_electrum.headers import HeaderStore
from leyden_electrum.pool import NoServer, ServerPool
from leyden_electrum.proofs import proof_mistake, proved
from leyden_electrum.scripts import ScriptBook, WatchedScript
from leyden_electrum.server import HEADERS_AT_ONCE, Confirmed, History, Server, Tip, script_hash

log = structlog.get_logger("leyden.electrum")

KEEP_ALIVE_SECONDS = 60.0
FIRST_CONNECT_SECONDS = 5.0
"""How long the start of a node waits to hear that its servers cannot be used as they are configured."""
ASKED_PER_BLOCK = 200
"""Scripts whose status is asked for again at a new tip, besides those that the server speaks of: it need not have told
everything yet. The others follow in turn, and what is found late is delivered late."""
FETCHED_AT_ONCE = 500
"""Transactions that are held in memory while their proofs are checked."""
PATIENCE = 6
"""How often answers may contradict each other, as they do while the server takes in a new block, before that is its
fault."""
SHOWN_PROGRESS = 100
"""Blocks to catch up with from which on that is told beforehand."""

Place = tuple[BlockHeight, BlockHash]


class OtherMoment(Exception):
    """The server's answers are not of one moment: ask again, and not for ever."""


class ChainStream:
    """What ``ElectrumNode`` delivers as a chain source. One ``events()`` at a time."""

    def __init__(self, pool: ServerPool, network: Network) -> None:
        self._pool = pool
        pool.on_fault = self._warn
        self._network = network
        self.book = ScriptBook()
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
        self._found: dict[int, dict[Txid, BlockTransaction]] = {}
        """Verified transactions of blocks that are not in the stream yet."""
        self._late: dict[int, dict[Txid, BlockTransaction]] = {}
        """Verified transactions of blocks that are."""
        self._synced: BlockHash | None = None
        self._asked_at: BlockHash | None = None
        self._strikes = 0
        self._notes: deque[SourceWarning | SourceTrouble] = deque()
        self._trouble = ""
        self._accused: dict[ServerAddress, ServerFault] = {}
        self._stopped = False
        self._extending = asyncio.Lock()
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
        self._found, self._late = {}, {}
        self.book.forget_from(height)

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
            self.book.ask_all_again()
            self._asked_at = None
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
        await self._ask(server, headers)
        for event in self._take_late(headers):
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
            transactions=_in_order(self._found.pop(height, {})),
            full=False,
        )

    def _take_late(self, headers: HeaderStore) -> list[HistoryFound]:
        """History of blocks that were delivered before; the end of it is told as the tip is."""
        late, self._late = self._late, {}
        if late:
            self._synced = None
        return [
            HistoryFound(
                height=BlockHeight(height), block_hash=headers.hash(height), transactions=_in_order(late[height])
            )
            for height in sorted(late)
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
        fork = await self.find_fork(server, headers, min(tip.height, headers.height))
        if fork is None:
            self.headers = None
            self._locator = self._places_below(headers)
            raise OtherMoment(f"its chain has nothing in common with ours from block {headers.base} on")
        branch, end = await self.fetch_branch(server, headers.tip_at(fork), tip)
        if end.work <= headers.work_above(fork):
            raise ServerUnavailable(
                f"it is on a weaker chain: its branch from block {fork} to {end.height} has less work than ours"
            )
        log.info("chain_reorganised", fork_height=fork, tip=end.height, server=str(server.address))
        headers.replace(fork, branch, end)
        self._found = {height: found for height, found in self._found.items() if height <= fork}
        self._late = {height: found for height, found in self._late.items() if height <= fork}
        self.book.forget_from(fork + 1)
        if fork < self._next - 1:
            self._told_fork = BlockHeight(fork), headers.hash(fork)
            self._next = BlockHeight(fork + 1)

    def _places_below(self, headers: HeaderStore) -> tuple[Place, ...]:
        """What is left to go back to when none of our headers is the server's: our tip, and older blocks."""
        older = tuple(place for place in self._locator if place[0] < headers.base)
        return ((BlockHeight(self._next - 1), BlockHash(bytes(32))), *older)

    async def find_fork(self, server: Server, headers: HeaderStore, high: int) -> int | None:
        """The newest block that both chains have."""
        step = 16
        while high >= headers.base:
            low = max(headers.base, high - step + 1)
            theirs = await server.headers(low, high - low + 1)
            for height in range(low + len(theirs) // HEADER_LENGTH - 1, low - 1, -1):
                at = (height - low) * HEADER_LENGTH
                if theirs[at : at + HEADER_LENGTH] == headers.header(height):
                    return height
            high, step = low - 1, min(step * 4, HEADERS_AT_ONCE)
        return None

    async def fetch_branch(self, server: Server, fork: HeaderTip, tip: Tip) -> tuple[bytes, HeaderTip]:
        """The server's headers above ``fork``, checked."""
        end, parts = fork, bytearray()
        while end.height < tip.height:
            run = await server.headers(end.height + 1, min(tip.height - end.height, HEADERS_AT_ONCE))
            if not run:
                break
            end, _ = end.extended(run, now=int(time.time()))
            parts += run
        if end.hash != sha256d(tip.header):
            raise OtherMoment(f"its headers do not lead to the tip that it names, block {tip.height}")
        return bytes(parts), end

    async def extend_down(self, server: Server, headers: HeaderStore, height: int) -> None:
        """Headers from ``height`` on: a watch looks for something older than where we began."""
        async with self._extending:
            while headers.base > height:
                first = max(height, headers.base - HEADERS_AT_ONCE, 0)
                try:
                    headers.extend_down(await server.headers(first, headers.base - first))
                except ChainSourceError as error:
                    raise ServerFault(f"its older headers do not lead to block {headers.base}: {error}") from error

    # -- histories ---------------------------------------------------------------------------------------------------

    async def _ask(self, server: Server, headers: HeaderStore) -> None:
        """Bring what we know of every script to this tip. Those whose history reaches above it stay doubtful."""
        book = self.book
        asked = dict(book.fresh)
        asked.update(book.doubtful)
        if self._asked_at != headers.tip.hash:
            asked.update(dict.fromkeys(book.next_turn(ASKED_PER_BLOCK)))
        touched, server.touched = server.touched, {}
        asked.update(dict.fromkeys(key for key in touched if key in book))
        spent, server.spent = server.spent, set()
        if spent:
            asked.update((script_hash(found.script), None) for found in book.values() if spent & {*found.outputs})
        if not asked:
            return
        keys = list(asked)
        fresh = [key for key in keys if key in book.fresh]
        scripts = [book[key] for key in keys]
        again = {key: book[key].again_from for key in fresh}
        statuses = await server.follow_scripts([found.script for found in scripts])
        changed = []
        for key, found, status in zip(keys, scripts, statuses, strict=True):
            if key in book.doubtful or found.again_from is not None or found.status != status:
                changed.append((key, found, status))
        ahead = await self._read_histories(server, headers, [one for one in changed if one[2] or one[1].known])
        for key in keys:
            book.doubtful.pop(key, None)
            if key in again and book[key].again_from == again[key]:
                book.fresh.pop(key, None)
                book[key].again_from = None
        for key, found, status in changed:
            if key not in ahead:
                found.status = status
        await self._ask_spenders(server, headers, [book[key] for key in fresh])
        for key in ahead:
            book.doubtful[key] = None
        self._asked_at = headers.tip.hash

    async def _read_histories(
        self, server: Server, headers: HeaderStore, changed: Sequence[tuple[bytes, WatchedScript, str | None]]
    ) -> set[bytes]:
        """Fetch and verify what is new; the keys of those that reach above our headers."""
        histories = await server.histories([found.script for _, found, _ in changed])
        ahead: set[bytes] = set()
        wanted: dict[Confirmed, list[WatchedScript]] = {}
        for (key, found, status), history in zip(changed, histories, strict=True):
            if history.status != status:
                raise OtherMoment("the history that it tells of a script is not the one whose status it told")
            if any(entry.height > headers.height for entry in history.confirmed):
                ahead.add(key)
            await self._check_complete(server, headers, found, history)
            known = found.known or {}
            again_from = found.again_from if found.again_from is not None else headers.height + 1
            for entry in history.confirmed:
                due = found.since <= entry.height <= headers.height
                if due and (known.get(entry.txid) != entry.height or entry.height >= again_from):
                    wanted.setdefault(entry, []).append(found)
        await self._fetch(server, headers, wanted)
        return ahead

    async def _fetch(self, server: Server, headers: HeaderStore, wanted: dict[Confirmed, list[WatchedScript]]) -> None:
        """Transactions and proofs of ``wanted``; what is proved is put where it is delivered from."""
        if wanted:
            await self.extend_down(server, headers, min(entry.height for entry in wanted))
        entries = list(wanted)
        for at in range(0, len(entries), FETCHED_AT_ONCE):
            part = entries[at : at + FETCHED_AT_ONCE]
            proofs, transactions = await asyncio.gather(
                server.proofs(part), server.transactions([entry.txid for entry in part])
            )
            for entry, proof, tx in zip(part, proofs, transactions, strict=True):
                shown = entry.txid[::-1].hex()
                if isinstance(proof, ServerRefused) or isinstance(tx, ServerRefused):
                    raise OtherMoment(
                        f"it does not prove transaction {shown}, of which it says that it is in block {entry.height}"
                    )
                mistake = proof_mistake(tx, proof, headers.merkle_root(entry.height))
                if mistake:
                    await self.check_same_chain(server, headers, entry.height)
                    raise ServerFault(f"transaction {shown} is not in block {entry.height} as it says: {mistake}")
                place = self._found if entry.height >= self._next else self._late
                place.setdefault(entry.height, {})[entry.txid] = proved(tx, proof)
                for found in wanted[entry]:
                    found.note(entry.txid, entry.height)

    async def _check_complete(
        self, server: Server, headers: HeaderStore, found: WatchedScript, history: History
    ) -> None:
        """What was proved once is in the chain, so whoever leaves it out of a history hides it."""
        told = {entry.txid: entry.height for entry in history.confirmed}
        for txid, height in (found.known or {}).items():
            if told.get(txid) != height:
                await self.check_same_chain(server, headers, height)
                raise ServerFault(f"it hides transaction {txid[::-1].hex()}, which is in block {height}")

    async def check_same_chain(self, server: Server, headers: HeaderStore, height: int) -> None:
        """``OtherMoment`` if the server has changed to another branch meanwhile: then it may be right for that one."""
        theirs = await server.header(height)
        if not headers.base <= height <= headers.height or theirs != headers.header(height):
            raise OtherMoment("it answers for another chain than it named")

    async def _ask_spenders(self, server: Server, headers: HeaderStore, fresh: Sequence[WatchedScript]) -> None:
        """A second way to learn of spends, where the protocol has it."""
        outputs = [(outpoint, found) for found in fresh for outpoint in found.outputs]
        told = await server.spenders([(outpoint, found.script) for outpoint, found in outputs])
        missing: dict[Confirmed, list[WatchedScript]] = {}
        for (_, found), spender in zip(outputs, told, strict=True):
            if spender is None or not found.since <= spender.height <= headers.height:
                continue
            if (found.known or {}).get(spender.txid) != spender.height:
                missing.setdefault(spender, []).append(found)
        await self._fetch(server, headers, missing)


def _context_start(height: int) -> int:
    """The first header that is needed to judge those above ``height``: of its period, and enough for a median time."""
    return max(0, height - height % RETARGET_INTERVAL - MEDIAN_SPAN + 1)


def _in_order(found: dict[Txid, BlockTransaction]) -> tuple[BlockTransaction, ...]:
    return tuple(sorted(found.values(), key=lambda one: one.position))
