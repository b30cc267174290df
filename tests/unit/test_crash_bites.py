"""The crash test can fail: a node broken on purpose must be found out by it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from leyden.channel import dance, machine
from leyden.hooks.signing import ValidateHolderCommitment
from leyden.hooks.types import RecordChanges
from leyden.node import channels, keyspace
from leyden.node.engine import Engine
from leyden.node.journal import Journal
from leyden.node.peers import PeerManager
from leyden.testing.crash import tell
from leyden.testing.guard_ledger import take_violations
from leyden.testing.story import Plan, parse_plan
from leyden.wire import CommitmentSigned

SEED = 1


@pytest.fixture(autouse=True)
def own_violations() -> Iterator[None]:
    """Unsafe orders are what these tests provoke; they are judged here and not once more at teardown."""
    yield
    take_violations()


def found_out(plans: list[Plan]) -> str:
    """The first failure that the crash test reports."""
    for plan in plans:
        wrong, _ = tell(SEED, plan)
        if wrong:
            return wrong
    return ""


def sound_plans(point: str) -> list[Plan]:
    """A death at each ``point``, alice and bob in turn; counted while the node is still sound."""
    wrong, points = tell(SEED, Plan())
    assert not wrong
    found = [
        (index, name) for name, passed in points.items() for index, each in enumerate(passed, start=1) if each == point
    ]
    return [Plan(deaths=((name, index),)) for index, name in sorted(found)]


def without(changes: RecordChanges, area: bytes) -> RecordChanges:
    return RecordChanges(
        puts=tuple(put for put in changes.puts if not put[0].startswith(area)), deletes=changes.deletes
    )


def test_a_sound_node_passes() -> None:
    assert found_out(sound_plans("write:before")[::8]) == ""


def test_messages_that_leave_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = sound_plans("write:before")  # where the broken node has written and is about to commit
    commit = Engine._commit

    async def leaky(self: Engine, puts: Any, deletes: Any) -> None:
        for participant in self._participants:
            if isinstance(participant, PeerManager):
                participant.commit()
        await commit(self, puts, deletes)

    monkeypatch.setattr(Engine, "_commit", leaky)
    assert found_out(plans)


@pytest.mark.parametrize(
    "area", [keyspace.CHANNEL_STATE, keyspace.CHANNEL_HTLC, keyspace.CHANNEL_SIGNATURES, keyspace.CHANNEL_SECRET]
)
def test_a_record_of_the_channel_that_is_not_written(monkeypatch: pytest.MonkeyPatch, area: bytes) -> None:
    plans = sound_plans("commit:after")
    records = channels.records
    monkeypatch.setattr(channels, "records", lambda old, new: without(records(old, new), area))
    assert found_out(plans)


@pytest.mark.parametrize("area", [keyspace.TRANSACTION, keyspace.MAILBOX, keyspace.INVOICE, keyspace.PAYMENT])
def test_a_durable_outbox_that_is_dropped(monkeypatch: pytest.MonkeyPatch, area: bytes) -> None:
    plans = sound_plans("commit:after")
    take = Journal.take
    monkeypatch.setattr(Journal, "take", lambda self: without(take(self), area))
    assert found_out(plans)


def test_a_secret_released_before_the_new_commitment_was_validated(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = machine._MESSAGE_HANDLERS[CommitmentSigned]

    def hasty(turn: Any, message: Any) -> None:
        handler(turn, message)
        for request in turn.channel.pending:
            if isinstance(request, ValidateHolderCommitment):
                turn.effects.clear()
                turn.set(pending=())
                turn.ask(dance.release_request(turn, turn.channel.local_revoked))

    monkeypatch.setitem(machine._MESSAGE_HANDLERS, CommitmentSigned, hasty)
    assert "unsafe order to a signer: secret 0 released" in found_out([Plan()])


def test_a_device_that_is_asked_before_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(self: Engine, work: Callable[[], None], failed: object = None) -> None:
        work()

    monkeypatch.setattr(Engine, "after_commit", at_once)
    assert "left before the commit that records it" in found_out([Plan(device=True)])


def test_a_failed_commit_that_is_not_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durable, but reported as failed: memory that goes back to the state before contradicts the disk."""
    wrong, points = tell(SEED, Plan())
    assert not wrong
    commits = sum(point == "commit:before" for point in points["alice"])
    plans = [Plan(failures=(("alice", index, 0),)) for index in range(3, commits)]
    recover = Engine._recover

    async def forgetful(self: Engine) -> bool:
        self.reload = None
        return await recover(self)

    monkeypatch.setattr(Engine, "_recover", forgetful)
    assert found_out(plans)


@pytest.mark.parametrize(
    "text", ["no crash", "alice@17", "alice@17+", "bob@3~2", "alice#30x5", "bob#7!", "alice@1,bob@2,alice#3x1,device"]
)
def test_plans_can_be_written_down(text: str) -> None:
    plan = Plan() if text == "no crash" else parse_plan(text)
    assert str(plan) == text
