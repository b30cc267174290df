"""The benchmark harness: ratios, verdicts, missing peers."""

import json

import pytest

from benchmarks.__main__ import available, main
from benchmarks.harness import Bench, Contender, Sample


def steady(seconds: float) -> Contender:
    return lambda: Sample(seconds, seconds)


@pytest.mark.parametrize(
    ("quick", "target", "verdict"), [(False, 0.5, "ok"), (False, 0.4, "MISS"), (True, 0.4, "ok"), (True, 0.3, "MISS")]
)
def test_ratio_and_verdict(quick: bool, target: float, verdict: str) -> None:
    bench = Bench("sample", quick=quick)
    medians = bench.compare("work", steady(2e-6), {"peer": steady(4e-6)}, targets={"peer": target}, rounds=3)
    assert medians == {"leyden": pytest.approx(2), "peer": pytest.approx(4)}
    row = bench.rows[1]
    assert row.ratio == pytest.approx(0.5)
    assert row.verdict == verdict
    assert bench.missed == (verdict == "MISS")


def test_ratio_is_the_median_of_rounds() -> None:
    ours = iter([1.0, 1.0, 1.0, 50.0])
    bench = Bench("sample", quick=False)
    bench.compare("work", lambda: Sample(next(ours), 1.0), {"peer": steady(2.0)}, rounds=3)
    assert bench.rows[1].ratio == pytest.approx(0.5)


def test_a_missing_peer_is_skipped_and_not_passed() -> None:
    bench = Bench("sample", quick=True)
    bench.compare("work", steady(1.0), {"peer": None}, targets={"peer": 1.0}, rounds=2)
    assert bench.rows[1].verdict == "skipped"
    assert bench.missed == 0
    assert "skipped" in bench.report()


def test_limits_and_json_line() -> None:
    bench = Bench("sample", quick=True)
    bench.limit("growth", "us per HTLC", 14, 10)
    bench.limit("bytes", "KiB", 2.1, 2, exact=True)
    assert [row.verdict for row in bench.rows] == ["ok", "MISS"]
    result = json.loads(bench.report().splitlines()[-1])
    assert (result["benchmark"], result["quick"], result["missed"]) == ("sample", True, 1)


def test_different_outputs_stop_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="txid differs"):
        Bench("sample", quick=True).same("txid", b"a", b"b")


@pytest.mark.parametrize(
    ("options", "misses", "code", "runs"),
    [([], [1], 1, 1), (["--again"], [1, 0], 0, 2), (["--again"], [1, 2], 1, 2), (["--again"], [0], 0, 1)],
)
def test_what_misses_may_be_measured_once_more(
    options: list[str], misses: list[int], code: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(name: str, quick: bool) -> int:
        asked.append((name, quick))
        return misses[len(asked) - 1]

    monkeypatch.setattr("benchmarks.__main__.measure", run)
    monkeypatch.setattr("sys.argv", ["benchmarks", "curve", "--quick", *options])
    assert main() == code
    assert asked == [("curve", True)] * runs


def test_listing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert {"curve", "commitment"} <= set(available())
    monkeypatch.setattr("sys.argv", ["benchmarks", "--list"])
    assert main() == 0
    assert "commitment" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["benchmarks", "curv"])
    assert main() == 2
    assert "no benchmark called curv" in capsys.readouterr().err
