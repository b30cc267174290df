"""Storms over sources that fail: the final state is that of a node which saw only the final chain."""

import random
from pathlib import Path
from typing import Any

import pytest
from leyden.channel.events import ForceClose, Shutdown
from leyden.hooks.types import DestinationPurpose, SourceTrouble
from leyden.testing.simulation import SimNode
from leyden.types import OutPoint, Sat

from tests.scenario.chain_kit import ControlledChain, MatchedChain, use
from tests.scenario.test_chain_sources import Scene, late

SETUPS: dict[str, dict[str, list[Any]]] = {
    "whole": {"sources": [ControlledChain]},
    "matched": {"sources": [MatchedChain]},
    "late": {"sources": [late]},
    "two": {"sources": [ControlledChain, lambda node: MatchedChain(node, "second")]},
    "three": {
        "sources": [late, lambda node: ControlledChain(node, "second"), lambda node: MatchedChain(node, "third")],
        "verifiers": [lambda node: ControlledChain(node, "verifier")],
    },
}


class Storm:
    """Random blocks, reorgs of at most five, silence, trouble and restarts; then calm."""

    def __init__(self, scene: Scene, seed: int, services: dict[str, list[Any]]) -> None:
        self.scene = scene
        self.random = random.Random(seed)
        self.services = services

    def blow(self, rounds: int) -> None:
        weather = [self.mine, self.pay, self.pay, self.reorg, self.reorg, self.silence, self.trouble, self.restart]
        for _ in range(rounds):
            self.random.choice([*weather, self.wait])()

    def mine(self) -> None:
        self.scene.mine(self.random.randint(1, 3))

    def pay(self) -> None:
        """A payment that nobody repeats: a reorg may take it for good."""
        core = self.scene.alice.core

        def faucet() -> None:
            destination, changes = core.services.wallet.next_destination(DestinationPurpose.RECEIVE)
            core.engine.journal.merge(changes)
            self.scene.simulation.chain.faucet(destination.script, Sat(10_000 + self.random.randrange(1_000)))

        core.engine.post(faucet)
        self.scene.simulation.settle()
        self.scene.mine(1)

    def reorg(self) -> None:
        simulation, lost = self.scene.simulation, self.random.random() < 0.5
        if lost:
            simulation.chain.reorg(self.random.randint(1, 5))
            simulation.chain.mempool.keep_only({})  # what nobody repeats is gone
        else:
            simulation.reorg(self.random.randint(1, 5))
        if self.random.random() < 0.7:
            self.scene.poll()

    def silence(self) -> None:
        source = self.scene.source(self.random.randrange(len(self.scene.chain.runners())))
        source.silent = not source.silent

    def trouble(self) -> None:
        source = self.scene.source(self.random.randrange(len(self.services["sources"])))
        source.says.append(SourceTrouble(reason="storm"))

    def restart(self) -> None:
        use(self.scene.alice, **self.services)

    def wait(self) -> None:
        self.scene.wait(self.random.choice([5, 60, 150]))

    def calm(self) -> None:
        for runner in self.scene.chain.runners():
            runner.source.silent = False
        self.scene.poll()
        self.scene.wait(60)
        self.scene.mine(2)  # a coin that an unconfirmed transaction spends is spent for the wallet


def seen(node: SimNode) -> dict[str, Any]:
    """What the node concluded from the chain: confirmed coins by outpoint, its tip, its channel's funding and close."""
    core = node.core
    found: dict[str, Any] = {
        "tip": (core.chain.height, core.chain.follower.best_hash),
        "coins": {c.outpoint: (c.value, c.height) for c in core.services.wallet.coins() if c.height},
    }
    for channel in core.channels.channels():
        where = channel.funding.confirmation
        found["funding"] = None if where is None else (where.height, where.tx_index)
        found["close"] = None if channel.spend is None else (channel.spend.height, channel.spend.tx.txid)
    return found


def truth(scene: Scene, funding: OutPoint) -> dict[str, Any]:
    """The same, read from the final chain from its first block to its last."""
    chain = scene.simulation.chain
    ours = set(scene.alice.core.services.wallet.scripts())
    found: dict[str, Any] = {"tip": (chain.height, chain.tip_hash), "funding": None, "close": None}
    coins: dict[OutPoint, tuple[int, int]] = {}
    for height in range(chain.height + 1):
        for index, tx in enumerate(chain.block_at(height).block.transactions):
            if tx.txid == funding.txid:
                found["funding"] = (height, index)
            for txin in tx.inputs:
                coins.pop(txin.prevout, None)
                if txin.prevout == funding:
                    found["close"] = (height, tx.txid)
            for vout, output in enumerate(tx.outputs):
                if output.script in ours:
                    coins[OutPoint(tx.txid, vout)] = (output.value, height)
    return found | {"coins": coins}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("setup", SETUPS)
def test_after_a_storm_the_node_knows_the_final_chain(tmp_path: Path, setup: str, seed: int) -> None:
    scene = Scene(tmp_path)
    try:
        services = SETUPS[setup]
        scene.begin(**services)
        channel_id = scene.open()
        funding = scene.channel(scene.alice).funding_outpoint
        storm = Storm(scene, seed, services)
        storm.blow(25)
        storm.calm()
        assert {**truth(scene, funding), **seen(scene.alice)} == truth(scene, funding)
        if scene.alice.core.channels.channels():
            command = Shutdown() if seed % 2 else ForceClose(reason="storm")
            scene.command(scene.bob if seed < 2 else scene.alice, channel_id, command)
        storm.blow(25)
        storm.calm()
        assert scene.chain.synced
        assert {**truth(scene, funding), **seen(scene.alice)} == truth(scene, funding)
    finally:
        scene.simulation.close()
