"""Programs from Debian packages of a newer suite, unpacked into a folder and run with their own loader.

apt is used with a root of its own: the system's packages, lists and settings stay as they are. The mirror and the
keyring are those that this machine already uses.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "testbed"
SUITES = ("forky", "sid")
"""Tried in this order; the first moves more slowly."""
_SOURCES = (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Unavailable(Exception):
    """The counterpart cannot be had here; the text says why."""


def unpack(name: str, packages: Sequence[str]) -> Path:
    """The folder with the unpacked packages; made on first use."""
    root = CACHE / name
    if (root / ".complete").exists():
        return root
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{name} comes as Debian packages and {tool} is not here")
    problems = []
    for suite in SUITES:
        try:
            _fetch(root, suite, packages)
        except subprocess.CalledProcessError as error:
            problems.append(f"{suite}: {(error.stderr or error.stdout or '').strip().splitlines()[-1:]}")
            continue
        (root / ".complete").write_text(suite)
        return root
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


def _fetch(root: Path, suite: str, packages: Sequence[str]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    apt = root / "apt"
    for folder in ("etc/preferences.d", "etc/apt.conf.d", "state/lists/partial", "cache/archives/partial", "debs"):
        (apt / folder).mkdir(parents=True)
    (apt / "status").touch()
    if not _KEYRING.exists():
        raise Unavailable(f"the archive keyring {_KEYRING} is not here")
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_mirror()} {suite} main\n")
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
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    run = {"check": True, "capture_output": True, "text": True}
    subprocess.run(["apt-get", *flags, "-q", "update"], **run, timeout=120)  # type: ignore[call-overload]
    subprocess.run(["apt-get", *flags, "-q", "download", *packages], cwd=apt / "debs", **run, timeout=300)  # type: ignore[call-overload]
    for package in sorted((apt / "debs").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], **run, timeout=120)  # type: ignore[call-overload]
    shutil.rmtree(apt)
