"""The kit of stores bites: each of its tests fails on a store that is wrong there."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from leyden.bitcoin import Network
from leyden.hooks.services import Store, StoreError
from leyden.testing.memory_store import MemoryDisk, MemoryStore
from leyden.testing.store import DurableStoreConformance, StoreConformance

from tests.contract import killed_stores

ROOT = Path(__file__).parents[2]

Rows = Sequence[tuple[bytes, bytes]]


class _NeverDeletes(MemoryStore):
    async def commit(self, puts: Rows, deletes: Sequence[bytes], epoch: int) -> None:
        await super().commit(puts, (), epoch)


class _StartsEmpty(MemoryStore):
    async def open(self, network: Network) -> int:
        self.disk.rows.clear()
        return await super().open(network)


class _OrdersByLength(MemoryStore):
    async def scan(self, prefix: bytes, after: bytes = b"", limit: int = 0) -> list[tuple[bytes, bytes]]:
        return sorted(await super().scan(prefix, after, limit), key=lambda row: (len(row[0]), row[0]))


class _BeginsWithTheLast(MemoryStore):
    """A page holds the last row of the one before."""

    async def scan(self, prefix: bytes, after: bytes = b"", limit: int = 0) -> list[tuple[bytes, bytes]]:
        rows = [row for row in await super().scan(prefix) if row[0] >= after]
        return rows[:limit] if limit else rows


class _FencesNobody(MemoryStore):
    async def commit(self, puts: Rows, deletes: Sequence[bytes], epoch: int) -> None:
        await super().commit(puts, deletes, self.disk.epoch)


class _ReopensOnlyWhatFailed(MemoryStore):
    async def reopen(self) -> None:
        if not self._broken:
            raise StoreError("nothing failed")
        await super().reopen()


class _FailsTooLate(MemoryStore):
    """What it says has failed is on disk."""

    def fail_next(self, count: int = 1, *, durable: bool = False, error: StoreError | None = None) -> None:
        super().fail_next(count, durable=True, error=error)


class _TakesAThousand(MemoryStore):
    async def commit(self, puts: Rows, deletes: Sequence[bytes], epoch: int) -> None:
        await super().commit(puts[:1000], deletes, epoch)


class _KeepsText(MemoryStore):
    """A key ends with its first zero byte."""

    async def commit(self, puts: Rows, deletes: Sequence[bytes], epoch: int) -> None:
        await super().commit([(key.split(b"\0")[0], value) for key, value in puts], deletes, epoch)


class _LendsItsRows(MemoryStore):
    """What a scan returned goes with the next commit."""

    lent: list[tuple[bytes, bytes]] | None = None

    async def scan(self, prefix: bytes, after: bytes = b"", limit: int = 0) -> list[tuple[bytes, bytes]]:
        self.lent = await super().scan(prefix, after, limit)
        return self.lent

    async def commit(self, puts: Rows, deletes: Sequence[bytes], epoch: int) -> None:
        await super().commit(puts, deletes, epoch)
        if self.lent is not None:
            self.lent.clear()


class _LeavesEmptyRowsOut(MemoryStore):
    async def commit(self, puts: Rows, deletes: Sequence[bytes], epoch: int) -> None:
        await super().commit([row for row in puts if row[1]], deletes, epoch)


class _ServesAnyNetwork(MemoryStore):
    async def open(self, network: Network) -> int:
        self.disk.network = None
        return await super().open(network)


class _IsAlwaysOpen(MemoryStore):
    def _check_open(self) -> None:
        pass


BROKEN: list[tuple[type[MemoryStore], str]] = [
    (_NeverDeletes, "test_rows_come_back"),
    (_StartsEmpty, "test_rows_survive_a_new_opener"),
    (_OrdersByLength, "test_scan_is_ordered_bytes"),
    (_BeginsWithTheLast, "test_paging_sees_every_row_once"),
    (_FencesNobody, "test_a_newer_opener_fences_the_older"),
    (_FencesNobody, "test_a_stale_epoch_is_refused_by_the_same_handle"),
    (_FencesNobody, "test_every_opener_takes_an_epoch_of_its_own"),
    (_FencesNobody, "test_a_fenced_writer_deletes_nothing_either"),
    (_ReopensOnlyWhatFailed, "test_reopen_keeps_the_epoch_and_may_come_at_any_time"),
    (_FailsTooLate, "test_failures_one_after_the_other"),
    (_TakesAThousand, "test_a_big_batch_is_one_commit"),
    (_KeepsText, "test_keys_and_values_are_any_bytes"),
    (_LendsItsRows, "test_what_a_scan_returned_stays_as_it_was"),
    (_LeavesEmptyRowsOut, "test_an_empty_value_is_refused_whole"),
    (_FailsTooLate, "test_a_failed_commit_leaves_nothing_and_reopen_recovers"),
    (_ServesAnyNetwork, "test_another_network_is_refused"),
    (_IsAlwaysOpen, "test_nothing_works_before_open_or_after_close"),
]


@pytest.mark.parametrize(("broken", "test"), BROKEN)
def test_the_suite_catches_broken_stores(tmp_path: Path, broken: type[MemoryStore], test: str) -> None:
    disk = MemoryDisk()

    class Suite(StoreConformance):
        honest = False

        def make(self, folder: Path) -> Store:
            return MemoryStore(disk) if self.honest else broken(disk)

        def break_store(self, store: Store) -> Callable[[], None]:
            assert isinstance(store, MemoryStore)
            store.fail_next()
            return lambda: None

    with pytest.raises((AssertionError, pytest.fail.Exception, StoreError)):
        getattr(Suite(), test)(tmp_path)
    disk = MemoryDisk()  # and not because of how it is called here
    honest = Suite()
    honest.honest = True
    getattr(honest, test)(tmp_path)


def test_every_test_of_the_kit_has_a_store_that_it_catches() -> None:
    assert {test for _, test in BROKEN} == {name for name in dir(StoreConformance) if name.startswith("test_")}


KILLED: list[tuple[type[killed_stores.SqliteStore], str]] = [
    (killed_stores.AcknowledgesTooEarly, "was acknowledged but"),
    (killed_stores.TearsCommits, "rows of several commits are on disk"),
    (killed_stores.LosesARow, "half a commit is on disk"),
    (killed_stores.NeverDeletes, "a delete was torn from its commit"),
    (killed_stores.WritesOnItsOwn, "was the last one acknowledged"),
    (killed_stores.GivesAnEpochOutAgain, "was given out again"),
    (killed_stores.EndsItsProcess, "the writer died by itself"),
]


@pytest.mark.parametrize(("broken", "says"), KILLED)
def test_the_suite_catches_stores_that_are_wrong_once_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: type[killed_stores.SqliteStore], says: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the writer imports them too

    class Suite(DurableStoreConformance):
        factory = f"{killed_stores.__name__}:{broken.__name__}"
        kills = 2

    with pytest.raises(AssertionError) as caught:
        Suite().test_kill_at_random_instants(tmp_path)
    assert says in str(caught.value)


def test_the_kill_is_all_that_durable_stores_have_of_their_own() -> None:
    own = {name for name in dir(DurableStoreConformance) if name.startswith("test_")} - set(dir(StoreConformance))
    assert own == {"test_kill_at_random_instants"}
