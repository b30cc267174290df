"""The bitcoind plugin and everything that can be wrong with a bitcoind: each in words, and waited for or refused."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from leyden.bitcoin import Network
from leyden.hooks.errors import PluginError
from leyden.hooks.registry import ServiceContext
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    ChainEvent,
    SourceSynced,
    SourceTip,
    SourceTrouble,
)
from leyden.types import BlockHash, BlockHeight, LeydenError
from leyden_bitcoind import BitcoindNode, Credentials, RpcClient, RpcDenied, RpcUnavailable
from leyden_bitcoind.news import News
from leyden_bitcoind.plugin import BitcoindSettings, make_node

from tests.testbed import start_or_skip
from tests.testbed.bitcoind import Bitcoind

pytestmark = [pytest.mark.slow, pytest.mark.testbed]
TIMEOUT = 30


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Bitcoind]]:
    """Makes daemons of the test's own; they are stopped after it."""
    made: list[Bitcoind] = []

    def make(name: str = "own", **kinds: Any) -> Bitcoind:
        made.append(Bitcoind(tmp_path / name, **kinds))
        return start_or_skip(made[-1].start)

    yield make
    for each in made:
        each.stop()


def node(daemon: Bitcoind, news: News | None = None, *, poll: float = 0.05) -> BitcoindNode:
    rpc = RpcClient(daemon.url, Credentials(user=daemon.user, password=daemon.password))
    return BitcoindNode(rpc, Network.REGTEST, news or News([]), poll_seconds=poll)


class Reader:
    """Takes a source's events one by one."""

    def __init__(self, source: BitcoindNode) -> None:
        self.source = source
        self.events: list[ChainEvent] = []
        self._stream = aiter(source.events())

    async def until(self, done: Callable[[ChainEvent], bool]) -> list[ChainEvent]:
        """Everything up to the first event that is ``done``."""
        taken: list[ChainEvent] = []
        async with asyncio.timeout(TIMEOUT):
            while not taken or not done(taken[-1]):
                taken.append(await anext(self._stream))
        self.events += taken
        return taken

    async def synced(self, height: int) -> list[ChainEvent]:
        return await self.until(lambda event: isinstance(event, SourceSynced) and event.height == height)

    async def trouble(self, text: str) -> str:
        found = await self.until(lambda event: isinstance(event, SourceTrouble) and text in event.reason)
        assert isinstance(found[-1], SourceTrouble)
        assert "\n" not in found[-1].reason
        return found[-1].reason

    def heights(self) -> list[int]:
        return [event.height for event in self.events if isinstance(event, BlockConnected)]


@asynccontextmanager
async def reading(source: BitcoindNode, birth: int = 1) -> AsyncIterator[Reader]:
    await source.start((), BlockHeight(birth))
    reader = Reader(source)
    try:
        yield reader
    finally:
        await source.stop()


# -- starts and ends ---------------------------------------------------------------------------------------------------


async def test_a_restart_of_bitcoind_is_waited_for_and_told(fresh: Callable[..., Bitcoind]) -> None:
    own = fresh()
    own.make_wallet()
    async with reading(node(own), 109) as reader:
        await reader.synced(110)
        own.stop()
        assert "no bitcoind at 127.0.0.1" in await reader.trouble("no bitcoind")
        own.start()
        await reader.trouble("")
        own.mine(2)
        await reader.synced(112)
        assert reader.heights() == [109, 110, 111, 112]
        assert not any(isinstance(event, BlocksDisconnected) for event in reader.events)


async def test_blocks_that_a_crash_lost_are_no_reorg(fresh: Callable[..., Bitcoind]) -> None:
    """Killed, bitcoind comes back without its newest blocks and loads them again: nothing is taken back for that."""
    own = fresh()
    own.make_wallet()
    own.flush()
    async with reading(node(own), 100) as reader:
        newest = [own.rpc("getblock", shown, 0) for shown in own.mine(30)]
        await reader.synced(140)
        own.kill()
        own.start()
        kept = own.rpc("getblockcount")
        assert kept < 140, "the crash lost nothing: the test needs another way to lose blocks"
        await reader.trouble("behind this node at 140")
        for raw in newest:
            own.rpc("submitblock", raw)
        await reader.trouble("")
        own.mine()
        await reader.synced(141)
        assert reader.heights() == list(range(100, 142))
        assert not any(isinstance(event, BlocksDisconnected) for event in reader.events)


async def test_a_crash_that_also_ends_in_another_branch_is_a_reorg(fresh: Callable[..., Bitcoind]) -> None:
    """bitcoind does not even know our blocks: the fork is found by those it knows."""
    own = fresh()
    own.make_wallet()
    own.flush()
    async with reading(node(own), 100) as reader:
        own.mine(3)
        await reader.synced(113)
        own.kill()
        own.start()
        fork = own.rpc("getblockcount")
        assert fork < 113
        own.mine(113 - fork + 1)
        (lost,) = [e for e in await reader.synced(114) if isinstance(e, BlocksDisconnected)]
        assert lost.fork_height == fork
        assert reader.heights() == [*range(100, 114), *range(fork + 1, 115)]


async def test_deleted_data_is_a_trouble_not_a_reorg_to_the_genesis(fresh: Callable[..., Bitcoind]) -> None:
    own, other = fresh("own"), fresh("other")
    own.make_wallet()
    other.make_wallet()
    other.mine(20)
    async with reading(node(own), 60) as reader:
        await reader.synced(110)
        own.stop()
        other.stop()
        other.port = own.port
        other.start()
        text = await reader.trouble("none of the blocks that this node knows")
        assert "was its data deleted?" in text
        other.stop()
        own.start()
        await reader.trouble("")


async def test_a_bitcoind_that_is_far_behind_is_waited_for(fresh: Callable[..., Bitcoind]) -> None:
    own, other = fresh("own"), fresh("other")
    own.make_wallet()
    async with reading(node(own), 100) as reader:
        await reader.synced(110)
        own.stop()
        other.stop()
        other.port = own.port
        other.start()
        await reader.trouble("far behind this node at 110")


async def test_an_absent_bitcoind_is_waited_for_at_start(fresh: Callable[..., Bitcoind]) -> None:
    own = fresh()
    own.make_wallet()
    own.stop()
    async with reading(node(own), 110) as reader:
        await reader.trouble("no bitcoind")
        own.start()
        await reader.synced(110)


# -- credentials -------------------------------------------------------------------------------------------------------


async def test_a_wrong_password_is_refused_at_start(fresh: Callable[..., Bitcoind]) -> None:
    own = fresh()
    rpc = RpcClient(own.url, Credentials(user="leyden", password="wrong"))
    source = BitcoindNode(rpc, Network.REGTEST, News([]))
    with pytest.raises(PluginError, match=r"^bitcoind refuses user 'leyden' with the password in password_file$"):
        await source.start((), BlockHeight(1))
    assert "wrong" not in repr(Credentials(user="leyden", password="wrong"))
    await source.stop()


async def test_a_cookie_is_read_again_after_a_restart(fresh: Callable[..., Bitcoind]) -> None:
    own = fresh(cookie=True)
    before = own.cookie_file.read_text()
    rpc = RpcClient(own.url, Credentials(cookie_file=own.cookie_file))
    assert await rpc.call("getblockcount") == 0
    own.stop()
    with pytest.raises(RpcUnavailable):
        await rpc.call("getblockcount")
    own.start()
    assert own.cookie_file.read_text() != before
    assert await rpc.call("getblockcount") == 0
    await rpc.close()


async def test_a_cookie_that_is_missing_stale_or_unreadable(fresh: Callable[..., Bitcoind], tmp_path: Path) -> None:
    own = fresh(cookie=True)

    async def error_with(path: Path) -> RpcUnavailable:
        rpc = RpcClient(own.url, Credentials(cookie_file=path))
        with pytest.raises(RpcUnavailable) as caught:
            await rpc.call("getblockcount")
        await rpc.close()
        return caught.value

    missing = await error_with(tmp_path / "nowhere")
    assert "no cookie at" in str(missing)
    assert not isinstance(missing, RpcDenied)  # it comes with bitcoind
    stale = tmp_path / "stale"
    stale.write_text("__cookie__:0000")
    denied = await error_with(stale)
    assert isinstance(denied, RpcDenied)
    assert not denied.final
    assert "is it this bitcoind's?" in str(denied)
    unreadable = await error_with(tmp_path)  # a folder
    assert isinstance(unreadable, RpcDenied)
    assert unreadable.final


def test_settings_that_cannot_work(tmp_path: Path) -> None:
    context = ServiceContext(folder=tmp_path, network=Network.REGTEST)
    url = "http://127.0.0.1:18443"
    (tmp_path / "password").write_text("secret\n")
    for settings, part in (
        (BitcoindSettings(url=url), "needs cookie_file, or user and password_file"),
        (BitcoindSettings(url=url, user="me", password_file="nowhere"), "password_file"),
        (BitcoindSettings(url="127.0.0.1:18443", cookie_file="c"), "must look like http://"),
        (BitcoindSettings(url=url, cookie_file="c", poll_seconds=0), "above 0"),
        (BitcoindSettings(url=url, cookie_file="c", zmq=("127.0.0.1:28332",)), "tcp://"),
    ):
        with pytest.raises(LeydenError, match=part):
            make_node(settings, context)


# -- what bitcoind has -------------------------------------------------------------------------------------------------


async def test_a_warming_up_bitcoind_says_so() -> None:
    """Its port answers before it has loaded its chain; that is too short to catch in a real one."""
    body = b'{"result":null,"error":{"code":-28,"message":"Loading block index\\u2026"},"id":1}'

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rpc = RpcClient(f"http://127.0.0.1:{port}", Credentials(user="a", password="b"), first_id=1)
    with pytest.raises(RpcUnavailable, match="bitcoind is starting: Loading block index"):
        await rpc.call("getblockcount")
    await rpc.close()
    server.close()
    await server.wait_closed()


async def test_initial_block_download_is_followed_and_waited_for(fresh: Callable[..., Bitcoind]) -> None:
    """Blocks come as bitcoind gets them, with the goal; only at the end it says that it is synced."""
    other, own = fresh("other"), fresh("own")
    other.make_wallet()
    shown = [other.rpc("getblockhash", height) for height in range(1, 111)]
    for each in shown:
        own.rpc("submitheader", other.rpc("getblockheader", each, False))
    async with reading(node(own), 1) as reader:
        assert await reader.trouble("loading blocks") == "bitcoind is loading blocks: it has 0 of 110"
        assert SourceTip(height=BlockHeight(110)) in reader.events
        for each in shown[:60]:
            own.rpc("submitblock", other.rpc("getblock", each, 0))
        await reader.trouble("it has 60 of 110")
        assert reader.heights() == list(range(1, 61))
        assert not any(isinstance(event, SourceSynced) for event in reader.events)
        for each in shown[60:]:
            own.rpc("submitblock", other.rpc("getblock", each, 0))
        await reader.synced(110)
        assert reader.heights() == list(range(1, 111))


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    own = Bitcoind(tmp_path_factory.mktemp("pruned"), options=("-txindex=0", "-prune=1", "-fastprune"))
    start_or_skip(own.start)
    own.make_wallet()
    for _ in range(6):
        own.mine(100)
    own.rpc("pruneblockchain", 400)
    yield own
    own.stop()


async def test_a_pruned_bitcoind(pruned: Bitcoind) -> None:
    """It works from its lowest block on; what is below is refused, or an error in words."""
    own = pruned
    lowest = own.rpc("getblockchaininfo")["pruneheight"]
    assert 100 < lowest <= 401
    refused = node(own)
    with pytest.raises(PluginError, match=f"bitcoind has pruned block 5 and all below {lowest}: give it a higher"):
        await refused.start((), BlockHeight(5))
    await refused.stop()
    async with reading(node(own), lowest) as reader:
        assert reader.source.info.prune_height == lowest
        await reader.synced(710)
        assert reader.heights() == list(range(lowest, 711))
        with pytest.raises(PluginError, match="has pruned block 3"):
            await reader.source.get_block(BlockHash(bytes.fromhex(own.rpc("getblockhash", 3))[::-1]))
        height = await reader.source.get_block(BlockHash(bytes.fromhex(own.rpc("getblockhash", 600))[::-1]))
        assert height.height == 600


async def test_pruned_while_the_node_was_away(pruned: Bitcoind) -> None:
    place = (BlockHeight(110), BlockHash(bytes.fromhex(pruned.rpc("getblockhash", 110))[::-1]))
    source = node(pruned)
    with pytest.raises(PluginError, match="bitcoind has pruned block 111"):
        await source.start((place,), BlockHeight(1))
    await source.stop()


async def test_a_chain_that_was_invalidated_and_came_back(fresh: Callable[..., Bitcoind]) -> None:
    """``invalidateblock`` alone takes nothing back: bitcoind is merely behind. Another branch does."""
    own = fresh()
    own.make_wallet()
    async with reading(node(own), 105) as reader:
        await reader.synced(110)
        old = own.rpc("getblockhash", 107)
        own.rpc("invalidateblock", old)
        await reader.trouble("behind this node at 110")
        own.mine(1)
        await reader.synced(107)
        own.rpc("reconsiderblock", old)
        await reader.synced(110)
        forks = [event.fork_height for event in reader.events if isinstance(event, BlocksDisconnected)]
        assert forks == [106, 106]
        assert reader.heights() == [105, 106, 107, 108, 109, 110, 107, 107, 108, 109, 110]


async def test_the_network_changes_at_a_restart(fresh: Callable[..., Bitcoind]) -> None:
    own = fresh()
    own.make_wallet()
    stranger = BitcoindNode(
        RpcClient(own.url, Credentials(user=own.user, password=own.password)),
        Network.SIGNET,
        News([]),
        poll_seconds=0.05,
    )
    own.stop()
    async with reading(stranger) as reader:
        await reader.trouble("no bitcoind")
        own.start()
        text = await reader.trouble("bitcoind is on 'regtest', this node on 'signet'")
        assert "change network" in text
        assert reader.heights() == []


# -- ZMQ ---------------------------------------------------------------------------------------------------------------


class Noting(RpcClient):
    """Notes what is asked."""

    def __init__(self, daemon: Bitcoind) -> None:
        super().__init__(daemon.url, Credentials(user=daemon.user, password=daemon.password))
        self.methods: list[str] = []

    async def _reply(self, method: str, params: Sequence[Any]) -> tuple[int, int, bytearray]:
        self.methods.append(method)
        return await super()._reply(method, params)


async def test_a_block_is_told_at_once_and_not_fetched_again(fresh: Callable[..., Bitcoind]) -> None:
    """Nothing polls here: that a block is told at all is the work of ZMQ, which brings the block itself."""
    own = fresh()
    own.make_wallet()
    rpc, news = Noting(own), News([own.zmq])
    async with reading(BitcoindNode(rpc, Network.REGTEST, news, poll_seconds=3600), 110) as reader:
        await reader.synced(110)
        height = await heard_of(own, reader, news, 110)
        for _ in range(20):
            rpc.methods.clear()
            height += 1
            waiting = asyncio.ensure_future(reader.synced(height))
            await asyncio.to_thread(own.mine)
            await waiting
            if "getblock" not in rpc.methods:
                break
        else:
            pytest.fail("no block of twenty came by ZMQ")
        assert reader.heights() == list(range(110, height + 1))


async def heard_of(daemon: Bitcoind, reader: Reader, news: News, height: int) -> int:
    """Mine until a block came by ZMQ: a subscription takes a moment that nobody can see the end of. The new height."""
    while (news.addresses[0], b"rawblock") not in news._counters:
        height = await one_more(daemon, reader, news, height)
    return height


async def one_more(daemon: Bitcoind, reader: Reader, news: News, height: int) -> int:
    """Mine one, and wait for it however it comes. The new height."""
    waiting = asyncio.ensure_future(reader.synced(height + 1))
    await asyncio.to_thread(daemon.mine)
    while not waiting.done():
        news.wake()
        await asyncio.wait([waiting], timeout=0.2)
    await waiting
    return height + 1


async def test_without_zmq_polling_goes_on_and_somebody_is_told(fresh: Callable[..., Bitcoind]) -> None:
    own = fresh(publishes=False)
    own.make_wallet()
    with structlog.testing.capture_logs() as logs:
        async with reading(node(own, News([own.zmq])), 110) as reader:
            await reader.synced(110)
            own.mine()
            await reader.synced(111)
    assert [entry["event"] for entry in logs if "publishes" in entry["event"]] == ["bitcoind_publishes_nothing"]


async def test_a_bitcoind_that_publishes_at_two_addresses(fresh: Callable[..., Bitcoind], tmp_path: Path) -> None:
    """It brings every block twice, which is nothing lost and nothing new."""
    more = f"ipc://{tmp_path}/more"
    own = fresh(options=(f"-zmqpubrawblock={more}", f"-zmqpubsequence={more}"))
    own.make_wallet()
    news = News([own.zmq, more])
    with structlog.testing.capture_logs() as logs:
        async with reading(BitcoindNode(Noting(own), Network.REGTEST, news, poll_seconds=3600), 110) as reader:
            await reader.synced(110)
            height = 110
            while len(raws := [key for key in news._counters if key[1] == b"rawblock"]) < 2:
                height = await one_more(own, reader, news, height)
            assert {address for address, _ in raws} == {own.zmq, more}
            for _ in range(20):
                height = await one_more(own, reader, news, height)
            async with asyncio.timeout(TIMEOUT):
                while len({news._counters[key] for key in raws}) != 1:
                    await asyncio.sleep(0.01)
            assert reader.heights() == list(range(110, height + 1))
    assert news.lost == 0
    assert "zmq_messages_lost" not in [entry["event"] for entry in logs]
