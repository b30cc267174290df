"""Counterparts that are Go programs: a few lines of ours that call a published library, built once per version."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.testbed.cache import Unavailable, built, fetch

BUILD_SECONDS = 1500
"""A first build compiles the whole library; with Go's own build cache it is a matter of seconds."""


def build(name: str, home: Path, tags: Sequence[str] = ()) -> Path:
    """The program made of the sources in ``home``; built on first use. ``Unavailable`` with Go's own words."""
    flags = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", f"-tags={','.join(tags)}"]

    def compile_into(folder: Path) -> None:
        if shutil.which("go") is None:
            raise Unavailable(f"{name} is built from its Go module and go is not here")
        words = ["nice", "-n", "5", "go", "build", *flags, "-o", str(folder / name), "."]
        fetch(name, words, BUILD_SECONDS, cwd=home, env=os.environ | _settings())

    sources = [path for pattern in ("go.*", "*.go") for path in home.glob(pattern)]
    return built(name, sources, compile_into, flags) / name


def _settings() -> dict[str, str]:
    """Modules come from this machine's proxy only, and no other Go is fetched."""
    settings = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    asked = subprocess.run(["go", "env", "GOPROXY"], capture_output=True, text=True, check=False)
    proxies = [proxy for proxy in asked.stdout.strip().split(",") if proxy not in ("", "direct")]
    return settings | ({"GOPROXY": ",".join(proxies)} if proxies else {})
