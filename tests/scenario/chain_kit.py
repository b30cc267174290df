"""Chain sources for the simulation that bring matched transactions only, fall silent, lie or hide things."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from leyden.bitcoin import merkle_branch
from leyden.chain import WatchSet
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    HistoryFound,
    SourceInfo,
    SourceSynced,
    Watch,
)
from leyden.node.core import Services
from leyden.testing.simulation import SimChain, SimNode
from leyden.types import BlockHash, BlockHeight, LeydenError, Txid


class ControlledChain(SimChain):
    """The simulation's chain, whole blocks, under the test's thumb."""

    def __init__(self, node: SimNode, name: str = "whole") -> None:
        super().__init__(node.simulation, node)
        self.name = name
        self.silent = False
        self.says: deque[Any] = deque()
        """Events that come before anything else."""
        self.starts = 0

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(name=self.name, full_blocks=True)

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        self.starts += 1
        await super().start(locator, birth_height)

    def poll(self) -> Any:
        if self.says:
            return self.says.popleft()
        return None if self.silent else super().poll()


class MatchedChain(ControlledChain):
    """Headers and proved matches, as an Electrum server would give them; ``hidden`` transactions never."""

    def __init__(self, node: SimNode, name: str = "matched") -> None:
        super().__init__(node, name)
        self.hidden: set[Txid] = set()
        self.hides: Callable[[BlockTransaction], bool] = lambda _found: False
        self.late = False
        """Matches come as history, after their block."""
        self._watches = WatchSet()
        self._noted: list[Watch] = []
        self._told: dict[BlockHeight, BlockConnected] = {}

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(name=self.name, full_blocks=False, proofs=True)

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        await super().start(locator, birth_height)
        self._told = {height: block for height, block in self._told.items() if not locator or height <= locator[0][0]}
        if locator:
            self._look_back(self._noted, locator[0][0])

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        self._watches = self._watches.adding(watches)
        self._noted.extend(watches)
        newest = max(self._told, default=BlockHeight(0))
        self._look_back(watches, newest)
        return BlockHeight(newest + 1)

    def _look_back(self, watches: Sequence[Watch], newest: int) -> None:
        chain = self._simulation.chain
        for height in range(min((w.since_height for w in watches), default=newest + 1), min(newest, chain.height) + 1):
            wanted = WatchSet().adding([watch for watch in watches if watch.since_height <= height])
            block = self._whole(chain.block_at(height))
            found = self._matches(block, wanted)
            if found:
                self.says.append(HistoryFound(height=block.height, block_hash=block.block_hash, transactions=found))
        self.says.append(SourceSynced(height=chain.height, block_hash=chain.tip_hash))

    @staticmethod
    def _whole(stored: Any) -> BlockConnected:
        from leyden_regtest.protocol import connected_block

        return connected_block(stored.height, stored.raw)

    def _matches(self, block: BlockConnected, watches: WatchSet) -> tuple[BlockTransaction, ...]:
        txids = [found.tx.txid for found in block.transactions]
        return tuple(
            msgspec.structs.replace(found, branch=merkle_branch(txids, found.position))
            for found in watches.matching(block.transactions)
            if found.tx.txid not in self.hidden and not self.hides(found)
        )

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        raise LeydenError("this source has no whole blocks")

    def poll(self) -> Any:
        event = super().poll()
        if isinstance(event, BlocksDisconnected):
            self._told = {height: block for height, block in self._told.items() if height <= event.fork_height}
        if not isinstance(event, BlockConnected):
            return event
        self._told[event.height] = event
        found = self._matches(event, self._watches)
        if self.late and found:
            self.says.append(HistoryFound(height=event.height, block_hash=event.block_hash, transactions=found))
            tip = self._simulation.chain
            self.says.append(SourceSynced(height=tip.height, block_hash=tip.tip_hash))
            found = ()
        return msgspec.structs.replace(event, transactions=found, full=False)


def use(node: SimNode, **services: Any) -> None:
    """Start ``node`` again with other chain services: lists of sources for ``sources`` and ``verifiers``."""

    def adapt(old: Services) -> Services:
        sources = [make(node) for make in services.get("sources", ())] or [old.chain_source]
        verifiers = [make(node) for make in services.get("verifiers", ())]
        names = {"chain_source": [source.info.name for source in sources]}
        return msgspec.structs.replace(
            old,
            chain_source=sources[0],
            chain_fallbacks=sources[1:],
            chain_verifiers=verifiers,
            broadcasters=old.broadcasters,
            names=names | {"chain_verifier": [verifier.info.name for verifier in verifiers]},
        )

    node.adapt = adapt
    if node.alive:
        node.kill()
    node.start()
    node.simulation.settle()
