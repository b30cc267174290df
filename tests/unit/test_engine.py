"""The turn loop with parts that fail on command: one commit or nothing, and never a dead node."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from leyden.bitcoin import Network
from leyden.hooks.services import StoreFenced
from leyden.node.engine import Engine, StorageDegraded
from leyden.node.host import run_inline
from leyden.node.journal import Journal
from leyden.testing.memory_store import MemoryDisk, MemoryStore

T = TypeVar("T")


class FakeHost:
    """Timers that fire when the test says so."""

    def __init__(self) -> None:
        self.woken = 0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def wall_time(self) -> float:
        return 0.0

    def entropy(self, length: int) -> bytes:
        return bytes(length)

    def wake(self) -> None:
        self.woken += 1

    def call_later(self, seconds: float, callback: Callable[[], None]) -> "FakeHost":
        self.timers.append((seconds, callback))
        return self

    def cancel(self) -> None:
        pass

    def spawn(
        self, work: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None], name: str
    ) -> None:
        raise AssertionError("nothing is spawned here")


class Counter:
    """A participant with one number; ``broken`` makes the named method raise."""

    def __init__(self, name: bytes = b"n") -> None:
        self.name = name
        self.value = self.durable = 0
        self.left: list[int] = []
        self.broken = ""
        self.moves = 0

    def add(self) -> None:
        self.value += 1

    def end_turn(self) -> bool:
        self._may_break("end_turn")
        if self.moves:
            self.moves -= 1
            return True
        return False

    def write(self, journal: Journal) -> None:
        if self.value != self.durable:
            journal.put(self.name, bytes([self.value]))
        self._may_break("write")

    def commit(self) -> None:
        self._may_break("commit")
        if self.value != self.durable:
            self.left.append(self.value)
        self.durable = self.value

    def rollback(self) -> None:
        self.value = self.durable

    def _may_break(self, method: str) -> None:
        if self.broken == method:
            raise ZeroDivisionError(method)


class Rig:
    def __init__(self) -> None:
        self.host = FakeHost()
        self.store = MemoryStore(MemoryDisk())
        epoch = run_inline(self.store.open(Network.REGTEST))
        self.engine = Engine(self.store, self.host, epoch)
        self.first, self.second = Counter(b"1"), Counter(b"2")
        self.engine.set_participants((self.first, self.second))
        self.degraded: list[str] = []
        self.engine.on_degraded = self.degraded.append
        self.answers: list[object] = []

    def turn(self) -> None:
        """Time for a retry has passed, whatever there is to do."""
        timers, self.host.timers = self.host.timers, []
        for _, callback in timers:
            callback()
        run_inline(self.engine.turn())

    def request(self, work: Callable[[], object]) -> None:
        self.engine.request(work, self.answers.append, self.answers.append)

    def rows(self) -> dict[bytes, bytes]:
        return self.store.disk.rows


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_turn_drains_its_mail_into_one_commit(rig: Rig) -> None:
    rig.engine.post(lambda: rig.engine.post(rig.second.add))  # mail that makes mail
    rig.engine.post(rig.first.add)
    rig.request(lambda: rig.rows().get(b"1"))
    rig.turn()
    assert rig.engine.commits == 1
    assert rig.rows() == {b"1": b"\1", b"2": b"\1"}
    assert rig.first.left == [1]
    assert rig.answers == [None]  # nothing was durable while the request ran
    rig.turn()
    assert rig.engine.commits == 1  # nothing changed, nothing written


def test_callers_are_answered_after_the_commit(rig: Rig) -> None:
    rig.engine.post(rig.first.add)
    rig.engine.request(lambda: None, lambda _: rig.answers.append(dict(rig.rows())), rig.answers.append)
    rig.turn()
    assert rig.answers == [{b"1": b"\1"}]


def test_a_failed_commit_drops_the_whole_turn(rig: Rig) -> None:
    rig.store.fail_next()
    rig.engine.post(rig.first.add)
    rig.engine.post(rig.second.add)
    rig.request(lambda: "done")
    rig.turn()
    assert (rig.first.value, rig.second.value) == (0, 0)
    assert rig.first.left == []
    assert rig.rows() == {}
    assert [type(answer) for answer in rig.answers] == [StorageDegraded]
    assert rig.engine.degraded
    assert rig.degraded == [rig.engine.degraded]


def test_degraded_refuses_callers_and_keeps_mail(rig: Rig) -> None:
    rig.store.fail_next()
    rig.engine.post(rig.first.add)
    rig.turn()
    ran: list[int] = []
    rig.request(lambda: ran.append(1))
    assert isinstance(rig.answers[0], StorageDegraded)
    assert "storage is degraded" in str(rig.answers[0])
    assert ran == []
    rig.engine.post(rig.second.add)
    commits = rig.store.commits
    run_inline(rig.engine.turn())
    assert rig.store.commits == commits  # mail alone does not wear the disk out
    rig.store.fail_next()  # the probe of the recovery fails as well
    rig.turn()
    assert rig.engine.degraded
    assert rig.second.value == 0
    assert rig.host.timers  # the store is tried again by itself
    rig.turn()
    assert not rig.engine.degraded
    assert rig.degraded[-1] == ""
    assert rig.second.left == [1]
    rig.request(lambda: "works")
    rig.turn()
    assert rig.answers[-1] == "works"


def test_recovery_reads_back_before_it_goes_on(rig: Rig) -> None:
    order: list[str] = []

    async def reload() -> None:
        order.append("reload")

    rig.engine.reload = reload
    rig.store.fail_next()
    rig.engine.post(rig.first.add)
    rig.turn()
    rig.engine.post(lambda: order.append("mail"))
    rig.turn()
    assert order == ["reload", "mail"]


def test_a_reload_that_fails_leaves_the_node_degraded(rig: Rig) -> None:
    async def reload() -> None:
        raise ZeroDivisionError("a row that cannot be read")

    rig.engine.reload = reload
    rig.store.fail_next()
    rig.engine.post(rig.first.add)
    rig.turn()
    rig.turn()
    assert rig.engine.degraded
    assert rig.host.timers  # and it will be tried again


def test_a_commit_that_was_durable_after_all_is_not_sent(rig: Rig) -> None:
    """The sync failed but the rows reached the disk: reading back shows them, nothing left before."""
    rig.store.fail_next(durable=True)
    rig.engine.post(rig.first.add)
    rig.turn()
    assert rig.rows() == {b"1": b"\1"}
    assert rig.first.left == []


def test_poisoned_mail_costs_neither_turn_nor_node(rig: Rig) -> None:
    def poison() -> None:
        raise ZeroDivisionError("poison")

    rig.engine.post(rig.first.add)
    rig.engine.post(poison)
    rig.engine.post(rig.second.add)
    rig.turn()
    assert rig.rows() == {b"1": b"\1", b"2": b"\1"}


def test_a_failing_request_gets_its_reason(rig: Rig) -> None:
    rig.engine.post(rig.first.add)
    rig.request(lambda: 1 // 0)
    rig.turn()
    assert isinstance(rig.answers[0], ZeroDivisionError)
    assert rig.first.left == [1]


def test_a_poisoned_answer_keeps_nobody_else_from_theirs(rig: Rig) -> None:
    def poison(_: object) -> None:
        raise ZeroDivisionError("the caller is gone")

    rig.engine.post(rig.first.add)
    rig.engine.request(lambda: "a", poison, rig.answers.append)
    rig.request(lambda: "b")
    rig.turn()
    assert rig.answers == ["b"]


def test_a_poisoned_refusal_keeps_nobody_else_from_theirs(rig: Rig) -> None:
    def poison(_: object) -> None:
        raise ZeroDivisionError("the caller is gone")

    rig.store.fail_next()
    rig.engine.post(rig.first.add)
    rig.engine.request(lambda: "a", rig.answers.append, poison)
    rig.request(lambda: "b")
    rig.turn()
    assert [type(answer) for answer in rig.answers] == [StorageDegraded]
    assert rig.engine.degraded


def test_effects_that_break_keep_no_other_part_from_theirs(rig: Rig) -> None:
    """The rows are durable by then: going back would contradict the disk."""
    rig.first.broken = "commit"
    rig.engine.post(rig.first.add)
    rig.engine.post(rig.second.add)
    rig.request(lambda: "done")
    rig.turn()
    assert rig.second.left == [1]
    assert rig.rows() == {b"1": b"\1", b"2": b"\1"}
    assert rig.first.value == 1
    assert rig.answers == ["done"]


@pytest.mark.parametrize("method", ["end_turn", "write"])
def test_a_bug_before_the_commit_drops_the_turn(rig: Rig, method: str) -> None:
    rig.first.broken = method
    rig.engine.post(rig.first.add)
    rig.engine.post(rig.second.add)
    rig.request(lambda: "done")
    rig.turn()
    assert rig.rows() == {}
    assert (rig.first.value, rig.second.value) == (0, 0)
    assert rig.second.left == []
    assert [type(answer) for answer in rig.answers] == [StorageDegraded]
    rig.first.broken = ""
    rig.turn()  # half of the rows of the dropped turn must not show up now
    assert set(rig.rows()) == {b"mprobe"}
    assert not rig.engine.degraded


def test_a_turn_that_never_settles_ends(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.node.engine.MAX_ROUNDS", 10)
    rig.first.moves = 10**9
    rig.engine.post(rig.second.add)
    rig.turn()
    assert rig.second.left == [1]


def test_fenced_stops_the_node(rig: Rig) -> None:
    rig.engine.post(rig.first.add)
    rig.request(lambda: "done")
    run_inline(MemoryStore(rig.store.disk).open(Network.REGTEST))  # another process took the database
    with pytest.raises(StoreFenced):
        rig.turn()
    assert rig.first.left == []
    assert [type(answer) for answer in rig.answers] == [StorageDegraded]
    assert rig.engine.fenced
    rig.engine.post(rig.second.add)
    rig.turn()
    assert rig.second.value == 0  # nothing runs any more


def test_fenced_while_recovering_stops_the_node(rig: Rig) -> None:
    rig.store.fail_next()
    rig.engine.post(rig.first.add)
    rig.turn()
    run_inline(MemoryStore(rig.store.disk).open(Network.REGTEST))
    with pytest.raises(StoreFenced):
        rig.turn()
    assert rig.engine.fenced
