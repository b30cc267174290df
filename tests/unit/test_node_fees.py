"""FeeCache: the first good answer, within bounds, without jumps that nobody confirms, never older than it says."""

from typing import Any

import pytest
from leyden.hooks.types import FeeTarget
from leyden.node.fees import (
    ANCHOR_CEILING,
    CEILING,
    FLOOR,
    PATIENCE_SECONDS,
    REFRESH_SECONDS,
    STALE_SECONDS,
    FeeCache,
)
from leyden.node.host import Caller, run_inline
from leyden.types import FeeRatePerKw


class Clock:
    """Time and timers by hand; what is spawned waits until the test answers."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.timers: list[tuple[float, Any]] = []
        self.waiting: list[tuple[Any, Any, str]] = []

    def wall_time(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: Any) -> None:
        self.timers.append((self.now + seconds, callback))

    def spawn(self, work: Any, done: Any, name: str) -> None:
        self.waiting.append((work, done, name))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, callback in due:
            callback()


class Says:
    """An estimator with one answer for everything, or one for each purpose."""

    inline = True

    def __init__(self, answer: Any, **answers: Any) -> None:
        self.answer = answer
        self.answers = answers
        self.asked = 0

    async def estimate(self, target: FeeTarget) -> Any:
        self.asked += 1
        answer = self.answers.get(target.value, self.answer)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Blunt:
    inline = True

    def estimate(self, target: FeeTarget) -> Any:
        raise ValueError("bad plugin")


def make(*estimators: Any) -> tuple[FeeCache, Clock]:
    clock = Clock()
    named = [(f"source{number}", estimator) for number, estimator in enumerate(estimators)]
    return FeeCache(named, clock, Caller(clock, lambda work: work())), clock


@pytest.mark.parametrize("bad", [None, "a lot", 0, -5, True, 1.5, ConnectionError("gone")])
def test_the_next_one_is_asked_when_one_has_no_good_answer(bad: Any) -> None:
    cache, _ = make(Says(bad), Blunt(), Says(777))
    cache.refresh()
    assert {getattr(cache.rates, target.value) for target in FeeTarget} == {777}
    assert {estimate.estimator for estimate in cache.estimates.values()} == {"source2"}


def test_answers_are_bounded() -> None:
    cache, _ = make(Says(1, maximum=10**9))
    cache.refresh()
    assert cache.rates.funding == FLOOR
    assert cache.rates.maximum == CEILING


def test_purposes_do_not_contradict_each_other() -> None:
    cache, _ = make(
        Says(
            1_000,
            urgent_sweep=900,
            sweep=2_000,
            maximum=1_500,
            min_allowed_anchor_remote=5_000,
            min_allowed_non_anchor_remote=5_000,
        )
    )
    cache.refresh()
    rates = cache.rates
    assert rates.urgent_sweep == rates.sweep == 2_000
    assert rates.maximum == 2_000
    assert rates.min_allowed_anchor_remote == rates.min_allowed_non_anchor_remote == 1_000


@pytest.mark.parametrize(("jump", "bounded"), [(50_000, 10_000), (253, 253), (9_999, 9_999), (10_001, 10_000)])
def test_a_jump_that_nobody_confirms_is_taken_in_steps(jump: int, bounded: int) -> None:
    only = Says(1_000)
    cache, clock = make(only)
    cache.refresh()
    only.answer = jump
    clock.advance(REFRESH_SECONDS)
    assert cache.rates.funding == bounded
    clock.advance(REFRESH_SECONDS)
    assert cache.rates.funding == jump


def test_a_jump_down_is_bounded_too() -> None:
    only = Says(100_000)
    cache, clock = make(only)
    cache.refresh()
    only.answer = 253
    clock.advance(REFRESH_SECONDS)
    assert cache.rates.funding == 10_000


@pytest.mark.parametrize(("second", "taken"), [(60_000, 60_000), (1_100, 1_100), (None, 10_000), (200_000, 10_000)])
def test_a_jump_asks_for_a_second_opinion(second: int | None, taken: int) -> None:
    """Confirmed, contradicted, or left alone."""
    first, other = Says(1_000), Says(1_000)
    cache, clock = make(first, other)
    cache.refresh()
    assert other.asked == 0
    first.answer, other.answer = 50_000, second
    clock.advance(REFRESH_SECONDS)
    assert cache.rates.funding == taken
    assert other.asked > 0


def test_an_old_estimate_is_no_measure() -> None:
    only = Says(1_000)
    cache, clock = make(only)
    cache.refresh()
    only.answer = None
    clock.advance(STALE_SECONDS + 1)
    only.answer = 90_000
    clock.advance(REFRESH_SECONDS)
    assert cache.rates.funding == 90_000


def test_stale_when_what_an_opening_costs_is_not_known_for_an_hour() -> None:
    only = Says(1_000)
    cache, clock = make(only)
    assert cache.stale
    cache.refresh()
    assert not cache.stale
    only.answers = {"funding": None}  # everything else goes on
    clock.advance(STALE_SECONDS - 1)
    assert not cache.stale
    clock.advance(2)
    assert cache.stale
    only.answers = {"non_anchor_channel": None}  # one kind of channel is enough
    clock.advance(REFRESH_SECONDS)
    assert not cache.stale


def test_one_that_does_not_answer_makes_way_for_the_next() -> None:
    class Silent(Says):
        inline = False

    late, second = Silent(5_000), Says(800)
    cache, clock = make(late, second)
    cache.refresh()
    assert second.asked == 0
    clock.advance(PATIENCE_SECONDS)
    assert cache.rates.funding == 800
    for work, done, _ in clock.waiting:  # too late
        done(run_inline(work), None)
    assert cache.rates.funding == 800


def test_asking_in_between_starts_no_second_clock() -> None:
    only = Says(FeeRatePerKw(700))
    cache, clock = make(only)
    cache.refresh()
    cache.refresh()
    asked = only.asked
    clock.advance(REFRESH_SECONDS)
    assert only.asked == asked + len(FeeTarget)


def test_channels_hear_of_each_look() -> None:
    cache, clock = make(Says(1_000))
    told: list[int] = []
    cache.on_refreshed = lambda: told.append(1)
    cache.refresh()
    clock.advance(REFRESH_SECONDS)
    assert len(told) == 4


def test_one_lying_estimator_cannot_put_a_channel_into_its_commitment_fee() -> None:
    """The first answer has nothing to be compared with. A commitment with anchors need not pay more than it takes to
    enter a full mempool: the rest can be added when it is needed, and what is in it nobody gets back."""
    cache, _ = make(Says(250_000))
    cache.refresh()
    assert cache.rates.anchor_channel == ANCHOR_CEILING
    assert cache.rates.min_allowed_anchor_remote <= ANCHOR_CEILING
    assert cache.rates.non_anchor_channel == CEILING  # nobody can add to that one
    assert cache.rates.urgent_sweep == CEILING
