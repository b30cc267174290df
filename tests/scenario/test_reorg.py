"""What a node does when the chain changes its mind, goes on without it, or its source loses the thread."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from leyden.channel import ChannelError, Lifecycle
from leyden.channel.events import AddHtlc, ForceClose, Shutdown
from leyden.hooks.types import (
    Alarm,
    BlockConnected,
    BlocksDisconnected,
    ChannelClosed,
    TransactionConfirmed,
    TransactionUnconfirmed,
)
from leyden.node.host import run_inline
from leyden.testing.simulation import SimChain, SimNode, Simulation
from leyden.types import BlockHeight, ChannelId, Msat, PaymentHash

from tests.scenario.sim_kit import FUNDS, PUSH, fund, give, logged, start_opening


class Pair:
    """Alice funds a channel with Bob; blocks are mined by the test."""

    def __init__(self, folder: Path) -> None:
        self.simulation = Simulation(5, folder / "chain")
        self.alice = self.simulation.add_node("alice")
        self.bob = self.simulation.add_node("bob")
        fund(self.simulation, self.alice)
        self.simulation.connect(self.alice, self.bob)

    def open(self, confirmations: int = 4) -> ChannelId:
        (channel_id,) = start_opening(self.alice, self.bob.node_id)
        assert isinstance(channel_id, bytes)
        self.simulation.mine(confirmations)
        return ChannelId(channel_id)

    def channel(self, node: SimNode) -> Any:
        (channel,) = node.core.channels.channels()
        return channel

    def usable(self) -> bool:
        return all(self.channel(node).is_usable for node in (self.alice, self.bob))


HTLC = AddHtlc(
    amount_msat=Msat(5_000_000),
    payment_hash=PaymentHash(bytes(32)),
    cltv_expiry=BlockHeight(200),
    onion_routing_packet=bytes(1366),
)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    pair.simulation.close()


def test_a_funding_that_leaves_the_chain_before_its_depth(pair: Pair) -> None:
    pair.open(confirmations=2)
    assert pair.channel(pair.alice).lifecycle is Lifecycle.AWAIT_CONFIRMATION
    pair.simulation.reorg(2)  # three blocks without the funding: height alone must not count
    pair.simulation.chain.mine_block()
    for node in (pair.alice, pair.bob):
        node.poll_chain()
    pair.simulation.settle()
    assert pair.channel(pair.alice).lifecycle is Lifecycle.AWAIT_CONFIRMATION
    assert pair.channel(pair.alice).funding.confirmation is None
    pair.simulation.mine(3)
    assert pair.usable()
    assert not logged(pair.alice, Alarm)


def test_a_funding_that_leaves_the_chain_of_an_open_channel(pair: Pair) -> None:
    channel_id = pair.open()
    assert pair.usable()
    pair.simulation.reorg(4)
    assert [alarm.subject for alarm in logged(pair.alice, Alarm)] == ["reorg"]
    assert [alarm.subject for alarm in logged(pair.bob, Alarm)] == ["reorg"]
    (answer,) = give(pair.alice, channel_id, HTLC)
    assert isinstance(answer, ChannelError)
    pair.simulation.mine(3)
    assert pair.usable()
    assert give(pair.alice, channel_id, HTLC) == [None]
    assert len(logged(pair.alice, TransactionUnconfirmed)) == 1
    assert len(logged(pair.alice, TransactionConfirmed)) == 2


def test_a_close_that_a_deep_reorg_takes_back(pair: Pair) -> None:
    channel_id = pair.open()
    give(pair.alice, channel_id, Shutdown())
    pair.simulation.mine(4)
    assert pair.channel(pair.alice).spend is not None
    pair.simulation.reorg(4)
    assert pair.channel(pair.alice).spend is None
    assert pair.channel(pair.alice).lifecycle is Lifecycle.CLOSING
    pair.simulation.mine(5)
    assert pair.channel(pair.alice).lifecycle is Lifecycle.CLOSING  # not final before six
    pair.simulation.mine(1)
    assert not pair.alice.core.channels.channels()
    assert not pair.bob.core.channels.channels()
    for node in (pair.alice, pair.bob):
        assert [event.how for event in logged(node, ChannelClosed)] == ["cooperative"]
        assert node.core.tracker.pending() == []
    assert pair.bob.core.services.wallet.balance().confirmed == PUSH // 1000


def test_a_unilateral_close_that_a_reorg_takes_back(pair: Pair) -> None:
    """Bob's commitment leaves the chain and comes back; the sweep of the first time is not lost."""
    channel_id = pair.open()
    near = give(pair.bob, channel_id, ForceClose(reason="test"))
    assert near == [None]
    pair.simulation.mine(2)
    first = pair.channel(pair.alice).spend.tx
    pair.simulation.reorg(2)
    assert pair.channel(pair.alice).spend is None
    pair.simulation.mine(2)
    pair.simulation.mine(7)
    assert first.txid == pair.simulation.chain.spender_of(first.inputs[0].prevout)
    assert not pair.alice.core.channels.channels()


def test_three_hundred_blocks_with_a_close_inside_while_the_node_was_down(pair: Pair) -> None:
    channel_id = pair.open()
    pair.bob.kill()
    pair.simulation.mine(100)
    give(pair.alice, channel_id, ForceClose(reason="the peer is away"))
    pair.simulation.mine(200)
    pair.simulation.mine(7)
    assert not pair.alice.core.channels.channels()  # closed, delay over, swept and irrevocable
    has = pair.alice.core.services.wallet.balance().confirmed
    assert FUNDS - PUSH // 1000 - 5_000 < has < FUNDS - PUSH // 1000
    pair.bob.start()
    assert pair.bob.core.chain.height == pair.simulation.chain.height
    assert pair.channel(pair.bob).lifecycle is Lifecycle.REMOTE_CLOSED
    pair.simulation.mine(7)
    assert not pair.bob.core.channels.channels()
    balance = pair.bob.core.services.wallet.balance().confirmed
    assert PUSH // 1000 - 3_000 < balance < PUSH // 1000


class Forgetful:
    """Stands in for the chain source's ``poll`` and loses some events."""

    def __init__(self, source: SimChain, lost: list[int]) -> None:
        self._poll = source.poll
        self._lost = lost
        self._count = 0

    def __call__(self) -> Any:
        event = self._poll()
        if event is not None:
            self._count += 1
            if self._count in self._lost:
                return self._poll()
        return event


@pytest.mark.parametrize("lost", [[1], [2], [1, 3], [1, 2, 3, 4, 5]])
def test_a_source_that_loses_events_is_asked_again(pair: Pair, lost: list[int]) -> None:
    pair.open()
    source = pair.alice.core.services.chain_source
    assert isinstance(source, SimChain)
    source.poll = Forgetful(source, lost)  # type: ignore[method-assign]  # what polls lose on the way
    pair.simulation.mine(4)
    pair.simulation.reorg(2)
    pair.simulation.mine(1)
    pair.simulation.advance(60)
    assert pair.alice.core.chain.height == pair.simulation.chain.height
    assert pair.alice.core.chain.synced
    assert pair.usable()


def test_peers_are_not_heard_before_the_tip(pair: Pair) -> None:
    """Between the news of a reorg and the new tip a message waits; it is answered afterwards, in order."""
    channel_id = pair.open()
    core = pair.bob.core
    fork = pair.simulation.chain.block_at(pair.simulation.chain.height - 1)
    gone = BlocksDisconnected(fork_height=fork.height, fork_hash=fork.block.hash)
    core.engine.post(lambda: core.chain.on_event(gone))
    pair.simulation.settle()
    assert not core.chain.synced
    give(pair.alice, channel_id, HTLC)
    assert not pair.channel(pair.bob).remote_htlcs  # the bytes are there, nobody looked at them
    source = core.services.chain_source
    assert isinstance(source, SimChain)
    core.engine.post(lambda: core.chain.restart("test"))
    pair.simulation.settle()
    assert core.chain.synced
    assert len(pair.channel(pair.bob).remote_htlcs) <= 1
    assert pair.channel(pair.alice).local_number > 0  # the dance went on


def test_a_peer_that_floods_before_the_tip_loses_its_connection(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.node.core.MAX_UNHEARD_BYTES", 1000)
    pair.open()
    core = pair.bob.core
    monkeypatch.setattr(type(core.chain), "synced", False)
    (peer,) = core.peers.connected()
    for _ in range(3):
        core.engine.post(lambda: core.receive(peer, bytes(400)))
    pair.simulation.settle()
    assert core.peers.connected() == []


def test_blocks_of_a_restarted_node_come_before_its_peers(pair: Pair) -> None:
    """Bob was down; he hears nobody until he stands at the tip."""
    pair.open()
    pair.bob.kill()
    pair.simulation.mine(3)
    pair.bob.start()
    assert pair.bob.core.chain.synced
    pair.simulation.connect(pair.alice, pair.bob)
    assert pair.usable()
    assert pair.bob.core.chain.height == pair.simulation.chain.height


def test_the_tracker_repeats_what_the_mempool_lost(pair: Pair) -> None:
    start_opening(pair.alice, pair.bob.node_id)
    mempool = pair.simulation.chain.mempool
    assert len(mempool.entries) == 1
    mempool.keep_only({})
    assert not mempool.entries
    pair.simulation.advance(31)
    assert len(mempool.entries) == 1
    mempool.keep_only({})
    pair.simulation.mine(1)  # a block without it
    assert len(mempool.entries) == 1


def test_the_newest_blocks_may_come_twice(pair: Pair) -> None:
    pair.open()
    core = pair.alice.core
    stored = pair.simulation.chain.block_at(pair.simulation.chain.height)
    source = core.services.chain_source
    assert isinstance(source, SimChain)

    block = run_inline(source.get_block(stored.block.hash))
    assert isinstance(block, BlockConnected)
    before = dict(pair.alice.disk.rows)
    core.engine.post(lambda: core.chain.on_event(block))
    pair.simulation.settle()
    assert pair.alice.disk.rows == before


@pytest.mark.parametrize(("depth", "alarms"), [(5, 0), (6, 1), (9, 1)])
def test_a_reorg_deeper_than_what_counts_as_final_raises_an_alarm(pair: Pair, depth: int, alarms: int) -> None:
    pair.simulation.mine(12)
    pair.simulation.reorg(depth)
    told = [alarm for alarm in logged(pair.alice, Alarm) if alarm.subject == "deep_reorg"]
    assert len(told) == alarms
    assert all(f"{depth} blocks were replaced" in alarm.text for alarm in told)
