"""``db check``, ``db backup``: the database itself, whether a node runs on it or not."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from leyden.hooks.services import StoreMaintenance, WalletMaintenance
from leyden.node import check_rows
from leyden.types import clean_text

from leyden_cli.commands.base import folder_option
from leyden_cli.config import Config, load_config
from leyden_cli.errors import CliError
from leyden_cli.folder import config_path
from leyden_cli.services import load_registry, service_context

_MAX_LINES = 200

RESTORING = """\
It holds channels, payments and events, not the keys: keep the words that `leyden init` showed as well.
To restore it: stop the node, put the copy where the database was, remove the files ending in -wal and -shm beside it.
A copy is old as soon as a channel has moved, and closing a channel with an old state costs everything in it. Restore
only when the original is lost, never run both, and let the peers close channels that moved since. The node says in an
alarm that it started on a copy."""


class _Counted:
    """Counts the rows on their way."""

    def __init__(self) -> None:
        self.rows = 0

    def through(self, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        for row in rows:
            self.rows += 1
            yield row


def _services(config: Config) -> tuple[StoreMaintenance, WalletMaintenance | None]:
    """The config's store, and its wallet if it can look at its rows. Neither is opened or loaded."""
    registry, context, names = load_registry(config), service_context(config), config.services
    store, wallet = (registry.make(kind, names[kind][0], config.tables, context) for kind in ("store", "wallet"))
    if not isinstance(store, StoreMaintenance):
        raise CliError(f"the store {names['store'][0]!r} can be neither checked nor backed up from here")
    return store, wallet if isinstance(wallet, WalletMaintenance) else None


@click.group()
def db() -> None:
    """The database: check it, back it up. A node may run meanwhile."""


@db.command()
@click.argument("copy", required=False, metavar="[FILE]", type=click.Path(path_type=Path))
@folder_option
def check(folder: Path, copy: Path | None) -> None:
    """Read every row of the database (or of the backup FILE) and see whether they fit together.

    Changes nothing. Each problem is one line; exit code 1 if there are any.
    """
    config = load_config(config_path(folder))
    store, wallet = _services(config)
    problems = 0
    for line in store.verify(config.network, copy):
        problems += 1
        click.echo(f"file: {clean_text(line)}")
    counted = _Counted()
    check_wallet = None if wallet is None else wallet.check_rows
    for line in check_rows(counted.through(store.read_rows(config.network, copy)), config.network, check_wallet):
        problems += 1
        if problems <= _MAX_LINES:
            click.echo(clean_text(line))
    if problems > _MAX_LINES:
        click.echo(f"... and {problems - _MAX_LINES} more")
    if problems:
        raise CliError(f"{problems} problems in {counted.rows} rows: do not start a node on this database")
    click.echo(f"ok: {counted.rows} rows" + ("" if wallet else ", those of the wallet not looked at"))


@db.command()
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@folder_option
def backup(folder: Path, target: Path) -> None:
    """Copy the database to the new file FILE, in one consistent state.

    Nothing is ever overwritten. Read what it says about restoring: an old copy is dangerous.
    """
    config = load_config(config_path(folder))
    store, _ = _services(config)
    store.back_up(config.network, target)
    click.echo(f"wrote {target} ({target.stat().st_size} bytes)")
    click.echo(RESTORING)
