"""Attacks on whole nodes through their chain sources: what is hidden, taken back, owed or late must not cost money."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import Transaction, TxIn, TxOut
from leyden.chain import WatchSet
from leyden.channel import Lifecycle
from leyden.channel.events import ForceClose
from leyden.crypto import sha256d
from leyden.hooks.types import BlockConnected, BlocksDisconnected, HistoryFound, SourceSynced, SourceTrouble
from leyden.testing.simulation import SimNode
from leyden.types import BlockHash, BlockHeight, Sat

from tests.scenario.chain_kit import ControlledChain, MatchedChain
from tests.scenario.test_chain_sources import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.simulation.close()


class SinceChain(MatchedChain):
    """To the letter: a watch counts for the blocks from its ``since_height`` on, and for no older one."""

    def __init__(self, node: SimNode, name: str = "since") -> None:
        super().__init__(node, name)
        self.owes = False
        """History is not told, only what new blocks bring."""

    def _matches(self, block: BlockConnected, watches: WatchSet) -> Any:
        due = WatchSet().adding([watch for watch in self._noted if watch.since_height <= block.height])
        return super()._matches(block, due)

    def poll(self) -> Any:
        event = super().poll()
        while self.owes and isinstance(event, HistoryFound):
            event = super().poll()
        return event


def verifier(node: SimNode) -> ControlledChain:
    return ControlledChain(node, "verifier")


def test_a_block_that_comes_back_without_the_spend_is_noticed(scene: Scene) -> None:
    """The source takes the block of a spend back and brings it again without: the verifier's word holds."""
    scene.begin(sources=[MatchedChain], verifiers=[verifier])
    channel_id = scene.open()
    funding = scene.channel(scene.alice).funding_outpoint
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.mine(1)
    assert scene.channel(scene.alice).spend is not None
    source, chain = scene.source(), scene.simulation.chain
    source.hides = lambda found: any(txin.prevout == funding for txin in found.tx.inputs)
    below, block = chain.block_at(chain.height - 1), source._told[chain.height]
    source.says.append(BlocksDisconnected(fork_height=below.height, fork_hash=BlockHash(sha256d(below.raw[:80]))))
    source.says.append(msgspec.structs.replace(block, transactions=(), full=False))
    scene.poll()
    assert scene.chain.height == chain.height
    assert scene.channel(scene.alice).spend is not None
    scene.mine(1)
    scene.wait(60)
    assert "did not tell of transaction" in scene.chain.health.why


def test_coins_of_a_catch_up_are_seen_by_the_source_that_takes_over(scene: Scene) -> None:
    """One source is behind, the other at its tip, when a script is derived: the payment lies between the two."""
    scene.begin(sources=[ControlledChain, SinceChain])
    script = b"\x00\x14" + b"\x42" * 20
    seen: list[int] = []
    on_rescanned, on_block = scene.alice.core.channels.on_rescanned, scene.alice.core.channels.on_block

    def note(height: int, transactions: Sequence[Any]) -> None:
        seen.extend(height for found in transactions if any(out.script == script for out in found.tx.outputs))

    def noting_rescan(height: Any, transactions: Any) -> None:
        note(height, transactions)
        on_rescanned(height, transactions)

    def noting_block(block: Any) -> None:
        note(block.height, block.transactions)
        on_block(block)

    scene.alice.core.channels.on_rescanned = noting_rescan  # type: ignore[method-assign]  # notes what channels are told
    scene.alice.core.channels.on_block = noting_block  # type: ignore[method-assign]  # notes what channels are told
    scene.source(0).silent = True
    scene.simulation.chain.faucet(script, Sat(50_000))
    scene.mine(1)
    paid = scene.simulation.chain.height
    scene.mine(2)
    assert scene.chain.height < paid
    scene.alice.core.engine.post(lambda: scene.chain.watch(script, None))
    scene.simulation.settle()
    scene.source(0).says.append(SourceTrouble(reason="gone"))
    scene.wait(60)
    assert scene.chain.source_name == "since"
    assert scene.chain.height == scene.simulation.chain.height
    assert set(seen) == {paid}


def test_history_that_was_owed_when_the_process_ended_is_looked_for_again(scene: Scene) -> None:
    """Blocks went to disk while the source still looked back for a watch; after the restart it is asked again."""
    scene.begin(sources=[SinceChain])
    channel_id = scene.open()
    funding = scene.channel(scene.alice).funding_outpoint
    source = scene.source()
    source.hides = lambda found: any(txin.prevout == funding for txin in found.tx.inputs)
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.mine(3)
    assert scene.channel(scene.alice).spend is None  # the server has not indexed it yet
    scene.alice.kill()
    scene.alice.start()
    scene.poll()
    assert scene.channel(scene.alice).lifecycle is Lifecycle.REMOTE_CLOSED


def test_history_that_was_owed_is_found_by_whole_blocks_after_a_fail_over(scene: Scene) -> None:
    scene.begin(sources=[SinceChain, lambda node: ControlledChain(node, "whole")])
    channel_id = scene.open()
    funding = scene.channel(scene.alice).funding_outpoint
    source = scene.source()
    source.hides = lambda found: any(txin.prevout == funding for txin in found.tx.inputs)
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.mine(3)
    assert scene.channel(scene.alice).spend is None
    said: list[Any] = [SourceTrouble(reason="gone")]
    source.poll = lambda: said.pop() if said else None  # and nothing more
    scene.wait(60)
    assert scene.chain.source_name == "whole"
    assert scene.channel(scene.alice).lifecycle is Lifecycle.REMOTE_CLOSED


def test_a_verifier_that_did_not_start_is_started_after_storage_trouble(scene: Scene) -> None:
    failing = [True]

    class Reluctant(ControlledChain):
        async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
            if failing[0]:
                raise ConnectionError("no verifier there")
            await super().start(locator, birth_height)

    scene.begin(verifiers=[lambda node: Reluctant(node, "verifier")])
    runner = scene.chain.runners()[1]
    assert not runner.started
    scene.alice.store.fail_next(1)
    scene.mine(1)
    scene.wait(20)
    failing[0] = False
    scene.wait(200)
    assert runner.started
    assert runner.synced


def test_a_reorg_of_the_sweep_alone_does_not_end_the_channel(scene: Scene) -> None:
    """The close stays, our sweep leaves its block: the channel is not over before the sweep is deep again."""
    scene.begin()
    channel_id = scene.open()
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.mine(2)
    spend = scene.channel(scene.alice).spend
    assert spend.swept
    assert spend.height < scene.simulation.chain.height
    scene.simulation.chain.reorg(1, 8, forget=True)
    scene.poll()
    assert scene.chain.height == scene.simulation.chain.height
    assert not scene.channel(scene.alice).spend.swept
    scene.mine(6)
    assert not scene.alice.core.channels.channels()


def test_a_source_that_never_ends_its_catch_up_does_not_freeze_the_node(scene: Scene) -> None:
    """Every block comes in time, and then the news of a tip that nobody has: no peer would ever be heard again."""
    scene.begin(sources=[ControlledChain, lambda node: ControlledChain(node, "second")])
    channel_id = scene.open()
    source = scene.source()
    poll = source.poll

    def never_at_the_tip() -> Any:
        event = poll()
        return msgspec.structs.replace(event, block_hash=b"\x07" * 32) if isinstance(event, SourceSynced) else event

    source.poll = never_at_the_tip
    scene.mine(1)
    scene.wait(150)
    assert scene.chain.source_name == "second"
    assert scene.chain.synced
    assert scene.alice.core.channels.get(channel_id) is not None


def test_a_spend_whose_witness_was_altered_is_seen_all_the_same(scene: Scene) -> None:
    """No proof covers a witness: who leaves it out must not hide that a coin of ours is gone."""
    scene.begin(sources=[MatchedChain])
    alice = scene.alice
    coins = alice.core.services.wallet.coins()
    assert coins
    for restart in (False, True):
        if restart:
            alice.kill()
            alice.start()
        bare = [
            Transaction(
                version=2,
                inputs=(TxIn(prevout=coin.outpoint, sequence=0),),
                outputs=(TxOut(value=Sat(1000), script=b"\x51"),),
                locktime=0,
            )
            for coin in coins
        ]
        assert all(alice.core.chain.follower.watches.matches(tx) for tx in bare)


def test_what_the_source_was_never_asked_for_is_not_held_against_it(scene: Scene) -> None:
    """A verifier that was behind when a script was derived tells of a block that the source had brought long before."""
    scene.begin(sources=[ControlledChain], verifiers=[verifier])
    scene.source(1).silent = True
    script = b"\x00\x14" + b"\x42" * 20
    scene.simulation.chain.faucet(script, Sat(50_000))
    scene.mine(3)
    scene.alice.core.engine.post(lambda: scene.chain.watch(script, None))
    scene.simulation.settle()
    scene.source(1).silent = False
    scene.wait(60)
    assert scene.chain.runners()[1].follower.height == scene.chain.height
    assert scene.chain.health.why == ""


def test_what_one_source_hid_is_not_held_against_the_one_that_took_over(scene: Scene) -> None:
    scene.begin(
        sources=[MatchedChain, lambda node: ControlledChain(node, "second")],
        verifiers=[verifier],
    )
    channel_id = scene.open()
    funding = scene.channel(scene.alice).funding_outpoint
    scene.source().hides = lambda found: any(txin.prevout == funding for txin in found.tx.inputs)
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.mine(1)
    scene.wait(60)
    assert "matched did not tell of transaction" in scene.chain.health.why
    said: list[Any] = [SourceTrouble(reason="gone")]
    scene.source().poll = lambda: said.pop() if said else None  # and nothing more
    scene.wait(60)
    assert scene.chain.source_name == "second"
    assert scene.chain.health.why == ""
    assert any("did not tell" in text for text in scene.cleared("chain_degraded"))
