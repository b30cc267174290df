"""Looking at a database, and copying it, without being its writer: a node may run on it meanwhile.

Every function opens a connection of its own that only reads, and takes no epoch. In WAL mode a reader sees one
consistent state and holds up nobody.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from leyden.bitcoin import Network
from leyden.hooks.services import StoreError, StoreRefused

from leyden_sqlite.schema import check_ours

_BUSY_SECONDS = 5.0
_MAX_PROBLEMS = 100
BACKUP_IDENTITY = "backup"
"""Stands where a database in use has its machine and file: a node that starts on a copy is told that it is one, even
when the copy was written over the old file."""


def verify(path: Path, network: Network) -> tuple[str, ...]:
    """Let SQLite verify the whole file: the problems found. ``StoreRefused``: not ours, or newer."""
    with reading(path, network) as connection:
        rows = connection.execute(f"PRAGMA integrity_check({_MAX_PROBLEMS})").fetchall()
    return tuple(str(row[0]) for row in rows if row[0] != "ok")


def read_rows(path: Path, network: Network) -> Iterator[tuple[bytes, bytes]]:
    """Every row in the order of keys, all of one moment."""
    with reading(path, network) as connection:
        yield from connection.execute("SELECT key, value FROM rows ORDER BY key")


def peek(path: Path, network: Network, key: bytes) -> bytes | None:
    """One row; ``None`` without it, or without a database."""
    if not path.is_file():
        return None
    with reading(path, network) as connection:
        row = connection.execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
    return None if row is None else bytes(row[0])


def back_up(path: Path, network: Network, target: Path) -> None:
    """Copy the database to the new file ``target`` (0600): one consistent state, verified and synced.

    ``StoreRefused`` when ``target`` exists or the database is damaged; ``StoreError`` when it cannot be written.
    Whatever fails, no half copy is left behind.
    """
    with reading(path, network) as source:
        _create(target)
        try:
            _copy(source, target)
            _sync(target)
        except BaseException as error:
            target.unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                _raise(target, error)
            if isinstance(error, OSError):
                raise StoreError(f"cannot write {target}: {error.strerror}") from error
            raise


@contextmanager
def reading(path: Path, network: Network) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, to a database that was found to be ours."""
    if not path.is_file():
        raise StoreRefused(f"there is no database at {path}: was the node ever started?")
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
        )
        try:
            check_ours(connection, network.label, path)
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        _raise(path, error)


def _create(target: Path) -> None:
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise StoreRefused(f"{target} exists already: name a new file, nothing is ever overwritten") from None
    except OSError as error:
        raise StoreError(f"cannot create {target}: {error.strerror}") from None


def _copy(source: sqlite3.Connection, target: Path) -> None:
    copy = sqlite3.connect(target, isolation_level=None)
    try:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, no -wal beside it
        found = copy.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise StoreRefused(f"the database is damaged, and so would be its copy ({found}): run `leyden db check`")
        copy.execute("UPDATE meta SET value = ? WHERE name = 'identity'", (BACKUP_IDENTITY,))
    finally:
        copy.close()


def _sync(target: Path) -> None:
    for path in (target, target.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _raise(path: Path, error: sqlite3.Error) -> NoReturn:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        raise StoreRefused(f"{path} is no database or is damaged ({error})") from error
    raise StoreError(f"{path}: {error}") from error
