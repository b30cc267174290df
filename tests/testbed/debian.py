"""Programs from Debian packages of a newer suite, unpacked into a folder and run with their own loader.

apt is used with a root of its own: the system's packages, lists and settings stay as they are. The mirror and the
keyring are those that this machine already uses.
"""

import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.testbed.cache import CACHE, COMPLETE, Unavailable, fetch, filling, run

SUITES = ("forky", "sid")
"""Tried in this order; the first moves more slowly."""
APT_SECONDS = 600
_SOURCES = (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def unpack(name: str, packages: Sequence[str]) -> Path:
    """The folder with the unpacked packages; made on first use."""
    root = CACHE / name
    if (root / COMPLETE).exists():
        return root
    with filling(name):
        if not (root / COMPLETE).exists():
            _fill(name, root, packages)
    return root


def _fill(name: str, root: Path, packages: Sequence[str]) -> None:
    """From the first suite that has them all."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{name} comes as Debian packages and {tool} is not here")
    if not _KEYRING.exists():
        raise Unavailable(f"the archive keyring {_KEYRING} is not here")
    mirror, problems = _mirror(), []
    for suite in SUITES:
        try:
            _fetch(root, f"deb [signed-by={_KEYRING}] {mirror} {suite} main\n", packages)
        except Unavailable as error:
            problems.append(f"{suite}: {error}")
            continue
        (root / COMPLETE).write_text(suite)
        return
    raise Unavailable(f"{name} could not be fetched: {'; '.join(problems)}")


def loader(root: Path) -> list[str]:
    """The words before a program of ``root`` that run it with its own C library."""
    triplet = f"{platform.machine()}-linux-gnu"
    libraries = root / "usr/lib" / triplet
    found = sorted(libraries.glob("ld-linux*.so*"))
    if not found:
        raise Unavailable(f"no loader in {libraries}")
    return [str(found[0]), "--library-path", str(libraries)]


def _mirror() -> str:
    """Where this machine gets Debian from."""
    for path in _SOURCES:
        if not path.is_file():
            continue
        for line in path.read_text().splitlines():
            found = re.match(r"URIs:\s*(\S+)", line) or re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s", line)
            if found and re.search(r"/debian/?$", found[1]):
                return found[1]
    raise Unavailable("no Debian mirror is configured on this machine")


def _fetch(root: Path, source: str, packages: Sequence[str]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    apt = root / "apt"
    for folder in ("etc/preferences.d", "etc/apt.conf.d", "state/lists/partial", "cache/archives/partial", "debs"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(source)
    options = {
        "Dir::Etc": apt / "etc",
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "APT::Update::Error-Mode": "any",  # otherwise a list that is missing is a warning
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    fetch("apt", ["apt-get", *flags, "-q", "update"], APT_SECONDS)
    fetch("apt", ["apt-get", *flags, "-q", "download", *packages], APT_SECONDS, cwd=apt / "debs")
    for package in sorted((apt / "debs").glob("*.deb")):
        run("apt", ["dpkg-deb", "-x", str(package), str(root)], APT_SECONDS)
    shutil.rmtree(apt)
