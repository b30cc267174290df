"""The store: commits of 1 to 1,000 rows through the Store port, against plain sqlite3 with the same durability; LMDB.

Both sides update rows of one table in WAL mode, synced at every commit. All times are wall time, since a commit waits
for the disk; the cpu column repeats it. Also: the same commits from a loop that is busy with Python in between, how
long a commit blocks that loop, and how far the WAL grows. Not measured here: a delay per sync, Postgres, and a mode
that syncs the WAL on a thread, which does not exist yet.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from leyden.bitcoin import Network
from leyden_sqlite import SqliteStore

from benchmarks.harness import Bench, Contender, Sample

PLAIN = "plain sqlite3"
KEYS = 4000
"""Rows that exist; every commit updates some of them."""
WAL_LIMIT_MIB = 68
Puts = tuple[tuple[bytes, bytes], ...]


def make_puts(count: int, size: int, turn: int) -> Puts:
    """``count`` updates of ``size`` bytes, spread over the table, different in every turn."""
    value = turn.to_bytes(8, "big") * (size // 8)
    first = turn * count
    return tuple((((first + row) * 7919 % KEYS).to_bytes(8, "big"), value) for row in range(count))


class Ours:
    """Our store, driven as the node does: coroutines that never suspend."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "ours.sqlite")
        self.epoch = asyncio.run(self.store.open(Network.REGTEST))

    def commit(self, puts: Puts) -> None:
        work = self.store.commit(puts, (), self.epoch)
        try:
            work.send(None)
        except StopIteration:
            return
        raise RuntimeError("the store suspended")

    def rows(self) -> list[tuple[bytes, bytes]]:
        return asyncio.run(self.store.scan(b""))

    def close(self) -> None:
        asyncio.run(self.store.close())


class Plain:
    """The least that sqlite3 can do for the same guarantee, without epoch, checks or errors."""

    def __init__(self, folder: Path) -> None:
        self.connection = sqlite3.connect(folder / "plain.sqlite", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.execute("PRAGMA cache_size = -16000")
        self.connection.execute("CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")

    def commit(self, puts: Puts) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "INSERT INTO rows VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", puts
        )
        self.connection.execute("COMMIT")

    def rows(self) -> list[tuple[bytes, bytes]]:
        return self.connection.execute("SELECT key, value FROM rows ORDER BY key").fetchall()

    def close(self) -> None:
        self.connection.close()


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-sqlite")
    bench.versions["sqlite"] = sqlite3.sqlite_version
    with tempfile.TemporaryDirectory(prefix="leyden-bench-") as name:
        folder = Path(name)
        ours, plain = Ours(folder), Plain(folder)
        try:
            for size in (500, 5000):
                _curve(bench, ours, plain, size)
            _busy_loop(bench, ours)
            wal = (folder / "ours.sqlite-wal").stat().st_size / 2**20
            bench.limit("WAL after all this", "MiB", wal, WAL_LIMIT_MIB, exact=True)
        finally:
            ours.close()
            plain.close()
    bench.note("a commit runs on the loop's own thread, so it blocks the loop for as long as it takes; at 100 rows the")
    bench.note("aim is 0.3 ms, which waits for the mode that syncs the WAL elsewhere and is not gated here")
    if find_spec("lmdb") is None:
        bench.skip("commits", "LMDB")


def _curve(bench: Bench, ours: Ours, plain: Plain, size: int) -> None:
    """Commit latency over the number of rows."""
    everything = tuple((key.to_bytes(8, "big"), bytes([1]) * size) for key in range(KEYS))
    for side in (ours, plain):
        side.commit(everything)
        side.commit(make_puts(10, size, 3))
    bench.same("rows", ours.rows(), plain.rows())
    for count in (1, 10, 100) if bench.quick else (1, 10, 100, 1000):
        repeat = max(3, 200 // count)
        bench.compare(
            f"{count} rows of {size} B",
            _committing(ours.commit, count, size, repeat),
            {PLAIN: _committing(plain.commit, count, size, repeat)},
            targets={PLAIN: 1.15},
        )


def _committing(commit: Callable[[Puts], None], count: int, size: int, repeat: int) -> Contender:
    """Time of one commit, the rows being made beforehand."""
    turn = 0

    def measure() -> Sample:
        nonlocal turn
        batches = []
        for _ in range(repeat):
            turn += 1
            batches.append(make_puts(count, size, turn))
        started = time.perf_counter()
        for batch in batches:
            commit(batch)
        each = (time.perf_counter() - started) / repeat
        return Sample(each, each)

    return measure


def _busy_loop(bench: Bench, ours: Ours) -> None:
    """Commits between slices of plain Python on the same thread: how much later, and how long the loop stands still."""
    for count in (1, 100):
        quiet: list[float] = []
        busy: list[float] = []
        for turn in range(60 if bench.quick else 300):
            batch = make_puts(count, 500, 10_000 + turn)
            quiet.append(_one(ours, batch))
            total = sum(number * number for number in range(3000))  # half a millisecond of somebody else's work
            busy.append(_one(ours, make_puts(count, 500, 20_013 + turn + total % 2)))
        quiet.sort()
        busy.sort()
        middle = len(quiet) // 2
        bench.limit(f"busy loop, {count} rows: later than idle", "times", busy[middle] / quiet[middle], 3)
        target = 0.3 if count == 1 else None
        bench.limit(f"busy loop, {count} rows: loop blocked", "ms", busy[middle] * 1000, target)


def _one(ours: Ours, batch: Puts) -> float:
    started = time.perf_counter()
    ours.commit(batch)
    return time.perf_counter() - started
