"""ZMQ for latency: a message about blocks means "look now", and ``rawblock`` brings the block itself.

Nothing is believed because of a message: what it brings is checked as every block is, and a look by JSON-RPC follows.
So a message that is lost, late, repeated or out of order costs time at most.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

import structlog
import zmq
import zmq.asyncio
from leyden.bitcoin import HEADER_LENGTH
from leyden.crypto import sha256d
from leyden.hooks.errors import PluginError
from leyden.types import BlockHash

log = structlog.get_logger("leyden.bitcoind")

TOPICS = (b"sequence", b"hashblock", b"rawblock")
QUEUED_MESSAGES = 200
"""What may wait while nobody looks; further ones are lost, which the counters show."""
READ_AT_ONCE = 50
KEPT_BLOCKS = 4
"""Blocks that came by ``rawblock`` and were not asked for yet."""
RAW_BLOCK_SECONDS = 0.2
"""How long ``rawblock`` may come behind the notice of the same block."""


class News:
    """Waits for a message or for time to pass; keeps the newest blocks that came along.

    Each address has a socket of its own: bitcoind counts the messages of a topic for each address where it publishes
    it, and a message does not tell where it came from.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(dict.fromkeys(addresses))
        self._context: zmq.asyncio.Context | None = None
        self._sockets: list[zmq.asyncio.Socket] = []
        self._counters: dict[tuple[str, bytes], int] = {}
        """The number that comes next, by address and topic."""
        self._brings_blocks = False
        self._blocks: OrderedDict[BlockHash, bytes] = OrderedDict()
        self._listening: list[asyncio.Task[None]] = []
        self._announced: BlockHash | None = None
        """By ``sequence`` or ``hashblock``: bitcoind sends ``rawblock`` a moment after that."""
        self._woken = asyncio.Event()
        self.lost = 0
        """Messages that never arrived, by bitcoind's counters."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return self._addresses

    def open(self) -> None:
        """``PluginError`` if an address is none that can be connected to; nothing is open then."""
        if not self._addresses or self._context is not None:
            return
        self._context = zmq.asyncio.Context()
        for address in self._addresses:
            socket = self._context.socket(zmq.SUB)
            self._sockets.append(socket)  # first, for the context ends when all of them are closed, and waits for it
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
            for topic in TOPICS:
                socket.subscribe(topic)
            try:
                socket.connect(address)
            except zmq.ZMQError as error:
                self.close()
                raise PluginError(
                    f"bitcoind: zmq address {address!r} is none to connect to ({error.strerror}): "
                    "it needs a host and a port, as tcp://127.0.0.1:28332"
                ) from error
            self._listening.append(asyncio.ensure_future(self._listen(address, socket)))

    async def _listen(self, address: str, socket: zmq.asyncio.Socket) -> None:
        """One reader, which nothing but ``close`` ends: a receive that is cancelled may take a message with it."""
        while True:
            for _ in range(READ_AT_ONCE):
                if self._note(address, await socket.recv_multipart()):
                    self._woken.set()
            await asyncio.sleep(0)  # what has arrived is received without waiting: everybody else has a turn too

    async def wait(self, seconds: float) -> bool:
        """True when a message about blocks came, or ``wake`` was called, before ``seconds`` had passed."""
        heard = await self._woken_within(seconds)
        if self._announced is not None and self._brings_blocks:
            await self._await_block(self._announced)
        self._announced = None
        self._woken.clear()
        return heard

    async def _await_block(self, block_hash: BlockHash) -> None:
        """It is worth a moment: else the same block would be fetched."""
        until = asyncio.get_running_loop().time() + RAW_BLOCK_SECONDS
        while block_hash not in self._blocks and self._sockets:
            self._woken.clear()
            if not await self._woken_within(until - asyncio.get_running_loop().time()):
                return

    async def _woken_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
        except TimeoutError:
            return False

    def wake(self) -> None:
        """End the ``wait`` that is under way, or the next one."""
        self._woken.set()

    def take(self, block_hash: BlockHash) -> bytes | None:
        """The block, if ``rawblock`` brought it; then it is forgotten here."""
        if block_hash == self._announced:
            self._announced = None
        return self._blocks.pop(block_hash, None)

    def child_of(self, tip: BlockHash) -> bytes | None:
        """A block on top of ``tip`` that ``rawblock`` brought, if there is just one."""
        children = [raw for raw in self._blocks.values() if raw[4:36] == tip]
        return children[0] if len(children) == 1 else None

    def _note(self, address: str, frames: Sequence[bytes]) -> bool:
        """Count it; whether it concerns blocks (mempool news on ``sequence`` does not) or one may have been lost."""
        if len(frames) != 3 or len(frames[2]) != 4:
            return True
        topic, body, counter = frames
        number = int.from_bytes(counter, "little")
        expected = self._counters.get((address, topic), number)
        self._counters[address, topic] = number + 1
        self._brings_blocks |= topic == b"rawblock"
        if topic == b"rawblock" and len(body) > HEADER_LENGTH:
            self._blocks[BlockHash(sha256d(body[:HEADER_LENGTH]))] = body
            while len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        if number != expected:
            missed = number - expected if number > expected else number  # it begins at 0 when bitcoind starts
            if missed:
                self.lost += missed
                name = topic.decode("ascii", "replace")
                log.warning("zmq_messages_lost", address=address, topic=name, messages=missed)
            return True
        if topic == b"hashblock" or (topic == b"sequence" and body[32:33] == b"C"):
            self._announced = BlockHash(body[31::-1])
        return topic != b"sequence" or body[32:33] in (b"C", b"D")

    def close(self) -> None:
        self.wake()
        for listening in self._listening:
            listening.cancel()
        for socket in self._sockets:
            socket.close()
        self._listening, self._sockets = [], []
        if self._context is not None:
            self._context.term()
            self._context = None
        self._blocks.clear()
