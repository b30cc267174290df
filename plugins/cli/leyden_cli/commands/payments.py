"""``invoice``, ``invoices``, ``pay``, ``payments``, ``payment``."""

from pathlib import Path

import click
from leyden.node.views import PaymentView

from leyden_cli.client import CallFailed
from leyden_cli.commands.base import ask, node_options
from leyden_cli.errors import ConfigError, PaymentDidNotSucceed, TimeRanOut
from leyden_cli.rpc.protocol import TIMED_OUT
from leyden_cli.show import print_json, print_table

_SHORT = 16


@click.command()
@click.argument("amount", metavar="MSAT|any")
@click.option("--description", default="", help="What the payer reads.")
@click.option("--expiry", default=3600, show_default=True, type=click.IntRange(min=1), help="Seconds.")
@click.option("--label", default="", help="A note of yours, which the payer does not see.")
@node_options
def invoice(folder: Path, as_json: bool, amount: str, description: str, expiry: int, label: str) -> None:
    """Make an invoice over MSAT millisatoshi; with `any` the payer chooses."""
    if amount != "any" and not (amount.isascii() and amount.isdigit() and int(amount) > 0):
        raise ConfigError(f"the amount is a number of millisatoshi, or `any`, not {amount[:40]!r}")
    amount_msat = None if amount == "any" else int(amount)
    made = ask(folder, lambda client: client.invoice(amount_msat, description, expiry=expiry, label=label))
    if as_json:
        print_json(made)
    else:
        click.echo(made.bolt11)


@click.command()
@node_options
def invoices(folder: Path, as_json: bool) -> None:
    """Every invoice made here."""
    found = ask(folder, lambda client: client.invoices())
    if as_json:
        print_json(found)
        return
    rows = [(one.payment_hash[:_SHORT], one.status, one.amount_msat, one.received_msat, one.label) for one in found]
    print_table(("hash", "status", "msat", "received msat", "label"), rows, "no invoices")


@click.command()
@click.argument("bolt11")
@click.option("--amount", type=click.IntRange(min=1), help="Millisatoshi, for an invoice that leaves it open.")
@click.option("--key", default="", help="Repeating the command with the same key returns the first outcome.")
@click.option("--timeout", type=click.FloatRange(min=0), help="Seconds to wait; the payment goes on after that.")
@node_options
def pay(folder: Path, as_json: bool, bolt11: str, amount: int | None, key: str, timeout: float | None) -> None:
    """Pay an invoice and wait for the outcome. Exit code 5: it failed; 4: still under way."""
    try:
        outcome = ask(folder, lambda client: client.pay(bolt11, amount, key=key, timeout=timeout))
    except CallFailed as error:
        if error.code == TIMED_OUT:
            raise TimeRanOut("the payment is still under way: see `leyden payments`") from None
        raise
    _print_payment(outcome, as_json)


@click.command()
@click.argument("payment_hash", metavar="HASH")
@node_options
def payment(folder: Path, as_json: bool, payment_hash: str) -> None:
    """One payment made from here. Exit code 5: it failed; 4: still under way."""
    found = ask(folder, lambda client: client.payment(payment_hash))
    _print_payment(found, as_json)
    if found.status == "pending":
        raise TimeRanOut("the payment is still under way")


def _print_payment(outcome: PaymentView, as_json: bool) -> None:
    if as_json:
        print_json(outcome)
    elif outcome.status == "succeeded":
        click.echo(f"paid {outcome.amount_msat} msat, fee {outcome.fee_msat} msat, preimage {outcome.preimage}")
    if outcome.status == "failed":
        raise PaymentDidNotSucceed(f"the payment failed: {outcome.failure}")


@click.command()
@node_options
def payments(folder: Path, as_json: bool) -> None:
    """Every payment made from here."""
    found = ask(folder, lambda client: client.payments())
    if as_json:
        print_json(found)
        return
    rows = [(one.payment_hash[:_SHORT], one.status, one.amount_msat, one.fee_msat, one.failure) for one in found]
    print_table(("hash", "status", "msat", "fee msat", "failure"), rows, "no payments")
