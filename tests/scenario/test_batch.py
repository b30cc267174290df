"""Several channels with one funding transaction: all of them or none, whenever a process dies or a peer goes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.channel import Lifecycle
from leyden.hooks.signing import CommitmentSignatures, SignCounterpartyCommitment
from leyden.hooks.types import DestinationPurpose, Refusal
from leyden.node.batch import BatchFailed, FundingWish
from leyden.node.opening import BatchOpening
from leyden.testing.simulation import Crash, SimNode, Simulation
from leyden.types import ChannelId, Msat, Sat

FUNDS = Sat(5_000_000)


class Town:
    """Alice with coins, connected to bob and carol."""

    def __init__(self, folder: Path) -> None:
        self.simulation = Simulation(3, folder)
        self.alice, self.bob, self.carol = (self.simulation.add_node(name) for name in ("alice", "bob", "carol"))
        core = self.alice.core
        destination, changes = core.services.wallet.next_destination(DestinationPurpose.RECEIVE)
        core.engine.journal.merge(changes)
        self.simulation.chain.faucet(destination.script, FUNDS)
        self.simulation.mine(1)
        self.ids: list[ChannelId] = []
        self.errors: list[BaseException] = []
        self.connect()

    def connect(self) -> None:
        for friend in (self.bob, self.carol):
            if friend.alive and self.alive and not self.alice.core.peers.get(friend.node_id):
                self.simulation.connect(self.alice, friend)

    @property
    def alive(self) -> bool:
        return self.alice.alive

    def begin(self) -> None:
        core = self.alice.core
        openings = []
        for friend, funding in ((self.bob, 600_000), (self.carol, 400_000)):
            peer = core.peers.get(friend.node_id)
            assert peer is not None
            openings.append(BatchOpening(peer=peer, funding=Sat(funding), push=Msat(1_000_000)))
        core.engine.post(lambda: core.opener.open_batch(openings, FundingWish(), self.ids.extend, self.errors.append))

    def open(self) -> None:
        self.begin()
        self.simulation.settle()

    def lives(self, node: SimNode) -> list[Lifecycle]:
        return [channel.lifecycle for channel in node.core.channels.channels()]

    def locked(self) -> int:
        return self.alice.core.services.wallet.balance().locked


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path / "chain")
    yield town
    town.simulation.close()


def test_two_channels_one_transaction(town: Town) -> None:
    town.open()
    assert not town.errors
    assert len(town.ids) == 2
    actors = [town.alice.core.channels.get(channel_id) for channel_id in town.ids]
    outpoints = [actor.channel.fundings[0].outpoint for actor in actors if actor is not None]
    assert outpoints[0].txid == outpoints[1].txid
    assert outpoints[0].vout != outpoints[1].vout
    town.simulation.mine(6)
    assert town.lives(town.alice) == [Lifecycle.NORMAL] * 2
    assert town.lives(town.bob) == town.lives(town.carol) == [Lifecycle.NORMAL]
    assert [c.channel.config.funding_satoshis for c in map(town.alice.core.channels.get, town.ids) if c] == [
        600_000,
        400_000,
    ]


def test_a_peer_that_refuses_ends_all(town: Town) -> None:
    town.carol.core.opener._ask_accept = lambda _request, answer: answer(Refusal(reason="not today"))
    town.open()
    assert not town.ids
    assert [type(error) for error in town.errors] == [BatchFailed]
    assert not town.alice.core.channels.channels()
    assert town.locked() == 0
    assert town.alice.core.tracker.pending() == []


def cut_after(town: Town, messages: int) -> None:
    """Carol vanishes after so many writes of hers."""
    count = 0

    def on_point(name: str) -> None:
        nonlocal count
        count += name == "write:after"
        if count == messages:
            raise Crash

    town.carol.on_point = on_point


@pytest.mark.parametrize("messages", [1, 2])
def test_a_peer_that_vanishes_ends_all(town: Town, messages: int) -> None:
    """After ``accept_channel``, and after ``funding_signed`` has left: then it counts."""
    cut_after(town, messages)
    town.open()
    town.simulation.advance(2)
    if messages == 1:
        assert [type(error) for error in town.errors] == [BatchFailed]
        assert town.locked() == 0
        assert not town.alice.core.channels.channels()
    else:
        assert len(town.ids) == 2


def die_at(node: SimNode, target: int) -> Callable[[str], None]:
    def on_point(_name: str) -> None:
        if len(node.points) == target:
            raise Crash

    return on_point


def test_all_or_none_after_a_crash_at_any_point(tmp_path: Path) -> None:
    """Both channels live and their transaction is on its way, or there is none and the coins are free."""
    dry = Town(tmp_path / "dry")
    dry.alice.points.clear()
    dry.open()
    points = len(dry.alice.points)
    dry.simulation.close()
    assert points > 10
    outcomes = set()
    for target in range(1, points + 1):
        town = Town(tmp_path / f"chain-{target}")
        town.alice.points.clear()
        town.alice.on_point = die_at(town.alice, target)
        town.open()
        if not town.alice.alive:
            town.alice.start()
        town.connect()
        town.simulation.advance(2)
        alice = town.alice.core
        lives = town.lives(town.alice)
        broadcast = [kind.value for _, kind, _ in alice.tracker.pending()]
        outcomes.add(len(lives))
        assert len(lives) in (0, 2), f"one channel of the batch survived a death at {target}"
        assert broadcast == (["funding"] if lives else [])
        town.simulation.mine(6)
        if lives:
            assert town.lives(town.alice) == [Lifecycle.NORMAL] * 2
        else:
            assert town.locked() == 0
            assert alice.services.wallet.balance().confirmed == FUNDS
        town.simulation.close()
    assert outcomes == {0, 2}


class Forger:
    """A signer whose signature on the peer's commitment is of something else."""

    stateless = True

    def __init__(self, signer: Any) -> None:
        self._signer = signer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signer, name)

    async def sign_counterparty_commitment(self, request: SignCounterpartyCommitment) -> CommitmentSignatures:
        moved = {"owner_msat": request.view.owner_msat - 500_000, "other_msat": request.view.other_msat + 500_000}
        view = msgspec.structs.replace(request.view, **moved)
        wrong: CommitmentSignatures = await self._signer.sign_counterparty_commitment(
            msgspec.structs.replace(request, view=view)
        )
        return wrong


def test_a_peer_that_signs_wrongly_ends_all_before_anything_is_kept(town: Town) -> None:
    channels = town.carol.core.channels
    channels._signer = Forger(channels._signer)
    town.open()
    assert [type(error) for error in town.errors] == [BatchFailed]
    assert "signed wrongly" in str(town.errors[0])
    assert not town.alice.core.channels.channels()
    assert town.locked() == 0
    assert town.alice.core.tracker.pending() == []
