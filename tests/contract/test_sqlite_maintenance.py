"""Reading, verifying and copying a SQLite store beside its writer."""

import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from leyden.bitcoin import Network
from leyden.hooks.services import StoreError, StoreMaintenance, StoreRefused
from leyden_sqlite import SqliteStore, maintenance, sqlite_store_at

REGTEST = Network.REGTEST


async def make(folder: Path, rows: int = 3) -> tuple[SqliteStore, int]:
    store = sqlite_store_at(folder)
    epoch = await store.open(REGTEST)
    await store.commit(tuple((b"k%06d" % n, b"v") for n in range(rows)), (), epoch)
    return store, epoch


def keys(store: SqliteStore, copy: Path | None = None) -> list[bytes]:
    return [key for key, _ in store.read_rows(REGTEST, copy)]


async def test_a_reader_beside_the_writer_takes_no_epoch_and_sees_one_moment(tmp_path: Path) -> None:
    store, epoch = await make(tmp_path)
    assert isinstance(store, StoreMaintenance)
    reader = store.read_rows(REGTEST)
    first = next(reader)
    await store.commit(((b"k9", b"new"),), (), epoch)
    assert [first[0], *(key for key, _ in reader)] == [b"k000000", b"k000001", b"k000002"]
    assert keys(store)[-1] == b"k9"
    assert store.verify(REGTEST) == ()
    await store.commit(((b"k8", b"still ours"),), (), epoch)
    await store.close()
    before = store.path.read_bytes()
    assert keys(store)[-2:] == [b"k8", b"k9"]
    assert store.path.read_bytes() == before


async def test_a_backup_is_one_private_whole_file(tmp_path: Path) -> None:
    store, epoch = await make(tmp_path)
    target = tmp_path / "copy"
    store.back_up(REGTEST, target)
    await store.commit(((b"later", b"1"),), (), epoch)
    assert keys(store, target) == [b"k000000", b"k000001", b"k000002"]
    assert store.verify(REGTEST, target) == ()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    await store.close()


async def test_a_restored_backup_is_recognised_even_in_the_place_of_the_old_file(tmp_path: Path) -> None:
    store, _ = await make(tmp_path)
    store.back_up(REGTEST, tmp_path / "copy")
    await store.close()
    store.path.write_bytes((tmp_path / "copy").read_bytes())  # the same inode
    restored = SqliteStore(store.path)
    assert await restored.open(REGTEST) == 2
    assert restored.identity_changed
    assert len(await restored.scan(b"k")) == 3
    await restored.close()


async def test_backups_while_the_writer_writes_are_consistent(tmp_path: Path) -> None:
    """Two rows that always change together are never seen apart."""
    store, epoch = await make(tmp_path, rows=2_000)
    stop = threading.Event()
    seen: list[bool] = []

    def copy() -> None:
        number = 0
        while not stop.is_set() or number < 3:
            target = tmp_path / f"copy{number}"
            store.back_up(REGTEST, target)
            found = dict(maintenance.read_rows(target, REGTEST))
            seen.append(found.get(b"left") == found.get(b"right") and len(found) in (2_000, 2_002))
            number += 1

    thread = threading.Thread(target=copy)
    thread.start()
    for number in range(200):
        value = b"%d" % number
        await store.commit(((b"left", value), (b"right", value)), (), epoch)
    stop.set()
    thread.join()
    assert seen
    assert all(seen)
    await store.close()


async def test_nothing_is_overwritten_and_no_half_copy_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = await make(tmp_path)
    await store.close()
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with pytest.raises(StoreRefused, match="exists already"):
        store.back_up(REGTEST, taken)
    assert taken.read_text() == "mine"
    with pytest.raises(StoreRefused, match="exists already"):
        store.back_up(REGTEST, store.path)
    with pytest.raises(StoreError, match="cannot create"):
        store.back_up(REGTEST, tmp_path / "nowhere" / "copy")

    def fails(_target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maintenance, "_sync", fails)
    with pytest.raises(StoreError, match="No space left"):
        store.back_up(REGTEST, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


async def test_what_is_no_database_of_ours(tmp_path: Path) -> None:
    store, _ = await make(tmp_path)
    await store.close()
    with pytest.raises(StoreRefused, match="this node runs on signet"):
        store.verify(Network.SIGNET)
    with pytest.raises(StoreRefused, match="there is no database"):
        store.verify(REGTEST, tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreRefused):
        store.verify(REGTEST, foreign)
    newer = tmp_path / "newer"
    store.back_up(REGTEST, newer)
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreRefused, match="newer Leyden"):
        keys(store, newer)


async def test_a_damaged_file_is_found_and_not_copied(tmp_path: Path) -> None:
    store, _ = await make(tmp_path, rows=3_000)
    await store.close()
    sound = store.path.read_bytes()
    page = 4096
    store.path.write_bytes(sound[: 5 * page] + bytes(page) + sound[6 * page :])
    try:
        problems = store.verify(REGTEST)
    except StoreRefused as error:
        problems = (str(error),)
    assert problems
    with pytest.raises(StoreRefused, match="damaged"):
        store.back_up(REGTEST, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
