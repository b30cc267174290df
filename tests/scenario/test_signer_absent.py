"""Signers that keep state, take their time, go away and come back."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.channel import Lifecycle, Link
from leyden.channel.events import AddHtlc, ForceClose, Shutdown
from leyden.hooks.signing import SignerRefused, SignerUnavailable
from leyden.hooks.types import Alarm, BroadcastKind
from leyden.node import Services
from leyden.node.host import run_inline
from leyden.testing.crash import tell
from leyden.testing.sim_device import DeviceMemory
from leyden.testing.simulation import SimNode, Simulation
from leyden.testing.story import Plan, parse_plan
from leyden.types import BlockHeight, ChannelId, Msat, PaymentHash

from tests.scenario.conftest import POLICY, World, until, usable
from tests.scenario.sim_kit import channels, fund, give, start_opening

HTLC = AddHtlc(
    amount_msat=Msat(5_000_000),
    payment_hash=PaymentHash(bytes(32)),
    cltv_expiry=BlockHeight(200),
    onion_routing_packet=bytes(1366),
)


class Devices:
    """Alice and Bob, each with a device that answers at once until the test says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.simulation = Simulation(3, folder / "chain")
        self.alice = self.simulation.add_node("alice", device=DeviceMemory(1, absences=0.0, slowest=0.0))
        self.bob = self.simulation.add_node("bob", device=DeviceMemory(2, absences=0.0, slowest=0.0))
        fund(self.simulation, self.alice)
        self.simulation.connect(self.alice, self.bob)

    def away(self, node: SimNode, seconds: float) -> None:
        assert node.device is not None
        node.device.away_until = self.simulation.now + seconds

    def open(self) -> ChannelId:
        (channel_id,) = start_opening(self.alice, self.bob.node_id)
        assert isinstance(channel_id, bytes)
        self.simulation.mine(4)
        assert self.usable()
        return ChannelId(channel_id)

    def usable(self) -> bool:
        return all(channel.is_usable for node in (self.alice, self.bob) for channel in channels(node))

    def command(self, node: SimNode, channel_id: ChannelId, command: Any) -> None:
        answers = give(node, channel_id, command)
        assert answers in ([], [None]), answers

    def faults(self) -> list[str]:
        return [fault for node in (self.alice, self.bob) if node.device is not None for fault in node.device.faults]


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Devices]:
    devices = Devices(tmp_path)
    yield devices
    assert devices.faults() == []
    devices.simulation.close()


def test_a_channel_waits_for_the_device_and_goes_on(devices: Devices) -> None:
    channel_id = devices.open()
    devices.away(devices.alice, 60)
    devices.command(devices.alice, channel_id, HTLC)
    devices.simulation.advance(50)
    (channel,) = channels(devices.alice)
    assert channel.remote_number == 1  # decided and durable, but not signed
    assert not channels(devices.bob)[0].remote_htlcs or channels(devices.bob)[0].local_number == 0
    assert channel.lifecycle is Lifecycle.NORMAL
    devices.simulation.advance(20)
    devices.simulation.settle()
    assert channels(devices.bob)[0].local_number >= 1
    (channel,) = channels(devices.alice)
    assert channel.remote_revoked >= 1
    assert devices.alice.device is not None
    assert devices.alice.device.repeated > 3  # the same request, again and again


@pytest.mark.parametrize("interruption", ["disconnect", "restart", "restart of the peer"])
def test_the_same_question_after_an_interruption(devices: Devices, interruption: str) -> None:
    """The device was away when the request came; afterwards it gets the same request with the same words."""
    channel_id = devices.open()
    devices.away(devices.alice, 30)
    devices.command(devices.alice, channel_id, HTLC)
    assert devices.alice.device is not None
    repeated = devices.alice.device.repeated
    if interruption == "disconnect":
        devices.simulation.cut(devices.alice, devices.bob)
    elif interruption == "restart":
        devices.alice.kill()
        devices.alice.start()
    else:
        devices.bob.kill()
        devices.bob.start()
    devices.simulation.advance(40)
    devices.simulation.connect(devices.alice, devices.bob)
    devices.simulation.advance(40)
    assert devices.usable()
    assert devices.alice.device.repeated > repeated
    assert channels(devices.alice)[0].remote_revoked >= 1
    assert channels(devices.alice)[0].local_number >= 1


def test_an_opening_waits_for_both_devices(devices: Devices) -> None:
    answers = start_opening(devices.alice, devices.bob.node_id)
    assert len(answers) == 1
    devices.simulation.mine(4)
    devices.away(devices.bob, 20)
    later = start_opening(devices.alice, devices.bob.node_id)
    devices.simulation.advance(10)
    assert isinstance(later[0], BaseException) or not later  # no keys: refused, not left hanging
    devices.simulation.advance(20)
    again = start_opening(devices.alice, devices.bob.node_id)
    assert isinstance(again[0], bytes)
    devices.simulation.mine(4)
    assert devices.usable()


def test_a_peer_that_leaves_while_keys_are_made_leaves_no_channel(devices: Devices) -> None:
    assert devices.alice.device is not None
    devices.alice.device.slowest, devices.alice.device.random = 5.0, Always()
    answers = start_opening(devices.alice, devices.bob.node_id)
    assert not answers
    devices.simulation.cut(devices.alice, devices.bob)
    devices.simulation.advance(15)
    assert isinstance(answers[0], BaseException)
    assert not channels(devices.alice)
    assert devices.alice.core.services.wallet.balance().locked == 0


class Always(random.Random):
    """Every pause is taken, and is long."""

    def random(self) -> float:
        return 0.1

    def uniform(self, a: float, b: float) -> float:
        return b


def test_closing_waits_for_the_device(devices: Devices) -> None:
    channel_id = devices.open()
    devices.away(devices.bob, 90)  # shorter than the peer's patience with a closing fee
    devices.command(devices.alice, channel_id, Shutdown())
    devices.simulation.advance(80)
    assert [channels(node)[0].lifecycle for node in (devices.alice, devices.bob)] == [Lifecycle.NORMAL] * 2
    devices.simulation.advance(20)
    devices.simulation.mine(7)
    assert not channels(devices.alice)
    assert not channels(devices.bob)


def test_a_force_close_is_signed_when_the_device_is_back_even_after_a_restart(devices: Devices) -> None:
    channel_id = devices.open()
    devices.away(devices.alice, 30)
    devices.command(devices.alice, channel_id, ForceClose(reason="test"))
    assert [kind for _, kind, _ in devices.alice.core.tracker.pending()] == [BroadcastKind.FUNDING]
    devices.alice.kill()
    devices.alice.start()
    devices.simulation.advance(40)
    (channel,) = channels(devices.alice)
    assert channel.lifecycle is Lifecycle.FORCE_CLOSING
    assert channel.closing_tx is not None
    assert BroadcastKind.UNILATERAL_CLOSE in [kind for _, kind, _ in devices.alice.core.tracker.pending()]
    devices.simulation.mine(1)
    assert all(channels(node)[0].spend is not None for node in (devices.alice, devices.bob))


def test_a_refusal_is_an_alarm_and_no_close(devices: Devices) -> None:
    channel_id = devices.open()

    class Strict:
        stateless = inline = False

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        async def sign_counterparty_commitment(self, request: Any) -> Any:
            raise SignerRefused("velocity", "too much in one day")

    devices.alice.wrap_signer = Strict
    devices.alice.kill()
    devices.alice.start()
    devices.simulation.connect(devices.alice, devices.bob)
    devices.simulation.advance(5)
    devices.command(devices.alice, channel_id, HTLC)
    devices.simulation.advance(30)
    (channel,) = channels(devices.alice)
    assert channel.lifecycle is Lifecycle.NORMAL
    assert channel.link is not Link.DOWN
    core = devices.alice.core

    events = run_inline(core.events.read(0))
    assert [e.event.subject for e in events if isinstance(e.event, Alarm)] == ["signer_refused"]


@pytest.mark.parametrize(
    "text",
    ["device", "alice@40,device", "bob@60,device", "alice@150+,device", "alice@90,bob@200~2,device", "bob#20!,device"],
)
def test_the_whole_story_with_devices(text: str) -> None:
    wrong, _ = tell(11, parse_plan(text))
    assert wrong == ""
    assert isinstance(parse_plan(text), Plan)


class Sleepy:
    """A real ``await`` before every answer, and now and then nobody there."""

    stateless = inline = False

    def __init__(self, inner: Any, seed: int) -> None:
        self._inner = inner
        self._random = random.Random(seed)
        self.absent = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        async def ask(*arguments: Any) -> Any:
            await asyncio.sleep(self._random.uniform(0.0, 0.02))
            if name != "new_channel" and self._random.random() < 0.03:
                self.absent += 1
                raise SignerUnavailable("somebody pulled the plug")
            answer = await method(*arguments)
            await asyncio.sleep(self._random.uniform(0.0, 0.02))
            return answer

        return ask


async def test_two_nodes_with_slow_signers_over_sockets(world: World) -> None:
    signers: list[Sleepy] = []

    def sleepy(services: Services) -> Services:
        signers.append(Sleepy(services.channel_signer, len(signers)))
        return msgspec.structs.replace(services, channel_signer=signers[-1])

    policy = msgspec.structs.replace(POLICY, signer_retry_seconds=1)
    alice = await world.start("alice", policy=policy, adapt=sleepy)
    bob = await world.start("bob", policy=policy, adapt=sleepy)
    await world.fund(alice, 5_000_000)
    channel_id = await world.channel(alice, bob, push_msat=300_000_000)
    there = [await bob.create_invoice(Msat(1_000_000 + i), "there") for i in range(10)]
    back = [await alice.create_invoice(Msat(2_000_000 + i), "back") for i in range(10)]
    views = await asyncio.gather(
        *(alice.pay(invoice.bolt11, timeout=60) for invoice in there),
        *(bob.pay(invoice.bolt11, timeout=60) for invoice in back),
    )
    assert {view.status for view in views} == {"succeeded"}
    await until(lambda: usable(alice) and not alice.channels()[0].htlcs and not bob.channels()[0].htlcs)
    await alice.close_channel(ChannelId(channel_id))
    await until(lambda: any(t["kind"] == "mutual_close" for t in alice.transactions()))
    await world.mine(6)
    await until(lambda: not alice.channels() and not bob.channels())
    expected = 300_000 + sum(1_000_000 + i for i in range(10)) // 1000 - sum(2_000_000 + i for i in range(10)) // 1000
    await until(lambda: abs(bob.wallet_balance().confirmed - expected) <= 1)
    assert sum(signer.absent for signer in signers) > 0
