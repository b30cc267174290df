"""``info``, ``stop``, ``events``: the node as a whole."""

import sys
import time
from pathlib import Path

import click
import msgspec
from leyden.node.views import NodeInfo

from leyden_cli.client import Client
from leyden_cli.commands.base import ask, node_options
from leyden_cli.rpc.protocol import MAX_WAIT, EventView
from leyden_cli.show import Cell, cell, print_facts, print_json


@click.command()
@node_options
def info(folder: Path, as_json: bool) -> None:
    """Node id, address, height, what is going on."""
    facts = ask(folder, lambda client: client.info())
    if as_json:
        print_json(facts)
    else:
        print_facts(_for_people(facts))


def _for_people(info: NodeInfo) -> dict[str, Cell]:
    """The facts, with a catch-up in one line instead of three numbers."""
    facts: dict[str, Cell] = msgspec.structs.asdict(info)
    done, total, rate = (facts.pop(name) for name in ("blocks_done", "blocks_total", "blocks_per_second"))
    if isinstance(done, int) and isinstance(total, int) and isinstance(rate, int) and total:
        left = f", about {(total - done) // rate // 60 + 1} minutes left" if rate else ""
        facts["catching_up"] = f"{done:,} of {total:,} blocks ({100 * done // total} %), {rate:,} blocks/s{left}"
    return facts


@click.command()
@node_options
def stop(folder: Path, as_json: bool) -> None:
    """Stop the node in good order."""
    ask(folder, lambda client: client.stop())
    if as_json:
        print_json({"done": True})
    else:
        click.echo("stopping")


@click.command()
@click.option("--after", default=0, show_default=True, metavar="INDEX", help="Only events above this index.")
@click.option("--follow", is_flag=True, help="Go on with each new event until Ctrl-C.")
@node_options
def events(folder: Path, as_json: bool, after: int, follow: bool) -> None:
    """The event log: what happened, in order, by index. One line per event."""
    ask(folder, lambda client: _print_events(client, after, follow, as_json))


async def _print_events(client: Client, after: int, follow: bool, as_json: bool) -> None:
    while True:
        found = await client.events(after, wait=MAX_WAIT if follow else 0.0)
        for event in found:
            after = event.index
            click.echo(msgspec.json.encode(event).decode() if as_json else _line(event))
        sys.stdout.flush()
        if not found and not follow:
            return


def _line(event: EventView) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    facts = " ".join(
        f"{name}={cell(value) if isinstance(value, str) else value}" for name, value in event.facts.items()
    )
    return f"{event.index} {at} {cell(event.type)} {facts}"
