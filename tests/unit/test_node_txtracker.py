"""TxTracker: owns a transaction until it is irrevocable or impossible, repeats it, and knows why nobody takes it."""

from collections.abc import Sequence
from typing import Any

import pytest
from leyden.bitcoin import Transaction, TxIn, TxOut
from leyden.hooks.types import (
    BroadcastKind,
    BroadcastRefusal,
    BroadcastResult,
    TransactionConfirmed,
    TransactionUnconfirmed,
)
from leyden.node.host import Caller
from leyden.node.journal import Journal
from leyden.node.txtracker import IRREVOCABLE_DEPTH, PATIENCE_SECONDS, RETAINED_DEPTH, TxTracker
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
        self.why = BroadcastRefusal.OTHER

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        self.got += [tx.txid for tx in package]
        if self.refusal == "crash":
            raise ConnectionError("no node there")
        return BroadcastResult(accepted=not self.refusal, reason=self.refusal, refusal=self.why)


class Rig:
    def __init__(self, *mempools: Mempool) -> None:
        self.mempools = mempools
        self.events: list[TransactionConfirmed | TransactionUnconfirmed] = []
        self.rows: dict[bytes, bytes] = {}
        self.restart()

    def restart(self) -> None:
        host: Any = None  # never asked: every broadcaster here answers inline
        caller = Caller(host, lambda work: work())
        named = [(f"node{number}", mempool) for number, mempool in enumerate(self.mempools)]
        self.tracker = TxTracker(named, caller, self.events.append)
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
    assert rig.tracker.pending() == []
    assert rig.block(100 + RETAINED_DEPTH - 2) == []
    assert rig.rows != {}  # for a reorg that nobody expects
    assert rig.block(100 + RETAINED_DEPTH - 1) == []
    assert rig.rows == {}


def test_a_reorg_deeper_than_what_counts_as_final_puts_it_back_too(rig: Rig) -> None:
    """The mempool of a backend need not have it any more: nobody else would repeat it."""
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.FUNDING)
    rig.turn()
    rig.block(100, tx)
    rig.block(100 + 2 * IRREVOCABLE_DEPTH)
    rig.restart()
    rig.tracker.height = BlockHeight(100 + 2 * IRREVOCABLE_DEPTH)
    assert rig.tracker.pending() == []
    assert rig.turn() == []
    rig.tracker.on_disconnected(BlockHeight(99))
    assert rig.events[-1] == TransactionUnconfirmed(txid=tx.txid, kind="funding")
    assert rig.turn() == [tx.txid]
    assert rig.tracker.pending() == [(tx.txid, BroadcastKind.FUNDING, 0)]
    assert rig.block(100) == [tx.txid]


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
    assert rig.tracker.pending() == []
    assert rig.tracker.refusals == {}
    rig.block(101 + RETAINED_DEPTH - 2)
    assert len(rig.rows) == 1
    rig.block(101 + RETAINED_DEPTH - 1)
    assert rig.rows == {}
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


class Blunt:
    """A broadcaster that is no coroutine function and raises at once."""

    inline = True

    def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        raise ValueError("bad plugin")


class Odd:
    inline = True

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> Any:
        return "yes"


def test_every_broadcaster_is_reported_with_its_reason_and_what_that_means() -> None:
    cheap, good = Mempool(), Mempool()
    cheap.refusal, cheap.why = "min relay fee not met", BroadcastRefusal.LOW_FEE
    rig = Rig(cheap, Blunt(), Odd(), good)
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.SWEEP)
    rig.turn()
    assert good.got == [tx.txid]
    assert [(said.broadcaster, said.accepted) for said in rig.tracker.reports(tx.txid)] == [
        ("node0", False),
        ("node1", False),
        ("node2", False),
        ("node3", True),
    ]
    assert rig.tracker.refusals[tx.txid].split("; ") == [
        "node0: it pays too little fee for now (min relay fee not met)",
        "node1: nobody could be asked (ValueError: bad plugin)",
        "node2: nobody could be asked (it answered with a str)",
    ]
    cheap.refusal, cheap.why = "txn-mempool-conflict", BroadcastRefusal.CONFLICT
    rig.block(100)
    assert "another transaction in the mempool spends its coin" in rig.tracker.refusals[tx.txid]


def test_what_is_invalid_is_not_repeated_between_blocks(rig: Rig) -> None:
    tx, other = make(1000), make(900, OTHER_COIN)
    rig.mempools[0].refusal, rig.mempools[0].why = "bad-txns", BroadcastRefusal.INVALID
    rig.tracker.track(tx, BroadcastKind.SWEEP)
    rig.turn()
    rig.mempools[0].refusal = "too cheap"
    rig.mempools[0].why = BroadcastRefusal.LOW_FEE
    rig.tracker.track(other, BroadcastKind.SWEEP)
    rig.turn()
    rig.tracker.repeat_hopeful()
    assert rig.turn() == [other.txid]
    assert set(rig.block(100)) == {tx.txid, other.txid}


def test_what_spends_an_output_that_will_never_exist_is_given_up(rig: Rig) -> None:
    """The commitment of a channel that was never funded, and the sweep that builds on it."""
    commitment = make(1000)
    sweep = make(900, OutPoint(commitment.txid, 0))
    unrelated = make(800, OTHER_COIN)
    for tx in (commitment, sweep, unrelated):
        rig.tracker.track(tx, BroadcastKind.SWEEP)
    rig.turn()
    rig.tracker.abandon(COIN)
    rig.tracker.abandon(COIN)
    rig.turn()
    assert [txid for txid, _, _ in rig.tracker.pending()] == [unrelated.txid]
    assert len(rig.rows) == 1


def test_what_builds_on_a_loser_is_given_up_with_it_and_not_before(rig: Rig) -> None:
    loser, winner = make(1000), make(2000)
    child = make(900, OutPoint(loser.txid, 0))
    rig.tracker.track(loser, BroadcastKind.FUNDING)
    rig.tracker.track(child, BroadcastKind.UNILATERAL_CLOSE)
    rig.turn()
    rig.block(100, winner)
    rig.block(104)
    assert rig.tracker.is_tracked(child.txid)  # a reorg may bring the loser back
    rig.block(105)
    assert rig.tracker.pending() == []


def test_nothing_is_repeated_for_each_block_of_a_catch_up(rig: Rig) -> None:
    tx = make(1000)
    rig.tracker.track(tx, BroadcastKind.SWEEP)
    rig.turn()
    for height in range(100, 110):
        rig.tracker.on_block(BlockHeight(height), at_tip=False)
        assert rig.turn() == []
    assert rig.block(110) == [tx.txid]


class Slow:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked = 0

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        return BroadcastResult(accepted=True)


class LateHost:
    def __init__(self) -> None:
        self.waiting: list[tuple[Any, Any]] = []

    def spawn(self, work: Any, done: Any, name: str) -> None:
        self.waiting.append((work, done))


def test_a_broadcaster_that_thinks_is_not_asked_again_before_its_patience_is_over() -> None:
    host, clock = LateHost(), [0.0]
    tracker = TxTracker([("slow", Slow())], Caller(host, lambda work: work()), lambda _: None, lambda: clock[0])
    tx = make(1000)
    tracker.track(tx, BroadcastKind.SWEEP)
    tracker.commit()
    for _ in range(3):
        tracker.repeat()
        tracker.commit()
    assert len(host.waiting) == 1
    work, done = host.waiting[0]
    work.close()
    done(BroadcastResult(accepted=True), None)
    tracker.repeat()
    tracker.commit()
    assert len(host.waiting) == 2
    clock[0] = PATIENCE_SECONDS + 1
    tracker.repeat()
    tracker.commit()
    assert len(host.waiting) == 3
    for work, _ in host.waiting[1:]:
        work.close()


def test_a_loser_is_back_after_a_reorg_deeper_than_what_counts_as_final(rig: Rig) -> None:
    """A miner confirms an old state, waits until our transaction is forgotten, and takes the block back."""
    ours, theirs = make(900), make(800)
    child = make(700, OutPoint(ours.txid, 0))
    rig.tracker.track(ours, BroadcastKind.UNILATERAL_CLOSE)
    rig.tracker.track(child, BroadcastKind.SWEEP)
    rig.turn()
    rig.block(100, theirs)
    for height in range(101, 100 + 2 * IRREVOCABLE_DEPTH):
        assert rig.block(height) == [] or height < 100 + IRREVOCABLE_DEPTH - 1  # nobody takes the child
    assert rig.tracker.pending() == []
    assert not rig.tracker.is_tracked(ours.txid)
    assert not rig.tracker.is_tracked(child.txid)
    rig.restart()
    rig.tracker.height = BlockHeight(100 + 2 * IRREVOCABLE_DEPTH - 1)
    rig.tracker.on_disconnected(BlockHeight(99))
    assert rig.turn().count(ours.txid) >= 1
    assert {txid for txid, _, _ in rig.tracker.pending()} == {ours.txid, child.txid}
