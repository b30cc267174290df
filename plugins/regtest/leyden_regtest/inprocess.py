"""The same services on an ``EmbeddedChain`` in this process: for unit tests, and to see what a source must do."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from leyden.bitcoin import Transaction
from leyden.hooks.refusals import refusal_of
from leyden.hooks.types import (
    BlockConnected,
    BroadcastKind,
    BroadcastResult,
    ChainEvent,
    FeeTarget,
    SourceInfo,
    UtxoAnswer,
    Watch,
)
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, OutPoint

from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.client import fee_for_target
from leyden_regtest.cursor import Cursor
from leyden_regtest.errors import TransactionRefused
from leyden_regtest.protocol import connected_block


class InProcessChain:
    """ChainSource, Broadcaster and FeeEstimator on ``chain``; one object per node."""

    def __init__(self, chain: EmbeddedChain, feerate_per_kw: FeeRatePerKw) -> None:
        self._chain = chain
        self._feerate = feerate_per_kw
        self._cursor: Cursor | None = None
        self._stopped = False
        self._changed = asyncio.Event()
        self._next_height = BlockHeight(0)

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(name="regtest", full_blocks=True)

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        self._cursor = Cursor(self._chain, [block_hash for _, block_hash in locator], birth_height)
        self._next_height = BlockHeight(locator[0][0] + 1) if locator else birth_height
        if self._changed.set not in self._chain.listeners:
            self._chain.listeners.append(self._changed.set)
        self._changed.set()

    async def events(self) -> AsyncIterator[ChainEvent]:
        while not self._stopped:
            event = self._cursor.advance() if self._cursor is not None else None
            if event is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            if isinstance(event, BlockConnected):
                self._next_height = BlockHeight(event.height + 1)
            yield event

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        return self._next_height

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        stored = self._chain.block(block_hash)
        return connected_block(stored.height, stored.raw)

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        return self._chain.find_utxo(outpoint)

    async def stop(self) -> None:
        self._stopped = True
        if self._changed.set in self._chain.listeners:
            self._chain.listeners.remove(self._changed.set)
        self._changed.set()

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        try:
            self._chain.submit(package)
        except TransactionRefused as error:
            return BroadcastResult(accepted=False, reason=str(error), refusal=refusal_of(error.code))
        return BroadcastResult(accepted=True)

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        return fee_for_target(self._feerate, target)
