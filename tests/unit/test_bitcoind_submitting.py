"""What bitcoind may answer to a package, and no bitcoind answers on demand."""

from typing import Any

import pytest
from leyden.hooks.types import BroadcastRefusal
from leyden.testing.wallet import payment, stranger
from leyden_bitcoind.client import RpcRefused
from leyden_bitcoind.submitting import submit

PACKAGE = [payment(1, (10_000, stranger(1))), payment(2, (9_000, stranger(2)))]
UNSEEN = "package-not-validated"


class Daemon:
    """Answers a package with ``errors``, one for each transaction (none: it was taken)."""

    def __init__(self, message: str, *errors: str, alone: str = "") -> None:
        self.message = message
        self.errors = errors
        self.alone = alone
        self.sent: list[str] = []

    async def call(self, method: str, *arguments: Any) -> Any:
        if method == "submitpackage":
            results = {f"{n:064x}": {"error": error} if error else {"txid": "x"} for n, error in enumerate(self.errors)}
            return {"package_msg": self.message, "tx-results": results}
        if method != "sendrawtransaction":
            raise RpcRefused(-5, "no such transaction")
        self.sent.append(arguments[0])
        if self.alone:
            raise RpcRefused(-26, self.alone)


@pytest.mark.parametrize(
    ("message", "errors"),
    [("transaction failed", (UNSEEN, UNSEEN)), ("transaction failed", ("txn-already-known", UNSEEN)), ("", (UNSEEN,))],
)
async def test_what_was_not_looked_at_was_not_accepted(message: str, errors: tuple[str, ...]) -> None:
    """Each is sent alone then: that may still work."""
    daemon = Daemon(message, *errors)
    assert (await submit(daemon, PACKAGE)).accepted
    assert daemon.sent == [tx.serialize().hex() for tx in PACKAGE]
    result = await submit(Daemon(message, *errors, alone="min relay fee not met"), PACKAGE)
    assert (result.accepted, result.reason, result.refusal) == (False, message or UNSEEN, BroadcastRefusal.OTHER)


async def test_the_reason_for_the_whole_package_is_told() -> None:
    daemon = Daemon(
        "package-not-child-with-unconfirmed-parents", UNSEEN, UNSEEN, alone="bad-txns-inputs-missingorspent"
    )
    result = await submit(daemon, PACKAGE)
    assert not result.accepted
    assert result.reason == "package-not-child-with-unconfirmed-parents"
    assert result.refusal is BroadcastRefusal.MISSING_INPUTS


async def test_the_transaction_that_was_looked_at_says_why() -> None:
    daemon = Daemon("transaction failed", "min relay fee not met, 0 < 110", UNSEEN, alone="min relay fee not met")
    result = await submit(daemon, PACKAGE)
    assert not result.accepted
    assert result.reason == "min relay fee not met, 0 < 110"
    assert result.refusal is BroadcastRefusal.LOW_FEE


@pytest.mark.parametrize(
    ("message", "errors"),
    [("success", ("", "")), ("transaction failed", ("txn-already-known", "txn-already-in-mempool"))],
)
async def test_what_is_there_is_accepted(message: str, errors: tuple[str, ...]) -> None:
    daemon = Daemon(message, *errors)
    assert (await submit(daemon, PACKAGE)).accepted
    assert daemon.sent == []
