"""A channel funded with a coin that another transaction takes: it ends once nothing can bring the funding back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.bitcoin import Transaction, TxOut, p2wsh
from leyden.channel import Lifecycle
from leyden.channel.events import ForceClose
from leyden.hooks.signing import SignPsbt, SpendPurpose
from leyden.hooks.types import ChannelClosed, FundedTransaction
from leyden.node import keyspace
from leyden.node.host import run_inline
from leyden.node.opening import BatchOpening, FundingWish, signed_transaction
from leyden.node.txtracker import RETAINED_DEPTH
from leyden.testing.simulation import SimNode, Simulation
from leyden.types import ChannelId, FeeRatePerKw, Sat

from tests.scenario.chain_kit import ControlledChain, MatchedChain, use
from tests.scenario.sim_kit import FUNDS, channels, fund, give, logged, start_opening

STRANGER = p2wsh(b"\x51")
SENT = Sat(2_000_000)


class Scene:
    """Alice has one coin, and a transaction that spends it lies ready while she opens channels with it."""

    def __init__(self, folder: Path) -> None:
        self.simulation = Simulation(11, folder / "chain")
        self.alice = self.simulation.add_node("alice")
        self.bob = self.simulation.add_node("bob")
        fund(self.simulation, self.alice)
        self.conflict = spend(self.alice)

    def connect(self) -> None:
        self.simulation.connect(self.alice, self.bob)

    def open(self) -> ChannelId:
        self.connect()
        (channel_id,) = start_opening(self.alice, self.bob.node_id)
        assert isinstance(channel_id, bytes), channel_id
        return ChannelId(channel_id)

    def double_spend(self) -> None:
        """The block has the other transaction; no mempool has the funding."""
        self.forget()
        self.simulation.chain.mine_block([self.conflict])
        self.poll()

    def forget(self) -> None:
        self.simulation.chain.mempool.keep_only({})

    def mine(self, count: int) -> None:
        for _ in range(count):
            self.simulation.mine(1)
            self.poll()

    def poll(self) -> None:
        for node in (self.alice, self.bob):
            for _ in range(3):
                if node.alive:
                    node.poll_chain()
                    self.simulation.settle()

    def ends(self) -> list[str]:
        return [event.how for event in logged(self.alice, ChannelClosed)]

    def rows(self, area: bytes) -> list[bytes]:
        return [key for key in self.alice.disk.rows if key.startswith(area)]


def spend(node: SimNode, amount: Sat = SENT) -> Transaction:
    """A signed transaction that pays a stranger from the wallet of ``node``, which forgets that it made it."""
    core = node.core
    made: list[FundedTransaction] = []

    def fund_and_release() -> None:
        wallet = core.services.wallet
        output = TxOut(value=amount, script=STRANGER)
        funded, changes = wallet.fund("test", [output], FeeRatePerKw(2000), core.chain.height)
        core.engine.journal.merge(changes)
        core.engine.journal.merge(wallet.release("test"))
        made.append(funded)

    core.engine.post(fund_and_release)
    node.simulation.settle()
    request = SignPsbt(request_id="test", psbt=made[0].psbt, purpose=SpendPurpose.WITHDRAWAL)
    return signed_transaction(made[0], run_inline(core.services.onchain_signer.sign_psbt(request)))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.simulation.close()


def check_over(scene: Scene, count: int = 1) -> None:
    """Nothing is left of the channel: no row, no claim, no transaction, and the other one's change is free."""
    assert scene.ends() == ["unfunded"] * count
    assert not channels(scene.alice)
    assert scene.alice.core.tracker.pending() == []
    assert scene.rows(keyspace.TRANSACTION) == []
    assert scene.rows(keyspace.CHANNEL_CONFIG) == []
    wallet = scene.alice.core.services.wallet
    assert wallet.claims() == ()
    balance = wallet.balance()
    assert FUNDS - SENT - 2000 < balance.free < FUNDS - SENT
    assert balance.spendable == balance.free


@pytest.mark.parametrize("restart", [False, True])
def test_a_failed_channel_whose_coin_was_spent_elsewhere(scene: Scene, restart: bool) -> None:
    channel_id = scene.open()
    scene.double_spend()
    scene.bob.kill()
    assert give(scene.alice, channel_id, ForceClose(reason="the funding was double-spent")) == [None]
    scene.mine(RETAINED_DEPTH - 2)
    if restart:
        scene.alice.kill()
        scene.alice.start()
        scene.poll()
    (channel,) = channels(scene.alice)
    assert channel.lifecycle is Lifecycle.FORCE_CLOSING
    assert scene.ends() == []
    scene.mine(1)
    check_over(scene)


@pytest.mark.parametrize("make", [ControlledChain, MatchedChain])
def test_a_node_that_was_away_hears_of_it(scene: Scene, make: type[ControlledChain]) -> None:
    """Also over a source that tells only what is watched: nobody but the wallet knew the coin."""
    use(scene.alice, sources=[make])
    scene.open()
    use(scene.alice, sources=[make])
    scene.bob.kill()
    scene.double_spend()
    scene.alice.kill()
    scene.alice.start()
    scene.mine(RETAINED_DEPTH - 1)
    check_over(scene)


def test_a_channel_that_waits_for_its_funding_ends_too(scene: Scene) -> None:
    scene.open()
    scene.double_spend()
    scene.mine(RETAINED_DEPTH - 2)
    (channel,) = channels(scene.alice)
    assert channel.lifecycle is Lifecycle.AWAIT_CONFIRMATION
    scene.mine(1)
    check_over(scene)
    (closed,) = logged(scene.alice, ChannelClosed)
    assert closed.txid is None
    assert "another transaction" in closed.reason
    (theirs,) = channels(scene.bob)
    assert "another transaction" in theirs.failure  # the peer was told


def test_a_reorg_brings_the_funding_back(scene: Scene) -> None:
    scene.open()
    scene.double_spend()
    scene.mine(20)
    scene.simulation.chain.reorg(21, forget=True)
    scene.forget()
    scene.poll()
    scene.mine(6)
    assert scene.ends() == []
    assert all(channel.is_usable for node in (scene.alice, scene.bob) for channel in channels(node))
    scene.mine(RETAINED_DEPTH)
    assert scene.ends() == []


def test_a_reorg_brings_the_funding_of_a_failed_channel_back(scene: Scene) -> None:
    channel_id = scene.open()
    scene.double_spend()
    give(scene.alice, channel_id, ForceClose(reason="the funding was double-spent"))
    scene.mine(20)
    scene.simulation.chain.reorg(21, forget=True)
    scene.forget()
    scene.poll()
    scene.mine(170)
    assert scene.ends() == ["local_force"]
    assert not channels(scene.alice)
    assert scene.alice.core.services.wallet.claims() == ()


def test_every_channel_of_a_batch_ends(scene: Scene) -> None:
    carol = scene.simulation.add_node("carol")
    core = scene.alice.core
    peers = []
    for node in (scene.bob, carol):
        scene.simulation.connect(scene.alice, node)
        peers.append(core.peers.get(node.node_id))
    answers: list[object] = []
    openings = [BatchOpening(peer=peer, funding=Sat(500_000)) for peer in peers if peer is not None]
    core.engine.post(lambda: core.opener.open_batch(openings, FundingWish(), answers.append, answers.append))
    scene.simulation.settle()
    assert len(channels(scene.alice)) == 2, answers
    scene.double_spend()
    scene.mine(RETAINED_DEPTH - 1)
    check_over(scene, 2)


def test_a_channel_funded_with_the_change_of_a_funding_that_never_was(scene: Scene) -> None:
    carol = scene.simulation.add_node("carol")
    scene.open()
    scene.simulation.connect(scene.alice, carol)
    (second,) = start_opening(scene.alice, carol.node_id)
    assert isinstance(second, bytes), second
    scene.double_spend()
    scene.mine(RETAINED_DEPTH - 1)
    check_over(scene, 2)
