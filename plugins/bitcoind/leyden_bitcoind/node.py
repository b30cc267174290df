"""One bitcoind as ChainSource, Broadcaster and FeeEstimator."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog
from leyden.bitcoin import Network, Transaction, TxOut
from leyden.hooks.errors import PluginError
from leyden.hooks.types import (
    BlockConnected,
    BroadcastKind,
    BroadcastResult,
    ChainEvent,
    FeeTarget,
    SourceInfo,
    UtxoAnswer,
    UtxoFound,
    UtxoSpent,
    UtxoUnknown,
    Watch,
)
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, OutPoint, ShortChannelId, Txid, format_short_channel_id

from leyden_bitcoind import fees, submitting
from leyden_bitcoind.backend import Backend, hash_of, pruned_message, shown
from leyden_bitcoind.blocks import Blocks, connected
from leyden_bitcoind.client import RpcClient, RpcRefused, RpcUnavailable
from leyden_bitcoind.news import News
from leyden_bitcoind.stream import NOT_FOUND, OUT_OF_RANGE, BlockStream, Place

log = structlog.get_logger("leyden.bitcoind")

KEPT_BLOCK_TXIDS = 16
"""Blocks whose transaction ids are remembered for the next look-up by short channel id."""
_NO_METHOD = -32601


class BitcoindNode:
    """Follows the best chain of one bitcoind. Blocks come whole, so watches need no registration there."""

    def __init__(self, client: RpcClient, network: Network, news: News, *, poll_seconds: float = 2.0) -> None:
        self._client = client
        self._network = network
        self._news = news
        self._backend: Backend | None = None
        self._blocks = Blocks(client)
        self._stream = BlockStream(
            client, self._blocks, network, news, poll_seconds=poll_seconds, on_look=self._on_look
        )
        self._txids: OrderedDict[BlockHash, list[Txid]] = OrderedDict()
        self._publishes_checked = False

    # -- ChainSource -------------------------------------------------------------------------------------------------

    @property
    def info(self) -> SourceInfo:
        """``prune_height`` is as of the last look; 0 before the first."""
        pruned = BlockHeight(0) if self._backend is None else self._backend.prune_height
        return SourceInfo(name="bitcoind", full_blocks=True, prune_height=pruned)

    def _on_look(self, backend: Backend) -> None:
        self._backend = backend

    async def start(self, locator: Sequence[Place], birth_height: BlockHeight) -> None:
        """``PluginError`` when this bitcoind can never do: it is on another network, has pruned what we need, or does
        not take the password. An absent one is waited for by ``events``."""
        await self._stream.start(locator, birth_height)
        await self._check_publishes()

    async def _check_publishes(self) -> None:
        """Say once if nothing will come by ZMQ: then every block waits for the next poll."""
        if self._publishes_checked or not self._news.addresses:
            return
        try:
            found = await self._client.call("getzmqnotifications")
        except RpcRefused as error:
            found = [] if error.code == _NO_METHOD else None
        except RpcUnavailable:
            found = None
        if found is None:
            return
        self._publishes_checked = True
        if not any(notice.get("type") in ("pubsequence", "pubhashblock", "pubrawblock") for notice in found):
            log.warning(
                "bitcoind_publishes_nothing",
                reason="zmq is set, but this bitcoind has none of -zmqpubsequence, -zmqpubhashblock, -zmqpubrawblock",
            )

    def events(self) -> AsyncIterator[ChainEvent]:
        return self._stream.events()

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        """Blocks come whole: the stream is complete from the next one on."""
        return self._stream.next_height

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        """``PluginError`` if bitcoind does not have it, or has pruned it."""
        try:
            header = await self._client.call("getblockheader", shown(block_hash))
        except RpcRefused as error:
            raise PluginError(f"bitcoind does not know block {shown(block_hash)}") from error
        height = BlockHeight(header["height"])
        try:
            return connected(height, await self._blocks.fetch(block_hash))
        except RpcRefused as error:
            if "pruned" in error.message:
                raise PluginError(pruned_message(height, max(height + 1, self.info.prune_height))) from error
            raise

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        """Confirmed outputs only. Spent and never seen look alike unless bitcoind has ``-txindex``."""
        found = await self._unspent(outpoint)
        if found is not None:
            return found
        try:
            tx = await self._client.call("getrawtransaction", shown(outpoint.txid), True)
        except RpcRefused as error:
            return UtxoUnknown(reason=error.message)
        if tx.get("confirmations", 0) > 0 and outpoint.vout < len(tx["vout"]):
            return UtxoSpent()
        return UtxoUnknown(reason="not confirmed")

    async def find_channel_output(self, short_channel_id: ShortChannelId) -> UtxoAnswer:
        """The output that a ``short_channel_id`` (BOLT 7) names, for announcements of channels."""
        height, index = short_channel_id >> 40, short_channel_id >> 16 & 0xFFFFFF
        try:
            txids = await self._block_txids(height)
        except RpcRefused as error:
            if error.code in (NOT_FOUND, OUT_OF_RANGE) or "pruned" in error.message:
                return UtxoUnknown(reason=f"block {height}: {error.message}")
            raise
        if index >= len(txids):
            return UtxoUnknown(reason=f"block {height} has {len(txids)} transactions")
        found = await self._unspent(OutPoint(txids[index], short_channel_id & 0xFFFF))
        if found is None:
            raw = await self._client.call("getblock", shown(await self._hash_at(height)), 2)
            outputs = len(raw["tx"][index]["vout"])
            if short_channel_id & 0xFFFF >= outputs:
                name = format_short_channel_id(short_channel_id)
                return UtxoUnknown(reason=f"the transaction of {name} has {outputs} outputs")
            return UtxoSpent()
        return found

    async def _hash_at(self, height: int) -> BlockHash:
        return hash_of(await self._client.call("getblockhash", height))

    async def _block_txids(self, height: int) -> list[Txid]:
        block_hash = await self._hash_at(height)
        if block_hash not in self._txids:
            block = await self._client.call("getblock", shown(block_hash), 1)
            self._txids[block_hash] = [Txid(hash_of(txid)) for txid in block["tx"]]
            while len(self._txids) > KEPT_BLOCK_TXIDS:
                self._txids.popitem(last=False)
        return self._txids[block_hash]

    async def _unspent(self, outpoint: OutPoint) -> UtxoFound | None:
        found: Any = await self._client.call("gettxout", shown(outpoint.txid), outpoint.vout, False)
        if found is None:
            return None
        best = await self._client.call("getblockheader", found["bestblock"])
        return UtxoFound(
            output=TxOut(value=fees.satoshi(found["value"]), script=bytes.fromhex(found["scriptPubKey"]["hex"])),
            height=BlockHeight(best["height"] - found["confirmations"] + 1),
            coinbase=found["coinbase"],
        )

    async def stop(self) -> None:
        """Calls under way fail; ``events`` ends."""
        self._stream.stop()
        await self._client.close()

    # -- Broadcaster and FeeEstimator ----------------------------------------------------------------------------------

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        return await submitting.submit(self._client, package)

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        return await fees.estimate(self._client, self._network, target)
