"""A start from far behind: it can be watched, it commits in batches, and it goes on where it was cut off."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.hooks.types import BlockConnected, SourceTip, SourceTrouble
from leyden.node import ChainSettings, Node, Services
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, LeydenError
from leyden_cli.client import CallFailed, Client
from leyden_cli.config import read_config
from leyden_cli.run import _Socket
from leyden_regtest.inprocess import InProcessChain

from tests.scenario.conftest import World, until, with_plugins

BLOCKS = 300


class Gated:
    """The real source, which stops after some blocks until the test lets it go on."""

    def __init__(self, inner: Any, blocks: int) -> None:
        self._inner = inner
        self._left = blocks
        self.open = asyncio.Event()
        self.starts: list[Sequence[tuple[BlockHeight, BlockHash]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth: BlockHeight) -> None:
        self.starts.append(locator)
        await self._inner.start(locator, birth)

    async def events(self) -> AsyncIterator[Any]:
        yield SourceTip(height=BlockHeight(self._inner._chain.height))
        async for event in self._inner.events():
            if isinstance(event, BlockConnected):
                if not self._left:
                    await self.open.wait()
                self._left -= 1
            yield event


async def begin(world: World, blocks: int, nodes: list[Node], sources: list[Gated]) -> "asyncio.Future[Node]":
    def gated(services: Services) -> Services:
        sources.append(Gated(services.chain_source, blocks))
        return msgspec.structs.replace(services, chain_source=sources[-1])

    async def loaded(node: Node) -> None:
        nodes.append(node)

    before = len(nodes)
    starting = asyncio.ensure_future(world.start("alice", adapt=gated, loaded=loaded))
    await until(lambda: len(nodes) > before and (starting.done() or nodes[-1].info().blocks_done >= blocks))
    return starting


async def test_a_catch_up_shows_itself_and_goes_on_after_a_restart(world: World) -> None:
    world.chain.mine(BLOCKS)
    nodes: list[Node] = []
    sources: list[Gated] = []
    starting = await begin(world, 150, nodes, sources)
    info = nodes[0].info()
    assert not info.synced
    assert (info.height, info.chain_tip) == (149, world.chain.height)
    assert (info.blocks_done, info.blocks_total) == (150, world.chain.height + 1)
    assert info.blocks_per_second > 0
    assert nodes[0].core.engine.commits < 20  # 150 blocks
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    starting = await begin(world, 100, nodes, sources)
    assert sources[1].starts[0][0][0] == 149  # where it was cut off
    info = nodes[1].info()
    assert (info.height, info.blocks_done, info.blocks_total) == (249, 100, world.chain.height - 149)
    sources[1].open.set()
    node = await starting
    info = node.info()
    assert info.synced
    assert (info.height, info.blocks_done, info.blocks_total) == (world.chain.height, 0, 0)


async def test_the_socket_answers_before_the_tip_is_reached(world: World, tmp_path: Path) -> None:
    world.chain.mine(50)
    stops: list[bool] = []
    config = read_config({"network": "regtest", "chain_source": "x", "data_dir": str(tmp_path)}, tmp_path / "c.toml")
    socket = _Socket(config, with_plugins(), lambda: stops.append(True))
    sources: list[Gated] = []

    def gated(services: Services) -> Services:
        sources.append(Gated(services.chain_source, 100))
        return msgspec.structs.replace(services, chain_source=sources[-1])

    starting = asyncio.ensure_future(world.start("alice", adapt=gated, loaded=socket.open))
    try:
        await until(config.socket.exists)
        async with await Client.connect(config.socket) as client:
            while (await client.info()).blocks_done < 100:
                await asyncio.sleep(0.01)
            with pytest.raises(CallFailed, match=r"still following the chain \(block 99 of 160\)"):
                await client.address()
            await client.stop()
            assert stops
            sources[0].open.set()
            await starting
            socket.ready = True
            assert await client.address()
    finally:
        await socket.close()


class Absent:
    """A source whose backend is not there."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.back = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def events(self) -> AsyncIterator[Any]:
        yield SourceTrouble(reason="connection refused")
        await self.back.wait()
        yield SourceTrouble(reason="")
        async for event in self._inner.events():
            yield event


async def test_a_node_starts_over_its_second_source_and_returns_to_the_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leyden.node.chainmonitor.CHECK_SECONDS", 0.05)
    first: list[Absent] = []

    def both(services: Services) -> Services:
        first.append(Absent(services.chain_source))
        second = InProcessChain(world.chain, FeeRatePerKw(1000))
        return msgspec.structs.replace(
            services, chain_source=first[0], chain_fallbacks=[second], names={"chain_source": ["one", "two"]}
        )

    alice = await world.start("alice", adapt=both, chain=ChainSettings(failover_seconds=0, return_seconds=0))
    assert alice.info().chain_source == "two"
    assert alice.info().synced
    await world.mine(2)
    first[0].back.set()
    await until(lambda: alice.info().chain_source == "one")
    await world.mine(2)
    assert alice.info().synced
    assert not alice.info().chain_degraded


async def test_a_verifier_runs_beside_the_source(world: World) -> None:
    verifiers: list[InProcessChain] = []

    def verified(services: Services) -> Services:
        verifiers.append(InProcessChain(world.chain, FeeRatePerKw(1000)))
        return msgspec.structs.replace(services, chain_verifiers=verifiers)

    alice = await world.start("alice", adapt=verified)
    bob = await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    (source, verifier) = alice.core.chain.runners()
    await until(lambda: verifier.synced and verifier.follower.best_hash == source.follower.best_hash)
    assert not alice.info().chain_degraded


async def test_a_first_source_that_can_never_work_refuses_the_start(world: World) -> None:
    class Wrong(Absent):
        async def start(self, *_arguments: Any) -> None:
            raise LeydenError("bitcoind is on 'main', this node on 'regtest'")

    def wrong(services: Services) -> Services:
        return msgspec.structs.replace(
            services, chain_source=Wrong(services.chain_source), chain_fallbacks=[services.chain_source]
        )

    with pytest.raises(LeydenError, match="bitcoind is on 'main'"):
        await world.start("alice", adapt=wrong)
