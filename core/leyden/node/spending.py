"""Spending from the wallet outside openings: built in one turn, signed, durable and tracked in another."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from leyden.bitcoin import Transaction, TxOut
from leyden.hooks.signing import SignPsbt, SpendPurpose
from leyden.hooks.types import BroadcastKind, FundedTransaction, RecordChanges
from leyden.node.core import NodeCore
from leyden.node.opening import signed_transaction
from leyden.types import BlockHeight, FeeRatePerKw, LeydenError, OutPoint, Sat, Txid

T = TypeVar("T")


class Call(Protocol):
    """Run work in a turn; its value once that turn is durable."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


class Spender:
    """``Node``'s hand in the wallet."""

    def __init__(self, core: NodeCore, call: Call, entropy: Callable[[int], bytes]) -> None:
        self._core = core
        self._call = call
        self._entropy = entropy

    async def send(
        self, script: bytes, amount: Sat, feerate: FeeRatePerKw | None, coins: Sequence[OutPoint]
    ) -> Transaction:
        """Pay ``script``; the errors of ``Wallet.fund`` and of the signer."""
        core, claim = self._core, f"send:{self._entropy(16).hex()}"
        rate = feerate or core.fees.rates.funding

        def fund() -> tuple[FundedTransaction, RecordChanges]:
            output = TxOut(value=amount, script=script)
            height = BlockHeight(core.chain.height)
            return core.services.wallet.fund(claim, [output], rate, height, coins=coins, keep=core.reserve.keep())

        return await self._spend(claim, fund, SpendPurpose.WITHDRAWAL)

    async def _spend(
        self, claim: str, build: Callable[[], tuple[FundedTransaction, RecordChanges]], purpose: SpendPurpose
    ) -> Transaction:
        """Build, sign, remember, broadcast. The coins are free again if nobody signs."""
        core = self._core

        def begin() -> FundedTransaction:
            funded, changes = build()
            core.engine.journal.merge(changes)
            return funded

        funded = await self._call(begin)
        try:
            request = SignPsbt(request_id=claim, psbt=funded.psbt, purpose=purpose)
            tx = signed_transaction(funded, await core.services.onchain_signer.sign_psbt(request))
        except LeydenError:
            await self._call(lambda: core.engine.journal.merge(core.services.wallet.release(claim)))
            raise

        def commit() -> None:
            core.engine.journal.merge(core.services.wallet.on_unconfirmed(tx))
            core.tracker.track(tx, BroadcastKind.WALLET)

        await self._call(commit)
        return tx


def txid_text(txid: Txid) -> str:
    """As people read it."""
    return txid[::-1].hex()
