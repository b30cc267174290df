"""SQLite store for Leyden."""

from leyden_sqlite.store import SqliteStore, sqlite_store_at

__all__ = ["SqliteStore", "sqlite_store_at"]
