"""The docs against the code: the checklist, the keyspace, the hooks, links and names."""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from leyden.hooks import hookspecs
from leyden.hooks.contract import SECTIONS, contracts
from leyden.node import keyspace
from leyden.types import all_rules, rules
from leyden_wallet import rows as wallet_rows

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("*/*/README.md"), *ROOT.glob("core/README.md")],
    key=lambda path: path.as_posix(),
)
PAGES = [path for path in PAGES if "_build" not in path.parts and ".pytest_cache" not in path.parts]
CHECKLIST_LINE = re.compile(r"^- (C-\d{3}) \*\*(\S+)\*\* \((.+?)\) \S", re.MULTILINE)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def make_hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_hooks", DOCS / "make_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_checklist_has_every_rule_with_its_reaction() -> None:
    assert rules.__name__ in sys.modules
    lines = CHECKLIST_LINE.findall((DOCS / "spec/checklist.md").read_text())
    assert [line[0] for line in lines] == [f"C-{number:03}" for number in range(1, 277)]
    assert {name: reaction for name, reaction, _ in lines} == {
        name: rule.reaction.value for name, rule in all_rules().items()
    }


def test_the_checklist_explains_every_reaction() -> None:
    text = (DOCS / "spec/checklist.md").read_text()
    explained = set(re.findall(r"^\| \*\*(\S+)\*\* \|", text, re.MULTILINE))
    assert explained == {reaction for _, reaction, _ in CHECKLIST_LINE.findall(text)}


def test_the_keyspace_page_lists_every_area() -> None:
    areas = {
        name: value
        for name, value in vars(keyspace).items()
        if name.isupper() and isinstance(value, bytes) and len(value) == 1
    }
    listed = re.findall(r"^\| `(.)` \| `([A-Z_]+)` \|", (DOCS / "keyspace.md").read_text(), re.MULTILINE)
    assert {name: byte.encode() for byte, name in listed} == areas
    assert len(set(areas.values())) == len(areas), "two areas share a byte"


def test_the_keyspace_page_lists_the_rows_of_meta() -> None:
    rows = {value for value in vars(keyspace).values() if isinstance(value, bytes) and len(value) > 1}
    listed = re.findall(r"^\| `(m[a-z_]+)` \|", (DOCS / "keyspace.md").read_text(), re.MULTILINE)
    assert {name.encode() for name in listed} == rows


def test_the_keyspace_page_lists_every_row_of_meta_and_of_the_wallet() -> None:
    text = (DOCS / "keyspace.md").read_text()
    meta = {value[1:].decode() for value in vars(keyspace).values() if isinstance(value, bytes) and value[:1] == b"m"}
    assert set(re.findall(r"^\| `m(\w+)` \|", text, re.MULTILINE)) == meta - {""}
    wallet = text.partition("\n## WALLET\n")[2].partition("\n## ")[0]
    assert {key.encode() for key in re.findall(r"^\| `(\w)`", wallet, re.MULTILINE)} == set(wallet_rows.KINDS)


def test_the_keyspace_page_names_every_version_and_dispatcher() -> None:
    text = (DOCS / "keyspace.md").read_text()
    versions = [*ROOT.glob("core/leyden/*/stored/v*.py"), *ROOT.glob("plugins/*/leyden_*/stored/v*.py")]
    assert len(versions) >= 5
    for path in versions:
        assert f"`{path.relative_to(path.parents[3 if 'core' in path.parts else 2]).as_posix()}`" in text


def test_the_hooks_page_is_what_the_docstrings_say() -> None:
    module = make_hooks()
    assert module.page() == (DOCS / "hooks.md").read_text(), "run python docs/make_hooks.py"


def test_every_declared_hook_is_known() -> None:
    assert set(contracts()) == {name for name in vars(hookspecs) if name.startswith("leyden_")}


@pytest.mark.parametrize("name", list(contracts()))
def test_every_hook_has_a_heading_and_all_sections(name: str) -> None:
    text = (DOCS / "hooks.md").read_text()
    assert text.count(f"\n### `{name}`\n") == 1
    section = text.partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
    for heading in SECTIONS:
        assert re.search(rf"^- \*\*{heading}\*\*: \S", section, re.MULTILINE), heading


def test_decisions_are_numbered_without_gaps() -> None:
    pages = sorted((DOCS / "decisions").glob("0*.md"))
    for number, path in enumerate(pages, 1):
        text = path.read_text()
        assert path.name.startswith(f"{number:04}-")
        assert text.startswith(f"# {number}. ")
        for heading in ("Situation", "Decision", "Consequences"):
            assert f"\n## {heading}\n" in text, f"{path.name}: {heading}"


LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        path = target.partition("#")[0]
        if path and not path.startswith(("https://", "http://", "mailto:")):
            assert (page.parent / path).exists(), target


NAME = re.compile(r"`{1,2}(leyden(?:_[a-z]+)?(?:\.\w+)+)(?:\(\))?`{1,2}")


def names(page: Path) -> Iterator[str]:
    yield from sorted(set(NAME.findall(page.read_text())))


def resolves(name: str) -> bool:
    """Whether ``name`` is a module, or an attribute of one (of a class in one)."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            if not hasattr(found, part):
                annotations = inspect.get_annotations(found) if inspect.isclass(found) else {}
                if part not in annotations:
                    return False
                break
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", [page for page in PAGES if list(names(page))], ids=relative)
def test_names_of_modules_and_functions_exist(page: Path) -> None:
    files = (".sqlite", ".toml", ".md", ".sock", ".lock", ".log", ".py", ".json")
    assert not [name for name in names(page) if not name.endswith(files) and not resolves(name)]


def test_names_that_do_not_exist_are_found() -> None:
    assert resolves("leyden.node.engine.Engine.turn")
    assert not resolves("leyden.node.engine.Engine.spin")
    assert not resolves("leyden.nowhere")


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(
            r"`make ([a-z]+)`|^\$? ?make (?:[A-Z_]+=\S+ )*([a-z]+)", page.read_text(), re.MULTILINE
        ):
            assert (target[0] or target[1]) in targets, f"{relative(page)}: make {target[0] or target[1]}"
