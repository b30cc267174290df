"""A real Electrum wallet as a Lightning node on regtest: fetched, started, driven by JSON-RPC, stopped by its pid.

Electrum comes as Debian packages of a newer suite (they are plain Python) with its dependencies from PyPI; libsecp256k1
is Debian's. Its virtualenv sees the package, so that benchmarks may import it too.
"""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tests.testbed import environment
from tests.testbed.bitcoind import PATIENCE, free_port
from tests.testbed.debian import CACHE, Unavailable, unpack
from tests.testbed.electrum_server import ElectrumServer

NAME = "electrum"
PACKAGES = ("electrum", "python3-electrum", "libsecp256k1-6")
REQUIREMENTS = (
    *("aiorpcX==0.25.0", "electrum-aionostr==0.1.0", "electrum-ecc==0.0.8"),
    *("aiohttp==3.14.5", "aiohttp-socks==0.12.0", "certifi==2026.10.18", "dnspython==2.9.2", "jsonpatch==1.47"),
    *("qrcode==8.2", "cryptography==50.0.2"),
)
"""``cryptography`` is its fast backend: with pycryptodomex installed it would take that one and be far slower."""


class ElectrumError(Exception):
    """Electrum refused a command; the text is its reason."""


def command() -> list[str]:
    """How to run Electrum: its Python and its script."""
    return [str(python()), str(_script())]


def _script() -> Path:
    return CACHE / NAME / "packages" / "usr/bin/electrum"


def installed() -> Path | None:
    """The Python that can import ``electrum``, if it was fetched already; fetches nothing."""
    complete = (CACHE / NAME / "modules" / ".complete").exists() and environment.ready(NAME, REQUIREMENTS)
    return environment.interpreter(NAME) if complete else None


def python() -> Path:
    """The Python that can import ``electrum``; fetched on first use."""
    found = installed()
    if found is not None:
        return found
    root = unpack(f"{NAME}/packages", PACKAGES)
    interpreter = environment.install(NAME, REQUIREMENTS, {"ELECTRUM_ECC_DONT_COMPILE": "1"})
    modules = environment.site_packages(NAME)
    # Not the whole of Debian's folder: what else is in there belongs to Debian's own Python.
    own = CACHE / NAME / "modules"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    (own / "electrum").symlink_to(root / "usr/lib/python3/dist-packages/electrum")
    (modules / "electrum-of-the-test-bed.pth").write_text(f"{own}\n")
    library = next((root / "usr/lib").glob("*-linux-gnu*/libsecp256k1.so.6"), None)
    if library is None:
        raise Unavailable(f"no libsecp256k1 in {root}")
    shutil.copy(library, modules / "electrum_ecc" / library.name)
    (own / ".complete").touch()
    return interpreter


class Electrum:
    """One daemon with one wallet. ``start`` waits until it answers, has loaded its wallet and the server's chain."""

    def __init__(self, folder: Path, server: ElectrumServer, *, settings: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.rpc_port = free_port()
        self.port = free_port()
        self._server = server
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Electrum":
        words = [*command(), "--regtest", "-D", str(self.folder)]
        home = self.folder / "regtest"
        if not home.exists():
            home.mkdir(parents=True)
            (home / "config").write_text(json.dumps(self._config() | self._settings))
            made = subprocess.run([*words, "create", "--offline"], capture_output=True, text=True, check=False)
            if made.returncode != 0:
                raise Unavailable(f"Electrum makes no wallet: {(made.stderr or made.stdout)[-500:]}")
        log = (self.folder / "stdout.log").open("ab")
        self._process = subprocess.Popen([*words, "daemon"], stdout=log, stderr=subprocess.STDOUT, env=os.environ)
        log.close()
        try:
            self.wait(self._answers, PATIENCE, "to answer")
            self.rpc("load_wallet")
            self.wait(lambda: self.rpc("is_synchronized"), PATIENCE, "to load its wallet")
        except BaseException:
            self.stop()
            raise
        return self

    def _config(self) -> dict[str, Any]:
        return {
            "config_version": 3,
            "server": f"127.0.0.1:{self._server.port}:t",
            "oneserver": True,
            "auto_connect": False,
            "rpchost": "127.0.0.1",
            "rpcport": self.rpc_port,
            "rpcsock": "tcp",
            "rpcuser": "leyden",
            "rpcpassword": "leyden",
            "check_updates": False,
            "use_exchange_rate": False,
            "lightning_listen": f"127.0.0.1:{self.port}",
            "use_gossip": True,  # without it, it pays over trampoline nodes only
            "lightning_to_self_delay": 20,
            "fee_policy.default": "feerate:5000",
            "fee_policy.lnwatcher": "feerate:5000",
            "test_disable_automatic_fee_eta_update": False,
        }

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise Unavailable(f"Electrum does not start: {self._tail()}")
        try:
            self.rpc("version")
        except OSError:
            return False
        return True

    def _tail(self) -> str:
        return (self.folder / "stdout.log").read_text(errors="replace")[-500:]

    def wait(self, reached: Callable[[], object], seconds: float = 30.0, what: str = "") -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                raise AssertionError(f"Electrum takes too long {what}: {self._tail()}")
            time.sleep(0.05)

    def rpc(self, method: str, *, timeout: float = PATIENCE, **params: Any) -> Any:
        """One command. ``ElectrumError`` with its reason if it refuses; ``OSError`` while nobody answers."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        url = f"http://127.0.0.1:{self.rpc_port}/"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        request.add_header("Authorization", "Basic " + base64.b64encode(b"leyden:leyden").decode())
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ElectrumError(f"{method}: HTTP {error.code}") from None
        except (HTTPException, ValueError) as error:  # half an answer of one that ends
            raise ConnectionError(f"{method}: {error!r}") from None
        refused = answer.get("error")
        if refused is not None:
            data = refused.get("data")
            raise ElectrumError((data.get("exception") if isinstance(data, dict) else None) or refused.get("message"))
        return answer["result"]

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("Electrum does not run")
        return self._process.pid

    @property
    def node_id(self) -> str:
        return str(self.rpc("nodeid")).partition("@")[0]

    @property
    def address(self) -> str:
        """``node id@host:port`` of its Lightning listener."""
        return f"{self.node_id}@127.0.0.1:{self.port}"

    def height(self) -> int:
        return int(self.rpc("getinfo")["blockchain_height"])

    def confirmed_sat(self) -> int:
        return round(float(self.rpc("getbalance")["confirmed"]) * 100_000_000)

    def channels(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.rpc("list_channels")
        return [channel for channel in found if channel.get("type", "CHANNEL") == "CHANNEL"]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            self.rpc("stop", timeout=5)
        except (OSError, ElectrumError):
            process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
