"""``demo``: two nodes and a chain, everything that happens to a channel, and accounts that add up."""

import asyncio
import shutil
import signal
import sys
import tempfile
import time
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

import click
from leyden.types import LeydenError
from rich.console import Console
from rich.table import Table

from leyden_cli.demo.errors import DemoFailed
from leyden_cli.demo.progress import Progress
from leyden_cli.errors import ConfigError
from leyden_cli.folder import make_private_folder

if TYPE_CHECKING:
    from leyden_cli.demo.books import Books
    from leyden_cli.demo.processes import DemoChain

_SECONDS = 240.0
_CHAINS: dict[str, tuple[str, ...]] = {
    "regtest": (),
    "bitcoind": ("leyden_bitcoind",),
    "electrum": ("leyden_bitcoind", "leyden_electrum"),
}
"""What the demo can run on, and the packages it needs besides the embedded chain's."""


@click.command()
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Work in this new folder and keep it.")
@click.option("--chain", type=click.Choice(list(_CHAINS)), default="regtest", show_default=True, help="Which chain.")
@click.option("--verbose", is_flag=True, help="Tell more.")
def demo(keep: Path | None, chain: str, verbose: bool) -> None:
    """Two nodes open a channel, pay each other, survive a kill -9, and close.

    The chain and the nodes are three processes in a temporary folder. The last line begins with `demo ok:` if every
    payment and every satoshi is accounted for.
    """
    for package in ("leyden_regtest", *_CHAINS[chain]):
        if util.find_spec(package) is None:
            raise ConfigError(f"the demo needs {package.replace('_', '-')}: pip install 'leyden[demo]'")
    folder = _new_folder(keep)
    failed = False
    try:
        asyncio.run(_run(folder, Progress(Console(highlight=False), verbose), chain))
    except LeydenError as error:
        failed = True
        raise DemoFailed(f"demo failed: {error} (logs in {folder})") from error
    finally:
        if keep is None and not failed:
            shutil.rmtree(folder, ignore_errors=True)


def _new_folder(keep: Path | None) -> Path:
    if keep is None:
        return Path(tempfile.mkdtemp(prefix="leyden-"))
    folder = keep.absolute()
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: name a new folder")
    make_private_folder(folder)
    return folder


def _make_chain(name: str, folder: Path) -> "DemoChain":
    if name == "bitcoind":
        from leyden_cli.demo.bitcoind import BitcoindChain

        return BitcoindChain(folder)
    if name == "electrum":
        from leyden_cli.demo.electrum import ElectrumChain

        return ElectrumChain(folder)
    from leyden_cli.demo.processes import Chain

    return Chain(folder)


async def _run(folder: Path, progress: Progress, chain: str) -> None:
    from leyden_cli.demo.story import Story  # needs leyden-regtest, which was looked for by now

    began = time.monotonic()
    story = Story(folder, progress, _make_chain(chain, folder))
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with asyncio.timeout(_SECONDS):
            books = await story.run()
    except TimeoutError:
        raise DemoFailed(f"not done after {_SECONDS:g} s") from None
    finally:
        await story.end()
    progress.say()
    _show(books, progress)
    progress.say()
    click.echo(
        f"demo ok: {books.summary()}; {story.succeeded} payments succeeded, {story.failed} failed as it should; "
        f"{time.monotonic() - began:.1f} s"
    )


def _show(books: "Books", progress: Progress) -> None:
    titles = ("satoshi", books.funder.name, books.fundee.name, "together")
    rows = books.rows()
    if not sys.stdout.isatty():
        widths = [max(len(row[index]) for row in (titles, *rows)) for index in range(len(titles))]
        for row in (titles, *rows):
            numbers = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
            click.echo("  ".join((row[0].ljust(widths[0]), *numbers)).rstrip())
        return
    table = Table(*titles)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row, style="bold" if row[0] in ("before", "after") else "")
    progress.console.print(table)
