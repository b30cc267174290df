"""The fee estimators of the regtest plugin against the conformance suite."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from leyden.hooks.types import FeeTarget
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
        return self.rate  # type: ignore[return-value]


class _UpsideDown:
    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        return FeeRatePerKw(1000 if target is FeeTarget.MAXIMUM else 2000)


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
