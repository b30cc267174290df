"""After a failed commit memory is what the disk says: nobody was promised anything, nothing that waited is missed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.channel.events import ForceClose
from leyden.node import keyspace
from leyden.node.host import run_inline
from leyden.testing.memory_store import CommitMoment, MemoryStore
from leyden.testing.simulation import SimNode, Simulation
from leyden.types import ChannelId

from tests.scenario.sim_kit import channels, fund, start_opening


@pytest.fixture
def simulation(tmp_path: Path) -> Iterator[Simulation]:
    simulation = Simulation(7, tmp_path / "chain")
    yield simulation
    simulation.close()


def connected(simulation: Simulation) -> tuple[SimNode, SimNode]:
    alice, bob = simulation.add_node("alice"), simulation.add_node("bob")
    fund(simulation, alice)
    simulation.connect(alice, bob)
    return alice, bob


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("skip", range(6))
def test_an_opening_whose_commit_fails_promises_only_what_is_on_disk(
    simulation: Simulation, skip: int, durable: bool
) -> None:
    alice, bob = connected(simulation)
    left = skip

    def fail_later(moment: CommitMoment, _number: int) -> None:
        nonlocal left
        if moment is CommitMoment.AFTER:
            left -= 1
            if not left:
                alice.store.fail_next(durable=durable)

    if skip:
        alice.store.hooks.append(fail_later)
    else:
        alice.store.fail_next(durable=durable)
    answers = start_opening(alice, bob.node_id)
    simulation.advance(5)
    on_disk = [key for key in alice.disk.rows if key.startswith(keyspace.CHANNEL_CONFIG)]
    assert len(answers) == 1
    assert isinstance(answers[0], bytes) == bool(on_disk)
    assert len(channels(alice)) == len(on_disk)
    assert alice.leaks == []
    if on_disk:
        simulation.mine(4)  # the failure may come as late as here
        simulation.advance(5)
        simulation.connect(alice, bob)
        assert all(channels(node)[0].is_usable for node in (alice, bob))
    else:
        assert alice.core.services.wallet.balance().locked == 0


def test_blocks_that_waited_find_every_channel_watching(simulation: Simulation) -> None:
    """The close confirms while the store is down; its block is mail older than the reading back."""
    alice, bob = connected(simulation)
    (channel_id,) = start_opening(alice, bob.node_id)
    assert isinstance(channel_id, bytes)
    simulation.mine(4)
    core = bob.core

    def close() -> None:
        actor = core.channels.get(ChannelId(channel_id))
        assert actor is not None
        core.channels.apply(actor, ForceClose(reason="test"))

    alice.store.fail_next(3)
    core.engine.post(close)
    simulation.settle()
    assert alice.core.engine.degraded
    simulation.mine(1)
    simulation.mine(2)  # the newest block alone is looked at again for a late watch
    assert channels(alice)[0].spend is None
    simulation.advance(10)
    assert not alice.core.engine.degraded
    assert channels(alice)[0].spend is not None
    assert alice.leaks == []


def test_everybody_is_disconnected_and_nothing_leaves_while_the_store_is_down(simulation: Simulation) -> None:
    alice, bob = connected(simulation)
    start_opening(alice, bob.node_id)
    simulation.mine(4)
    alice.store.fail_next(4)
    alice.core.engine.post(lambda: alice.core.engine.journal.put(b"mtest", b"x"))
    simulation.settle()
    assert alice.core.engine.degraded
    assert alice.core.peers.connected() == []
    assert bob.core.peers.connected() == []
    simulation.advance(2.5)
    assert alice.core.engine.degraded
    simulation.advance(3)
    assert not alice.core.engine.degraded
    assert b"mtest" not in alice.disk.rows
    simulation.connect(alice, bob)
    assert all(channels(node)[0].is_usable for node in (alice, bob))
    assert alice.leaks == []


def test_a_chain_that_is_durable_though_reported_as_failed_is_not_absorbed_twice(simulation: Simulation) -> None:
    alice, bob = connected(simulation)
    start_opening(alice, bob.node_id)
    alice.store.fail_next(durable=True)
    simulation.mine(1)
    simulation.advance(3)
    simulation.mine(3)
    simulation.connect(alice, bob)
    assert all(channels(node)[0].is_usable for node in (alice, bob))
    assert alice.core.chain.height == simulation.chain.height
    restarted = MemoryStore(alice.disk.copy())
    assert run_inline(restarted.open(alice.config.network)) > 0
