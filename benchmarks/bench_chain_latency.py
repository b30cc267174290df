"""From a block to a channel: how long until a channel of a running node knows of a block, by ZMQ and by polling.

Two nodes with a channel run in this process over a real bitcoind. The clock starts when the call that mines is sent and
stops when the channel has taken in the block, so mining is part of both sides. The peer is a bare ZMQ subscriber: when
``rawblock`` is there at all. All times are wall time: the cpu column repeats it.
"""

import asyncio
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import structlog
import zmq
from leyden.bitcoin import HEADER_LENGTH
from leyden.crypto import sha256d
from leyden.types import Sat

from benchmarks.harness import Bench, Sample
from benchmarks.regtest_bed import bitcoind
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.leyden import DEPTH, Leyden

PEER = "bare ZMQ subscriber"
POLL_SECONDS = 2.0
"""The default of the plugin."""
RATIO = 4.0
"""Parsing, checking, matching, a turn of the node with its commit, two nodes on one thread."""
CAPACITY = Sat(1_000_000)


def run(bench: Bench) -> None:
    bench.uses("leyden-bitcoind", "pyzmq")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with bitcoind() as daemon, tempfile.TemporaryDirectory(prefix="leyden-bench-") as name:
        if daemon is None:
            bench.skip("block mined until the channel knows", f"{PEER}: no bitcoind, run make testbed")
            return
        daemon.make_wallet()
        for kind in ("zmq", "poll"):
            (Path(name) / kind).mkdir()
        asyncio.run(_measure(bench, daemon, Path(name)))


async def _measure(bench: Bench, daemon: Bitcoind, folder: Path) -> None:
    rounds = 10 if bench.quick else 40
    ours, bare = await _with(daemon, folder / "zmq", True, 30.0, rounds)
    ratios = sorted(a / b for a, b in zip(ours, bare, strict=True))
    label = "block mined until the channel knows"
    bench.limit(f"{label}, ZMQ: median", "ms", statistics.median(ours) * 1000, None)
    bench.ratio(label, PEER, Sample(statistics.median(bare), statistics.median(bare)), ratios, RATIO)
    later = statistics.median(a - b for a, b in zip(ours, bare, strict=True)) * 1000
    bench.limit("the channel knows, after the message is there", "ms", max(later, 0.0), 50)
    polled, _ = await _with(daemon, folder / "poll", False, POLL_SECONDS, 3 if bench.quick else 10)
    bench.limit(f"{label}, polling every {POLL_SECONDS:g} s: median", "ms", statistics.median(polled) * 1000, None)
    bench.limit("ZMQ against polling", "times", statistics.median(ours) / statistics.median(polled), 0.5)


async def _with(
    daemon: Bitcoind, folder: Path, use_zmq: bool, poll_seconds: float, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of each round: until the channel knew, until a bare subscriber had the block."""
    nodes = [Leyden(folder / name, daemon, zmq=use_zmq, poll_seconds=poll_seconds) for name in ("alice", "bob")]
    for each in nodes:
        await each.start()
    alice, bob = (each.node for each in nodes)
    try:
        await _open(daemon, alice, bob)
        knew: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
        on_block = alice.core.channels.on_block

        def noted(block: Any) -> None:
            on_block(block)
            knew.put_nowait((block.height, time.perf_counter()))

        # No event tells that every channel has taken in a block.
        alice.core.channels.on_block = noted  # type: ignore[method-assign]  # notes when channels are told
        ours, bare = [], []
        with _Listener(daemon.zmq) as listener:
            while not listener.hears:  # a subscription takes its time, and nothing says when it holds
                await asyncio.to_thread(daemon.mine)
                await asyncio.sleep(0.05)
            for _ in range(rounds):
                await asyncio.sleep(0.05)
                height = daemon.rpc("getblockcount") + 1
                began = time.perf_counter()
                await asyncio.to_thread(daemon.mine)
                while (told := await knew.get())[0] != height:
                    pass
                ours.append(told[1] - began)
                bare.append(await asyncio.to_thread(listener.arrived, daemon.rpc("getbestblockhash")) - began)
        return ours, bare
    finally:
        for each in nodes:
            await each.stop()


async def _open(daemon: Bitcoind, alice: Any, bob: Any) -> None:
    daemon.rpc("sendtoaddress", await alice.new_address(), 0.1)
    daemon.mine()
    await _until(lambda: alice.wallet_balance().free > CAPACITY)
    host, port = bob.address
    await alice.connect(bob.node_id, host, port)
    await alice.open_channel(bob.node_id, CAPACITY)
    await _until(lambda: daemon.rpc("getrawmempool"))
    daemon.mine(DEPTH + 1)
    await _until(lambda: all(any(c.usable for c in node.channels()) for node in (alice, bob)))


async def _until(reached: Any) -> None:
    for _ in range(6000):
        if reached():
            return
        await asyncio.sleep(0.01)
    raise SystemExit("chain_latency: the channel did not open")


class _Listener:
    """Subscribes in a thread and notes when each block is there."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ended = False
        self._times: dict[str, float] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> "_Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()

    def _listen(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.subscribe(b"rawblock")
            socket.connect(self._address)
            while not self._ended:
                if socket.poll(100):
                    _, block, _ = socket.recv_multipart()
                    now = time.perf_counter()
                    with self._changed:
                        self._times[sha256d(block[:HEADER_LENGTH])[::-1].hex()] = now
                        self._changed.notify_all()

    @property
    def hears(self) -> bool:
        return bool(self._times)

    def arrived(self, block_hash: str) -> float:
        with self._changed:
            if not self._changed.wait_for(lambda: block_hash in self._times, timeout=60):
                raise SystemExit("chain_latency: the bare subscriber did not get the block")
            return self._times[block_hash]
