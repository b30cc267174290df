"""Measuring us and a peer side by side.

Contenders run in turns, round by round, and a ratio is the median of the rounds' ratios: a busy machine slows down both
sides of a round. Times are CPU time of the process that works (wall time beside it). Before timing, a benchmark makes
sure of equal outputs with ``Bench.same``. A peer that is not installed is reported as skipped, never as passed.
"""

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

OURS = "leyden"
QUICK_LENIENCE = 1.5
"""Quick runs are short, so their gates are looser by this factor."""


class Sample(NamedTuple):
    """Seconds per operation."""

    cpu: float
    wall: float


Contender = Callable[[], Sample]


class Row(NamedTuple):
    """One line of the table; times in microseconds per operation."""

    label: str
    contender: str
    cpu_us: float | None
    wall_us: float | None
    ratio: float | None
    spread: tuple[float, float] | None
    target: float | None
    verdict: str


def timed(work: Callable[[], object], operations: int = 1, *, repeat: int = 1) -> Sample:
    """Run ``work`` ``repeat`` times; ``operations`` is how many operations one call does."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeat):
        work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Sample(cpu / (repeat * operations), wall / (repeat * operations))


def timer(work: Callable[[], object], operations: int = 1, *, at_least: float = 0.002) -> Contender:
    """A contender that repeats ``work`` often enough for the clock: ``at_least`` seconds in each round."""
    once = max(timed(work, 1).wall, 1e-7)
    repeat = max(1, round(at_least / min(once, timed(work, 1).wall or once)))
    return lambda: timed(work, operations, repeat=repeat)


class Bench:
    """What a benchmark module's ``run(bench)`` is given: it measures, compares, and gathers the table."""

    def __init__(self, name: str, *, quick: bool) -> None:
        self.name = name
        self.quick = quick
        self.rounds = 11 if quick else 31
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.versions: dict[str, str] = {"python": sys.version.split()[0]}
        self._cores: set[int] = set()

    def uses(self, *distributions: str) -> None:
        """Print the versions of these distributions with the result."""
        for name in distributions:
            try:
                self.versions[name] = version(name)
            except PackageNotFoundError:
                self.versions[name] = "missing"

    def note(self, text: str) -> None:
        """A line under the table."""
        self.notes.append(text)

    def pin(self) -> None:
        """Keep this process, and peers started later, on one core: for benchmarks of a single thread."""
        if hasattr(os, "sched_setaffinity"):
            self._cores = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {max(self._cores)})

    def unpin(self) -> None:
        """All cores again, for the benchmark that follows in this process."""
        if self._cores:
            os.sched_setaffinity(0, self._cores)

    def same(self, what: str, ours: object, peer: object) -> None:
        """Stop unless both sides produced the same: a faster wrong answer is worth nothing."""
        if ours != peer:
            raise SystemExit(f"{self.name}: {what} differs between leyden and the peer: {ours!r} != {peer!r}")

    def compare(
        self,
        label: str,
        ours: Contender,
        peers: Mapping[str, Contender | None],
        *,
        targets: Mapping[str, float] | None = None,
        rounds: int | None = None,
    ) -> dict[str, float]:
        """Time ``ours`` and each peer in turns; a peer that is None was not found. Returns median CPU us by name.

        ``targets`` gives for a peer the largest allowed ratio of our time to its time.
        """
        targets = targets or {}
        runners = {OURS: ours} | {name: peer for name, peer in peers.items() if peer is not None}
        samples: dict[str, list[Sample]] = {name: [] for name in runners}
        for runner in runners.values():
            runner()  # warm up: caches, lazy imports
        gc.collect()
        for number in range(rounds or self.rounds):
            order = list(runners) if number % 2 == 0 else list(reversed(runners))
            for name in order:
                samples[name].append(runners[name]())
        for name in (OURS, *peers):
            if name not in samples:
                self.rows.append(Row(label, name, None, None, None, None, targets.get(name), "skipped"))
                continue
            cpu = statistics.median(s.cpu for s in samples[name]) * 1e6
            wall = statistics.median(s.wall for s in samples[name]) * 1e6
            if name == OURS:
                self.rows.append(Row(label, name, cpu, wall, None, None, None, ""))
                continue
            ratios = sorted(a.cpu / b.cpu for a, b in zip(samples[OURS], samples[name], strict=True) if b.cpu > 0)
            self.ratio(label, name, Sample(cpu / 1e6, wall / 1e6), ratios, targets.get(name))
        return {name: statistics.median(s.cpu for s in taken) * 1e6 for name, taken in samples.items()}

    def ratio(self, label: str, peer: str, sample: Sample, ratios: list[float], target: float | None) -> None:
        """A peer's line from sorted ratios, one of each round, of our time to its time."""
        ratio, spread = statistics.median(ratios), (ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4])
        verdict = self._verdict(ratio, target)
        self.rows.append(Row(label, peer, sample.cpu * 1e6, sample.wall * 1e6, ratio, spread, target, verdict))

    def limit(self, label: str, unit: str, value: float, at_most: float | None, *, exact: bool = False) -> None:
        """A figure without a peer. ``exact`` figures (bytes, counts) get no lenience in quick runs."""
        verdict = self._verdict(value, at_most, lenience=1.0 if exact else None)
        self.rows.append(Row(label, unit, None, None, value, None, at_most, verdict))

    def skip(self, label: str, peer: str) -> None:
        """Say that a comparison could not be made."""
        self.rows.append(Row(label, peer, None, None, None, None, None, "skipped"))

    def _verdict(self, value: float, target: float | None, *, lenience: float | None = None) -> str:
        if target is None:
            return ""
        if lenience is None:
            lenience = QUICK_LENIENCE if self.quick else 1.0
        return "ok" if value <= target * lenience else "MISS"

    @property
    def missed(self) -> int:
        return sum(row.verdict == "MISS" for row in self.rows)

    def report(self) -> str:
        """The table, the notes and one JSON line."""
        head = ("what", "against", "cpu us", "wall us", "ratio", "(middle half)", "target", "")
        lines: list[Sequence[str]] = [head]
        for row in self.rows:
            spread = f"{row.spread[0]:.3g}..{row.spread[1]:.3g}" if row.spread else ""
            cells = (row.cpu_us, row.wall_us, row.ratio)
            numbers = ["" if cell is None else _figure(cell) for cell in cells]
            target = "" if row.target is None else f"<= {row.target:g}"
            lines.append((row.label, row.contender, *numbers, spread, target, row.verdict))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        table = [
            "  ".join(
                cell.ljust(w) if i < 2 or i == 7 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        title = f"== {self.name}{' (quick: targets x 1.5)' if self.quick else ''}"
        versions = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        return "\n".join([title, versions, *table, *self.notes, self.json_line()])

    def json_line(self) -> str:
        """The result for machines: one line."""
        return json.dumps(
            {
                "benchmark": self.name,
                "quick": self.quick,
                "missed": self.missed,
                "versions": self.versions,
                "rows": [{k: v for k, v in row._asdict().items() if v is not None and v != ""} for row in self.rows],
                "notes": self.notes,
            },
            separators=(",", ":"),
        )


def _figure(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"
