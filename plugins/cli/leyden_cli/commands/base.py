"""What the commands share: the node's folder, ``--json``, and a call to the running node."""

import asyncio
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from leyden_cli.client import Client
from leyden_cli.folder import SOCKET_NAME, config_path, default_folder

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def folder_option(function: F) -> F:
    """``--dir``, given to the command as ``folder``."""
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path),
        envvar="LEYDEN_DIR",
        default=default_folder,
        show_default="LEYDEN_DIR, or the user's data folder",
        help="The folder that holds the node's config.",
    )(function)


def node_options(function: F) -> F:
    """``--dir`` and ``--json`` of a command that asks a running node."""
    as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    return folder_option(as_json(function))


def coin_option(function: F) -> F:
    """``--coin``, as often as wanted, given to the command as ``coins``."""
    return click.option(
        "--coin", "coins", multiple=True, metavar="TXID:VOUT", help="Spend exactly this coin; may be repeated."
    )(function)


def socket_path(folder: Path) -> Path:
    """Where the node of ``folder`` listens. Reads one key of the config: a client need not understand the rest."""
    try:
        data_dir = tomllib.loads(config_path(folder).read_text("utf-8")).get("data_dir")
    except (OSError, ValueError):
        data_dir = None
    base = folder / Path(data_dir).expanduser() if isinstance(data_dir, str) else folder
    return base.absolute() / SOCKET_NAME


def ask(folder: Path, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do ``work`` with a connection to the node of ``folder``."""

    async def run() -> T:
        async with await Client.connect(socket_path(folder)) as client:
            return await work(client)

    return asyncio.run(run())
