"""A real Electrum server (e-x) on top of a bitcoind of the test bed."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.testbed import environment
from tests.testbed.bitcoind import Bitcoind, free_port
from tests.testbed.debian import Unavailable

NAME = "electrum-server"
REQUIREMENTS = ("e-x==1.20.0", "aiorpcX==0.25.0", "plyvel==1.5.1")
LAUNCHER = Path(__file__).with_name("electrum_server_launcher.py")
START_SECONDS = 30
STOP_SECONDS = 20


def command() -> list[str]:
    """How to run the server; it is configured by environment variables."""
    return [str(environment.install(NAME, REQUIREMENTS)), str(LAUNCHER)]


class ElectrumServer:
    """One server with its own data folder. ``start`` waits until it has bitcoind's tip; ``stop`` until it is gone."""

    def __init__(self, folder: Path, bitcoind: Bitcoind) -> None:
        self.folder = folder
        self.port = free_port()
        self._bitcoind = bitcoind
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> "ElectrumServer":
        words = command()
        (self.folder / "db").mkdir(parents=True, exist_ok=True)
        settings = {
            "COIN": "Bitcoin",
            "NET": "regtest",
            "DB_ENGINE": "leveldb",
            "DB_DIRECTORY": str(self.folder / "db"),
            "DAEMON_URL": f"http://{self._bitcoind.user}:{self._bitcoind.password}@127.0.0.1:{self._bitcoind.port}/",
            "SERVICES": f"tcp://127.0.0.1:{self.port}",
            "REPORT_SERVICES": "",
            "PEER_DISCOVERY": "off",
            "PEER_ANNOUNCE": "",
            "ALLOW_ROOT": "1",
            "CACHE_MB": "50",
            "COST_SOFT_LIMIT": "0",
            "COST_HARD_LIMIT": "0",
            "DAEMON_POLL_INTERVAL_BLOCKS": "100",
            "DAEMON_POLL_INTERVAL_MEMPOOL": "100",
        }
        log = (self.folder / "stdout.log").open("ab")
        self._process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=os.environ | settings)
        log.close()
        try:
            self.wait_for_tip(START_SECONDS)
        except Unavailable:
            self.stop()
            raise
        return self

    def wait_for_tip(self, seconds: float = 20.0) -> None:
        """Until the server knows as many blocks as bitcoind has."""
        wanted, deadline = self._bitcoind.rpc("getblockcount"), time.monotonic() + seconds
        while True:
            try:
                if self._height() >= wanted:
                    return
            except (OSError, ValueError):
                if self._process is None or self._process.poll() is not None:
                    raise Unavailable(f"the Electrum server does not start: {self._tail()}") from None
            if time.monotonic() > deadline:
                raise Unavailable(f"the Electrum server does not reach height {wanted}: {self._tail()}")
            time.sleep(0.05)

    def _height(self) -> int:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            stream = connection.makefile("rw", encoding="utf-8")
            asked: list[tuple[str, list[Any]]] = [
                ("server.version", ["leyden test bed", "1.4"]),
                ("blockchain.headers.subscribe", []),
            ]
            for number, (method, params) in enumerate(asked):
                stream.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
            stream.flush()
            for line in stream:
                answer = json.loads(line)
                if answer.get("id") == len(asked) - 1:
                    return int(answer["result"]["height"])
        raise ValueError("the server closed the connection")

    def _tail(self) -> str:
        return (self.folder / "stdout.log").read_text(errors="replace")[-500:]

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
