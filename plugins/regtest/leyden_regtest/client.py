"""Talking to ``leyden-regtest serve``: requests on short connections, and the services of a node on top of them.

A request opens a connection of its own (a Unix socket: some hundred microseconds), so nothing lingers and a restarted
server is simply found again. Only ``events`` keeps a connection, for as long as it is iterated.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from leyden.bitcoin import BitcoinError, Transaction, TxOut
from leyden.hooks.refusals import refusal_of
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BroadcastKind,
    BroadcastRefusal,
    BroadcastResult,
    ChainEvent,
    FeeTarget,
    SourceInfo,
    SourceTrouble,
    UtxoAnswer,
    UtxoFound,
    UtxoSpent,
    UtxoUnknown,
    Watch,
)
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, OutPoint, Sat

from leyden_regtest import protocol as p
from leyden_regtest.errors import ChainError

T = TypeVar("T")
FEERATE_FLOOR = FeeRatePerKw(253)
"""The least that nodes relay: one sat per virtual byte, in sat per 1000 weight."""
_MAXIMUM_FACTOR = 10
_RETRY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0)
_KEPT_PLACES = 200
_reply_decoder = msgspec.json.Decoder(p.Reply)
_push_decoder = msgspec.json.Decoder(p.AnyPush)


class ServerGone(ChainError):
    """Nobody answers on the socket (any more)."""


async def call(socket_path: Path, request: p.AnyRequest, result: type[T]) -> T:
    """One request and its result. ``ServerGone`` if nobody answers, ``ChainError`` with the server's refusal."""
    reader, writer = await _connect(socket_path)
    try:
        return await _ask(reader, writer, request, result)
    finally:
        await _hang_up(writer)


async def _connect(socket_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(str(socket_path), limit=p.MAX_LINE)
    except OSError as error:
        raise ServerGone(
            f"{socket_path}: {error.strerror or error} (is `leyden-regtest serve` running there?)"
        ) from error


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: p.AnyRequest, result: type[T]) -> T:
    try:
        writer.write(msgspec.json.encode(request) + b"\n")
        await writer.drain()
        line = await reader.readline()
    except OSError as error:
        raise ServerGone(f"the chain server hung up: {error}") from error
    if not line.endswith(b"\n"):
        raise ServerGone("the chain server hung up")
    try:
        reply = _reply_decoder.decode(line)
        if reply.error is not None:
            raise ChainError(reply.error.message)
        return msgspec.json.decode(reply.result, type=result)
    except msgspec.MsgspecError as error:
        raise ChainError(f"the chain server sent an unexpected reply: {error}") from error


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    try:
        await writer.wait_closed()
    except OSError:
        pass


def fee_for_target(constant: FeeRatePerKw, target: FeeTarget) -> FeeRatePerKw:
    """The constant for everything we pay; bounds on what others may pay are wider."""
    if target in (FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE, FeeTarget.MIN_ALLOWED_NON_ANCHOR_REMOTE):
        return FEERATE_FLOOR
    if target is FeeTarget.MAXIMUM:
        return FeeRatePerKw(constant * _MAXIMUM_FACTOR)
    return FeeRatePerKw(max(constant, FEERATE_FLOOR))


class RegtestClient:
    """ChainSource, Broadcaster and FeeEstimator over the socket of a chain server."""

    def __init__(self, socket_path: Path, feerate_per_kw: FeeRatePerKw | None = None) -> None:
        self._path = socket_path
        self._feerate = feerate_per_kw
        self._places: deque[tuple[BlockHeight, BlockHash]] = deque(maxlen=_KEPT_PLACES)
        self._locator: tuple[BlockHash, ...] = ()
        self._birth_height = BlockHeight(0)
        self._first_height = BlockHeight(0)
        self._stopped = asyncio.Event()
        self._restarted = False
        self._writer: asyncio.StreamWriter | None = None

    # -- ChainSource -----------------------------------------------------------------------------------------------

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(name="regtest", full_blocks=True)

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        """See ``ChainSource.start``. Called again, it sends ``events`` back to ``locator``."""
        self._places.clear()
        self._locator = tuple(block_hash for _, block_hash in locator)
        self._birth_height = birth_height
        self._first_height = BlockHeight(locator[0][0] + 1) if locator else birth_height
        self._drop_stream()

    def events(self) -> AsyncIterator[ChainEvent]:
        """See ``ChainSource.events``. Survives restarts of the server: it goes on where it was."""
        return self._events()

    async def _events(self) -> AsyncIterator[ChainEvent]:
        failures, trouble = 0, ""
        while not self._stopped.is_set():
            try:
                async for event in self._stream():
                    failures = 0
                    if trouble:
                        trouble = ""
                        yield SourceTrouble(reason="")
                    yield event
            except ServerGone as error:
                if not self._stopped.is_set() and not self._restarted and str(error) != trouble:
                    trouble = str(error)
                    yield SourceTrouble(reason=trouble)
            if not self._stopped.is_set() and not self._restarted:
                await self._pause(_RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)])
                failures += 1

    async def _stream(self) -> AsyncIterator[ChainEvent]:
        """Events over one connection, until it is lost."""
        self._restarted = False
        reader, writer = await _connect(self._path)
        self._writer = writer
        try:
            places = [block_hash for _, block_hash in reversed(self._places)]
            locator = [p.text_hash(block_hash) for block_hash in (*places, *self._locator)]
            await _ask(reader, writer, p.Follow(locator=locator, birth_height=self._birth_height), type(None))
            while (line := await reader.readline()).endswith(b"\n") and not self._restarted:
                event = _read_event(line)
                self._note(event)
                yield event
        except OSError as error:
            raise ServerGone(str(error)) from error
        finally:
            self._writer = None
            await _hang_up(writer)

    def _note(self, event: ChainEvent) -> None:
        if isinstance(event, BlockConnected):
            self._places.append((event.height, event.block_hash))
        elif isinstance(event, BlocksDisconnected):
            while self._places and self._places[-1][0] > event.fork_height:
                self._places.pop()
            if not self._places:
                self._places.append((event.fork_height, event.fork_hash))

    def _drop_stream(self) -> None:
        self._restarted = True
        if self._writer is not None:
            self._writer.close()

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopped.wait(), seconds)
        except TimeoutError:
            pass

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        """Full blocks need no registration; what was delivered before now, the core looks at again."""
        return BlockHeight(self._places[-1][0] + 1) if self._places else self._first_height

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        """A block of any branch. ``ChainError`` if the server has none or is not there."""
        found = await call(self._path, p.GetBlock(hash=p.text_hash(block_hash)), p.BlockResult)
        return p.connected_block(BlockHeight(found.height), bytes.fromhex(found.block))

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        try:
            found = await call(
                self._path, p.FindUtxo(txid=p.text_hash(outpoint.txid), vout=outpoint.vout), p.UtxoResult
            )
        except ChainError as error:
            return UtxoUnknown(reason=str(error))
        if found.status == "found":
            output = TxOut(value=Sat(found.sat), script=bytes.fromhex(found.script))
            return UtxoFound(output=output, height=BlockHeight(found.height), coinbase=found.coinbase)
        return UtxoSpent() if found.status == "spent" else UtxoUnknown(reason="no such output in the best chain")

    async def stop(self) -> None:
        self._stopped.set()
        self._drop_stream()

    # -- Broadcaster -----------------------------------------------------------------------------------------------

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        """Submit once. A server that is not there is a refusal too: the core repeats what matters."""
        request = p.Broadcast(package=[tx.serialize().hex() for tx in package])
        try:
            outcome = await call(self._path, request, p.BroadcastOutcome)
        except ServerGone as error:
            return BroadcastResult(accepted=False, reason=str(error), refusal=BroadcastRefusal.UNAVAILABLE)
        except ChainError as error:
            return BroadcastResult(accepted=False, reason=str(error))
        if outcome.accepted:
            return BroadcastResult(accepted=True)
        return BroadcastResult(accepted=False, reason=outcome.reason, refusal=refusal_of(outcome.reason))

    # -- FeeEstimator ----------------------------------------------------------------------------------------------

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        """The server's constant, or the one from the settings; ``None`` while the server is not there."""
        if self._feerate is not None:
            return fee_for_target(self._feerate, target)
        try:
            return fee_for_target(FeeRatePerKw(await call(self._path, p.Fee(), int)), target)
        except ChainError:
            return None


def _read_event(line: bytes) -> ChainEvent:
    try:
        return p.read_push(_push_decoder.decode(line))
    except (msgspec.MsgspecError, BitcoinError, ValueError) as error:
        raise ServerGone(f"the chain server sent something unexpected: {error}") from error
