"""The wallet's PSBTs, replacements and packages before the policy of a real bitcoind."""

import asyncio
import base64
from collections.abc import AsyncIterator

import pytest
from leyden.bitcoin import Network, Transaction, encode_address, finalize_psbt, parse_block, parse_psbt, take_signatures
from leyden.hooks.signing import SignPsbt, SpendPurpose
from leyden.hooks.types import (
    BlockConnected,
    BlockTransaction,
    BroadcastKind,
    DestinationPurpose,
    FundedTransaction,
    SourceSynced,
)
from leyden.testing.wallet import PREFIX, Bench, stranger
from leyden.types import BlockHeight, FeeRatePerKw
from leyden_bitcoind import BitcoindNode, Credentials, RpcClient
from leyden_bitcoind.news import News
from leyden_inmemory import InMemoryKeyManager
from leyden_wallet import OnchainWallet
from msgspec.structs import replace

from tests.testbed.bitcoind import Bitcoind

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


def parsed(block: BlockConnected) -> BlockConnected:
    """With its transactions instead of its bytes; a node has the follower for this."""
    found = enumerate(parse_block(block.raw).transactions)
    return replace(block, raw=b"", transactions=tuple(BlockTransaction(position=n, tx=tx) for n, tx in found))


class BitcoindBench(Bench):
    def __init__(self, daemon: Bitcoind, seed: bytes) -> None:
        super().__init__(OnchainWallet())
        self.daemon = daemon
        self.keys = InMemoryKeyManager(seed, Network.REGTEST)
        client = RpcClient(daemon.url, Credentials(user=daemon.user, password=daemon.password))
        self.node = BitcoindNode(client, Network.REGTEST, News([]), poll_seconds=0.05)

    async def start(self) -> None:
        await self.wallet.load(PREFIX, sorted(self.rows.items()), self.keys)
        await self.node.start((), BlockHeight(0))
        await self.sync()

    async def sync(self) -> None:
        async with asyncio.timeout(30):
            async for event in self.node.events():
                if isinstance(event, BlockConnected):
                    self.height = event.height
                    self.keep(self.wallet.on_block_connected(parsed(event)))
                elif isinstance(event, SourceSynced) and event.height == self.daemon.rpc("getblockcount"):
                    return

    async def mine(self, blocks: int = 1) -> None:  # type: ignore[override]  # real blocks are waited for
        self.daemon.mine(blocks)
        await self.sync()

    async def receive(self, *payments: tuple[DestinationPurpose, int]) -> None:
        for purpose, value in payments:
            address = encode_address(self.script(purpose), Network.REGTEST)
            self.daemon.rpc("sendtoaddress", address, value / 100_000_000)
        await self.mine()

    async def signed(self, funded: FundedTransaction) -> Transaction:
        """Signed here; and what bitcoind makes of the same PSBT is the same transaction."""
        request = SignPsbt(request_id="test", psbt=funded.psbt, purpose=SpendPurpose.WITHDRAWAL)
        signed = await self.keys.sign_psbt(request)
        tx = finalize_psbt(take_signatures(parse_psbt(funded.psbt), parse_psbt(signed)))
        told = self.daemon.rpc("finalizepsbt", base64.b64encode(signed).decode())
        assert told["complete"]
        assert told["hex"] == tx.serialize().hex()
        return tx

    async def submit(self, *package: Transaction) -> str:
        self.broadcast(package[-1])
        return (await self.node.broadcast(package, BroadcastKind.WALLET)).reason


@pytest.fixture
async def bench(daemon: Bitcoind, request: pytest.FixtureRequest) -> AsyncIterator[BitcoindBench]:
    """A wallet of its own for each test."""
    bench = BitcoindBench(daemon, request.node.name.encode().ljust(32)[:32])
    await bench.start()
    yield bench
    await bench.node.stop()


BOTH = (DestinationPurpose.RECEIVE, DestinationPurpose.RECEIVE_TAPROOT)


async def test_replaced_and_mined(bench: BitcoindBench, daemon: Bitcoind) -> None:
    await bench.receive(*((purpose, 100_000) for purpose in BOTH))
    old = await bench.signed(bench.fund("old", (150_000, stranger(1)), feerate=FeeRatePerKw(300)))
    assert await bench.submit(old) == ""
    funded = bench.bump("new", old.txid, 305)  # as little more as the rules allow
    new = await bench.signed(funded)
    assert await bench.submit(new) == ""
    assert new.txid[::-1].hex() in daemon.rpc("getrawmempool")
    assert old.txid[::-1].hex() not in daemon.rpc("getrawmempool")
    await bench.mine()
    assert bench.wallet.balance().confirmed == 50_000 - funded.fee
    assert bench.wallet.balance().unconfirmed == 0


async def test_a_child_and_its_parent_as_a_package(bench: BitcoindBench, daemon: Bitcoind) -> None:
    """bitcoind has not seen the parent before; what both pay together is what a miner goes by."""
    await bench.receive((BOTH[1], 100_000))
    funded = bench.fund("parent", (30_000, stranger(1)), feerate=FeeRatePerKw(260))
    parent = await bench.signed(funded)
    bench.broadcast(parent)
    paying = bench.bump("child", parent.txid, 5_000, cpfp=True)
    child = await bench.signed(paying)
    assert await bench.submit(parent, child) == ""
    entry = daemon.rpc("getmempoolentry", child.txid[::-1].hex())
    assert entry["ancestorcount"] == 2
    assert 4_000 * (funded.fee + paying.fee) >= 5_000 * 4 * entry["ancestorsize"] - 4_000 * 40
    assert await bench.submit(parent, child) == ""
    await bench.mine()
    assert bench.wallet.balance().confirmed == 70_000 - funded.fee - paying.fee


async def test_descriptors_import(daemon: Bitcoind) -> None:
    """A watching wallet of bitcoind finds the same addresses."""
    keys = InMemoryKeyManager(b"\x03" * 32, Network.REGTEST)
    for purpose, text in zip(DestinationPurpose, await keys.descriptors(), strict=True):
        assert daemon.rpc("getdescriptorinfo", text)["descriptor"] == text
        derived = daemon.rpc("deriveaddresses", text, [0, 2])
        ours = [(await keys.destination(purpose, index)).script for index in range(3)]
        assert derived == [encode_address(script, Network.REGTEST) for script in ours]
