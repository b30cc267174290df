"""Owns a transaction from the moment it is decided until its effect is irrevocable, and repeats it meanwhile."""

from collections.abc import Callable, Sequence

import msgspec
import structlog
from msgspec.structs import replace

from leyden.bitcoin import Transaction, parse_transaction
from leyden.hooks.services import Broadcaster
from leyden.hooks.types import (
    BroadcastKind,
    BroadcastRefusal,
    BroadcastResult,
    TransactionConfirmed,
    TransactionUnconfirmed,
)
from leyden.node import keyspace
from leyden.node.host import Caller
from leyden.node.journal import Journal, Table
from leyden.node.rows import BROADCAST_KINDS, TRANSACTION, TrackedTransaction
from leyden.types import BlockHeight, OutPoint, Txid, clean_text

log = structlog.get_logger("leyden.txtracker")

IRREVOCABLE_DEPTH = 6
RETAINED_DEPTH = 144
"""How deep a transaction of ours, or what excludes it, must be before it is forgotten: a reorg may go deeper than what
counts as final."""
PATIENCE_SECONDS = 120.0
"""A broadcaster that has not answered by then may be asked about the same transaction again."""
_MEANING = {
    BroadcastRefusal.UNAVAILABLE: "nobody could be asked",
    BroadcastRefusal.LOW_FEE: "it pays too little fee for now",
    BroadcastRefusal.CONFLICT: "another transaction in the mempool spends its coin and cannot be replaced by it",
    BroadcastRefusal.MISSING_INPUTS: "a coin that it spends is not there: unknown yet, or spent",
    BroadcastRefusal.TOO_EARLY: "it is not valid before a later block",
    BroadcastRefusal.INVALID: "it breaks a rule of the network",
}


class BroadcastReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one broadcaster said last. ``reason`` is empty if it took the transaction."""

    broadcaster: str
    accepted: bool
    reason: str = ""
    refusal: BroadcastRefusal = BroadcastRefusal.OTHER


class TxTracker:
    """Repeats on start, on each block and on a timer; remembers in memory what every broadcaster said."""

    def __init__(
        self,
        broadcasters: Sequence[tuple[str, Broadcaster]],
        caller: Caller,
        publish: Callable[[TransactionConfirmed | TransactionUnconfirmed], None],
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._broadcasters = broadcasters
        self._caller = caller
        self._publish = publish
        self._now = now
        self._asked: dict[tuple[Txid, str], float] = {}
        """When a broadcaster that has not answered yet was asked."""
        self._reports: dict[Txid, dict[str, BroadcastReport]] = {}
        self._lost: dict[Txid, str] = {}
        """Why a transaction cannot confirm as things stand: another one took its coin."""
        self._transactions: Table[Txid, TrackedTransaction] = Table(
            keyspace.TRANSACTION, lambda txid: txid, TRANSACTION.encode, TRANSACTION.decode
        )
        self._due: dict[Txid, None] = {}
        self.height = BlockHeight(0)
        """Of the newest block that was told."""
        self._spenders: dict[OutPoint, set[Txid]] | None = None
        """Which tracked transactions spend an output; rebuilt when the table changes."""
        self.on_ruled_out: Callable[[Txid, str], None] = lambda _txid, _claim: None
        """Told of each transaction that is forgotten because it can never confirm, and of the claim on its coins."""

    def load(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        self._transactions.load((Txid(key[1:]), value) for key, value in rows)
        self.repeat()

    def track(self, tx: Transaction, kind: BroadcastKind, claim: str = "") -> None:
        """Durable with this turn's commit; broadcast right after it and again until confirmed.

        ``claim``: of the wallet, on the coins that it spends. It is held over restarts, and ``on_ruled_out`` names it.
        """
        txid = tx.txid
        if txid not in self._transactions:
            record = TrackedTransaction(raw=tx.serialize(), kind=BROADCAST_KINDS.index(kind), claim=claim)
            self._transactions.set(txid, record)
            self._spenders = None
        self._due[txid] = None

    def _forget(self, txid: Txid) -> None:
        self._transactions.delete(txid)
        self._forgive(txid)
        self._due.pop(txid, None)
        self._spenders = None

    def _forgive(self, txid: Txid) -> None:
        """What was said about it is of no interest any more."""
        self._reports.pop(txid, None)
        self._lost.pop(txid, None)

    def abandon(self, outpoint: OutPoint) -> None:
        """This output will never exist: neither will what spends it, nor what builds on that."""
        for txid in sorted(self._by_input().get(outpoint, ())):
            record = self._transactions.get(txid)
            if record is None or record.confirmed_height:
                continue
            log.info("transaction_given_up", txid=txid[::-1].hex(), kind=BROADCAST_KINDS[record.kind].value)
            self._rule_out(txid, record)

    def _rule_out(self, txid: Txid, record: TrackedTransaction) -> None:
        tx = parse_transaction(record.raw)
        self._forget(txid)
        self.on_ruled_out(txid, record.claim)
        for vout in range(len(tx.outputs)):
            self.abandon(OutPoint(txid, vout))

    def claims(self) -> frozenset[str]:
        """Under which the wallet holds coins of what is tracked, also of what has lost a coin not very deep."""
        return frozenset(record.claim for record in self._transactions.values() if record.claim)

    def may_spend(self, outpoint: OutPoint) -> bool:
        """A transaction of ours that still waits for a block spends it, so that another one may replace that."""
        return any(self.kind(txid) is not None for txid in self._by_input().get(outpoint, ()))

    def is_tracked(self, txid: Txid) -> bool:
        """Until its effect is irrevocable."""
        record = self._transactions.get(txid)
        return record is not None and not self._is_over(record)

    def pending(self) -> list[tuple[Txid, BroadcastKind, int]]:
        """txid, kind and confirmation height (0: none) of everything tracked."""
        return [
            (txid, BROADCAST_KINDS[r.kind], r.confirmed_height)
            for txid, r in self._transactions.items()
            if not self._is_over(r)
        ]

    def _is_over(self, record: TrackedTransaction) -> bool:
        """Nothing is expected of it any more: it is irrevocable, or something excludes it or what it builds on."""
        if self._is_final(record):
            return True
        parents = {self._transactions.get(txin.prevout.txid) for txin in parse_transaction(record.raw).inputs}
        return any(parent is not None and not parent.confirmed_height and self._is_over(parent) for parent in parents)

    def _is_final(self, record: TrackedTransaction, depth: int = IRREVOCABLE_DEPTH) -> bool:
        return record.decided_height > 0 and self.height - record.decided_height + 1 >= depth

    def reports(self, txid: Txid) -> tuple[BroadcastReport, ...]:
        """What each broadcaster said last about a transaction that waits, in their order."""
        said = self._reports.get(txid, {})
        return tuple(said[name] for name, _ in self._broadcasters if name in said)

    @property
    def refusals(self) -> dict[Txid, str]:
        """Why a transaction is not on its way to a block, in one line each."""
        found = {}
        for txid, record in self._transactions.items():
            if self._is_over(record):
                continue
            if txid in self._lost:
                found[txid] = self._lost[txid]
            elif texts := [_refusal_text(report) for report in self.reports(txid) if not report.accepted]:
                found[txid] = "; ".join(texts)
        return found

    def repeat(self) -> None:
        """Broadcast everything unconfirmed again after the next commit."""
        for txid, record in self._transactions.items():
            if not record.decided_height and not self._is_over(record):
                self._due[txid] = None

    def repeat_hopeful(self) -> None:
        """As ``repeat``, between blocks: without what every broadcaster calls invalid, for nothing has changed."""
        for txid, record in self._transactions.items():
            reports = self.reports(txid)
            hopeless = bool(reports) and all(report.refusal is BroadcastRefusal.INVALID for report in reports)
            if not record.decided_height and not hopeless and not self._is_over(record):
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
        self._transactions.set(txid, replace(record, confirmed_height=height, conflict_height=0))
        self._due.pop(txid, None)
        self._forgive(txid)
        self._publish(TransactionConfirmed(txid=txid, height=height, kind=BROADCAST_KINDS[record.kind].value))

    def _on_conflict(self, txid: Txid, winner: Txid, height: BlockHeight) -> None:
        record = self._transactions.get(txid)
        if record is None or record.decided_height:
            return
        self._transactions.set(txid, replace(record, conflict_height=height))
        self._due.pop(txid, None)
        self._reports.pop(txid, None)
        self._lost[txid] = f"its input was spent by {winner[::-1].hex()}"

    def on_block(self, height: BlockHeight, *, at_tip: bool = True) -> None:
        """What is very deep, or can never confirm any more, is forgotten; what has no block is broadcast again (in a
        catch-up only at its end)."""
        self.height = height
        for txid, record in self._transactions.items():
            if not self._is_final(record, RETAINED_DEPTH):
                continue
            if record.conflict_height:
                self._rule_out(txid, record)
            else:
                self._forget(txid)
        if at_tip:
            self.repeat()

    def on_disconnected(self, fork_height: BlockHeight) -> None:
        """Blocks above are gone: what they decided is open again."""
        self.height = min(self.height, fork_height)
        for txid, record in self._transactions.items():
            if record.decided_height > fork_height:
                self._transactions.set(txid, replace(record, confirmed_height=0, conflict_height=0))
                self._due[txid] = None
                self._forgive(txid)
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
            for name, broadcaster in self._broadcasters:
                self._send(name, broadcaster, package, BROADCAST_KINDS[record.kind])

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

    def _send(self, name: str, broadcaster: Broadcaster, package: Sequence[Transaction], kind: BroadcastKind) -> None:
        """To one broadcaster, whatever the others do; not again while it still thinks about the same transaction."""
        txid = package[-1].txid
        now = self._now()
        asked = self._asked.get((txid, name))
        if asked is not None and now - asked < PATIENCE_SECONDS:
            return
        self._asked[txid, name] = now

        def done(result: BroadcastResult | None, error: BaseException | None) -> None:
            self._asked.pop((txid, name), None)
            if txid in self._transactions:
                self._on_answer(txid, kind, _report(name, result, error))

        self._caller.call(broadcaster, _submit(broadcaster, package, kind), done, f"broadcast {kind.value} over {name}")

    def _on_answer(self, txid: Txid, kind: BroadcastKind, report: BroadcastReport) -> None:
        said = self._reports.setdefault(txid, {})
        before = said.get(report.broadcaster)
        said[report.broadcaster] = report
        if report.accepted or before == report:
            return
        log.warning("broadcast_refused", txid=txid[::-1].hex(), kind=kind.value, reason=_refusal_text(report))


async def _submit(broadcaster: Broadcaster, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
    """One that raises at once, or is not even asynchronous, fails alone like any other."""
    return await broadcaster.broadcast(package, kind)


def _report(name: str, result: BroadcastResult | None, error: BaseException | None) -> BroadcastReport:
    if isinstance(result, BroadcastResult):
        reason = "" if result.accepted else clean_text(result.reason)
        return BroadcastReport(broadcaster=name, accepted=result.accepted, reason=reason, refusal=result.refusal)
    reason = f"{type(error).__name__}: {error}" if error is not None else f"it answered with a {type(result).__name__}"
    return BroadcastReport(
        broadcaster=name, accepted=False, reason=clean_text(reason), refusal=BroadcastRefusal.UNAVAILABLE
    )


def _refusal_text(report: BroadcastReport) -> str:
    """Who refused, what that means and in which words it was said."""
    meaning = _MEANING.get(report.refusal, "")
    said = f"{meaning} ({report.reason})" if meaning and report.reason else meaning or report.reason
    return f"{report.broadcaster}: {said}"
