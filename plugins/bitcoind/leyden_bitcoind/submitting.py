"""Handing transactions to bitcoind, and what its refusals mean."""

from collections.abc import Sequence
from typing import Any

import msgspec
from leyden.bitcoin import Transaction
from leyden.hooks.refusals import is_known, refusal_of
from leyden.hooks.types import BroadcastRefusal, BroadcastResult
from leyden.types import clean_text

from leyden_bitcoind.backend import shown
from leyden_bitcoind.client import RpcClient, RpcRefused, RpcUnavailable

NO_SUCH_METHOD = -32601
_NOT_VALIDATED = "package-not-validated"
"""Said of each transaction that was not looked at, because of another one or of the package as a whole."""
_ANY_FEERATE = 0
"""Feerates were bounded by the node itself; bitcoind's own cap would stop an urgent claim."""


async def submit(client: RpcClient, package: Sequence[Transaction]) -> BroadcastResult:
    """Hand over ``package``, parents first: together, so that the last may pay for the others. Never raises."""
    try:
        together = await _submit_package(client, package) if len(package) > 1 else None
        if together is not None and together.accepted:
            return together
        # Each alone also when a package was refused: its parents may be confirmed meanwhile, or not be its parents.
        alone = BroadcastResult(accepted=True)
        for tx in package:
            alone = await _submit_one(client, tx)
        return alone if alone.accepted or together is None else together
    except RpcUnavailable as error:
        return BroadcastResult(accepted=False, reason=str(error), refusal=BroadcastRefusal.UNAVAILABLE)
    except RpcRefused as error:
        return refused(error.message)


async def _submit_one(client: RpcClient, tx: Transaction) -> BroadcastResult:
    try:
        await client.call("sendrawtransaction", tx.serialize().hex(), _ANY_FEERATE)
    except RpcRefused as error:
        if is_known(error.message):
            return BroadcastResult(accepted=True)
        result = refused(error.message)
        if result.refusal is BroadcastRefusal.MISSING_INPUTS and await _is_confirmed(client, tx):
            return BroadcastResult(accepted=True)
        return result
    return BroadcastResult(accepted=True)


async def _is_confirmed(client: RpcClient, tx: Transaction) -> bool:
    """A transaction in a block whose outputs are all spent looks like one whose inputs are; ``-txindex`` can tell."""
    try:
        found = await client.call("getrawtransaction", shown(tx.txid), True)
    except RpcRefused:
        return False
    return bool(found.get("confirmations", 0) > 0)


async def _submit_package(client: RpcClient, package: Sequence[Transaction]) -> BroadcastResult | None:
    """``None`` where bitcoind knows no packages."""
    try:
        answer = await client.call("submitpackage", [tx.serialize().hex() for tx in package], _ANY_FEERATE)
    except RpcRefused as error:
        return None if error.code == NO_SUCH_METHOD else refused(error.message)
    problems = [
        str(found["error"]) for found in _results(answer) if "error" in found and not is_known(str(found["error"]))
    ]
    message = str(answer.get("package_msg", ""))
    if message == "success" or not problems:
        return BroadcastResult(accepted=True)
    problems = [problem for problem in problems if problem != _NOT_VALIDATED] or [message or _NOT_VALIDATED]
    # The first is that of a parent: what follows from it says less.
    result = refused(problems[0])
    return msgspec.structs.replace(result, reason="; ".join(clean_text(each) for each in dict.fromkeys(problems)))


def _results(answer: Any) -> list[Any]:
    return list(answer.get("tx-results", {}).values())


def refused(reason: str) -> BroadcastResult:
    """With bitcoind's ``reason`` and what it means."""
    return BroadcastResult(accepted=False, reason=clean_text(reason), refusal=refusal_of(reason))
