"""One bitcoind as ChainSource, Broadcaster and FeeEstimator."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog
from leyden.bitcoin import Network, Transaction, TxOut, parse_block
from leyden.hooks.errors import PluginError
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    BroadcastKind,
    BroadcastResult,
    ChainEvent,
    FeeTarget,
    SourceInfo,
    SourceSynced,
    UtxoAnswer,
    UtxoFound,
    UtxoSpent,
    UtxoUnknown,
    Watch,
)
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, OutPoint, Sat

from leyden_bitcoind.client import RpcClient, RpcRefused, RpcUnavailable
from leyden_bitcoind.news import News

log = structlog.get_logger("leyden.bitcoind")

CHAINS = {
    Network.MAINNET: "main",
    Network.TESTNET4: "testnet4",
    Network.SIGNET: "signet",
    Network.REGTEST: "regtest",
}
FETCH_AHEAD = 8
"""Blocks asked for in parallel while catching up."""
KEPT_PLACES = 200
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_KNOWN = (-27,)
_KNOWN_REASONS = ("txn-already-in-mempool", "txn-already-known", "already in block chain", "already in utxo set")
NOT_FOUND = -5
_TARGETS: dict[FeeTarget, tuple[int, int]] = {
    FeeTarget.MAXIMUM: (1, 8000),
    FeeTarget.URGENT_SWEEP: (6, 5000),
    FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE: (1008, 253),
    FeeTarget.ANCHOR_CHANNEL: (1008, 500),
    FeeTarget.MIN_ALLOWED_NON_ANCHOR_REMOTE: (144, 253),
    FeeTarget.NON_ANCHOR_CHANNEL: (12, 2000),
    FeeTarget.CLOSE_MINIMUM: (144, 500),
    FeeTarget.SWEEP: (12, 1000),
    FeeTarget.FUNDING: (12, 1000),
}
"""Blocks to confirm in, and the feerate (sat per 1000 weight) where bitcoind cannot estimate: test networks only."""

_Place = tuple[BlockHeight, BlockHash]


def _shown(block_hash: bytes) -> str:
    return block_hash[::-1].hex()


class BitcoindNode:
    """Follows the best chain of one bitcoind. Blocks come whole, so watches need no registration there."""

    def __init__(self, client: RpcClient, network: Network, news: News, *, poll_seconds: float = 2.0) -> None:
        self._client = client
        self._network = network
        self._news = news
        self._poll_seconds = poll_seconds
        self._places: deque[_Place] = deque(maxlen=KEPT_PLACES)
        self._next_height = BlockHeight(0)
        self._reached: _Place | None = None
        """The tip up to which everything was delivered."""
        self._restarts = 0
        self._stopped = False
        self._problem = ""

    # -- ChainSource -------------------------------------------------------------------------------------------------

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(name="bitcoind", full_blocks=True)

    async def start(self, locator: Sequence[_Place], birth_height: BlockHeight) -> None:
        """``PluginError`` when bitcoind is on another network; an absent bitcoind is waited for by ``events``."""
        self._restarts += 1
        self._places = deque(reversed(locator), maxlen=KEPT_PLACES)
        self._next_height = BlockHeight(locator[0][0] + 1) if locator else birth_height
        self._news.open()
        try:
            await self._check_network()
        except RpcUnavailable as error:
            log.warning("bitcoind_unavailable", reason=str(error))

    async def _check_network(self) -> None:
        found = (await self._client.call("getblockchaininfo"))["chain"]
        if found != CHAINS[self._network]:
            raise PluginError(
                f"bitcoind is on {found!r}, this node on {CHAINS[self._network]!r}: "
                "point bitcoind.url at the right one, or change network"
            )

    async def events(self) -> AsyncIterator[ChainEvent]:
        failures = 0
        told: BlockHash | None = None
        while not self._stopped:
            run = self._restarts
            try:
                async for event in self._advance():
                    if run != self._restarts:
                        break
                    yield event
                    told = None
                if run != self._restarts:
                    told = None
                    continue
                if self._reached is not None and told != self._reached[1]:
                    told = self._reached[1]
                    yield SourceSynced(height=self._reached[0], block_hash=told)
                failures, self._problem = 0, ""
            except (RpcUnavailable, RpcRefused) as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    log.warning("bitcoind_unavailable", reason=self._problem)
                await self._pause(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                continue
            await self._pause(self._poll_seconds)

    async def _pause(self, seconds: float) -> None:
        if not self._stopped:
            await self._news.wait(seconds)

    async def _advance(self) -> AsyncIterator[ChainEvent]:
        """Everything between where we are and bitcoind's tip."""
        self._reached = None
        info = await self._client.call("getblockchaininfo")
        async for event in self._rewind():
            yield event
        height, tip = self._next_height, int(info["blocks"])
        while height <= tip:
            last = min(tip, height + FETCH_AHEAD - 1)
            hashes = await self._client.batch("getblockhash", [(h,) for h in range(height, last + 1)])
            blocks = await asyncio.gather(*(self._client.call("getblock", block_hash, 0) for block_hash in hashes))
            for raw in blocks:
                event = _connected(height, bytes.fromhex(raw))
                if self._places and event.header[4:36] != self._places[-1][1]:
                    return  # the chain changed while we read: look again from the fork
                self._places.append((event.height, event.block_hash))
                self._next_height = height = BlockHeight(height + 1)
                yield event
        self._reached = BlockHeight(tip), BlockHash(bytes.fromhex(info["bestblockhash"])[::-1])

    async def _rewind(self) -> AsyncIterator[ChainEvent]:
        """Back to the newest of our blocks that is in bitcoind's best chain."""
        lost = False
        while self._places:
            height, block_hash = self._places[-1]
            if await self._is_active(block_hash):
                break
            self._places.pop()
            lost = True
        if not lost:
            return
        if not self._places:
            genesis = await self._client.call("getblockhash", 0)
            self._places.append((BlockHeight(0), BlockHash(bytes.fromhex(genesis)[::-1])))
        height, block_hash = self._places[-1]
        self._next_height = BlockHeight(height + 1)
        yield BlocksDisconnected(fork_height=height, fork_hash=block_hash)

    async def _is_active(self, block_hash: BlockHash) -> bool:
        try:
            header = await self._client.call("getblockheader", _shown(block_hash))
        except RpcRefused as error:
            if error.code == NOT_FOUND:
                return False
            raise
        return bool(header["confirmations"] >= 0)

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        """Blocks come whole: the stream is complete from the next one on."""
        return self._next_height

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        header = await self._client.call("getblockheader", _shown(block_hash))
        raw = await self._client.call("getblock", _shown(block_hash), 0)
        return _connected(BlockHeight(header["height"]), bytes.fromhex(raw))

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        """Confirmed outputs only. Spent and never seen look alike unless bitcoind has ``-txindex``."""
        txid = _shown(outpoint.txid)
        found = await self._client.call("gettxout", txid, outpoint.vout, False)
        if found is not None:
            best = await self._client.call("getblockheader", found["bestblock"])
            return UtxoFound(
                output=TxOut(value=_sat(found["value"]), script=bytes.fromhex(found["scriptPubKey"]["hex"])),
                height=BlockHeight(best["height"] - found["confirmations"] + 1),
                coinbase=found["coinbase"],
            )
        try:
            tx = await self._client.call("getrawtransaction", txid, True)
        except RpcRefused as error:
            return UtxoUnknown(reason=error.message)
        if tx.get("confirmations", 0) > 0 and outpoint.vout < len(tx["vout"]):
            return UtxoSpent()
        return UtxoUnknown(reason="not confirmed")

    async def stop(self) -> None:
        self._stopped = True
        self._news.close()
        await self._client.close()

    # -- Broadcaster -------------------------------------------------------------------------------------------------

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        raw = [tx.serialize().hex() for tx in package]
        try:
            if len(raw) == 1:
                await self._client.call("sendrawtransaction", raw[0])
                return BroadcastResult(accepted=True)
            return _package_result(await self._client.call("submitpackage", raw))
        except RpcRefused as error:
            if error.code in _KNOWN or any(reason in error.message for reason in _KNOWN_REASONS):
                return BroadcastResult(accepted=True)
            return BroadcastResult(accepted=False, reason=error.message)
        except RpcUnavailable as error:
            return BroadcastResult(accepted=False, reason=str(error))

    # -- FeeEstimator ------------------------------------------------------------------------------------------------

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        """bitcoind's estimate; on test networks, which have none, a fixed figure for the purpose."""
        blocks, fallback = _TARGETS[target]
        try:
            answer = await self._client.call("estimatesmartfee", blocks)
        except (RpcRefused, RpcUnavailable) as error:
            log.warning("no_fee_estimate", target=target.value, reason=str(error))
            return None
        if "feerate" in answer:
            return FeeRatePerKw(_sat(answer["feerate"]) // 4)
        return None if self._network is Network.MAINNET else FeeRatePerKw(fallback)


def _connected(height: int, raw: bytes) -> BlockConnected:
    block = parse_block(raw)
    return BlockConnected(
        height=BlockHeight(height),
        block_hash=BlockHash(block.hash),
        header=raw[:80],
        transactions=tuple(BlockTransaction(position=i, tx=tx) for i, tx in enumerate(block.transactions)),
        full=True,
    )


def _sat(bitcoin: float) -> Sat:
    """Amounts in JSON are decimal bitcoin; eight decimals survive a float."""
    return Sat(round(bitcoin * 100_000_000))


def _package_result(answer: dict[str, Any]) -> BroadcastResult:
    problems = [
        str(result["error"])
        for result in answer.get("tx-results", {}).values()
        if "error" in result and not any(reason in result["error"] for reason in _KNOWN_REASONS)
    ]
    message = str(answer.get("package_msg", ""))
    if message == "success" or not problems:
        return BroadcastResult(accepted=True)
    return BroadcastResult(accepted=False, reason="; ".join([message, *problems]))
