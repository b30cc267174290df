"""LDK 0.1 as a Lightning node on regtest: the WebAssembly build from npm in Node.js, with a program of our own.

Its wallet is one in bitcoind. What the library cannot do at all (splicing, dual funding) it does not signal.
"""

import shutil
from pathlib import Path
from typing import Any

from tests.testbed.cache import Unavailable, built, fetch
from tests.testbed.peer_program import PeerProgram

NAME = "ldk"
SOURCES = Path(__file__).parent / "ldk_js"
INSTALL_SECONDS = 300


def command() -> list[str]:
    """How to run the program; fetched on first use."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise Unavailable(f"LDK runs in Node.js and {tool} is not here")
    home = built(NAME, [path for path in SOURCES.iterdir() if path.is_file()], _install)
    return ["node", str(home / "main.mjs")]


def _install(folder: Path) -> None:
    for source in SOURCES.iterdir():
        if source.is_file():
            shutil.copy(source, folder)
    fetch(NAME, ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], INSTALL_SECONDS, cwd=folder)


class Ldk(PeerProgram):
    """One node with one wallet; ``start`` returns when it serves and has the tip."""

    name = NAME

    def command(self) -> list[str]:
        return command()

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"wallet": f"ldk-{self.folder.name}-{self.port}"}
