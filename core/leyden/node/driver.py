"""The asyncio side: sockets, timers, tasks. It owns no state of the node."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import structlog

from leyden.hooks.services import StoreFenced
from leyden.hooks.types import BlockConnected, ChainEvent
from leyden.node.chain_runner import SourceRunner
from leyden.node.core import NodeCore
from leyden.node.host import TimerHandle
from leyden.node.peer import Peer
from leyden.types import NodeId

log = structlog.get_logger("leyden.driver")

T = TypeVar("T")
DIAL_TIMEOUT = 10.0
CHAIN_QUEUE = 64
"""Blocks that may wait before the chain source is held back: a catch-up commits up to so many at once."""
CHAIN_TRANSACTIONS = 20_000
"""Transactions in these blocks together; one block may always wait, however large."""
SUSPENDED_SECONDS = 1.0
"""Time that passed while the machine slept, which the monotonic clock does not count."""
STOPPED_SECONDS = 10.0
"""Time that passed while this process did not run though the machine did: as long as that, peers may have left."""
READING_SECONDS = 0.1
"""The clocks are read within so much, far below what counts as suspended."""
TICK_SECONDS = 0.5
CANCEL_SECONDS = 5.0
FLUSH_SECONDS = 5.0
"""How long a stop waits for the last turn, whatever the store does."""
PUMP_RETRY_SECONDS = 1.0


class AsyncioHost:
    """``leyden.node.host.Host`` on the running loop. ``run_turn`` is set by the driver."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._scheduled = False
        self._closed = False
        self._timers: set[_Timer] = set()
        self.run_turn: Callable[[], None] = lambda: None

    def wall_time(self) -> float:
        return time.time()

    def entropy(self, length: int) -> bytes:
        return secrets.token_bytes(length)

    def wake(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if not self._closed:
            self.run_turn()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        timer = _Timer(callback, self._timers)
        if not self._closed:
            timer.start(self._loop, seconds)
        return timer

    def spawn(
        self, work: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None], name: str
    ) -> None:
        if self._closed:
            work.close()
            return

        def finished(task: asyncio.Task[T]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            if error is not None:
                done(None, error)
            else:
                done(task.result(), None)

        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(finished)

    async def close(self) -> None:
        """No turn, timer or task begins any more; what was spawned is cancelled and awaited, but not for ever."""
        self._closed = True
        for timer in list(self._timers):
            timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
            for task in stuck:
                log.error("task_does_not_end", task=task.get_name())


class _Timer:
    """A timer that the host can find and cancel when it closes."""

    def __init__(self, callback: Callable[[], None], running: "set[_Timer]") -> None:
        self._callback = callback
        self._running = running
        self._handle: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._running.add(self)
        self._handle = loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._running.discard(self)
        self._callback()

    def cancel(self) -> None:
        self._running.discard(self)
        if self._handle is not None:
            self._handle.cancel()


def read_clocks() -> tuple[float, float, float]:
    """Seconds that the machine was awake, that passed at all (as far as the system can tell), that we worked.

    Of one instant: a process that is held between two readings reads again, or it would look as if it had slept.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    while True:
        awake = time.monotonic()
        total = time.time() if boot is None else time.clock_gettime(boot)
        worked = time.process_time()
        if time.monotonic() - awake < READING_SECONDS:
            return awake, total, worked


class _Room:
    """How much of a source may wait for its commit: blocks are few or small, and memory stays bounded."""

    def __init__(self) -> None:
        self._events = 0
        self._weight = 0
        self._left = asyncio.Event()

    async def enter(self, weight: int) -> None:
        while self._events and (self._events >= CHAIN_QUEUE or self._weight + weight > CHAIN_TRANSACTIONS):
            self._left.clear()
            await self._left.wait()
        self._events += 1
        self._weight += weight

    def leave(self, weight: int) -> None:
        self._events -= 1
        self._weight -= weight
        self._left.set()


class PeerSocket(asyncio.Protocol):
    """One TCP connection. Reading pauses while the peer does not take what we write."""

    def __init__(self, driver: "Driver", remote_node_id: NodeId | None) -> None:
        self._driver = driver
        self._remote_node_id = remote_node_id
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            return
        self._transport = transport
        if self._remote_node_id is None and not self._driver.core.peers.may_accept():
            transport.abort()
            return
        name = transport.get_extra_info("peername")
        address = f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name)
        self._driver.sockets.add(self)
        self._driver.post(lambda: self._begin(address))

    def _begin(self, address: str) -> None:
        self._peer = self._driver.core.peers.new_connection(self, address, self._remote_node_id)

    def data_received(self, data: bytes) -> None:
        self._driver.post(lambda: self._receive(data))

    def _receive(self, data: bytes) -> None:
        if self._peer is not None:
            self._driver.core.receive(self._peer, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.sockets.discard(self)
        self._driver.post(self._lost)

    def _lost(self) -> None:
        if self._peer is not None:
            self._peer.on_socket_closed()

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- leyden.node.peer.Wire ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Driver:
    """Runs turns when there is mail, pumps the chain source, dials and listens."""

    def __init__(self, host: AsyncioHost) -> None:
        self.host = host
        self.sockets: set[PeerSocket] = set()
        self.fatal: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._core: NodeCore | None = None
        self._server: asyncio.Server | None = None
        self._turning: asyncio.Task[None] | None = None
        self._again = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._last_tick = (0.0, 0.0, 0.0)
        self._stopping = False
        self.clocks: Callable[[], tuple[float, float, float]] = read_clocks
        host.run_turn = self._run_turn

    @property
    def core(self) -> NodeCore:
        if self._core is None:
            raise RuntimeError("the driver has no node yet")
        return self._core

    def attach(self, core: NodeCore) -> None:
        self._core = core
        core.peers.dial = self._dial
        self._last_tick = self.clocks()
        self.host.call_later(TICK_SECONDS, self._watch_clock)

    def post(self, work: Callable[[], None]) -> None:
        self.core.engine.post(work)

    # -- turns -------------------------------------------------------------------------------------------------------

    def _run_turn(self) -> None:
        """A turn whose store answers inline runs here and now; one that has to wait (or reads back) is a task."""
        if self._core is None:
            return
        if self._turning is not None:
            self._again = True
            return
        turn = self.core.engine.turn()
        if getattr(self.core.services.store, "inline", False) and not self.core.engine.degraded:
            try:
                turn.send(None)
            except StopIteration:
                return
            except StoreFenced as error:
                self._fail(error)
                return
            turn.close()
            self._fail(RuntimeError("the store declares itself inline and suspended"))
            return
        self._turning = asyncio.get_running_loop().create_task(turn, name="turn")
        self._turning.add_done_callback(self._turn_done)

    def _turn_done(self, task: "asyncio.Task[None]") -> None:
        self._turning = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        elif self._again:
            self._again = False
            self.host.wake()

    def _fail(self, error: BaseException) -> None:
        log.critical("node_stops", reason=str(error))
        if not self.fatal.done():
            self.fatal.set_result(error)

    def _watch_clock(self) -> None:
        """An oversleep means that we were suspended: peers are stale, the chain may have moved.

        A machine that is merely busy looks much the same; there the pause must be long, and not our own work.
        """
        now = self.clocks()
        awake, total, worked = (new - old for new, old in zip(now, self._last_tick, strict=True))
        self._last_tick = now
        if self._stopping:
            return
        stood_still = awake - worked - TICK_SECONDS
        if total - awake > SUSPENDED_SECONDS or stood_still > STOPPED_SECONDS:
            log.warning("was_suspended", seconds=round(total - TICK_SECONDS, 1))
            self.post(self.core.on_suspended)
        self.host.call_later(TICK_SECONDS, self._watch_clock)

    # -- chain -------------------------------------------------------------------------------------------------------

    async def pump(self, runner: SourceRunner) -> None:
        """Every event of the source becomes mail; at most ``CHAIN_QUEUE`` wait for their commit.

        A source that fails or ends is started again: a plugin's fault must not leave the node blind. Before the tip was
        ever reached it raises instead, and the node does not start.
        """
        delay = PUMP_RETRY_SECONDS
        while True:
            try:
                await self._pump_once(runner)
                reason = "its stream of blocks ended"
            except Exception as error:
                if not self.core.chain.was_synced and self.core.chain.is_alone:
                    raise
                reason = f"{type(error).__name__}: {error}"
            log.warning("chain_source_failed", source=runner.name, reason=reason, again_in=delay)
            self.post(partial(self.core.chain.on_stream_ended, runner, reason))
            await asyncio.sleep(delay)
            delay = min(delay * 2, 60.0)
            self.post(partial(runner.restart, "its stream ended"))

    async def _pump_once(self, runner: SourceRunner) -> None:
        room = _Room()
        async for event in runner.source.events():
            weight = 1 + len(event.transactions) + len(event.raw) // 250 if isinstance(event, BlockConnected) else 1
            await room.enter(weight)
            self.post(partial(self._on_chain_event, runner, event, partial(room.leave, weight)))

    def _on_chain_event(self, runner: SourceRunner, event: ChainEvent, leave: Callable[[], None]) -> None:
        """Not a request: while storage is degraded the event waits like all mail."""
        self.core.engine.after_commit(leave, lambda _error: leave())
        self.core.chain.on_event(event, runner)

    # -- sockets -----------------------------------------------------------------------------------------------------

    async def listen(self, address: tuple[str, int]) -> tuple[str, int]:
        """Listen and return the address that was really bound."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: PeerSocket(self, None), *address)
        bound = self._server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    def _dial(self, node_id: NodeId, host: str, port: int) -> None:
        async def connect() -> None:
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(DIAL_TIMEOUT):
                await loop.create_connection(lambda: PeerSocket(self, node_id), host, port)

        def done(_: None, error: BaseException | None) -> None:
            if error is not None:
                reason = OSError("timed out") if isinstance(error, TimeoutError) else error
                self.post(lambda: self.core.peers.on_dial_failed(node_id, reason))

        self.host.spawn(connect(), done, f"dial {host}:{port}")

    async def close(self) -> None:
        """Stop listening, let the last turn flush, close every socket. Takes at most some seconds."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        if self._server is not None:
            for listening in self._server.sockets:
                loop.remove_reader(listening)
            await asyncio.sleep(0)  # what was just accepted gets its transport, or asyncio would lose it
            self._server.close()
        self.post(self.core.peers.close_all)
        end = loop.time() + FLUSH_SECONDS
        while (self.sockets or self.core.engine.has_mail or self._turning is not None) and loop.time() < end:
            if self.core.engine.fenced or self.core.engine.degraded:
                break  # nothing can be flushed
            await asyncio.sleep(0.01)
        await self.host.close()
        if self._turning is not None:
            _, stuck = await asyncio.wait({self._turning}, timeout=FLUSH_SECONDS)
            for task in stuck:
                log.error("turn_does_not_end", task=task.get_name())
                task.cancel()
        for socket in list(self.sockets):
            socket.abort()
        await asyncio.sleep(0)
