"""Counterparts that are Python programs: each in a virtualenv of its own below ``.cache/testbed``."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.testbed.debian import CACHE, Unavailable

INSTALL_SECONDS = 300


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
    python = interpreter(name)
    if ready(name, requirements):
        return python
    home = python.parents[1]
    shutil.rmtree(home, ignore_errors=True)
    try:
        venv.create(home, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        subprocess.run(
            [*pip, *requirements],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            cwd=home,
            env=os.environ | (settings or {}),
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines()[-1:]
        raise Unavailable(f"{name}: {sys.executable} could not install its packages: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{name}: its packages could not be installed: {error}") from error
    (home / "requirements.txt").write_text(_text(requirements))
    return python


def site_packages(name: str) -> Path:
    """Where the virtualenv looks for modules."""
    return next((CACHE / name / "venv" / "lib").glob("python3.*")) / "site-packages"


def _text(requirements: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in requirements)
