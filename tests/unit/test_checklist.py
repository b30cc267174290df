"""The report on the checklist: it must not believe a claim that it has not seen bite."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from leyden.testing import checklist, checklist_scope
from leyden.testing.checklist import ChecklistError, Finding, Line, Status, is_required, judge, read_checklist
from leyden.types import all_rules

ROOT = Path(__file__).parents[2]

DOCUMENT = """# Checklist

- C-001 not below a heading

## Opening, v2 (BOLT 2)

- C-035 **-** (B2 x) First of an area that waits.
- C-036 **A** (B2 x) Second.

## Transport (BOLT 8)

- C-150 **-** (B8 handshake) Really checked.
- [ ] 151 **D** (B8 act (ours)) Claimed, and nothing happens without it.
- C-152 **D** (B8) Claimed by nobody.
- C-153 **-** (B8) Its only test fails anyway.
- C-154 **-** (B8) Several tests, one bites.

## Closing (BOLT 2)

- C-078 **-** (B2) A line with an exception.
"""

TESTS = """
import pytest
from hypothesis import given, strategies as st
from leyden.types import RuleViolation, require
from leyden.types.rules import C_036, C_150, C_151, C_153, C_154

@pytest.fixture(scope="session")
def five():
    return 5

@pytest.mark.proves("C-150", "C-036")
def test_real(five):
    with pytest.raises(RuleViolation):
        require(five == 4, C_150, "no")
    if not C_036.enabled:
        pytest.fail("off")

@pytest.mark.proves("C-151")
def test_idle():
    require(True, C_151, "yes")

@pytest.mark.proves("C-153")
def test_broken():
    assert C_153.enabled and False

@pytest.mark.proves("C-154")
@pytest.mark.parametrize("n", range(3))
async def test_some(n):
    assert n != 2 or C_154.enabled

@pytest.mark.proves("C-154")
@given(n=st.integers())
def test_generated(n):
    assert isinstance(n, int)

def test_unmarked():
    assert False, "never run: it claims nothing"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "docs/spec").mkdir(parents=True)
    (tmp_path / "docs/spec/checklist.md").write_text(DOCUMENT)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_it.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    return tmp_path


def test_a_line_that_shipped_code_names_is_required(project: Path) -> None:
    """Wherever its area stands; the declarations name every rule and do not count."""
    for place in ("core/leyden/types/rules.py", "plugins/some/leyden_some/part.py"):
        (project / place).parent.mkdir(parents=True)
    (project / "core/leyden/types/rules.py").write_text("C_152 = rule(...)")
    assert checklist.built_lines(project) == frozenset()
    (project / "plugins/some/leyden_some/part.py").write_text("require(x, C_035, 'no')")
    assert checklist.built_lines(project) == {"C-035"}
    done = run(project, "--areas", "opening")
    assert states(done.stdout) == {"C-035": "UNCLAIMED", "C-036": "proved"}
    assert done.returncode == 1


def run(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "leyden.testing.checklist", "--root", str(project), *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "LEYDEN"))}
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)


def states(output: str) -> dict[str, str]:
    return {
        row.split()[0]: row[9:19].strip()
        for row in output.splitlines()
        if row.startswith("  C-") and row[5:6].isdigit()
    }


def test_the_report(project: Path) -> None:
    done = run(project)
    assert states(done.stdout) == {
        "C-035": "not yet",
        "C-036": "proved",
        "C-150": "proved",
        "C-151": "NOT PROVED",
        "C-152": "UNCLAIMED",
        "C-153": "BROKEN",
        "C-154": "proved",
        "C-078": "excepted",
    }
    assert done.stdout.splitlines()[-1] == "checklist: 3 required lines lack proof: C-151 C-152 C-153"
    assert "Transport (BOLT 8): 2 of 5 proved" in done.stdout
    assert "test_idle" in done.stdout  # who claimed it in vain
    assert done.returncode == 1


FILES = """
import pytest
from leyden.types.rules import C_150

@pytest.fixture(scope="module")
def big(tmp_path_factory):
    path = tmp_path_factory.mktemp("big")
    (path / "file").write_bytes(bytes(100_000))
    return path

@pytest.mark.proves("C-150")
def test_keeps_files(big, tmp_path):
    (tmp_path / "file").write_text("of a test")
    assert C_150.enabled
"""


def test_no_files_are_left_behind(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule has a process of its own, which pytest has no chance to tidy up after."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (project / "tests/test_files.py").write_text(FILES)
    assert states(run(project, "--only", "C-150").stdout) == {"C-150": "proved"}
    assert list(temporary.iterdir()) == []


def test_only_some_lines(project: Path) -> None:
    done = run(project, "--only", "C-150,c-154", "--jobs", "1")
    assert states(done.stdout) == {"C-150": "proved", "C-154": "proved"}
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("checklist ok")


def test_only_some_areas(project: Path) -> None:
    done = run(project, "--areas", "opening", "closing")
    assert states(done.stdout) == {"C-035": "not yet", "C-036": "proved", "C-078": "excepted"}
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda root: (root / "tests/test_bad.py").write_text("import nothing_like_it"), "test_bad.py"),
        (
            lambda root: (root / "tests/test_bad.py").write_text(
                "import pytest\n@pytest.mark.proves('C-999')\ndef test_x(): pass\n"
            ),
            "C-999, which is no rule",
        ),
        (lambda root: (root / "docs/spec/checklist.md").unlink(), "cannot read"),
    ],
    ids=["import error", "unknown rule", "no document"],
)
def test_what_cannot_be_reported(project: Path, change: object, complaint: str) -> None:
    change(project)  # type: ignore[operator]
    done = run(project, "--quiet")
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


def test_a_name_that_is_not_there(project: Path) -> None:
    assert run(project, "--only", "C-777").returncode == 2
    assert run(project, "--areas", "gardening").returncode == 2


def test_reading_the_document(project: Path) -> None:
    lines = read_checklist(project)
    assert [line.id for line in lines][:3] == ["C-035", "C-036", "C-150"]
    assert lines[3] == Line("C-151", "Transport (BOLT 8)", "Claimed, and nothing happens without it.")
    (project / "docs/spec/checklist.md").write_text(DOCUMENT + "- C-150 once more\n")
    with pytest.raises(ChecklistError, match="C-150 more than once"):
        read_checklist(project)


def test_our_document_and_scope_fit_together() -> None:
    """Every rule has its line, every required area exists, and every exception is of a required line."""
    lines = read_checklist(ROOT)
    assert [line.id for line in lines] == sorted(all_rules())
    assert all(line.title for line in lines)
    for area in checklist_scope.REQUIRED_AREAS:
        assert sum(line.area == area or line.area.startswith(f"{area} (") for line in lines) > 0, area
    by_id = {line.id: line for line in lines}
    for name, reason in checklist_scope.EXCEPTED.items():
        assert is_required(by_id[name].area), name
        assert reason


def test_an_exception_that_is_proved_counts_as_proved() -> None:
    line = Line("C-078", "Closing (BOLT 2)", "simple close")
    assert judge([line], {}) == [Finding(line, Status.EXCEPTED, checklist_scope.EXCEPTED["C-078"])]
    assert judge([line], {"C-078": (Status.PROVED, "test_x")}) == [Finding(line, Status.PROVED, "test_x")]
    assert not any(finding.lacking for finding in judge([line], {}))


def test_the_invoices_of_bolt_12_are_not_those_of_bolt_11() -> None:
    assert is_required("Invoices (BOLT 11)")
    assert not is_required("Invoices (BOLT 12)")
    assert not is_required("Opening, v2 (BOLT 2)")


WAITS = """
import asyncio
import pytest
from leyden.types.rules import C_150, C_151, C_152, C_153, C_154

async def until(reached):
    if not reached:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(60)

@pytest.mark.proves("C-150")
async def test_waits():
    await until(C_150.enabled)

@pytest.mark.proves("C-151")
async def test_says_it_in_other_words():
    try:
        await until(C_151.enabled)
    except TimeoutError:
        raise AssertionError("nothing came") from None

@pytest.mark.proves("C-152")
@pytest.mark.timeout(1)
async def test_pytest_gives_up():
    while not C_152.enabled:
        pass

@pytest.mark.proves("C-153")
async def test_waits_with_the_rule_too():
    await until(False)

@pytest.mark.proves("C-154")
async def test_one_waits():
    await until(C_154.enabled)

@pytest.mark.proves("C-154")
async def test_and_one_bites():
    await asyncio.sleep(0.2)  # later than the other one
    assert C_154.enabled
"""


def test_a_test_that_waits_in_vain_proves_nothing(project: Path) -> None:
    (project / "tests/test_it.py").write_text(WAITS)
    done = run(project, "--areas", "transport")
    assert states(done.stdout) == {
        "C-150": "TIMED OUT",
        "C-151": "TIMED OUT",
        "C-152": "TIMED OUT",
        "C-153": "TIMED OUT",
        "C-154": "proved",
    }
    assert "without the rule it waits in vain: tests/test_it.py::test_waits" in done.stdout
    assert "test_waits_with_the_rule_too: timed out with the rule on" in done.stdout
    assert done.stdout.splitlines()[-1] == "checklist: 4 required lines lack proof: C-150 C-151 C-152 C-153"
    assert done.returncode == 1


def test_a_line_that_hangs_without_its_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not finished is not failed: it proves nothing."""
    prover = checklist.Prover(lambda _: True, 1, lambda _: None)

    class Item:
        nodeid = "tests/test_slow.py::test_it"

    class Stuck:
        rule = "C-150"
        timed_out = True

    prover.claims["C-150"] = [Item()]
    baseline = {Item.nodeid: checklist.Run("passed", 0.1)}
    status, why = prover._judge(Stuck(), {}, baseline)
    assert status is Status.TIMED_OUT
    assert "still running" in why
    status, why = prover._judge(Stuck(), {}, {})  # the first run, with every rule on, did not come so far
    assert status is Status.TIMED_OUT
    assert "never finished with the rule on" in why
