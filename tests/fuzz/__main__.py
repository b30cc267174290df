"""``python -m tests.fuzz --seconds 120``: every target in turn; exit code 1 and the input if one finds something.

With atheris the search is guided by coverage, without it the corpus is mutated blindly. What is found is kept in
``.cache/fuzz/NAME``; add it to ``tests/fuzz/corpus/NAME`` with the fix. Seconds are those on the wall for everything.
"""

import argparse
import io
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from importlib import import_module, util
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
CACHE = HERE.parents[1] / ".cache" / "fuzz"
GRACE = 30.0
"""Seconds after which a target that does not end is killed; one input may take ``HANG``."""
HANG = 10
MAX_LENGTH = 8192
OVERSHOOT = 1.0
"""Seconds that libFuzzer takes beyond those it is given, and those to start it."""


class Outcome(NamedTuple):
    name: str
    tried: int
    found: str


def corpus_of(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def guided(atheris: Any, name: str, seconds: float, seed: int) -> NoReturn:
    """In a process of its own, which libFuzzer ends."""
    from tests.fuzz.targets import TARGETS

    grown = CACHE / name
    options = [f"-max_total_time={max(1, round(seconds - OVERSHOOT))}", f"-artifact_prefix={grown}/finding-"]
    options += [f"-max_len={MAX_LENGTH}", f"-seed={seed}", f"-timeout={HANG}", "-rss_limit_mb=1024"]
    folders = [str(folder) for folder in (grown / "grown", CORPUS / name) if folder.is_dir()]
    atheris.Setup([name, *folders, *options], TARGETS[name].run)
    atheris.Fuzz()
    os._exit(0)


def blind(name: str, seconds: float, seed: int) -> NoReturn:
    """The same with ``tests.fuzz.mutate``; writes what ``outcome`` reads."""
    from tests.fuzz.mutate import fuzz
    from tests.fuzz.targets import TARGETS

    tried, data, error = fuzz(TARGETS[name], corpus_of(name), seconds, seed)
    print(f"#{tried} DONE")
    if data is not None:
        (CACHE / name / "finding-blind").write_bytes(data)
        print(f"=== {error} on {data.hex()[:400]}")
    sys.stdout.flush()
    os._exit(int(data is not None))


def start(atheris: Any, name: str, seconds: float, seed: int) -> int:
    """Fork: the modules are imported (and instrumented) once for all targets. Returns the process id."""
    (CACHE / name / "grown").mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        log = os.open(CACHE / name / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if atheris is None:
            blind(name, seconds, seed)
        guided(atheris, name, seconds, seed)
    finally:
        os._exit(3)


def outcome(name: str, code: int) -> Outcome:
    text = (CACHE / name / "log").read_text("utf-8", "replace")
    tried = [int(number) for number in re.findall(r"^#(\d+)", text, re.M)]
    if code == 0:
        return Outcome(name, max(tried, default=0), "")
    lines = [line for line in text.splitlines() if line.strip() and not re.match(r"#\d+|INFO:", line)]
    return Outcome(name, max(tried, default=0), " | ".join(lines)[-1200:] or f"exit code {code}")


def run_all(atheris: Any, names: Sequence[str], end: float, jobs: int, seed: int) -> list[Outcome]:
    """Each target gets its share of the time that is left."""
    waiting, running, done = list(names), dict[int, tuple[str, float]](), list[Outcome]()
    while waiting or running:
        while waiting and len(running) < jobs:
            left = max(0.0, end - time.monotonic())
            share = max(1.0, left * jobs / len(waiting)) if len(waiting) > jobs else max(1.0, left)
            name = waiting.pop(0)
            running[start(atheris, name, share, seed)] = (name, time.monotonic() + share + GRACE)
        time.sleep(0.05)
        for pid, (name, deadline) in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended and time.monotonic() < deadline:
                continue
            if not ended:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
            del running[pid]
            result = outcome(name, os.waitstatus_to_exitcode(status) if ended else 124)
            done.append(result)
            print(f"{name:18} {result.tried:>10,} inputs  {'FOUND ' + result.found if result.found else 'nothing'}")
            sys.stdout.flush()
    return done


def main() -> int:
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=str(__doc__).splitlines()[0])
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=float, default=120, help="for all targets together, on the wall")
    parser.add_argument("--engine", choices=("auto", "atheris", "blind"), default="auto")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clean", action="store_true", help="forget what earlier runs collected")
    options = parser.parse_args()
    atheris: Any = None
    if options.engine == "atheris" or (options.engine == "auto" and util.find_spec("atheris")):
        atheris = import_module("atheris")
    if options.clean:
        shutil.rmtree(CACHE, ignore_errors=True)
    instrumented = nullcontext() if atheris is None else atheris.instrument_imports(include=["leyden", "tests.fuzz"])
    with redirect_stderr(io.StringIO()), instrumented:  # a line for each module
        from tests.fuzz.targets import TARGETS
    names = options.targets or list(TARGETS)
    for name in names:
        if name not in TARGETS:
            parser.error(f"no target {name}; there are: {', '.join(TARGETS)}")
    print(f"{len(names)} targets, {options.jobs} at a time, engine {'blind' if atheris is None else 'atheris'}")
    done = run_all(atheris, names, began + options.seconds, options.jobs, options.seed)
    failed = sum(bool(result.found) for result in done)
    inputs = sum(result.tried for result in done)
    took = time.monotonic() - began
    print(f"fuzz: {len(done) - failed} targets passed, {failed} failed, {inputs:,} inputs, {took:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
