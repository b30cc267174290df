"""Which lines of the specification checklist does a test prove? ``python -m leyden.testing.checklist``.

A test claims lines with ``@pytest.mark.proves("C-088")``. Each claimed rule is switched off in turn and only the tests
that claim it run: a line is *proved* when one of them passes with the rule and fails without it. Tests are collected
once; every rule gets a process of its own, forked after the collection.

Required are the lines of the areas that are complete, and every line whose rule shipped code names. Exit code 0: each
is proved or excepted with a reason; 1: some are not; 2: the report could not be made.
"""

import argparse
import contextlib
import enum
import io
import json
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import leyden.types.rules  # noqa: F401  (declares every rule)
from leyden.testing.checklist_scope import EXCEPTED, REQUIRED_AREAS
from leyden.types import LeydenError, all_rules

CHECKLIST = Path("docs/spec/checklist.md")
RULE_SECONDS = 1_200.0
"""For the tests of one rule. Only what hangs takes as long, however busy the machine: pytest gives up earlier, and says
on which test."""
BASELINE_SECONDS = 7_200.0
"""For all tests that claim something."""

SHIPPED = ("core", "plugins", "signers")
DECLARATIONS = ("leyden", "types", "rules.py")
"""Where every rule is declared, obeyed or not."""

_RULE = re.compile(r"\bC_(\d{3})\b")
_HEADING = re.compile(r"^#{2,4}\s+(.*?)\s*$")
_LINE = re.compile(r"^\s*(?:[-*+]|\|)\s*(?:\[.\]\s*)?[`*]{0,2}(?:C-)?(\d{3})[`*]{0,2}\s*[:|]?\s*(.*?)\s*\|?\s*$")


class ChecklistError(LeydenError):
    """The report cannot be made: the checklist or the tests cannot be read."""


class Status(enum.Enum):
    PROVED = "proved"
    NOT_PROVED = "NOT PROVED"
    UNCLAIMED = "UNCLAIMED"
    BROKEN = "BROKEN"
    """Every test that claims the line fails (or is skipped) even with the rule on."""
    TIMED_OUT = "TIMED OUT"
    """Its tests waited in vain or were not finished: that proves nothing, for or against."""
    EXCEPTED = "excepted"
    NOT_YET = "not yet"


class Line(msgspec.Struct, frozen=True):
    """One line of the checklist."""

    id: str
    area: str
    title: str
    built: bool = False
    """Shipped code names its rule, wherever the rest of its area stands."""

    @property
    def required(self) -> bool:
        return (is_required(self.area) or self.built) and self.id not in EXCEPTED


class Finding(msgspec.Struct, frozen=True):
    line: Line
    status: Status
    by: str = ""
    """The test that proves the line, or why nothing does."""

    @property
    def lacking(self) -> bool:
        return self.line.required and self.status is not Status.PROVED


class Run(msgspec.Struct, frozen=True):
    """How one test ended in a process: ``passed``, ``failed``, ``timed out`` or ``skipped``; the seconds it took."""

    outcome: str
    seconds: float


# -- the document ------------------------------------------------------------------------------------------------------


def find_root(start: Path) -> Path:
    """The checkout that holds ``docs/spec/checklist.md``: around ``start``, else around this package."""
    for origin in (start, Path(__file__).parent):
        for folder in (origin, *origin.parents):
            if (folder / CHECKLIST).is_file():
                return folder
    raise ChecklistError(f"no {CHECKLIST} here: run this in a checkout of the project, or name it with --root")


def built_lines(root: Path) -> frozenset[str]:
    """The lines whose rules shipped code of the checkout names: those that this version claims to obey."""
    found: set[str] = set()
    for part in SHIPPED:
        for path in sorted((root / part).rglob("*.py")):
            if path.parts[-3:] != DECLARATIONS:
                found.update(f"C-{number}" for number in _RULE.findall(path.read_text(encoding="utf-8")))
    return frozenset(found)


def read_checklist(root: Path) -> list[Line]:
    """Every line with its area, in the order of the document."""
    built = built_lines(root)
    try:
        text = (root / CHECKLIST).read_text(encoding="utf-8")
    except OSError as error:
        raise ChecklistError(f"cannot read {root / CHECKLIST}: {error.strerror}") from error
    lines: list[Line] = []
    area = ""
    for row in text.splitlines():
        if heading := _HEADING.match(row):
            area = heading[1]
        elif area and (match := _LINE.match(row)):
            id = f"C-{match[1]}"
            lines.append(Line(id=id, area=area, title=_plain(match[2]), built=id in built))
    repeated = {line.id for line in lines if sum(other.id == line.id for other in lines) > 1}
    if repeated:
        raise ChecklistError(f"{CHECKLIST} lists {', '.join(sorted(repeated))} more than once")
    if not lines:
        raise ChecklistError(f"{CHECKLIST} has no lines that look like '- C-001 ...' or '| C-001 | ...'")
    return lines


def _plain(title: str) -> str:
    """The requirement without reaction code, reference and markup."""
    title = re.sub(r"^[\s|:]*\*{0,2}[A-Z/+-]{1,5}\*{0,2}\s*\|?\s*", "", title)
    title = re.sub(r"^\((?:[^()]|\([^()]*\))*\)\s*", "", title)
    return re.sub(r"[`*]", "", title).strip(" |")


def is_required(area: str) -> bool:
    """Whether the heading ``area`` is one of ``REQUIRED_AREAS``, with or without its BOLT in brackets."""
    return area in REQUIRED_AREAS or re.sub(r"\s*\([^)]*\)$", "", area) in REQUIRED_AREAS


# -- running tests -----------------------------------------------------------------------------------------------------


class Worker:
    """A forked process that runs some collected tests, optionally with one rule off, and reports through a pipe."""

    def __init__(self, rule: str | None, items: Sequence[pytest.Item], session: pytest.Session, seconds: float) -> None:
        self.rule = rule
        self.output = bytearray()
        self.deadline = time.monotonic() + seconds
        self.timed_out = False
        self.folder = tempfile.mkdtemp(prefix="lc")  # short: tests put sockets below it
        """Of its tests, whose pytest never comes to its end and tidies up."""
        self.pipe, write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            os.environ["PYTEST_DEBUG_TEMPROOT"] = self.folder
            _child(rule, items, session, write_end)
        os.close(write_end)

    def read(self) -> bool:
        """Take what is there; False at the end."""
        data = os.read(self.pipe, 65536)
        self.output += data
        return bool(data)

    def kill(self) -> None:
        self.timed_out = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> dict[str, Run]:
        os.close(self.pipe)
        os.waitpid(self.pid, 0)
        shutil.rmtree(self.folder, ignore_errors=True)
        runs = {}
        for row in self.output.splitlines():
            with contextlib.suppress(ValueError):
                name, outcome, seconds = json.loads(row)
                runs[name] = Run(outcome, seconds)
        return runs


def _child(rule: str | None, items: Sequence[pytest.Item], session: pytest.Session, pipe: int) -> None:
    """Never returns."""
    code = 1
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(quiet, stream)
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter._tw._file = open(os.devnull, "w")  # noqa: SIM115  (lives as long as the process)
        if rule is not None:
            all_rules()[rule].enabled = False
        _run_items(items, session, pipe, stop_at_failure=rule is not None)
        code = 0
    finally:
        os._exit(code)


def _run_items(items: Sequence[pytest.Item], session: pytest.Session, pipe: int, *, stop_at_failure: bool) -> None:
    outcomes: set[str] = set()

    class Catcher:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(
            self, call: pytest.CallInfo[None]
        ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
            report = yield
            late = report.failed and call.excinfo is not None and _is_timeout(call.excinfo.value)
            outcomes.add("timed out" if late else report.outcome)
            return report

    session.config.pluginmanager.register(Catcher())
    for index, item in enumerate(items):
        outcomes.clear()
        following = items[index + 1] if index + 1 < len(items) else None
        begin = time.monotonic()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        outcome = next((o for o in ("timed out", "failed", "skipped") if o in outcomes), "passed")
        row = json.dumps([item.nodeid, outcome, time.monotonic() - begin]) + "\n"
        os.write(pipe, row.encode())
        if stop_at_failure and outcome == "failed":
            return


def _is_timeout(error: BaseException | None) -> bool:
    """Whether somebody waited in vain: this error, one it came from, or pytest's own limit for a test."""
    if error is None:
        return False
    if isinstance(error, BaseExceptionGroup):
        return any(_is_timeout(part) for part in error.exceptions)
    if isinstance(error, TimeoutError) or (
        isinstance(error, pytest.fail.Exception) and str(error).startswith("Timeout")
    ):
        return True
    return _is_timeout(error.__cause__ or error.__context__)


class Jobs:
    """At most ``limit`` workers at a time."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running: list[Worker] = []

    def run(self, starts: Iterable[Callable[[], Worker]], done: Callable[[Worker, dict[str, Run]], None]) -> None:
        try:
            for start in starts:
                while len(self._running) >= self._limit:
                    self._wait(done)
                self._running.append(start())
            while self._running:
                self._wait(done)
        finally:
            for worker in self._running:
                worker.kill()
                worker.finish()

    def _wait(self, done: Callable[[Worker, dict[str, Run]], None]) -> None:
        ready, _, _ = select.select([worker.pipe for worker in self._running], [], [], 1.0)
        for worker in list(self._running):
            if worker.pipe in ready and not worker.read():
                self._running.remove(worker)
                done(worker, worker.finish())
            elif time.monotonic() > worker.deadline and not worker.timed_out:
                worker.kill()


class Prover:
    """pytest plugin: takes the place of the run that would follow the collection."""

    def __init__(self, wanted: Callable[[str], bool], jobs: int, progress: Callable[[str], None]) -> None:
        self.wanted = wanted
        self.jobs = jobs
        self.progress = progress
        self.claims: dict[str, list[pytest.Item]] = {}
        self.proofs: dict[str, tuple[Status, str]] = {}
        self.errors: list[str] = []
        self.tests = 0

    def pytest_configure(self) -> None:
        _settle_hypothesis()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(f"{report.nodeid}: {str(report.longrepr).strip().splitlines()[-1]}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        known = all_rules()
        self.tests = len(session.items)
        for item in session.items:
            for marker in item.iter_markers("proves"):
                for name in marker.args:
                    if name not in known:
                        self.errors.append(f"{item.nodeid} claims {name}, which is no rule")
                    elif self.wanted(name):
                        self.claims.setdefault(name, []).append(item)
        if not self.errors:
            self._prove(session)
        return True

    def _prove(self, session: pytest.Session) -> None:
        items = list({id(item): item for claim in self.claims.values() for item in claim}.values())
        self.progress(f"{len(items)} of {self.tests} tests claim {len(self.claims)} lines; running them once")
        baseline: dict[str, Run] = {}
        chunks = [chunk for n in range(self.jobs) if (chunk := _share(items, n, self.jobs))]
        Jobs(self.jobs).run(
            [partial(Worker, None, chunk, session, BASELINE_SECONDS) for chunk in chunks],
            lambda _worker, runs: baseline.update(runs),
        )

        def start(rule: str) -> Worker:
            usable = [i for i in self.claims[rule] if _passed(baseline, i.nodeid)]
            usable.sort(key=lambda i: baseline[i.nodeid].seconds)
            return Worker(rule, usable, session, RULE_SECONDS)

        def done(worker: Worker, runs: dict[str, Run]) -> None:
            if worker.rule is not None:
                self.proofs[worker.rule] = self._judge(worker, runs, baseline)
                self.progress(f"{worker.rule} {self.proofs[worker.rule][0].value}")

        Jobs(self.jobs).run([partial(start, rule) for rule in sorted(self.claims)], done)

    def _judge(self, worker: Worker, runs: dict[str, Run], baseline: dict[str, Run]) -> tuple[Status, str]:
        claim = self.claims[worker.rule or ""]
        failed = next((name for name, run in runs.items() if run.outcome == "failed"), None)
        if failed is not None:
            return Status.PROVED, failed
        if not any(_passed(baseline, item.nodeid) for item in claim):
            outcome = baseline.get(claim[0].nodeid, Run("never finished", 0.0)).outcome
            late = outcome in ("timed out", "never finished")
            return Status.TIMED_OUT if late else Status.BROKEN, f"{claim[0].nodeid}: {outcome} with the rule on"
        if worker.timed_out:
            return Status.TIMED_OUT, f"still running after {RULE_SECONDS:.0f} s without the rule"
        late_test = next((name for name, run in runs.items() if run.outcome == "timed out"), None)
        if late_test is not None:
            return Status.TIMED_OUT, f"without the rule it waits in vain: {late_test}"
        names = f"{claim[0].nodeid}" + (f" and {len(claim) - 1} more" if len(claim) > 1 else "")
        return Status.NOT_PROVED, f"without the rule still passing: {names}"


def _share(items: Sequence[pytest.Item], number: int, jobs: int) -> list[pytest.Item]:
    """Whole files, so that what a module sets up is set up once."""
    files = list(dict.fromkeys(item.path for item in items))
    mine = set(files[number::jobs])
    return [item for item in items if item.path in mine]


def _passed(baseline: dict[str, Run], name: str) -> bool:
    run = baseline.get(name)
    return run is not None and run.outcome == "passed"


def _settle_hypothesis() -> None:
    """The same examples each time, none kept on disk, no time spent on making failures small."""
    try:
        from hypothesis import HealthCheck, Phase, settings
    except ImportError:
        return
    settings.register_profile(
        "checklist",
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=(Phase.explicit, Phase.generate),
    )
    settings.load_profile("checklist")


def prove(
    root: Path,
    wanted: Callable[[str], bool],
    jobs: int,
    progress: Callable[[str], None],
    places: Sequence[str] = ("tests",),
) -> Prover:
    """Collect the tests of ``root`` (below ``places``) once and try every wanted rule that one of them claims."""
    prover = Prover(wanted, jobs, progress)
    said = io.StringIO()
    arguments = ["-p", "no:cacheprovider", "-p", "no:xdist", "-q", "--rootdir", str(root)]
    arguments += [str(root / place) for place in places]
    here = Path.cwd()
    os.chdir(root)
    sys.path.insert(0, str(root))  # as ``python -m pytest`` does
    try:
        with contextlib.redirect_stdout(said):
            code = pytest.main(arguments, plugins=[prover])
    finally:
        os.chdir(here)
        sys.path.remove(str(root))
    if prover.errors:
        raise ChecklistError("the tests cannot be collected:\n  " + "\n  ".join(prover.errors))
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise ChecklistError(f"pytest ended with {code}:\n{said.getvalue()}")
    return prover


# -- the report --------------------------------------------------------------------------------------------------------


def judge(lines: Iterable[Line], proofs: dict[str, tuple[Status, str]]) -> list[Finding]:
    findings = []
    for line in lines:
        proof = proofs.get(line.id)
        if line.id in EXCEPTED and (proof is None or proof[0] is not Status.PROVED):
            findings.append(Finding(line, Status.EXCEPTED, EXCEPTED[line.id]))
        elif proof is not None:
            findings.append(Finding(line, *proof))
        elif line.required:
            findings.append(Finding(line, Status.UNCLAIMED, "no test is marked with it"))
        else:
            findings.append(Finding(line, Status.NOT_YET))
    return findings


def print_report(findings: Sequence[Finding], write: Callable[[str], None]) -> None:
    """A table per area, then one line with the sums."""
    for area in dict.fromkeys(finding.line.area for finding in findings):
        rows = [finding for finding in findings if finding.line.area == area]
        proved = sum(row.status is Status.PROVED for row in rows)
        write("")
        missing = "" if is_required(area) else " (not complete yet)"
        write(f"{area}{missing}: {proved} of {len(rows)} proved")
        for row in rows:
            title = row.line.title if len(row.line.title) <= 72 else row.line.title[:71] + "…"
            write(f"  {row.line.id}  {row.status.value:<10}  {title}")
            if row.by and row.status is not Status.PROVED:
                write(f"         {'':<10}  {row.by}")
    counts = {status: sum(f.status is status for f in findings) for status in Status}
    lacking = [finding.line.id for finding in findings if finding.lacking]
    write("")
    write(", ".join(f"{count} {status.value.lower()}" for status, count in counts.items() if count))
    if lacking:
        write(f"checklist: {len(lacking)} required lines lack proof: {' '.join(lacking)}")
    else:
        write(
            "checklist ok: every line of the required areas, or of code that is there, is proved or has its exception"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m leyden.testing.checklist", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--areas", nargs="+", default=[], metavar="AREA", help="only areas whose name contains this")
    parser.add_argument("--only", default="", metavar="C-088,...", help="only these lines")
    parser.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="only tests in these places")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (2)")
    parser.add_argument("--root", type=Path, help="the checkout (found from here by default)")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    options = parser.parse_args(arguments)

    def progress(text: str) -> None:
        if not options.quiet:
            print(f"checklist: {text}", file=sys.stderr, flush=True)

    try:
        root = (options.root or find_root(Path.cwd())).resolve()
        lines = read_checklist(root)
        only = {name.strip().upper() for name in options.only.split(",") if name.strip()}
        if unknown := only - {line.id for line in lines}:
            raise ChecklistError(f"the checklist has no line {', '.join(sorted(unknown))}")
        areas = [name.lower() for name in options.areas]
        chosen = [
            line
            for line in lines
            if (not only or line.id in only) and (not areas or any(name in line.area.lower() for name in areas))
        ]
        if not chosen:
            raise ChecklistError(f"no area is called {' or '.join(options.areas)}")
        ids = {line.id for line in chosen}
        prover = prove(root, ids.__contains__, max(1, options.jobs), progress, options.tests)
    except ChecklistError as error:
        print(f"checklist: {error}", file=sys.stderr)
        return 2
    findings = judge(chosen, prover.proofs)
    print_report(findings, print)
    return 1 if any(finding.lacking for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
