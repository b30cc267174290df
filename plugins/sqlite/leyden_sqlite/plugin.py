"""Entry point: offers the store ``sqlite``."""

from pathlib import Path

import msgspec
from leyden.hooks import hookimpl
from leyden.hooks.registry import PluginServices, ServiceContext

from leyden_sqlite.store import SqliteStore


class SqliteSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config table ``[sqlite]``. ``file`` is relative to the data folder."""

    file: Path = Path("leyden.sqlite")


def make_store(settings: SqliteSettings, context: ServiceContext) -> SqliteStore:
    return SqliteStore(context.folder / settings.file)


@hookimpl
def leyden_register_services(registry: PluginServices) -> None:
    registry.add("store", "sqlite", make_store, SqliteSettings)
