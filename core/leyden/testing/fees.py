"""Conformance suite of fee estimators.

Subclass ``FeeEstimatorSuite``, supply the fixture ``bed`` (a ``FeeBed``) and run pytest (with pytest-asyncio in auto
mode). What a rate is worth nobody can test; that it is a rate in the right unit, that it fits the others, and that an
estimator without an answer says so, everybody can.
"""

import asyncio
from collections.abc import Callable

import msgspec

from leyden.hooks.services import FeeEstimator
from leyden.hooks.types import FeeTarget
from leyden.testing.chain.bed import BackendSwitch
from leyden.testing.expectations import CANCEL_AFTER, cancel, expect, expect_equal, needed
from leyden.types import FeeRatePerKw

TIMEOUT = 20.0
BRIEF = 0.2
LEAST = 250
"""One satoshi per virtual byte, in satoshi per 1000 weight. Less looks like another unit."""
MOST = 1_000_000
"""4,000 satoshi per virtual byte. More looks like satoshi per 1000 virtual bytes, or like a mistake."""

ORDER: tuple[tuple[FeeTarget, FeeTarget], ...] = (
    (FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE, FeeTarget.ANCHOR_CHANNEL),
    (FeeTarget.MIN_ALLOWED_NON_ANCHOR_REMOTE, FeeTarget.NON_ANCHOR_CHANNEL),
    (FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE, FeeTarget.MIN_ALLOWED_NON_ANCHOR_REMOTE),
    (FeeTarget.CLOSE_MINIMUM, FeeTarget.URGENT_SWEEP),
    (FeeTarget.SWEEP, FeeTarget.URGENT_SWEEP),
    *((target, FeeTarget.MAXIMUM) for target in FeeTarget if target is not FeeTarget.MAXIMUM),
)
"""The first is never above the second: else the node refuses what its own rate is, or hurries less where it must."""


class FeeBed(msgspec.Struct, frozen=True, kw_only=True):
    """``make_estimator`` gives one whose backend has estimates."""

    make_estimator: Callable[[], FeeEstimator]
    expected: FeeRatePerKw | None = None
    """What the backend says for ``FeeTarget.FUNDING``, in satoshi per 1000 weight, if the bed knows: the surest test of
    the unit."""
    make_unknowing: Callable[[], FeeEstimator] | None = None
    """``UnknowingFeeSuite``: one whose backend answers that it has no estimate."""
    power: BackendSwitch | None = None
    """``AbsentFeeSuite``."""
    freeze: BackendSwitch | None = None
    """``SlowFeeSuite``."""


async def ask(estimator: FeeEstimator, target: FeeTarget) -> FeeRatePerKw | None:
    """The answer for ``target``, which must come, must not be an exception, and must be a rate or ``None``."""
    try:
        async with asyncio.timeout(TIMEOUT):
            rate = await estimator.estimate(target)
    except TimeoutError:
        raise AssertionError(f"no answer for {target.value} within {TIMEOUT:g} s: None would be one") from None
    except Exception as error:
        raise AssertionError(
            f"estimate({target.value}) raised {error!r}: without an estimate the answer is None"
        ) from error
    expect(rate is None or type(rate) is int, f"estimate({target.value}) answered {rate!r}, not a whole number or None")
    if rate is not None:
        expect(
            rate >= LEAST,
            f"{rate} for {target.value}: is it satoshi per virtual byte? per 1000 weight is 250 times that",
        )
        expect(
            rate <= MOST,
            f"{rate} for {target.value}: is it satoshi per 1000 virtual bytes? per 1000 weight is a quarter",
        )
    return rate


async def ask_all(estimator: FeeEstimator) -> dict[FeeTarget, FeeRatePerKw | None]:
    """Every target, all at the same time: as the core asks."""
    rates = await asyncio.gather(*(ask(estimator, target) for target in FeeTarget))
    return dict(zip(FeeTarget, rates, strict=True))


class FeeEstimatorSuite:
    """Subclass and supply the fixture ``bed``."""

    async def test_every_target_has_an_answer_in_the_right_unit(self, bed: FeeBed) -> None:
        estimator = bed.make_estimator()
        for target in FeeTarget:
            await ask(estimator, target)

    async def test_there_is_an_estimate(self, bed: FeeBed) -> None:
        rates = await ask_all(bed.make_estimator())
        expect(any(rate is not None for rate in rates.values()), "there is no estimate for any target")
        if bed.expected is not None:
            expect_equal(rates[FeeTarget.FUNDING], bed.expected, "the rate for funding, satoshi per 1000 weight")

    async def test_rates_fit_each_other(self, bed: FeeBed) -> None:
        rates = await ask_all(bed.make_estimator())
        for low, high in ORDER:
            smaller, larger = rates[low], rates[high]
            if smaller is not None and larger is not None:
                expect(smaller <= larger, f"{low.value} ({smaller}) is above {high.value} ({larger})")

    async def test_asking_at_the_same_time_gives_the_same(self, bed: FeeBed) -> None:
        estimator = bed.make_estimator()
        one_by_one = {target: await ask(estimator, target) for target in FeeTarget}
        expect_equal(await ask_all(estimator), one_by_one, "asked at the same time")

    async def test_a_cancelled_question_leaves_it_in_order(self, bed: FeeBed) -> None:
        estimator = bed.make_estimator()
        wanted = await ask_all(estimator)
        for passes in CANCEL_AFTER:
            await cancel(lambda: estimator.estimate(FeeTarget.MAXIMUM), passes)
            expect_equal(await ask_all(estimator), wanted, "after a cancelled question")


class UnknowingFeeSuite:
    """The bed's ``make_unknowing`` gives an estimator whose backend has no estimate."""

    async def test_no_estimate_is_none(self, bed: FeeBed) -> None:
        make_unknowing = needed(bed.make_unknowing, "make_unknowing", bed)
        rates = await ask_all(make_unknowing())
        known = {target.value: rate for target, rate in rates.items() if rate is not None}
        expect(not known, f"the backend has no estimate, but the plugin said {known}")


class AbsentFeeSuite:
    """The bed's ``power`` takes the backend away and gives it back."""

    async def test_an_absent_backend_means_no_estimate(self, bed: FeeBed) -> None:
        """Old answers may be repeated for a while: the core looks at the age of what it keeps, not at that."""
        power = needed(bed.power, "power", bed)
        estimator = bed.make_estimator()
        wanted = await ask_all(estimator)
        await power.off()
        fresh = await ask_all(bed.make_estimator())
        expect(not any(fresh.values()), f"an absent backend gave estimates: {fresh}")
        await ask_all(estimator)
        await power.on()
        expect_equal(await ask_all(estimator), wanted, "after the backend came back")


class SlowFeeSuite:
    """The bed's ``freeze`` stops the backend in the middle of things and lets it go on."""

    async def test_a_caller_may_give_up_on_a_slow_backend(self, bed: FeeBed) -> None:
        freeze = needed(bed.freeze, "freeze", bed)
        estimator = bed.make_estimator()
        wanted = await ask_all(estimator)
        await freeze.off()
        try:
            for target in (FeeTarget.MAXIMUM, FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE):
                try:
                    async with asyncio.timeout(BRIEF):
                        await estimator.estimate(target)
                except TimeoutError:
                    pass
        finally:
            await freeze.on()
        expect_equal(await ask_all(estimator), wanted, "after the backend was slow")
