"""``python -m tests.interop``: every scenario with every peer, then the table (``make interop``).

Peers run beside each other, each in a process of its own with its own bitcoind. Exit code 0 only if nothing failed.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from leyden.wire.features import Feature

from tests.interop import report
from tests.interop.peers import PEERS, find
from tests.testbed.__main__ import prepare

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / ".cache" / "interop"
MARKS = {"passed": "pass", "failed": "FAIL", "not supported": "n/s", "unavailable": "-"}
STALL_SECONDS = 1200
"""After so long without a cell a run hangs: no scenario may take half of it."""
GRACE_SECONDS = 120
STALLED = 1000
"""In place of the exit code of a run that hung."""
START, END = "<!-- table: make interop writes it -->", "<!-- end of the table -->"


class Result:
    """What the run of one peer came to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.version = ""
        self.features = ""
        self.unavailable = ""
        self.cells: dict[str, tuple[str, float, str]] = {}
        self.seconds = 0.0
        self.code = 0

    def read(self, path: Path) -> None:
        """A worker that was killed may have left half a line."""
        for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
            if line.endswith("\n"):
                self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        self.version = line.get("version", self.version)
        self.features = line.get("features", self.features)
        self.unavailable = line.get("unavailable", self.unavailable)
        if "row" not in line:
            return
        before = self.cells.get(line["row"])
        if before is None or before[0] != "failed":
            self.cells[line["row"]] = (line["outcome"], line["seconds"], line["text"])

    @property
    def failures(self) -> list[tuple[str, str]]:
        found = [(row, text) for row, (outcome, _, text) in self.cells.items() if outcome == "failed"]
        required = find(self.name).required()
        if self.unavailable and os.environ.get("CI") and required:
            found.append(("every scenario", f"cannot be had: {self.unavailable}"))
        elif not found and self.code not in (0, 5) and not self.unavailable:
            found.append(("the run", f"{_ending(self.code)}: see {LOGS / self.name}.log"))
        return found


def run_peer(name: str, words: list[str], reports: Path) -> Result:
    result, path, begun = Result(name), reports / f"{name}.jsonl", time.monotonic()
    settings = {report.FILE: str(path), report.CHOSEN: name}
    command = [sys.executable, "-m", "pytest", "tests/interop", "-q", "--tb=short", "-m", "interop", *words]
    print(f"{name}: running, log in {LOGS / name}.log", flush=True)
    with (LOGS / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    result.code = wait_for(process, path)
    result.seconds = time.monotonic() - begun
    result.read(path)
    counts = ", ".join(
        f"{number} {mark}" for outcome, mark in MARKS.items() if (number := _count(result, outcome)) or mark == "pass"
    )
    print(f"{name} {result.version}: {counts}; {result.seconds / 60:.1f} min", flush=True)
    return result


def wait_for(
    process: subprocess.Popen[bytes], path: Path, stall_seconds: float = STALL_SECONDS, grace: float = GRACE_SECONDS
) -> int:
    """Its exit code; it is ended when ``path`` does not grow any more, if need be the hard way."""
    size = -1
    while True:
        try:
            return process.wait(stall_seconds)
        except subprocess.TimeoutExpired:
            before, size = size, path.stat().st_size if path.exists() else 0
            if size == before:
                break
    process.send_signal(signal.SIGINT)  # pytest then ends what it started
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
    return STALLED


def _ending(code: int) -> str:
    if code == STALLED:
        return "no scenario came to its end any more, so the run was ended"
    return f"pytest was killed by signal {-code}" if code < 0 else f"pytest ended with {code}"


def _count(result: Result, outcome: str) -> int:
    return sum(found == outcome for found, _, _ in result.cells.values())


def table(results: list[Result]) -> list[list[str]]:
    """Head, a line per scenario, and the minutes."""
    rows = list(dict.fromkeys(row for result in results for row in result.cells))
    lines = [["scenario", *(f"{result.name} {result.version}".strip() for result in results)]]
    for row in rows:
        lines.append([row, *(MARKS[result.cells[row][0]] if row in result.cells else "" for result in results)])
    lines.append(["minutes", *(f"{result.seconds / 60:.1f}" for result in results)])
    return lines


def feature_names(bits: str) -> str:
    """Names of the features in a bitmap (hex), with ! where the even bit is set; numbers where we know no name."""
    offered = int(bits, 16)
    known = {int(feature): feature.name.lower() for feature in Feature}
    found = []
    for even in range(0, offered.bit_length(), 2):
        if offered >> even & 3:
            found.append(known.get(even, str(even)) + ("!" if offered >> even & 1 else ""))
    return ", ".join(found)


def as_text(lines: list[list[str]]) -> str:
    widths = [max(len(line[n]) for line in lines) for n in range(len(lines[0]))]
    found = ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    found.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(found)


def as_markdown(lines: list[list[str]]) -> str:
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest])


def write_into(path: Path, lines: list[list[str]]) -> None:
    """Put the table between its marks in a document."""
    text = path.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{START}\n\n{as_markdown(lines)}\n\n{END}{after}")


def main(arguments: list[str]) -> int:
    names = [entry.name for entry in PEERS]
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=__doc__)
    parser.add_argument("--peer", action="append", choices=names, help="only this one (may be given again)")
    parser.add_argument("--jobs", type=int, default=2, help="peers at the same time (2)")
    parser.add_argument("--slow", type=int, default=0, metavar="N", help="print the N slowest cells")
    parser.add_argument("--write", type=Path, help="put the table into this document, too")
    parser.add_argument("words", nargs="*", help="further words for pytest, after --")
    chosen = parser.parse_args(arguments)
    LOGS.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    wanted = [entry for entry in PEERS if entry.name in (chosen.peer or names)]
    print("getting the peers ready; the first time they are fetched and built, which takes minutes", flush=True)
    prepare(["bitcoind", *(name for entry in wanted for name in entry.counterparts or (entry.name,))])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(chosen.jobs) as pool:
        running = [pool.submit(run_peer, entry.name, chosen.words, Path(folder)) for entry in wanted]
        results = [work.result() for work in running]
    lines = table(results)
    print(f"\n{as_text(lines)}\n\nn/s: not supported by the peer (tests/interop/not_supported.py)")
    for result in results:
        if result.features:
            print(f"{result.name} offers {feature_names(result.features)}")
        if result.unavailable:
            print(f"{result.name} cannot be had: {result.unavailable}")
        for row, text in result.failures:
            print(f"\nFAIL {result.name}, {row}\n{text[-3000:]}")
    _print_slowest(results, chosen.slow)
    if chosen.write is not None:
        write_into(chosen.write, lines)
    failed = sum(len(result.failures) for result in results)
    cells = sum(len(result.cells) for result in results)
    print(f"\n{cells} cells, {failed} failed; {(time.monotonic() - begun) / 60:.1f} minutes")
    return int(failed > 0 or cells == 0)


def _print_slowest(results: list[Result], count: int) -> None:
    every = [(seconds, result.name, row) for result in results for row, (_, seconds, _) in result.cells.items()]
    for seconds, name, row in sorted(every, reverse=True)[:count]:
        print(f"{seconds:7.1f} s  {name}  {row}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
