"""``SqliteStore``: ordered rows in one SQLite database, WAL, synced at every commit.

Everything runs on the caller's thread: a commit blocks for one ``fsync`` and the answer is there when it returns. A
thread beside busy Python would be slower by orders of magnitude, for each SQLite step has to win the interpreter back.
"""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from leyden.bitcoin import Network
from leyden.hooks.services import StoreError, StoreFenced, StoreRefused
from leyden.hooks.types import Deletes, Puts

from leyden_sqlite import maintenance
from leyden_sqlite.identity import file_identity
from leyden_sqlite.schema import check_ours, create_schema, is_empty

_BUSY_SECONDS = 5.0
_PUT = "INSERT INTO rows (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
_DELETE = "DELETE FROM rows WHERE key = ?"
_EPOCH = "SELECT value FROM meta WHERE name = 'epoch'"
_SET_META = "INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


class SqliteStore:
    """``Store`` in the SQLite file at ``path``; the folder must exist.

    Not for more than one task at a time: the node's store writer is the only caller of ``commit``.
    """

    inline = True
    """No method ever suspends: the node may take the answers inside its turn."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity_changed = False
        """The file lies on another machine or is another file than when it was last used: a copy, perhaps an old one.

        Stays true, over restarts too, until ``accept_identity``.
        """
        self._connection: sqlite3.Connection | None = None
        self._network: Network | None = None
        self._epoch = 0
        self._failed = False

    async def open(self, network: Network) -> int:
        """Open or create, and take the next epoch: whoever opened before is fenced from then on.

        ``StoreRefused``: foreign, newer, damaged or another network's; nothing was changed. ``StoreError``: the file
        cannot be opened or written.
        """
        self._network = network
        try:
            self._connect(network)
            self._epoch = self._take_epoch()
        except BaseException:
            self._disconnect()
            raise
        return self._epoch

    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        """Puts, then deletes, in one transaction that is synced to disk when this returns.

        ``StoreFenced`` when another opener took the store. After any ``StoreError`` nothing of the batch is visible and
        this handle accepts no further commit: a failed sync is not to be trusted again before ``reopen``.
        """
        connection = self._open_connection()
        if self._failed:
            raise StoreError(f"{self.path}: the last commit failed, reopen the store first")
        for key, value in puts:
            if not value:
                raise StoreError(f"row {key.hex()} would be empty: delete it instead")
        execute = connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            current = execute(_EPOCH).fetchone()[0]
            if current != epoch:
                execute("ROLLBACK")
                raise StoreFenced(f"{self.path} was taken over (epoch {current}, ours is {epoch}): stop this process")
            if puts:
                connection.executemany(_PUT, puts)
            if deletes:
                connection.executemany(_DELETE, [(key,) for key in deletes])
            execute("COMMIT")
        except sqlite3.Error as error:
            self._failed = True
            self._roll_back(connection)
            self._raise("commit", error)

    async def get(self, key: bytes) -> bytes | None:
        try:
            row = self._open_connection().execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._raise("read", error)
        return None if row is None else row[0]

    async def scan(self, prefix: bytes, after: bytes = b"", limit: int = 0) -> list[tuple[bytes, bytes]]:
        """Rows whose key starts with ``prefix`` and is greater than ``after``, in key order; 0 means no limit."""
        lower = prefix if after < prefix else after + b"\x00"  # the smallest key greater than ``after``
        upper = _end_of(prefix)
        query = "SELECT key, value FROM rows WHERE key >= ?"
        arguments: list[bytes | int] = [lower]
        if upper is not None:
            query += " AND key < ?"
            arguments.append(upper)
        try:
            return (
                self._open_connection().execute(query + " ORDER BY key LIMIT ?", [*arguments, limit or -1]).fetchall()
            )
        except sqlite3.Error as error:
            self._raise("read", error)

    async def reopen(self) -> None:
        """A fresh handle under the same epoch; ``StoreFenced`` if somebody else took the store meanwhile."""
        if self._network is None:
            raise StoreError(f"{self.path} was never opened")
        self._disconnect()
        try:
            connection = self._connect(self._network)
            try:
                current = connection.execute(_EPOCH).fetchone()[0]
            except sqlite3.Error as error:
                self._raise("reopen", error)
            if current != self._epoch:
                raise StoreFenced(f"{self.path} was taken over (epoch {current}, ours is {self._epoch}): stop")
        except BaseException:
            self._disconnect()
            raise

    async def close(self) -> None:
        """Close; the WAL is folded into the database. Closing twice is harmless."""
        self._disconnect()

    async def check(self) -> tuple[str, ...]:
        """Let SQLite verify the whole file; the problems found, none if it is sound. Slow on a large database."""
        try:
            rows = self._open_connection().execute("PRAGMA integrity_check").fetchall()
        except sqlite3.DatabaseError as error:
            return (str(error),)  # too damaged even to be checked
        return tuple(row[0] for row in rows if row[0] != "ok")

    async def accept_identity(self) -> None:
        """Record the present machine and file as the right ones: the caller knows that this is the newest copy."""
        connection = self._open_connection()
        try:
            connection.execute(_SET_META, ("identity", file_identity(self.path)))
        except sqlite3.Error as error:
            self._raise("write", error)
        self.identity_changed = False

    # -- ``StoreMaintenance``: on connections of their own -------------------------------------------------------------

    def peek(self, network: Network, key: bytes) -> bytes | None:
        """See ``StorePeek``."""
        return maintenance.peek(self.path, network, key)

    def verify(self, network: Network, copy: Path | None = None) -> tuple[str, ...]:
        return maintenance.verify(copy or self.path, network)

    def read_rows(self, network: Network, copy: Path | None = None) -> Iterator[tuple[bytes, bytes]]:
        return maintenance.read_rows(copy or self.path, network)

    def back_up(self, network: Network, target: Path) -> None:
        maintenance.back_up(self.path, network, target)

    # -- connections -------------------------------------------------------------------------------------------------

    def _connect(self, network: Network) -> sqlite3.Connection:
        _create_private(self.path)
        try:
            connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            self._raise("open", error)
        self._connection = connection
        self._failed = False
        try:
            if is_empty(connection):
                _set_pragmas(connection, self.path)
                create_schema(connection, network.label, file_identity(self.path))
            check_ours(connection, network.label, self.path)
            _set_pragmas(connection, self.path)
            recorded = connection.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
        except sqlite3.Error as error:
            self._raise("open", error)
        self.identity_changed = recorded is None or recorded[0] != file_identity(self.path)
        return connection

    def _take_epoch(self) -> int:
        connection = self._open_connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            epoch: int = connection.execute(_EPOCH).fetchone()[0] + 1
            connection.execute("UPDATE meta SET value = ? WHERE name = 'epoch' AND value = ?", (epoch, epoch - 1))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back(connection)
            self._raise("open", error)
        return epoch

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.path} is not open")
        return self._connection

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # SQLite has rolled back by itself, or closing the handle will

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # what was committed is in the WAL and is found there at the next open

    def _raise(self, action: str, error: sqlite3.Error) -> NoReturn:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise StoreRefused(f"{self.path} is no database or is damaged: move it away or restore a copy") from error
        if code == sqlite3.SQLITE_FULL:
            raise StoreError(
                f"{self.path}: the disk is full, free some space ({action} failed, nothing lost)"
            ) from error
        if code == sqlite3.SQLITE_BUSY:
            raise StoreError(f"{self.path} is locked by another program ({action} failed): stop it first") from error
        raise StoreError(f"{self.path}: {action} failed: {error}") from error


def _create_private(path: Path) -> None:
    """Make the file 0600 before SQLite does, whose ``-wal`` and ``-shm`` files then get the same rights.

    An existing file is never opened here: closing it would drop the locks that SQLite holds in this process.
    """
    if path.exists():
        return
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(f"cannot create {path}: {error.strerror}") from error


def _set_pragmas(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreRefused(f"{path} lies on a file system without shared memory for SQLite's WAL: use a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = 1")
    connection.execute("PRAGMA checkpoint_fullfsync = 1")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA cache_size = -4000")
    connection.execute("PRAGMA trusted_schema = 0")


def _end_of(prefix: bytes) -> bytes | None:
    """The smallest key greater than every key with ``prefix``; ``None`` if there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None


def sqlite_store_at(folder: Path) -> SqliteStore:
    """The store of a data folder under its usual name: the factory of the conformance suite."""
    return SqliteStore(folder / "leyden.sqlite")
