"""``open``, ``channels``, ``close``."""

from pathlib import Path

import click

from leyden_cli.addresses import parse_node_id
from leyden_cli.client import Client
from leyden_cli.commands.base import ask, coin_option, node_options
from leyden_cli.errors import CliError
from leyden_cli.show import print_json, print_table

_SHORT = 16


@click.command("open")
@click.argument("node_id", metavar="ID")
@click.argument("funding_sat", metavar="SAT", type=click.IntRange(min=1))
@click.option("--push-msat", default=0, type=click.IntRange(min=0), help="Millisatoshi given to the peer at once.")
@click.option("--announce", is_flag=True, help="Offer a public channel.")
@click.option("--feerate", type=click.IntRange(min=1), help="Of the funding transaction, sat per 1000 weight.")
@coin_option
@node_options
def open_channel(
    folder: Path,
    as_json: bool,
    node_id: str,
    funding_sat: int,
    push_msat: int,
    announce: bool,
    feerate: int | None,
    coins: tuple[str, ...],
) -> None:
    """Open a channel of SAT satoshi with a connected peer."""
    peer = parse_node_id(node_id).hex()
    channel_id = ask(
        folder,
        lambda client: client.open_channel(
            peer, funding_sat, push_msat=push_msat, announce=announce, feerate_per_kw=feerate, coins=coins
        ),
    )
    if as_json:
        print_json({"channel_id": channel_id})
    else:
        click.echo(f"opening {channel_id}: usable when its funding transaction is deep enough")


@click.command()
@node_options
def channels(folder: Path, as_json: bool) -> None:
    """Every channel and its balances; amounts in millisatoshi."""
    found = ask(folder, lambda client: client.channels())
    if as_json:
        print_json(found)
        return
    rows = [
        (
            channel.channel_id[:_SHORT],
            channel.node_id[:_SHORT],
            channel.state,
            channel.link,
            channel.capacity_sat,
            channel.local_msat,
            channel.remote_msat,
            channel.htlcs,
            channel.failure,
        )
        for channel in found
    ]
    titles = ("channel", "peer", "state", "link", "sat", "local msat", "remote msat", "htlcs", "failure")
    print_table(titles, rows, "no channels")


@click.command()
@click.argument("channel_id", metavar="ID")
@click.option("--force", is_flag=True, help="Broadcast our commitment; our share comes back after the delay.")
@click.option("--address", help="Where our share goes; by default to the wallet.")
@click.option("--feerate", type=click.IntRange(min=1), help="Of the closing transaction, sat per 1000 weight.")
@click.option("--max-fee", type=click.IntRange(min=1), metavar="SAT", help="The most that we pay for it.")
@node_options
def close(
    folder: Path,
    as_json: bool,
    channel_id: str,
    force: bool,
    address: str | None,
    feerate: int | None,
    max_fee: int | None,
) -> None:
    """Close a channel. The first digits of its ID will do.

    With --force our commitment is broadcast as it was signed: --address, --feerate and --max-fee do not go with it.
    """

    async def work(client: Client) -> str:
        full = await _full_id(client, channel_id)
        await client.close_channel(full, force=force, address=address, feerate_per_kw=feerate, max_fee_sat=max_fee)
        return full

    closed = ask(folder, work)
    if as_json:
        print_json({"channel_id": closed})
    else:
        click.echo(f"closing {closed}")


async def _full_id(client: Client, start: str) -> str:
    if not start:  # an unset variable of a script names no channel, also when there is only one
        raise CliError("the ID of a channel is empty")
    found = [channel.channel_id for channel in await client.channels() if channel.channel_id.startswith(start.lower())]
    if len(found) != 1:
        raise CliError(f"{len(found) or 'no'} channels begin with {start[:80]!r}")
    return found[0]
