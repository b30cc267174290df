"""A Leyden node and a real peer on one real bitcoind. Waits for states, never for time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from leyden.bitcoin import Network
from leyden.channel import ChannelPolicy
from leyden.hooks.types import ChannelClosed
from leyden.node import NO_RESERVE, Node, NodeConfig, Services
from leyden.node.views import ChannelView
from leyden.types import ChannelId, NodeId
from leyden_bitcoind import BitcoindNode, Credentials, RpcClient
from leyden_bitcoind.news import News
from leyden_inmemory import InMemoryKeyManager
from leyden_sqlite.store import SqliteStore
from leyden_wallet.wallet import OnchainWallet

from tests.testbed import start_or_skip
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.electrum import Electrum
from tests.testbed.electrum_server import ElectrumServer

T = TypeVar("T")
BTC = 100_000_000
POLICY = ChannelPolicy(minimum_depth=3)


class Bed:
    """bitcoind, the Electrum server and one Electrum with coins; started once for all tests of a module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bitcoind = Bitcoind(folder / "bitcoind")
        self.server = ElectrumServer(folder / "server", self.bitcoind)
        self.electrum = Electrum(folder / "electrum", self.server)

    def start(self) -> "Bed":
        try:
            self.bitcoind.start().make_wallet()
            self.server.start()
            self.electrum.start()
            self.bitcoind.rpc("sendtoaddress", self.electrum.rpc("getunusedaddress"), 1)
            self.bitcoind.mine()
            self.electrum.wait(lambda: self.electrum.confirmed_sat() == BTC, what="to see its coins")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        self.electrum.stop()
        self.server.stop()
        self.bitcoind.stop()


class Story:
    """One Leyden node beside the bed. The peer's commands run in a thread, for our node has to answer meanwhile."""

    def __init__(self, bed: Bed, node: Node) -> None:
        self.bed = bed
        self.node = node

    @property
    def electrum(self) -> Electrum:
        return self.bed.electrum

    async def ask(self, method: str, **params: Any) -> Any:
        return await asyncio.to_thread(self.electrum.rpc, method, **params)

    async def until(self, reached: Callable[[], T], what: str, seconds: float = 40.0) -> T:
        """``reached`` may ask the peer; what it returned when it was true."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := await asyncio.to_thread(reached)):
                    await asyncio.sleep(0.05)
                return found
        except TimeoutError:
            ours, theirs = self.node.channels(), self.electrum.channels()
            raise AssertionError(f"it did not come to this: {what}; ours: {ours}; theirs: {theirs}") from None

    async def mine(self, count: int = 1) -> None:
        """Mine; both sides have followed when this returns."""
        await asyncio.to_thread(self.bed.bitcoind.mine, count)
        height = self.bed.bitcoind.rpc("getblockcount")
        await self.until(lambda: self.node.info().height == height, "our node follows the chain")
        await self.until(lambda: self.electrum.height() == height, "the peer follows the chain")

    async def in_mempool(self, txid: str) -> None:
        await self.until(lambda: txid in self.bed.bitcoind.rpc("getrawmempool"), f"{txid} is broadcast")

    async def fund(self, amount: int) -> None:
        address = await self.node.new_address()
        self.bed.bitcoind.rpc("sendtoaddress", address, amount / BTC)
        await self.mine()
        await self.until(lambda: self.node.wallet_balance().confirmed == amount, "our coins are there")

    async def connect(self) -> None:
        node_id = NodeId(bytes.fromhex(await asyncio.to_thread(lambda: self.electrum.node_id)))
        await self.node.connect(node_id, "127.0.0.1", self.electrum.port)

    async def usable(self) -> tuple[ChannelView, dict[str, Any]]:
        """Our side and theirs of the one channel between us, open on both."""

        def both() -> tuple[ChannelView, dict[str, Any]] | None:
            ours = [channel for channel in self.node.channels() if channel.usable]
            theirs = [c for c in self.theirs() if c["state"] == "OPEN" and c["peer_state"] == "GOOD"]
            return (ours[0], theirs[0]) if ours and theirs else None

        found = await self.until(both, "the channel is usable on both sides")
        assert found is not None
        return found

    def theirs(self) -> list[dict[str, Any]]:
        """The peer's channels with this node."""
        own = self.node.node_id.hex()
        return [channel for channel in self.electrum.channels() if channel["remote_pubkey"] == own]

    async def balances(self, ours: int, theirs: int) -> None:
        """In sat, seen from both sides, with nothing in flight."""

        def settled() -> bool:
            near, far = self.node.channels()[0], self.theirs()[0]
            return (
                near.htlcs == 0
                and (near.local_msat, near.remote_msat) == (ours * 1000, theirs * 1000)
                and (far["local_balance"], far["remote_balance"]) == (theirs, ours)
                and far["local_unsettled_sent"] == far["remote_unsettled_sent"] == 0
            )

        await self.until(settled, f"balances {ours} and {theirs}")

    async def gone(self, channel_id: ChannelId) -> ChannelClosed:
        """Mined until the close is irrevocable on our side; returns what the event log says of it."""
        await self.mine(6)
        await self.until(lambda: not self.node.channels(), "our channel is gone")
        events = [logged.event for logged in await self.node.events()]
        (closed,) = (e for e in events if isinstance(e, ChannelClosed) and e.channel_id == channel_id)
        return closed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    made = start_or_skip(lambda: Bed(tmp_path_factory.mktemp("bed")).start())
    yield made
    made.stop()


@pytest.fixture
async def story(bed: Bed, tmp_path: Path) -> AsyncIterator[Story]:
    keys = InMemoryKeyManager(str(tmp_path).encode()[-32:].rjust(32, b"\x01"), Network.REGTEST)
    (tmp_path / "leyden").mkdir(mode=0o700)
    client = RpcClient(bed.bitcoind.url, Credentials(user=bed.bitcoind.user, password=bed.bitcoind.password))
    chain = BitcoindNode(client, Network.REGTEST, News([bed.bitcoind.zmq]), poll_seconds=0.2)
    services = Services(
        store=SqliteStore(tmp_path / "leyden" / "node.sqlite"),
        chain_source=chain,
        broadcasters=[chain],
        fee_estimators=[chain],
        wallet=OnchainWallet(),
        node_identity=keys,
        channel_signer=keys.channel_signer,
        onchain_signer=keys,
        destinations=keys,
        payment_approval=keys,
    )
    config = NodeConfig(network=Network.REGTEST, listen=("127.0.0.1", 0), policy=POLICY, anchor_reserve=NO_RESERVE)
    node = await Node.start(config, services)
    yield Story(bed, node)
    await node.stop()


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What we logged; shown when a test fails, and an error is a failure."""
    with structlog.testing.capture_logs() as entries:
        yield entries
    for entry in entries:
        print(entry)
    errors = [entry for entry in entries if entry["log_level"] in ("error", "critical")]
    assert not errors
