"""HTTP/1.1 as bitcoind speaks it: one request at a time on a kept connection, answers of a length told beforehand.

A block is megabytes of hexadecimal. It goes from the socket straight to where it stays: streams and a general parser
copy it six times on the way, which costs more than everything else that this plugin does with it.
"""

import asyncio
import re

from leyden.types import LeydenError

LONGEST_HEAD = 64 * 1024
LONGEST_BODY = 64 * 1024 * 1024
_STATUS = re.compile(rb"HTTP/1\.(\d) (\d{3})[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


class HttpError(LeydenError):
    """The connection broke, or what came over it is not an answer that bitcoind gives."""


class HttpConnection(asyncio.BufferedProtocol):
    """After any error, or a request that was cancelled, it has to be closed."""

    def __init__(self, host: str, authorization: str) -> None:
        self._headers = f"Host: {host}\r\nAuthorization: {authorization}\r\n"
        self._transport: asyncio.Transport | None = None
        self._head = bytearray(LONGEST_HEAD)
        self._body: bytearray | None = None
        """Of the answer whose head was read."""
        self._filled = 0
        """Bytes of ``_body``, or else of ``_head``, that were received."""
        self._status = 0
        self._answer: asyncio.Future[tuple[int, bytearray]] | None = None
        self._gone = asyncio.Event()
        self.reusable = True
        """Whether another request may follow."""

    @classmethod
    async def open(cls, host: str, port: int, authorization: str) -> "HttpConnection":
        """``OSError`` if nobody listens there."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(lambda: cls(f"{host}:{port}", authorization), host, port))[1]

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytearray]:
        """Status and body of the answer. ``HttpError`` if none comes."""
        if self._transport is None or self._transport.is_closing():
            raise HttpError("closed by the other end")
        if self._filled or self._body is not None:  # taken for the answer, it would shift all that follow
            raise HttpError("something came before it was asked for")
        self._answer = asyncio.get_running_loop().create_future()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        self._transport.write(f"{method} {path} HTTP/1.1\r\n{self._headers}{kind}\r\n".encode() + body)
        return await self._answer

    async def close(self) -> None:
        """Returns when the socket is gone; what was not sent yet never will be."""
        if self._transport is not None:
            self._transport.abort()
            await self._gone.wait()

    # -- called by the event loop --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(str(exc) if exc is not None else "closed by the other end")
        self._gone.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._head if self._body is None else self._body)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._body is None:
            end = self._head.find(b"\r\n\r\n", 0, self._filled)
            if end >= 0:
                self._on_head(end + 4)
            elif self._filled == LONGEST_HEAD:
                self._fail("the head of the answer has no end")
        if self._body is not None and self._filled == len(self._body):
            self._on_answer(self._body)

    def _on_head(self, end: int) -> None:
        status, length = _STATUS.match(self._head), _LENGTH.search(self._head, 0, end)
        if status is None or length is None:
            self._fail("the answer is not HTTP, or does not tell its length")
            return
        size, begun = int(length[1]), self._filled - end
        if size > LONGEST_BODY or begun > size:
            self._fail(f"the answer is too long ({size} bytes)")
            return
        self._status = int(status[2])
        self.reusable = status[1] == b"1" and _CLOSE.search(self._head, 0, end) is None
        self._body = bytearray(size)
        self._body[:begun] = self._head[end : self._filled]
        self._filled = begun

    def _on_answer(self, body: bytearray) -> None:
        self._body, self._filled = None, 0
        if self._answer is None or self._answer.done():
            self._fail("an answer that nobody asked for")
        else:
            self._answer.set_result((self._status, body))

    def _fail(self, reason: str) -> None:
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(HttpError(reason))
        if self._transport is not None:
            self._transport.abort()
