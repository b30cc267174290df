"""The fee estimators of the regtest plugin against the conformance suite."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from leyden.hooks.types import FeeTarget
from leyden.testing.chain import BackendSwitch
from leyden.testing.fees import AbsentFeeSuite, FeeBed, FeeEstimatorSuite, SlowFeeSuite, UnknowingFeeSuite
from leyden.types import FeeRatePerKw
from leyden_regtest.client import RegtestClient

from tests.contract.regtest_bed import server_process


class TestOfTheSettings(FeeEstimatorSuite):
    @pytest.fixture
    def bed(self, tmp_path: Path) -> FeeBed:
        rate = FeeRatePerKw(700)
        return FeeBed(make_estimator=lambda: RegtestClient(tmp_path / "nobody", rate), expected=rate)


class TestOfTheServer(FeeEstimatorSuite, UnknowingFeeSuite, AbsentFeeSuite, SlowFeeSuite):
    @pytest.fixture
    async def bed(self) -> AsyncIterator[FeeBed]:
        with tempfile.TemporaryDirectory() as folder:  # short path, mode 0700
            async with server_process(Path(folder)) as server:
                yield FeeBed(
                    make_estimator=lambda: RegtestClient(server.socket),
                    expected=FeeRatePerKw(1000),
                    make_unknowing=lambda: RegtestClient(Path(folder) / "nobody"),
                    power=server.power,
                    freeze=server.freeze,
                )


# -- the suite itself --------------------------------------------------------------------------------------------------


class _Says:
    def __init__(self, rate: object) -> None:
        self.rate = rate

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        if isinstance(self.rate, Exception):
            raise self.rate
        return self.rate  # type: ignore[return-value]  # whatever a test wants said


class _UpsideDown:
    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        return FeeRatePerKw(1000 if target is FeeTarget.MAXIMUM else 2000)


class _Fidgets:
    """Another answer to each question."""

    def __init__(self) -> None:
        self.rate = 1_000

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        self.rate += 1
        return FeeRatePerKw(self.rate)


class _LosesCount:
    """Questions that are asked while another waits get no answer; one that was cancelled waits for ever."""

    def __init__(self) -> None:
        self.busy = False

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        if self.busy and target is FeeTarget.MAXIMUM:
            return None
        self.busy = target is FeeTarget.MAXIMUM
        await asyncio.sleep(0)
        self.busy = False
        return FeeRatePerKw(1_000)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (4, "satoshi per virtual byte"),
        (4_000_000, "satoshi per 1000 virtual bytes"),
        (1000.0, "not a whole number"),
        (True, "not a whole number"),
        ("1000", "not a whole number"),
        (OSError("gone"), "the answer is None"),
    ],
)
async def test_the_suite_catches_what_is_no_rate(rate: object, message: str) -> None:
    bed = FeeBed(make_estimator=lambda: _Says(rate))
    with pytest.raises(AssertionError, match=message):
        await FeeEstimatorSuite().test_every_target_has_an_answer_in_the_right_unit(bed)


async def test_the_suite_catches_rates_that_do_not_fit() -> None:
    with pytest.raises(AssertionError, match="is above maximum"):
        await FeeEstimatorSuite().test_rates_fit_each_other(FeeBed(make_estimator=_UpsideDown))
    with pytest.raises(AssertionError, match="no estimate for any target"):
        await FeeEstimatorSuite().test_there_is_an_estimate(FeeBed(make_estimator=lambda: _Says(None)))
    with pytest.raises(AssertionError, match="got 1000, expected 250"):
        bed = FeeBed(make_estimator=lambda: _Says(1000), expected=FeeRatePerKw(250))
        await FeeEstimatorSuite().test_there_is_an_estimate(bed)
    with pytest.raises(AssertionError, match="the backend has no estimate"):
        bed = FeeBed(make_estimator=lambda: _Says(1000), make_unknowing=lambda: _Says(1000))
        await UnknowingFeeSuite().test_no_estimate_is_none(bed)


async def test_the_suite_catches_answers_that_depend_on_who_asks_besides() -> None:
    with pytest.raises(AssertionError, match="asked at the same time"):
        await FeeEstimatorSuite().test_asking_at_the_same_time_gives_the_same(FeeBed(make_estimator=_Fidgets))
    with pytest.raises(AssertionError, match="after a cancelled question"):
        await FeeEstimatorSuite().test_a_cancelled_question_leaves_it_in_order(FeeBed(make_estimator=_LosesCount))


async def test_the_suites_of_absent_and_slow_backends_catch_estimates_out_of_nothing() -> None:
    async def nothing() -> None:
        pass

    switch = BackendSwitch(off=nothing, on=nothing)
    with pytest.raises(AssertionError, match="an absent backend gave estimates"):
        bed = FeeBed(make_estimator=lambda: _Says(1000), power=switch)
        await AbsentFeeSuite().test_an_absent_backend_means_no_estimate(bed)
    with pytest.raises(AssertionError, match="after the backend was slow"):
        await SlowFeeSuite().test_a_caller_may_give_up_on_a_slow_backend(FeeBed(make_estimator=_Fidgets, freeze=switch))
