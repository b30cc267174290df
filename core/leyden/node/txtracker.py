"""Owns a transaction from the moment it is decided until its effect is irrevocable, and repeats it meanwhile."""

from collections.abc import Callable, Sequence

import structlog

from leyden.bitcoin import Transaction, parse_transaction
from leyden.hooks.services import Broadcaster
from leyden.hooks.types import BroadcastKind, BroadcastResult, TransactionConfirmed, TransactionUnconfirmed
from leyden.node import keyspace
from leyden.node.host import Caller
from leyden.node.journal import Journal, Table
from leyden.node.rows import BROADCAST_KINDS, TRANSACTION, TrackedTransaction
from leyden.types import BlockHeight, OutPoint, Txid

log = structlog.get_logger("leyden.txtracker")

IRREVOCABLE_DEPTH = 6


class TxTracker:
    """Repeats on start, on each block and on a timer; remembers in memory why a broadcaster said no."""

    def __init__(
        self,
        broadcasters: Sequence[Broadcaster],
        caller: Caller,
        publish: Callable[[TransactionConfirmed | TransactionUnconfirmed], None],
    ) -> None:
        self._broadcasters = broadcasters
        self._caller = caller
        self._publish = publish
        self._transactions: Table[Txid, TrackedTransaction] = Table(
            keyspace.TRANSACTION, lambda txid: txid, TRANSACTION.encode, TRANSACTION.decode
        )
        self._due: dict[Txid, None] = {}
        self._spenders: dict[OutPoint, set[Txid]] | None = None
        """Which tracked transactions spend an output; rebuilt when the table changes."""
        self.refusals: dict[Txid, str] = {}

    def load(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        self._transactions.load((Txid(key[1:]), value) for key, value in rows)
        self.repeat()

    def track(self, tx: Transaction, kind: BroadcastKind) -> None:
        """Durable with this turn's commit; broadcast right after it and again until confirmed."""
        txid = tx.txid
        if txid not in self._transactions:
            self._transactions.set(txid, TrackedTransaction(raw=tx.serialize(), kind=BROADCAST_KINDS.index(kind)))
            self._spenders = None
        self._due[txid] = None

    def _forget(self, txid: Txid) -> None:
        self._transactions.delete(txid)
        self.refusals.pop(txid, None)
        self._due.pop(txid, None)
        self._spenders = None

    def is_tracked(self, txid: Txid) -> bool:
        return txid in self._transactions

    def pending(self) -> list[tuple[Txid, BroadcastKind, int]]:
        """txid, kind and confirmation height (0: none) of everything tracked."""
        return [(txid, BROADCAST_KINDS[r.kind], r.confirmed_height) for txid, r in self._transactions.items()]

    def repeat(self) -> None:
        """Broadcast everything unconfirmed again after the next commit."""
        for txid, record in self._transactions.items():
            if not record.decided_height:
                self._due[txid] = None

    # -- chain -----------------------------------------------------------------------------------------------------

    def on_transactions(self, transactions: Sequence[Transaction], height: BlockHeight) -> None:
        """These are in the block at ``height``; told again after a late watch, which changes nothing."""
        for tx in transactions:
            self._on_confirmed(tx.txid, height)
            spenders = self._by_input()
            for txin in tx.inputs:
                for txid in spenders.get(txin.prevout, ()):
                    if txid != tx.txid:
                        self._on_conflict(txid, tx.txid, height)

    def _by_input(self) -> dict[OutPoint, set[Txid]]:
        if self._spenders is None:
            self._spenders = {}
            for txid, record in self._transactions.items():
                for txin in parse_transaction(record.raw).inputs:
                    self._spenders.setdefault(txin.prevout, set()).add(txid)
        return self._spenders

    def _on_confirmed(self, txid: Txid, height: BlockHeight) -> None:
        record = self._transactions.get(txid)
        if record is None or record.confirmed_height == height:
            return
        self._transactions.set(txid, TrackedTransaction(raw=record.raw, kind=record.kind, confirmed_height=height))
        self._due.pop(txid, None)
        self.refusals.pop(txid, None)
        self._publish(TransactionConfirmed(txid=txid, height=height, kind=BROADCAST_KINDS[record.kind].value))

    def _on_conflict(self, txid: Txid, winner: Txid, height: BlockHeight) -> None:
        record = self._transactions.get(txid)
        if record is None or record.decided_height:
            return
        self._transactions.set(txid, TrackedTransaction(raw=record.raw, kind=record.kind, conflict_height=height))
        self._due.pop(txid, None)
        self.refusals[txid] = f"its input was spent by {winner[::-1].hex()}"

    def on_block(self, height: BlockHeight) -> None:
        """What is deep enough, or can never confirm any more, is forgotten; the rest is broadcast again."""
        for txid, record in self._transactions.items():
            if record.decided_height and height - record.decided_height + 1 >= IRREVOCABLE_DEPTH:
                self._forget(txid)
        self.repeat()

    def on_disconnected(self, fork_height: BlockHeight) -> None:
        """Blocks above are gone: what they decided is open again."""
        for txid, record in self._transactions.items():
            if record.decided_height > fork_height:
                self._transactions.set(txid, TrackedTransaction(raw=record.raw, kind=record.kind))
                self._due[txid] = None
                self.refusals.pop(txid, None)
                if record.confirmed_height:
                    self._publish(TransactionUnconfirmed(txid=txid, kind=BROADCAST_KINDS[record.kind].value))

    # -- turn ------------------------------------------------------------------------------------------------------

    def end_turn(self) -> bool:
        return False

    def write(self, journal: Journal) -> None:
        self._transactions.write(journal)

    def rollback(self) -> None:
        self._transactions.rollback()
        self._spenders = None
        self._due.clear()
        self.repeat()

    def commit(self) -> None:
        """The turn is durable: what is due leaves now, to every broadcaster on its own."""
        self._transactions.commit()
        due, self._due = self._due, {}
        for txid in due:
            record = self._transactions.get(txid)
            if record is None or record.decided_height:
                continue
            tx = parse_transaction(record.raw)
            package = (*self._parents(tx), tx)
            for broadcaster in self._broadcasters:
                self._send(broadcaster, package, BROADCAST_KINDS[record.kind])

    def _parents(self, tx: Transaction) -> tuple[Transaction, ...]:
        """Tracked transactions that it builds on and that no block has: it may pay for them.

        None if they build on each other, for nodes take no such package.
        """
        records = {txin.prevout.txid: self._transactions.get(txin.prevout.txid) for txin in tx.inputs}
        parents = [parse_transaction(r.raw) for r in records.values() if r is not None and not r.decided_height]
        nested = any(txin.prevout.txid in records for parent in parents for txin in parent.inputs)
        return () if nested else tuple(parents)

    def kind(self, txid: Txid) -> BroadcastKind | None:
        """Why a transaction is tracked; ``None`` if it is not, or if a block has it or what excludes it."""
        record = self._transactions.get(txid)
        return None if record is None or record.decided_height else BROADCAST_KINDS[record.kind]

    def _send(self, broadcaster: Broadcaster, package: Sequence[Transaction], kind: BroadcastKind) -> None:
        txid = package[-1].txid

        def done(result: BroadcastResult | None, error: BaseException | None) -> None:
            reason = str(error) if result is None else result.reason
            if result is not None and result.accepted:
                self.refusals.pop(txid, None)
            elif self.refusals.get(txid) != reason:
                self.refusals[txid] = reason
                log.warning("broadcast_refused", txid=txid[::-1].hex(), kind=kind.value, reason=reason)

        self._caller.call(broadcaster, broadcaster.broadcast(package, kind), done, f"broadcast {kind.value}")
