"""``leyden``: the command line. Errors are one line on stderr; exit codes are in ``leyden_cli.errors``."""

import asyncio
import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click
from leyden.hooks.errors import PluginError, SettingsError
from leyden.types import LeydenError, clean_text

from leyden_cli.errors import EXIT_REFUSED, EXIT_USAGE, CliError

_INTERRUPTED = 130
_LONGEST_ERROR = 2000
_COMMANDS = {
    "channels": ("open_channel", "channels", "close"),
    "db": ("db",),
    "demo": ("demo",),
    "node": ("info", "stop", "events"),
    "payments": ("invoice", "invoices", "pay", "payment", "payments"),
    "peers": ("peers", "connect", "disconnect"),
    "plugin": ("plugin",),
    "setup": ("init", "start", "plugins"),
    "wallet": ("address", "descriptors", "balance", "coins", "send", "bump", "transactions"),
}
"""By module of ``leyden_cli.commands``."""
_HOMES = {name.removesuffix("_channel"): (module, name) for module, names in _COMMANDS.items() for name in names}


class Commands(click.Group):
    """Imports the module of the command that is called, and no other: most of them need little of a node."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return sorted(_HOMES)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _HOMES:
            return None
        module, attribute = _HOMES[name]
        command: click.Command = getattr(import_module(f"leyden_cli.commands.{module}"), attribute)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leyden-cli", prog_name="leyden")
def cli() -> None:
    """A Lightning node.

    \b
    Exit codes: 0 done, 1 the node refused or failed, 2 wrong arguments or config,
    3 no node answers, 4 time ran out, 5 the payment failed.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        result = cli.main(list(arguments), prog_name="leyden", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        command = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "leyden"
        click.echo(f"leyden: {clean_text(error.format_message())} (see `{command} --help`)", err=True)
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    except LeydenError as error:
        click.echo(f"leyden: {clean_text(str(error), _LONGEST_ERROR)}", err=True)
        if isinstance(error, CliError):
            return error.exit_code
        return EXIT_USAGE if isinstance(error, PluginError | SettingsError) else EXIT_REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: end without a second error
        return EXIT_REFUSED


def main() -> None:
    """Entry point of the script ``leyden``."""
    sys.exit(run(sys.argv[1:]))
