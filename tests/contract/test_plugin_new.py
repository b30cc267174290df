"""What ``leyden plugin new`` makes passes its own tests, the conformance kit; what breaks it turns them red."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from leyden_cli.scaffold import PLUGIN_KINDS, make_project

pytestmark = pytest.mark.slow


def run_tests(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The project's tests in a process of their own, with nothing of this one's configuration."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_a_fresh_project_is_green(kind: str, tmp_path: Path) -> None:
    make_project(kind, "fresh", tmp_path / "project")
    done = run_tests(tmp_path / "project")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


BREAKS = [
    ("chain-source", "source.py", "return await self._find_fork()", "pass", "test_reorg_while_following"),
    (
        "chain-source",
        "source.py",
        "return SourceSynced(height=height, block_hash=tip)",
        "return None",
        "comes_in_order",
    ),
    ("chain-source", "source.py", "full=True, raw=raw", "full=False", "watched_pay"),
    (
        "chain-source",
        "source.py",
        "        return self._next_height",
        "        return BlockHeight(0)",
        "after_a_restart",
    ),
    ("chain-source", "backend.py", "return UtxoSpent() if", "return UtxoUnknown() if", "lookup"),
    ("broadcaster", "broadcast.py", "for tx in package]", "for tx in package[:1]]", "TestBroadcaster"),
    ("broadcaster", "broadcast.py", "        if not reason:", "        if True:", "TestBroadcaster"),
    ("broadcaster", "broadcast.py", "except BackendGone", "except ZeroDivisionError", "absent"),
    ("fee-estimator", "fees.py", "FeeRatePerKw(max(rate", "FeeRatePerKw(max(rate // 250", "TestFees"),
    ("fee-estimator", "fees.py", "except (BackendGone, BackendRefused)", "except ZeroDivisionError", "absent"),
]


@pytest.mark.parametrize(("kind", "file", "before", "after", "test"), BREAKS, ids=lambda value: str(value)[:30])
def test_a_mistake_is_red(kind: str, file: str, before: str, after: str, test: str, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    make_project(kind, "broken", folder)
    path = folder / "leyden_broken" / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    (folder / "conftest.py").write_text(
        "from leyden.testing import broadcaster, fees\nfrom leyden.testing.chain import driver\n"
        "for module in (broadcaster, fees, driver):\n    module.TIMEOUT = 1.0\n"
    )
    done = run_tests(folder, "-x", "-k", test)
    assert done.returncode == 1, done.stdout
    assert "failed" in done.stdout
