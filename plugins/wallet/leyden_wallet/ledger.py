"""Which coins are ours and what has happened to them, as a function of our own transactions and the best chain.

Nothing depends on the order in which branches of the chain came and went: a disconnect forgets what strangers did above
the fork and makes our own transactions there unconfirmed again.
"""

from collections.abc import Callable, Iterable, Iterator

from leyden.bitcoin import Transaction
from leyden.types import OutPoint, Sat, Txid

from leyden_wallet.rows import COINBASE, OWN, Coin, KnownTransaction

COINBASE_MATURITY = 100
"""Blocks, its own included, before a miner's coins may be spent in the next one."""
_MAX_ANCESTORS = 24
"""Unconfirmed ancestors behind which the mempool of a peer refuses a transaction."""


class Ledger:
    """``transactions`` is the truth; everything else is an index over it."""

    def __init__(self) -> None:
        self.tip = 0
        self.transactions: dict[Txid, KnownTransaction] = {}
        self._coins: dict[OutPoint, Coin] = {}
        self._spenders: dict[OutPoint, list[Txid]] = {}
        self._open: dict[OutPoint, None] = {}
        self._pending: dict[Txid, int] = {}
        self._standing: frozenset[Txid] | None = None
        self._next_order = 1

    # -- changes: each returns the txids whose records changed -----------------------------------------------------

    def load(self, transactions: Iterable[tuple[Txid, KnownTransaction]], tip: int) -> None:
        self.tip = tip
        self.transactions = dict(transactions)
        self._index_all()

    def connect(self, tx: Transaction, height: int, ours: Callable[[bytes], bool]) -> KnownTransaction | None:
        """``tx`` is in the block at ``height``. Its record if that is new or has changed, else ``None``."""
        if not self._concerns_us(tx, ours):
            return None
        old = self.transactions.get(tx.txid)
        new = self._examine(tx, height, old.flags if old else 0, old.order if old else 0, ours)
        if new is None or new == old:
            return None
        self._set(tx.txid, new)
        return new

    def add_own(self, tx: Transaction, ours: Callable[[bytes], bool]) -> KnownTransaction | None:
        """``tx`` is ours and about to be broadcast. Its record if that is new or has changed, else ``None``."""
        old = self.transactions.get(tx.txid)
        if old is not None and old.own:
            return None
        new = self._examine(tx, old.height if old else 0, (old.flags if old else 0) | OWN, self._next_order, ours)
        if new is None:
            return None
        self._next_order += 1
        self._set(tx.txid, new)
        return new

    def disconnect(self, fork_height: int) -> dict[Txid, KnownTransaction | None]:
        """Blocks above ``fork_height`` are gone. What became of each transaction in them; ``None``: forgotten."""
        changed: dict[Txid, KnownTransaction | None] = {}
        for txid, known in self.transactions.items():
            if known.height > fork_height:
                changed[txid] = _unconfirmed(known) if known.own else None
        for txid, after in changed.items():
            if after is None:
                del self.transactions[txid]
            else:
                self.transactions[txid] = after
        self.tip = min(self.tip, fork_height)
        if changed:
            self._index_all()
        return changed

    def forget(self, txid: Txid) -> bool:
        """Drop an unconfirmed transaction of our own that will never be mined."""
        known = self.transactions.get(txid)
        if known is None or known.height:
            return False
        del self.transactions[txid]
        self._index_all()
        return True

    # -- questions ---------------------------------------------------------------------------------------------------

    def available(self) -> Iterator[tuple[Coin, KnownTransaction]]:
        """Coins that nothing standing spends, each with the transaction that made it (confirmed, or standing)."""
        standing = self._stand()
        for outpoint in self._open:
            maker = self.transactions[outpoint.txid]
            if not maker.height and outpoint.txid not in standing:
                continue
            if any(spender in standing for spender in self._spenders.get(outpoint, ())):
                continue
            yield self._coins[outpoint], maker

    def is_mature(self, maker: KnownTransaction) -> bool:
        """The next block may spend what ``maker`` made."""
        return not maker.coinbase or self.tip + 1 - maker.height >= COINBASE_MATURITY

    def coins_of(self, outpoints: Iterable[OutPoint]) -> list[Coin]:
        """Coins of ours, spent or not."""
        return [self._coins[outpoint] for outpoint in outpoints]

    def spent_coins(self, depth: int) -> Iterator[Coin]:
        """Coins that a transaction spends which is unconfirmed or has fewer than ``depth`` blocks."""
        found: dict[OutPoint, Coin] = {}
        for known in self.transactions.values():
            if not known.height or self.tip - known.height + 1 < depth:
                found.update((outpoint, self._coins[outpoint]) for outpoint in known.spends if outpoint in self._coins)
        yield from found.values()

    def pays(self, script: bytes) -> bool:
        """A transaction that is known, confirmed or not, pays ``script``."""
        return any(coin.script == script for coin in self._coins.values())

    def stands(self, txid: Txid) -> bool:
        """Ours, unconfirmed, and nothing excludes it."""
        return txid in self._stand()

    def child_of(self, txid: Txid) -> Txid | None:
        """A standing transaction that spends an output of ``txid``, if there is one."""
        for coin in self.transactions[txid].coins:
            for spender in self._spenders.get(coin.outpoint, ()):
                if spender in self._stand():
                    return spender
        return None

    def unconfirmed_ancestors(self, txid: Txid) -> list[Txid]:
        """``txid`` and what it builds on that no block has."""
        found: dict[Txid, None] = {}
        todo = [txid]
        while todo:
            known = self.transactions.get(at := todo.pop())
            if known is not None and not known.height and at not in found:
                found[at] = None
                todo += [outpoint.txid for outpoint in known.spends]
        return list(found)

    def is_unconfirmed(self, coin: Coin) -> bool:
        return not self.transactions[coin.outpoint.txid].height

    def is_ours_alone(self, coin: Coin) -> bool:
        """Only we can undo the unconfirmed transactions behind ``coin``, and there are few of them."""
        seen: set[Txid] = set()
        todo = [coin.outpoint.txid]
        while todo:
            txid = todo.pop()
            known = self.transactions.get(txid)
            if known is None or known.height or txid in seen:
                continue
            seen.add(txid)
            if known.others or len(seen) > _MAX_ANCESTORS:
                return False
            todo += [outpoint.txid for outpoint in known.spends]
        return True

    def spent_since(self, outpoint: OutPoint) -> int:
        """Height of the confirmed transaction that spends ``outpoint``, or 0."""
        return max((self.transactions[txid].height for txid in self._spenders.get(outpoint, ())), default=0)

    def is_spent_out(self, txid: Txid, depth: int) -> bool:
        """Confirmed ``depth`` blocks ago, as is the spending of every coin that it made for us."""
        known = self.transactions.get(txid)
        if known is None or not known.height:
            return False
        spent = [known.height, *(self.spent_since(coin.outpoint) for coin in known.coins)]
        return all(spent) and self.tip - max(spent) >= depth

    def net_effects(self) -> dict[Txid, Sat]:
        """What each confirmed or standing transaction added to our coins (negative: took from them), satoshi."""
        standing = self._stand()
        effects = {}
        for txid, known in self.transactions.items():
            if (known.height or txid in standing) and (known.coins or known.spends):
                gained = sum(coin.value for coin in known.coins)
                effects[txid] = Sat(gained - sum(self._coins[o].value for o in known.spends if o in self._coins))
        return effects

    # -- inside ------------------------------------------------------------------------------------------------------

    def _concerns_us(self, tx: Transaction, ours: Callable[[bytes], bool]) -> bool:
        """A first look that hashes nothing: whole blocks pass through it."""
        for tx_input in tx.inputs:
            if tx_input.prevout in self._coins or tx_input.prevout in self._spenders:
                return True
        return any(ours(output.script) for output in tx.outputs)

    def _examine(
        self,
        tx: Transaction,
        height: int,
        flags: int,
        order: int,
        ours: Callable[[bytes], bool],
    ) -> KnownTransaction | None:
        """The record of ``tx``, or ``None`` when it neither pays us, nor spends our coins, nor conflicts with us."""
        spends, others = [], []
        for tx_input in tx.inputs:
            prevout = tx_input.prevout
            if prevout in self._coins:
                spends.append(prevout)
            elif flags & OWN or prevout in self._spenders:
                others.append(prevout)
        coins = [
            Coin(outpoint=OutPoint(tx.txid, vout), value=output.value, script=output.script)
            for vout, output in enumerate(tx.outputs)
            if ours(output.script)
        ]
        if not coins and not spends and (flags & OWN or not others):
            return None
        if tx.is_coinbase:
            flags, others = flags | COINBASE, []
        return KnownTransaction(
            height=height, flags=flags, order=order, spends=tuple(spends), others=tuple(others), coins=tuple(coins)
        )

    def _set(self, txid: Txid, new: KnownTransaction) -> None:
        old = self.transactions.get(txid)
        self.transactions[txid] = new
        if old is not None and (old.spends, old.others, old.coins) != (new.spends, new.others, new.coins):
            self._index_all()
            return
        if old is None:
            self._index(txid, new)
        elif new.height:
            self._pending.pop(txid, None)
            for outpoint in new.spends:
                self._open.pop(outpoint, None)
        self._standing = None

    def _index_all(self) -> None:
        self._coins, self._spenders, self._open, self._pending = {}, {}, {}, {}
        self._standing = None
        for txid, known in self.transactions.items():
            self._index(txid, known)

    def _index(self, txid: Txid, known: KnownTransaction) -> None:
        self._standing = None
        self._next_order = max(self._next_order, known.order + 1)
        if known.own and not known.height:
            self._pending[txid] = known.order
        for outpoint in (*known.spends, *known.others):
            self._spenders.setdefault(outpoint, []).append(txid)
            if known.height:
                self._open.pop(outpoint, None)
        for coin in known.coins:
            self._coins[coin.outpoint] = coin
            if not self.spent_since(coin.outpoint):
                self._open[coin.outpoint] = None

    def _stand(self) -> frozenset[Txid]:
        """Unconfirmed transactions of ours that can still be mined: the newest of those that exclude each other."""
        if self._standing is None:
            standing: dict[Txid, KnownTransaction] = {}
            for txid in sorted(self._pending, key=self._pending.__getitem__):
                known = self.transactions[txid]
                if self._can_be_mined(known, standing):
                    _drop_conflicting(standing, known)
                    if self._can_be_mined(known, standing):
                        standing[txid] = known
            self._standing = frozenset(standing)
        return self._standing

    def _can_be_mined(self, known: KnownTransaction, standing: dict[Txid, KnownTransaction]) -> bool:
        """Its coins exist, and the chain has not spent anything that it spends."""
        for outpoint in known.spends:
            if outpoint not in self._coins:
                return False
            if not self.transactions[outpoint.txid].height and outpoint.txid not in standing:
                return False
        return not any(self.spent_since(outpoint) for outpoint in (*known.spends, *known.others))


def _unconfirmed(known: KnownTransaction) -> KnownTransaction:
    return KnownTransaction(
        flags=known.flags, order=known.order, spends=known.spends, others=known.others, coins=known.coins
    )


def _drop_conflicting(standing: dict[Txid, KnownTransaction], newer: KnownTransaction) -> None:
    """Remove what ``newer`` replaces, and everything built on it."""
    taken = {*newer.spends, *newer.others}
    gone = [txid for txid, known in standing.items() if not taken.isdisjoint((*known.spends, *known.others))]
    while gone:
        txid = gone.pop()
        if standing.pop(txid, None) is not None:
            gone += [child for child, known in standing.items() if any(o.txid == txid for o in known.spends)]
