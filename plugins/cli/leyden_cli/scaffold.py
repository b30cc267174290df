"""``leyden plugin new``: a project that installs with pip, is found by a node, and runs the conformance kit."""

import keyword
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata, resources
from importlib.resources.abc import Traversable
from pathlib import Path

from leyden.hooks.discovery import installed_plugins
from leyden.hooks.registry import KINDS

from leyden_cli.config import reserved_names
from leyden_cli.errors import CliError, ConfigError

PLUGIN_KINDS = {
    "chain-source": "A chain source",
    "broadcaster": "A broadcaster",
    "fee-estimator": "A fee estimator",
}
"""What can be made, and how its README begins."""
LONGEST_NAME = 40
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SUFFIX = ".in"
_PARTS = {"source.py": "chain_source", "broadcast.py": "broadcaster", "fees.py": "fee_estimator"}
"""Files that belong to one service only."""


def make_project(kind: str, name: str, folder: Path) -> list[Path]:
    """Write the project into ``folder``, which must not exist or be empty; its files, relative, in order.

    ``ConfigError`` for a name that cannot be one, ``CliError`` for a folder that is in use. Nothing is overwritten, and
    after an error nothing is left behind.
    """
    check_name(name)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CliError(f"{folder} exists already: choose another folder with --dir, or move it away first")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".leyden-plugin-", dir=folder.parent))
        try:
            written = _write(draft, kind, name)
            draft.chmod(0o777 & ~_umask())
            os.rename(draft, folder)  # fails on a folder that is not empty: nobody got in between
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise CliError(f"cannot write {folder}: {error.strerror}") from None
    return written


def check_name(name: str) -> None:
    """``ConfigError`` unless a config can name a new plugin like this."""
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"{name[:80]!r} cannot be the name of a plugin: small letters and digits, words joined by -, "
            f"a letter first, at most {LONGEST_NAME} characters"
        )
    if name in reserved_names() or name in KINDS or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} has a meaning of its own in configs or in Python: choose another name")
    for plugin in installed_plugins():
        if plugin.name == name:
            raise ConfigError(f"{name!r} is the name of an installed plugin ({plugin.distribution}): choose another")


def _write(draft: Path, kind: str, name: str) -> list[Path]:
    words, flags = _words(kind, name), _flags(kind)
    written = []
    for parts, source in _templates(resources.files("leyden_cli") / "templates" / "plugin"):
        if not flags[_PARTS.get(parts[-1], "always")]:
            continue
        path = Path(*(words["package"] if part == "package" else part for part in parts))
        target = draft / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(render(source.read_text("utf-8"), words, flags), "utf-8")
        written.append(path)
    return sorted(written)


def _templates(folder: Traversable, parts: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    """(path below the project, template) of every file."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, (*parts, entry.name))
        elif entry.name.endswith(_SUFFIX):
            yield (*parts, entry.name.removesuffix(_SUFFIX)), entry


def render(text: str, words: Mapping[str, str], flags: Mapping[str, bool]) -> str:
    """``@word@`` becomes the word; lines between ``@if flag`` and ``@end`` stay if the flag is set."""
    kept: list[str] = []
    shown = True
    for line in text.splitlines():
        if line.startswith("@if "):
            shown = flags[line.removeprefix("@if ")]
        elif line == "@end":
            shown = True
        elif shown:
            kept.append(re.sub(r"@(\w+)@", lambda found: words[found[1]], line))
    return "\n".join(kept) + "\n" if kept else ""


def _words(kind: str, name: str) -> dict[str, str]:
    version = metadata.version("leyden-core").split(".")
    return {
        "name": name,
        "package": f"leyden_{name.replace('-', '_')}",
        "Class": "".join(word.capitalize() for word in name.split("-")),
        "title": PLUGIN_KINDS[kind],
        "version": ".".join(version[:2]),
        "next_version": f"{version[0]}.{int(version[1]) + 1}",
    }


def _flags(kind: str) -> dict[str, bool]:
    """A chain source brings a broadcaster and a fee estimator, for its name in a config stands for all three."""
    source, broadcaster, fees = (kind == known for known in PLUGIN_KINDS)
    return {
        "always": True,
        "chain_source": source,
        "no_chain_source": not source,
        "broadcaster": source or broadcaster,
        "only_broadcaster": broadcaster,
        "fee_estimator": source or fees,
        "only_fee_estimator": fees,
        "moves_chain": not fees,
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
