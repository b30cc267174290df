"""A real bitcoind on regtest: fetched, started, driven by JSON-RPC, stopped by its pid.

The packaged build is Bitcoin Knots with Core's policy switched on: a regtest engine for tests.
"""

import base64
import http.client
import json
import os
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from leyden_cli.demo.ports import free_port

from tests.testbed.cache import Unavailable
from tests.testbed.debian import loader, unpack
from tests.testbed.program import PATIENCE, Program

PACKAGES = (
    "bitcoin-knots",
    *("libbsd0", "libc6", "libcom-err2", "libgcc-s1", "libgssapi-krb5-2", "libk5crypto3", "libkeyutils1", "libkrb5-3"),
    *("libkrb5support0", "libmd0", "libnorm1t64", "libpgm-5.3-0t64", "libsodium26", "libsqlite3-0", "libssl3t64"),
    *("libevent-core-2.1-7t64", "libevent-extra-2.1-7t64", "libevent-pthreads-2.1-7t64"),
    *("libstdc++6", "libzmq5", "libzstd1", "zlib1g"),
)


BUSY = 503
"""The HTTP status of a daemon whose queue of calls is full. It has not even begun with this one."""


class RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"{message} (code {code})")


def command() -> list[str]:
    """How to run bitcoind: ``LEYDEN_BITCOIND``, one on PATH, or the fetched one."""
    named = shlex.split(os.environ.get("LEYDEN_BITCOIND", ""))
    if named:
        return named
    own = shutil.which("bitcoind")
    if own is not None:
        return [own]
    root = unpack("bitcoind", PACKAGES)
    return [*loader(root), str(root / "usr/bin/bitcoind")]


class Bitcoind:
    """One daemon with its own data folder. ``start`` waits until it answers; ``stop`` until it is gone.

    ``publishes`` False: nothing comes by ZMQ. ``cookie`` True: credentials are in ``cookie_file``, new at every start.
    """

    def __init__(
        self, folder: Path, *, options: tuple[str, ...] = (), publishes: bool = True, cookie: bool = False
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.zmq = f"ipc://{folder}/zmq"
        self.user, self.password = "leyden", "leyden"
        self.wallet: str | None = None
        """The one that is meant when a call names none; peers may have loaded others."""
        self.options = options
        self.publishes = publishes
        self._cookie = cookie
        self._program = Program("bitcoind", folder / "stdout.log")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def cookie_file(self) -> Path:
        return self.folder / "regtest" / ".cookie"

    def start(self) -> "Bitcoind":
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = [
            "-regtest",
            f"-datadir={self.folder}",
            "-server",
            "-txindex=1",
            "-dbcache=20",
            "-addresstype=bech32",
            "-fallbackfee=0.00001",
            f"-rpcport={self.port}",
            "-rpcbind=127.0.0.1",
            "-rpcallowip=127.0.0.1",
            *([] if self._cookie else [f"-rpcuser={self.user}", f"-rpcpassword={self.password}"]),
            "-listen=0",
            "-dnsseed=0",
            "-fixedseeds=0",
            "-discover=0",
            *([f"-zmqpubsequence={self.zmq}", f"-zmqpubrawblock={self.zmq}"] if self.publishes else []),
            *self.options,
        ]
        words = command()
        if "knots" in subprocess.run([*words, "-version"], capture_output=True, text=True, check=False).stdout.lower():
            flags.append("-corepolicy=1")
        self._program.start([*words, *flags])
        try:
            self._program.wait(self._answers, "to answer")
        except BaseException:
            self.kill()
            raise
        return self

    def _answers(self) -> bool:
        """And has done what it does behind its first answers: its mempool loaded, transactions looked up."""
        try:
            indexes = self.rpc("getindexinfo").values()
            return bool(self.rpc("getmempoolinfo")["loaded"]) and all(index["synced"] for index in indexes)
        except (OSError, RpcError):
            if not self._program.runs:
                raise Unavailable(f"bitcoind does not start: {self._program.log_tail(5)}") from None
            return False

    def rpc(self, method: str, *params: Any, wallet: str | None = None) -> Any:
        """What bitcoind answers, ``RpcError`` if it refuses, ``OSError`` if it is not there or is gone meanwhile."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._ask(method, params, wallet)
            except RpcError as error:
                if error.code != BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def _ask(self, method: str, params: tuple[Any, ...], wallet: str | None) -> Any:
        wallet = wallet or self.wallet
        path = "" if wallet is None else f"/wallet/{wallet}"
        body = json.dumps({"jsonrpc": "1.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        secret = self.cookie_file.read_text() if self._cookie else f"{self.user}:{self.password}"
        token = base64.b64encode(secret.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read()
            try:
                answer = json.loads(said)
            except ValueError:  # a cookie of its last life, or too many calls at once
                raise RpcError(error.code, said.decode(errors="replace") or error.reason) from None
        except (http.client.HTTPException, ValueError) as error:
            raise ConnectionError(f"bitcoind broke off its answer to {method}: {error!r}") from error
        if answer["error"] is not None:
            raise RpcError(answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def make_wallet(self) -> None:
        """A wallet with mature coins."""
        self.rpc("createwallet", "miner", False, False, "", False, True, True)
        self.wallet = "miner"
        self.mine(110)

    def mine(self, count: int = 1) -> list[str]:
        """To a fresh address, so that competing branches never repeat a block."""
        blocks: list[str] = self.rpc("generatetoaddress", count, self.rpc("getnewaddress"))
        return blocks

    def flush(self) -> None:
        """Everything on disk: a ``kill`` loses nothing after it."""
        self.rpc("gettxoutsetinfo", "none")

    def send_signal(self, number: int) -> None:
        self._program.send_signal(number)

    def kill(self) -> None:
        """As if the machine had lost its power. Blocks since the last flush may be gone with it."""
        self._program.kill()

    def stop(self) -> None:
        self._program.end()
