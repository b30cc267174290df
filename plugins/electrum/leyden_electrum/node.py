"""Electrum servers as ChainSource, Broadcaster and FeeEstimator."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from leyden.bitcoin import HEADER_LENGTH, Network, Transaction
from leyden.chain import ChainSourceError
from leyden.hooks.errors import PluginError
from leyden.hooks.types import (
    BlockConnected,
    BroadcastKind,
    BroadcastRefusal,
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
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, LeydenError, OutPoint

from leyden_electrum import fees
from leyden_electrum.branches import extend_down
from leyden_electrum.errors import OtherMoment, ServerFault, ServerRefused, ServerUnavailable
from leyden_electrum.headers import HeaderStore
from leyden_electrum.pool import NoServer, ServerPool
from leyden_electrum.proofs import proof_mistake
from leyden_electrum.server import Confirmed, Server
from leyden_electrum.stream import ChainStream, Place
from leyden_electrum.submitting import submit
from leyden_electrum.witness import Witness

log = structlog.get_logger("leyden.electrum")

GRACE_SECONDS = 30.0
"""How long two servers may differ before that counts: blocks need time to reach both."""
MAX_HISTORY = 200
"""Transactions of a script that are looked through for the one that spends an output."""


class ElectrumNode:
    """Several servers as one source: one is followed, another compared with it now and then."""

    def __init__(
        self,
        pool: ServerPool,
        network: Network,
        *,
        compare_seconds: float = 600.0,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._pool = pool
        self._network = network
        self._stream = ChainStream(pool, network)
        self._witness = Witness(self._stream, pool, every_seconds=compare_seconds, grace_seconds=grace_seconds)
        self._comparing: asyncio.Task[None] | None = None
        self._dialling = asyncio.Lock()
        self._own: Server | None = None
        self._asking = 0

    # -- ChainSource -------------------------------------------------------------------------------------------------

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(name="electrum", full_blocks=False, proofs=True)

    async def start(self, locator: Sequence[Place], birth_height: BlockHeight) -> None:
        """``PluginError`` when no server can ever be used as it is configured; absent ones ``events`` waits for."""
        try:
            await self._stream.start(locator, birth_height)
        except NoServer as error:
            raise PluginError(str(error)) from error
        if self._comparing is None and len(self._pool.addresses) > 1:
            self._comparing = asyncio.get_running_loop().create_task(self._witness.run(), name="electrum witness")

    def events(self) -> AsyncIterator[ChainEvent]:
        return self._stream.events()

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        return self._stream.watch(watches)

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        raise PluginError(f"Electrum servers have no whole blocks: block {block_hash[::-1].hex()} cannot be fetched")

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        """Confirmed outputs only, their funding and their spending proved. That an output was *not* spent is the word
        of the server alone."""
        server, headers = self._stream.server, self._stream.headers
        if server is None or headers is None:
            return UtxoUnknown(reason="no Electrum server is connected")
        try:
            return await self._find_utxo(server, headers, outpoint)
        except (OtherMoment, ServerRefused, ServerUnavailable) as error:
            return UtxoUnknown(reason=str(error))
        except (ServerFault, ChainSourceError) as error:
            self._stream.accuse(server.address, ServerFault(str(error)))
            return UtxoUnknown(reason=f"Electrum server {server.address} is at fault: {error}")

    async def _find_utxo(self, server: Server, headers: HeaderStore, outpoint: OutPoint) -> UtxoAnswer:
        (funding,) = await server.transactions([outpoint.txid])
        if isinstance(funding, ServerRefused):
            return UtxoUnknown(reason=funding.message)
        if outpoint.vout >= len(funding.outputs):
            return UtxoUnknown(reason=f"the transaction has {len(funding.outputs)} outputs")
        output = funding.outputs[outpoint.vout]
        (history,) = await server.histories([output.script])
        entry = next((found for found in history.confirmed if found.txid == outpoint.txid), None)
        if entry is None:
            return UtxoUnknown(reason="not confirmed")
        await self._prove(server, headers, entry, funding)
        later = [found for found in history.confirmed if found.height >= entry.height and found is not entry]
        if len(later) > MAX_HISTORY:
            return UtxoUnknown(reason=f"its script has a history of {len(later)} transactions")
        for found, tx in zip(later, await server.transactions([one.txid for one in later]), strict=True):
            if isinstance(tx, ServerRefused):
                return UtxoUnknown(reason=tx.message)
            if any(txin.prevout == outpoint for txin in tx.inputs):
                await self._prove(server, headers, found, tx)
                return UtxoSpent()
        return UtxoFound(output=output, height=BlockHeight(entry.height), coinbase=funding.is_coinbase)

    async def _prove(self, server: Server, headers: HeaderStore, entry: Confirmed, tx: Transaction) -> None:
        """``ServerFault`` unless ``tx`` is in the block that the server says."""
        if entry.height > headers.height:
            tip = headers.tip
            run = await server.headers(tip.height + 1, entry.height - tip.height)
            if run[4:36] != tip.hash:
                raise OtherMoment("it is on another branch than we are, or shorter")
            _, hashes = tip.extended(run)
            if len(hashes) != entry.height - tip.height:
                raise ServerUnavailable(f"its chain does not reach block {entry.height}")
            header = run[-HEADER_LENGTH:]
        else:
            await extend_down(server, headers, entry.height)
            header = headers.header(entry.height)
        (proof,) = await server.proofs([entry])
        if isinstance(proof, ServerRefused):
            raise ServerUnavailable(proof.message)
        mistake = proof_mistake(tx, proof, header[36:68])
        if mistake:
            if await server.header(entry.height) != header:
                raise OtherMoment("it has changed to another branch")
            raise ServerFault(f"transaction {tx.txid[::-1].hex()} is not in block {entry.height} as it says: {mistake}")

    async def stop(self) -> None:
        comparing, self._comparing = self._comparing, None
        if comparing is not None:
            comparing.cancel()
            await asyncio.gather(comparing, return_exceptions=True)
        await self._witness.close()
        await self._stream.stop()

    # -- Broadcaster -------------------------------------------------------------------------------------------------

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        """To every server that is connected; accepted if one of them accepts."""
        try:
            async with self._connected() as server:
                servers = [server, *([self._witness.server] if self._witness.server is not None else [])]
                results = await asyncio.gather(*(submit(one, package) for one in servers))
        except NoServer as error:
            return BroadcastResult(accepted=False, reason=str(error), refusal=BroadcastRefusal.UNAVAILABLE)
        return next((result for result in results if result.accepted), results[0])

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Server]:
        """The server that is followed; while none is (when we are no chain source), one for all questions of now."""
        server = self._stream.server
        if server is not None and server.session.ended is None:
            yield server
            return
        self._asking += 1
        try:
            async with self._dialling:
                if self._own is None or self._own.session.ended is not None:
                    self._own = await self._pool.connect_once()
                server = self._own
            yield server
        finally:
            self._asking -= 1
            if not self._asking and self._own is not None:
                server, self._own = self._own, None
                await server.close()

    # -- FeeEstimator ------------------------------------------------------------------------------------------------

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        """``leyden_electrum.fees.estimate``, ``None`` while no server answers."""
        try:
            async with self._connected() as server:
                return await fees.estimate(server, self._network, target)
        except LeydenError as error:
            log.warning("no_fee_estimate", target=target.value, reason=str(error))
            return None
