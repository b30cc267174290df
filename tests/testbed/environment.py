"""Counterparts that are Python programs: each in a virtualenv of its own below ``.cache/testbed``."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.testbed.cache import CACHE, Unavailable, fetch, filling

INSTALL_SECONDS = 600


def interpreter(name: str) -> Path:
    """Where the virtualenv's Python is, made or not."""
    return CACHE / name / "venv" / "bin" / "python"


def ready(name: str, requirements: Sequence[str]) -> bool:
    """Whether the virtualenv is there with just these requirements."""
    stamp = CACHE / name / "venv" / "requirements.txt"
    return stamp.exists() and stamp.read_text() == _text(requirements)


def install(name: str, requirements: Sequence[str], settings: Mapping[str, str] | None = None) -> Path:
    """The Python of a virtualenv that has ``requirements``; made on first use and when they change.

    ``settings`` are environment variables for what is built on the way.
    """
    if not ready(name, requirements):
        with filling(name):
            if not ready(name, requirements):
                _make(name, requirements, settings or {})
    return interpreter(name)


def _make(name: str, requirements: Sequence[str], settings: Mapping[str, str]) -> None:
    python = interpreter(name)
    home = python.parents[1]
    shutil.rmtree(home, ignore_errors=True)
    try:
        venv.create(home, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{name}: {sys.executable} makes no virtualenv: {error}") from error
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    fetch(name, [*pip, *requirements], INSTALL_SECONDS, cwd=home, env=os.environ | settings)
    (home / "requirements.txt").write_text(_text(requirements))


def site_packages(name: str) -> Path:
    """Where the virtualenv looks for modules."""
    return next((CACHE / name / "venv" / "lib").glob("python3.*")) / "site-packages"


def _text(requirements: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in requirements)
