"""Every order in which a chain source may tell of the same chain. Whatever it is, a node must end in the same state.

``StyledChain`` stands in for the chain source of a node in a ``Simulation``:

```python
simulation.make_chain = styled(ConnectStyle.HEADER_FIRST)
```
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from leyden.bitcoin import merkle_branch
from leyden.chain import WatchSet
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    ChainEvent,
    HistoryFound,
    SourceInfo,
    SourceSynced,
    Watch,
)
from leyden.testing.simulation import SimChain, SimNode, Simulation
from leyden.types import BlockHash, BlockHeight, LeydenError

REMEMBERED = 12
"""Blocks that redundant styles tell again."""


class ConnectStyle(enum.Enum):
    """How a source tells of a block, of several, and of a reorg."""

    WHOLE_BLOCKS = "whole blocks, one by one"
    BYTES = "whole blocks as bytes"
    MATCHED = "headers with matched transactions and their proofs"
    HEADER_FIRST = "a header by itself, then its transactions"
    TRANSACTIONS_FIRST = "transactions before their header, and again after it"
    DUPLICATES = "everything twice"
    REDUNDANT = "with each block, the transactions of those before again"
    SKIPPED_HEIGHTS = "of several blocks only the last"
    TIP_ONLY = "of a reorg only the new tip"
    ONE_BY_ONE = "a reorg block by block"
    TOO_FAR = "a reorg as if it were deeper than it is"
    REPLAY = "the newest blocks again whenever the tip is reached"


WHOLE = frozenset(
    {
        ConnectStyle.WHOLE_BLOCKS,
        ConnectStyle.BYTES,
        ConnectStyle.SKIPPED_HEIGHTS,
        ConnectStyle.TIP_ONLY,
        ConnectStyle.ONE_BY_ONE,
        ConnectStyle.TOO_FAR,
        ConnectStyle.REPLAY,
    }
)
"""Styles of sources that deliver whole blocks; the others deliver what matches."""


def styled(style: ConnectStyle) -> Callable[[Simulation, SimNode], "StyledChain"]:
    """For ``Simulation.make_chain``."""
    return lambda simulation, node: StyledChain(simulation, node, style)


class StyledChain(SimChain):
    """Tells of the simulation's chain in a ``ConnectStyle``."""

    def __init__(self, simulation: Simulation, node: SimNode, style: ConnectStyle) -> None:
        super().__init__(simulation, node)
        self._style = style
        self._chain: Any = simulation.chain
        self._out: deque[ChainEvent] = deque()
        self._watches = WatchSet()
        self._told: dict[int, BlockHash] = {}
        self._caught_up = False
        self._next = BlockHeight(0)

    @property
    def info(self) -> SourceInfo:
        whole = self._style in WHOLE
        return SourceInfo(name=self._style.value, full_blocks=whole, proofs=not whole)

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        self._out.clear()
        self._told = dict(locator)
        self._caught_up = False
        self._next = BlockHeight(locator[0][0] + 1) if locator else birth_height
        await super().start(locator, birth_height)

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        """Sources of matched transactions deliver the history of late watches, and that they are synced once more."""
        self._watches = self._watches.adding(watches)
        if self._style in WHOLE:
            return self._next
        since = min((watch.since_height for watch in watches), default=self._next)
        late = [height for height in sorted(self._told) if since <= height < self._next]
        history = [found for height in late for found in self._history(self._told[height])]
        if history:
            self._out.extend(history)
            if self._caught_up:
                height = max(self._told)
                self._out.append(SourceSynced(height=BlockHeight(height), block_hash=self._told[height]))
            self._simulation.soon(self._node, self._node.poll_chain)
        return self._next

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        if self._style not in WHOLE:
            raise LeydenError("this source has no whole blocks")
        return await super().get_block(block_hash)

    def poll(self) -> Any:
        if not self._out:
            self._out.extend(self._styled(self._gather()))
        if not self._out:
            return None
        event = self._out.popleft()
        if isinstance(event, BlockConnected):
            self._next = max(self._next, BlockHeight(event.height + 1))
        elif isinstance(event, BlocksDisconnected):
            self._next = BlockHeight(event.fork_height + 1)
        return event

    # -- styles ------------------------------------------------------------------------------------------------------

    def _gather(self) -> list[ChainEvent]:
        """What the chain has to tell next: one event, or everything up to its tip for styles that leave some out."""
        found: list[ChainEvent] = []
        while (event := super().poll()) is not None:
            found.append(event)
            leaves_out = self._style in (ConnectStyle.SKIPPED_HEIGHTS, ConnectStyle.TIP_ONLY) and self._caught_up
            if isinstance(event, SourceSynced) or not leaves_out:
                break
        return found

    def _styled(self, events: Sequence[ChainEvent]) -> list[ChainEvent]:
        """``events`` in this style. After a start nothing is left out before the tip is reached."""
        if self._caught_up and self._style in (ConnectStyle.SKIPPED_HEIGHTS, ConnectStyle.TIP_ONLY):
            forked = any(isinstance(event, BlocksDisconnected) for event in events)
            last = [event for event in events if isinstance(event, BlockConnected)][-1:]
            if self._style is ConnectStyle.SKIPPED_HEIGHTS or forked:
                forks = [event for event in events if isinstance(event, BlocksDisconnected)]
                keep = forks if self._style is ConnectStyle.SKIPPED_HEIGHTS else []
                events = [*keep, *last, *(event for event in events if isinstance(event, SourceSynced))]
        told: list[ChainEvent] = []
        for event in events:
            match event:
                case BlockConnected():
                    self._told[event.height] = event.block_hash
                    told += self._block(event)
                case BlocksDisconnected():
                    told += self._fork(event)
                    self._told = {height: h for height, h in self._told.items() if height <= event.fork_height}
                    self._told[event.fork_height] = event.fork_hash
                case SourceSynced():
                    self._caught_up = True
                    told += self._synced(event)
        return told

    def _block(self, block: BlockConnected) -> Iterable[ChainEvent]:
        bare = msgspec.structs.replace(block, transactions=(), full=False)
        matched = msgspec.structs.replace(block, transactions=self._matching(block), full=False)
        history = self._history(block.block_hash)
        match self._style:
            case ConnectStyle.BYTES:
                return [msgspec.structs.replace(block, transactions=(), raw=self._chain.block(block.block_hash).raw)]
            case ConnectStyle.MATCHED:
                return [matched]
            case ConnectStyle.HEADER_FIRST:
                return [bare, *history]
            case ConnectStyle.TRANSACTIONS_FIRST:
                return [*history, bare, *history]
            case ConnectStyle.DUPLICATES:
                return [matched, matched, *history, *history]
            case ConnectStyle.REDUNDANT:
                newest = sorted(self._told)[-REMEMBERED:-1]
                return [matched, *(found for height in newest for found in self._history(self._told[height]))]
            case _:
                return [block]

    def _fork(self, event: BlocksDisconnected) -> Iterable[ChainEvent]:
        match self._style:
            case ConnectStyle.DUPLICATES:
                return [event, event]
            case ConnectStyle.ONE_BY_ONE:
                left = [height for height in sorted(self._told, reverse=True) if height > event.fork_height][1:]
                steps = [
                    BlocksDisconnected(fork_height=BlockHeight(height), fork_hash=self._told[height]) for height in left
                ]
                return [*steps, event]
            case ConnectStyle.TOO_FAR:
                deeper = BlockHeight(max(event.fork_height - 2, 1))
                again = [self._whole(self._chain.hash_at(h)) for h in range(deeper + 1, event.fork_height + 1)]
                return [BlocksDisconnected(fork_height=deeper, fork_hash=self._chain.hash_at(deeper)), *again]
            case _:
                return [event]

    def _synced(self, event: SourceSynced) -> Iterable[ChainEvent]:
        match self._style:
            case ConnectStyle.DUPLICATES:
                return [event, event]
            case ConnectStyle.REPLAY:
                newest = sorted(self._told)[-REMEMBERED:]
                return [event, *(self._whole(self._told[height]) for height in newest), event]
            case _:
                return [event]

    # -- blocks ------------------------------------------------------------------------------------------------------

    def _whole(self, block_hash: BlockHash) -> BlockConnected:
        stored = self._chain.block(block_hash)
        return BlockConnected(
            height=stored.height,
            block_hash=block_hash,
            header=stored.header,
            transactions=(),
            full=True,
            raw=stored.raw,
        )

    def _history(self, block_hash: BlockHash) -> list[ChainEvent]:
        stored = self._chain.block(block_hash)
        everything = tuple(BlockTransaction(position=n, tx=tx) for n, tx in enumerate(stored.block.transactions))
        block = msgspec.structs.replace(self._whole(block_hash), transactions=everything, raw=b"")
        found = self._matching(block)
        return [HistoryFound(height=stored.height, block_hash=block_hash, transactions=found)] if found else []

    def _matching(self, block: BlockConnected) -> tuple[BlockTransaction, ...]:
        """What is watched, with proofs."""
        txids = [item.tx.txid for item in block.transactions]
        return tuple(
            msgspec.structs.replace(item, branch=tuple(merkle_branch(txids, item.position)))
            for item in self._watches.matching(block.transactions)
        )
