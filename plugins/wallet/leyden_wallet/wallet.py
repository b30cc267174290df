"""The ``Wallet`` service: scripts, coins, locks and transactions, fed by the blocks of whatever chain source runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from leyden.bitcoin import SEQUENCE_RBF, Transaction, TxIn, TxOut, dust_limit
from leyden.crypto import sha256
from leyden.hooks.services import (
    NOTHING_KEPT,
    CannotBump,
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

from leyden_wallet.bumping import Waiting, child, replacement
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
_REORG_DEPTH = 144
"""A spending so deep is not expected to be taken back; what it spent is not watched any more after a restart."""


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
        self._unguard()
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

    def replace(
        self, claim_id: str, txid: Txid, feerate: FeeRatePerKw, locktime: BlockHeight, *, keep: Sat = NOTHING_KEPT
    ) -> tuple[FundedTransaction, RecordChanges]:
        """The same payments again with more fee, taken from the change or from further confirmed coins (BIP 125).

        ``CannotBump``; ``InsufficientFunds``; ``ReserveNeeded`` if it took further coins from the reserve.
        """
        old = self._ledger.transactions[txid] if self._ledger.stands(txid) else None
        tx = self._raw.get(txid)
        if old is None or tx is None:
            raise CannotBump(f"{_name(txid)} is no unconfirmed transaction of the wallet")
        if (spender := self._ledger.child_of(txid)) is not None:
            raise CannotBump(f"{_name(spender)} builds on {_name(txid)} and would be lost: bump that one")
        for holder in [self._locks[coin.outpoint] for coin in old.coins if coin.outpoint in self._locks]:
            raise CannotBump(f"{holder} is about to spend what {_name(txid)} pays: wait, or bump it by a child (cpfp)")
        waiting = self._waiting(txid)
        if waiting.pays(feerate):
            raise CannotBump(_pays_already(txid, waiting))
        change = self._change_index(tx)
        outputs = [output for index, output in enumerate(tx.outputs) if index != change]
        payment = Payment(
            amount=Sat(sum(output.value for output in outputs)),
            output_scripts=tuple(output.script for output in outputs),
            change_script=self._destinations.peek(DestinationPurpose.CHANGE)
            if change is None
            else tx.outputs[change].script,
            feerate=feerate,
            replaces=waiting.fee,
        )
        coins, spare = self._ledger.coins_of(old.spends), self._spendable()[0]
        selection = replacement(coins, spare, payment)
        if selection is None or not (outputs or selection.change):
            have = Sat(sum(coin.value for coin in (*coins, *spare)))
            raise InsufficientFunds(Sat(payment.amount + payment.fee(coins, change=False)), have)
        if len(selection.coins) > len(coins):
            self._check_left(selection, keep)
        # While the signer thinks nobody must build on the old transaction (``_unguard``).
        self._locks.update({coin.outpoint: claim_id for coin in old.coins})
        return self._claim(claim_id, outputs, selection, payment.change_script, locktime)

    def accelerate(
        self, claim_id: str, txid: Txid, feerate: FeeRatePerKw, locktime: BlockHeight, *, keep: Sat = NOTHING_KEPT
    ) -> tuple[FundedTransaction, RecordChanges]:
        """A child that spends what ``txid`` pays us, with a fee for both (CPFP); errors as of ``replace``."""
        if not self._ledger.stands(txid):
            raise CannotBump(f"{_name(txid)} is no unconfirmed transaction of the wallet")
        coins = [coin for coin in self._spendable()[1] if coin.outpoint.txid == txid]
        if not coins:
            raise CannotBump(f"{_name(txid)} has no change of ours that is free to be spent")
        package = self._package(txid)
        if package.pays(feerate):
            raise CannotBump(_pays_already(txid, package))
        # What a miner takes at this feerate anyway needs nobody to pay for it.
        ancestors = self._ledger.unconfirmed_ancestors(txid)
        slow = [self._waiting(ancestor) for ancestor in ancestors if not self._package(ancestor).pays(feerate)]
        payment = Payment(
            amount=Sat(0),
            output_scripts=(),
            change_script=self._destinations.peek(DestinationPurpose.CHANGE),
            feerate=feerate,
        )
        spare = self._spendable()[0]
        selection = child(coins, spare, payment, slow)
        if selection is None:
            have = Sat(sum(coin.value for coin in (*coins, *spare)))
            raise InsufficientFunds(Sat(have + payment.fee(coins, change=True)), have)
        if len(selection.coins) > len(coins):
            self._check_left(selection, keep)
        return self._claim(claim_id, (), selection, payment.change_script, locktime)

    def _package(self, txid: Txid) -> Waiting:
        """``txid`` and everything unconfirmed that it builds on, as a miner adds it up."""
        parts = [self._waiting(ancestor) for ancestor in self._ledger.unconfirmed_ancestors(txid)]
        return Waiting(fee=Sat(sum(part.fee for part in parts)), weight=sum(part.weight for part in parts))

    def _waiting(self, txid: Txid) -> Waiting:
        """Fee and weight of an unconfirmed transaction of ours, if all that it spends is ours."""
        known, tx = self._ledger.transactions[txid], self._raw.get(txid)
        if known.others or tx is None:
            raise CannotBump(f"others pay for {_name(txid)} too: its fee is not known")
        coins = self._ledger.coins_of(known.spends)
        fee = sum(coin.value for coin in coins) - sum(output.value for output in tx.outputs)
        payment = Payment(
            amount=Sat(0),
            output_scripts=tuple(output.script for output in tx.outputs),
            change_script=b"",
            feerate=FeeRatePerKw(0),
        )
        return Waiting(fee=Sat(fee), weight=payment.weight(coins, change=False))

    def _change_index(self, tx: Transaction) -> int | None:
        """The output that ``fund`` added for itself, as far as its script tells."""
        for index, output in enumerate(tx.outputs):
            destination = self._destinations.get(output.script)
            if destination is not None and destination.purpose is DestinationPurpose.CHANGE:
                return index
        return None

    def _claim(
        self, claim_id: str, outputs: Sequence[TxOut], selection: Selection, change_script: bytes, locktime: BlockHeight
    ) -> tuple[FundedTransaction, RecordChanges]:
        """Lock the coins; the transaction that pays ``outputs`` with them.

        The claim of what it replaces stays, and holds them when this one ends first: any of the two may confirm.
        """
        changes = Changes(self._prefix)
        if selection.change and change_script == self._destinations.peek(DestinationPurpose.CHANGE):
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
        """Its coins are free again, and so is its change script if nothing pays that."""
        changes = Changes(self._prefix)
        claim = self._claims.get(claim_id)
        if claim is not None:
            self._drop_claim(claim_id, changes)
            if claim.change_index is not None:
                script = claim.transaction().outputs[claim.change_index].script
                if not self._is_paid(script):
                    self._destinations.take_back(script, changes)
        return changes.take()

    def _is_paid(self, script: bytes) -> bool:
        """By a transaction that the wallet knows, or by one that a claim may still become."""
        claimed = (output.script for claim in self._claims.values() for output in claim.transaction().outputs)
        return self._ledger.pays(script) or script in claimed

    def claims(self) -> tuple[str, ...]:
        """Claims that hold coins, so that what forgot its opening in a crash can release them."""
        return tuple(self._claims)

    def _drop_claim(self, claim_id: str, changes: Changes) -> None:
        del self._claims[claim_id]
        for outpoint in [outpoint for outpoint, holder in self._locks.items() if holder == claim_id]:
            del self._locks[outpoint]
        for other, claim in self._claims.items():
            for coin in claim.coins:
                self._locks.setdefault(coin.outpoint, other)
        changes.delete(CLAIM + claim_id.encode())

    def _unguard(self) -> None:
        """What a replaced transaction paid us cannot be spent while it is replaced, and can if a block has it after
        all: then it is no affair of the claim of its replacement."""
        held = {coin.outpoint for claim in self._claims.values() for coin in claim.coins}
        for outpoint in [each for each in self._locks if each not in held and not self._ledger.stands(each.txid)]:
            del self._locks[outpoint]

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

    def spent_coins(self) -> tuple[tuple[OutPoint, bytes], ...]:
        return tuple((coin.outpoint, coin.script) for coin in self._ledger.spent_coins(_REORG_DEPTH))

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


def _name(txid: Txid) -> str:
    """As people read it."""
    return txid[::-1].hex()


def _pays_already(txid: Txid, waiting: Waiting) -> str:
    return f"{_name(txid)} pays {1000 * waiting.fee // waiting.weight} sat per 1000 weight already: ask for more"


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
