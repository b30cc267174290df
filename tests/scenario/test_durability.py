"""Disks that fill up, databases that belong to somebody else, two nodes on one database."""

import asyncio
import sqlite3
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import Network
from leyden.hooks.services import StoreFenced
from leyden.hooks.types import Alarm
from leyden.node import Node, NodeConfig, Services
from leyden.node.engine import StorageDegraded
from leyden.types import ChannelId, LeydenError, Msat
from leyden_inmemory import InMemoryKeyManager
from leyden_sqlite.store import SqliteStore

from tests.scenario.conftest import Cashier, World, until, usable, with_plugins

Log = list[MutableMapping[str, Any]]


class SmallDisk(SqliteStore):
    """A store on a disk that has no page left while ``full``."""

    full = False

    def _connect(self, network: Network) -> sqlite3.Connection:
        connection = super()._connect(network)
        if self.full:
            self.fill(connection)
        return connection

    def fill(self, connection: sqlite3.Connection | None = None) -> None:
        self.full = True
        target = connection or self._open_connection()
        target.execute("PRAGMA max_page_count = 1")  # SQLite raises that to the present size

    def free(self) -> None:
        self.full = False


def on_small_disk(services: Services) -> Services:
    store = services.store
    assert isinstance(store, SqliteStore)
    return msgspec.structs.replace(services, store=SmallDisk(store.path))


async def until_refused(node: Node) -> None:
    """Use the node until the disk is full."""
    for number in range(2_000):
        try:
            await node.create_invoice(Msat(1000), "x" * 600, label=str(number))
        except StorageDegraded:
            return
    raise AssertionError("the disk never filled up")


async def test_a_full_disk_is_one_alarm_and_heals(world: World, quiet_logs: Log, expected_errors: set[str]) -> None:
    expected_errors |= {"turn_dropped", "storage_degraded"}
    alice = await world.start("alice", adapt=on_small_disk)
    bob = await world.start("bob")
    await world.fund(alice, 5_000_000)
    channel_id = await world.channel(alice, bob)
    store = alice.core.services.store
    assert isinstance(store, SmallDisk)
    store.fill()
    await until_refused(alice)
    assert "the disk is full" in alice.info().degraded
    with pytest.raises(StorageDegraded):
        await alice.create_invoice(Msat(1000), "refused at once")
    await until(lambda: not usable(bob))  # nobody is heard
    await until(lambda: any(entry["event"] == "storage_still_degraded" for entry in quiet_logs))
    assert [entry["event"] for entry in quiet_logs if entry["log_level"] == "error"] == [
        "turn_dropped",
        "storage_degraded",
    ]
    world.chain.mine(2)  # blocks of that time are not lost
    store.free()
    await until(lambda: not alice.info().degraded)
    await until(lambda: usable(alice) and usable(bob))
    await until(lambda: alice.info().height == world.chain.height)
    invoice = await bob.create_invoice(Msat(7_000_000), "after")
    assert (await alice.pay(invoice.bolt11, timeout=60)).status == "succeeded"
    alarms = [e.event for e in await alice.events(limit=1000) if isinstance(e.event, Alarm)]
    assert [alarm.subject for alarm in alarms] == ["storage"]
    assert "the disk is full" in alarms[0].text
    assert alice.channels()[0].channel_id == ChannelId(channel_id).hex()


async def test_a_payment_on_its_way_survives_a_full_disk(world: World, expected_errors: set[str]) -> None:
    expected_errors |= {"turn_dropped", "storage_degraded"}
    cashier = Cashier()
    alice = await world.start("alice", adapt=on_small_disk)
    bob = await world.start("bob", with_plugins(cashier=cashier))
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    store = alice.core.services.store
    assert isinstance(store, SmallDisk)
    invoices = [await bob.create_invoice(Msat(1_000_000 + i), "n") for i in range(10)]
    paying = [asyncio.ensure_future(alice.pay(invoice.bolt11)) for invoice in invoices]
    await until(lambda: cashier.waiting == 10)
    store.fill()
    await until_refused(alice)
    cashier.open.set()
    await until(lambda: not usable(bob))
    assert not any(payment.done() for payment in paying)
    store.free()
    await until(lambda: usable(alice) and usable(bob))
    views = await asyncio.wait_for(asyncio.gather(*paying), 60)
    assert {view.status for view in views} == {"succeeded"}
    await until(lambda: bob.channels()[0].local_msat == sum(1_000_000 + i for i in range(10)))


async def test_the_second_node_on_a_database_fences_the_first(
    world: World, quiet_logs: Log, expected_errors: set[str]
) -> None:
    expected_errors |= {"turn_dropped", "node_stops"}
    first = await world.start("alice")
    failed = asyncio.ensure_future(first.failed())
    second = await world.start("alice")
    with pytest.raises(LeydenError):
        await first.create_invoice(Msat(1000), "too late")
    assert isinstance(await asyncio.wait_for(failed, 60), StoreFenced)
    assert "\n" not in str(failed.result())
    lines = [entry for entry in quiet_logs if entry["log_level"] == "critical"]
    assert [entry["event"] for entry in lines] == ["node_stops"]
    assert (await second.create_invoice(Msat(1000), "ours now")).status == "unpaid"
    await asyncio.wait_for(world.stop(first), 60)


async def start_again(world: World, services: Services, config: NodeConfig) -> str:
    """The one line with which the node refuses to start."""
    with pytest.raises(LeydenError) as caught:
        await Node.start(config, services)
    text = str(caught.value)
    assert text
    assert "\n" not in text
    return text


def rows_of(path: Path) -> list[tuple[bytes, bytes]]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT key, value FROM rows ORDER BY key").fetchall()
    connection.close()
    return found


@pytest.fixture
async def stopped(world: World) -> tuple[Services, NodeConfig, Path]:
    """Services and config of a node with some past, and its database; the node is down."""
    node = await world.start("alice")
    await node.create_invoice(Msat(1000), "past")
    services, config = node.core.services, node.core.config
    await world.stop(node)
    return services, config, world.folder / "alice" / "node.sqlite"


async def test_a_database_of_other_keys(world: World, stopped: tuple[Services, NodeConfig, Path]) -> None:
    services, config, path = stopped
    before = rows_of(path)
    keys = InMemoryKeyManager(b"\x07" * 32, Network.REGTEST)
    strange = msgspec.structs.replace(services, node_identity=keys, channel_signer=keys.channel_signer)
    assert "the database belongs to node" in await start_again(world, strange, config)
    assert rows_of(path) == before


async def test_a_database_of_another_network(world: World, stopped: tuple[Services, NodeConfig, Path]) -> None:
    services, config, path = stopped
    before = rows_of(path)
    other = msgspec.structs.replace(config, network=Network.SIGNET)
    assert "regtest" in await start_again(world, services, other)
    assert rows_of(path) == before


async def test_a_newer_database(world: World, stopped: tuple[Services, NodeConfig, Path]) -> None:
    services, config, path = stopped
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "newer Leyden" in await start_again(world, services, config)


@pytest.mark.parametrize("row", [b"d", b"c", b"t", b"p", b"b"])
async def test_a_row_that_cannot_be_read(world: World, stopped: tuple[Services, NodeConfig, Path], row: bytes) -> None:
    """Most of all a channel: a node that forgot it would have its peer close it."""
    services, config, path = stopped
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO rows (key, value) VALUES (?, ?)", (row + b"\x01" * 32, b"\xff garbage"))
    connection.close()
    before = rows_of(path)
    assert "cannot be read" in await start_again(world, services, config)
    assert rows_of(path) == before


async def test_a_file_that_is_no_database(world: World, stopped: tuple[Services, NodeConfig, Path]) -> None:
    services, config, path = stopped
    path.write_bytes(b"these are not the rows you are looking for" * 100)
    assert "is no database or is damaged" in await start_again(world, services, config)


async def test_mainnet_is_refused_before_anything_is_touched(
    world: World, stopped: tuple[Services, NodeConfig, Path]
) -> None:
    services, config, path = stopped
    path.unlink()
    refusal = await start_again(world, services, msgspec.structs.replace(config, network=Network.MAINNET))
    assert "mainnet is refused" in refusal
    assert not path.exists()


async def test_a_copied_database_raises_an_alarm(world: World, stopped: tuple[Services, NodeConfig, Path]) -> None:
    _, _, path = stopped
    copy = path.read_bytes()
    keep = path.with_suffix(".old")  # held, so that the copy cannot get the same inode
    path.rename(keep)
    path.write_bytes(copy)
    node = await world.start("alice")
    alarms = [e.event for e in await node.events() if isinstance(e.event, Alarm)]
    assert [(alarm.subject, alarm.text.split(":")[0]) for alarm in alarms] == [
        ("store", "database was copied or moved")
    ]


async def test_a_store_that_cannot_be_opened_leaves_nothing_open(tmp_path: Path, world: World) -> None:
    node = await world.start("alice")
    services = msgspec.structs.replace(node.core.services, store=SqliteStore(tmp_path / "missing" / "x.sqlite"))
    assert "cannot create" in await start_again(world, services, node.core.config)


async def test_a_start_with_other_keys_does_not_stop_the_node_that_runs(world: World) -> None:
    """It is refused before it takes an epoch, so the running node's next commit is still its own."""
    alice = await world.start("alice")
    store = alice.core.services.store
    assert isinstance(store, SqliteStore)
    keys = InMemoryKeyManager(b"other".ljust(32, b"\x01"), Network.REGTEST)

    def foreign(services: Services) -> Services:
        return msgspec.structs.replace(services, store=SqliteStore(store.path), node_identity=keys)

    with pytest.raises(LeydenError, match="the database belongs to node"):
        await world.start("bob", adapt=foreign)
    await alice.create_invoice(Msat(1000), "still here")
