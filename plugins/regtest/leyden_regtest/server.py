"""``leyden-regtest serve``: one process owns the chain; nodes and people are clients over a Unix socket."""

import asyncio
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
from leyden.bitcoin import Network, decode_address, parse_transaction
from leyden.hooks.types import BlockConnected, UtxoFound, UtxoSpent
from leyden.types import BlockHash, BlockHeight, LeydenError, OutPoint, Sat, Txid

from leyden_regtest import protocol as p
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.cursor import Cursor
from leyden_regtest.errors import ChainError, TransactionRefused

DEFAULT_FEERATE = 1000
"""Sat per 1000 weight; four sat per virtual byte."""
_MAX_HEADERS = 2000
_MAX_SOCKET_PATH = 107


class ChainServer:
    """Serves ``chain`` on ``socket_path`` until ``stop`` is called or asked for."""

    def __init__(self, chain: EmbeddedChain, socket_path: Path, feerate_per_kw: int = DEFAULT_FEERATE) -> None:
        self._chain = chain
        self._path = socket_path
        self._feerate = feerate_per_kw
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._stopping = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> None:
        """Listen. ``ChainError`` if the socket's folder is open to others or another server is at work there."""
        await _prepare_socket(self._path)
        before = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=p.MAX_LINE)
        except OSError as error:
            raise ChainError(f"{self._path}: {error.strerror or error}") from error
        finally:
            os.umask(before)
        self._chain.listeners.append(self._on_change)

    def stop(self) -> None:
        """Ask ``run`` to return; harmless when repeated."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until stopped, then disconnect everybody and remove the socket."""
        try:
            await self._stopping.wait()
        finally:
            await self.close()

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        self._chain.listeners.remove(self._on_change)
        server.close()
        for connection in tuple(self._connections):
            connection.close()
        await self._idle.wait()
        _remove(self._path)

    def _on_change(self) -> None:
        for connection in self._connections:
            connection.changed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self._chain, reader, writer, self.answer)
        self._connections.add(connection)
        self._idle.clear()
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._idle.set()

    # -- methods ---------------------------------------------------------------------------------------------------

    def answer(self, request: p.AnyRequest) -> object:
        """The result of one request; ``LeydenError`` becomes an error reply."""
        chain = self._chain
        match request:
            case p.GetInfo():
                return self._info()
            case p.GetHeaders():
                last = min(chain.height, request.start + min(request.count, _MAX_HEADERS) - 1)
                return [chain.block_at(height).header.hex() for height in range(max(0, request.start), last + 1)]
            case p.GetBlock():
                return self._block(request)
            case p.Broadcast():
                return self._broadcast(request)
            case p.Mine():
                script = _script(request.script, request.address)
                return [p.text_hash(block_hash) for block_hash in chain.mine(_count(request.blocks), script)]
            case p.FaucetPay():
                return self._faucet(request)
            case p.Reorg():
                hashes = chain.reorg(request.depth, request.depth + request.extra, forget=request.forget)
                return [p.text_hash(block_hash) for block_hash in hashes]
            case p.FindUtxo():
                return self._utxo(OutPoint(Txid(_hash(request.txid)), request.vout))
            case p.FindTransaction():
                return self._transaction(Txid(_hash(request.txid)))
            case p.FindSpender():
                spender = chain.spender_of(OutPoint(Txid(_hash(request.txid)), request.vout))
                return None if spender is None else self._transaction(spender)
            case p.ListMempool():
                return [entry.tx.serialize().hex() for entry in chain.mempool.entries.values()]
            case p.Fee():
                if request.set is not None:
                    self._feerate = _count(request.set)
                return self._feerate
            case p.Stop():
                self.stop()
                return None
            case p.Follow():
                raise ChainError("follow belongs to a connection")

    def _info(self) -> p.ChainInfo:
        return p.ChainInfo(
            height=self._chain.height,
            hash=p.text_hash(self._chain.tip_hash),
            mempool=len(self._chain.mempool.entries),
            feerate_per_kw=self._feerate,
            faucet_script=self._chain.faucet_keys.script.hex(),
        )

    def _faucet(self, request: p.FaucetPay) -> p.TransactionResult:
        script = _script(request.script, request.address)
        if script is None:
            raise ChainError("say where to: address or script")
        tx = self._chain.faucet(script, Sat(request.sat))
        return p.TransactionResult(txid=p.text_hash(tx.txid), transaction=tx.serialize().hex(), height=None)

    def _block(self, request: p.GetBlock) -> p.BlockResult:
        if request.hash is not None:
            stored = self._chain.block(BlockHash(_hash(request.hash)))
        else:
            stored = self._chain.block_at(self._chain.height if request.height is None else request.height)
        return p.BlockResult(height=stored.height, hash=p.text_hash(stored.block.hash), block=stored.raw.hex())

    def _broadcast(self, request: p.Broadcast) -> p.BroadcastOutcome:
        try:
            self._chain.submit([parse_transaction(_bytes(raw)) for raw in request.package])
        except TransactionRefused as error:
            return p.BroadcastOutcome(accepted=False, reason=str(error))
        return p.BroadcastOutcome(accepted=True)

    def _utxo(self, outpoint: OutPoint) -> p.UtxoResult:
        found = self._chain.find_utxo(outpoint)
        if isinstance(found, UtxoFound):
            return p.UtxoResult(
                status="found",
                sat=found.output.value,
                script=found.output.script.hex(),
                height=found.height,
                coinbase=found.coinbase,
            )
        return p.UtxoResult(status="spent" if isinstance(found, UtxoSpent) else "unknown")

    def _transaction(self, txid: Txid) -> p.TransactionResult | None:
        found = self._chain.find_transaction(txid)
        if found is None:
            return None
        tx, height = found
        return p.TransactionResult(txid=p.text_hash(txid), transaction=tx.serialize().hex(), height=height)


class _Connection:
    """Reads requests one by one; pushes the chain from a cursor once the client follows."""

    def __init__(
        self,
        chain: EmbeddedChain,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[p.AnyRequest], object],
    ) -> None:
        self._chain = chain
        self._reader = reader
        self._writer = writer
        self._answer = answer
        self._cursor: Cursor | None = None
        self.changed = asyncio.Event()

    def close(self) -> None:
        self._writer.close()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                pusher = group.create_task(self._push())
                try:
                    await self._read()
                finally:
                    pusher.cancel()
        except* (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            self._writer.close()

    async def _read(self) -> None:
        while True:
            try:
                line = await self._reader.readline()
            except ValueError:
                return self._send(p.Reply(id=0, error=p.Failure(code="too-long", message="line too long")))
            if not line:
                return None
            try:
                request = _request_decoder.decode(line)
            except msgspec.MsgspecError as error:
                return self._send(p.Reply(id=0, error=p.Failure(code="bad-request", message=str(error))))
            self._send(self._reply(request))
            await self._writer.drain()

    def _reply(self, request: p.AnyRequest) -> p.Reply:
        try:
            result = self._result(request)
        except LeydenError as error:
            code = error.code if isinstance(error, TransactionRefused) else "refused"
            return p.Reply(id=request.id, error=p.Failure(code=code, message=str(error)))
        return p.Reply(id=request.id, result=msgspec.Raw(msgspec.json.encode(result)))

    def _result(self, request: p.AnyRequest) -> object:
        if not isinstance(request, p.Follow):
            return self._answer(request)
        self._follow(request)
        return None

    def _follow(self, request: p.Follow) -> None:
        locator = [BlockHash(_hash(text)) for text in request.locator]
        self._cursor = Cursor(self._chain, locator, BlockHeight(max(0, request.birth_height)))
        self.changed.set()

    async def _push(self) -> None:
        while True:
            await self.changed.wait()
            self.changed.clear()
            cursor = self._cursor
            while cursor is not None and cursor is self._cursor and (event := cursor.advance()) is not None:
                raw = self._chain.block(event.block_hash).raw if isinstance(event, BlockConnected) else b""
                self._send(p.make_push(event, raw))
                await self._writer.drain()

    def _send(self, message: p.Reply | p.AnyPush) -> None:
        self._writer.write(msgspec.json.encode(message) + b"\n")


_request_decoder: "msgspec.json.Decoder[p.AnyRequest]" = msgspec.json.Decoder(p.AnyRequest)


def _count(number: int) -> int:
    if not 0 < number <= 100_000:
        raise ChainError(f"{number} is out of range: 1 to 100000")
    return number


def _bytes(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ChainError(f"not hexadecimal: {text[:40]!r}") from None


def _hash(text: str) -> bytes:
    data = _bytes(text)
    if len(data) != 32:
        raise ChainError(f"a hash has 64 hexadecimal digits, not {len(text)}")
    return data[::-1]


def _script(script: str | None, address: str | None) -> bytes | None:
    """The output script that a request names, if any."""
    if script is not None:
        return _bytes(script)
    return None if address is None else decode_address(address, Network.REGTEST)


def _prepare_folder(path: Path) -> bool:
    """Make the socket's private folder; whether something lies at ``path`` already."""
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise ChainError(f"{path}: a socket's path has at most {_MAX_SOCKET_PATH} bytes, choose a shorter one")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.parent.stat().st_mode)
    except OSError as error:
        raise ChainError(f"{path.parent}: {error.strerror or error}") from error
    if mode & 0o077:
        raise ChainError(f"{path.parent} is open to others (mode {mode:o}): chmod 700 it or put the socket elsewhere")
    return path.exists()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _prepare_socket(path: Path) -> None:
    """A private folder for the socket and no other server in it."""
    if not _prepare_folder(path):
        return
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return _remove(path)  # left over by a server that was killed
    writer.close()
    await writer.wait_closed()
    raise ChainError(f"{path}: another server is running there")


async def serve(
    folder: Path, socket_path: Path, *, blocks: int, feerate_per_kw: int, ready: Callable[[str], None]
) -> None:
    """Own the chain in ``folder`` and serve it until SIGTERM, SIGINT or ``stop``; ``ready`` gets one line."""
    with EmbeddedChain(folder, blocks=blocks) as chain:
        server = ChainServer(chain, socket_path, feerate_per_kw)
        await server.start()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.stop)
        ready(f"leyden-regtest ready: height {chain.height}, socket {socket_path}")
        await server.run()
