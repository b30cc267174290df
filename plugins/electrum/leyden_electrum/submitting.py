"""Handing transactions to servers, and what their refusals mean: the words are those of the bitcoind behind them."""

from collections.abc import Sequence

from leyden.bitcoin import Transaction
from leyden.hooks.refusals import is_known, refusal_of
from leyden.hooks.types import BroadcastRefusal, BroadcastResult
from leyden.types import clean_text

from leyden_electrum.errors import MAX_WORDS, ServerFault, ServerRefused, ServerUnavailable
from leyden_electrum.server import Server


async def submit(server: Server, package: Sequence[Transaction]) -> BroadcastResult:
    """Hand over ``package``, parents first: together, so that the last may pay for the others. Never raises."""
    try:
        if len(package) > 1 and server.takes_packages and await _is_taken_whole(server, package):
            return BroadcastResult(accepted=True)
        # Each alone also when a package was refused: its parents may be confirmed meanwhile, or not be its parents.
        result = BroadcastResult(accepted=True)
        for tx in package:
            result = await _submit_one(server, tx)
        return result
    except (ServerUnavailable, ServerFault) as error:
        reason = f"Electrum server {server.address}: {error}"
        return BroadcastResult(accepted=False, reason=reason, refusal=BroadcastRefusal.UNAVAILABLE)


async def _is_taken_whole(server: Server, package: Sequence[Transaction]) -> bool:
    try:
        return (await server.broadcast_package(package)).success
    except ServerRefused:
        return False


async def _submit_one(server: Server, tx: Transaction) -> BroadcastResult:
    try:
        await server.broadcast(tx)
    except ServerRefused as error:
        if is_known(error.words):
            return BroadcastResult(accepted=True)
        result = refused(error.words)
        if result.refusal is BroadcastRefusal.MISSING_INPUTS:
            # A transaction in a block whose outputs are all spent looks like one whose inputs are.
            (found,) = await server.transactions([tx.txid])
            if not isinstance(found, ServerRefused):
                return BroadcastResult(accepted=True)
        return result
    return BroadcastResult(accepted=True)


def refused(words: str) -> BroadcastResult:
    """What ``words`` mean. Some servers put a phrase of their own before and the transaction in brackets behind."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if not line.startswith("[")), "it does not say why")
    return BroadcastResult(accepted=False, reason=clean_text(reason, MAX_WORDS), refusal=refusal_of(reason))
