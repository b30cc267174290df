"""``python -m benchmarks NAME... [--quick] [--again] [--list]``: exit code 1 if a target was missed, 2 if misused.

``--again`` is for a machine that others may load: a benchmark that misses is measured once more, and then it counts.
"""

import argparse
import ast
import importlib
import sys
from pathlib import Path

from benchmarks.harness import Bench

HERE = Path(__file__).parent


def available() -> dict[str, str]:
    """Name and first line of the docstring of every ``bench_NAME.py``, read without importing it."""
    found: dict[str, str] = {}
    for path in sorted(HERE.glob("bench_*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        found[path.stem.removeprefix("bench_")] = text.partition("\n")[0]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run; all without a name")
    parser.add_argument("--quick", action="store_true", help="few rounds, targets x 1.5")
    parser.add_argument("--again", action="store_true", help="measure what misses once more before it counts")
    parser.add_argument("--list", action="store_true", help="say what there is")
    arguments = parser.parse_args()
    known = available()
    if arguments.list:
        width = max(map(len, known))
        for name, summary in known.items():
            print(f"{name.ljust(width)}  {summary}")
        return 0
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        print(f"no benchmark called {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    missed = 0
    for name in arguments.names or known:
        found = measure(name, arguments.quick)
        if found and arguments.again:
            print(f"{name} is measured once more", flush=True)
            found = measure(name, arguments.quick)
        missed += found
    return 1 if missed else 0


def measure(name: str, quick: bool) -> int:
    """Run one and print its table; how many targets it missed."""
    bench = Bench(name, quick=quick)
    importlib.import_module(f"benchmarks.bench_{name}").run(bench)
    bench.unpin()
    print(bench.report(), flush=True)
    return bench.missed


if __name__ == "__main__":
    sys.exit(main())
