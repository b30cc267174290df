"""Two whole nodes in two processes over loopback, SQLite with full durability, real invoices.

``c x k``: c channels, k payments in flight. The rate is payments per second of wall time; CPU is of both processes per
payment, by the operating system's account. What dominates the rate is printed under the table.

Peer: two Electrum daemons with one channel and their wallets' files, on a real bitcoind, driven over JSON-RPC.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.electrum_pair import ElectrumPair, fetched
from benchmarks.harness import Bench, Row, Sample
from tests.testbed.debian import Unavailable
from tests.testbed.program import PATIENCE

AMOUNT_MSAT = 1_000_000
CHANNEL_SAT = 10_000_000
OPEN_AT_ONCE = 4
"""A node accepts no more channels without a confirmed funding from one peer."""


class Process:
    """A ``pay_node`` and its answers."""

    def __init__(self, folder: Path, socket: Path, seed: str, delay_ms: float) -> None:
        folder.mkdir(mode=0o700)
        command = [sys.executable, "-m", "benchmarks.pay_node", str(folder), str(socket), seed, str(delay_ms)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, *command: Any) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def hear(self) -> Any:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise SystemExit("pay_pair: a node stopped")
        return json.loads(line)

    def ask(self, *command: Any) -> Any:
        self.tell(*command)
        return self.hear()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(PATIENCE)
        if self._process.stdout is not None:
            self._process.stdout.close()


class Pair:
    """A chain server and two nodes with ``channels`` open channels, alice funding all."""

    def __init__(self, folder: Path, channels: int, delay_ms: float) -> None:
        self._socket = folder / "chain" / "socket"
        (folder / "chain").mkdir(mode=0o700)
        serve = [sys.executable, "-m", "leyden_regtest", "serve", "--dir", str(folder / "chain" / "data")]
        self._chain = subprocess.Popen([*serve, "--socket", str(self._socket)], stdout=subprocess.PIPE, text=True)
        if self._chain.stdout is None or not self._chain.stdout.readline():
            raise SystemExit("pay_pair: the chain server did not start")
        self._nodes: list[Process] = []
        try:
            for name, seed in (("alice", "01"), ("bob", "02")):
                self._nodes.append(Process(folder / name, self._socket, seed * 32, delay_ms))
            self.alice, self.bob = self._nodes
            self._open(channels)
        except BaseException:
            self.close()
            raise

    def _open(self, channels: int) -> None:
        alice, bob = self.alice.ask("info"), self.bob.ask("info")
        for _ in range(channels):
            self._regtest("faucet", alice["deposit"], str(CHANNEL_SAT + 10_000))
        self._regtest("mine", "1")
        self._wait(lambda: self.alice.ask("balance") >= channels * CHANNEL_SAT)
        self.alice.ask("connect", bob["address"])
        opened = 0
        while opened < channels:
            group = min(OPEN_AT_ONCE, channels - opened)
            for _ in range(group):
                self.alice.ask("open", bob["address"].partition("@")[0], CHANNEL_SAT)
            opened += group
            self._regtest("mine", "6")
            self._wait(lambda wanted=opened: self.alice.ask("usable") == wanted == self.bob.ask("usable"))

    def _regtest(self, verb: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "leyden_regtest", verb, "--socket", str(self._socket), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _wait(self, reached: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if time.monotonic() > deadline:
                raise SystemExit("pay_pair: the channels did not become usable")
            time.sleep(0.02)

    def run(self, count: int, in_flight: int, *, sample: bool = False) -> dict[str, Any]:
        """Figures of ``count`` payments; with ``sample`` also where the CPU of each node went, and how much it was."""
        invoices = self.bob.ask("invoices", count, AMOUNT_MSAT)
        before = [node.ask("usage") for node in self._nodes]
        for node in self._nodes if sample else ():
            node.ask("sample")
        result = self.alice.ask("pay", invoices, in_flight)
        samples = [node.ask("samples") if sample else {} for node in self._nodes]
        after = [node.ask("usage") for node in self._nodes]
        latencies = sorted(result["latencies"])
        cpu = [(a["cpu"] - b["cpu"]) / count * 1e6 for a, b in zip(after, before, strict=True)]
        roles = ("payer", "payee")
        return {
            "rate": count / result["seconds"],
            "cpu_us": sum(cpu),
            "commits": sum(a["commits"] - b["commits"] for a, b in zip(after, before, strict=True)) / 2 / count,
            "p50_ms": statistics.median(latencies) * 1e3,
            "p99_ms": latencies[int(len(latencies) * 0.99)] * 1e3,
            "rss_mib": max(a["rss_mib"] for a in after),
            "cpu": dict(zip(roles, cpu, strict=True)),
            "samples": dict(zip(roles, samples, strict=True)),
        }

    def close(self) -> None:
        for node in self._nodes:
            node.close()
        self._chain.terminate()
        self._chain.wait(PATIENCE)
        if self._chain.stdout is not None:
            self._chain.stdout.close()


QUICK = [(1, 1, 300), (10, 10, 1000)]
FULL = [(1, 1, 1000), (1, 10, 2000), (10, 10, 2000), (4, 100, 2000)]
"""Channels, payments in flight on each, payments."""
AGAINST_ELECTRUM = {(1, 1): (1, 0.04), (10, 10): (5, 0.01)}
"""By our load: its payments in flight (more help it little), and the largest ratio of our time to its time."""
ROUNDS = 5
"""A machine that others load for a while spoils two of them, not their median."""


def run(bench: Bench) -> None:
    bench.uses("leyden-core", "leyden-sqlite", "coincurve")
    with ExitStack() as stack:
        electrum = _start_electrum(bench, stack)
        for channels, in_flight, count in QUICK if bench.quick else FULL:
            label = f"{channels} x {in_flight}"
            with open_pair(channels, 0) as pair:
                pair.run(max(20, in_flight), in_flight)
                _measure(bench, label, pair, electrum, (channels, in_flight, count))
    for delay in () if bench.quick else (2.5, 10.0):
        for channels, in_flight, count in FULL:
            with open_pair(channels, delay) as pair:
                pair.run(max(20, in_flight), in_flight)
                figures = pair.run(count // 4, in_flight * channels)
            _rows(bench, f"{channels} x {in_flight}, +{delay:g} ms per sync", figures)
    bench.note("rate: payments/s; both nodes on this machine's cores, the payer also runs the load")


@contextmanager
def open_pair(channels: int, delay: float) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as name:
        pair = Pair(Path(name), channels, delay)
        try:
            yield pair
        finally:
            pair.close()


def _start_electrum(bench: Bench, stack: ExitStack) -> ElectrumPair | None:
    if not fetched():
        return None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leyden-bench-")))
    try:
        pair = ElectrumPair(folder)
    except Unavailable as error:
        bench.note(f"electrum: {error}")
        return None
    stack.callback(pair.close)
    bench.versions["electrum"] = str(pair.alice.rpc("version"))
    pair.run(2, 1)
    return pair


def _measure(bench: Bench, label: str, pair: Pair, electrum: ElectrumPair | None, load: tuple[int, int, int]) -> None:
    """Ours and Electrum in turns, so that a busy machine slows down both."""
    channels, in_flight, count = load
    theirs_in_flight, target = AGAINST_ELECTRUM.get((channels, in_flight), (0, 0.0))
    ours: list[dict[str, Any]] = []
    theirs: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        ours.append(pair.run(count // ROUNDS, in_flight * channels))
        if electrum is not None and theirs_in_flight:
            theirs.append(electrum.run((4 if bench.quick else 12) * theirs_in_flight, theirs_in_flight))
    _rows(bench, label, _median(ours))
    if theirs:
        ratios = sorted(b["rate"] / a["rate"] for a, b in zip(ours, theirs, strict=True))
        figures = _median(theirs)
        bench.ratio(
            f"{label} against {theirs_in_flight} in flight",
            "electrum",
            Sample(figures["cpu_us"] / 1e6, 1 / figures["rate"]),
            ratios,
            target,
        )
        bench.note(
            f"electrum, {theirs_in_flight} in flight: {figures['rate']:.1f} payments/s, "
            f"p50 {figures['p50_ms']:.0f} ms, {figures['rss_mib']:.0f} MiB; "
            f"we are {1 / statistics.median(ratios):.0f} times as fast"
        )
    elif theirs_in_flight:
        bench.skip(label, "electrum")


def _median(rounds: list[dict[str, Any]]) -> dict[str, float]:
    return {
        name: statistics.median(figures[name] for figures in rounds)
        for name, value in rounds[0].items()
        if isinstance(value, float)
    }


def _rows(bench: Bench, label: str, figures: dict[str, float]) -> None:
    bench.rows.append(Row(label, "payments/s", None, None, figures["rate"], None, None, ""))
    wall = 1e6 / figures["rate"]
    bench.rows.append(Row(label, "both nodes, per payment", figures["cpu_us"], wall, None, None, None, ""))
    bench.limit(f"{label}: memory", "MiB RSS", figures["rss_mib"], 60.0)
    bench.note(
        f"{label}: p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms, {figures['commits']:.2f} commits "
        f"per payment and node; dominated by {_dominant(figures, wall)}"
    )


def _dominant(figures: dict[str, float], wall_us: float) -> str:
    share = figures["cpu_us"] / 2 / wall_us
    if share > 0.8:
        return f"CPU: each node is busy {share:.0%} of the time"
    return f"waiting: each node is busy {share:.0%} of the time, the rest is disk sync and the other node's turn"
