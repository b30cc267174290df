"""A second opinion: what a verifier source sees, compared with the chain that the node follows.

A verifier never takes part in the order of things. What it proves about a block of ours that our source did not tell is
taken as true at once, for it is; and where the two cannot both be right, the chain counts as degraded.
"""

from collections.abc import Sequence

import structlog

from leyden.chain import HeaderChain, WatchSet
from leyden.hooks.types import BlockTransaction
from leyden.node.chain_runner import SourceRunner
from leyden.types import BlockHash, BlockHeight, Txid

log = structlog.get_logger("leyden.chain")

FORK_DEPTH = 2
"""Blocks on both branches before two sources disagree: one of each is an ordinary race."""
LEAD_BLOCKS = 3
LAG_BLOCKS = 6
HIDDEN_SECONDS = 30.0
"""How long the source that is followed may be slower with a transaction than the verifier."""
PATIENCE_SECONDS = 5400.0
"""How long a verifier may be away or behind: without it nobody verifies."""
KEPT_BLOCKS = 288


class Told:
    """Transactions that the chain which is followed brought, by block, for the newest blocks."""

    def __init__(self) -> None:
        self._blocks: dict[BlockHash, tuple[BlockHeight, set[Txid]]] = {}

    def add(self, height: BlockHeight, block_hash: BlockHash, transactions: Sequence[BlockTransaction]) -> None:
        _, known = self._blocks.setdefault(block_hash, (height, set()))
        known.update(found.tx.txid for found in transactions)
        while len(self._blocks) > KEPT_BLOCKS:
            del self._blocks[next(iter(self._blocks))]

    def forget_above(self, fork_height: BlockHeight) -> None:
        """These blocks left the chain. If one comes back, what it brings then is what counts."""
        self._blocks = {name: known for name, known in self._blocks.items() if known[0] <= fork_height}

    def clear(self) -> None:
        """A turn was dropped: what was told in it has reached nobody."""
        self._blocks.clear()

    def get(self, block_hash: BlockHash) -> set[Txid] | None:
        """``None`` for a block that was connected too long ago, or before this run."""
        known = self._blocks.get(block_hash)
        return None if known is None else known[1]


class Verification:
    """What one verifier says beside what is followed."""

    def __init__(self, runner: SourceRunner, told: Told) -> None:
        self.runner = runner
        self._told = told
        self._found: dict[BlockHash, tuple[BlockTransaction, ...]] = {}
        """What it told of its newest blocks, whether we have them or not: a block may be told to us later, or again."""
        self._hidden: dict[Txid, tuple[float, BlockHeight, BlockHash]] = {}

    def forget(self) -> None:
        """Everything is told from the durable tip on again."""
        self._found.clear()
        self._hidden.clear()

    def on_found(
        self,
        main: SourceRunner,
        height: BlockHeight,
        block_hash: BlockHash,
        found: tuple[BlockTransaction, ...],
        now: float,
    ) -> tuple[BlockTransaction, ...]:
        """The verifier tells of these: what of it ``main`` did not tell about a block of ours, and is proved."""
        if not found:
            return ()
        known = self._found.get(block_hash, ())
        self._found[block_hash] = (*known, *(entry for entry in found if entry not in known))
        while len(self._found) > KEPT_BLOCKS:
            del self._found[next(iter(self._found))]
        if main.follower.chain.hash_at(height) != block_hash:
            return ()
        return self._missing(main, height, block_hash, found, now)

    def _missing(
        self,
        main: SourceRunner,
        height: BlockHeight,
        block_hash: BlockHash,
        found: tuple[BlockTransaction, ...],
        now: float,
    ) -> tuple[BlockTransaction, ...]:
        told = self._told.get(block_hash)
        missing = tuple(entry for entry in found if told is None or entry.tx.txid not in told)
        if not missing:
            return ()
        due = WatchSet().adding(self.runner.watches_since(height)).matching(missing)
        if told is not None:
            # The verifier may be asked to look further back: it was behind when the watch was added.
            for entry in WatchSet().adding(main.asked_since(height)).matching(due):
                self._hidden.setdefault(entry.tx.txid, (now, height, block_hash))
        return tuple(entry for entry in due if entry.branch is not None or self.runner.source.info.full_blocks)

    def on_followed(
        self, main: SourceRunner, height: BlockHeight, block_hash: BlockHash, now: float
    ) -> tuple[BlockTransaction, ...]:
        """A block was connected: what the verifier said about it before, as of ``on_found``."""
        found = self._found.get(block_hash, ())
        self.on_told(tuple(entry for entry in found if entry.tx.txid in (self._told.get(block_hash) or ())))
        return self._missing(main, height, block_hash, found, now)

    def on_told(self, transactions: Sequence[BlockTransaction]) -> None:
        """The source that is followed told of these after all."""
        for entry in transactions:
            self._hidden.pop(entry.tx.txid, None)

    def findings(self, main: SourceRunner, now: float) -> dict[str, tuple[str, float]]:
        """By word: what is wrong (empty: nothing), and for how many seconds it may be."""
        itself = main is self.runner
        mine, name, other = self.runner.follower.chain, self.runner.name, main.name
        chain = main.follower.chain
        trouble = self.runner.trouble or ("" if self.runner.started else "it has not started")
        fork = fork_height(chain, mine)
        forked = fork is not None and min(chain.tip_height, mine.tip_height) - fork >= FORK_DEPTH
        lead = mine.tip_height - chain.tip_height
        hidden = "" if itself else self._hidden_text(chain, now)
        trouble = "" if itself else trouble
        return {
            f"{name}:away": (f"the verifier {name} cannot be asked: {trouble}" if trouble else "", PATIENCE_SECONDS),
            f"{name}:fork": (
                f"{other} and {name} are on different chains since block {fork}" if forked else "",
                HIDDEN_SECONDS,
            ),
            f"{name}:ahead": (
                f"{name} is at block {mine.tip_height}, {other} only at {chain.tip_height}"
                if lead >= LEAD_BLOCKS
                else "",
                2 * HIDDEN_SECONDS,
            ),
            f"{name}:behind": (
                f"the verifier {name} is only at block {mine.tip_height}, {other} at {chain.tip_height}"
                if lead <= -LAG_BLOCKS
                else "",
                PATIENCE_SECONDS,
            ),
            f"{name}:hidden": (f"{other} {hidden}, {name} did" if hidden else "", 0.0),
        }

    def _hidden_text(self, chain: HeaderChain, now: float) -> str:
        for txid, (_, height, block_hash) in list(self._hidden.items()):
            if chain.hash_at(height) not in (block_hash, None):
                del self._hidden[txid]  # its block left the chain
        late = [(txid, height) for txid, (since, height, _) in self._hidden.items() if now - since >= HIDDEN_SECONDS]
        if not late:
            return ""
        txid, height = late[0]
        more = f" and {len(late) - 1} more" if len(late) > 1 else ""
        return f"did not tell of transaction {txid[::-1].hex()} in block {height}{more}"


def fork_height(first: HeaderChain, second: HeaderChain) -> int | None:
    """The newest block that both have, ``None`` while one is simply longer than the other (or nothing can be said)."""
    height = int(min(first.tip_height, second.tip_height))
    base = max(first.base_height, second.base_height)
    if height <= base or first.hash_at(height) == second.hash_at(height):
        return None
    while height > base and first.hash_at(height) != second.hash_at(height):
        height -= 1
    return height
