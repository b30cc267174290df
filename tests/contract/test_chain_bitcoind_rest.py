"""The bitcoind plugin over bitcoind's REST interface: the conformance kit, and what happens where REST says no."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from leyden.bitcoin import Network
from leyden.hooks.errors import PluginError
from leyden.testing.chain import ChainBed, ChainSourceSuite
from leyden.types import BlockHash
from leyden_bitcoind import BitcoindNode, Credentials, RpcClient, RpcUnavailable
from leyden_bitcoind.blocks import Blocks
from leyden_bitcoind.news import News

from tests.testbed import start_or_skip
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.bitcoind_control import BitcoindControl

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    bitcoind = start_or_skip(lambda: Bitcoind(tmp_path_factory.mktemp("bitcoind"), options=("-rest",)).start())
    bitcoind.make_wallet()
    yield bitcoind
    bitcoind.stop()


class Noting(RpcClient):
    """Notes how blocks were asked for. ``spoil``: what becomes of REST's answers."""

    def __init__(self, daemon: Bitcoind) -> None:
        super().__init__(daemon.url, Credentials(user=daemon.user, password=daemon.password))
        self.asked: list[str] = []
        self.spoil: Callable[[bytearray | None], bytearray | None] = lambda answer: answer

    async def get(self, path: str) -> bytearray | None:
        self.asked.append("REST")
        return self.spoil(await super().get(path))

    async def call_hex(self, method: str, *params: object) -> bytes:
        self.asked.append("RPC")
        return await super().call_hex(method, *params)


@pytest.fixture
async def client(daemon: Bitcoind) -> AsyncIterator[Noting]:
    made = Noting(daemon)
    yield made
    await made.close()


def hash_at(daemon: Bitcoind, height: int) -> BlockHash:
    return BlockHash(bytes.fromhex(daemon.rpc("getblockhash", height))[::-1])


def block_at(daemon: Bitcoind, height: int) -> bytes:
    return bytes.fromhex(daemon.rpc("getblock", daemon.rpc("getblockhash", height), 0))


class TestOverRest(ChainSourceSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind) -> Iterator[ChainBed]:
        made: list[Noting] = []

        def make() -> BitcoindNode:
            made.append(Noting(daemon))
            return BitcoindNode(made[-1], Network.REGTEST, News([]), poll_seconds=0.05)

        yield ChainBed(make_source=make, control=BitcoindControl(daemon))
        asked = [each for client in made for each in client.asked]
        assert "REST" in asked


async def test_blocks_come_by_rest_alone(daemon: Bitcoind, client: Noting) -> None:
    blocks = Blocks(client)
    for height in (1, 50, 110):
        assert await blocks.fetch(hash_at(daemon, height)) == block_at(daemon, height)
    assert client.asked == ["REST"] * 3


async def test_without_rest_it_is_asked_for_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = start_or_skip(lambda: Bitcoind(tmp_path_factory.mktemp("plain")).start())
    try:
        own = Noting(plain)
        blocks = Blocks(own)
        for _ in range(2):
            assert await blocks.fetch(hash_at(plain, 0)) == block_at(plain, 0)
        assert own.asked == ["REST", "RPC", "RPC"]
        blocks.look_for_rest()
        assert await blocks.fetch(hash_at(plain, 0)) == block_at(plain, 0)
        assert own.asked == ["REST", "RPC", "RPC", "REST", "RPC"]
        await own.close()
    finally:
        plain.stop()


@pytest.mark.parametrize("height", [2, None])
async def test_another_block_by_rest_is_not_taken(daemon: Bitcoind, client: Noting, height: int | None) -> None:
    client.spoil = lambda _: bytearray(b"" if height is None else block_at(daemon, height))
    assert await Blocks(client).fetch(hash_at(daemon, 1)) == block_at(daemon, 1)
    assert client.asked == ["REST", "RPC"]


async def test_another_block_by_rpc_is_an_error(
    daemon: Bitcoind, client: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bitcoind does that: what stands in for it is a proxy that mixes up answers."""

    async def mixed_up(method: str, *params: object) -> bytes:
        return block_at(daemon, 2)

    monkeypatch.setattr(client, "call_hex", mixed_up)
    client.spoil = lambda _: None
    with pytest.raises(RpcUnavailable, match="another block than"):
        await Blocks(client).fetch(hash_at(daemon, 1))


async def test_a_block_that_is_not_there_is_told_in_words(daemon: Bitcoind) -> None:
    source = BitcoindNode(Noting(daemon), Network.REGTEST, News([]))
    with pytest.raises(PluginError, match="bitcoind does not know block 6666"):
        await source.get_block(BlockHash(b"\x66" * 32))
    await source.stop()
