"""A real Electrum server (e-x) on top of a bitcoind of the test bed."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leyden_cli.demo.electrum import server_settings

from tests.testbed import environment
from tests.testbed.bitcoind import PATIENCE, Bitcoind, free_port
from tests.testbed.debian import Unavailable

NAME = "electrum-server"
REQUIREMENTS = ("e-x==1.20.0", "aiorpcX==0.25.0", "plyvel==1.5.1")
NEW_NAME = "electrum-server-2"
NEW_REQUIREMENTS = ("e-x==2.0.0", "aiorpcX==0.25.0", "plyvel==1.5.1")
"""The one that speaks protocol 1.7."""
LAUNCHER = Path(__file__).with_name("electrum_server_launcher.py")


def command() -> list[str]:
    """How to run the server; it is configured by environment variables."""
    return [str(environment.install(NAME, REQUIREMENTS)), str(LAUNCHER)]


def new_command() -> list[str]:
    """The same for the newer server."""
    return [str(environment.install(NEW_NAME, NEW_REQUIREMENTS)), str(LAUNCHER)]


class ElectrumServer:
    """One server with its own data folder. ``start`` waits until it has bitcoind's tip; ``stop`` until it is gone."""

    def __init__(
        self,
        folder: Path,
        bitcoind: Bitcoind,
        *,
        new: bool = False,
        tls: tuple[Path, Path] | None = None,
        padded: bool = False,
    ) -> None:
        """``new``: the server of protocol 1.7. ``tls``: files of a certificate and its key, served at ``tls_port``.
        ``padded``: answers are padded and held back as public servers do it."""
        self.folder = folder
        self.port = free_port()
        self.tls_port = free_port()
        self._bitcoind = bitcoind
        self._command = new_command if new else command
        self._tls = tls
        self._padded = padded
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "ElectrumServer":
        words = self._command()
        (self.folder / "db").mkdir(parents=True, exist_ok=True)
        url = f"http://{self._bitcoind.user}:{self._bitcoind.password}@127.0.0.1:{self._bitcoind.port}/"
        settings = {
            **server_settings(self.folder / "db", url, f"tcp://127.0.0.1:{self.port}"),
            **self._tls_settings(),
            **({"LEYDEN_TESTBED_PADDED": "1"} if self._padded else {}),
        }
        log = (self.folder / "stdout.log").open("ab")
        self._process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=os.environ | settings)
        log.close()
        try:
            self.wait_for_tip()
        except BaseException:
            self.stop()
            raise
        return self

    def _tls_settings(self) -> dict[str, str]:
        if self._tls is None:
            return {}
        certificate, key = self._tls
        return {
            "SERVICES": f"tcp://127.0.0.1:{self.port},ssl://127.0.0.1:{self.tls_port}",
            "SSL_CERTFILE": str(certificate),
            "SSL_KEYFILE": str(key),
        }

    def wait_for_tip(self) -> None:
        """Until the server has bitcoind's best block, and everybody who follows it was told of its transactions."""
        wanted, deadline = self._bitcoind.rpc("getbestblockhash"), time.monotonic() + PATIENCE
        while True:
            try:
                if self._best_block() == wanted:
                    return
            except (OSError, ValueError):
                if self._process is None or self._process.poll() is not None:
                    raise Unavailable(f"the Electrum server does not start: {self._tail()}") from None
            if time.monotonic() > deadline:
                raise Unavailable(f"the Electrum server does not reach block {wanted}: {self._tail()}")
            time.sleep(0.05)

    def _best_block(self) -> str:
        header = bytes.fromhex(self.ask(("blockchain.headers.subscribe", []))["hex"])
        return hashlib.sha256(hashlib.sha256(header).digest()).digest()[::-1].hex()

    def ask(self, *questions: tuple[str, list[Any]]) -> Any:
        """On a connection of their own; the answer to the last."""
        asked: Sequence[tuple[str, list[Any]]] = [("server.version", ["leyden test bed", ["1.4", "1.7"]]), *questions]
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            stream = connection.makefile("rw", encoding="utf-8")
            for number, (method, params) in enumerate(asked):
                stream.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
            stream.flush()
            for line in stream:
                answer = json.loads(line)
                if answer.get("id") == len(asked) - 1:
                    return answer["result"]
        raise ValueError("the server closed the connection")

    def _tail(self) -> str:
        return (self.folder / "stdout.log").read_text(errors="replace")[-500:]

    def kill(self) -> None:
        """As if the machine had lost its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stopped in the middle of things until ``thaw``."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
