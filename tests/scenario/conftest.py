"""Whole nodes over real sockets, with SQLite, on an embedded chain in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from leyden.bitcoin import Network, decode_address
from leyden.channel import ChannelPolicy
from leyden.hooks import hookimpl
from leyden.hooks.registry import Registry
from leyden.node import NO_RESERVE, AnchorReserve, ChainSettings, HookDispatcher, Node, NodeConfig, Services
from leyden.types import FeeRatePerKw, Msat, NodeId, Sat
from leyden_inmemory import InMemoryKeyManager
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.inprocess import InProcessChain
from leyden_sqlite.store import SqliteStore
from leyden_wallet.wallet import OnchainWallet

from tests.scenario.sim_kit import BusyNode

POLICY = ChannelPolicy(minimum_depth=3)
CHAIN = ChainSettings()


class World:
    """A chain and the nodes on it; every node is stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.chain = EmbeddedChain(folder / "chain")
        self.nodes: list[Node] = []

    async def start(
        self,
        name: str,
        hooks: HookDispatcher | None = None,
        policy: ChannelPolicy = POLICY,
        adapt: Callable[[Services], Services] = lambda services: services,
        reserve: AnchorReserve = NO_RESERVE,
        loaded: Callable[[Node], Awaitable[None]] | None = None,
        chain: ChainSettings = CHAIN,
    ) -> Node:
        """A node called ``name``: the same name is the same keys and the same database.

        ``adapt`` may replace services before the node starts.
        """
        data = self.folder / name
        data.mkdir(mode=0o700, exist_ok=True)
        keys = InMemoryKeyManager(name.encode().ljust(32, b"\x01"), Network.REGTEST)
        source = InProcessChain(self.chain, FeeRatePerKw(1000))
        services = Services(
            store=SqliteStore(data / "node.sqlite"),
            chain_source=source,
            broadcasters=[source],
            fee_estimators=[source],
            wallet=OnchainWallet(),
            node_identity=keys,
            channel_signer=keys.channel_signer,
            onchain_signer=keys,
            destinations=keys,
            payment_approval=keys,
        )
        config = NodeConfig(
            network=Network.REGTEST, listen=("127.0.0.1", 0), policy=policy, anchor_reserve=reserve, chain=chain
        )
        node = await Node.start(config, adapt(services), hooks, loaded=loaded)
        self.nodes.append(node)
        return node

    async def stop(self, node: Node) -> None:
        self.nodes.remove(node)
        await node.stop()

    async def fund(self, node: Node, amount: int) -> None:
        script = decode_address(await node.new_address(), Network.REGTEST)
        self.chain.faucet(script, Sat(amount))
        await self.mine(1)
        await until(lambda: node.wallet_balance().confirmed >= amount)

    async def mine(self, count: int) -> None:
        """Mine, and wait until every node has followed."""
        await until(lambda: not any(node.core.tracker._asked for node in self.nodes))  # what was broadcast has arrived
        self.chain.mine(count)
        await until(lambda: all(node.info().height == self.chain.height for node in self.nodes))

    async def connect(self, dialler: Node, listener: Node) -> None:
        if listener.address is None:
            raise AssertionError("the listener does not listen")
        await dialler.connect(NodeId(listener.node_id), *listener.address)

    async def channel(self, funder: Node, fundee: Node, amount: int = 1_000_000, push_msat: int = 0) -> bytes:
        """An open channel, usable on both sides."""
        await self.connect(funder, fundee)
        channel_id = await funder.open_channel(fundee.node_id, Sat(amount), push=Msat(push_msat))
        await self.mine(4)
        await until(lambda: usable(funder) and usable(fundee))
        return channel_id


def with_plugins(**plugins: object) -> HookDispatcher:
    """A dispatcher that asks these objects, whose hooks are marked with ``hookimpl``."""
    registry = Registry(())
    for name, plugin in plugins.items():
        registry.enable(name, plugin)
    return HookDispatcher(registry.manager, registry.failures)


class Cashier:
    """A plugin that lets payments wait until the test opens the till."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0

    @hookimpl
    async def leyden_accept_payment(self, payment: object) -> bool:
        self.waiting += 1
        await self.open.wait()
        return True


def usable(node: Node) -> bool:
    return any(channel.usable for channel in node.channels())


async def until(reached: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a state; ``seconds`` are for a machine that is very busy."""
    async with asyncio.timeout(seconds):
        while not reached():
            await asyncio.sleep(0.01)


@pytest.fixture
def expected_errors() -> set[str]:
    """Names of log events that this test provokes at error level; add to it."""
    return set()


@pytest.fixture(autouse=True)
def quiet_logs(expected_errors: set[str]) -> Iterator[list[MutableMapping[str, Any]]]:
    """What was logged; an error that no test asked for fails the test."""
    with structlog.testing.capture_logs() as entries:
        yield entries
    for entry in entries:
        print(entry)  # shown when the test fails
    provoked = "disk failure asked for by the test"  # ``MemoryStore.fail_next``
    errors = [
        entry
        for entry in entries
        if entry["log_level"] in ("error", "critical")
        and entry["event"] not in expected_errors
        and entry.get("reason") != provoked
    ]
    assert not errors, f"unexpected errors in the log: {errors[:3]}"


@pytest.fixture(autouse=True)
async def no_task_left() -> AsyncIterator[None]:
    yield
    stray = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()]
    assert not stray, f"tasks left behind: {stray}"


@pytest.fixture
async def world(tmp_path: Path, no_task_left: None, quiet_logs: object) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    for node in list(world.nodes):
        await world.stop(node)
    world.chain.close()


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[BusyNode]:
    """A node with a channel that must work at the end, too."""
    made = BusyNode(tmp_path)
    yield made
    made.check()
    made.close()
