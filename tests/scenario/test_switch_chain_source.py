"""A node with open channels changes from bitcoind to Electrum servers and back: an edit of its config and a restart."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from leyden.node.views import ChannelView
from leyden_cli.addresses import parse_peer
from leyden_cli.config import config_path
from leyden_cli.demo.ports import free_port
from leyden_cli.demo.processes import DemoNode, wait_until
from leyden_cli.initialize import initialize_node

from tests.testbed import running
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.electrum_server import ElectrumServer

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Bitcoind]:
    with running.bitcoind(tmp_path / "bitcoind") as daemon:
        yield daemon


@pytest.fixture
def server(daemon: Bitcoind, tmp_path: Path) -> Iterator[ElectrumServer]:
    with running.electrum_server(tmp_path / "electrum", daemon) as server:
        yield server


class World:
    """Two nodes as processes whose configs name both sources and use one."""

    def __init__(self, folder: Path, daemon: Bitcoind, server: ElectrumServer) -> None:
        self.daemon = daemon
        self.server = server
        (folder / "password").write_text(daemon.password)
        tables = {
            "bitcoind": {
                "url": daemon.url,
                "user": daemon.user,
                "password_file": str(folder / "password"),
                "zmq": [daemon.zmq],
            },
            "electrum": {"servers": [f"127.0.0.1:{server.port}:t"]},
        }
        self.alice, self.bob = (DemoNode(name, folder, {}) for name in ("alice", "bob"))
        for node in (self.alice, self.bob):
            initialize_node(node.folder, chain_source="bitcoind", listen=f"127.0.0.1:{free_port()}", tables=tables)

    async def start(self) -> None:
        await asyncio.gather(self.alice.start(), self.bob.start())

    async def connect(self) -> None:
        node_id, host, port = parse_peer(self.bob.ready.address or "")
        await self.alice.client.connect_peer(node_id.hex(), host, port)

    async def switch(self, node: DemoNode, source: str) -> None:
        """Stop it, edit its config, start it again; the chain has grown meanwhile."""
        await node.stop()
        path = config_path(node.folder)
        lines = path.read_text().splitlines()
        places = [index for index, line in enumerate(lines) if line.startswith("chain_source = ")]
        lines[places[0]] = f'chain_source = "{source}"'
        path.write_text("\n".join(lines) + "\n")
        self.daemon.mine(2)
        self.server.wait_for_tip()
        await node.start()

    async def mine(self, blocks: int) -> None:
        self.daemon.mine(blocks)
        self.server.wait_for_tip()
        height = self.daemon.rpc("getblockcount")

        async def arrived() -> bool:
            return all([(await node.client.info()).height >= height for node in (self.alice, self.bob)])

        await wait_until(f"both nodes know block {height}", arrived)

    async def open_channel(self, sat: int) -> str:
        """Alice opens; usable on both sides."""
        before = {channel.channel_id for channel in await self.alice.client.channels()}
        await self.alice.client.open_channel(self.bob.node_id, sat, push_msat=sat * 300)
        (opened,) = [c for c in await self.alice.client.channels() if c.channel_id not in before]
        txid = (opened.funding or "").partition(":")[0]

        async def is_known() -> bool:
            return txid in self.daemon.rpc("getrawmempool")

        await wait_until("the funding transaction is broadcast", is_known)
        await self.mine(6)
        await self.usable(len(before) + 1)
        return opened.funding or ""

    async def usable(self, count: int) -> None:
        async def check() -> bool:
            found = [await node.client.channels() for node in (self.alice, self.bob)]
            return all(sum(channel.usable for channel in channels) == count for channels in found)

        await wait_until(f"{count} channels are usable on both sides", check)

    async def pay(self, payer: DemoNode, payee: DemoNode, sat: int) -> None:
        invoice = await payee.client.invoice(sat * 1000, f"{payer.name} to {payee.name}")
        paid = await payer.client.pay(invoice.bolt11)
        assert paid.status == "succeeded"

    async def pay_both_ways(self) -> None:
        await self.pay(self.alice, self.bob, 2_000)
        await self.pay(self.bob, self.alice, 1_000)

    async def channel(self, node: DemoNode, funding: str) -> ChannelView | None:
        return next((c for c in await node.client.channels() if c.funding == funding), None)


@pytest.fixture
async def world(tmp_path: Path, daemon: Bitcoind, server: ElectrumServer) -> AsyncIterator[World]:
    made = World(tmp_path, daemon, server)
    yield made
    for node in (made.alice, made.bob):
        await node.kill()


async def test_a_node_with_channels_changes_its_chain_source_and_back(world: World) -> None:
    alice, bob = world.alice, world.bob
    await world.start()
    for node in (alice, bob):
        world.daemon.rpc("sendtoaddress", await node.client.address(), "0.1")
    await world.mine(1)
    await world.connect()
    first = await world.open_channel(2_000_000)
    await world.pay_both_ways()
    coins = (await alice.client.balance()).confirmed_sat

    # over to an Electrum server; the other node stays where it is
    await world.switch(alice, "electrum")
    await world.connect()
    await world.usable(1)
    await world.pay_both_ways()
    assert (await alice.client.balance()).confirmed_sat == coins
    second = await world.open_channel(1_000_000)
    await world.pay_both_ways()

    # back again, and the other one over
    await world.switch(alice, "bitcoind")
    await world.switch(bob, "electrum")
    await world.connect()
    await world.usable(2)
    await world.pay_both_ways()

    # a close together, which one sees through bitcoind and the other through its server
    found = await world.channel(alice, first)
    assert found is not None
    await alice.client.close_channel(found.channel_id)

    async def is_broadcast() -> bool:
        return len(world.daemon.rpc("getrawmempool")) > 0

    await wait_until("the closing transaction is broadcast", is_broadcast)
    await world.mine(6)

    async def one_left() -> bool:
        return [len(await node.client.channels()) for node in (alice, bob)] == [1, 1]

    await wait_until("both have closed the first channel", one_left)

    # a close alone while the other node is away, which then wakes up with an Electrum server
    await alice.stop()
    found = await world.channel(bob, second)
    assert found is not None
    await bob.client.close_channel(found.channel_id, force=True)
    await wait_until("the commitment transaction is broadcast", is_broadcast)
    world.daemon.mine(1)
    await alice.start()
    await world.switch(alice, "electrum")
    await world.mine(6)

    async def is_seen() -> bool:
        events = await alice.client.events(limit=1000)
        return any(one.type == "channel_closed" and one.facts["how"] == "remote_force" for one in events)

    await wait_until("alice has seen that bob closed alone", is_seen)
