"""The clocks by which a node finds out that it was suspended: a process that is held looks like nothing of the kind."""

import time
from types import SimpleNamespace

import pytest
from leyden.node import driver
from leyden.node.driver import SUSPENDED_SECONDS, read_clocks

HELD = 3 * SUSPENDED_SECONDS


class _Machine:
    """Clocks that all show the same; before the reading ``at``, the process is held or the machine sleeps."""

    def __init__(self, at: int, *, asleep: bool) -> None:
        self.at = at
        self.asleep = asleep
        self.readings = 0
        self.awake = 100.0
        self.total = 100.0

    def _pass(self) -> None:
        self.readings += 1
        if self.readings == self.at:
            self.total += HELD
            self.awake += 0.0 if self.asleep else HELD

    def monotonic(self) -> float:
        self._pass()
        return self.awake

    def since_boot(self, _clock: object = None) -> float:
        self._pass()
        return self.total

    def worked(self) -> float:
        self._pass()
        return 1.0


def machine(monkeypatch: pytest.MonkeyPatch, at: int, *, asleep: bool = False) -> _Machine:
    made = _Machine(at, asleep=asleep)
    clocks = SimpleNamespace(
        CLOCK_BOOTTIME=7,
        clock_gettime=made.since_boot,
        time=made.since_boot,
        monotonic=made.monotonic,
        process_time=made.worked,
    )
    monkeypatch.setattr(driver, "time", clocks)
    return made


@pytest.mark.parametrize("at", range(1, 13))
def test_a_process_that_is_held_between_two_readings_was_not_suspended(
    monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Wherever that happens: the two clocks never drift apart, in neither direction."""
    machine(monkeypatch, at)
    looks = [read_clocks() for _ in range(4)]
    apart = [total - awake for awake, total, _ in looks]
    assert max(apart) - min(apart) < SUSPENDED_SECONDS / 2


@pytest.mark.parametrize("at", range(1, 5))
def test_a_machine_that_sleeps_between_two_readings_is_noticed(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    made = machine(monkeypatch, 0, asleep=True)
    before = read_clocks()
    made.at = made.readings + at
    awake, total, _ = [read_clocks() for _ in range(2)][-1]
    assert (total - before[1]) - (awake - before[0]) == pytest.approx(HELD)


def test_the_clocks_of_this_machine() -> None:
    begin = time.monotonic()
    awake, total, worked = read_clocks()
    assert begin <= awake <= time.monotonic()
    assert total > 0
    assert worked > 0
