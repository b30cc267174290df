"""JSON-RPC over one connection: a line per message, many requests under way at once, every size bounded."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from leyden.types import clean_text

from leyden_electrum.errors import MAX_WORDS, ServerFault, ServerRefused, ServerUnavailable

T = TypeVar("T")
Param = str | int | bool | Sequence[str]
Params = Sequence[Param]

MAX_LINE = 16 * 1024 * 1024
"""Bytes of one message: twice the largest transaction in hex."""
WINDOW = 500
"""Requests of one bulk that are under way at once."""


class _Message(msgspec.Struct):
    id: int | str | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"[]")
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


_message = msgspec.json.Decoder(_Message)
_error = msgspec.json.Decoder(_Error | str)
_encoder = msgspec.json.Encoder()
_Outcome = msgspec.Raw | ServerRefused | ServerFault | ServerUnavailable


class Session(asyncio.Protocol):
    """Requests and their answers. Whatever ends the connection is the outcome of all requests under way.

    ``on_notice(method, params)`` hears what the server says unasked; ``on_lost()`` that the connection is over.
    """

    def __init__(
        self, on_notice: Callable[[str, msgspec.Raw], None], on_lost: Callable[[], None], timeout_seconds: float
    ) -> None:
        self._on_notice = on_notice
        self._on_lost = on_lost
        self._timeout = timeout_seconds
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._searched = 0
        self._outgoing = bytearray()
        self._waiting: dict[int, tuple[str, asyncio.Future[_Outcome]]] = {}
        self._next_id = 0
        self._closed = asyncio.get_running_loop().create_future()
        self.ended: ServerFault | ServerUnavailable | None = None
        """Why the connection is over."""

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ServerUnavailable("it closed the connection" if exc is None else f"the connection broke: {exc}"))
        if not self._closed.done():
            self._closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.ended is not None:
            return
        buffer = self._buffer
        buffer += data
        begin = 0
        while self.ended is None:
            end = buffer.find(b"\n", max(begin, self._searched))
            if end < 0:
                break
            self._on_line(bytes(buffer[begin:end]))
            begin = self._searched = end + 1
        del buffer[:begin]
        self._searched = len(buffer)
        if len(buffer) > MAX_LINE:
            self._end(ServerFault(f"it sends a message of more than {MAX_LINE // 1024 // 1024} MiB"))

    # -- messages ----------------------------------------------------------------------------------------------------

    def _on_line(self, line: bytes) -> None:
        if not line.strip():
            return
        try:
            message = _message.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._end(ServerFault(f"it does not speak the Electrum protocol: {clean_text(line[:60])!r}"))
            return
        if message.method is not None:
            if message.id is None:
                self._on_notice(message.method, message.params)
            else:  # the only request that servers may send is a ping
                self._write({"jsonrpc": "2.0", "id": message.id, "result": {"data": ""}})
            return
        if not isinstance(message.id, int) or message.id not in self._waiting:
            return
        method, future = self._waiting.pop(message.id)
        if not future.done():
            future.set_result(message.result if bytes(message.error) == b"null" else _refusal(method, message.error))

    def _write(self, message: object) -> None:
        """What is asked in one pass of the event loop leaves together."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing += _encoder.encode(message)
        self._outgoing += b"\n"

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, bytearray()
        if self._transport is not None and self.ended is None:
            self._transport.write(outgoing)

    def send(self, method: str, params: Params) -> "asyncio.Future[_Outcome]":
        """Ask without waiting; give the future to ``answer``."""
        future: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        if self.ended is not None:
            future.set_result(self.ended)
            return future
        self._next_id += 1
        self._waiting[self._next_id] = method, future
        self._write({"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params})
        return future

    async def answer(self, method: str, future: "asyncio.Future[_Outcome]", kind: type[T]) -> T:
        """``ServerRefused`` with the server's words; ``ServerUnavailable`` when it is silent or gone; ``ServerFault``
        when the answer is no ``kind``."""
        if not future.done():
            try:
                async with asyncio.timeout(self._timeout):
                    await asyncio.wait((future,))
            except TimeoutError:
                self._end(ServerUnavailable(f"it does not answer {method} within {self._timeout:g} s"))
        outcome = future.result()
        if not isinstance(outcome, msgspec.Raw):
            raise outcome
        try:
            return msgspec.json.decode(outcome, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            shown = clean_text(bytes(outcome)[:60])
            fault = ServerFault(f"its answer to {method} makes no sense: {shown!r} ({error})")
            self._end(fault)
            raise fault from error

    async def call(self, method: str, params: Params, kind: type[T]) -> T:
        """One request; errors as of ``answer``."""
        return await self.answer(method, self.send(method, params), kind)

    async def call_many(self, method: str, params: Sequence[Params], kind: type[T]) -> list[T | ServerRefused]:
        """Many requests, at most ``WINDOW`` under way; answers in order, refusals among them."""
        under_way: deque[asyncio.Future[_Outcome]] = deque()
        answers: list[T | ServerRefused] = []

        async def take() -> None:
            try:
                answers.append(await self.answer(method, under_way.popleft(), kind))
            except ServerRefused as refusal:
                answers.append(refusal)

        for one in params:
            if len(under_way) >= WINDOW:
                await take()
            under_way.append(self.send(method, one))
        while under_way:
            await take()
        return answers

    # -- the end -----------------------------------------------------------------------------------------------------

    def _end(self, why: ServerFault | ServerUnavailable) -> None:
        if self.ended is not None:
            return
        self.ended = why
        waiting, self._waiting = self._waiting, {}
        for _, future in waiting.values():
            if not future.done():
                future.set_result(why)
        self._buffer.clear()
        if self._transport is not None:
            self._transport.abort()
        self._on_lost()

    async def close(self) -> None:
        """Returns when the socket is gone."""
        self._end(ServerUnavailable("we closed the connection"))
        if self._transport is not None:
            await asyncio.wait((self._closed,))


def _refusal(method: str, error: msgspec.Raw) -> ServerRefused:
    try:
        found = _error.decode(error)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ServerRefused(method, 0, clean_text(bytes(error)[:MAX_WORDS]))
    return (
        ServerRefused(method, 0, found) if isinstance(found, str) else ServerRefused(method, found.code, found.message)
    )
