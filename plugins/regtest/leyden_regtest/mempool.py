"""A small mempool: consensus checks for the next block, and the policy that Lightning transactions meet.

Policy, narrower than bitcoind's: one sat per virtual byte (a parent below it needs a child in the same package that
pays for both), no dust, full replacement by fee, 400,000 weight. It has no limits on ancestors, no standard-script
check and no TRUC rules: a test of those belongs on bitcoind.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from leyden.bitcoin import SEQUENCE_FINAL, Transaction, TxOut, dust_limit
from leyden.testing.kernel import first_failing_input
from leyden.types import MAX_MONEY_SAT, BlockHeight, OutPoint, Sat, Txid

from leyden_regtest.coins import COINBASE_MATURITY, Coin, CoinIndex
from leyden_regtest.errors import TransactionRefused

MAX_STANDARD_WEIGHT = 400_000
MAX_REPLACED = 100
_LOCKTIME_THRESHOLD = 500_000_000
_SEQUENCE_DISABLED = 1 << 31
_SEQUENCE_IS_TIME = 1 << 22
_SEQUENCE_MASK = 0xFFFF


class Tip(NamedTuple):
    """What the next block is judged by: its height, the median time past of the tip, and that of any older block."""

    next_height: BlockHeight
    median_time: int
    median_time_at: Callable[[int], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A transaction that could be in the next block; ``fee`` in satoshi, ``vsize`` in virtual bytes."""

    tx: Transaction
    fee: Sat
    vsize: int
    parents: frozenset[Txid]


@dataclass(kw_only=True, slots=True)
class Staged:
    """Transactions of a package that wait for a child to pay for them."""

    entries: dict[Txid, Entry] = field(default_factory=dict)

    def paid_by_last(self) -> bool:
        """Whether the newest entry spends, directly or through others, every other entry."""
        reached = {last} if (last := next(reversed(self.entries), None)) else set()
        for txid in reversed(self.entries):
            if txid in reached:
                reached |= self.entries[txid].parents
        return all(txid in reached for txid in self.entries)


class Mempool:
    """Entries are kept in an order in which parents come first."""

    def __init__(self, coins: CoinIndex, tip: Callable[[], Tip], min_relay_sat_per_kvb: int = 1000) -> None:
        self._coins = coins
        self._tip = tip
        self._min_relay = min_relay_sat_per_kvb
        self.entries: dict[Txid, Entry] = {}
        self.spends: dict[OutPoint, Txid] = {}

    # -- admission -------------------------------------------------------------------------------------------------

    def submit(self, package: Sequence[Transaction]) -> None:
        """Take a package, parents first. What is known already is fine.

        Raises ``TransactionRefused`` for the first transaction that cannot enter; those before it that could enter
        by themselves stay, as in a package sent to bitcoind.
        """
        staged = Staged()
        for tx in package:
            if tx.txid in self.entries or tx.txid in self._coins.confirmed:
                continue
            entry = self._check(tx, staged.entries)
            if staged.entries.keys() & entry.parents or entry.fee < self._floor(entry.vsize):
                staged.entries[tx.txid] = entry
            else:
                self._admit([entry])
        if staged.entries:
            self._admit_package(staged)

    def _admit_package(self, staged: Staged) -> None:
        entries = list(staged.entries.values())
        fee, vsize = sum(e.fee for e in entries), sum(e.vsize for e in entries)
        if fee < self._floor(vsize) or not staged.paid_by_last():
            raise TransactionRefused(
                "min relay fee not met", f"{fee} sat for {vsize} vbytes, at least {self._floor(vsize)} needed"
            )
        self._admit(entries)

    def _floor(self, vsize: int) -> int:
        return -(-self._min_relay * vsize // 1000)

    def _admit(self, entries: Sequence[Entry]) -> None:
        """Insert, replacing what conflicts if the newcomers pay for it (BIP 125 without opt-in)."""
        new = {entry.tx.txid for entry in entries}
        spent = [txin.prevout for entry in entries for txin in entry.tx.inputs]
        direct = {self.spends[outpoint] for outpoint in spent if outpoint in self.spends} - new
        if direct:
            self._check_replacement(entries, direct)
            self._remove_with_descendants(direct)
        for entry in entries:
            self._insert(entry)

    def _insert(self, entry: Entry) -> None:
        self.entries[entry.tx.txid] = entry
        for txin in entry.tx.inputs:
            self.spends[txin.prevout] = entry.tx.txid

    def _check_replacement(self, entries: Sequence[Entry], direct: set[Txid]) -> None:
        evicted = self.descendants(direct)
        fee, vsize = sum(e.fee for e in entries), sum(e.vsize for e in entries)
        if any(entry.parents & evicted for entry in entries):
            raise TransactionRefused("bad-txns-spends-conflicting-tx", "it spends what it replaces")
        if len(evicted) > MAX_REPLACED:
            raise TransactionRefused("too many potential replacements", f"{len(evicted)} > {MAX_REPLACED}")
        for txid in direct:
            old = self.entries[txid]
            if fee * old.vsize <= old.fee * vsize:
                raise TransactionRefused("insufficient fee", f"feerate not above that of {txid[::-1].hex()}")
        needed = sum(self.entries[txid].fee for txid in evicted) + self._floor(vsize)
        if fee < needed:
            raise TransactionRefused("insufficient fee", f"{fee} sat, a replacement needs {needed}")

    # -- checks ----------------------------------------------------------------------------------------------------

    def coin(self, outpoint: OutPoint, staged: dict[Txid, Entry] | None = None) -> Coin | None:
        """An output that the next block could spend, confirmed or not (whether or not the mempool spends it)."""
        confirmed = self._coins.unspent.get(outpoint)
        if confirmed is not None:
            return confirmed
        parent = self.entries.get(outpoint.txid) or (staged or {}).get(outpoint.txid)
        if parent is None or outpoint.vout >= len(parent.tx.outputs):
            return None
        return Coin(parent.tx.outputs[outpoint.vout], self._tip().next_height, False)

    def _check(self, tx: Transaction, staged: dict[Txid, Entry]) -> Entry:
        """All rules but the fee floor and conflicts."""
        _check_form(tx)
        coins = [self._spendable(txin.prevout, staged) for txin in tx.inputs]
        tip = self._tip()
        _check_final(tx, tip)
        _check_sequences(tx, coins, tip)
        prevouts = [coin.output for coin in coins]
        fee = sum(out.value for out in prevouts) - sum(out.value for out in tx.outputs)
        if fee < 0:
            raise TransactionRefused("bad-txns-in-belowout", f"outputs exceed inputs by {-fee} sat")
        bad = first_failing_input(tx, prevouts)
        if bad is not None:
            raise TransactionRefused("mandatory-script-verify-flag-failed", f"input {bad}")
        parents = frozenset(txin.prevout.txid for txin in tx.inputs if txin.prevout not in self._coins.unspent)
        return Entry(tx=tx, fee=Sat(fee), vsize=tx.vsize, parents=parents)

    def _spendable(self, outpoint: OutPoint, staged: dict[Txid, Entry]) -> Coin:
        coin = self.coin(outpoint, staged)
        if coin is None:
            raise TransactionRefused("bad-txns-inputs-missingorspent", str(outpoint))
        if coin.coinbase and self._tip().next_height - coin.height < COINBASE_MATURITY:
            raise TransactionRefused("bad-txns-premature-spend-of-coinbase", str(outpoint))
        for entry in staged.values():
            if any(txin.prevout == outpoint for txin in entry.tx.inputs):
                raise TransactionRefused("conflict-in-package", str(outpoint))
        return coin

    # -- following the chain ---------------------------------------------------------------------------------------

    def on_block(self, transactions: Iterable[Transaction]) -> None:
        """Drop what a new block confirmed and what conflicts with it."""
        for tx in transactions:
            if tx.txid in self.entries:
                self._remove(tx.txid)
            for txin in tx.inputs:
                rival = self.spends.get(txin.prevout)
                if rival is not None:
                    self._remove_with_descendants({rival})
        for txid, entry in self.entries.items():
            confirmed = entry.parents - self.entries.keys()
            if confirmed:
                self.entries[txid] = Entry(
                    tx=entry.tx, fee=entry.fee, vsize=entry.vsize, parents=entry.parents - confirmed
                )

    def on_reorg(self, returning: Sequence[Transaction]) -> None:
        """Judge everything again after blocks were lost; ``returning`` are their transactions in chain order.

        The fee floor is waived: what was in a block or in the mempool stays as long as consensus allows it.
        """
        candidates = {tx.txid: tx for tx in returning}
        candidates |= {txid: entry.tx for txid, entry in self.entries.items()}
        self.entries.clear()
        self.spends.clear()
        for tx in candidates.values():
            if tx.txid in self._coins.confirmed or any(txin.prevout in self.spends for txin in tx.inputs):
                continue
            try:
                self._insert(self._check(tx, {}))
            except TransactionRefused:
                continue  # a reorg took away what it needs; whoever cares submits it again

    def keep_only(self, txids: Iterable[Txid]) -> None:
        """Drop every entry that is not among ``txids`` (and what depends on it)."""
        self._remove_with_descendants(self.entries.keys() - set(txids))

    def select(self, max_weight: int) -> list[Entry]:
        """Entries for the next block, parents first, within ``max_weight``."""
        chosen: list[Entry] = []
        left: set[Txid] = set()
        for txid, entry in self.entries.items():
            if entry.tx.weight > max_weight or entry.parents & left:
                left.add(txid)
                continue
            max_weight -= entry.tx.weight
            chosen.append(entry)
        return chosen

    def descendants(self, txids: Iterable[Txid]) -> set[Txid]:
        """``txids`` and everything in the mempool that spends them, directly or not."""
        found = set(txids)
        for txid, entry in self.entries.items():  # parents come first, so one pass finds all
            if entry.parents & found:
                found.add(txid)
        return found

    def _remove_with_descendants(self, txids: set[Txid]) -> None:
        for txid in self.descendants(txids):
            self._remove(txid)

    def _remove(self, txid: Txid) -> None:
        entry = self.entries.pop(txid)
        for txin in entry.tx.inputs:
            del self.spends[txin.prevout]


def _check_form(tx: Transaction) -> None:
    """What does not depend on the chain."""
    if tx.is_coinbase:
        raise TransactionRefused("coinbase", "")
    if not tx.inputs or not tx.outputs:
        raise TransactionRefused("bad-txns-vin-empty" if not tx.inputs else "bad-txns-vout-empty", "")
    if tx.version not in (1, 2, 3):
        raise TransactionRefused("version", str(tx.version))
    if tx.weight > MAX_STANDARD_WEIGHT:
        raise TransactionRefused("tx-size", f"{tx.weight} weight units")
    if len(tx.serialize_legacy()) < 65:
        raise TransactionRefused("tx-size-small", "less than 65 bytes without witness")
    if len({txin.prevout for txin in tx.inputs}) != len(tx.inputs):
        raise TransactionRefused("bad-txns-inputs-duplicate", "")
    for output in tx.outputs:
        _check_output(output)


def _check_output(output: TxOut) -> None:
    if not 0 <= output.value <= MAX_MONEY_SAT:
        raise TransactionRefused("bad-txns-vout-toolarge", str(output.value))
    if output.value < dust_limit(output.script):
        raise TransactionRefused("dust", f"{output.value} sat, at least {dust_limit(output.script)} needed")


def _check_final(tx: Transaction, tip: Tip) -> None:
    """Absolute locktime against the next block (BIP 113)."""
    now = tip.next_height if tx.locktime < _LOCKTIME_THRESHOLD else tip.median_time
    if 0 < tx.locktime >= now and any(txin.sequence != SEQUENCE_FINAL for txin in tx.inputs):
        raise TransactionRefused("non-final", f"locktime {tx.locktime}, next block has {now}")


def _check_sequences(tx: Transaction, coins: Sequence[Coin], tip: Tip) -> None:
    """Relative locktimes (BIP 68)."""
    if tx.version < 2:
        return
    for txin, coin in zip(tx.inputs, coins, strict=True):
        if txin.sequence & _SEQUENCE_DISABLED:
            continue
        delta = txin.sequence & _SEQUENCE_MASK
        if txin.sequence & _SEQUENCE_IS_TIME:
            ready = tip.median_time_at(max(coin.height - 1, 0)) + (delta << 9) <= tip.median_time
        else:
            ready = coin.height + delta <= tip.next_height
        if not ready:
            raise TransactionRefused("non-BIP68-final", f"{txin.prevout} needs to be {delta} deep")
