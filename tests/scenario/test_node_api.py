"""The API while things end: stops, timeouts, peers that vanish, stores that take their time."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.channel import ChannelError
from leyden.hooks import hookimpl
from leyden.hooks.types import FeeTarget, LoggedEvent, PaymentReceived
from leyden.node import Node, NodeStopped, Services
from leyden.types import ChannelId, FeeRatePerKw, LeydenError, Msat, NodeId, PaymentHash, Sat

from tests.scenario.conftest import Cashier, World, until, usable, with_plugins


class SlowStore:
    """Commits take a while and really suspend."""

    inline = False

    def __init__(self, inner: Any, seconds: float) -> None:
        self._inner = inner
        self.seconds = seconds
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, puts: Any, deletes: Any, epoch: int) -> None:
        await asyncio.sleep(self.seconds)
        await self._inner.commit(puts, deletes, epoch)
        self.commits += 1


def slow(services: Services, seconds: float = 0.02) -> Services:
    return msgspec.structs.replace(services, store=SlowStore(services.store, seconds))


async def pair(world: World, cashier: Cashier | None = None) -> tuple[Node, Node, ChannelId]:
    alice = await world.start("alice")
    bob = await world.start("bob", with_plugins(cashier=cashier) if cashier is not None else None)
    await world.fund(alice, 5_000_000)
    return alice, bob, ChannelId(await world.channel(alice, bob))


async def test_callers_of_a_node_that_stops_get_an_answer(world: World) -> None:
    cashier = Cashier()
    alice, bob, _ = await pair(world, cashier)
    invoice = await bob.create_invoice(Msat(5_000_000), "held")
    paying = asyncio.ensure_future(alice.pay(invoice.bolt11))
    await until(lambda: cashier.waiting == 1)
    await world.stop(alice)
    with pytest.raises(NodeStopped):
        await asyncio.wait_for(paying, 60)
    with pytest.raises(NodeStopped):
        await alice.new_address()
    await alice.stop()  # a second time
    alice = await world.start("alice")
    await world.connect(alice, bob)
    await until(lambda: usable(alice))
    cashier.open.set()
    payment_hash = PaymentHash(bytes.fromhex(invoice.payment_hash))
    async with asyncio.timeout(60):
        while (view := await alice.payment(payment_hash)) is None or view.status == "pending":
            await asyncio.sleep(0.01)
    assert view.status == "succeeded"


async def test_a_payment_outlives_the_patience_of_its_caller(world: World) -> None:
    cashier = Cashier()
    alice, bob, _ = await pair(world, cashier)
    invoice = await bob.create_invoice(Msat(5_000_000), "held")
    with pytest.raises(TimeoutError):
        await alice.pay(invoice.bolt11, key="k", timeout=0.3)
    with pytest.raises(TimeoutError):
        await alice.pay(invoice.bolt11, key="k", timeout=0.1)  # the same payment, not a second one
    again = asyncio.ensure_future(alice.pay(invoice.bolt11, key="k"))
    await asyncio.sleep(0.05)
    cashier.open.set()
    assert (await asyncio.wait_for(again, 60)).status == "succeeded"
    await until(lambda: bob.channels()[0].local_msat == 5_000_000)


async def test_two_nodes_on_slow_stores(world: World) -> None:
    alice, bob = await world.start("alice", adapt=slow), await world.start("bob", adapt=slow)
    await world.fund(alice, 5_000_000)
    channel_id = ChannelId(await world.channel(alice, bob))
    invoices = [await bob.create_invoice(Msat(1_000_000 + i), "n") for i in range(10)]
    views = await asyncio.gather(*(alice.pay(invoice.bolt11, timeout=60) for invoice in invoices))
    assert {view.status for view in views} == {"succeeded"}
    await until(lambda: not alice.channels()[0].htlcs)
    await alice.close_channel(channel_id)
    await until(lambda: any(t["kind"] == "mutual_close" for t in alice.transactions()))


async def test_stopping_in_the_middle_of_a_turn_lets_it_finish(world: World) -> None:
    alice = await world.start("alice", adapt=lambda services: slow(services, 0.3))
    making = asyncio.ensure_future(alice.create_invoice(Msat(1000), "in the last turn"))
    await asyncio.sleep(0.05)
    await world.stop(alice)
    invoice = await asyncio.wait_for(making, 60)
    alice = await world.start("alice")
    assert [view.bolt11 for view in await alice.invoices()] == [invoice.bolt11]


async def test_a_store_that_hangs_does_not_keep_the_node_from_stopping(
    world: World, monkeypatch: pytest.MonkeyPatch, expected_errors: set[str]
) -> None:
    monkeypatch.setattr("leyden.node.driver.FLUSH_SECONDS", 0.2)
    expected_errors |= {"turn_does_not_end"}
    alice = await world.start("alice", adapt=slow)
    store: Any = alice.core.services.store
    store.seconds = 3_600
    making = asyncio.ensure_future(alice.create_invoice(Msat(1000), "never"))
    await asyncio.sleep(0.05)
    await asyncio.wait_for(world.stop(alice), 60)
    with pytest.raises(LeydenError):
        await making


async def test_many_calls_while_peers_vanish(world: World) -> None:
    """Whatever was asked gets an answer: a value or one line."""
    alice, bob, channel_id = await pair(world)
    invoices = [await bob.create_invoice(Msat(1_000_000 + i), "n") for i in range(40)]
    calls: list[asyncio.Future[Any]] = []

    def ask(work: Any) -> None:
        calls.append(asyncio.ensure_future(work))

    for number, invoice in enumerate(invoices):
        ask(alice.pay(invoice.bolt11, timeout=60))
        if number % 10 == 3:
            ask(alice.open_channel(bob.node_id, Sat(100_000 + number)))
        if number % 10 == 5:
            ask(alice.disconnect(bob.node_id))
        if number % 10 == 6:
            ask(bob.disconnect(alice.node_id))
        if number % 10 == 7:
            ask(world.connect(alice, bob))
        if number == 25:
            ask(alice.close_channel(channel_id))
            ask(alice.close_channel(channel_id))
        if number == 30:
            ask(alice.close_channel(ChannelId(bytes(32))))
        await asyncio.sleep(0.005)
    await world.connect(alice, bob)
    answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
    strange = [a for a in answers if isinstance(a, BaseException) and not isinstance(a, LeydenError)]
    assert strange == []
    assert any(isinstance(answer, ChannelError) for answer in answers)  # the second close
    await until(lambda: not any(channel.htlcs for channel in alice.channels()))
    final = [view.status for view in await alice.payments()]
    assert set(final) <= {"succeeded", "failed"}
    paid = [view for view in await bob.invoices() if view.status == "paid"]
    assert len(paid) == final.count("succeeded")


async def test_connecting_to_nobody_is_one_line(world: World) -> None:
    alice = await world.start("alice")
    with pytest.raises(LeydenError, match="cannot reach"):
        await alice.connect(NodeId(b"\x02" + b"\x11" * 32), "127.0.0.1", 1)
    with pytest.raises(LeydenError, match="not connected"):
        await alice.open_channel(NodeId(b"\x02" + b"\x11" * 32), Sat(100_000))
    with pytest.raises(LeydenError, match="no channel"):
        await alice.close_channel(ChannelId(bytes(32)))


class Sources:
    """A chain source whose stream breaks on command; it follows the real one otherwise."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.broken = False
        self.starts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def start(self, *arguments: Any) -> None:
        self.starts += 1
        await self._inner.start(*arguments)

    async def events(self) -> Any:
        async for event in self._inner.events():
            if self.broken:
                self.broken = False
                raise ConnectionError("the backend went away")
            yield event


async def test_a_chain_source_that_breaks_is_started_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.node.driver.PUMP_RETRY_SECONDS", 0.05)
    sources: list[Sources] = []

    def breakable(services: Services) -> Services:
        sources.append(Sources(services.chain_source))
        return msgspec.structs.replace(services, chain_source=sources[-1])

    alice = await world.start("alice", adapt=breakable)
    await world.mine(1)
    sources[0].broken = True
    world.chain.mine(3)  # the first of these is lost with the stream
    await until(lambda: alice.info().height == world.chain.height and alice.info().synced)
    assert sources[0].starts == 2
    alarms = [e.event for e in await alice.events()]
    assert [getattr(alarm, "subject", "") for alarm in alarms] == ["source_warning"]


class Reader:
    """A plugin that reads events, fails on command, and remembers."""

    def __init__(self) -> None:
        self.seen: list[LoggedEvent] = []
        self.failures = 0

    @hookimpl
    async def leyden_event(self, logged: LoggedEvent) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")
        self.seen.append(logged)


async def test_events_reach_a_plugin_once_over_restarts(world: World) -> None:
    reader = Reader()
    alice = await world.start("alice")
    bob = await world.start("bob", with_plugins(reader=reader))
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    for number in range(3):
        invoice = await bob.create_invoice(Msat(1_000_000 + number), "n")
        assert (await alice.pay(invoice.bolt11, timeout=60)).status == "succeeded"
    await until(lambda: sum(isinstance(e.event, PaymentReceived) for e in reader.seen) == 3)
    await until(lambda: reader.seen[-1].index == bob.info().last_event)
    while await bob.core.events.cursor("reader") < reader.seen[-1].index:  # it becomes durable after the delivery
        await asyncio.sleep(0.01)
    await world.stop(bob)
    before = len(reader.seen)
    again = Reader()
    bob = await world.start("bob", with_plugins(reader=again))
    await world.connect(alice, bob)
    await until(lambda: usable(alice) and usable(bob))
    again.failures = 1  # told again a second later
    invoice = await bob.create_invoice(Msat(9_000_000), "n")
    assert (await alice.pay(invoice.bolt11, timeout=60)).status == "succeeded"
    await until(lambda: any(isinstance(e.event, PaymentReceived) for e in again.seen))
    indices = [logged.index for logged in (*reader.seen, *again.seen)]
    assert indices == list(range(1, before + len(again.seen) + 1))


async def test_a_new_estimate_reaches_the_channels_of_the_funder(world: World) -> None:
    rates: list[FeeRatePerKw] = [FeeRatePerKw(1000)]

    class Estimator:
        async def estimate(self, target: FeeTarget) -> FeeRatePerKw:
            return rates[0]

    def with_estimator(services: Services) -> Services:
        return msgspec.structs.replace(services, fee_estimators=[Estimator()])

    alice, bob = await world.start("alice", adapt=with_estimator), await world.start("bob", adapt=with_estimator)
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    before = alice.channels()[0].feerate_per_kw
    rates[0] = FeeRatePerKw(before * 3)
    bob.core.fees.refresh()
    alice.core.fees.refresh()
    await until(lambda: alice.channels()[0].feerate_per_kw == before * 3)
    await until(lambda: bob.channels()[0].feerate_per_kw == before * 3)
    number = alice.channels()[0].local_number
    alice.core.fees.refresh()  # nothing new: no commitment for it
    await asyncio.sleep(0.05)
    assert alice.channels()[0].local_number == number
    await alice.disconnect(bob.node_id)
    await until(lambda: not usable(alice))
    rates[0] = FeeRatePerKw(before * 4)
    alice.core.fees.refresh()  # nobody there to hear it
    await asyncio.sleep(0.05)
    await world.connect(alice, bob)
    await until(lambda: usable(alice) and usable(bob))
    alice.core.fees.refresh()
    await until(lambda: bob.channels()[0].feerate_per_kw == before * 4)


SCRIPT = """
import asyncio, signal, sys
from pathlib import Path
from tests.scenario.conftest import World
from leyden.types import Msat

async def main() -> None:
    world = World(Path(sys.argv[1]))
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    paid = 0
    async def pay() -> None:
        nonlocal paid
        while True:
            invoice = await bob.create_invoice(Msat(1_000_000), "n")
            paid += (await alice.pay(invoice.bolt11)).status == "succeeded"
            if paid == 3:
                print("busy", flush=True)
    paying = [asyncio.ensure_future(pay()) for _ in range(3)]
    await stopping.wait()
    await asyncio.gather(world.stop(alice), world.stop(bob))
    results = await asyncio.gather(*paying, return_exceptions=True)
    world.chain.close()
    print(sorted({type(result).__name__ for result in results}), len(asyncio.all_tasks()), flush=True)

asyncio.run(main())
"""


def test_sigterm_in_the_middle_of_payments(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "busy":
                break
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert "['NodeStopped'] 1" in rest
    assert "Traceback" not in rest


async def test_after_a_suspension_peers_are_dialled_again_when_the_chain_is_there(world: World) -> None:
    """The clock of the machine says that an hour passed which nobody was awake for."""
    alice, bob, _ = await pair(world)
    invoice = await bob.create_invoice(Msat(1_000_000), "after the night")
    starts: list[int] = []
    source: Any = alice.core.services.chain_source
    start = source.start

    async def counted(*arguments: Any) -> None:
        starts.append(len(alice.core.peers.connected()))
        await start(*arguments)

    source.start = counted
    connected = alice.core.peers.get(bob.node_id)
    driver = alice._driver
    clocks = driver.clocks
    driver.clocks = lambda: (clocks()[0], clocks()[1] + 3600, clocks()[2])
    await until(lambda: starts)
    await until(lambda: alice.core.peers.get(bob.node_id) not in (None, connected))
    await until(lambda: usable(alice) and usable(bob))
    assert (await alice.pay(invoice.bolt11, timeout=60)).status == "succeeded"
    assert len(starts) == 1


async def test_a_machine_that_is_only_busy_keeps_its_peers(world: World) -> None:
    alice, bob, _ = await pair(world)
    connected = alice.core.peers.get(bob.node_id)
    driver = alice._driver
    clocks = driver.clocks
    ticks: list[int] = []

    def busy() -> tuple[float, float, float]:
        """Each look finds that twenty seconds were spent working."""
        ticks.append(1)
        late = 20.0 * len(ticks)
        awake, total, worked = clocks()
        return awake + late, total + late, worked + late

    driver.clocks = busy
    await until(lambda: len(ticks) > 2)
    assert alice.core.peers.get(bob.node_id) is connected
