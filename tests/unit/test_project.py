"""The workspace as a whole: what every distribution must have, and what no file may say."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import hypothesis
import leyden.node
import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core/leyden"


def listed_by_git(*options: str) -> list[str] | None:
    """Paths as git sees them; ``None`` without git (a source archive)."""
    try:
        command = ["git", "ls-files", "-z", *options]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in found.split("\0") if name]


TRACKED = listed_by_git()
DISTRIBUTIONS = sorted(
    path.parent
    for pattern in ("core", "plugins/*", "signers/*")
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
    if TRACKED is None or path.relative_to(ROOT).as_posix() in TRACKED
)
PLUGINS = [path for path in DISTRIBUTIONS if path.name != "core"]
PACKAGES = [CORE, *(next(path.glob("leyden_*")) for path in PLUGINS)]

MAX_LINES = 600
LONG_FILES: dict[str, str] = {}
"""Path to reason. Logic should be split instead."""

WORLD = {"asyncio", "socket", "time", "os", "random", "secrets"}
"""Clock, entropy and I/O: only the shell (``leyden.node``), plugins and the test tools may import these."""
SHELL = ("node", "testing")


def settings(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


def shipped() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted(package.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def own_files() -> list[Path]:
    """Files under version control or about to be; without git everything that is not in a hidden folder or a cache."""
    listed = listed_by_git("--cached", "--others", "--exclude-standard")
    if listed is not None:
        return [ROOT / name for name in listed if (ROOT / name).is_file()]
    skipped = {"__pycache__", "_build"}
    return [
        path
        for path in ROOT.rglob("*")
        if path.is_file() and not any(p.startswith(".") or p in skipped for p in path.relative_to(ROOT).parts[:-1])
    ]


# -- distributions -----------------------------------------------------------------------------------------------------


def test_the_readme_names_every_distribution() -> None:
    text = (ROOT / "README.md").read_text()
    install = re.search(r"pip install (-e core(?:[^\n]*\\\n)*[^\n]*)", text)
    assert install is not None
    assert [name for name in install[1].replace("\\\n", " ").split() if name != "-e"] == [
        *(relative(path) for path in DISTRIBUTIONS),
        "'.[demo]'",
    ]
    for folder in DISTRIBUTIONS:
        assert f"| [{relative(folder)}]({relative(folder)}/README.md) | `leyden-{folder.name}` | " in text


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=relative)
def test_each_distribution_is_complete(folder: Path) -> None:
    project = settings(folder)["project"]
    package = CORE if folder.name == "core" else next(folder.glob("leyden_*"))
    assert project["name"] == f"leyden-{folder.name}"
    assert package.name == ("leyden" if folder.name == "core" else f"leyden_{folder.name}")
    assert (package / "py.typed").is_file()
    assert len((folder / "README.md").read_text().splitlines()) > 3, "the README says nothing"
    assert project["license"] == "MIT OR Apache-2.0"
    assert project["requires-python"] == settings(ROOT)["project"]["requires-python"]


@pytest.mark.parametrize("folder", PLUGINS, ids=relative)
def test_each_plugin_has_an_entry_point_that_exists(folder: Path) -> None:
    points = settings(folder)["project"]["entry-points"]["leyden"]
    assert folder.name in points
    for name, module in points.items():
        assert (folder / Path(*module.split("."))).with_suffix(".py").is_file()
        installed = [entry for entry in metadata.entry_points(group="leyden") if entry.name == name]
        assert [entry.value for entry in installed] == [module], "pip install -e it again: make setup"


def test_all_versions_are_equal_and_pinned_to_each_other() -> None:
    version = settings(ROOT)["project"]["version"]
    for folder in (ROOT, *DISTRIBUTIONS):
        project = settings(folder)["project"]
        assert project["version"] == version, relative(folder)
        wanted = list(project["dependencies"])
        wanted += [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
        for requirement in wanted:
            if requirement.startswith("leyden"):
                assert requirement.endswith(f"=={version}"), requirement


def test_the_core_depends_on_five_packages() -> None:
    names = {re.split(r"[<>=]", line)[0] for line in settings(ROOT / "core")["project"]["dependencies"]}
    assert names == {"pluggy", "coincurve", "cryptography", "msgspec", "structlog"}


def test_tools_know_every_package() -> None:
    tools = settings(ROOT)["tool"]
    names = {path.name for path in PACKAGES}
    assert set(tools["importlinter"]["root_packages"]) == names
    assert set(tools["mypy"]["mypy_path"]) == {relative(path) for path in DISTRIBUTIONS}
    forbidden = next(c for c in tools["importlinter"]["contracts"] if c["type"] == "forbidden")
    assert set(forbidden["forbidden_modules"]) == names - {"leyden"}
    plugins = next(c for c in tools["importlinter"]["contracts"] if c["name"].startswith("Plugins use"))
    assert set(plugins["source_modules"]) == names - {"leyden", "leyden_cli"}


def test_every_layer_of_the_core_stands_in_the_contract() -> None:
    layers = next(c for c in settings(ROOT)["tool"]["importlinter"]["contracts"] if c["type"] == "layers")["layers"]
    named = {name.strip().removeprefix("leyden.") for layer in layers for name in layer.split("|")}
    assert named == {path.name for path in CORE.iterdir() if (path / "__init__.py").is_file()} - {"testing"}


def test_news_fragments_are_of_a_known_kind() -> None:
    kinds = {kind["directory"] for kind in settings(ROOT)["tool"]["towncrier"]["type"]}
    listed = set(re.findall(r"^\| `([a-z]+)` \|", (ROOT / "newsfragments/README.md").read_text(), re.MULTILINE))
    assert listed == kinds
    for path in (ROOT / "newsfragments").glob("[!.R]*"):
        assert re.fullmatch(rf"[\w+-]+\.({'|'.join(kinds)})\.md", path.name), path.name
        assert path.read_text().strip()


@pytest.mark.parametrize("name", ["searching", "repeatable", "in force"])
def test_no_example_of_a_property_has_a_deadline(name: str) -> None:
    """Hypothesis calls a test flaky when the machine takes a fifth of a second for something else meanwhile."""
    profile = hypothesis.settings() if name == "in force" else hypothesis.settings.get_profile(name)
    assert profile.deadline is None
    assert hypothesis.HealthCheck.too_slow in profile.suppress_health_check


# -- code --------------------------------------------------------------------------------------------------------------


def test_the_shell_gives_every_name_that_it_promises() -> None:
    """They are imported when they are asked for."""
    promised = {name: getattr(leyden.node, name) for name in leyden.node.__all__}
    assert promised["Node"].__module__ == "leyden.node.node"
    assert {name for names in leyden.node._MODULES.values() for name in names} == set(promised)
    with pytest.raises(ImportError, match="Nobody"):
        exec("from leyden.node import Nobody")


def test_no_assert_in_shipped_code() -> None:
    found = [
        f"{relative(path)}:{node.lineno}"
        for path in shipped()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert not found


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module, node.lineno


def test_nobody_below_the_shell_touches_the_world() -> None:
    found = [
        f"{relative(path)}:{line} imports {name}"
        for path in sorted(CORE.rglob("*.py"))
        if path.relative_to(CORE).parts[0] not in SHELL
        for name, line in imported(ast.parse(path.read_text()))
        if name.partition(".")[0] in WORLD
    ]
    assert not found


def test_files_can_be_read_in_one_sitting() -> None:
    sizes = {
        relative(path): len(path.read_text().splitlines())
        for path in own_files()
        if path.suffix == ".py" and path.is_relative_to(ROOT)
    }
    long = {name: lines for name, lines in sizes.items() if lines > MAX_LINES}
    assert set(long) - set(LONG_FILES) == set(), f"over {MAX_LINES} lines: {long}"
    assert set(LONG_FILES) <= set(sizes), "an exception for a file that is gone"


def test_helpers_of_tests_have_distinct_names() -> None:
    """They are imported by their bare names."""
    names = [path.name for folder in ("unit", "vectors") for path in (ROOT / "tests" / folder).glob("*.py")]
    helpers = [name for name in names if not name.startswith("test_")]
    assert sorted(helpers) == sorted(set(helpers))


# -- words -------------------------------------------------------------------------------------------------------------

FOREIGN = re.compile(
    r"\.\./" + r"shared\b|(?<![\w.~-])/(?:" + "root|work|home/(?!me/|you/)[a-z]+|Users/[A-Za-z]+" + r")/[\w.-]"
)


def test_no_file_points_outside_the_project() -> None:
    """The project is complete in itself: nothing refers to a folder beside it or to one machine's paths."""
    found = []
    for path in own_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if path != Path(__file__).resolve() and (FOREIGN.search(line) or str(ROOT) + "/" in line):
                found.append(f"{relative(path)}:{number}: {line.strip()[:100]}")
    assert not found


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        ("see ../" + "shared/DESIGN.md", True),
        ("open('/" + "root/x')", True),
        ("cd /" + "home/kim/leyden", True),
        ("cookie = /" + "home/me/.cookie", False),
        ("GET /homepage/x", False),
        ("files under core/work/here", False),
    ],
)
def test_the_pattern_for_foreign_paths(line: str, hit: bool) -> None:
    assert bool(FOREIGN.search(line)) is hit
