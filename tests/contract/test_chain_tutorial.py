"""The plugin that the tutorial writes, against the conformance kit: its own tests, taken from the page."""

from pathlib import Path

import pytest
from leyden_cli.scaffold import make_project

from tests.contract.test_plugin_new import run_tests
from tests.pages import blocks, write_file

PAGE = Path(__file__).resolve().parents[2] / "docs/tutorial/chain-source.md"

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As after the last file of the tutorial."""
    folder = tmp_path / "project"
    make_project("chain-source", "files", folder)
    for name in ("backend", "broadcast", "fees", "source"):
        (folder / f"leyden_files/{name}.py").unlink()
    for block in blocks(PAGE.read_text()):
        write_file(block, folder)
    return folder


def test_the_tutorials_plugin_passes_the_kit(project: Path) -> None:
    done = run_tests(project, "-vv")
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
    for suite in ("TestSource::test_reorg_while_following", "TestBroadcaster::", "TestFees::"):
        assert f"tests/test_conformance.py::{suite}" in done.stdout


BREAKS = [
    ("            yield BlocksDisconnected(fork_height=height, fork_hash=block_hash)\n", "", "reorg_while_following"),
    ("self._told = dict(locator)", "self._told = {}", "locator_resumes"),
    ("        self._synced = None\n        self._starts += 1", "        self._starts += 1", "starting_again"),
    ("BlockHeight(max(self._told) + 1) if self._told else self._birth", "self._birth", "right_after_a_restart"),
    ("                said = str(error)", "                raise", "absent_at_start"),
    ("for tx in package)", "for tx in package[-1:])", "TestBroadcaster"),
]
"""What is replaced, by what, and a test that then fails."""


@pytest.mark.parametrize(("before", "after", "test"), BREAKS, ids=[test for _, _, test in BREAKS])
def test_every_line_is_needed(project: Path, before: str, after: str, test: str) -> None:
    path = project / "leyden_files/source.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    (project / "conftest.py").write_text("from leyden.testing.chain import driver\n\ndriver.TIMEOUT = 1.0\n")
    done = run_tests(project, "-x", "-k", test)
    assert done.returncode == 1, done.stdout
