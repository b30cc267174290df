"""The bitcoind plugin's ZMQ: messages counted, lost, repeated, in floods, from several addresses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import zmq
import zmq.asyncio
from leyden.crypto import sha256d
from leyden.hooks.errors import PluginError
from leyden.types import BlockHash
from leyden_bitcoind.news import KEPT_BLOCKS, TOPICS, News

TIMEOUT = 30
Published = tuple[News, Callable[[bytes, bytes, int], None]]


@pytest.fixture
async def published(tmp_path: Path) -> AsyncIterator[Published]:
    """Subscribed news, and what publishes to them."""
    address = f"ipc://{tmp_path}/news"
    async with publishing(address) as (news, publish):
        yield news, lambda topic, body, counter: publish(address, topic, body, counter)


@asynccontextmanager
async def publishing(*addresses: str) -> AsyncIterator[tuple[News, Callable[[str, bytes, bytes, int], None]]]:
    """News that are subscribed to these addresses, and what publishes at one of them."""
    context = zmq.Context()
    news = News(addresses)
    sockets = {}
    for address in addresses:
        sockets[address] = socket = context.socket(zmq.XPUB)  # as PUB, and it is told of who subscribes
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, TIMEOUT * 1000)
        socket.bind(address)
    news.open()
    for socket in sockets.values():
        assert {await asyncio.to_thread(socket.recv) for _ in TOPICS} == {b"\x01" + topic for topic in TOPICS}

    def publish(address: str, topic: bytes, body: bytes, counter: int) -> None:
        sockets[address].send_multipart((topic, body, counter.to_bytes(4, "little")))

    try:
        yield news, publish
    finally:
        news.close()
        for socket in sockets.values():
            socket.close()
        context.term()


async def test_lost_messages_are_noticed_by_the_counter(published: Published) -> None:
    news, publish = published
    publish(b"hashblock", bytes(32), 0)
    assert await news.wait(TIMEOUT)
    block = bytes(32) + b"C"
    publish(b"sequence", block, 7)
    assert await news.wait(TIMEOUT)
    publish(b"sequence", bytes(32) + b"A" + bytes(8), 8)
    while news._counters[news.addresses[0], b"sequence"] != 9:
        assert not await news.wait(0.05)  # of the mempool: nothing to look at
    assert news.lost == 0
    with structlog.testing.capture_logs() as logs:
        publish(b"sequence", bytes(32) + b"A" + bytes(8), 12)
        assert await news.wait(TIMEOUT)  # three were lost, of blocks perhaps
    assert news.lost == 3
    assert [entry["event"] for entry in logs] == ["zmq_messages_lost"]
    publish(b"sequence", block, 13)
    assert await news.wait(TIMEOUT)
    publish(b"rawblock", b"short", 1)
    publish(b"odd", b"", 1)


async def test_a_message_that_comes_as_a_wait_ends_is_not_lost(published: Published) -> None:
    """Whatever the turn of the event loop in which it arrives: a wait that another reason ended must not swallow it."""
    news, publish = published
    number = 0
    for turns in range(4):
        for _ in range(50):
            waiting = asyncio.ensure_future(news.wait(TIMEOUT))
            for _ in range(4):
                await asyncio.sleep(0)
            news.wake()
            for _ in range(turns):
                await asyncio.sleep(0)
            publish(b"sequence", bytes(32) + b"C", number)
            number += 1
            await waiting
    async with asyncio.timeout(TIMEOUT):
        while news._counters.get((news.addresses[0], b"sequence")) != number:
            await news.wait(0.05)
    assert news.lost == 0


async def test_counters_begin_again_when_bitcoind_does(published: Published) -> None:
    """It is reason enough to look, but nothing was lost unless the first ones that follow are missing."""
    news, publish = published
    with structlog.testing.capture_logs() as logs:
        for number in (7, 0, 1):
            publish(b"sequence", bytes(32) + b"A" + bytes(8), number)
        assert await news.wait(TIMEOUT)
        while news._counters[news.addresses[0], b"sequence"] != 2:
            await news.wait(0.05)
    assert (news.lost, logs) == (0, [])
    with structlog.testing.capture_logs() as logs:
        for number in (2, 1):
            publish(b"sequence", bytes(32) + b"C", number)
            assert await news.wait(TIMEOUT)
    assert (news.lost, [entry["event"] for entry in logs]) == (1, ["zmq_messages_lost"])


async def test_each_address_counts_for_itself(tmp_path: Path) -> None:
    """Bitcoind counts the messages of a topic for each address where it publishes it."""
    first, second = (f"ipc://{tmp_path}/{name}" for name in ("first", "second"))
    async with publishing(first, second) as (news, publish):
        with structlog.testing.capture_logs() as logs:
            for number in range(10, 15):
                for address, counter in ((first, number), (second, number - 8)):
                    publish(address, b"hashblock", bytes(32), counter)
                    assert await news.wait(TIMEOUT)
        assert (news.lost, logs) == (0, [])
        with structlog.testing.capture_logs() as logs:
            publish(second, b"hashblock", bytes(32), 9)  # after 6
            assert await news.wait(TIMEOUT)
        assert news.lost == 2
        assert [(entry["event"], entry["address"]) for entry in logs] == [("zmq_messages_lost", second)]


async def test_an_address_that_is_given_twice_is_one(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/news"
    assert News([address, address]).addresses == (address,)


async def test_a_flood_of_messages_leaves_time_for_everybody_else() -> None:
    """Bitcoind tells of every transaction when it loads its mempool; what has arrived is received without waiting."""

    class Flood:
        left = 1000

        async def recv_multipart(self) -> list[bytes]:
            if self.left == 0:
                raise asyncio.CancelledError
            self.left -= 1
            return [b"sequence", bytes(32) + b"A" + bytes(8), (1000 - self.left).to_bytes(4, "little")]

    flood, news = Flood(), News([])
    listening = asyncio.ensure_future(news._listen("ipc://flood", flood))
    pauses = []
    while not listening.done():
        before = flood.left
        await asyncio.sleep(0)
        pauses.append(before - flood.left)
    assert flood.left == 0
    assert max(pauses) <= 100


async def test_only_the_newest_blocks_are_kept(published: Published) -> None:
    news, publish = published
    blocks = [n.to_bytes(4, "little") + bytes(32) + n.to_bytes(44, "little") + b"\x01" for n in range(7)]
    for number, raw in enumerate(blocks):
        publish(b"rawblock", raw, number)
        assert await news.wait(TIMEOUT)
    hashes = [BlockHash(sha256d(raw[:80])) for raw in blocks]
    assert news.child_of(BlockHash(bytes(32))) is None  # several claim to follow it
    assert [news.take(each) for each in hashes] == [None] * (7 - KEPT_BLOCKS) + blocks[7 - KEPT_BLOCKS :]
    assert news.take(hashes[-1]) is None


@pytest.mark.parametrize("wrong", ["tcp://*:28332", "tcp://localhost", "ipc://"])
async def test_an_address_that_nobody_can_connect_to_is_named(tmp_path: Path, wrong: str) -> None:
    """As bitcoind binds to it, say. What was opened before it ends with it: the node's end waits for every socket."""
    news = News([f"ipc://{tmp_path}/news", wrong])
    for _ in range(2):  # it is started again
        with pytest.raises(PluginError, match=r"zmq address .*connect") as caught:
            news.open()
        assert repr(wrong) in str(caught.value)
        assert (news._context, news._sockets, news._listening) == (None, [], [])
    news.close()
