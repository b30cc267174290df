"""Attacks on the view of the chain: lies that cost little work, proofs of what is in no block, gaps in watches."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from chain_blocks import GENESIS, make_block, make_chain, make_tx
from leyden.bitcoin import Network, Transaction, TxIn, TxOut, merkle_branch, p2wsh, parse_transaction
from leyden.chain import ChainFollower, RestartSource, SourceFault, WatchesAdded, load, step
from leyden.crypto import sha256d
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    HistoryFound,
    SourceInfo,
    SourceSynced,
    Watch,
)
from leyden.node.chain_runner import SourceRunner
from leyden.node.chain_verify import Told, Verification
from leyden.types import BlockHash, BlockHeight, OutPoint, Sat, Txid

MAINNET_BLOCK_1 = bytes.fromhex(
    "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"
    "982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e61bc6649ffff001d01e36299"
)
"""Real work, of 2009: anybody has a hundred thousand such headers for nothing."""


def block_of(header: bytes, height: int) -> BlockConnected:
    return BlockConnected(
        height=BlockHeight(height),
        block_hash=BlockHash(sha256d(header)),
        header=header,
        transactions=(),
        full=False,
    )


# -- work --------------------------------------------------------------------------------------------------------------


def test_headers_of_2009_are_no_start_of_mainnet_of_today() -> None:
    """A node born near the tip measures its first header by nothing: the easiest difficulty is not enough there."""
    follower = load((), b"b", Network.MAINNET, BlockHeight(940_001))
    after, outputs = step(follower, block_of(MAINNET_BLOCK_1, 940_001))
    assert after.chain.tip_height == 940_000
    assert [type(output) for output in outputs] == [SourceFault]


def test_a_fork_below_the_birth_does_not_lead_to_a_chain_without_work() -> None:
    """Mainnet's rules are forgotten with the last header: a lying source could mine thousands of blocks in a minute,
    and with them confirm what it likes and let every HTLC expire."""
    follower = load((), b"b", Network.MAINNET, BlockHeight(840_000))
    follower = msgspec.structs.replace(
        follower,
        chain=msgspec.structs.replace(
            follower.chain,
            base_hash=BlockHash(b"\x07" * 32),
            tip_height=BlockHeight(940_005),
            base_height=BlockHeight(940_000),
            chunks=(tuple((BlockHash(bytes([n]) * 32), bytes(80)) for n in range(1, 6)),),
        ),
    )
    fork = BlocksDisconnected(fork_height=BlockHeight(939_990), fork_hash=BlockHash(MAINNET_BLOCK_1[4:36]))
    after, outputs = step(follower, fork)
    first, more = step(after, block_of(MAINNET_BLOCK_1, 939_991))
    assert SourceFault in {type(output) for output in (*outputs, *more)}
    assert not any(isinstance(output, BlockConnected) for output in more)
    assert not first.chain


def test_a_start_of_todays_difficulty_is_accepted() -> None:
    """What is asked for is far less than what the network has had since 2024."""
    from leyden.chain.headers import least_work_bits

    assert least_work_bits(Network.MAINNET, 940_000) == 0x17342190
    assert least_work_bits(Network.MAINNET, 1) is None
    assert least_work_bits(Network.REGTEST, 940_000) is None
    assert least_work_bits(Network.TESTNET4, 140_000) is None


# -- proofs ------------------------------------------------------------------------------------------------------------

FAKE = Transaction(
    version=2,
    inputs=(TxIn(prevout=OutPoint(Txid(b"\x11" * 32), 0), sequence=0xFFFFFFFF),),
    outputs=(TxOut(value=Sat(500_000_000), script=b"\x00\x20" + b"\x77" * 32),),
    locktime=19_655_166,
)
"""In no block. Its id, looked for with 20 million hashes, can be the second half of a transaction of 64 bytes."""


def block_with_a_tree_below_a_leaf() -> tuple[BlockConnected, Transaction]:
    """A transaction of 64 bytes that is also the node above ``FAKE``: a miner can put it into a block."""
    left = (2).to_bytes(4, "little") + b"\x01" + b"\x33" * 27
    inner = parse_transaction(left + FAKE.txid)
    assert inner.serialize() == left + FAKE.txid
    return make_block(GENESIS, 1, [inner, make_tx(5), make_tx(6)]), inner


def proved_fake(block: BlockConnected, inner: Transaction) -> BlockTransaction:
    txids = [found.tx.txid for found in block.transactions]
    branch = (inner.serialize()[:32], *merkle_branch(txids, 1))
    return BlockTransaction(position=3, tx=FAKE, branch=branch)


@pytest.fixture
def any_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value that ``FAKE``'s id spells as an output is out of range: a real one takes 8,192 times as many hashes."""
    monkeypatch.setattr("leyden.bitcoin.transaction.MAX_MONEY_SAT", 1 << 64)


@pytest.mark.usefixtures("any_value")
def test_a_transaction_below_a_leaf_of_64_bytes_is_not_in_the_block() -> None:
    block, inner = block_with_a_tree_below_a_leaf()
    follower = load((), b"b", Network.REGTEST, BlockHeight(1))
    follower = msgspec.structs.replace(follower, proofs=True)
    watch = Watch(script=FAKE.outputs[0].script, since_height=BlockHeight(0))
    follower, _ = step(follower, WatchesAdded(watches=(watch,), active_from=BlockHeight(1)))
    event = msgspec.structs.replace(block, full=False, transactions=(proved_fake(block, inner),))
    after, outputs = step(follower, event)
    assert [type(output) for output in outputs] == [SourceFault]
    after, _ = step(follower, msgspec.structs.replace(event, transactions=()))
    history = HistoryFound(height=block.height, block_hash=block.block_hash, transactions=event.transactions)
    assert [type(output) for output in step(after, history)[1]] == [SourceFault]


@pytest.mark.usefixtures("any_value")
def test_an_electrum_proof_of_a_transaction_below_a_leaf_is_refused() -> None:
    from leyden_electrum.proofs import proof_mistake
    from leyden_electrum.server import Proof

    block, inner = block_with_a_tree_below_a_leaf()
    found = proved_fake(block, inner)
    assert found.branch is not None
    assert proof_mistake(FAKE, Proof(position=3, branch=found.branch), block.header[36:68])
    honest = block.transactions[2]
    branch = merkle_branch([found.tx.txid for found in block.transactions], 2)
    assert proof_mistake(honest.tx, Proof(position=2, branch=branch), block.header[36:68]) == ""


# -- runners and verifiers, without a node -----------------------------------------------------------------------------


class Source:
    """Notes what it is asked."""

    inline = True

    def __init__(self, **info: Any) -> None:
        self.info = SourceInfo(name="source", **info)
        self.watched: list[Watch] = []
        self.starts = 0
        self.fails = False

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        self.watched += watches
        return BlockHeight(0)

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        if self.fails:
            raise ConnectionError("no luck")
        self.starts += 1


class Shell:
    """Host and caller of a runner: all is done when ``settle`` is called."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []
        self.later: list[Any] = []

    def runner(self, source: Any, name: str = "source") -> SourceRunner:
        return SourceRunner(
            name,
            source,
            follower=load((), b"b", Network.REGTEST, BlockHeight(1)),
            host=self,
            caller=self,
            post=self.waiting.append,
            after_commit=self.waiting.append,
            on_output=lambda _runner, _output: None,
            on_warning=lambda _runner, _text: None,
        )

    def wall_time(self) -> float:
        return 2e9

    def call_later(self, _seconds: float, work: Any) -> None:
        self.later.append(work)

    def call(self, _service: Any, coroutine: Any, done: Any, _what: str) -> None:
        try:
            coroutine.send(None)
        except StopIteration as stop:
            done(stop.value, None)
        except Exception as error:
            done(None, error)

    def settle(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


def fed(follower: ChainFollower, blocks: Sequence[BlockConnected]) -> ChainFollower:
    for block in blocks:
        follower, _ = step(follower, block)
    return follower


SCRIPT = p2wsh(b"mine")
BLOCKS = make_chain(30)


def test_a_source_that_was_ahead_looks_back_when_it_takes_over() -> None:
    """It was told of the watch when it had block 30; the node is at 10 and has seen nothing of those between."""
    shell, source = Shell(), Source(full_blocks=False, proofs=True)
    runner = shell.runner(source)
    runner.reset(runner.follower, BlockHeight(1))
    runner.restart("starts")
    shell.settle()
    for block in BLOCKS:
        runner.absorb(msgspec.structs.replace(block, transactions=(), full=False))
    runner.watch(SCRIPT, None)
    shell.settle()
    assert len(source.watched) == 1
    runner.take_over(fed(load((), b"b", Network.REGTEST, BlockHeight(1)), BLOCKS[:10]))
    shell.settle()
    assert source.watched[-1].script == SCRIPT
    assert source.watched[-1].since_height <= 10


def test_whole_blocks_are_looked_at_again_after_a_source_that_may_owe_history() -> None:
    """The first source brought blocks 21 to 30 before it looked back for the watch, and is gone."""
    shell = Shell()
    old = shell.runner(Source(full_blocks=False, proofs=True), "old")
    new = shell.runner(Source(full_blocks=True), "new")
    for runner in (old, new):
        runner.reset(runner.follower, BlockHeight(1))
        for block in BLOCKS[:25]:
            runner.absorb(block if runner is new else msgspec.structs.replace(block, transactions=(), full=False))
        runner.watch(SCRIPT, None)
    for block in BLOCKS[25:27]:
        old.absorb(msgspec.structs.replace(block, transactions=(), full=False))
    new.take_over(old.follower, may_owe=True)
    assert {rescan.height for rescan in new.follower.rescans} >= {25, 26, 27}


def test_after_a_restart_a_source_of_matches_looks_back_further_than_our_tip() -> None:
    """What it had not found in time when the process ended was for blocks that are on our disk already."""
    shell, source = Shell(), Source(full_blocks=False, proofs=True)
    runner = shell.runner(source)
    runner.reset(fed(load((), b"b", Network.REGTEST, BlockHeight(1)), BLOCKS), BlockHeight(1))
    runner.watch(SCRIPT, None)
    runner.restart("starts")
    shell.settle()
    assert source.watched[-1].since_height <= 30 - 6


def test_a_source_that_did_not_start_starts_after_the_store_was_read_back() -> None:
    """A reset forgets the next attempt; without a new one nobody verifies any more."""
    shell, source = Shell(), Source(full_blocks=True)
    runner = shell.runner(source)
    runner.reset(runner.follower, BlockHeight(1))
    source.fails = True
    runner.restart("starts")
    shell.settle()
    source.fails = False
    runner.reset(runner.follower, BlockHeight(1))
    assert runner.wanted
    runner.restart("the store was read back")
    for work in shell.later:
        work()
    shell.settle()
    assert source.starts == 1


def test_whole_block_sources_prove_what_they_send_in_part() -> None:
    """One that says it brings whole blocks and sends a single transaction instead proves nothing."""
    shell = Shell()
    runner = shell.runner(Source(full_blocks=True))
    runner.reset(runner.follower, BlockHeight(1))
    runner.watch(FAKE.outputs[0].script, None)
    lie = msgspec.structs.replace(BLOCKS[0], full=False, transactions=(BlockTransaction(position=1, tx=FAKE),))
    runner.absorb(lie)
    assert runner.follower.height == 0
    assert "branch" in runner.trouble
    runner.absorb(BLOCKS[0])
    found = (BlockTransaction(position=1, tx=FAKE),)
    told = Told()
    told.add(BlockHeight(1), BLOCKS[0].block_hash, ())
    taken: list[Any] = []
    runner._on_output = lambda _runner, output: taken.append(output)
    runner.absorb(HistoryFound(height=BlockHeight(1), block_hash=BLOCKS[0].block_hash, transactions=found))
    assert {type(output) for output in taken} <= {SourceFault, RestartSource}


def test_what_was_told_before_a_block_left_does_not_count_when_it_is_back() -> None:
    """A liar takes back the block with a spend and brings the same block again, without it: the verifier knows."""
    shell = Shell()
    runner = shell.runner(Source(full_blocks=True), "verifier")
    runner.reset(runner.follower, BlockHeight(1))
    runner.watch(SCRIPT, None)
    main = shell.runner(Source(full_blocks=True), "main")
    main.watch(SCRIPT, None)
    main.follower = fed(main.follower, BLOCKS[:5])
    spend = BlockTransaction(position=1, tx=make_tx(77, script=SCRIPT))
    told = Told()
    verification = Verification(runner, told)
    block_hash = BLOCKS[4].block_hash
    told.add(BlockHeight(5), block_hash, (spend,))
    assert verification.on_found(main, BlockHeight(5), block_hash, (spend,), 0.0) == ()
    told.forget_above(BlockHeight(4))
    told.add(BlockHeight(5), block_hash, ())
    assert verification.on_followed(main, BlockHeight(5), block_hash, 0.0) == (spend,)
    text, _ = verification.findings(main, 100.0)["verifier:hidden"]
    assert "did not tell of transaction" in text


@pytest.mark.parametrize("height", [0, 5])
def test_a_source_that_ends_early_does_not_take_blocks_back(height: int) -> None:
    follower = fed(load((), b"b", Network.REGTEST, BlockHeight(1)), BLOCKS[:8])
    block_hash = GENESIS if not height else BLOCKS[height - 1].block_hash
    event = SourceSynced(height=BlockHeight(height), block_hash=BlockHash(block_hash))
    after, outputs = step(follower, event)
    assert after.height == 8
    assert not any(isinstance(output, BlocksDisconnected) for output in outputs)
