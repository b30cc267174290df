"""The socket: reads lines, answers each with a reply, and survives whatever is written to it."""

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog
from leyden.types import LeydenError

from leyden_cli.errors import CliError
from leyden_cli.rpc import protocol as p
from leyden_cli.rpc.cleaning import clean_values
from leyden_cli.rpc.methods import InvalidParams, Method

log = structlog.get_logger("leyden.rpc")

MAX_CALLS = 1000
"""Calls of one connection that may be in progress; the socket is not read while there are as many."""
_MAX_PATH = 100
_CHUNK = 65_536
_LAST_SECONDS = 1.0
_requests = msgspec.json.Decoder(p.Request)
_encoder = msgspec.json.Encoder()


_TOO_LONG = p.Failure(
    error=p.RpcError(code=p.INVALID_REQUEST, message=f"a line has at most {p.MAX_LINE} bytes"), id=None
)


class Lines:
    """Cuts what arrives into lines; holds at most ``MAX_LINE`` bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that ``chunk`` completes, without empty ones; ``None`` stands for one that is too long."""
        self._buffer += chunk
        found: list[bytes | None] = []
        *complete, rest = self._buffer.split(b"\n")
        for line in complete:
            if not self._skipping and line.strip():
                found.append(bytes(line) if len(line) <= p.MAX_LINE else None)
            self._skipping = False
        if len(rest) > p.MAX_LINE and not self._skipping:
            found.append(None)
            self._skipping = True
        self._buffer = bytearray() if self._skipping else rest
        return found


class RpcServer:
    """Serves ``methods`` on a Unix socket of mode 0600. ``await start()``, later ``await close()``.

    ``why_not`` may refuse a method for now, by its name, with a reason in one line.
    """

    def __init__(
        self, path: Path, methods: Mapping[str, Method[Any]], why_not: Callable[[str], str] = lambda _method: ""
    ) -> None:
        self._why_not = why_not
        self._path = path
        self._methods = methods
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._closing = False

    async def start(self) -> None:
        """Listen. The caller holds the folder's lock: a socket file that lies there is a dead node's."""
        listening = _bind(self._path)
        self._server = await asyncio.start_unix_server(self._on_connection, sock=listening, limit=_CHUNK)

    async def close(self) -> None:
        """Stop listening, drop what is still being answered, remove the socket file."""
        self._closing = True
        if self._server is not None:
            loop = asyncio.get_running_loop()
            for listening in self._server.sockets:
                loop.remove_reader(listening)
            await asyncio.sleep(0)  # what was just accepted gets its transport, or asyncio would lose it
            self._server.close()
        connections = dict(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.gather(*(_hang_up(writer) for writer in connections.values()))
        self._path.unlink(missing_ok=True)

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Not a coroutine: one that is cancelled before its first step would leave the writer open."""
        if self._closing:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve_quietly(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(self._on_end)

    def _on_end(self, task: "asyncio.Task[None]") -> None:
        self._connections.pop(task).close()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("connection_failed", reason=f"{type(error).__name__}: {error}")

    async def _serve_quietly(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except OSError:
            pass  # hung up

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers come as they are ready. Calls that were begun are finished even if the client is gone."""
        room = asyncio.Semaphore(MAX_CALLS)
        lines = Lines()
        async with asyncio.TaskGroup() as calls:
            while chunk := await reader.read(_CHUNK):
                for line in lines.feed(chunk):
                    await room.acquire()
                    calls.create_task(self._answer(line, writer)).add_done_callback(lambda _: room.release())

    async def _answer(self, line: bytes | None, writer: asyncio.StreamWriter) -> None:
        reply = _TOO_LONG if line is None else await self._reply(line)
        if reply is not None:
            await _write(writer, reply)

    async def _reply(self, line: bytes) -> p.Success | p.Failure | None:
        """The reply to one line, ``None`` for a notification."""
        try:
            request = _requests.decode(line)
        except msgspec.ValidationError as error:
            return p.Failure(error=p.RpcError(code=p.INVALID_REQUEST, message=str(error)), id=_id_of(line))
        except (msgspec.DecodeError, RecursionError):
            return p.Failure(error=p.RpcError(code=p.PARSE_ERROR, message="this is not JSON"), id=None)
        outcome = await self._call(request)
        if isinstance(request.id, msgspec.UnsetType):
            return None
        if isinstance(outcome, p.RpcError):
            return p.Failure(error=outcome, id=request.id)
        return p.Success(result=outcome, id=request.id)

    async def _call(self, request: p.Request) -> msgspec.Raw | p.RpcError:
        method = self._methods.get(request.method)
        if method is None:
            return p.RpcError(code=p.METHOD_NOT_FOUND, message="there is no such method")
        if reason := self._why_not(request.method):
            return p.RpcError(code=p.REFUSED, message=reason, data=p.ErrorData(kind="NotReady"))
        try:
            params = method.read(request.params)
        except (msgspec.MsgspecError, RecursionError) as error:
            return p.RpcError(code=p.INVALID_PARAMS, message=str(error))
        try:
            return msgspec.Raw(_encoder.encode(clean_values(await method.run(params))))
        except InvalidParams as error:
            return p.RpcError(code=p.INVALID_PARAMS, message=str(error))
        except TimeoutError:
            message = "time ran out; what was begun goes on"
            return p.RpcError(code=p.TIMED_OUT, message=message, data=p.ErrorData(kind="TimeoutError"))
        except LeydenError as error:
            text = str(clean_values(str(error)))
            return p.RpcError(code=p.REFUSED, message=text, data=p.ErrorData(kind=type(error).__name__))
        except Exception:
            log.exception("call_failed", method=request.method)
            return p.RpcError(code=p.INTERNAL_ERROR, message="internal error: the node's log says more")


def _id_of(line: bytes) -> p.Id:
    """The id of a request that is not valid otherwise, if it has a proper one."""
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return None
    value = found.get("id") if isinstance(found, dict) else None
    return value if isinstance(value, str | int) else None


async def _write(writer: asyncio.StreamWriter, reply: p.Success | p.Failure) -> None:
    try:
        writer.write(_encoder.encode(reply) + b"\n")
        await writer.drain()
    except OSError:
        pass  # the client did not wait for the answer


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """The last answers leave, unless the client does not take them."""
    try:
        async with asyncio.timeout(_LAST_SECONDS):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


def _bind(path: Path) -> socket.socket:
    """A listening socket file that only its owner may use, from the moment it exists."""
    if len(os.fsencode(path)) > _MAX_PATH:
        raise CliError(f"{path} is too long for a Unix socket: choose a data_dir with a shorter path")
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        raise CliError(f"cannot listen on {path}: {error.strerror}") from None
    finally:
        os.umask(mask)
    return listening
