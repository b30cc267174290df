"""``address``, ``descriptors``, ``balance``, ``coins``, ``send``, ``bump``, ``transactions``."""

from pathlib import Path
from typing import Literal

import click
import msgspec

from leyden_cli.commands.base import ask, coin_option, node_options
from leyden_cli.show import print_facts, print_json, print_table


@click.command()
@click.option("--type", "kind", type=click.Choice(["p2wpkh", "p2tr"]), default="p2wpkh", show_default=True)
@node_options
def address(folder: Path, as_json: bool, kind: Literal["p2wpkh", "p2tr"]) -> None:
    """A new address of the wallet: P2WPKH, or taproot (p2tr)."""
    made = ask(folder, lambda client: client.address(kind))
    if as_json:
        print_json({"address": made})
    else:
        click.echo(made)


@click.command()
@node_options
def descriptors(folder: Path, as_json: bool) -> None:
    """Public descriptors of the wallet: another wallet can watch its coins with them."""
    found = ask(folder, lambda client: client.descriptors())
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(found))


@click.command()
@node_options
def balance(folder: Path, as_json: bool) -> None:
    """The wallet's coins, and what is ours in channels."""
    found = ask(folder, lambda client: client.balance())
    if as_json:
        print_json(found)
    else:
        print_facts(msgspec.structs.asdict(found))


@click.command()
@node_options
def coins(folder: Path, as_json: bool) -> None:
    """The wallet's coins, and whether it would spend them now."""
    found = ask(folder, lambda client: client.coins())
    if as_json:
        print_json(found)
        return
    rows = [(coin.coin, coin.value_sat, coin.height or None, coin.state, coin.claim, coin.address) for coin in found]
    print_table(("coin", "sat", "confirmed in", "state", "held by", "address"), rows, "no coins")


@click.command()
@click.argument("destination", metavar="ADDRESS")
@click.argument("amount_sat", metavar="SAT", type=click.IntRange(min=1))
@click.option("--feerate", type=click.IntRange(min=1), help="Sat per 1000 weight.")
@coin_option
@node_options
def send(
    folder: Path, as_json: bool, destination: str, amount_sat: int, feerate: int | None, coins: tuple[str, ...]
) -> None:
    """Pay SAT satoshi to ADDRESS on chain."""
    txid = ask(folder, lambda client: client.send(destination, amount_sat, feerate_per_kw=feerate, coins=coins))
    if as_json:
        print_json({"txid": txid})
    else:
        click.echo(txid)


@click.command()
@click.argument("txid")
@click.option("--feerate", type=click.IntRange(min=1), required=True, help="Sat per 1000 weight, for all of it.")
@click.option(
    "--method",
    type=click.Choice(["rbf", "cpfp"]),
    help="Replace it, or spend its change with more fee. Default: rbf for a payment, cpfp for a funding transaction.",
)
@node_options
def bump(folder: Path, as_json: bool, txid: str, feerate: int, method: Literal["rbf", "cpfp"] | None) -> None:
    """Raise the fee of TXID, a transaction of this node that is not in a block yet."""
    done = ask(folder, lambda client: client.bump(txid, feerate, method=method))
    if as_json:
        print_json(done)
    else:
        click.echo(f"{'replaced by' if done.method == 'rbf' else 'paid for by its child'} {done.txid}")


@click.command()
@node_options
def transactions(folder: Path, as_json: bool) -> None:
    """Transactions of this node that are not deep in the chain yet."""
    found = ask(folder, lambda client: client.transactions())
    if as_json:
        print_json(found)
        return
    rows = [(tx.txid, tx.kind, tx.confirmed_height or None, tx.accepted_by, tx.refused) for tx in found]
    columns = ("txid", "kind", "confirmed in", "accepted by", "refused by")
    print_table(columns, rows, "no transactions under way")
