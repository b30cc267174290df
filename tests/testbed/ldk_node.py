"""LDK Node (crate ``ldk-node``) as a Lightning node on regtest: a program of our own around it, built with cargo.

The first build compiles some 260 crates and takes minutes; afterwards only our program is compiled again.
"""

import http.server
import json
import os
import shutil
import threading
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.interop.peer import NotSupported, Opening, PeerRefused
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.cache import CACHE, Unavailable, built, run
from tests.testbed.peer_program import PeerDied, PeerProgram
from tests.testbed.program import PATIENCE

NAME = "ldk_node"
SOURCES = Path(__file__).parent / "ldk_node"
PROGRAM = "ldk-node-peer"
BUILD_SECONDS = 2400
START_SAT_PER_KW = 1250
LOOKS_AGAIN = ("FeerateEstimationUpdateTimeout", "FeerateEstimationUpdateFailed", "TxSyncTimeout", "TxSyncFailed")
"""Why it could not follow the chain just now, as it would say every few seconds while bitcoind is slow to answer."""


def command() -> list[str]:
    """How to run the program; built on first use."""
    sources = [SOURCES / "Cargo.toml", SOURCES / "Cargo.lock", *(SOURCES / "src").iterdir()]
    return [str(built(NAME, sources, _build) / PROGRAM)]


def _build(folder: Path) -> None:
    if shutil.which("cargo") is None:
        raise Unavailable("LDK Node is built with cargo and cargo is not here")
    target = CACHE / NAME / "target"
    environment = os.environ | {"CARGO_TARGET_DIR": str(target)}
    run(NAME, ["cargo", "build", "--locked", "--quiet"], BUILD_SECONDS, cwd=SOURCES, env=environment)
    shutil.copy(target / "debug" / PROGRAM, folder)


class LdkNode(PeerProgram):
    """One node with its own wallet. It accepts anchors only once it has coins, and wants 6 confirmations."""

    name = NAME
    minimum_depth = 6
    proposes_anchors_first = True
    """Whatever ``kind`` says: it opens without anchors only when we refuse its first proposal."""

    def __init__(self, folder: Path, bitcoind: Bitcoind) -> None:
        super().__init__(folder, bitcoind)
        self._fees = FeeProxy(bitcoind)

    def command(self) -> list[str]:
        return command()

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"rpc_port": self._fees.port}

    def close(self) -> None:
        """``stop`` for good."""
        self.stop()
        self._fees.stop()

    def kill(self) -> None:
        """SIGKILL, but not between the two writes of one change: LDK closes a channel if it has the first alone."""
        if self._program.runs:
            try:
                self.call("die")
            except (OSError, PeerRefused, PeerDied):
                pass  # it is dead, or does not answer and is killed now
        super().kill()

    @property
    def version(self) -> str:
        packages = tomllib.loads((SOURCES / "Cargo.lock").read_text())["package"]
        versions = {package["name"]: package["version"] for package in packages}
        return f"{versions['ldk-node']} (lightning {versions['lightning']})"

    def height(self) -> int:
        """0 when it could not look just now."""
        return self._looked(super().height)

    def confirmed_sat(self) -> int:
        """As ``height``."""
        return self._looked(super().confirmed_sat)

    def _looked(self, command: Callable[[], int]) -> int:
        """It asks for feerates first, five seconds for each; whoever waits asks again."""
        try:
            return command()
        except PeerRefused as error:
            if not any(trouble in str(error) for trouble in LOOKS_AGAIN):
                raise
            return 0

    def set_feerate(self, sat_per_kw: int) -> None:
        """``update_fee`` follows within a minute: LDK looks once a minute whether a feerate still fits."""
        self._fees.sat_per_kw = sat_per_kw
        self.height()  # asks for fees on its way

    def open_channel(self, opening: Opening) -> str:
        if opening.close_address is not None:
            raise NotSupported("LDK Node commits to an address of its own wallet, never to another one")
        return super().open_channel(opening)

    def close_channel(self, funding: str, *, force: bool = False, sat_per_vbyte: int | None = None) -> None:
        if sat_per_vbyte is not None:
            raise NotSupported("LDK Node closes at the feerate of its own estimate only")
        super().close_channel(funding, force=force)


class FeeProxy:
    """bitcoind's RPC with feerates of our choice: bitcoind has none to tell on regtest."""

    def __init__(self, bitcoind: Bitcoind) -> None:
        self.sat_per_kw = START_SAT_PER_KW
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in two packets would wait for the acknowledgement of the first

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                question = json.loads(body)
                if question["method"] == "estimatesmartfee":
                    status, answer = 200, proxy.estimate(question["id"])
                else:
                    status, answer = forward(bitcoind.url + self.path, body, self.headers["Authorization"])
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                """Not on our stderr."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A killed node breaks its connections off."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def estimate(self, number: Any) -> bytes:
        feerate = round(self.sat_per_kw * 4 / 100_000_000, 8)
        return json.dumps({"id": number, "error": None, "result": {"feerate": feerate, "blocks": 6}}).encode()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def forward(url: str, body: bytes, authorization: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", "Authorization": authorization})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return 200, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except OSError as error:
        return 503, json.dumps({"id": None, "result": None, "error": {"code": -1, "message": str(error)}}).encode()
