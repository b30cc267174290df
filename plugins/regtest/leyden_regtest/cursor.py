"""A reader's place in the chain: what it must be told next. Nothing is queued, so a slow reader costs nothing."""

from collections.abc import Sequence

from leyden.hooks.types import BlocksDisconnected, SourceSynced
from leyden.types import BlockHash, BlockHeight

from leyden_regtest.chain import EmbeddedChain, StoredBlock
from leyden_regtest.protocol import Pushed, connected_block


class Cursor:
    """Start after the newest block of ``locator`` that is in the best chain; without a locator, at ``birth_height``."""

    def __init__(self, chain: EmbeddedChain, locator: Sequence[BlockHash], birth_height: BlockHeight) -> None:
        self._chain = chain
        self._first = birth_height
        self._at: BlockHash | None = None
        self._synced = False
        self._fork: StoredBlock | None = None
        if locator:
            shared = next((block_hash for block_hash in locator if chain.is_active(block_hash)), chain.hash_at(0))
            self._at = shared
            if shared != locator[0]:
                self._fork = chain.block(shared)

    def advance(self) -> Pushed | None:
        """The next event, or ``None`` when there is nothing to tell until the chain changes."""
        event = self._next_step()
        if event is not None:
            self._synced = False
            return event
        if self._synced:
            return None
        self._synced = True
        return SourceSynced(height=self._chain.height, block_hash=self._chain.tip_hash)

    def _next_step(self) -> Pushed | None:
        chain = self._chain
        if self._at is not None and not chain.is_active(self._at):
            self._fork = chain.fork_of(self._at)
        if self._fork is not None:
            fork, self._fork = self._fork, None
            self._at = BlockHash(fork.block.hash)
            return BlocksDisconnected(fork_height=fork.height, fork_hash=self._at)
        height = self._first if self._at is None else chain.block(self._at).height + 1
        if height > chain.height:
            return None
        stored = chain.block_at(height)
        self._at = BlockHash(stored.block.hash)
        return connected_block(stored.height, stored.raw)
