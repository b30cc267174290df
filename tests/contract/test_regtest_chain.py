"""The embedded chain against the real kernel: mining, mempool, replacement, packages, locktimes, reorgs, restarts."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.bitcoin import SEQUENCE_FINAL, SEQUENCE_RBF, Transaction, TxIn, TxOut, p2wpkh, p2wsh, push_int
from leyden.hooks.types import UtxoFound, UtxoSpent, UtxoUnknown
from leyden.testing.kernel import first_failing_input, verify_transaction
from leyden.types import BlockHeight, LeydenError, OutPoint, Sat
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.errors import BlockRefused, ChainError, TransactionRefused
from leyden_regtest.miner import mine_block, subsidy

ANYONE = b"\x51"
ANYONE_OUT = p2wsh(ANYONE)
MEMBER = p2wpkh(b"\x02" * 33)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmbeddedChain]:
    with EmbeddedChain(tmp_path / "chain") as chain:
        yield chain


def coin(chain: EmbeddedChain, sat: int = 100_000, script: bytes = ANYONE_OUT, *, confirmed: bool = True) -> OutPoint:
    tx = chain.faucet(script, Sat(sat))
    if confirmed:
        chain.mine()
    return OutPoint(tx.txid, next(i for i, out in enumerate(tx.outputs) if out.script == script))


def spend(
    *outpoints: OutPoint,
    sat: int,
    script: bytes = ANYONE_OUT,
    witness: tuple[bytes, ...] = (ANYONE,),
    sequence: int = SEQUENCE_RBF,
    locktime: int = 0,
    version: int = 2,
    outputs: int = 1,
) -> Transaction:
    inputs = tuple(TxIn(prevout=outpoint, sequence=sequence, witness=witness) for outpoint in outpoints)
    paid = (TxOut(value=Sat(sat), script=script),) * outputs
    return Transaction(version=version, inputs=inputs, outputs=paid, locktime=locktime)


def refused(chain: EmbeddedChain, *package: Transaction) -> str:
    with pytest.raises(TransactionRefused) as caught:
        chain.submit(package)
    return caught.value.code


# -- mining ----------------------------------------------------------------------------------------------------------


def test_a_new_chain_has_mature_coins_and_pays(chain: EmbeddedChain) -> None:
    assert chain.height == 110
    tx = chain.faucet(MEMBER, Sat(12_345))
    assert chain.find_transaction(tx.txid) == (tx, None)
    assert isinstance(chain.find_utxo(OutPoint(tx.txid, 0)), UtxoUnknown)
    chain.mine(2)
    assert chain.find_transaction(tx.txid) == (tx, 111)
    found = chain.find_utxo(OutPoint(tx.txid, 0))
    assert found == UtxoFound(output=TxOut(value=Sat(12_345), script=MEMBER), height=BlockHeight(111))
    assert chain.find_utxo(tx.inputs[0].prevout) == UtxoSpent()
    assert chain.spender_of(tx.inputs[0].prevout) == tx.txid


def test_the_miner_takes_subsidy_and_fees(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    chain.submit([spend(outpoint, sat=95_000)])
    chain.mine(1, MEMBER)
    coinbase = chain.block_at(chain.height).block.transactions[0]
    assert coinbase.outputs[0] == TxOut(value=Sat(subsidy(chain.height) + 5_000), script=MEMBER)


def test_subsidy_halves_as_consensus_wants(chain: EmbeddedChain) -> None:
    chain.mine(200)  # over two halvings: one satoshi too much and the kernel refuses
    assert chain.height == 310
    assert subsidy(BlockHeight(149)) == 2 * subsidy(BlockHeight(150)) == 4 * subsidy(BlockHeight(300))


@pytest.mark.parametrize(
    ("breach", "reason"),
    [
        ("inflation", "bad-txns-in-belowout"),
        ("no such coin", "bad-txns-inputs-missingorspent"),
        ("script", "script-verify-flag"),
    ],
)
def test_consensus_refuses_bad_blocks_and_the_chain_goes_on(chain: EmbeddedChain, breach: str, reason: str) -> None:
    outpoint = coin(chain)
    before = chain.tip_hash
    bad = {
        "inflation": spend(outpoint, sat=100_001),
        "no such coin": spend(OutPoint(outpoint.txid, 7), sat=1_000),
        "script": spend(outpoint, sat=90_000, witness=(b"\x52",)),
    }[breach]
    with pytest.raises(BlockRefused, match=reason):
        chain.mine_block([bad])
    assert chain.tip_hash == before
    chain.mine()
    assert chain.height == 112


def test_consensus_refuses_a_greedy_miner(chain: EmbeddedChain) -> None:
    height = BlockHeight(chain.height + 1)
    with pytest.raises(BlockRefused, match="bad-cb-amount"):
        chain.submit_block(mine_block(chain.tip_hash, height, (), fees=Sat(1), script=MEMBER, extra=99))
    assert chain.height == 110


def test_garbage_is_no_block(chain: EmbeddedChain) -> None:
    with pytest.raises(ChainError, match="not a block"):
        chain.submit_block(b"garbage")


# -- mempool ---------------------------------------------------------------------------------------------------------


def test_what_the_mempool_refuses(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    assert refused(chain, spend(outpoint, sat=100_001)) == "bad-txns-in-belowout"
    assert refused(chain, spend(OutPoint(outpoint.txid, 9), sat=1_000)) == "bad-txns-inputs-missingorspent"
    assert refused(chain, spend(outpoint, sat=329)) == "dust"
    assert refused(chain, spend(outpoint, sat=330, witness=(b"\x52",))) == "mandatory-script-verify-flag-failed"
    assert refused(chain, spend(outpoint, sat=99_999)) == "min relay fee not met"
    assert refused(chain, spend(outpoint, sat=90_000, version=4)) == "version"
    assert refused(chain, spend(outpoint, outpoint, sat=90_000)) == "bad-txns-inputs-duplicate"
    immature = OutPoint(chain.block_at(50).block.transactions[0].txid, 0)
    assert refused(chain, spend(immature, sat=1_000)) == "bad-txns-premature-spend-of-coinbase"
    assert chain.mempool.entries == {}
    chain.mine()  # nothing of it was left where it could spoil a block


def test_a_known_transaction_is_accepted_again(chain: EmbeddedChain) -> None:
    tx = spend(coin(chain), sat=90_000)
    chain.submit([tx])
    chain.submit([tx])
    chain.mine()
    chain.submit([tx])
    assert chain.mempool.entries == {}


def test_chains_of_unconfirmed_transactions_are_mined_in_order(chain: EmbeddedChain) -> None:
    parent = spend(coin(chain, confirmed=False), sat=90_000)
    child = spend(OutPoint(parent.txid, 0), sat=80_000)
    chain.submit([parent])
    chain.submit([child])
    chain.mine()
    assert [tx.txid for tx in chain.block_at(chain.height).block.transactions[-2:]] == [parent.txid, child.txid]


def test_absolute_locktime_waits_for_its_height(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    tx = spend(outpoint, sat=90_000, locktime=chain.height + 2)
    assert refused(chain, tx) == "non-final"
    with pytest.raises(BlockRefused, match="bad-txns-nonfinal"):
        chain.mine_block([tx])
    final = spend(outpoint, sat=90_000, locktime=chain.height + 50, sequence=SEQUENCE_FINAL)
    chain.mempool.submit([final])
    chain.mempool.keep_only([])
    chain.mine(2)
    chain.submit([tx])
    chain.mine()
    assert chain.find_utxo(outpoint) == UtxoSpent()


def test_locktime_by_time_uses_the_median_of_the_past(chain: EmbeddedChain) -> None:
    median = chain.block_at(chain.height - 5).block.header.time
    outpoint = coin(chain)  # one block later, so the median has moved to the next header
    edge = chain.block_at(chain.height - 5).block.header.time
    assert edge == median + 600
    assert refused(chain, spend(outpoint, sat=90_000, locktime=edge)) == "non-final"
    with pytest.raises(BlockRefused):
        chain.mine_block([spend(outpoint, sat=90_000, locktime=edge)])
    chain.submit([spend(outpoint, sat=90_000, locktime=edge - 1)])
    chain.mine()


@pytest.mark.parametrize("delta", [1, 2, 5])
def test_relative_locktime_by_height(chain: EmbeddedChain, delta: int) -> None:
    script = push_int(delta) + b"\xb2"  # OP_CHECKSEQUENCEVERIFY leaves the number: true
    outpoint = coin(chain, script=p2wsh(script), confirmed=False)
    tx = spend(outpoint, sat=90_000, witness=(script,), sequence=delta)
    for _ in range(delta):
        assert refused(chain, tx) == "non-BIP68-final"
        chain.mine()
    chain.submit([tx])
    chain.mine()
    assert chain.find_utxo(outpoint) == UtxoSpent()


def test_relative_locktime_agrees_with_consensus_at_the_edge(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    early = spend(outpoint, sat=90_000, sequence=2)
    with pytest.raises(BlockRefused, match="bad-txns-nonfinal"):
        chain.mine_block([early])
    chain.mine()
    chain.mine_block([early])


def test_relative_locktime_by_time_agrees_with_consensus(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    tx = spend(outpoint, sat=90_000, sequence=1 << 22 | 3)  # 1,536 seconds: three blocks of 600
    for _ in range(2):
        assert refused(chain, tx) == "non-BIP68-final"
        with pytest.raises(BlockRefused):
            chain.mine_block([tx])
        chain.mine()
    chain.submit([tx])
    chain.mine()
    assert chain.find_utxo(outpoint) == UtxoSpent()


# -- replacement and packages ----------------------------------------------------------------------------------------


def test_replacement_needs_a_higher_fee_and_evicts_descendants(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    first = spend(outpoint, sat=99_000)
    child = spend(OutPoint(first.txid, 0), sat=98_000)
    chain.submit([first])
    chain.submit([child])
    assert refused(chain, spend(outpoint, sat=99_500)) == "insufficient fee"
    assert refused(chain, spend(outpoint, sat=98_000)) == "insufficient fee"  # pays for both, not for its own relay
    assert refused(chain, spend(outpoint, OutPoint(first.txid, 0), sat=99_000)) == "bad-txns-spends-conflicting-tx"
    better = spend(outpoint, sat=97_900)
    chain.submit([better])
    assert list(chain.mempool.entries) == [better.txid]
    chain.mine()
    assert chain.spender_of(outpoint) == better.txid


def test_a_child_pays_for_its_parent_only_in_a_package(chain: EmbeddedChain) -> None:
    parent = spend(coin(chain), sat=100_000)
    child = spend(OutPoint(parent.txid, 0), sat=99_000)
    assert refused(chain, parent) == "min relay fee not met"
    assert refused(chain, child) == "bad-txns-inputs-missingorspent"
    assert refused(chain, parent, spend(OutPoint(parent.txid, 0), sat=99_950)) == "min relay fee not met"
    chain.submit([parent, child])
    chain.mine()
    assert chain.find_transaction(child.txid) == (child, chain.height)


def test_a_stranger_does_not_pay_for_a_parent(chain: EmbeddedChain) -> None:
    parent = spend(coin(chain), sat=100_000)
    stranger = spend(coin(chain), sat=90_000)
    assert refused(chain, parent, stranger) == "min relay fee not met"
    assert list(chain.mempool.entries) == [stranger.txid]


def test_a_package_may_not_conflict_with_itself(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    parent = spend(outpoint, sat=100_000)
    child = spend(OutPoint(parent.txid, 0), outpoint, sat=50_000)
    assert refused(chain, parent, child) == "conflict-in-package"


def test_a_package_replaces_what_it_conflicts_with(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    old = spend(outpoint, sat=99_500)
    parent = spend(outpoint, sat=100_000, sequence=SEQUENCE_FINAL)
    chain.submit([old])
    assert refused(chain, parent, spend(OutPoint(parent.txid, 0), sat=99_400)) == "insufficient fee"
    child = spend(OutPoint(parent.txid, 0), sat=98_000)
    chain.submit([parent, child])
    assert list(chain.mempool.entries) == [parent.txid, child.txid]
    chain.mine()


# -- reorgs ----------------------------------------------------------------------------------------------------------


def test_lost_transactions_return_and_are_mined_again(chain: EmbeddedChain) -> None:
    first = spend(coin(chain, confirmed=False), sat=90_000)
    chain.submit([first])
    chain.mine()
    second = spend(OutPoint(first.txid, 0), sat=80_000)
    chain.submit([second])
    chain.mine()
    third = spend(OutPoint(second.txid, 0), sat=70_000)
    chain.submit([third])
    old = chain.tip_hash
    chain.reorg(2)
    assert chain.height == 113
    assert not chain.is_active(old)
    assert chain.fork_of(old).height == 110
    assert list(chain.mempool.entries)[-3:] == [first.txid, second.txid, third.txid]
    chain.mine()
    assert chain.find_transaction(third.txid) == (third, 114)


def test_a_branch_can_double_spend(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    loser = spend(outpoint, sat=90_000)
    chain.submit([loser])
    chain.mine()
    child = spend(OutPoint(loser.txid, 0), sat=80_000)
    chain.submit([child])
    winner = spend(outpoint, sat=85_000)
    chain.reorg(1, transactions=[winner])
    assert chain.spender_of(outpoint) == winner.txid
    assert chain.mempool.entries == {}
    assert chain.find_transaction(loser.txid) is None


def test_a_reorg_can_forget(chain: EmbeddedChain) -> None:
    outpoint, other = coin(chain), coin(chain)
    chain.submit([spend(outpoint, sat=90_000)])
    chain.mine()
    waiting = spend(other, sat=90_000)
    chain.submit([waiting])
    chain.reorg(1, forget=True)
    assert list(chain.mempool.entries) == [waiting.txid]
    assert isinstance(chain.find_utxo(outpoint), UtxoFound)


def test_an_invalid_branch_changes_nothing(chain: EmbeddedChain) -> None:
    outpoint = coin(chain)
    before, pool = chain.tip_hash, dict(chain.mempool.entries)
    with pytest.raises(BlockRefused):
        chain.reorg(1, transactions=[spend(outpoint, sat=100_001)])
    assert (chain.tip_hash, chain.mempool.entries) == (before, pool)
    chain.mine()


@pytest.mark.parametrize(("depth", "blocks"), [(0, 1), (500, None), (2, 2)])
def test_impossible_reorgs_are_refused(chain: EmbeddedChain, depth: int, blocks: int | None) -> None:
    with pytest.raises(ChainError):
        chain.reorg(depth, blocks)


def test_a_deep_reorg_makes_coinbase_spends_invalid(chain: EmbeddedChain) -> None:
    coin(chain)  # spends the coinbase of block 1, which the branch replaces
    chain.reorg(111)
    assert chain.mempool.entries == {}
    assert chain.height == 112
    chain.faucet(MEMBER, Sat(1_000))
    chain.mine()


# -- faucet, folder --------------------------------------------------------------------------------------------------


def test_the_faucet_pays_many_in_one_block(chain: EmbeddedChain) -> None:
    txs = [chain.faucet(MEMBER, Sat(1_000_000)) for _ in range(40)]
    chain.mine()
    assert all(chain.find_transaction(tx.txid) == (tx, 111) for tx in txs)


def test_the_faucet_says_when_it_cannot_pay(chain: EmbeddedChain) -> None:
    with pytest.raises(ChainError, match="dust"):
        chain.faucet(MEMBER, Sat(100))
    with pytest.raises(ChainError, match="mine more"):
        chain.faucet(MEMBER, Sat(21_000_000 * 100_000_000))


def test_a_restart_finds_the_same_chain(tmp_path: Path) -> None:
    with EmbeddedChain(tmp_path / "c") as chain:
        outpoint = coin(chain)
        chain.mine(3)
        chain.reorg(2)
        tip = chain.tip_hash
    with EmbeddedChain(tmp_path / "c") as chain:
        assert chain.tip_hash == tip
        assert isinstance(chain.find_utxo(outpoint), UtxoFound)
        chain.mine()
        assert chain.height == 116


KILLED = """
import os, signal, sys
from pathlib import Path
from leyden_regtest.chain import EmbeddedChain
chain = EmbeddedChain(Path(sys.argv[1]))
chain.mine(3)
chain.reorg(2, 4)
print(chain.tip_hash.hex(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("cut", [0, 1, 200])
def test_a_killed_process_loses_nothing_that_was_written(tmp_path: Path, cut: int) -> None:
    folder = tmp_path / "c"
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    journal = folder / "blocks.journal"
    os.truncate(journal, journal.stat().st_size - cut)
    with EmbeddedChain(folder) as chain:
        # Without its last block or two the branch is still as long as, or longer than, the old one or loses to it.
        assert (chain.tip_hash.hex() == done.stdout.strip()) is (cut == 0)
        assert chain.height >= 113
        coin(chain)
    with EmbeddedChain(folder) as chain:
        assert chain.height >= 114


def test_a_kernel_folder_that_is_ahead_of_the_journal_is_rebuilt(tmp_path: Path) -> None:
    with EmbeddedChain(tmp_path / "c") as chain:
        size = (tmp_path / "c" / "blocks.journal").stat().st_size
        before = chain.tip_hash
        chain.mine(3)
    os.truncate(tmp_path / "c" / "blocks.journal", size)
    with EmbeddedChain(tmp_path / "c") as chain:
        assert chain.tip_hash == before


def test_a_folder_serves_one_process(tmp_path: Path) -> None:
    with EmbeddedChain(tmp_path / "c"), pytest.raises(ChainError, match="in use"):
        EmbeddedChain(tmp_path / "c")


def test_foreign_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "blocks.journal").write_bytes(b"something else entirely, but not a journal")
    with pytest.raises(ChainError, match="no block journal"):
        EmbeddedChain(tmp_path / "c")
    (tmp_path / "file").write_text("")
    with pytest.raises(ChainError):
        EmbeddedChain(tmp_path / "file")


def test_the_same_calls_give_the_same_chain(tmp_path: Path) -> None:
    tips = []
    for name in ("a", "b"):
        with EmbeddedChain(tmp_path / name) as chain:
            coin(chain)
            chain.reorg(1)
            tips.append(chain.tip_hash)
    assert tips[0] == tips[1]


def test_a_closed_chain_says_so(tmp_path: Path) -> None:
    chain = EmbeddedChain(tmp_path / "c")
    chain.close()
    chain.close()
    with pytest.raises(ChainError, match="closed"):
        chain.mine()


# -- kernel verdicts -------------------------------------------------------------------------------------------------


def test_the_kernel_judges_each_input(chain: EmbeddedChain) -> None:
    good, bad = coin(chain), coin(chain)
    tx = spend(good, bad, sat=150_000)
    prevouts = [TxOut(value=Sat(100_000), script=ANYONE_OUT)] * 2
    assert verify_transaction(tx, prevouts)
    assert first_failing_input(tx, [prevouts[0], TxOut(value=Sat(100_000), script=MEMBER)]) == 1
    with pytest.raises(LeydenError, match="2 inputs but 1"):
        verify_transaction(tx, prevouts[:1])


def test_the_kernel_checks_amounts_through_signatures(chain: EmbeddedChain) -> None:
    tx = chain.faucet(MEMBER, Sat(1_000))
    spent = chain.coins.unspent[tx.inputs[0].prevout].output
    assert verify_transaction(tx, [spent])
    assert not verify_transaction(tx, [TxOut(value=Sat(spent.value + 1), script=spent.script)])
