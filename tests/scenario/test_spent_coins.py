"""Coins that our own transactions spend are watched until that is irrevocable, whatever their spending shows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.bitcoin import Transaction
from leyden.hooks.types import BroadcastKind, DestinationPurpose
from leyden.node.txtracker import RETAINED_DEPTH
from leyden.testing.simulation import SimNode, Simulation
from leyden.types import Sat

from tests.scenario.chain_kit import ControlledChain, MatchedChain, use
from tests.scenario.sim_kit import FUNDS
from tests.scenario.test_double_spend import spend


class Scene:
    """Alice has one taproot coin; a transaction that spends it pays her nothing and does not show its script."""

    def __init__(self, folder: Path, make: type[ControlledChain]) -> None:
        self.simulation = Simulation(11, folder / "chain")
        self.alice = self.simulation.add_node("alice")
        self._make = make
        self.restart()
        core = self.alice.core

        def faucet() -> None:
            destination, changes = core.services.wallet.next_destination(DestinationPurpose.RECEIVE_TAPROOT)
            core.engine.journal.merge(changes)
            self.simulation.chain.faucet(destination.script, FUNDS)

        core.engine.post(faucet)
        self.simulation.settle()
        self.mine(1)

    def restart(self) -> None:
        use(self.alice, sources=[self._make])

    def mine(self, count: int) -> None:
        for _ in range(count):
            self.simulation.mine(1)
            self.poll()

    def poll(self) -> None:
        for _ in range(3):
            self.alice.poll_chain()
            self.simulation.settle()

    def send(self) -> Transaction:
        tx = spend(self.alice, Sat(FUNDS - 1000))
        assert len(tx.outputs) == 1
        core = self.alice.core

        def work() -> None:
            core.engine.journal.merge(core.services.wallet.on_unconfirmed(tx))
            core.tracker.track(tx, BroadcastKind.WALLET)

        core.engine.post(work)
        self.simulation.settle()
        return tx


@pytest.fixture(params=[ControlledChain, MatchedChain])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, request.param)
    yield scene
    scene.simulation.close()


def heights(node: SimNode) -> list[int]:
    return [height for _, _, height in node.core.tracker.pending()]


def test_a_send_that_confirms_after_a_restart(scene: Scene) -> None:
    scene.send()
    scene.restart()
    scene.mine(1)
    assert heights(scene.alice) == [scene.simulation.chain.height]
    scene.mine(RETAINED_DEPTH)
    assert scene.alice.core.services.wallet.balance().spendable == 0


def test_a_send_that_a_reorg_takes_back_after_a_restart(scene: Scene) -> None:
    scene.send()
    scene.mine(3)
    scene.restart()
    scene.simulation.chain.reorg(3)
    scene.poll()
    assert heights(scene.alice) == [0]
    scene.mine(1)
    assert heights(scene.alice) == [scene.simulation.chain.height]


def test_a_double_spend_that_comes_after_a_restart(scene: Scene) -> None:
    conflict = spend(scene.alice, Sat(FUNDS - 1100))
    assert len(conflict.outputs) == 1
    scene.send()
    scene.restart()
    scene.simulation.chain.mempool.keep_only({})
    scene.simulation.chain.mine_block([conflict])
    scene.poll()
    scene.mine(5)
    assert heights(scene.alice) == []
