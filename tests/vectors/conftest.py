"""At the end of a run: which vector file was read by which tests, and how many cases of them passed."""

import json
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DATA = HERE / "data"
READ_THROUGH = {"test_bolt03_commitment.py": "bolt03.py"}
"""Modules whose data is loaded by a helper."""


def files_of(module: Path) -> set[str]:
    """Names of the data files that a test module mentions."""
    text = module.read_text()
    if module.name in READ_THROUGH:
        text += (HERE / READ_THROUGH[module.name]).read_text()
    return {path.stem for path in DATA.glob("*.json") if re.search(rf"""["'(]{path.stem}(\.json)?["')]""", text)}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    cases: dict[str, int] = {}
    for report in terminalreporter.stats.get("passed", []):
        path = HERE.parents[1] / report.nodeid.split("::")[0]
        if path.parent == HERE:
            cases[path.name] = cases.get(path.name, 0) + 1
    if not cases:
        return
    readers: dict[str, list[str]] = {path.stem: [] for path in sorted(DATA.glob("*.json"))}
    for module in sorted(HERE.glob("test_*.py")):
        for name in files_of(module):
            readers[name].append(module.name)
    terminalreporter.write_sep("-", "vector files")
    for name, modules in readers.items():
        source = json.loads((DATA / f"{name}.json").read_text()).get("source", "")
        if isinstance(source, dict):
            source = " ".join(str(value) for value in source.values())
        passed = sum(cases.get(module, 0) for module in modules)
        terminalreporter.write_line(f"{name:24} {passed:5} cases  {', '.join(modules):32} {str(source)[:90]}")
