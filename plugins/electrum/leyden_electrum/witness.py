"""A second server, asked the same things now and then: what the first leaves out, it may tell.

Proofs decide who is right: a transaction in a block can be hidden but not invented, and so can a block.
"""

import asyncio
from collections.abc import Sequence

import structlog
from leyden.chain import ChainSourceError
from leyden.crypto import sha256d
from leyden.types import Txid

from leyden_electrum.branches import check_same_chain, extend_down, fetch_branch, find_fork
from leyden_electrum.errors import OtherMoment, ServerFault, ServerRefused, ServerUnavailable
from leyden_electrum.headers import HeaderStore
from leyden_electrum.pool import NoServer, ServerPool
from leyden_electrum.proofs import proof_mistake
from leyden_electrum.scripts import WatchedScript
from leyden_electrum.server import Confirmed, Server, Tip
from leyden_electrum.stream import ChainStream

log = structlog.get_logger("leyden.electrum")

SCRIPTS_AT_ONCE = 500
MAX_LAG = 3
"""Blocks that the second may be behind."""


class Witness:
    """``run`` until it is cancelled; ``look`` once, for tests too."""

    def __init__(self, stream: ChainStream, pool: ServerPool, *, every_seconds: float, grace_seconds: float) -> None:
        self._stream = stream
        self._pool = pool
        self._every = every_seconds
        self._grace = grace_seconds
        self.server: Server | None = None

    async def run(self) -> None:
        while True:
            await self._stream.synced_once.wait()
            try:
                await self.look()
            except NoServer as error:
                log.info("electrum_nobody_to_compare_with", reason=str(error))
            except OtherMoment as error:
                log.info("electrum_comparison_put_off", reason=str(error))
            except ServerRefused as error:
                await self._leave(error.as_trouble())
                continue
            except (ServerFault, ServerUnavailable) as error:
                await self._leave(error)
                continue
            except Exception as error:  # a bug: it must not end all comparisons
                log.error("electrum_comparison_failed", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(self._every)

    async def close(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            await server.close()

    async def _leave(self, error: ServerFault | ServerUnavailable) -> None:
        server = self.server
        await self.close()
        if server is not None:
            self._pool.leave(server.address, error)

    async def _connected(self, first: Server) -> Server:
        server = self.server
        if server is not None and (server.session.ended is not None or server.address == first.address):
            await self.close()
        if self.server is None:
            self.server = await self._pool.connect(lambda: None, besides=(first.address,))
        return self.server

    async def look(self) -> None:
        """Compare tips, then histories; what is found ends in ``ChainStream.accuse`` or in leaving the second."""
        first, headers = self._stream.server, self._stream.headers
        if first is None or headers is None:
            return
        second = await self._connected(first)
        tip = await second.follow_tip()
        if not headers.has(tip.height, sha256d(tip.header)):
            await self._compare_tips(first, second, tip)
        elif tip.height < headers.height - MAX_LAG:
            await self._check_lag(second, headers)
        await self._compare_histories(first, second)

    # -- tips --------------------------------------------------------------------------------------------------------

    async def _compare_tips(self, first: Server, second: Server, tip: Tip) -> None:
        """The second is on a branch of its own or further than we are; after a moment the first must have followed."""
        headers = self._stream.headers
        if headers is None or not await self._has_more_work(second, headers, tip):
            return
        await asyncio.sleep(self._grace)
        headers = self._stream.headers
        if headers is None or self._stream.server is not first or headers.has(tip.height, sha256d(tip.header)):
            return
        if await self._has_more_work(second, headers, tip):
            self._stream.accuse(
                first.address,
                ServerFault(
                    f"it is stale: its chain ends at block {headers.height}, while {second.address} shows a chain with "
                    f"more work up to block {tip.height}"
                ),
            )

    async def _check_lag(self, second: Server, headers: HeaderStore) -> None:
        """One that is behind shows nothing: after a moment it must have come near to where we were."""
        wanted = headers.height
        await asyncio.sleep(self._grace)
        tip = await second.follow_tip()
        if tip.height < wanted - MAX_LAG:
            raise ServerFault(f"it is stale: its chain ends at block {tip.height}, we know block {wanted}")

    async def _has_more_work(self, second: Server, headers: HeaderStore, tip: Tip) -> bool:
        try:
            fork = await find_fork(second, headers, min(tip.height, headers.height))
            if fork is None:
                return False
            _, end = await fetch_branch(second, headers.tip_at(fork), tip)
        except ChainSourceError as error:
            raise ServerFault(f"its chain is no chain: {error}") from error
        return end.work > headers.work_above(fork)

    # -- histories ---------------------------------------------------------------------------------------------------

    async def _compare_histories(self, first: Server, second: Server) -> None:
        scripts = self._stream.book.values()
        for at in range(0, len(scripts), SCRIPTS_AT_ONCE):
            part = scripts[at : at + SCRIPTS_AT_ONCE]
            if not await self._differences(second, part):
                continue
            await asyncio.sleep(self._grace)  # the first may only be late, or have told us meanwhile
            for found, hidden, unknown in await self._differences(second, part):
                if self._stream.server is not first:
                    return
                await self._judge(first, second, found, hidden, unknown)

    async def _differences(
        self, second: Server, scripts: Sequence[WatchedScript]
    ) -> list[tuple[WatchedScript, list[Confirmed], list[tuple[Txid, int]]]]:
        """Per script: what only the second tells, and what it does not tell but we know. None while we are behind."""
        histories = await second.histories([found.script for found in scripts])
        tip = await second.follow_tip()
        headers = self._stream.headers
        if headers is None or not self._stream.settled:
            return []
        common = min(headers.height, tip.height)
        if common < headers.base:
            return []
        if await second.header(common) != headers.header(common):
            return []
        differences = []
        for found, history in zip(scripts, histories, strict=True):
            told = {entry.txid: entry.height for entry in history.confirmed}
            known = found.known or {}
            hidden = [
                Confirmed(txid=txid, height=height)
                for txid, height in told.items()
                if found.since <= height <= common and known.get(txid) != height
            ]
            unknown = [(txid, at) for txid, at in known.items() if at <= common and told.get(txid) != at]
            if hidden or unknown:
                differences.append((found, hidden, unknown))
        return differences

    async def _judge(
        self,
        first: Server,
        second: Server,
        found: WatchedScript,
        hidden: Sequence[Confirmed],
        unknown: Sequence[tuple[Txid, int]],
    ) -> None:
        headers = self._stream.headers
        if headers is None:
            return
        if unknown:
            txid, at = unknown[0]
            await check_same_chain(second, headers, at)
            raise ServerFault(f"it hides transaction {txid[::-1].hex()}, which is in block {at}")
        proofs = await second.proofs(hidden)
        transactions = await second.transactions([entry.txid for entry in hidden])
        for entry, proof, tx in zip(hidden, proofs, transactions, strict=True):
            shown = entry.txid[::-1].hex()
            if isinstance(proof, ServerRefused) or isinstance(tx, ServerRefused):
                raise ServerFault(f"it does not prove transaction {shown}, said to be in block {entry.height}")
            if entry.height < headers.base:
                await extend_down(second, headers, entry.height)
            if entry.height > headers.height:
                raise OtherMoment("the chain has changed meanwhile")
            mistake = proof_mistake(tx, proof, headers.merkle_root(entry.height))
            await check_same_chain(second, headers, entry.height)
            if mistake:
                raise ServerFault(f"transaction {shown} is not in block {entry.height} as it says: {mistake}")
            self._stream.accuse(
                first.address,
                ServerFault(
                    f"it hides transaction {shown} of block {entry.height}, "
                    f"which {second.address} proves{_of_outputs(found)}"
                ),
            )


def _of_outputs(found: WatchedScript) -> str:
    if not found.outputs:
        return ""
    return f": it concerns output {found.outputs[0].txid[::-1].hex()}:{found.outputs[0].vout}"
