"""ZMQ as a wake-up call: any message on any topic means "ask by JSON-RPC now"."""

import asyncio
from collections.abc import Sequence

import structlog
import zmq
import zmq.asyncio

log = structlog.get_logger("leyden.bitcoind")

TOPICS = (b"sequence", b"hashblock", b"rawblock")


class News:
    """Waits for a message or for time to pass. Counters that skip are noted: the look that follows repairs it."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)
        self._context: zmq.asyncio.Context | None = None
        self._socket: zmq.asyncio.Socket | None = None
        self._counters: dict[bytes, int] = {}
        self.lost = 0
        """Messages that never arrived, by bitcoind's counters."""

    def open(self) -> None:
        if not self._addresses or self._socket is not None:
            return
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        for topic in TOPICS:
            self._socket.subscribe(topic)
        for address in self._addresses:
            self._socket.connect(address)

    async def wait(self, seconds: float) -> bool:
        """True when a message about blocks came before ``seconds`` had passed."""
        if self._socket is None:
            await asyncio.sleep(seconds)
            return False
        try:
            async with asyncio.timeout(seconds):
                while not self._note(await self._socket.recv_multipart()):
                    pass
        except TimeoutError:
            return False
        while await self._socket.poll(0):
            self._note(await self._socket.recv_multipart())
        return True

    def _note(self, frames: Sequence[bytes]) -> bool:
        """Count it; whether it concerns blocks (mempool news on ``sequence`` does not) or one may have been lost."""
        if len(frames) != 3:
            return True
        topic, body, counter = frames
        number = int.from_bytes(counter, "little")
        expected = self._counters.get(topic, number)
        self._counters[topic] = (number + 1) & 0xFFFFFFFF
        if number != expected:
            self.lost += 1
            log.warning("zmq_messages_lost", topic=topic.decode("ascii", "replace"))
            return True
        return topic != b"sequence" or body[32:33] in (b"C", b"D")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None
