"""Counterparts that are Go programs: a few lines of ours that call a published library, built once per version."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.testbed.debian import CACHE, Unavailable

BUILD_SECONDS = 1500
"""A first build compiles the whole library; with Go's own build cache it is a matter of seconds."""
_SOURCES = ("go.mod", "go.sum", "*.go")


def binary(name: str, folder: Path, tags: Sequence[str] = ()) -> Path:
    """Where the program made of the sources in ``folder`` is, built or not; another one for every change of them."""
    digest = hashlib.sha256(" ".join(tags).encode())
    for source in sorted(path for pattern in _SOURCES for path in folder.glob(pattern)):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return CACHE / name / digest.hexdigest()[:16] / name


def build(name: str, folder: Path, tags: Sequence[str] = ()) -> Path:
    """The program; built on first use. ``Unavailable`` with Go's own words where it cannot be built."""
    made = binary(name, folder, tags)
    if made.exists():
        return made
    if shutil.which("go") is None:
        raise Unavailable(f"{name} is built from its Go module and go is not here")
    made.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when whole: whoever looks meanwhile sees no half of it.
    with tempfile.TemporaryDirectory(dir=made.parent) as folder_of_parts:
        part = Path(folder_of_parts) / name
        flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", f"-tags={','.join(tags)}"]
        try:
            subprocess.run(
                ["nice", "-n", "5", "go", "build", *flags, "-o", str(part), "."],
                cwd=folder,
                env=os.environ | _settings(),
                check=True,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            raise Unavailable(
                f"{name} cannot be built here: {(error.stderr or error.stdout).strip()[-500:]}"
            ) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"{name} cannot be built here: {error}") from error
        part.replace(made)
    for older in made.parent.parent.iterdir():
        if older != made.parent:
            shutil.rmtree(older, ignore_errors=True)
    return made


def _settings() -> dict[str, str]:
    """Modules come from this machine's proxy only, and no other Go is fetched."""
    settings = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    asked = subprocess.run(["go", "env", "GOPROXY"], capture_output=True, text=True, check=False)
    proxies = [proxy for proxy in asked.stdout.strip().split(",") if proxy not in ("", "direct")]
    return settings | ({"GOPROXY": ",".join(proxies)} if proxies else {})
