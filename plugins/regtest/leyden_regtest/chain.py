"""The embedded chain: libbitcoinkernel as judge, a miner in Python, a small mempool, a faucet, reorgs on demand.

Everything is synchronous and single-threaded. Time is a fixed grid (``miner.block_time``), so the same calls give
the same chain. Not for value: the faucet's key is public.
"""

import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from leyden.bitcoin import Block, Network, Transaction, parse_block
from leyden.crypto import sha256d
from leyden.hooks.types import UtxoAnswer, UtxoFound, UtxoSpent, UtxoUnknown
from leyden.types import BlockHash, BlockHeight, LeydenError, OutPoint, Sat, Txid

from leyden_regtest.coins import CoinIndex
from leyden_regtest.errors import ChainError
from leyden_regtest.faucet import Faucet
from leyden_regtest.journal import Journal
from leyden_regtest.kernel import Chainstate
from leyden_regtest.mempool import Mempool, Tip
from leyden_regtest.miner import MAX_BLOCK_WEIGHT, block_time, mine_block

MATURE_POOL = 110
"""Blocks mined to the faucet when a folder is new: the first ten coinbases are then mature."""
_COINBASE_ROOM = 4_000
_MEDIAN_SPAN = 11


class StoredBlock(NamedTuple):
    raw: bytes
    block: Block
    height: BlockHeight

    @property
    def header(self) -> bytes:
        return self.raw[:80]


class EmbeddedChain:
    """A regtest chain in ``folder`` (created with ``blocks`` blocks if new), used exclusively until ``close``.

    ``ChainError`` if the folder is in use, foreign, or cannot be written.
    """

    def __init__(self, folder: Path, *, blocks: int = MATURE_POOL, min_relay_sat_per_kvb: int = 1000) -> None:
        self._folder = folder
        self.coins = CoinIndex()
        self.mempool = Mempool(self.coins, self._tip, min_relay_sat_per_kvb)
        self.faucet_keys = Faucet()
        self._blocks: dict[BlockHash, StoredBlock] = {}
        self._active: list[BlockHash] = []
        self._extra = 0
        self.listeners: list[Callable[[], None]] = []
        """Called after the best chain changed; they only note that it did and look later."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._journal = Journal(folder / "blocks.journal")
        except OSError as error:
            raise ChainError(f"{folder}: {error.strerror or error}") from error
        try:
            self._kernel = Chainstate(folder / "kernel")
        except BaseException:
            self._journal.close()
            raise
        try:
            self._load()
            if self.height < blocks:
                self.mine(blocks - self.height)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Flush and release the folder. What is in the mempool is forgotten."""
        self._kernel.close()
        self._journal.close()

    # -- starting --------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        raw_blocks = self._journal.read()
        genesis = self._kernel.block_at(0)
        for raw in (genesis, *raw_blocks):
            self._remember(raw)
        if not self._replay(raw_blocks):
            self._kernel.close()
            shutil.rmtree(self._folder / "kernel")
            self._kernel = Chainstate(self._folder / "kernel")
            if not self._replay(raw_blocks):
                raise ChainError(f"{self._folder}: the kernel does not accept its own blocks again: use a new folder")
        self._extra = len(self._blocks)
        self._active = [self._kernel.hash_at(height) for height in range(self._kernel.height + 1)]
        for height, block_hash in enumerate(self._active[1:], 1):
            self.coins.connect(BlockHeight(height), self._blocks[block_hash].block.transactions)

    def _replay(self, raw_blocks: Sequence[bytes]) -> bool:
        """Give the kernel what it lost by being killed; false if it then follows a chain that the journal lacks."""
        for raw in raw_blocks:
            if not self._kernel.knows(sha256d(raw[:80])):
                self._kernel.submit(raw)
        return self._kernel.hash_at(self._kernel.height) in self._blocks

    def _remember(self, raw: bytes) -> StoredBlock:
        block = parse_block(raw)
        parent = self._blocks.get(BlockHash(block.header.prev_hash))
        stored = StoredBlock(raw, block, BlockHeight(parent.height + 1 if parent else 0))
        self._blocks[BlockHash(block.header.hash)] = stored
        return stored

    # -- looking ---------------------------------------------------------------------------------------------------

    @property
    def network(self) -> Network:
        return Network.REGTEST

    @property
    def height(self) -> BlockHeight:
        return BlockHeight(len(self._active) - 1)

    @property
    def tip_hash(self) -> BlockHash:
        return self._active[-1]

    def hash_at(self, height: int) -> BlockHash:
        """Hash of the block of the best chain at ``height``; ``ChainError`` if there is none."""
        if not 0 <= height < len(self._active):
            raise ChainError(f"no block at height {height}: the tip is at {self.height}")
        return self._active[height]

    def block(self, block_hash: BlockHash) -> StoredBlock:
        """A block of any branch; ``ChainError`` if it was never seen."""
        stored = self._blocks.get(block_hash)
        if stored is None:
            raise ChainError(f"unknown block {block_hash[::-1].hex()}")
        return stored

    def block_at(self, height: int) -> StoredBlock:
        return self._blocks[self.hash_at(height)]

    def is_active(self, block_hash: BlockHash) -> bool:
        stored = self._blocks.get(block_hash)
        return stored is not None and stored.height <= self.height and self._active[stored.height] == block_hash

    def fork_of(self, block_hash: BlockHash) -> StoredBlock:
        """The newest ancestor of a known block (or itself) that is in the best chain."""
        while not self.is_active(block_hash):
            block_hash = BlockHash(self.block(block_hash).block.header.prev_hash)
        return self._blocks[block_hash]

    def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        """Found or spent as of the tip (the mempool does not count), or unknown."""
        coin = self.coins.unspent.get(outpoint)
        if coin is not None:
            return UtxoFound(output=coin.output, height=coin.height, coinbase=coin.coinbase)
        if outpoint in self.coins.spent:
            return UtxoSpent()
        return UtxoUnknown(reason="no such output in the best chain")

    def find_transaction(self, txid: Txid) -> tuple[Transaction, BlockHeight | None] | None:
        """A transaction of the best chain with its height, or of the mempool with ``None``."""
        entry = self.mempool.entries.get(txid)
        if entry is not None:
            return entry.tx, None
        height = self.coins.confirmed.get(txid)
        if height is None:
            return None
        return next(tx for tx in self.block_at(height).block.transactions if tx.txid == txid), height

    def spender_of(self, outpoint: OutPoint) -> Txid | None:
        """The transaction that spends an output, in the best chain or in the mempool."""
        confirmed = self.coins.spent.get(outpoint)
        return confirmed[1] if confirmed else self.mempool.spends.get(outpoint)

    def _median_time_at(self, height: int) -> int:
        first = max(0, height - _MEDIAN_SPAN + 1)
        return int(statistics.median_high(block_time(BlockHeight(h)) for h in range(first, height + 1)))

    def _tip(self) -> Tip:
        return Tip(BlockHeight(self.height + 1), self._median_time_at(self.height), self._median_time_at)

    # -- changing --------------------------------------------------------------------------------------------------

    def submit(self, package: Sequence[Transaction]) -> None:
        """Offer a package to the mempool, parents first; ``TransactionRefused`` says why not."""
        self.mempool.submit(package)

    def mine(self, count: int = 1, script: bytes | None = None) -> list[BlockHash]:
        """Mine ``count`` blocks whose coinbases pay ``script`` (the faucet's by default); their hashes.

        The first takes what the mempool holds, as far as it fits.
        """
        hashes = []
        for _ in range(count):
            entries = self.mempool.select(MAX_BLOCK_WEIGHT - _COINBASE_ROOM)
            fees = Sat(sum(entry.fee for entry in entries))
            hashes.append(self._extend(self.tip_hash, [entry.tx for entry in entries], fees, script))
        return hashes

    def mine_block(self, transactions: Sequence[Transaction] = (), script: bytes | None = None) -> BlockHash:
        """Mine one block with exactly these transactions, past the mempool's policy.

        ``BlockRefused`` if consensus does not allow it; the chain is then as before.
        """
        return self._extend(self.tip_hash, transactions, Sat(0), script)

    def reorg(
        self,
        depth: int,
        blocks: int | None = None,
        *,
        transactions: Sequence[Transaction] = (),
        forget: bool = False,
    ) -> list[BlockHash]:
        """Replace the newest ``depth`` blocks by ``blocks`` others (default and minimum ``depth + 1``).

        The first new block carries ``transactions``; those of the lost blocks return to the mempool as far as they
        are still valid, or vanish if ``forget``. ``BlockRefused`` if consensus refuses the branch: nothing changed.
        """
        count = depth + 1 if blocks is None else blocks
        if not 1 <= depth <= self.height:
            raise ChainError(f"a reorg of {depth} blocks is not possible at height {self.height}")
        if count <= depth:
            raise ChainError(f"{count} blocks cannot replace {depth}: a branch wins with at least {depth + 1}")
        before = dict(self.mempool.entries) if forget else None
        tip, hashes = self.hash_at(self.height - depth), []
        for index in range(count):
            tip = self._extend(tip, transactions if index == 0 else (), Sat(0), None)
            hashes.append(tip)
        if before is not None:
            self.mempool.keep_only(before)
        return hashes

    def faucet(self, script: bytes, value: Sat) -> Transaction:
        """Pay ``value`` satoshi to ``script`` from the faucet's coins, through the mempool; the transaction."""
        tx = self.faucet_keys.make_payment(script, value, self.coins, self.mempool, BlockHeight(self.height + 1))
        self.submit([tx])
        return tx

    def _extend(
        self, previous: BlockHash, transactions: Sequence[Transaction], fees: Sat, script: bytes | None
    ) -> BlockHash:
        height = BlockHeight(self._blocks[previous].height + 1)
        self._extra += 1
        payee = self.faucet_keys.script if script is None else script
        return self.submit_block(mine_block(previous, height, transactions, fees=fees, script=payee, extra=self._extra))

    def submit_block(self, raw: bytes) -> BlockHash:
        """Process a block made elsewhere; its hash. ``BlockRefused`` if it, or the branch it completes, is invalid."""
        try:
            block = parse_block(raw)
        except LeydenError as error:
            raise ChainError(f"not a block: {error}") from error
        block_hash = BlockHash(block.header.hash)
        if block_hash in self._blocks:
            return block_hash
        steps = self._kernel.submit(raw)
        self._journal.append(raw)
        self._remember(raw)
        self._follow(steps)
        return block_hash

    def _follow(self, steps: Sequence[tuple[bool, BlockHash]]) -> None:
        """Bring index and mempool to where the kernel is."""
        lost: list[Sequence[Transaction]] = []
        for connected, block_hash in steps:
            stored = self._blocks[block_hash]
            if connected:
                self._active.append(block_hash)
                self.coins.connect(stored.height, stored.block.transactions)
                self.mempool.on_block(stored.block.transactions)
            else:
                self._active.pop()
                self.coins.disconnect(stored.block.transactions)
                lost.append(stored.block.transactions)
        if lost:
            self.mempool.on_reorg([tx for txs in reversed(lost) for tx in txs if not tx.is_coinbase])
        if steps:
            for listener in tuple(self.listeners):
                listener()
