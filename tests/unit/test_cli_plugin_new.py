"""``leyden plugin new``: names, folders, and what is in the project. Whether it works: tests/contract."""

import re
import stat
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from leyden_cli.config import reserved_names
from leyden_cli.errors import EXIT_REFUSED, EXIT_USAGE, CliError
from leyden_cli.main import run
from leyden_cli.scaffold import PLUGIN_KINDS, check_name, make_project, render

ROOT = Path(__file__).resolve().parents[2]


MALFORMED = ("", "A", "1a", "a_b", "a--b", "-a", "a-", "a b", "a/b", "../a", "ä", "a" * 41, "a\n")
TAKEN = ("store", "log", "network", "channel", "chain_source", "class", "regtest", "bitcoind", "sqlite", "cli")


@pytest.mark.parametrize("name", [*MALFORMED, *TAKEN])
def test_names_that_cannot_be_are_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "project"
    assert run(["plugin", "new", "--dir", str(folder), "chain-source", "--", name]) == EXIT_USAGE
    error = capsys.readouterr().err
    assert error.startswith("leyden: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "esplora", "my-chain", "x2", "a1-b2-c3", "a" * 40])
def test_names_that_can_be(name: str) -> None:
    check_name(name)
    assert name not in reserved_names()


def test_an_unknown_kind_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugin", "new", "wallet", "mine"]) == EXIT_USAGE
    assert "chain-source" in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    (tmp_path / "file").write_text("mine too")
    for taken in (folder, tmp_path / "file"):
        assert run(["plugin", "new", "chain-source", "mine", "--dir", str(taken)]) == EXIT_REFUSED
        assert "exists already" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["README.md", "file", "project"]
    assert (folder / "README.md").read_text() == "mine"


def test_an_empty_folder_may_be_there_and_parents_need_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert make_project("broadcaster", "one", tmp_path / "empty")
    assert make_project("broadcaster", "one", tmp_path / "new" / "deeper")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]
    assert stat.S_IMODE((tmp_path / "empty").stat().st_mode) == stat.S_IMODE((tmp_path / "new").stat().st_mode)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("leyden_cli.scaffold.tempfile.mkdtemp", refuse)
    with pytest.raises(CliError, match="Permission denied"):
        make_project("broadcaster", "one", tmp_path / "project")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_project_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(CliError, match="No space left"):
        make_project("chain-source", "one", tmp_path / "project")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_the_project_is_whole(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "project"
    assert run(["plugin", "new", kind, "my-own", "--dir", str(folder)]) == 0
    listed = capsys.readouterr().out.splitlines()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert sorted(listed[:-1]) == [str(path) for path in files]
    names = {path.relative_to(folder).as_posix() for path in files}
    assert {"pyproject.toml", "README.md", "LICENSE", ".gitignore", ".github/workflows/test.yml"} < names
    assert {"leyden_my_own/plugin.py", "leyden_my_own/py.typed", "tests/test_conformance.py"} < names
    for path in files:
        text = path.read_text()
        assert not re.search(r"^@(if|end)\b|@\w+@", text, re.MULTILINE), f"{path}: not filled in"
        if path.suffix == ".py":
            compile(text, str(path), "exec")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "leyden-my-own"
    assert project["entry-points"] == {"leyden": {"my-own": "leyden_my_own.plugin"}}
    major, minor = metadata.version("leyden-core").split(".")[:2]
    assert project["dependencies"] == [f"leyden-core>={major}.{minor},<{major}.{int(minor) + 1}"]
    own = tomllib.loads((ROOT / "core/pyproject.toml").read_text())["project"]
    assert project["requires-python"] == own["requires-python"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", PLUGIN_KINDS)
def test_the_project_is_clean_by_our_own_rules(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    make_project(kind, "my-own", folder)
    rules = ["--config", str(ROOT / "pyproject.toml")]
    for tool in (["ruff", "check", *rules], ["ruff", "format", "--check", *rules], ["mypy", "--strict"]):
        where = ["leyden_my_own", "tests"] if tool[0] == "mypy" else ["."]
        done = subprocess.run(
            [sys.executable, "-m", *tool, *where], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_template_language() -> None:
    text = "a @name@\n@if yes\nb\n@end\n@if no\nc\n@end\nd@name@e\n"
    assert render(text, {"name": "x"}, {"yes": True, "no": False}) == "a x\nb\ndxe\n"
    assert render("", {}, {}) == ""
