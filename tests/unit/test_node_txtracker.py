"""TxTracker: owns a transaction until it is irrevocable or impossible, repeats it, and knows why nobody takes it."""

from collections.abc import Sequence
from typing import Any

import pytest
from leyden.bitcoin import Transaction, TxIn, TxOut
from leyden.hooks.types import BroadcastKind, BroadcastResult, TransactionConfirmed, TransactionUnconfirmed
from leyden.node.host import Caller
from leyden.node.journal import Journal
from leyden.node.txtracker import IRREVOCABLE_DEPTH, TxTracker
from leyden.types import BlockHeight, OutPoint, Sat, Txid

COIN = OutPoint(Txid(b"\x01" * 32), 0)
OTHER_COIN = OutPoint(Txid(b"\x02" * 32), 1)


def make(value: int, *coins: OutPoint) -> Transaction:
    return Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=coin, sequence=0) for coin in coins or (COIN,)),
        outputs=(TxOut(value=Sat(value), script=b"\x00\x14" + bytes(20)),),
        locktime=0,
    )


class Mempool:
    inline = True

    def __init__(self) -> None:
        self.got: list[Txid] = []
        self.refusal = ""

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        self.got += [tx.txid for tx in package]
        if self.refusal == "crash":
            raise ConnectionError("no node there")
        return BroadcastResult(accepted=not self.refusal, reason=self.refusal)


class Rig:
    def __init__(self, *mempools: Mempool) -> None:
        self.mempools = mempools
        self.events: list[TransactionConfirmed | TransactionUnconfirmed] = []
        self.rows: dict[bytes, bytes] = {}
        self.restart()

    def restart(self) -> None:
        host: Any = None  # never asked: every broadcaster here answers inline
        caller = Caller(host, lambda work: work())
        self.tracker = TxTracker(self.mempools, caller, self.events.append)
        self.tracker.load(sorted(self.rows.items()))

    def turn(self) -> list[Txid]:
        """End the turn; what the first mempool got in it."""
        before = len(self.mempools[0].got)
        journal = Journal()
        self.tracker.write(journal)
        changes = journal.take()
        self.rows.update(changes.puts)
        for key in changes.deletes:
            self.rows.pop(key, None)
        self.tracker.commit()
        return self.mempools[0].got[before:]

    def block(self, height: int, *transactions: Transaction) -> list[Txid]:
        self.tracker.on_transactions(transactions, BlockHeight(height))
        self.tracker.on_block(BlockHeight(height))
        return self.turn()


@pytest.fixture
def rig() -> Rig:
    return Rig(Mempool())


def test_nothing_leaves_before_the_commit(rig: Rig) -> None:
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.FUNDING)
    assert rig.mempools[0].got == []
    assert rig.turn() == [tx.txid]
    assert len(rig.rows) == 1
    assert rig.turn() == []


def test_a_dropped_turn_broadcasts_nothing(rig: Rig) -> None:
    rig.tracker.track(make(1000), BroadcastKind.FUNDING)
    rig.tracker.rollback()
    assert rig.turn() == []
    assert rig.tracker.pending() == []


def test_repeated_on_start_on_each_block_and_on_request(rig: Rig) -> None:
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.FUNDING)
    rig.turn()
    assert rig.block(100) == [tx.txid]
    rig.restart()
    assert rig.turn() == [tx.txid]
    rig.tracker.repeat()
    assert rig.turn() == [tx.txid]
    assert rig.tracker.pending() == [(tx.txid, BroadcastKind.FUNDING, 0)]


def test_confirmed_then_irrevocable_then_forgotten(rig: Rig) -> None:
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.FUNDING)
    rig.turn()
    assert rig.block(100, tx) == []
    assert rig.events == [TransactionConfirmed(txid=tx.txid, height=BlockHeight(100), kind="funding")]
    for height in range(101, 100 + IRREVOCABLE_DEPTH - 1):
        assert rig.block(height) == []
        assert rig.tracker.is_tracked(tx.txid)
    rig.block(100 + IRREVOCABLE_DEPTH - 1)
    assert not rig.tracker.is_tracked(tx.txid)
    assert rig.rows == {}


def test_a_reorg_puts_it_back(rig: Rig) -> None:
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.SWEEP)
    rig.turn()
    rig.block(100, tx)
    rig.tracker.on_disconnected(BlockHeight(100))  # its own block stays
    assert rig.turn() == []
    rig.tracker.on_disconnected(BlockHeight(99))
    assert rig.turn() == [tx.txid]
    assert rig.events[-1] == TransactionUnconfirmed(txid=tx.txid, kind="sweep")
    rig.block(101, tx)
    assert rig.tracker.pending() == [(tx.txid, BroadcastKind.SWEEP, 101)]
    rig.restart()
    assert rig.tracker.pending() == [(tx.txid, BroadcastKind.SWEEP, 101)]
    assert rig.turn() == []


def test_told_twice_changes_nothing(rig: Rig) -> None:
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.SWEEP)
    rig.turn()
    rig.block(100, tx)
    rig.tracker.on_transactions([tx], BlockHeight(100))
    rig.turn()
    assert len(rig.events) == 1


def test_one_that_can_never_confirm_is_not_repeated_and_forgotten_when_that_is_final(rig: Rig) -> None:
    """Our commitment against the peer's: the peer's is in the chain."""
    ours, theirs = make(1000, COIN, OTHER_COIN), make(2000)
    rig.tracker.track(ours, BroadcastKind.UNILATERAL_CLOSE)
    rig.turn()
    assert rig.block(100, theirs) == []
    assert theirs.txid[::-1].hex() in rig.tracker.refusals[ours.txid]
    rig.restart()
    assert rig.turn() == []
    assert rig.block(103) == []
    rig.tracker.on_disconnected(BlockHeight(99))  # theirs is out again: ours may still win
    assert rig.turn() == [ours.txid]
    assert ours.txid not in rig.tracker.refusals
    rig.block(101, theirs)
    rig.block(106)
    assert rig.rows == {}
    assert rig.tracker.refusals == {}
    assert rig.events == []


def test_both_of_a_conflict_may_be_ours(rig: Rig) -> None:
    first, second = make(1000), make(900)
    rig.tracker.track(first, BroadcastKind.SWEEP)
    rig.tracker.track(second, BroadcastKind.SWEEP)
    rig.turn()
    assert rig.block(100, second) == []
    assert [event.txid for event in rig.events] == [second.txid]
    rig.block(105)
    assert rig.tracker.pending() == []


@pytest.mark.parametrize(("refusal", "shown"), [("too cheap", "too cheap"), ("crash", "no node there")])
def test_why_a_broadcaster_says_no(refusal: str, shown: str) -> None:
    stubborn, other = Mempool(), Mempool()
    stubborn.refusal = refusal
    rig = Rig(stubborn, other)
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.WALLET)
    rig.turn()
    assert other.got == [tx.txid]  # each on its own
    stubborn.refusal = ""
    rig = Rig(stubborn)
    rig.tracker.track(tx, BroadcastKind.WALLET)
    stubborn.refusal = refusal
    rig.turn()
    assert shown in rig.tracker.refusals[tx.txid]
    stubborn.refusal = ""
    rig.block(100)
    assert rig.tracker.refusals == {}
