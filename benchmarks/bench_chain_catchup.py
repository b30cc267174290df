"""Catching up from bitcoind: plugin and follower, against the raw fetch of the same blocks; memory over many blocks.

Ours asks for blocks by JSON-RPC, checks headers and merkle roots, and matches every transaction with what is watched.
The peer fetches the same blocks one after the other over one kept connection and turns them into bytes, without looking
at them; with four connections it is the most that this bitcoind gives to Python, which is shown and not a target.
Then the same with a bitcoind that offers REST, which the plugin uses where it can; the peer fetches by RPC still.
All times are wall time, since two processes work: the cpu column repeats it. Targets: 0.7 of the raw rate, by REST 0.8.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from leyden.bitcoin import Header, Network, Transaction, TxIn, TxOut, p2wsh, target_from_bits
from leyden.chain import ChainFollower, RestartSource, SourceFault, WatchesAdded, load, step
from leyden.hooks.types import BlockConnected, ChainEvent, SourceSynced, Watch
from leyden.types import BlockHeight, OutPoint, Sat, Txid
from leyden_bitcoind import BitcoindNode, Credentials, RpcClient
from leyden_bitcoind.news import News

from benchmarks.filled_chain import BITS, FIRST_TIME, PAID
from benchmarks.harness import Bench, Sample
from benchmarks.regtest_bed import OLD_TIPS, bitcoind, fetch_raw, fill
from tests.testbed.bitcoind import Bitcoind

RAW = "raw RPC fetch"
RAW_PARALLEL = "raw, 4 connections"
RATE = 0.7
REST_RATE = 0.8
MANY_WATCHES = 10_000
FEW_WATCHES = 100
EMPTY_BLOCKS = 10_000
SPEED_ROUNDS = 5
"""In turns; of each the fastest, in CPU time, for a busy machine only makes them slower."""
GROWTH_MIB = 6.0
"""Allowed over 10,000 blocks: the headers that are kept, and noise of the allocator."""
PREFIX = b"b"


def run(bench: Bench) -> None:
    bench.uses("leyden-bitcoind", "msgspec")
    _catch_up(bench)
    _memory(bench)


def _watches(count: int) -> tuple[Watch, ...]:
    return tuple(
        Watch(script=p2wsh(n.to_bytes(4, "big")), outpoint=OutPoint(Txid(n.to_bytes(32, "big")), 0))
        for n in range(count)
    )


def _follower(birth: int, watches: Sequence[Watch]) -> ChainFollower:
    follower = load((), PREFIX, Network.REGTEST, BlockHeight(birth))
    return step(follower, WatchesAdded(watches=tuple(watches), active_from=BlockHeight(0)))[0]


def _absorb(follower: ChainFollower, event: ChainEvent) -> ChainFollower:
    follower, outputs = step(follower, event)
    for output in outputs:
        if isinstance(output, SourceFault | RestartSource):
            raise SystemExit(f"chain_catchup: {output}")
    return follower


# -- against the raw fetch ---------------------------------------------------------------------------------------------


def _catch_up(bench: Bench) -> None:
    blocks, transactions = (60, 400) if bench.quick else (200, 400)
    for options, way, rate in (((), "JSON-RPC", RATE), (("-rest",), "REST", REST_RATE)):
        label = f"{blocks} blocks of {transactions} transactions, {way}"
        with bitcoind(*OLD_TIPS, *options) as daemon:
            if daemon is None:
                bench.skip(label, f"{RAW}: no bitcoind, run make testbed")
                continue
            _against_raw(bench, daemon, label, fill(daemon, blocks, transactions), transactions, rate)


def _against_raw(
    bench: Bench, daemon: Bitcoind, label: str, hashes: Sequence[str], transactions: int, rate: float
) -> None:
    blocks = len(hashes)
    first = daemon.rpc("getblockcount") - blocks + 1
    tip = bytes.fromhex(hashes[-1])[::-1]
    follower = asyncio.run(_followed(daemon, first, _watches(FEW_WATCHES)))
    bench.same("tip", follower.best_hash, tip)
    seen = asyncio.run(_count_matches(daemon, first))
    bench.same("transactions that pay a script of all", seen, blocks * (transactions + 1))
    for connections, name, target in ((1, RAW, 1 / rate), (4, RAW_PARALLEL, None)):
        bench.compare(
            label,
            lambda: _timed(lambda: asyncio.run(_followed(daemon, first, _watches(FEW_WATCHES))), blocks),
            {name: lambda n=connections: _timed(lambda: fetch_raw(daemon, hashes, n), blocks)},
            targets={name: target} if target is not None else {},
            rounds=5 if bench.quick else 11,
        )
    for row in bench.rows:
        if row.wall_us and row.label == label:
            bench.note(f"{row.contender}, {label}: {1e6 / row.wall_us:,.0f} blocks/s")


def _timed(work: Callable[[], object], operations: int) -> Sample:
    began = time.perf_counter()
    work()
    each = (time.perf_counter() - began) / operations
    return Sample(each, each)


async def _followed(daemon: Bitcoind, first: int, watches: Sequence[Watch]) -> ChainFollower:
    client = RpcClient(daemon.url, Credentials(user=daemon.user, password=daemon.password))
    source = BitcoindNode(client, Network.REGTEST, News([]))
    follower = _follower(first, watches)
    await source.start(follower.locator, BlockHeight(first))
    async for event in source.events():
        follower = _absorb(follower, event)
        if isinstance(event, SourceSynced):
            break
    await source.stop()
    return follower


async def _count_matches(daemon: Bitcoind, first: int) -> int:
    """Whatever pays the script that every transaction of the filled chain pays must be found."""
    client = RpcClient(daemon.url, Credentials(user=daemon.user, password=daemon.password))
    source = BitcoindNode(client, Network.REGTEST, News([]))
    follower = _follower(first, [Watch(script=PAID)])
    await source.start(follower.locator, BlockHeight(first))
    found = 0
    async for event in source.events():
        follower, outputs = step(follower, event)
        found += sum(len(output.transactions) for output in outputs if isinstance(output, BlockConnected))
        if isinstance(event, SourceSynced):
            break
    await source.stop()
    return found


# -- memory ------------------------------------------------------------------------------------------------------------


def _memory(bench: Bench) -> None:
    """10,000 blocks, with 100 and with 10,000 watches: neither the follower nor its speed may depend on either."""
    blocks = _empty_blocks(EMPTY_BLOCKS)
    seconds: dict[int, list[float]] = {FEW_WATCHES: [], MANY_WATCHES: []}
    for number in range(SPEED_ROUNDS):
        for count, taken in seconds.items():
            follower = _follower(1, _watches(count))
            for block in blocks[:500]:
                follower = _absorb(follower, block)
            gc.collect()
            before = _resident_mib()
            began = time.process_time()
            for block in blocks[500:]:
                follower = _absorb(follower, block)
            taken.append(time.process_time() - began)
            gc.collect()
            if number == 0:
                grown = max(_resident_mib() - before, 0.0)
                label = f"{EMPTY_BLOCKS:,} blocks with {count:,} watches: growth"
                bench.limit(label, "MiB", grown, GROWTH_MIB, exact=True)
            del follower
    few, many = (min(taken) for taken in seconds.values())
    bench.limit("10,000 watches against 100, time per block", "times", many / few, 1.2)
    bench.note(f"follower alone, empty blocks: {(len(blocks) - 500) / few:,.0f} blocks/s")


def _empty_blocks(count: int) -> list[BlockConnected]:
    """Coinbase and header, as bytes."""
    blocks = []
    previous = Network.REGTEST.chain_hash
    target = target_from_bits(BITS)
    for height in range(1, count + 1):
        coinbase = Transaction(
            version=2,
            inputs=(
                TxIn(
                    prevout=OutPoint(Txid(bytes(32)), 0xFFFFFFFF),
                    script_sig=height.to_bytes(4, "little"),
                    sequence=0xFFFFFFFF,
                ),
            ),
            outputs=(TxOut(value=Sat(0), script=PAID),),
            locktime=0,
        )
        nonce = 0
        while True:
            header = Header(
                version=4,
                prev_hash=previous,
                merkle_root=coinbase.txid,
                time=FIRST_TIME + height,
                bits=BITS,
                nonce=nonce,
            )
            if int.from_bytes(header.hash, "little") <= target:
                break
            nonce += 1
        previous, packed = header.hash, header.serialize()
        raw = packed + b"\x01" + coinbase.serialize()
        blocks.append(
            BlockConnected(
                height=BlockHeight(height), block_hash=previous, header=packed, transactions=(), full=True, raw=raw
            )
        )
    return blocks


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20
