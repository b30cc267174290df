"""``SqliteStore`` under the conformance suite, and what only files are: foreign, newer, damaged, copied, full."""

import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import leyden_sqlite.identity
import pytest
from leyden.bitcoin import Network
from leyden.hooks.services import Store, StoreError, StoreRefused
from leyden.testing.store import DurableStoreConformance
from leyden_sqlite import SqliteStore, sqlite_store_at

REGTEST = Network.REGTEST


class TestSqliteStore(DurableStoreConformance):
    factory = "leyden_sqlite:sqlite_store_at"

    def break_store(self, store: Store) -> Callable[[], None]:
        """A real SQLITE_FULL: the database may not grow any more."""
        assert isinstance(store, SqliteStore)
        connection = store._connection
        assert connection is not None
        connection.execute("PRAGMA max_page_count = 1")
        return lambda: None


async def make(folder: Path) -> SqliteStore:
    store = sqlite_store_at(folder)
    epoch = await store.open(REGTEST)
    await store.commit(((b"a", b"1"),), (), epoch)
    return store


def edit(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def rights(folder: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def refusal(path: Path, network: Network = REGTEST) -> str:
    before = content(path)
    store = SqliteStore(path)
    with pytest.raises(StoreError) as caught:
        await store.open(network)
    with pytest.raises(StoreError):
        await store.get(b"a")
    assert content(path) == before, "a refused database was changed"
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


async def test_durability_settings(tmp_path: Path) -> None:
    store = await make(tmp_path)
    connection = store._connection
    assert connection is not None
    pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}
    assert set(rights(tmp_path).values()) == {0o600}
    assert len(rights(tmp_path)) == 3
    await store.reopen()
    assert store._connection is not None
    assert store._connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert await store.check() == ()
    await store.close()


async def test_foreign_databases_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.sqlite"
    edit(foreign, "CREATE TABLE t (x)")
    assert "another program" in await refusal(foreign)
    text = tmp_path / "text.sqlite"
    text.write_text("this is no database, however long it may be\n" * 100)
    assert await refusal(text) == f"StoreRefused: {text} is no database or is damaged: move it away or restore a copy"


async def test_newer_database_is_refused(tmp_path: Path) -> None:
    store = await make(tmp_path)
    await store.close()
    edit(store.path, "PRAGMA user_version = 2")
    assert "newer Leyden" in await refusal(store.path)


async def test_other_network_is_refused(tmp_path: Path) -> None:
    store = await make(tmp_path)
    await store.close()
    assert "belongs to regtest, this node runs on signet" in await refusal(store.path, Network.SIGNET)


async def test_damaged_database_is_refused_or_found(tmp_path: Path) -> None:
    store = sqlite_store_at(tmp_path)
    epoch = await store.open(REGTEST)
    await store.commit(tuple((bytes([n]), bytes(3000)) for n in range(1, 200)), (), epoch)
    await store.close()
    damaged = bytearray(content(store.path))
    damaged[4096 * 3 : 4096 * 20] = b"\xa5" * (4096 * 17)
    store.path.write_bytes(damaged)
    await store.open(REGTEST)
    assert await store.check() != ()
    with pytest.raises(StoreRefused, match="damaged"):
        await store.scan(b"")
    await store.close()
    store.path.write_bytes(damaged[:100] + b"\xa5" * 4000)
    assert "damaged" in await refusal(store.path)
    lost_meta = tmp_path / "b" / "leyden.sqlite"
    lost_meta.parent.mkdir()
    other = await make(lost_meta.parent)
    await other.close()
    edit(lost_meta, "DELETE FROM meta WHERE name = 'epoch'")
    assert "damaged" in await refusal(lost_meta)


async def test_unusable_places_are_errors_of_one_line(tmp_path: Path) -> None:
    assert "cannot create" in await refusal(tmp_path / "missing" / "leyden.sqlite")
    assert "open failed" in await refusal(tmp_path)


async def test_locked_database_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden_sqlite.store._BUSY_SECONDS", 0.01)
    store = sqlite_store_at(tmp_path)
    epoch = await store.open(REGTEST)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another program"):
        await store.commit(((b"a", b"1"),), (), epoch)
    other.close()
    await store.reopen()
    await store.commit(((b"a", b"1"),), (), epoch)
    await store.close()


async def test_a_copy_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    store = await make(tmp_path / "old")
    assert not store.identity_changed
    await store.close()
    shutil.copy(store.path, tmp_path / "new" / "leyden.sqlite")

    copy = sqlite_store_at(tmp_path / "new")
    suspicious = []
    for _ in range(2):  # the suspicion outlives a restart
        await copy.open(REGTEST)
        suspicious.append(copy.identity_changed)
        await copy.close()
    await copy.open(REGTEST)
    await copy.accept_identity()
    suspicious.append(copy.identity_changed)
    await copy.reopen()
    suspicious.append(copy.identity_changed)
    await copy.close()
    assert suspicious == [True, True, False, False]

    monkeypatch.setattr(leyden_sqlite.identity, "machine_id", lambda: "another machine")
    await store.open(REGTEST)
    suspicious.append(store.identity_changed)
    await store.close()
    assert suspicious.pop()


async def test_a_crash_while_the_file_is_made_leaves_a_usable_one(tmp_path: Path) -> None:
    path = tmp_path / "leyden.sqlite"
    path.touch(0o600)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    store = await make(tmp_path)
    assert await store.get(b"a") == b"1"
    await store.close()


_FILL = """
import asyncio, resource, sys
from pathlib import Path
from leyden.bitcoin import Network
from leyden.hooks.services import StoreError
from leyden_sqlite import sqlite_store_at

async def main():
    store = sqlite_store_at(Path(sys.argv[1]))
    epoch = await store.open(Network.REGTEST)
    await store.commit(((b"n", b"0"),), (), epoch)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    n = 0
    while True:
        n += 1
        try:
            await store.commit(((b"n", b"%d" % n), (b"x%d" % n, bytes(20_000))), (), epoch)
        except StoreError as error:
            print(n - 1, error)
            return

asyncio.run(main())
"""


async def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """A real write error of the operating system, in a process whose files may not grow."""
    last, _, message = fill(tmp_path).partition(" ")
    assert "commit failed" in message
    store = sqlite_store_at(tmp_path)
    await store.open(REGTEST)
    assert await store.get(b"n") == last.encode()
    assert len(await store.scan(b"x")) == int(last) > 0
    assert await store.check() == ()
    await store.close()


def fill(folder: Path) -> str:
    command = [sys.executable, "-c", _FILL, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
