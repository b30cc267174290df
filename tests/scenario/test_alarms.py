"""Alarms that stand: whoever follows the log knows at every moment what is wrong now, restarts and all."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from leyden.hooks.types import STANDING_ALARMS, Alarm, AlarmCleared, SourceTrouble, SourceWarning
from leyden.testing.memory_store import MemoryStore
from leyden.testing.simulation import SimNode, Simulation

from tests.scenario.chain_kit import ControlledChain, use
from tests.scenario.sim_kit import logged


class Scene:
    """One node over chain sources that the test controls."""

    def __init__(self, folder: Path) -> None:
        self.simulation = Simulation(7, folder / "chain")
        self.node = self.simulation.add_node("alice")

    def begin(self, **services: Any) -> None:
        use(self.node, **services)
        self.wait(0)

    def source(self, index: int = 0) -> Any:
        return self.node.core.chain.runners()[index].source

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds // 5) + 1):
            self.simulation.advance(5)
            self.node.poll_chain()
            self.simulation.settle()

    def restart(self) -> None:
        self.node.kill()
        self.node.start()
        self.wait(0)

    def standing(self) -> set[str]:
        """As a dashboard has it that knows nothing but the log."""
        stand = set()
        for event in logged(self.node, Alarm | AlarmCleared):
            if isinstance(event, Alarm):
                stand |= {event.subject} & STANDING_ALARMS
            else:
                stand.discard(event.subject)
        return stand

    def count(self, kind: type[Any]) -> int:
        return len(logged(self.node, kind))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.simulation.close()


def named(name: str) -> Callable[[SimNode], ControlledChain]:
    return lambda node: ControlledChain(node, name)


def trouble(scene: Scene, reason: str, index: int = 0) -> None:
    scene.source(index).says.append(SourceTrouble(reason=reason))
    scene.source(index).silent = bool(reason)
    scene.wait(0)


def test_a_degraded_chain_is_cleared_by_the_start_that_finds_it_well(scene: Scene) -> None:
    scene.begin(sources=[named("whole")])
    trouble(scene, "bitcoind is gone")
    scene.wait(80)
    assert scene.standing() == {"chain_degraded"}
    scene.restart()
    assert scene.standing() == set()
    (cleared,) = logged(scene.node, AlarmCleared)
    assert cleared.text == "over: whole: bitcoind is gone"
    scene.restart()
    assert scene.count(AlarmCleared) == 1  # once


def test_a_chain_that_is_still_degraded_after_a_start_is_not_cleared(scene: Scene) -> None:
    ill = [True]

    def make(node: SimNode) -> ControlledChain:
        source = ControlledChain(node, "whole")
        source.silent = ill[0]
        if ill[0]:
            source.says.append(SourceTrouble(reason="bitcoind is gone"))
        return source

    scene.begin(sources=[named("whole")])
    trouble(scene, "bitcoind is gone")
    scene.wait(80)
    use(scene.node, sources=[make])
    scene.wait(200)
    assert scene.standing() == {"chain_degraded"}
    assert scene.count(AlarmCleared) == 0
    ill[0] = False
    use(scene.node, sources=[make])
    scene.wait(30)
    assert scene.standing() == set()


def test_a_fail_over_is_cleared_by_the_start_that_follows_the_first_source(scene: Scene) -> None:
    scene.begin(sources=[named("first"), named("second")])
    trouble(scene, "connection refused")
    scene.wait(60)
    assert scene.node.core.chain.source_name == "second"
    assert "chain_source" in scene.standing()
    scene.restart()
    assert scene.node.core.chain.source_name == "first"
    assert scene.standing() == set()


def test_the_middle_one_of_three_sources_is_not_the_one_that_was_asked_for(scene: Scene) -> None:
    scene.begin(sources=[named("first"), named("second"), named("third")])
    for index in (0, 1):
        trouble(scene, "connection refused", index)
    scene.wait(60)
    assert scene.node.core.chain.source_name == "third"
    trouble(scene, "", 1)
    scene.wait(400)
    assert scene.node.core.chain.source_name == "second"
    assert "chain_source" in scene.standing()
    trouble(scene, "", 0)
    scene.wait(400)
    assert scene.node.core.chain.source_name == "first"
    assert scene.standing() == set()


def test_of_two_troubles_the_last_one_ends_the_alarm(scene: Scene) -> None:
    scene.begin(sources=[named("whole")])
    health = scene.node.core.chain.health

    def note(word: str, reason: str) -> None:
        scene.node.core.engine.post(lambda: health.note(word, reason))
        scene.simulation.settle()

    note("tip_age", "the newest block is old")
    note("lost_blocks", "the chain ends too early")
    note("tip_age", "")
    assert scene.standing() == {"chain_degraded"}
    note("lost_blocks", "")
    assert scene.standing() == set()
    assert logged(scene.node, AlarmCleared)[-1].text == "over: the newest block is old; the chain ends too early"


def test_what_only_happened_does_not_stand(scene: Scene) -> None:
    scene.begin(sources=[named("whole")])
    scene.source().says.append(SourceWarning(text="server x lied: left it"))
    scene.wait(0)
    assert [alarm.subject for alarm in logged(scene.node, Alarm)] == ["source_warning"]
    scene.restart()
    assert scene.count(AlarmCleared) == 0


def test_a_copied_database_stands_until_the_store_is_told(scene: Scene) -> None:
    def copied(store: MemoryStore) -> None:
        opened = store.open

        async def open_copied(network: Any) -> int:
            epoch = await opened(network)
            store.identity_changed = True
            return epoch

        store.open = open_copied  # type: ignore[method-assign]  # a copied database, as the store reports it

    scene.begin(sources=[named("whole")])
    before, scene.node.on_store = scene.node.on_store, copied
    scene.restart()
    assert scene.standing() == {"store"}
    scene.node.on_store = before
    scene.restart()
    assert scene.standing() == set()


def test_an_alarm_of_before_a_failed_commit_is_cleared_too(scene: Scene, expected_errors: set[str]) -> None:
    """Memory is read back from the disk: what stood there is known still."""
    expected_errors |= {"turn_dropped", "storage_degraded"}
    scene.begin(sources=[named("whole")])
    trouble(scene, "bitcoind is gone")
    scene.wait(80)
    assert scene.standing() == {"chain_degraded"}
    core = scene.node.core
    scene.node.store.fail_next()
    core.engine.post(lambda: core.events.set_cursor("reader", 1))
    scene.simulation.settle()
    assert core.engine.degraded
    scene.source().silent = False
    scene.wait(30)
    assert not core.engine.degraded
    assert scene.standing() == set()
