"""``peers``, ``connect``, ``disconnect``."""

from pathlib import Path

import click

from leyden_cli.addresses import parse_node_id, parse_peer
from leyden_cli.commands.base import ask, node_options
from leyden_cli.errors import CliError
from leyden_cli.show import print_json, print_table


@click.command()
@node_options
def peers(folder: Path, as_json: bool) -> None:
    """Who is connected."""
    found = ask(folder, lambda client: client.peers())
    if as_json:
        print_json(found)
        return
    rows = [(peer.node_id, peer.address, "in" if peer.inbound else "out", peer.channels) for peer in found]
    print_table(("node", "address", "direction", "channels"), rows, "no peers")


@click.command()
@click.argument("peer", metavar="ID@HOST:PORT")
@node_options
def connect(folder: Path, as_json: bool, peer: str) -> None:
    """Connect to a peer; with a channel, it is dialled again whenever the connection is lost."""
    node_id, host, port = parse_peer(peer)
    ask(folder, lambda client: client.connect_peer(node_id.hex(), host, port))
    if as_json:
        print_json({"done": True})
    else:
        click.echo(f"connected to {node_id.hex()}")


@click.command()
@click.argument("node_id", metavar="ID")
@node_options
def disconnect(folder: Path, as_json: bool, node_id: str) -> None:
    """Close the connection to a peer, and do not dial it again before `connect` or the next start.

    Payments in flight keep their deadlines: a channel whose peer stays away too long is closed by force.
    """
    peer = parse_node_id(node_id).hex()
    if not ask(folder, lambda client: client.disconnect(peer)):
        raise CliError(f"{peer} is not connected")
    if as_json:
        print_json({"done": True})
    else:
        click.echo(f"disconnected from {peer}")
