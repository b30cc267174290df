"""JSON-RPC over kept HTTP connections: batches, typed errors."""

import asyncio
import base64
import secrets
from binascii import unhexlify
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

import msgspec
from leyden.types import LeydenError, clean_text

from leyden_bitcoind.http import HttpConnection, HttpError

WARMING_UP = -28
_HEX = b'"result":"'


class RpcUnavailable(LeydenError):
    """bitcoind does not answer, or not yet (starting, warming up, restarting): worth trying again."""


class RpcDenied(RpcUnavailable):
    """bitcoind does not take our credentials. ``final``: trying again will not help before somebody changes them; a
    cookie may just be from before a restart."""

    def __init__(self, message: str, *, final: bool) -> None:
        self.final = final
        super().__init__(message)


class RpcMixedUp(RpcUnavailable):
    """An answer that names another question than the one asked, or none: what stands between us and bitcoind mixes
    answers up. Nothing is taken from it. ``asked`` and ``named`` are ids; the message is the same each time."""

    def __init__(self, asked: Sequence[int], named: Sequence[int | str | None], said: str = "") -> None:
        self.asked, self.named = tuple(asked), tuple(named)
        text = "what answers at bitcoind's address answers another question than ours: does a proxy mix answers up?"
        super().__init__(f"{text} ({said})" if said else text)


class RpcRefused(LeydenError):
    """bitcoind answered with an error; ``code`` is its number."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = clean_text(message)
        super().__init__(f"bitcoind refused: {self.message} (code {code})")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """The cookie file, or a user with a password. Never shown."""

    cookie_file: Path | None = None
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Credentials(cookie_file={self.cookie_file}, user={self.user!r})"

    def denied(self) -> RpcDenied:
        """What to say when bitcoind does not take them."""
        if self.cookie_file is not None:
            return RpcDenied(f"bitcoind refuses the cookie in {self.cookie_file}: is it this bitcoind's?", final=False)
        return RpcDenied(f"bitcoind refuses user {self.user!r} with the password in password_file", final=True)

    def header(self) -> str:
        """For ``Authorization``; the cookie changes whenever bitcoind starts, so it is read for each connection."""
        if self.cookie_file is None:
            text = f"{self.user}:{self.password}"
        else:
            try:
                text = self.cookie_file.read_text().strip()
            except FileNotFoundError as error:
                raise RpcUnavailable(
                    f"no cookie at {self.cookie_file}: bitcoind is not running, or elsewhere"
                ) from error
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not text"
                raise RpcDenied(f"bitcoind's cookie {self.cookie_file} cannot be read: {reason}", final=True) from error
        return "Basic " + base64.b64encode(text.encode()).decode()


class _Error(msgspec.Struct):
    code: int
    message: str


class _Reply(msgspec.Struct):
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Error | None = None


_one = msgspec.json.Decoder(_Reply)
_many = msgspec.json.Decoder(list[_Reply])


class RpcClient:
    """Calls by method name. At most ``connections`` requests are under way at once.

    Questions are numbered from ``first_id`` on, by default a random number: other programs that ask through the same
    proxy count too, most of them from 1.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        timeout_seconds: float = 30.0,
        connections: int = 4,
        first_id: int | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise LeydenError(f"bitcoind's url must look like http://127.0.0.1:8332, not {url!r}")
        self._host, self._port = parts.hostname, parts.port or 8332
        self._path = quote(parts.path, safe="/%") or "/"
        self._credentials = credentials
        self._timeout = timeout_seconds
        self._idle: list[HttpConnection] = []
        self._busy: set[HttpConnection] = set()
        self._room = asyncio.Semaphore(connections)
        self._next_id = secrets.randbits(48) if first_id is None else first_id
        self._closed = False

    async def call(self, method: str, *params: Any) -> Any:
        """The result, decoded. ``RpcRefused`` with bitcoind's error, ``RpcUnavailable`` when it cannot answer,
        ``RpcMixedUp`` when the answer belongs to another question."""
        asked, status, body = await self._reply(method, params)
        return _result(await self._own(asked, _decoded(status, body)))

    async def call_hex(self, method: str, *params: Any) -> bytes:
        """For a result in hexadecimal, as bytes; errors as ``call``. It costs a third of ``call`` for a block."""
        asked, status, body = await self._reply(method, params)
        begin = body.find(_HEX) + len(_HEX)
        end = body.find(b'"', begin) if begin >= len(_HEX) else -1
        if end < 0:  # not as bitcoind writes it
            digits = _result(await self._own(asked, _decoded(status, body)))
        else:
            # What stands around them goes through the JSON decoder: megabytes of digits need no second look.
            _result(await self._own(asked, _decoded(status, body[:begin] + body[end:])))
            digits = memoryview(body)[begin:end]
        try:
            return unhexlify(digits)
        except (TypeError, ValueError) as error:
            raise RpcUnavailable(f"bitcoind's answer to {method} is not hexadecimal") from error

    async def get(self, path: str) -> bytearray | None:
        """What bitcoind's REST interface has at ``path``; ``None`` where it says anything but 200, so also without
        ``-rest``. ``RpcUnavailable`` as ``call``."""
        status, answer = await self._ask("GET", path, b"")
        return answer if status == 200 else None

    async def _reply(self, method: str, params: Sequence[Any]) -> tuple[int, int, bytearray]:
        """The id of the question; status and body of what came."""
        asked = self._id()
        return asked, *await self._post({"jsonrpc": "2.0", "id": asked, "method": method, "params": params})

    async def _own(self, asked: int, reply: _Reply) -> _Reply:
        """``reply``, if it is the answer to question ``asked``."""
        if reply.id != asked:
            await self._distrust([asked], [reply])
        return reply

    async def _distrust(self, asked: Sequence[int], replies: Sequence[_Reply]) -> NoReturn:
        """No kept connection is used again: the answer to this question may still come over one of them."""
        await self._drop_idle()
        named = [reply.id for reply in replies if reply.id not in asked] or [reply.id for reply in replies]
        said = next((clean_text(reply.error.message) for reply in replies if reply.error is not None), "")
        raise RpcMixedUp(asked, named, said)

    async def batch(self, method: str, params: Sequence[Sequence[Any]]) -> list[Any]:
        """One request for many calls of ``method``; results in order. ``RpcRefused`` if one was refused."""
        answers = await self.batch_of([(method, each) for each in params])
        for answer in answers:
            if isinstance(answer, RpcRefused):
                raise answer
        return answers

    async def batch_of(self, calls_wanted: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """One request for many calls, each (method, parameters); results in order, of a refused one the error."""
        if not calls_wanted:
            return []
        ids = [self._id() for _ in calls_wanted]
        calls = [
            {"jsonrpc": "2.0", "id": asked, "method": m, "params": p}
            for asked, (m, p) in zip(ids, calls_wanted, strict=True)
        ]
        status, body = await self._post(calls)
        try:
            replies = _many.decode(body)
        except msgspec.MsgspecError as error:
            raise _not_json(status) from error
        by_id = {reply.id: reply for reply in replies}
        if len(replies) != len(ids) or by_id.keys() != set(ids):
            await self._distrust(ids, replies)
        return [_result_or_refusal(by_id[asked]) for asked in ids]

    def _id(self) -> int:
        asked, self._next_id = self._next_id, self._next_id + 1
        return asked

    async def _post(self, message: object) -> tuple[int, bytearray]:
        return await self._ask("POST", self._path, msgspec.json.encode(message))

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytearray]:
        self._check_open()
        async with self._room:
            try:
                async with asyncio.timeout(self._timeout):
                    status, answer = await self._try(method, path, body)
            except TimeoutError as error:
                raise RpcUnavailable(f"bitcoind did not answer within {self._timeout:g} s") from error
        if status == 401:
            raise self._credentials.denied()
        if status == 503:
            raise RpcUnavailable("bitcoind is too busy to answer")
        return status, answer

    async def _try(self, method: str, path: str, body: bytes) -> tuple[int, bytearray]:
        """On a kept connection first; one that bitcoind has closed meanwhile is replaced once."""
        while self._idle and not self._closed:
            try:
                status, answer = await self._on(self._idle.pop(), method, path, body)
            except (OSError, HttpError):
                continue
            if status != 401:
                return status, answer
        self._check_open()
        authorization = self._credentials.header()  # a cookie lives as long as bitcoind, as its connections do
        try:
            connection = await HttpConnection.open(self._host, self._port, authorization)
        except OSError as error:
            raise RpcUnavailable(f"no bitcoind at {self._host}:{self._port}: {error.strerror or error}") from error
        try:
            return await self._on(connection, method, path, body)
        except (OSError, HttpError) as error:
            raise RpcUnavailable(f"no answer from bitcoind at {self._host}:{self._port}: {error}") from error

    async def _on(self, connection: HttpConnection, method: str, path: str, body: bytes) -> tuple[int, bytearray]:
        self._busy.add(connection)
        try:
            self._check_open()  # it may have been closed while this one was opened
            status, answer = await connection.ask(method, path, body)
        except BaseException:
            await connection.close()
            raise
        finally:
            self._busy.discard(connection)
        if connection.reusable and status != 401 and not self._closed:
            self._idle.append(connection)
        else:
            await connection.close()
        return status, answer

    def _check_open(self) -> None:
        if self._closed:
            raise RpcUnavailable("the connection to bitcoind was closed")

    async def close(self) -> None:
        """For good: calls under way fail with ``RpcUnavailable``."""
        self._closed = True
        await self._drop_idle()
        for connection in tuple(self._busy):
            await connection.close()

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()


def _decoded(status: int, body: bytearray) -> _Reply:
    try:
        return _one.decode(body)
    except msgspec.MsgspecError as error:
        raise _not_json(status) from error


def _not_json(status: int) -> RpcUnavailable:
    return RpcUnavailable(f"what answers at bitcoind's address is no bitcoind (HTTP status {status})")


def _result_or_refusal(reply: _Reply) -> Any:
    try:
        return _result(reply)
    except RpcRefused as refused:
        return refused


def _result(reply: _Reply) -> Any:
    if reply.error is None:
        return msgspec.json.decode(reply.result)
    if reply.error.code == WARMING_UP:
        raise RpcUnavailable(f"bitcoind is starting: {clean_text(reply.error.message)}")
    raise RpcRefused(reply.error.code, reply.error.message)
