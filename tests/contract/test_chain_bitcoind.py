"""The bitcoind plugin against a real bitcoind."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.bitcoin import Network, Transaction, TxIn, TxOut, decode_address, parse_transaction
from leyden.hooks.errors import PluginError
from leyden.hooks.types import BlockConnected, BroadcastKind, FeeTarget, SourceSynced, UtxoFound, UtxoSpent, UtxoUnknown
from leyden.testing import chain as suite
from leyden.testing.chain import ChainBed, ChainSourceSuite
from leyden.types import BlockHash, BlockHeight, OutPoint, Sat, Txid
from leyden_bitcoind import BitcoindNode, Credentials, RpcClient, RpcRefused, RpcUnavailable
from leyden_bitcoind.news import News

from tests.testbed import start_or_skip
from tests.testbed.bitcoind import Bitcoind

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    bitcoind = start_or_skip(lambda: Bitcoind(tmp_path_factory.mktemp("bitcoind")).start())
    bitcoind.make_wallet()
    yield bitcoind
    bitcoind.stop()


def client(daemon: Bitcoind) -> RpcClient:
    return RpcClient(daemon.url, Credentials(user=daemon.user, password=daemon.password))


def node(daemon: Bitcoind, *, zmq: bool = False, network: Network = Network.REGTEST) -> BitcoindNode:
    news = News([daemon.zmq] if zmq else [])
    return BitcoindNode(client(daemon), network, news, poll_seconds=30.0 if zmq else 0.05)


class Control:
    """Moves the daemon's chain as the suite asks."""

    def __init__(self, daemon: Bitcoind) -> None:
        self.daemon = daemon

    async def tip(self) -> tuple[BlockHeight, BlockHash]:
        info = self.daemon.rpc("getblockchaininfo")
        return BlockHeight(info["blocks"]), BlockHash(bytes.fromhex(info["bestblockhash"])[::-1])

    async def mine(self, blocks: int) -> None:
        self.daemon.mine(blocks)

    async def reorg(self, depth: int, blocks: int) -> None:
        """Transactions of the lost blocks are forgotten: the new branch is mined without them."""
        height = self.daemon.rpc("getblockcount")
        self.daemon.rpc("invalidateblock", self.daemon.rpc("getblockhash", height - depth + 1))
        for _ in range(blocks):
            self.daemon.rpc("generateblock", self.daemon.rpc("getnewaddress"), [])

    async def pay(self, script: bytes, value: Sat) -> Transaction:
        address = self.daemon.rpc("decodescript", script.hex())["address"]
        txid = self.daemon.rpc("sendtoaddress", address, value / 100_000_000)
        return parse_transaction(bytes.fromhex(self.daemon.rpc("getrawtransaction", txid)))

    async def submit(self, tx: Transaction) -> None:
        self.daemon.rpc("sendrawtransaction", tx.serialize().hex())


class TestPolling(ChainSourceSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind) -> ChainBed:
        return ChainBed(make_source=lambda: node(daemon), control=Control(daemon))


class TestOverZmq(ChainSourceSuite):
    """Polling is so slow here that only a message can be the reason why a test ends in time."""

    @pytest.fixture
    def bed(self, daemon: Bitcoind) -> ChainBed:
        return ChainBed(make_source=lambda: node(daemon, zmq=True), control=Control(daemon))


async def following(source: BitcoindNode, height: int) -> list[object]:
    events: list[object] = []
    async with asyncio.timeout(20):
        async for event in source.events():
            events.append(event)
            if isinstance(event, SourceSynced) and event.height == height:
                return events
    return events


async def test_a_restart_of_bitcoind_is_waited_for(tmp_path: Path) -> None:
    own = Bitcoind(tmp_path / "own").start()
    own.make_wallet()
    source = node(own)
    await source.start((), BlockHeight(109))
    await following(source, 110)
    own.stop()
    waiting = asyncio.ensure_future(following(source, 112))
    await asyncio.sleep(0.3)
    own.start()
    own.mine(2)
    heights = [event.height for event in await waiting if isinstance(event, BlockConnected)]
    assert heights == [111, 112]
    await source.stop()
    own.stop()


async def test_a_bitcoind_of_another_network_is_refused(daemon: Bitcoind) -> None:
    source = node(daemon, network=Network.SIGNET)
    with pytest.raises(PluginError, match="bitcoind is on 'regtest', this node on 'signet'"):
        await source.start((), BlockHeight(0))
    await source.stop()


async def test_wrong_credentials_are_named(daemon: Bitcoind) -> None:
    stranger = RpcClient(daemon.url, Credentials(user="leyden", password="wrong"))
    with pytest.raises(RpcUnavailable, match="credentials"):
        await stranger.call("getblockcount")
    await stranger.close()


async def test_the_cookie_is_read_again(tmp_path: Path) -> None:
    missing = RpcClient("http://127.0.0.1:1", Credentials(cookie_file=tmp_path / "cookie"))
    with pytest.raises(RpcUnavailable):
        await missing.call("getblockcount")
    await missing.close()


async def test_errors_carry_the_code(daemon: Bitcoind) -> None:
    rpc = client(daemon)
    with pytest.raises(RpcRefused) as caught:
        await rpc.call("getblockhash", 10_000_000)
    assert caught.value.code == -8
    assert await rpc.batch("getblockhash", [(0,), (1,)]) == [daemon.rpc("getblockhash", n) for n in (0, 1)]
    await rpc.close()


async def test_outputs_are_found_spent_or_unknown(daemon: Bitcoind) -> None:
    source = node(daemon)
    script = decode_address(daemon.rpc("getnewaddress"), Network.REGTEST)
    tx = await Control(daemon).pay(script, Sat(123_456))
    vout = next(i for i, output in enumerate(tx.outputs) if output.script == script)
    outpoint = OutPoint(tx.txid, vout)
    assert isinstance(await source.find_utxo(outpoint), UtxoUnknown)  # not confirmed yet
    daemon.mine()
    found = await source.find_utxo(outpoint)
    assert isinstance(found, UtxoFound)
    assert (found.output.value, found.height, found.coinbase) == (123_456, daemon.rpc("getblockcount"), False)
    assert isinstance(await source.find_utxo(tx.inputs[0].prevout), UtxoSpent)
    assert isinstance(await source.find_utxo(OutPoint(Txid(bytes(32)), 0)), UtxoUnknown)
    await source.stop()


async def test_broadcasting_says_why_not_and_takes_what_is_known(daemon: Bitcoind) -> None:
    source = node(daemon)
    tx = await Control(daemon).pay(decode_address(daemon.rpc("getnewaddress"), Network.REGTEST), Sat(50_000))
    assert (await source.broadcast([tx], BroadcastKind.WALLET)).accepted  # in the mempool already
    daemon.mine()
    assert (await source.broadcast([tx], BroadcastKind.WALLET)).accepted  # confirmed already
    stray = Transaction(
        version=2,
        inputs=(TxIn(prevout=OutPoint(Txid(b"\x01" * 32), 0), sequence=0xFFFFFFFD),),
        outputs=(TxOut(value=Sat(1000), script=tx.outputs[0].script),),
        locktime=0,
    )
    refused = await source.broadcast([stray], BroadcastKind.WALLET)
    assert not refused.accepted
    assert "missing" in refused.reason
    await source.stop()


async def test_feerates_fall_back_on_a_test_network(daemon: Bitcoind) -> None:
    source = node(daemon)
    assert await source.estimate(FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE) == 253
    assert (await source.estimate(FeeTarget.URGENT_SWEEP) or 0) > 253
    await source.stop()


async def test_a_block_is_told_at_once_over_zmq(daemon: Bitcoind) -> None:
    """``poll_seconds`` is 30: the latency is ZMQ's."""
    source = node(daemon, zmq=True)
    height = daemon.rpc("getblockcount")
    await source.start((), BlockHeight(height))
    await following(source, height)
    waiting = asyncio.ensure_future(following(source, height + 1))
    await asyncio.sleep(0.2)
    began = time.perf_counter()
    await asyncio.to_thread(daemon.mine)
    await waiting
    assert time.perf_counter() - began < 5
    await source.stop()


def test_the_suite_is_the_one_that_is_shipped() -> None:
    assert suite.ChainSourceSuite is ChainSourceSuite
