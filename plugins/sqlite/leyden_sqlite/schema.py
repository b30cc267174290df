"""The layout of the database and how to tell that a file is one of ours."""

import sqlite3
from pathlib import Path

from leyden.hooks.services import StoreRefused

APPLICATION_ID = 0x4C59444E
"""``LYDN`` in the header of the file, where ``file`` and others can see it."""
SCHEMA_VERSION = 1

_SCHEMA = (
    "CREATE TABLE rows (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID",
)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether the file holds nothing at all, ours or foreign: it was just created."""
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return not tables and _number(connection, "application_id") == 0 and _number(connection, "user_version") == 0


def create_schema(connection: sqlite3.Connection, network: str, identity: str) -> None:
    """Lay out an empty database in one transaction; a crash leaves it empty. A second opener at once finds it done."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if is_empty(connection):
            for statement in _SCHEMA:
                connection.execute(statement)
            meta = [("epoch", 0), ("network", network), ("identity", identity)]
            connection.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", meta)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check_ours(connection: sqlite3.Connection, network: str, path: Path) -> None:
    """``StoreRefused`` unless this is a Leyden database that this version understands, of this network."""
    if _number(connection, "application_id") != APPLICATION_ID:
        raise StoreRefused(f"{path} is a database of another program: choose another file")
    version = _number(connection, "user_version")
    if version > SCHEMA_VERSION:
        raise StoreRefused(f"{path} was written by a newer Leyden (layout {version}): upgrade leyden-sqlite")
    if version != SCHEMA_VERSION:
        raise StoreRefused(f"{path} has layout {version}, which no release of Leyden wrote")
    meta = dict(connection.execute("SELECT name, value FROM meta WHERE name IN ('network', 'epoch')").fetchall())
    if "network" not in meta or not isinstance(meta.get("epoch"), int):
        raise StoreRefused(f"{path} is damaged: its network and epoch are missing")
    if meta["network"] != network:
        raise StoreRefused(f"{path} belongs to {meta['network']}, this node runs on {network}: use another folder")


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    value: int = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    return value
