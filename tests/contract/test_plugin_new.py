"""What ``leyden plugin new`` makes passes its own tests, the conformance kit; what breaks it turns them red."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from leyden_cli.scaffold import PLUGIN_KINDS, make_project

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run_tests(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The project's tests in a process of their own, with nothing of this one's configuration."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=280
    )


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_a_fresh_project_is_green(kind: str, tmp_path: Path) -> None:
    make_project(kind, "fresh", tmp_path / "project")
    done = run_tests(tmp_path / "project")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.timeout(600)
def test_its_ci_is_green_with_leyden_from_git(tmp_path: Path) -> None:
    """The steps of its workflow in a fresh environment; LEYDEN_GIT is a repository with what is here."""
    leyden = tmp_path / "leyden"
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in ("core", "plugins/regtest"):
        shutil.copytree(ROOT / part, leyden / part, ignore=leave)
    author = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *command], cwd=leyden, check=True)
    make_project("fee-estimator", "fresh", tmp_path / "project")
    workflow = (tmp_path / "project/.github/workflows/test.yml").read_text()
    steps = workflow.partition("    steps:\n")[2].split("\n      - ")
    commands = [step.split("run: ", 1)[1] for step in steps if "run: " in step]
    script = "\n".join(textwrap.dedent(command.removeprefix("|\n")) for command in commands)
    assert "git+$LEYDEN_GIT#subdirectory=core" in script
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {
        "PATH": f"{tmp_path / 'venv/bin'}:{os.environ['PATH']}",
        "LEYDEN_GIT": leyden.as_uri(),
        "PIP_RETRIES": "10",
    }
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path / "project",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


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
