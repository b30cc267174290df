"""What a run says about its cells: a file of JSON lines, from which ``python -m tests.interop`` prints the table."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

FILE = "LEYDEN_INTEROP_REPORT"
CHOSEN = "LEYDEN_INTEROP_PEERS"
NOT_SUPPORTED = "not supported: "


def chosen_peers(every: Sequence[str]) -> list[str]:
    """Those that the environment names (``LEYDEN_INTEROP_PEERS=ldk,lnd``), else all."""
    wanted = os.environ.get(CHOSEN, "").split(",")
    return [name for name in every if name in wanted] or list(every)


def row_of(nodeid: str, peer: str) -> str:
    """``tests/interop/test_pay.py::test_both_ways[lnd-by us]`` is the row *pay: both ways (by us)*."""
    path, _, function = nodeid.partition("::")
    group = Path(path).stem.removeprefix("test_").replace("_", " ")
    name, _, params = function.removeprefix("test_").partition("[")
    words = [word for word in re.split(r"-(?!sat)", params.removesuffix("]")) if word and word != peer]
    return f"{group}: {name.replace('_', ' ')}" + (f" ({', '.join(words)})" if words else "")


def write(line: Mapping[str, object]) -> None:
    path = os.environ.get(FILE)
    if path:
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")


def add(made: pytest.TestReport, peer: str, row: str) -> None:
    """A line per phase that matters: what the scenario came to, and a set-up or tear-down that failed."""
    if made.when != "call" and made.passed:
        return
    text = made.longreprtext
    if made.skipped and isinstance(made.longrepr, tuple):
        text = str(made.longrepr[2])
    outcome: str = made.outcome
    if made.skipped:
        outcome = "not supported" if text.startswith(NOT_SUPPORTED) else "unavailable"
    write({"peer": peer, "row": row, "outcome": outcome, "seconds": made.duration, "text": text})
