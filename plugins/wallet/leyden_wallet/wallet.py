"""The ``Wallet`` service: scripts, coins, locks and transactions, fed by the blocks of whatever chain source runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from leyden.bitcoin import SEQUENCE_RBF, Transaction, TxIn, TxOut, dust_limit
from leyden.crypto import sha256
from leyden.hooks.services import (
    NOTHING_KEPT,
    CoinUnavailable,
    Destinations,
    InsufficientFunds,
    ReserveNeeded,
)
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    CoinState,
    Destination,
    DestinationPurpose,
    FundedTransaction,
    RecordChanges,
    WalletBalance,
    WalletCoin,
)
from leyden.types import BlockHeight, FeeRatePerKw, OutPoint, Sat, Txid

from leyden_wallet.checking import check_rows
from leyden_wallet.destinations import DestinationBook
from leyden_wallet.errors import WalletError
from leyden_wallet.ledger import Ledger
from leyden_wallet.psbt import make_psbt
from leyden_wallet.rows import (
    CLAIM,
    RAW,
    TIP,
    TRANSACTION,
    Changes,
    Claim,
    Coin,
    KnownTransaction,
    encode_raw,
    encode_row,
    encode_tip,
    read_rows,
)
from leyden_wallet.selection import Payment, Selection, select, settle

_CLAIM_DEPTH = 100
"""A claim whose coins were spent this many blocks ago is forgotten."""


class OnchainWallet:
    """P2WPKH and taproot coins of the scripts that ``Destinations`` gives.

    The contract is ``leyden.hooks.services.Wallet``.
    """

    def __init__(self) -> None:
        self._prefix = b""
        self._book: DestinationBook | None = None
        self._ledger = Ledger()
        self._claims: dict[str, Claim] = {}
        self._locks: dict[OutPoint, str] = {}
        self._raw: dict[Txid, Transaction] = {}
        """Transactions that pay us or that we made: signers want to see what is spent."""

    async def load(self, prefix: bytes, rows: Sequence[tuple[bytes, bytes]], destinations: Destinations) -> None:
        """Rebuild from ``rows``; whatever was in memory is gone. ``RecordError`` for rows it cannot read."""
        stored = read_rows(prefix, rows)
        book = DestinationBook(destinations)
        for purpose, index, destination in stored.destinations:
            book.load(purpose, index, destination)
        await book.complete()
        self._prefix, self._book, self._claims, self._raw = prefix, book, stored.claims, stored.raw
        self._ledger = Ledger()
        self._ledger.load(stored.transactions, stored.tip)
        self._locks = {coin.outpoint: claim_id for claim_id, claim in stored.claims.items() for coin in claim.coins}
        await book.top_up()

    def check_rows(self, prefix: bytes, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
        """What is wrong with rows that nobody has loaded, a line each; for ``leyden db check``."""
        return check_rows(prefix, rows)

    # -- scripts -----------------------------------------------------------------------------------------------------

    @property
    def _destinations(self) -> DestinationBook:
        if self._book is None:
            raise WalletError("the wallet is used before it was loaded")
        return self._book

    async def top_up(self) -> None:
        await self._destinations.top_up()

    def scripts(self) -> Sequence[bytes]:
        return self._destinations.scripts()

    def owns(self, script: bytes) -> bool:
        return script in self._destinations

    def next_destination(self, purpose: DestinationPurpose) -> tuple[Destination, RecordChanges]:
        changes = Changes(self._prefix)
        return self._destinations.next(purpose, changes), changes.take()

    # -- the chain ---------------------------------------------------------------------------------------------------

    def on_block_connected(self, block: BlockConnected) -> RecordChanges:
        """May come twice, and for blocks below the tip when a script was watched late."""
        changes = Changes(self._prefix)
        for entry in block.transactions:
            self._note(entry.tx, self._ledger.connect(entry.tx, block.height, self._can_spend), changes)
        if block.height > self._ledger.tip:
            self._set_tip(block.height, changes)
            self._forget_old_claims(changes)
            self._forget_old_transactions(changes)
        return changes.take()

    def on_blocks_disconnected(self, event: BlocksDisconnected) -> RecordChanges:
        changes = Changes(self._prefix)
        if event.fork_height < self._ledger.tip:
            for txid, known in self._ledger.disconnect(event.fork_height).items():
                if known is None:
                    self._delete(txid, changes)
                else:
                    changes.put(TRANSACTION + txid, encode_row(known))
            self._set_tip(event.fork_height, changes)
        return changes.take()

    def on_unconfirmed(self, tx: Transaction) -> RecordChanges:
        changes = Changes(self._prefix)
        self._note(tx, self._ledger.add_own(tx, self._can_spend), changes)
        return changes.take()

    def abandon(self, txid: Txid) -> RecordChanges:
        """Forget an unconfirmed transaction of ours that nobody will ever mine; what it spent is free again."""
        changes = Changes(self._prefix)
        if self._ledger.forget(txid):
            self._delete(txid, changes)
        return changes.take()

    def _can_spend(self, script: bytes) -> bool:
        return self._destinations.can_spend(script)

    def _note(self, tx: Transaction, known: KnownTransaction | None, changes: Changes) -> None:
        if known is None:
            return
        changes.put(TRANSACTION + tx.txid, encode_row(known))
        if known.coins or known.own:
            self._raw[tx.txid] = tx
            changes.put(RAW + tx.txid, encode_raw(tx))
        for coin in known.coins:
            self._destinations.mark_used(coin.script, changes)

    def _delete(self, txid: Txid, changes: Changes) -> None:
        changes.delete(TRANSACTION + txid)
        self._forget_raw(txid, changes)

    def _forget_raw(self, txid: Txid, changes: Changes) -> None:
        if self._raw.pop(txid, None) is not None:
            changes.delete(RAW + txid)

    def _forget_old_transactions(self, changes: Changes) -> None:
        """Nobody spends from these any more: all that they paid us is spent, so deep that nothing undoes it."""
        for txid in [txid for txid in self._raw if self._ledger.is_spent_out(txid, _CLAIM_DEPTH)]:
            self._forget_raw(txid, changes)

    def _set_tip(self, height: int, changes: Changes) -> None:
        self._ledger.tip = height
        if height:
            changes.put(TIP, encode_tip(height))
        else:
            changes.delete(TIP)

    def _forget_old_claims(self, changes: Changes) -> None:
        for claim_id, claim in list(self._claims.items()):
            spent = [self._ledger.spent_since(coin.outpoint) for coin in claim.coins]
            if all(spent) and self._ledger.tip - max(spent) >= _CLAIM_DEPTH:
                self._drop_claim(claim_id, changes)

    # -- spending ----------------------------------------------------------------------------------------------------

    def fund(
        self,
        claim_id: str,
        outputs: Sequence[TxOut],
        feerate: FeeRatePerKw,
        locktime: BlockHeight,
        *,
        coins: Sequence[OutPoint] = (),
        keep: Sat = NOTHING_KEPT,
    ) -> tuple[FundedTransaction, RecordChanges]:
        """The same claim with the same outputs gives the very same transaction again, whatever the fee is by now;
        with other outputs it keeps its coins. The change, if any, stands at ``change_index``.

        ``InsufficientFunds``; ``ReserveNeeded``; ``CoinUnavailable``; ``WalletError`` for outputs that no node would
        relay.
        """
        for output in outputs:
            if output.value < dust_limit(output.script):
                raise WalletError(f"an output of {output.value} sat is below the dust limit of its script")
        claim = self._claims.get(claim_id)
        if claim is not None and claim.pays() == tuple(outputs):
            return self._funded(claim), RecordChanges()
        payment = Payment(
            amount=Sat(sum(output.value for output in outputs)),
            output_scripts=tuple(output.script for output in outputs),
            change_script=self._destinations.peek(DestinationPurpose.CHANGE),
            feerate=feerate,
        )
        if claim is not None:
            selection = settle(claim.coins, payment)
        elif coins:
            selection = settle(self._named(coins), payment)
        else:
            selection = self._choose(payment)
        if selection is None:
            raise self._not_enough(payment, claim, coins)
        self._check_left(selection, keep)
        return self._claim(claim_id, outputs, selection, payment.change_script, locktime)

    def _claim(
        self, claim_id: str, outputs: Sequence[TxOut], selection: Selection, change_script: bytes, locktime: BlockHeight
    ) -> tuple[FundedTransaction, RecordChanges]:
        """Lock the coins; the transaction that pays ``outputs`` with them."""
        changes = Changes(self._prefix)
        if selection.change:
            self._destinations.next(DestinationPurpose.CHANGE, changes)
        claim = _make_claim(claim_id, outputs, selection, change_script, locktime)
        self._claims[claim_id] = claim
        self._locks.update({coin.outpoint: claim_id for coin in claim.coins})
        changes.put(CLAIM + claim_id.encode(), encode_row(claim))
        return self._funded(claim), changes.take()

    def _named(self, outpoints: Sequence[OutPoint]) -> list[Coin]:
        """The coins that a person chose; ``CoinUnavailable`` says what is wrong with one."""
        states = {known.outpoint: known for known in self.coins()}
        chosen = []
        for outpoint in dict.fromkeys(outpoints):
            known = states.get(outpoint)
            name = f"coin {outpoint.txid[::-1].hex()}:{outpoint.vout}"
            if known is None:
                raise CoinUnavailable(f"{name} is not ours, or it is spent")
            if known.state is not CoinState.FREE:
                held = f" by {known.claim}" if known.claim else ""
                raise CoinUnavailable(f"{name} cannot be spent now: it is {known.state.value}{held}")
            chosen.append(Coin(outpoint=outpoint, value=known.value, script=known.script))
        return chosen

    def _check_left(self, selection: Selection, keep: Sat) -> None:
        """``ReserveNeeded`` if spending this leaves less than ``keep`` (the contract says what counts)."""
        if not keep:
            return
        confirmed, _ = self._spendable()
        free = {coin.outpoint: coin.value for coin in confirmed}
        from_unconfirmed = [coin for coin in selection.coins if self._ledger.is_unconfirmed(coin)]
        for coin in selection.coins:
            free.pop(coin.outpoint, None)
        left = sum(free.values()) + (0 if from_unconfirmed else selection.change)
        if left < keep:
            raise ReserveNeeded(keep, Sat(left))

    def release(self, claim_id: str) -> RecordChanges:
        changes = Changes(self._prefix)
        if claim_id in self._claims:
            self._drop_claim(claim_id, changes)
        return changes.take()

    def claims(self) -> tuple[str, ...]:
        """Claims that hold coins, so that what forgot its opening in a crash can release them."""
        return tuple(self._claims)

    def _drop_claim(self, claim_id: str, changes: Changes) -> None:
        for coin in self._claims.pop(claim_id).coins:
            self._locks.pop(coin.outpoint, None)
        changes.delete(CLAIM + claim_id.encode())

    def _choose(self, payment: Payment) -> Selection | None:
        """Confirmed coins if they suffice, then also unconfirmed ones that nobody else can take back."""
        confirmed, unconfirmed = self._spendable()
        return select(confirmed, payment) or select([*confirmed, *unconfirmed], payment)

    def _spendable(self) -> tuple[list[Coin], list[Coin]]:
        """Unlocked coins that may be spent now: confirmed and mature; unconfirmed and ours alone."""
        confirmed: list[Coin] = []
        unconfirmed: list[Coin] = []
        for coin, maker in self._ledger.available():
            if self._state(coin, maker) is CoinState.FREE:
                (confirmed if maker.height else unconfirmed).append(coin)
        return confirmed, unconfirmed

    def _state(self, coin: Coin, maker: KnownTransaction) -> CoinState:
        if coin.outpoint in self._locks:
            return CoinState.LOCKED
        if not maker.height:
            return CoinState.FREE if self._ledger.is_ours_alone(coin) else CoinState.FOREIGN
        return CoinState.FREE if self._ledger.is_mature(maker) else CoinState.IMMATURE

    def _not_enough(self, payment: Payment, claim: Claim | None, named: Sequence[OutPoint]) -> InsufficientFunds:
        if claim is not None:
            coins: Sequence[Coin] = claim.coins
        elif named:
            coins = self._named(named)
        else:
            confirmed, unconfirmed = self._spendable()
            coins = [*confirmed, *unconfirmed]
        needed = Sat(payment.amount + payment.fee(coins, change=False))
        return InsufficientFunds(needed, Sat(sum(coin.value for coin in coins)))

    def _funded(self, claim: Claim) -> FundedTransaction:
        psbt = make_psbt(claim.transaction(), claim.coins, self._raw, self._destinations)
        return FundedTransaction(psbt=psbt, fee=claim.fee, change_index=claim.change_index)

    # -- reports -----------------------------------------------------------------------------------------------------

    def coins(self) -> tuple[WalletCoin, ...]:
        found = [
            WalletCoin(
                outpoint=coin.outpoint,
                value=coin.value,
                script=coin.script,
                height=BlockHeight(maker.height),
                state=self._state(coin, maker),
                claim=self._locks.get(coin.outpoint, ""),
            )
            for coin, maker in self._ledger.available()
        ]
        return tuple(sorted(found, key=lambda coin: coin.outpoint))

    def balance(self) -> WalletBalance:
        confirmed = unconfirmed = immature = locked = free = 0
        for coin, maker in self._ledger.available():
            if maker.height and not self._ledger.is_mature(maker):
                immature += coin.value
                continue
            if maker.height:
                confirmed += coin.value
            else:
                unconfirmed += coin.value
            if coin.outpoint in self._locks:
                locked += coin.value
            elif maker.height:
                free += coin.value
        return WalletBalance(
            confirmed=Sat(confirmed),
            unconfirmed=Sat(unconfirmed),
            immature=Sat(immature),
            locked=Sat(locked),
            free=Sat(free),
        )

    def history(self) -> Mapping[Txid, Sat]:
        return self._ledger.net_effects()


def _make_claim(
    claim_id: str, outputs: Sequence[TxOut], selection: Selection, change_script: bytes, locktime: BlockHeight
) -> Claim:
    """The unsigned transaction. The change's place follows from the claim's name, so that it gives nothing away."""
    paid = list(outputs)
    change_index = None
    if selection.change:
        change_index = sha256(claim_id.encode())[0] % (len(paid) + 1)
        paid.insert(change_index, TxOut(value=selection.change, script=change_script))
    tx = Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=coin.outpoint, sequence=SEQUENCE_RBF) for coin in selection.coins),
        outputs=tuple(paid),
        locktime=locktime,
    )
    return Claim(raw_tx=tx.serialize_legacy(), fee=selection.fee, change_index=change_index, coins=selection.coins)
