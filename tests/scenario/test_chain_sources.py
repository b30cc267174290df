"""Nodes over chain sources that prove only what matches, that fail, hide or disagree."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.channel import Lifecycle
from leyden.channel.events import AddHtlc, ForceClose, Shutdown
from leyden.hooks.types import (
    Alarm,
    AlarmCleared,
    BlocksDisconnected,
    ChannelClosed,
    DestinationPurpose,
    SourceSynced,
    SourceTrouble,
    SourceWarning,
)
from leyden.node import PaymentError
from leyden.node.chain_health import ChainSettings
from leyden.node.opening import OpenRefused
from leyden.testing.simulation import START_TIME, SimNode, Simulation
from leyden.types import BlockHeight, ChannelId, Msat, PaymentHash, Sat

from tests.scenario.chain_kit import ControlledChain, MatchedChain, use
from tests.scenario.sim_kit import FUNDS, PUSH, fund, give, logged, start_opening

HTLC = AddHtlc(
    amount_msat=Msat(5_000_000),
    payment_hash=PaymentHash(bytes(32)),
    cltv_expiry=BlockHeight(200),
    onion_routing_packet=bytes(1366),
)


class Scene:
    """Alice, over sources that the test chooses, and Bob, over the whole chain."""

    def __init__(self, folder: Path, *, in_time: bool = False) -> None:
        self.simulation = Simulation(5, folder / "chain")
        if in_time:  # blocks bear the time of the chain's own clock
            self.simulation.now = float(tip_time(self.simulation))
        self.alice = self.simulation.add_node("alice")
        self.bob = self.simulation.add_node("bob")

    def begin(self, **services: Any) -> None:
        use(self.alice, **services)
        fund(self.simulation, self.alice)

    def open(self) -> ChannelId:
        self.simulation.connect(self.alice, self.bob)
        (channel_id,) = start_opening(self.alice, self.bob.node_id)
        assert isinstance(channel_id, bytes), channel_id
        self.mine(4)
        assert self.usable()
        return ChannelId(channel_id)

    def mine(self, count: int = 1) -> None:
        """Each block is told to the end: history that is found late comes before the next one."""
        for _ in range(count):
            self.simulation.mine(1)
            self.poll()

    def poll(self) -> None:
        for _ in range(5):
            self.alice.poll_chain()
            self.bob.poll_chain()
            self.simulation.settle()

    def wait(self, seconds: float) -> None:
        """Time passes, sources are read every five seconds."""
        for _ in range(int(seconds // 5) + 1):
            self.simulation.advance(5)
            self.poll()

    @property
    def chain(self) -> Any:
        return self.alice.core.chain

    def source(self, index: int = 0) -> Any:
        return self.chain.runners()[index].source

    def channel(self, node: SimNode) -> Any:
        (channel,) = node.core.channels.channels()
        return channel

    def usable(self) -> bool:
        return all(self.channel(node).is_usable for node in (self.alice, self.bob))

    def command(self, node: SimNode, channel_id: ChannelId, command: Any) -> Any:
        return give(node, channel_id, command)[0]

    def events(self, kind: type) -> list[Any]:
        return logged(self.alice, kind)

    def alarms(self, subject: str) -> list[str]:
        return [alarm.text for alarm in self.events(Alarm) if alarm.subject == subject]

    def cleared(self, subject: str) -> list[str]:
        return [notice.text for notice in self.events(AlarmCleared) if notice.subject == subject]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.simulation.close()


def tip_time(simulation: Simulation) -> int:
    chain = simulation.chain
    return int.from_bytes(chain.block_at(chain.height).raw[68:72], "little")


def late(node: SimNode) -> MatchedChain:
    source = MatchedChain(node)
    source.late = True
    return source


# -- sources that bring matches ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MatchedChain, late])
def test_a_life_over_a_source_without_whole_blocks(scene: Scene, make: Any) -> None:
    """Open, close, a deep reorg that takes the close back, and the end: as over whole blocks."""
    scene.begin(sources=[make])
    assert scene.chain.synced
    assert scene.alice.core.services.wallet.balance().confirmed == FUNDS
    channel_id = scene.open()
    scene.command(scene.alice, channel_id, Shutdown())
    scene.mine(4)
    assert scene.channel(scene.alice).spend is not None
    scene.simulation.reorg(4)
    scene.poll()
    assert scene.channel(scene.alice).spend is None
    scene.mine(7)
    assert not scene.alice.core.channels.channels()
    assert [event.how for event in scene.events(ChannelClosed)] == ["cooperative"]
    assert scene.alice.core.tracker.pending() == []
    left = scene.alice.core.services.wallet.balance().confirmed
    assert FUNDS - PUSH // 1000 - 5_000 < left < FUNDS - PUSH // 1000


@pytest.mark.parametrize("make", [MatchedChain, late])
def test_a_close_while_a_node_without_whole_blocks_was_down(scene: Scene, make: Any) -> None:
    scene.begin(sources=[make])
    channel_id = scene.open()
    scene.alice.kill()
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.simulation.mine(30)
    scene.alice.start()
    scene.poll()
    assert scene.channel(scene.alice).lifecycle is Lifecycle.REMOTE_CLOSED
    scene.mine(7)
    assert not scene.alice.core.channels.channels()


def test_from_whole_blocks_to_matches_and_back_with_a_channel(scene: Scene) -> None:
    """A config edit and a restart, with an open channel each time."""
    scene.begin()
    channel_id = scene.open()
    for make in (MatchedChain, ControlledChain, MatchedChain):
        use(scene.alice, sources=[make])
        scene.simulation.connect(scene.alice, scene.bob)
        scene.mine(2)
        assert scene.usable()
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.mine(2)
    assert scene.channel(scene.alice).lifecycle is Lifecycle.REMOTE_CLOSED


def test_a_taproot_coin_that_leaves_without_change_is_seen_to_leave(scene: Scene) -> None:
    """Its spending shows no script: the coin itself must be watched, also after a restart."""
    scene.begin()
    alice, chain = scene.alice, scene.simulation.chain
    paid: list[bytes] = []

    def pay() -> None:
        destination, changes = alice.core.services.wallet.next_destination(DestinationPurpose.RECEIVE_TAPROOT)
        alice.core.engine.journal.merge(changes)
        paid.append(destination.script)
        chain.faucet(destination.script, Sat(50_000))

    for restart in (False, True):
        alice.core.engine.post(pay)
        scene.simulation.settle()
        scene.mine(1)
        coin = next(coin for coin in alice.core.services.wallet.coins() if coin.script == paid[-1])
        if restart:
            alice.kill()
            alice.start()
        watches = alice.core.chain.follower.watches
        assert watches.has_outpoint(coin.outpoint)


# -- one source after the other ----------------------------------------------------------------------------------------

TWO = [ControlledChain, lambda node: MatchedChain(node, "second")]


def test_a_source_in_trouble_is_replaced_and_comes_back(scene: Scene) -> None:
    scene.begin(sources=TWO)
    channel_id = scene.open()
    first = scene.source()
    first.says.append(SourceTrouble(reason="connection refused"))
    first.silent = True
    scene.poll()
    assert scene.chain.source_name == "whole"
    scene.wait(45)
    assert scene.chain.source_name == "second"
    assert scene.alarms("chain_source") == ["whole fails (connection refused): the chain is followed over second now"]
    before = scene.chain.height
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.mine(2)
    assert scene.chain.height == before + 2
    assert scene.channel(scene.alice).lifecycle is Lifecycle.REMOTE_CLOSED
    first.silent = False
    scene.mine(2)
    scene.wait(60)
    assert scene.chain.source_name == "second"  # not at once: it must have worked for a while
    scene.wait(300)
    assert scene.chain.source_name == "whole"
    assert scene.cleared("chain_source") == ["the chain is followed over whole again"]
    scene.mine(5)
    assert scene.chain.synced
    assert not scene.alice.core.channels.channels()  # closed and swept over both
    assert not scene.chain.health.why


def test_a_source_that_is_stuck_is_replaced_without_a_gap_or_a_repeat(scene: Scene) -> None:
    scene.begin(sources=TWO)
    scene.open()
    heights: list[int] = []
    channels = scene.alice.core.channels
    on_block = channels.on_block

    def noting(block: Any) -> None:
        heights.append(block.height)
        on_block(block)

    channels.on_block = noting  # type: ignore[method-assign]  # notes what channels are told
    scene.source().silent = True
    first = scene.chain.height + 1
    scene.mine(3)
    assert heights == []
    scene.wait(150)
    assert scene.chain.source_name == "second"
    scene.mine(2)
    assert heights == list(range(first, first + 5))
    assert "stuck" in scene.alarms("chain_source")[0]


def test_a_stream_that_lies_is_replaced(scene: Scene) -> None:
    scene.begin(sources=TWO)
    first = scene.source()

    def poll() -> Any:
        event = ControlledChain.poll(first)
        full = getattr(event, "full", False)
        return msgspec.structs.replace(event, transactions=event.transactions[:0]) if full else event

    first.poll = poll
    scene.mine(2)
    scene.wait(60)
    assert scene.chain.source_name == "second"
    assert "do not match the header" in scene.alarms("chain_source")[0]
    assert scene.chain.height == scene.simulation.chain.height


def test_a_reorg_in_the_middle_of_a_fail_over(scene: Scene) -> None:
    scene.begin(sources=TWO)
    channel_id = scene.open()
    scene.command(scene.alice, channel_id, Shutdown())
    scene.mine(3)
    assert scene.channel(scene.alice).spend is not None
    scene.source().silent = True
    scene.source().says.append(SourceTrouble(reason="gone"))
    scene.simulation.reorg(3)
    scene.wait(60)
    assert scene.chain.source_name == "second"
    assert scene.chain.follower.best_hash == scene.simulation.chain.tip_hash
    assert scene.channel(scene.alice).spend is None
    scene.mine(7)
    assert not scene.alice.core.channels.channels()


def test_a_rescan_that_one_source_owed_is_done_by_the_next(scene: Scene) -> None:
    scene.begin(sources=[ControlledChain, lambda node: ControlledChain(node, "second")])
    first = scene.source()
    scene.mine(2)

    async def never(_block_hash: bytes) -> Any:
        raise ConnectionError("gone")

    first.get_block = never
    script = scene.simulation.chain.block_at(scene.chain.height - 1).block.transactions[0].outputs[0].script
    runner = scene.chain.runners()[0]
    from leyden.chain import WatchesAdded
    from leyden.hooks.types import Watch

    since = BlockHeight(scene.chain.height - 1)
    scene.alice.core.engine.post(
        lambda: runner.absorb(WatchesAdded(watches=(Watch(script=script, since_height=since),)))
    )
    scene.simulation.settle()
    assert scene.chain.follower.rescans
    first.says.append(SourceTrouble(reason="gone"))
    first.silent = True
    scene.wait(60)
    assert scene.chain.source_name == "second"
    assert scene.chain.follower.rescans == ()


def test_a_watch_that_the_source_did_not_take_is_asked_again(scene: Scene) -> None:
    scene.begin(sources=[MatchedChain])
    source, taken = scene.source(), []
    watch = source.watch
    failures = [ConnectionError("not now"), ConnectionError("not now")]

    async def unwilling(watches: Any) -> Any:
        if failures:
            raise failures.pop()
        taken.extend(watches)
        return await watch(watches)

    source.watch = unwilling
    scene.alice.core.engine.post(lambda: scene.chain.watch(b"\x00\x14" + bytes(20), None))
    scene.simulation.settle()
    assert taken == []
    scene.wait(20)
    assert [watch.script for watch in taken] == [b"\x00\x14" + bytes(20)]


def test_watches_of_one_turn_go_out_in_one_call(scene: Scene) -> None:
    scene.begin(sources=[MatchedChain])
    source, calls = scene.source(), []
    watch = source.watch

    async def counting(watches: Any) -> Any:
        calls.append(len(watches))
        return await watch(watches)

    source.watch = counting

    def many() -> None:
        for number in range(50):
            scene.chain.watch(number.to_bytes(4, "big"), None)
            scene.chain.watch(number.to_bytes(4, "big"), None)

    scene.alice.core.engine.post(many)
    scene.simulation.settle()
    assert calls == [50]


def test_what_a_source_warns_of_becomes_an_alarm(scene: Scene) -> None:
    scene.begin(sources=[ControlledChain])
    scene.source().says.append(SourceWarning(text="server x sent a wrong proof: left it\x1b[0m"))
    scene.poll()
    assert scene.alarms("source_warning") == ["whole: server x sent a wrong proof: left it?[0m"]


# -- verifiers ---------------------------------------------------------------------------------------------------------


def test_a_spend_that_the_source_hides_is_found_by_the_verifier(scene: Scene) -> None:
    """An old commitment would be punished in time: what the verifier proves is acted on at once."""
    scene.begin(sources=[MatchedChain], verifiers=[lambda node: ControlledChain(node, "verifier")])
    channel_id = scene.open()
    funding = scene.channel(scene.alice).funding_outpoint
    scene.source().hides = lambda found: any(txin.prevout == funding for txin in found.tx.inputs)
    scene.command(scene.bob, channel_id, ForceClose(reason="test"))
    scene.mine(1)
    assert scene.channel(scene.alice).lifecycle is Lifecycle.REMOTE_CLOSED
    assert not scene.chain.health.why  # the source may be a moment slower
    scene.wait(60)
    (text,) = scene.alarms("chain_degraded")
    txid = scene.simulation.chain.spender_of(funding)[::-1].hex()
    assert text.startswith(f"matched did not tell of transaction {txid} in block")
    assert "verifier did" in text


def test_a_source_that_is_slower_than_its_verifier_raises_nothing(scene: Scene) -> None:
    scene.begin(sources=[late], verifiers=[lambda node: ControlledChain(node, "verifier")])
    scene.open()
    scene.mine(3)
    scene.wait(120)
    assert scene.alarms("chain_degraded") == []
    scene.source().silent = True  # now it is late by blocks, for a while
    scene.mine(2)
    scene.wait(40)
    scene.source().silent = False
    scene.wait(120)
    assert scene.alarms("chain_degraded") == []


def test_a_verifier_that_is_ahead_degrades_until_the_source_is_there(scene: Scene) -> None:
    scene.begin(sources=[ControlledChain], verifiers=[lambda node: ControlledChain(node, "verifier")])
    scene.open()
    scene.source().silent = True
    scene.mine(4)
    scene.wait(90)
    assert "verifier is at block" in scene.chain.health.why
    scene.source().silent = False
    scene.wait(30)
    assert not scene.chain.health.why
    alarms = scene.alarms("chain_degraded")
    assert len(alarms) > 0
    assert scene.cleared("chain_degraded") == ["over: " + "; ".join(alarms)]


def test_deadlines_count_from_the_highest_block_that_was_proved(scene: Scene) -> None:
    """The source stands still while an HTLC expires: the channel is closed on what the verifier saw."""
    scene.begin(sources=[ControlledChain], verifiers=[lambda node: ControlledChain(node, "verifier")])
    channel_id = scene.open()
    expiry = BlockHeight(scene.chain.height + 6)
    core = scene.alice.core
    actor = core.channels.get(channel_id)
    assert actor is not None
    soon_over = msgspec.structs.replace(HTLC, cltv_expiry=expiry)
    core.engine.request(lambda: core.channels.apply(actor, soon_over), lambda _ids: None, lambda _error: None)
    while not actor.channel.local_htlcs:
        assert scene.simulation.step()
    scene.bob.kill()
    scene.simulation.settle()
    assert actor.channel.local_htlcs
    scene.source().silent = True
    grace = scene.alice.core.channels.policy.offered_htlc_grace
    scene.mine(int(expiry - scene.chain.height + grace))
    assert scene.channel(scene.alice).lifecycle is Lifecycle.NORMAL
    scene.wait(60)
    assert scene.channel(scene.alice).lifecycle is not Lifecycle.NORMAL


def test_two_sources_on_different_chains(scene: Scene, tmp_path: Path) -> None:
    """The verifier lives on another branch: nothing of it is taken, but the node stops to trust."""
    other = Simulation(9, tmp_path / "other", blocks=110)
    try:
        for _ in range(3):
            other.chain.mine_block()

        def foreign(node: SimNode) -> ControlledChain:
            source = ControlledChain(node, "verifier")
            source._simulation = other
            source._simulation.soon = scene.simulation.soon  # type: ignore[method-assign]  # both chains in one order of events
            return source

        scene.begin(sources=[ControlledChain], verifiers=[foreign])
        scene.mine(3)
        scene.wait(120)
        assert "on different chains since block" in scene.chain.health.why
        assert scene.chain.follower.best_hash == scene.simulation.chain.tip_hash
    finally:
        other.close()


# -- chain degraded ----------------------------------------------------------------------------------------------------


def with_limit(node: SimNode, minutes: int) -> None:
    chain = ChainSettings(max_tip_age_minutes=minutes)
    node.config = msgspec.structs.replace(node.config, chain=chain)


@pytest.fixture
def scene_in_time(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, in_time=True)
    yield scene
    scene.simulation.close()


def test_an_old_tip_stops_opens_and_adds_but_not_closes(scene_in_time: Scene) -> None:
    scene = scene_in_time
    with_limit(scene.alice, 90)
    scene.begin(sources=[ControlledChain])
    channel_id = scene.open()
    scene.wait(60)
    assert not scene.chain.health.why
    scene.wait(tip_time(scene.simulation) + 90 * 60 - scene.simulation.now + 30)
    (text,) = scene.alarms("chain_degraded")
    assert text.startswith("the newest block of whole, ")
    assert text.endswith("minutes old")
    (refused,) = start_opening(scene.alice, scene.bob.node_id)
    assert isinstance(refused, OpenRefused)
    assert "degraded" in str(refused)
    (answer,) = start_opening(scene.bob, scene.alice.node_id, push=Msat(0), capacity=Sat(100_000))
    assert isinstance(answer, Exception)
    answers: list[object] = []
    core = scene.alice.core
    invoice = _invoice(scene)
    core.engine.request(lambda: core.payments.send(invoice, Msat(1_000), "k"), answers.append, answers.append)
    scene.simulation.settle()
    (why,) = answers
    assert isinstance(why, PaymentError)
    assert "degraded" in str(why)
    scene.wait(600)
    assert len(scene.alarms("chain_degraded")) == 1  # once
    assert scene.command(scene.alice, channel_id, ForceClose(reason="test")) is None
    while tip_time(scene.simulation) < scene.simulation.now - 1200:
        scene.mine(1)
    scene.wait(30)
    assert not scene.chain.health.why
    assert len(scene.cleared("chain_degraded")) == 1


def _invoice(scene: Scene) -> Any:
    class Invoice:
        payment_hash = PaymentHash(bytes(32))
        expires_at = START_TIME * 2
        payee = scene.bob.node_id
        text = ""

    return Invoice()


def test_regtest_may_have_an_old_tip(scene: Scene) -> None:
    scene.begin(sources=[ControlledChain])
    scene.wait(60)
    scene.simulation.now += 86_400
    scene.wait(60)
    assert not scene.chain.health.why


def test_trouble_counts_when_it_lasts_and_is_over_with_the_next_sign_of_life(scene: Scene) -> None:
    scene.begin(sources=[ControlledChain])
    scene.source().says.append(SourceTrouble(reason="bitcoind is loading blocks"))
    scene.poll()
    assert not scene.chain.health.why
    scene.wait(80)
    assert scene.chain.health.why == "whole: bitcoind is loading blocks"
    assert scene.alarms("chain_degraded") == ["whole: bitcoind is loading blocks"]
    scene.source().says.append(SourceTrouble(reason=""))
    scene.wait(20)
    assert not scene.chain.health.why
    assert scene.cleared("chain_degraded") == ["over: whole: bitcoind is loading blocks"]


def test_a_chain_that_ends_below_what_was_proved_is_not_trusted(scene: Scene) -> None:
    scene.begin(sources=[ControlledChain])
    scene.mine(4)
    chain = scene.simulation.chain
    fork = chain.block_at(chain.height - 4)
    scene.source().silent = True
    place = {"height": fork.height, "block_hash": fork.block.hash}
    scene.source().says.extend(
        [BlocksDisconnected(fork_height=fork.height, fork_hash=fork.block.hash), SourceSynced(**place)]
    )
    scene.wait(90)
    assert f"ends at block {fork.height}" in scene.chain.health.why


# -- transactions ------------------------------------------------------------------------------------------------------


def test_the_commitment_of_a_channel_that_was_never_funded_is_given_up(scene: Scene) -> None:
    """Bob failed it before its funding was seen; when he forgets the channel nothing is left to repeat."""
    scene.bob.config = msgspec.structs.replace(
        scene.bob.config, policy=msgspec.structs.replace(scene.bob.config.policy, funding_timeout=10)
    )
    scene.bob.kill()
    scene.bob.start()
    scene.begin()
    scene.simulation.connect(scene.alice, scene.bob)
    (channel_id,) = start_opening(scene.alice, scene.bob.node_id)
    assert isinstance(channel_id, bytes)
    scene.alice.kill()
    scene.simulation.chain.mempool.keep_only({})  # the funding is never seen
    scene.command(scene.bob, ChannelId(channel_id), ForceClose(reason="test"))
    tracker = scene.bob.core.tracker
    assert [kind.value for _, kind, _ in tracker.pending()] == ["unilateral_close"]
    assert tracker.refusals
    for _ in range(12):
        scene.simulation.chain.mine(1)
        scene.bob.poll_chain()
        scene.simulation.settle()
    assert not scene.bob.core.channels.channels()
    assert tracker.pending() == []
