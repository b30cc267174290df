"""1,000 watches registered at an Electrum server, their histories fetched and proved; and what a watch weighs.

Against the server's own pipelined rate: a client that asks the same questions over one socket, all at once where the
answers before are not needed, and does nothing with what comes back. Wall time, because the server does the work.
"""

import asyncio
import gc
import hashlib
import json
import socket
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leyden.bitcoin import Network, p2wsh
from leyden.crypto import sha256
from leyden.hooks.registry import ServiceContext
from leyden.hooks.types import BlockConnected, SourceSynced, Watch
from leyden.types import BlockHeight
from leyden_electrum.plugin import ElectrumSettings, make_node

from benchmarks.harness import Bench, Sample
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.debian import CACHE, Unavailable
from tests.testbed.electrum_server import ElectrumServer

WATCHES = 1_000
PAID = 200
"""So many of them have a payment in the chain."""
BLOCKS = 20
MIN_RATE = 0.7
MANY = 10_000
MAX_WATCH_BYTES = 1_024


def fetched() -> bool:
    return (CACHE / "electrum-server" / "venv" / "requirements.txt").exists()


def script(number: int) -> bytes:
    return p2wsh(sha256(b"watch %d" % number))


def fill(bitcoind: Bitcoind) -> int:
    """Pay the first ``PAID`` scripts, spread over ``BLOCKS`` blocks; the height before."""
    before = int(bitcoind.rpc("getblockcount"))
    addresses = [bitcoind.rpc("decodescript", script(number).hex())["address"] for number in range(PAID)]
    for block in range(BLOCKS):
        for address in addresses[block::BLOCKS]:
            bitcoind.rpc("sendtoaddress", address, 0.001)
        bitcoind.mine()
    return before


class RawClient:
    """One socket, requests in bulk, answers read as lines and taken apart, nothing else."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb", buffering=1 << 20)
        self.asked = 0

    def ask(self, questions: Sequence[tuple[str, list[Any]]]) -> list[Any]:
        lines = [
            json.dumps({"jsonrpc": "2.0", "id": self.asked + place, "method": method, "params": params})
            for place, (method, params) in enumerate(questions)
        ]
        first, self.asked = self.asked, self.asked + len(questions)
        self._socket.sendall(("\n".join(lines) + "\n").encode())
        answers: dict[int, Any] = {}
        while len(answers) < len(questions):
            message = json.loads(self._stream.readline())
            if "id" in message:
                answers[message["id"]] = message["result"]
        return [answers[first + place] for place in range(len(questions))]

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def ask_raw(port: int, birth: int, height: int) -> tuple[Sample, int, int]:
    """Time, transactions, questions."""
    began = time.perf_counter()
    client = RawClient(port)
    client.ask([("server.version", ["benchmark", ["1.4", "1.6"]])])
    client.ask([("server.features", []), ("blockchain.headers.subscribe", [])])
    client.ask([("blockchain.block.headers", [0, 1]), ("blockchain.block.headers", [1, height])])
    hashes = [hashlib.sha256(script(number)).digest()[::-1].hex() for number in range(WATCHES)]
    statuses = client.ask([("blockchain.scripthash.subscribe", [one]) for one in hashes])
    touched = [one for one, status in zip(hashes, statuses, strict=True) if status]
    histories = client.ask([("blockchain.scripthash.get_history", [one]) for one in touched])
    entries = {(found["tx_hash"], found["height"]) for history in histories for found in history}
    client.ask([("blockchain.transaction.get_merkle", list(entry)) for entry in entries])
    client.ask([("blockchain.transaction.get", [txid]) for txid, _ in entries])
    client.close()
    spent = time.perf_counter() - began
    return Sample(spent, spent), len(entries), client.asked


def ask_ours(folder: Path, port: int, birth: int, count: int = WATCHES) -> tuple[Sample, int]:
    """Time until synced and transactions delivered."""

    async def follow() -> int:
        source = make_node(
            ElectrumSettings(servers=(f"127.0.0.1:{port}:t",)),
            ServiceContext(folder=folder, network=Network.REGTEST),
        )
        found = set()
        try:
            await source.watch([Watch(script=script(n), since_height=BlockHeight(birth)) for n in range(count)])
            await source.start((), BlockHeight(birth))
            async for event in source.events():
                if isinstance(event, BlockConnected):
                    found |= {one.tx.txid for one in event.transactions}
                elif isinstance(event, SourceSynced):
                    break
        finally:
            await source.stop()
        return len(found)

    began = time.perf_counter()
    delivered = asyncio.run(follow())
    spent = time.perf_counter() - began
    return Sample(spent, spent), delivered


def weigh(folder: Path, port: int, birth: int, height: int, count: int) -> int:
    """Bytes of a source that watches ``count`` scripts and is synced."""

    async def follow() -> int:
        source = make_node(
            ElectrumSettings(servers=(f"127.0.0.1:{port}:t",)),
            ServiceContext(folder=folder, network=Network.REGTEST),
        )
        try:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            await source.watch([Watch(script=script(n), since_height=BlockHeight(birth)) for n in range(count)])
            await source.start((), BlockHeight(height))
            async for event in source.events():
                if isinstance(event, SourceSynced):
                    break
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before
        finally:
            await source.stop()

    tracemalloc.start()
    try:
        return asyncio.run(follow())
    finally:
        tracemalloc.stop()


def run(bench: Bench) -> None:
    bench.uses("leyden-core", "leyden-electrum")
    label = f"{WATCHES:,} watches, {PAID} with a payment"
    if not fetched():
        bench.skip(label, "server's pipelined rate")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bitcoind = Bitcoind(folder / "bitcoind")
        server = ElectrumServer(folder / "server", bitcoind)
        try:
            bitcoind.start().make_wallet()
            birth = fill(bitcoind)
            server.start()
            measure(bench, label, folder, server.port, birth, birth + BLOCKS)
        except Unavailable as error:
            bench.note(str(error))
            bench.skip(label, "server's pipelined rate")
        finally:
            server.stop()
            bitcoind.stop()


def measure(bench: Bench, label: str, folder: Path, port: int, birth: int, height: int) -> None:
    raw, transactions, questions = ask_raw(port, birth, height)
    ours, delivered = ask_ours(folder, port, birth)
    bench.same("transactions found", delivered, transactions)
    raws, mine = [], []
    for number in range(5 if bench.quick else 15):
        for which in (0, 1) if number % 2 else (1, 0):
            if which:
                raws.append(ask_raw(port, birth, height)[0])
            else:
                mine.append(ask_ours(folder, port, birth)[0])
    ratios = sorted(a.wall / b.wall for a, b in zip(mine, raws, strict=True))
    raw = Sample(*(statistics.median(getattr(one, what) for one in raws) for what in ("cpu", "wall")))
    ours = Sample(*(statistics.median(getattr(one, what) for one in mine) for what in ("cpu", "wall")))
    bench.limit(label, "leyden, s", ours.wall, None)
    bench.ratio(label, "the server's pipelined rate", raw, ratios, 1 / MIN_RATE)
    bench.note(
        f"{questions:,} questions; the server answers {questions / raw.wall:,.0f} a second, to us "
        f"{questions / ours.wall:,.0f}"
    )
    few, many = (weigh(folder, port, height, height, count) for count in (WATCHES, MANY))
    bench.limit("a watch more", "bytes", (many - few) / (MANY - WATCHES), MAX_WATCH_BYTES, exact=True)
