"""The conformance suite of stores: subclass, name a factory, run pytest.

```python
class TestMyStore(DurableStoreConformance):
    factory = "my_plugin.store:open_at"   # called with a folder, returns an unopened store

    def break_store(self, store):         # make commits fail, return what repairs it
        ...
```
"""

import asyncio
import importlib
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from leyden.bitcoin import Network
from leyden.hooks.services import Store, StoreError, StoreFenced, StoreRefused
from leyden.testing.expectations import expect, expect_equal

T = TypeVar("T")
NETWORK = Network.REGTEST
ROWS_PER_COMMIT = 20


def make_store(factory: str, folder: Path) -> Store:
    """Call ``module:callable`` with ``folder``."""
    module, _, name = factory.partition(":")
    made: Store = getattr(importlib.import_module(module), name)(folder)
    return made


def run(test: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(test)


class StoreConformance:
    """What every ``Store`` must do. ``factory``: a callable that takes a folder; the same folder, the same rows."""

    factory: ClassVar[str]

    def break_store(self, store: Store) -> Callable[[], None]:
        """Make the commits of ``store`` fail as a full or dying disk would; the result undoes it."""
        raise NotImplementedError("a conformance test of a store says how to break it")

    def make(self, folder: Path) -> Store:
        return make_store(self.factory, folder)

    def test_rows_come_back(self, tmp_path: Path) -> None:
        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            expect_equal(await store.get(b"a"), None)
            await store.commit(((b"a", b"1"), (b"b", b"\x00" * 10_000)), (), epoch)
            expect_equal(await store.get(b"a"), b"1")
            expect_equal(await store.get(b"b"), b"\x00" * 10_000)
            await store.commit(((b"a", b"2"),), (b"b", b"never there"), epoch)
            expect_equal(await store.get(b"a"), b"2")
            expect_equal(await store.get(b"b"), None)
            await store.commit((), (), epoch)
            await store.close()

        run(test())

    def test_rows_survive_a_new_opener(self, tmp_path: Path) -> None:
        async def test() -> None:
            first = self.make(tmp_path)
            epoch = await first.open(NETWORK)
            await first.commit(((b"a", b"1"),), (), epoch)
            await first.close()
            second = self.make(tmp_path)
            expect(await second.open(NETWORK) > epoch, "a new opener takes a newer epoch")
            expect_equal(await second.get(b"a"), b"1")
            await second.close()

        run(test())

    def test_scan_is_ordered_bytes(self, tmp_path: Path) -> None:
        keys = [
            b"a",
            b"a\x00",
            b"a\x00\x00",
            b"a\x01",
            b"a\x7f",
            b"a\x80",
            b"a\xff",
            b"a\xff\xff",
            b"b",
            b"\xff",
            b"\xff\xff",
        ]
        shuffled = random.Random(7).sample(keys, len(keys))

        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            await store.commit(tuple((key, b"=" + key) for key in shuffled), (), epoch)
            for prefix in (b"", b"a", b"a\x00", b"a\xff", b"\xff", b"\xff\xff", b"zz"):
                expected = [(key, b"=" + key) for key in keys if key.startswith(prefix)]
                expect_equal(await store.scan(prefix), expected, prefix)
                for after in keys:
                    rest = [row for row in expected if row[0] > after]
                    expect_equal(await store.scan(prefix, after=after), rest, (prefix, after))
                    expect_equal(await store.scan(prefix, after=after, limit=2), rest[:2], (prefix, after))
            await store.close()

        run(test())

    def test_paging_sees_every_row_once(self, tmp_path: Path) -> None:
        rows = [(b"p" + n.to_bytes(2, "big"), b"%d" % n) for n in range(1000)]

        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            await store.commit(tuple(rows), (), epoch)
            seen: list[tuple[bytes, bytes]] = []
            while page := await store.scan(b"p", after=seen[-1][0] if seen else b"", limit=37):
                seen += page
                expect(len(seen) <= len(rows), "a page begins after the last row of the one before")
            expect_equal(seen, rows)
            await store.close()

        run(test())

    def test_a_newer_opener_fences_the_older(self, tmp_path: Path) -> None:
        async def test() -> None:
            old = self.make(tmp_path)
            old_epoch = await old.open(NETWORK)
            new = self.make(tmp_path)
            new_epoch = await new.open(NETWORK)
            expect(new_epoch > old_epoch, "a new opener takes a newer epoch")
            with pytest.raises(StoreFenced):
                await old.commit(((b"a", b"old"),), (), old_epoch)
            with pytest.raises(StoreFenced):
                await old.reopen()
            await new.commit(((b"a", b"new"),), (), new_epoch)
            expect_equal(await new.get(b"a"), b"new")
            await old.close()
            await new.close()

        run(test())

    def test_a_stale_epoch_is_refused_by_the_same_handle(self, tmp_path: Path) -> None:
        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            for wrong in (epoch - 1, epoch + 1):
                with pytest.raises(StoreFenced):
                    await store.commit(((b"a", b"1"),), (), wrong)
            expect_equal(await store.get(b"a"), None)
            await store.commit(((b"a", b"1"),), (), epoch)
            await store.close()

        run(test())

    def test_every_opener_takes_an_epoch_of_its_own(self, tmp_path: Path) -> None:
        """Whoever was opened last may write, nobody else; what the others tried is nowhere."""

        async def test() -> None:
            stores = [self.make(tmp_path) for _ in range(5)]
            epochs = [await store.open(NETWORK) for store in stores]
            expect_equal(epochs, sorted(set(epochs)), "epochs of openers one after the other")
            for number, (store, epoch) in enumerate(zip(stores[:-1], epochs[:-1], strict=True)):
                with pytest.raises(StoreFenced):
                    await store.commit(((b"fenced", b"%d" % number),), (), epoch)
            await stores[-1].commit(((b"newest", b"1"),), (), epochs[-1])
            expect_equal(await stores[-1].scan(b""), [(b"newest", b"1")])
            for store in stores:
                await store.close()

        run(test())

    def test_a_fenced_writer_deletes_nothing_either(self, tmp_path: Path) -> None:
        async def test() -> None:
            old = self.make(tmp_path)
            old_epoch = await old.open(NETWORK)
            await old.commit(((b"a", b"1"), (b"b", b"2")), (), old_epoch)
            new = self.make(tmp_path)
            await new.open(NETWORK)
            with pytest.raises(StoreFenced):
                await old.commit(((b"c", b"3"),), (b"a",), old_epoch)
            expect_equal(await new.scan(b""), [(b"a", b"1"), (b"b", b"2")])
            await old.close()
            await new.close()

        run(test())

    def test_reopen_keeps_the_epoch_and_may_come_at_any_time(self, tmp_path: Path) -> None:
        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            for number in range(3):
                await store.commit(((b"a", b"%d" % number),), (), epoch)
                await store.reopen()
                await store.reopen()
                expect_equal(await store.get(b"a"), b"%d" % number)
            await store.close()

        run(test())

    def test_failures_one_after_the_other(self, tmp_path: Path) -> None:
        """Each failed batch is gone, each good one between them stays; at the end another opener sees the same."""

        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            for number in range(3):
                await store.commit(((b"good%d" % number, b"1"),), (), epoch)
                repair = self.break_store(store)
                batch = tuple((b"bad%d %d" % (number, row), bytes(1) + b"x" * 50_000) for row in range(40))
                with pytest.raises(StoreError):
                    await store.commit(batch, (b"good0",), epoch)
                repair()
                await store.reopen()
            wanted = [(b"good%d" % number, b"1") for number in range(3)]
            expect_equal(await store.scan(b""), wanted)
            await store.close()
            other = self.make(tmp_path)
            expect(await other.open(NETWORK) > epoch, "a new opener takes a newer epoch")
            expect_equal(await other.scan(b""), wanted)
            await other.close()

        run(test())

    def test_a_big_batch_is_one_commit(self, tmp_path: Path) -> None:
        """A busy turn, or the first start of a wallet: thousands of rows, some of them large."""
        rows = [(b"k" + number.to_bytes(4, "big"), b"%d" % number * 20) for number in range(5_000)]
        large = [(b"l%d" % number, bytes([number + 1]) * 1_000_000) for number in range(5)]

        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            await store.commit((*rows, *large), (), epoch)
            await store.commit(((b"l0", b"small"),), tuple(key for key, _ in rows[::2]), epoch)
            await store.close()
            other = self.make(tmp_path)
            await other.open(NETWORK)
            expect_equal(await other.scan(b"k"), rows[1::2])
            expect_equal(
                [(key, len(value)) for key, value in await other.scan(b"l")][:2], [(b"l0", 5), (b"l1", 1_000_000)]
            )
            await other.close()

        run(test())

    def test_keys_and_values_are_any_bytes(self, tmp_path: Path) -> None:
        chance = random.Random(3)
        rows = {chance.randbytes(chance.choice((1, 2, 33, 200, 1_000))): chance.randbytes(40) for _ in range(300)}
        rows |= {b"\x00": b"\x00", b"\x00\x00": b"\xff", b"%_'\\;--": b"'\x00\n"}

        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            await store.commit(tuple(rows.items()), (), epoch)
            expect_equal(await store.scan(b""), sorted(rows.items()))
            for key, value in rows.items():
                expect_equal(await store.get(key), value, key)
                expect((key, value) in await store.scan(key[:1]), "a row is not found by the first byte of its key")
            await store.close()

        run(test())

    def test_what_a_scan_returned_stays_as_it_was(self, tmp_path: Path) -> None:
        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            await store.commit(((b"a", b"1"), (b"b", b"2")), (), epoch)
            before = await store.scan(b"")
            await store.commit(((b"a", b"9"), (b"c", b"3")), (b"b",), epoch)
            expect_equal(before, [(b"a", b"1"), (b"b", b"2")])
            await store.close()

        run(test())

    def test_an_empty_value_is_refused_whole(self, tmp_path: Path) -> None:
        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            with pytest.raises(StoreError):
                await store.commit(((b"a", b"1"), (b"b", b""), (b"c", b"3")), (), epoch)
            expect_equal(await store.scan(b""), [])
            await store.close()

        run(test())

    def test_a_failed_commit_leaves_nothing_and_reopen_recovers(self, tmp_path: Path) -> None:
        async def test() -> None:
            store = self.make(tmp_path)
            epoch = await store.open(NETWORK)
            await store.commit(((b"keep", b"1"), (b"gone", b"1")), (), epoch)
            repair = self.break_store(store)
            batch = tuple((b"new" + n.to_bytes(2, "big"), bytes(50_000)) for n in range(1, 40))
            with pytest.raises(StoreError):
                await store.commit(((b"keep", b"2"), *batch), (b"gone",), epoch)
            repair()
            with pytest.raises(StoreError):  # a failed handle is not to be trusted again
                await store.commit(((b"other", b"1"),), (), epoch)
            await store.reopen()
            expect_equal(await store.scan(b""), [(b"gone", b"1"), (b"keep", b"1")])
            await store.commit(((b"keep", b"3"),), (b"gone",), epoch)
            expect_equal(await store.scan(b""), [(b"keep", b"3")])
            await store.close()

        run(test())

    def test_another_network_is_refused(self, tmp_path: Path) -> None:
        async def test() -> None:
            store = self.make(tmp_path)
            await store.open(NETWORK)
            await store.close()
            stranger = self.make(tmp_path)
            with pytest.raises(StoreRefused) as caught:
                await stranger.open(Network.SIGNET)
            expect("\n" not in str(caught.value), "a refusal is one line")
            await stranger.close()
            expect(await store.open(NETWORK) > 0, "the right network still opens")
            await store.close()

        run(test())

    def test_nothing_works_before_open_or_after_close(self, tmp_path: Path) -> None:
        async def test() -> None:
            store = self.make(tmp_path)
            with pytest.raises(StoreError):
                await store.get(b"a")
            with pytest.raises(StoreError):
                await store.reopen()
            epoch = await store.open(NETWORK)
            await store.close()
            await store.close()
            for attempt in (store.get(b"a"), store.scan(b""), store.commit(((b"a", b"1"),), (), epoch)):
                with pytest.raises(StoreError):
                    await attempt

        run(test())


class DurableStoreConformance(StoreConformance):
    """For stores on disk: their writer is killed at random instants and what it was told must be true."""

    kills: ClassVar[int] = 6
    _last_epoch = 0

    def test_kill_at_random_instants(self, tmp_path: Path) -> None:
        chance = random.Random(20_26)
        acknowledged = 0
        for _ in range(self.kills):
            acknowledged = self._write_and_kill(tmp_path, chance.uniform(0.001, 0.06), acknowledged)
            found = run(self._read_back(tmp_path))
            expect(found >= acknowledged, f"commit {acknowledged} was acknowledged but {found} is on disk")
            expect(found <= acknowledged + 1, f"{found} is on disk, {acknowledged} was the last one acknowledged")
            acknowledged = found
        expect(acknowledged > self.kills, "the writer never came to write")

    def _write_and_kill(self, folder: Path, seconds: float, last: int) -> int:
        """Let a writer commit until killed, ``seconds`` after its second commit; the last number it acknowledged."""
        command = [sys.executable, "-m", "leyden.testing.store_writer", self.factory, str(folder), str(last + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            if process.stdout is None:
                raise RuntimeError("no pipe to the writer")
            first = [process.stdout.readline() for _ in range(2)]
            expect(all(first), "the writer died by itself")
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            lines = [*first, *process.stdout.read().splitlines(keepends=True)]
            process.wait()
            expect_equal(process.returncode, -signal.SIGKILL, "the writer died by itself")
        return int([line for line in lines if line.endswith("\n")][-1])

    async def _read_back(self, folder: Path) -> int:
        """The number of the last commit on disk, all of whose rows must be there and no other."""
        store = self.make(folder)
        epoch = await store.open(NETWORK)
        expect(epoch > self._last_epoch, "the epoch of a writer that was killed was given out again")
        self._last_epoch = epoch
        rows = await store.scan(b"r")
        numbers = {int(value[:20]) for _, value in rows}
        expect_equal(len(rows), ROWS_PER_COMMIT, "half a commit is on disk")
        expect_equal(len(numbers), 1, f"rows of several commits are on disk: {sorted(numbers)}")
        (number,) = numbers
        expect_equal(
            await store.scan(b"d"), [(b"d" + number.to_bytes(8, "big"), b"x")], "a delete was torn from its commit"
        )
        await store.close()
        return number
