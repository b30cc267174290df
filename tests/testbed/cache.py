"""What is fetched or built once and kept below ``.cache/testbed``: by one process at a time, whole or not at all."""

import fcntl
import hashlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "testbed"
COMPLETE = ".complete"
"""The file that is written last: without it a folder is half of something and made again."""
KEPT = 4
"""Builds of a program: who has another branch, or a test that runs on while sources change, still finds his."""

PAUSES = (5.0, 30.0)
"""Seconds before a step that asks the network is tried again."""


class Unavailable(Exception):
    """The counterpart cannot be had here; the text says why."""


@contextmanager
def filling(name: str) -> Iterator[None]:
    """Nobody else fetches or builds ``name`` meanwhile. Whoever waited looks again whether it is there by now."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name.replace('/', '-')}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch(name: str, words: list[str], seconds: float, **settings: Any) -> None:
    """A step of a build that asks the network: tried again when it fails, for a registry has its bad moments.

    ``seconds`` are for all tries together.
    """
    deadline = time.monotonic() + seconds
    for pause in PAUSES:
        try:
            return run(name, words, deadline - time.monotonic(), **settings)
        except Unavailable:
            if time.monotonic() + pause > deadline:
                raise
            time.sleep(pause)
    run(name, words, deadline - time.monotonic(), **settings)


def run(name: str, words: list[str], seconds: float, **settings: Any) -> None:
    """A step of a build. ``Unavailable`` with the end of what it said."""
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds, **settings)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip()[-500:]
        raise Unavailable(f"{name}: {words[0]} failed: {said}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{name}: {error}") from error


def built(name: str, sources: Iterable[Path], build: Callable[[Path], None], flags: Sequence[str] = ()) -> Path:
    """A folder below the cache that ``build`` filled; anew when a source or a flag changes. The last few are kept."""
    digest = hashlib.sha256("".join(f"{flag}\0" for flag in flags).encode())
    for source in sorted(sources):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    folder = CACHE / name / digest.hexdigest()[:16]
    complete = folder / COMPLETE
    if complete.exists():
        return folder
    with filling(name):
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            build(folder)
            complete.touch()
            others = sorted(folder.parent.glob(f"*/{COMPLETE}"), key=lambda path: path.stat().st_mtime_ns)
            for other in others[:-KEPT]:
                shutil.rmtree(other.parent)
    return folder
