"""Payments on chain of simulated nodes, in the steps that ``leyden.node.spending`` takes."""

from collections.abc import Sequence

from leyden.bitcoin import Transaction, TxOut, p2wsh
from leyden.hooks.signing import SignPsbt, SpendPurpose
from leyden.hooks.types import BroadcastKind, FundedTransaction
from leyden.node.host import run_inline
from leyden.node.opening import signed_transaction
from leyden.testing.simulation import SimNode
from leyden.types import FeeRatePerKw, OutPoint, Sat

RATE = FeeRatePerKw(2000)


def sign_payment(node: SimNode, claim: str, amount: Sat, coins: Sequence[OutPoint] = ()) -> Transaction:
    """To a stranger; its coins are locked under ``claim``."""
    core = node.core
    made: list[FundedTransaction] = []

    def build() -> None:
        outputs = [TxOut(value=amount, script=p2wsh(b"\x51"))]
        funded, changes = core.services.wallet.fund(claim, outputs, RATE, core.chain.height, coins=coins)
        core.engine.journal.merge(changes)
        made.append(funded)

    core.engine.post(build)
    node.simulation.settle()
    request = SignPsbt(request_id=claim, psbt=made[0].psbt, purpose=SpendPurpose.WITHDRAWAL)
    return signed_transaction(made[0], run_inline(core.services.onchain_signer.sign_psbt(request)))


def forget_claim(node: SimNode, claim: str) -> None:
    core = node.core
    core.engine.post(lambda: core.engine.journal.merge(core.services.wallet.release(claim)))
    node.simulation.settle()


def broadcast_payment(node: SimNode, tx: Transaction, claim: str) -> None:
    core = node.core

    def commit() -> None:
        core.engine.journal.merge(core.services.wallet.on_unconfirmed(tx))
        core.tracker.track(tx, BroadcastKind.WALLET, claim)

    core.engine.post(commit)
    node.simulation.settle()
