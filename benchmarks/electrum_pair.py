"""Two Electrum daemons with one channel, as ``pay_pair`` drives them: real invoices, JSON-RPC, a real bitcoind."""

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.testbed import electrum
from tests.testbed.bitcoind import PATIENCE, Bitcoind
from tests.testbed.debian import CACHE
from tests.testbed.electrum import Electrum
from tests.testbed.electrum_server import ElectrumServer

CHANNEL_BTC = "0.1"
PAYMENT_BTC = "0.00001"


def fetched() -> bool:
    """Whether all that is needed is here already; a benchmark downloads nothing."""
    return electrum.installed() is not None and (CACHE / "electrum-server" / "venv" / "requirements.txt").exists()


class ElectrumPair:
    """Alice with a channel to bob. Closing stops everything that was started."""

    def __init__(self, folder: Path) -> None:
        self._bitcoind = Bitcoind(folder / "bitcoind")
        self._server = ElectrumServer(folder / "server", self._bitcoind)
        self.alice = Electrum(folder / "alice", self._server)
        self.bob = Electrum(folder / "bob", self._server)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._bitcoind.start().make_wallet()
        self._server.start()
        both = (self.alice, self.bob)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Electrum.start, both))
        self._bitcoind.rpc("sendtoaddress", self.alice.rpc("getunusedaddress"), 1)
        self._bitcoind.mine()
        self.alice.wait(lambda: self.alice.confirmed_sat() > 0, PATIENCE, "to see its coins")
        self.alice.rpc("add_peer", connection_string=self.bob.address)
        self.alice.rpc("open_channel", connection_string=self.bob.address, amount=CHANNEL_BTC)
        self.alice.wait(lambda: self._bitcoind.rpc("getrawmempool"), PATIENCE, "to broadcast its funding")
        self._bitcoind.mine(3)

        def usable() -> bool:
            return all([(c["state"], c["peer_state"]) for c in side.channels()] == [("OPEN", "GOOD")] for side in both)

        self.alice.wait(usable, PATIENCE, "to open a channel")

    def run(self, count: int, in_flight: int) -> dict[str, float]:
        """Pay ``count`` invoices with ``in_flight`` callers; the shape of ``pay_pair``'s own figures."""
        invoices = [
            str(self.bob.rpc("add_request", amount=PAYMENT_BTC, memo="pay_pair", lightning=True)["lightning_invoice"])
            for _ in range(count)
        ]
        pids = [side.pid for side in (self.alice, self.bob)]
        before, began = sum(map(_cpu_seconds, pids)), time.perf_counter()
        with ThreadPoolExecutor(in_flight) as pool:
            latencies = list(pool.map(self._pay, invoices))
        seconds = time.perf_counter() - began
        return {
            "rate": count / seconds,
            "cpu_us": (sum(map(_cpu_seconds, pids)) - before) / count * 1e6,
            "p50_ms": statistics.median(latencies) * 1e3,
            "rss_mib": max(map(_rss_mib, pids)),
        }

    def _pay(self, invoice: str) -> float:
        began = time.perf_counter()
        result = self.alice.rpc("lnpay", invoice=invoice, timeout=60)
        if not result["success"]:
            raise SystemExit(f"pay_pair: Electrum's payment failed: {result}")
        return time.perf_counter() - began

    def close(self) -> None:
        stops: list[Callable[[], None]] = [self.alice.stop, self.bob.stop, self._server.stop, self._bitcoind.stop]
        for stop in stops:
            stop()


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
