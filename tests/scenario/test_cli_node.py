"""The node as a process: start, second start, signals, kill -9, foreign data; every verb over its socket."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import Network
from leyden_sqlite import SqliteStore

LEYDEN = [sys.executable, "-m", "leyden_cli"]
CHAIN = [sys.executable, "-m", "leyden_regtest"]


def leyden(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LEYDEN, *arguments], capture_output=True, text=True, timeout=120)


def answer(*arguments: str) -> Any:
    done = leyden(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Process:
    """A server process whose first line says that it is ready."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.ready = self._process.stdout.readline()

    def end(self, number: signal.Signals | None = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and standard error."""
        if number is not None:
            self._process.send_signal(number)
        _, error = self._process.communicate(timeout=60)
        return self._process.returncode, error

    def clean_up(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts processes and leaves none behind."""
    tmp_path.chmod(0o700)
    started: list[Process] = []

    def start_one(*command: str) -> Process:
        started.append(Process(*command))
        return started[-1]

    yield start_one
    for process in started:
        process.clean_up()


@pytest.fixture
def chain(tmp_path: Path, start: Start) -> Path:
    path = tmp_path / "c.sock"
    server = start(*CHAIN, "serve", "--dir", str(tmp_path / "chain"), "--socket", str(path))
    assert "ready" in server.ready
    return path


def make_node(folder: Path, chain: Path) -> str:
    done = leyden(
        "init", "--dir", str(folder), "--chain-source", "regtest", "--set", f"regtest.socket={chain}",
        "--listen", "127.0.0.1:0", "--plugin", "cli",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return str(folder)


def test_life_of_a_node(tmp_path: Path, chain: Path, start: Start) -> None:
    folder = make_node(tmp_path / "node", chain)
    node = start(*LEYDEN, "start", "--dir", folder)
    assert node.ready.startswith("ready: ")
    assert node.ready.rstrip().endswith(f"socket {folder}/leyden.sock")

    second = leyden("start", "--dir", folder)
    assert second.returncode == 1
    assert "is running on" in second.stderr
    assert second.stderr.count("\n") == 1

    info = answer("info", "--dir", folder)
    assert info["network"] == "regtest"
    assert info["synced"] is True

    code, error = node.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    gone = leyden("info", "--dir", folder)
    assert gone.returncode == 3
    assert gone.stderr.count("\n") == 1

    node = start(*LEYDEN, "start", "--dir", folder, "--json")
    assert json.loads(node.ready)["node_id"] == info["node_id"]
    code, error = node.end(signal.SIGTERM)
    assert code == 0
    events = [json.loads(line)["event"] for line in error.splitlines()]
    assert events[-1] == "node_stopped"
    assert not (tmp_path / "node/leyden.sock").exists()

    node = start(*LEYDEN, "start", "--dir", folder)
    assert leyden("stop", "--dir", folder).returncode == 0
    assert node.end(None)[0] == 0


@pytest.mark.timeout(300)  # dozens of processes, one after the other
def test_verbs(tmp_path: Path, chain: Path, start: Start) -> None:
    names = ("alice", "bob")
    alice, bob = (make_node(tmp_path / name, chain) for name in names)
    nodes = [start(*LEYDEN, "start", "--dir", folder, "--json") for folder in (alice, bob)]
    ready = [json.loads(node.ready) for node in nodes]

    def mine(blocks: int) -> None:
        subprocess.run([*CHAIN, "mine", "--socket", str(chain), str(blocks)], check=True, capture_output=True)

    def faucet(address: str, amount: int) -> None:
        command = [*CHAIN, "faucet", "--socket", str(chain), address, str(amount)]
        subprocess.run(command, check=True, capture_output=True)

    faucet(leyden("address", "--dir", alice).stdout.strip(), 1_000_000)
    taproot = leyden("address", "--dir", bob, "--type", "p2tr").stdout.strip()
    assert taproot.startswith("bcrt1p")
    faucet(taproot, 15_000)
    mine(1)
    wait(lambda: answer("balance", "--dir", alice)["confirmed_sat"] == 1_000_000)
    wait(lambda: answer("balance", "--dir", bob)["confirmed_sat"] == 15_000)
    (coin,) = answer("coins", "--dir", bob)
    assert (coin["address"], coin["value_sat"], coin["state"]) == (taproot, 15_000, "free")
    assert coin["coin"] in leyden("coins", "--dir", bob).stdout
    assert len(answer("descriptors", "--dir", bob)) == 5
    assert leyden("connect", "--dir", alice, ready[1]["address"]).returncode == 0
    assert len(answer("peers", "--dir", alice)) == 1
    opened = answer("open", "--dir", alice, ready[1]["node_id"], "500000", "--push-msat", "100000000")
    mine(6)
    wait(lambda: answer("channels", "--dir", alice)[0]["usable"] and answer("channels", "--dir", bob)[0]["usable"])

    bolt11 = leyden("invoice", "--dir", bob, "any", "--description", "tea", "--label", "x").stdout.strip()
    without = leyden("pay", "--dir", alice, bolt11)
    assert without.returncode == 1
    assert "say how much" in without.stderr
    paid = answer("pay", "--dir", alice, bolt11, "--amount", "12345", "--key", "k")
    assert paid["status"] == "succeeded"
    assert answer("pay", "--dir", alice, bolt11, "--amount", "12345", "--key", "k") == paid
    assert answer("payment", "--dir", alice, paid["payment_hash"]) == paid
    assert [one["received_msat"] for one in answer("invoices", "--dir", bob)] == [12345]
    assert "12,345" in leyden("payments", "--dir", alice).stdout
    assert leyden("payment", "--dir", alice, "00" * 32).returncode == 1

    needs = answer("balance", "--dir", bob)
    assert (needs["anchor_reserve_sat"], needs["reserved_sat"]) == (10_000, 10_000)
    (change,) = [coin["coin"] for coin in answer("coins", "--dir", alice)]
    for wrong in ("00" * 32 + ":0", change + "0000000", "x:1"):
        assert leyden("send", "--dir", alice, taproot, "20000", "--coin", wrong).returncode == 1
    refused = leyden("send", "--dir", bob, taproot, "5000")
    assert refused.returncode == 1
    assert "10000 sat in reserve" in refused.stderr

    to = leyden("address", "--dir", bob).stdout.strip()
    sent = answer("send", "--dir", alice, to, "20000", "--coin", change, "--feerate", "1500")
    assert sent["txid"] in leyden("transactions", "--dir", alice).stdout
    bumped = answer("bump", "--dir", alice, sent["txid"], "--feerate", "4000")
    assert bumped["method"] == "rbf"
    assert bumped["txid"] in leyden("transactions", "--dir", alice).stdout
    assert leyden("bump", "--dir", alice, "00" * 32, "--feerate", "4000").returncode == 1
    log = leyden("events", "--dir", alice, "--after", "1").stdout
    assert "payment_sent" in log
    assert not log.startswith("1 ")

    assert leyden("close", "--dir", alice, opened["channel_id"][:8], "--max-fee", "5000").returncode == 0
    wait(lambda: "closing" in leyden("channels", "--dir", bob).stdout)
    assert "is not connected" in leyden("disconnect", "--dir", alice, "02" * 33).stderr
    assert leyden("disconnect", "--dir", alice, ready[1]["address"].split("@")[0]).returncode == 0
    assert "no peers" in leyden("peers", "--dir", alice).stdout
    for node in nodes:
        code, error = node.end()
        assert code == 0, error
        assert "channel_closing" in error  # the plugin cli logs events


def wait(check: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not check():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_listening_port_in_use_is_one_line(tmp_path: Path, chain: Path, start: Start) -> None:
    folder = make_node(tmp_path / "node", chain)
    node = start(*LEYDEN, "start", "--dir", folder, "--json")
    port = json.loads(node.ready)["address"].rpartition(":")[2]
    other = make_node(tmp_path / "other", chain)
    config = Path(other, "leyden.toml")
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    refused = leyden("start", "--dir", other)
    assert refused.returncode == 1
    assert "in use" in refused.stderr.splitlines()[-1]
    assert node.end()[0] == 0


def test_foreign_database_is_one_line(tmp_path: Path, chain: Path) -> None:
    folder = make_node(tmp_path / "node", chain)
    Path(folder, "leyden.sqlite").write_bytes(b"not a database at all" * 100)
    refused = leyden("start", "--dir", folder)
    assert refused.returncode == 1
    assert "is no database or is damaged" in refused.stderr.splitlines()[-1]
    assert os.path.getsize(Path(folder, "leyden.sqlite")) == 2100


def test_stop_while_the_chain_is_away(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = make_node(tmp_path / "node", tmp_path / "nobody.sock")
    process = subprocess.Popen([*LEYDEN, "start", "--dir", folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait(lambda: Path(folder, "leyden.sqlite-wal").exists())
    process.terminate()
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, b""), error


def test_fenced_node_stops(tmp_path: Path, chain: Path, start: Start) -> None:
    """Somebody else opened the store: from then on this process must not commit anything."""
    folder = make_node(tmp_path / "node", chain)
    node = start(*LEYDEN, "start", "--dir", folder)
    store = SqliteStore(Path(folder, "leyden.sqlite"))

    async def take_over() -> None:
        await store.open(Network.REGTEST)
        await store.close()

    asyncio.run(take_over())
    assert leyden("invoice", "--dir", folder, "1000").returncode in (1, 3)
    code, error = node.end(None)
    assert code == 1
    assert error.splitlines()[-1].startswith("leyden: the node had to stop: ")
    assert "taken over" in error.splitlines()[-1]
