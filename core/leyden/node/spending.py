"""The wallet outside openings: addresses, and spends built in one turn, signed, durable and tracked in another."""

import enum
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from leyden.bitcoin import Transaction, TxOut, encode_address
from leyden.hooks.services import CannotBump, CoinUnavailable
from leyden.hooks.signing import SignPsbt, SpendPurpose
from leyden.hooks.types import BroadcastKind, Destination, DestinationPurpose, FundedTransaction, RecordChanges
from leyden.node.calls import Calls
from leyden.node.core import NodeCore
from leyden.node.opening import signed_transaction, taken_coins
from leyden.types import BlockHeight, FeeRatePerKw, LeydenError, OutPoint, Sat, Txid

_SIGNED_FOR = (
    "a funding transaction cannot be replaced (rbf): the commitments of its channel are signed for its id, "
    "and the channel would be lost with it"
)


class BumpMethod(enum.Enum):
    """Replace by fee, or a child that pays for its parent."""

    RBF = "rbf"
    CPFP = "cpfp"


class Bumped(msgspec.Struct, frozen=True, kw_only=True):
    """The new transaction, and what it does for the old one."""

    txid: Txid
    method: BumpMethod


class Spender:
    """``Node``'s hand in the wallet."""

    def __init__(self, core: NodeCore, calls: Calls) -> None:
        self._core = core
        self._calls = calls

    async def new_address(self, purpose: DestinationPurpose) -> str:
        """Never handed out before; watched from now on."""
        core, wallet = self._core, self._core.services.wallet

        def hand_out() -> Destination:
            destination, changes = wallet.next_destination(purpose)
            core.engine.journal.merge(changes)
            return destination

        destination = await self._calls.call(hand_out)
        await wallet.top_up()
        core.engine.post(core.chain.watch_wallet)
        return encode_address(destination.script, core.config.network)

    async def send(
        self,
        script: bytes,
        amount: Sat,
        feerate: FeeRatePerKw | None,
        coins: Sequence[OutPoint],
        approve: Callable[[Sat], Awaitable[None]],
    ) -> Transaction:
        """Pay ``script``; the errors of ``Wallet.fund``, of the signer, and of ``approve``, which is told the fee."""
        core = self._core
        claim = f"send:{core.host.entropy(16).hex()}"
        rate = feerate or core.fees.rates.funding

        def fund() -> tuple[FundedTransaction, RecordChanges]:
            output = TxOut(value=amount, script=script)
            height = BlockHeight(core.chain.height)
            return core.services.wallet.fund(claim, [output], rate, height, coins=coins, keep=core.reserve.keep())

        return await self._spend(claim, fund, SpendPurpose.WITHDRAWAL, approve)

    async def bump(self, txid: Txid, feerate: FeeRatePerKw, method: BumpMethod | None) -> Bumped:
        """More fee for an unconfirmed transaction. ``CannotBump`` says why not, and what else to do.

        ``method`` None: a payment of the wallet is replaced, a funding transaction is sped up by spending its change.
        """
        core = self._core
        claim = f"bump:{core.host.entropy(16).hex()}"
        used = self._bump_method(txid, method)

        def build() -> tuple[FundedTransaction, RecordChanges]:
            wallet = core.services.wallet
            work = wallet.replace if used is BumpMethod.RBF else wallet.accelerate
            return work(claim, txid, feerate, BlockHeight(core.chain.height), keep=core.reserve.keep())

        try:
            tx = await self._spend(claim, build, SpendPurpose.FEE_BUMP, _unasked)
        except CannotBump as error:
            if core.tracker.kind(txid) is BroadcastKind.FUNDING:
                raise CannotBump(f"{_SIGNED_FOR}; {error}") from None
            raise
        return Bumped(txid=tx.txid, method=used)

    def _bump_method(self, txid: Txid, method: BumpMethod | None) -> BumpMethod:
        kind = self._core.tracker.kind(txid)
        if kind is None:
            raise CannotBump(f"{txid_text(txid)} is not a transaction of this node that waits for a block")
        if kind is BroadcastKind.FUNDING:
            if method is BumpMethod.RBF:
                raise CannotBump(f"{_SIGNED_FOR}: bump it by its change instead (cpfp)")
            return BumpMethod.CPFP
        if kind is not BroadcastKind.WALLET:
            raise CannotBump(f"{txid_text(txid)} ({kind.value}) was signed with the peer: the wallet cannot bump it")
        return method or BumpMethod.RBF

    async def _spend(
        self,
        claim: str,
        build: Callable[[], tuple[FundedTransaction, RecordChanges]],
        purpose: SpendPurpose,
        approve: Callable[[Sat], Awaitable[None]],
    ) -> Transaction:
        """Build, ask, sign, remember, broadcast. The coins are free again if somebody refuses, nobody waits, or one of
        them was spent meanwhile (``CoinUnavailable``)."""
        core = self._core

        def begin() -> FundedTransaction:
            funded, changes = build()
            core.engine.journal.merge(changes)
            return funded

        def release() -> None:
            core.engine.journal.merge(core.services.wallet.release(claim))

        funded = await self._calls.call(begin)
        try:
            await approve(funded.fee)
            request = SignPsbt(request_id=claim, psbt=funded.psbt, purpose=purpose)
            tx = signed_transaction(funded, await core.services.onchain_signer.sign_psbt(request))
        except LeydenError:
            await self._calls.call(release)
            raise
        except BaseException:  # the caller left while somebody thought about it
            core.engine.post(release)
            raise

        def commit() -> OutPoint | None:
            if (gone := self._gone(tx)) is not None:
                release()
                return gone
            core.engine.journal.merge(core.services.wallet.on_unconfirmed(tx))
            core.tracker.track(tx, BroadcastKind.WALLET, claim)
            return None

        if (gone := await self._calls.call(commit)) is not None:
            name = f"{txid_text(gone.txid)}:{gone.vout}"
            raise CoinUnavailable(
                f"nothing was sent: coin {name} was spent, or its block taken back, while it was signed for"
            )
        return tx

    def _gone(self, tx: Transaction) -> OutPoint | None:
        """A coin of ``tx`` that a block has taken; what still waits for one may be replaced."""
        taken = taken_coins(tx, self._core.services.wallet)
        return next((coin for coin in taken if not self._core.tracker.may_spend(coin)), None)


async def _unasked(_fee: Sat) -> None:
    """Whoever raises the fee of what was approved is not asked again: safety asks nobody."""


def txid_text(txid: Txid) -> str:
    """As people read it."""
    return txid[::-1].hex()
