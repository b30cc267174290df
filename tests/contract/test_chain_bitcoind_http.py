"""The bitcoind plugin's HTTP: answers in any pieces, connections that end, and what is no bitcoind at all."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from leyden.crypto import sha256d
from leyden.types import BlockHash, LeydenError
from leyden_bitcoind import Credentials, RpcClient, RpcMixedUp, RpcUnavailable
from leyden_bitcoind.blocks import Blocks
from leyden_bitcoind.http import LONGEST_BODY, LONGEST_HEAD

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TIMEOUT = 30


@asynccontextmanager
async def serving(handler: Handler, path: str = "") -> AsyncIterator[RpcClient]:
    """A client of a server that does ``handler`` with each connection."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    credentials = Credentials(user="a", password="b")
    client = RpcClient(f"http://127.0.0.1:{port}{path}", credentials, timeout_seconds=TIMEOUT, first_id=1)
    try:
        yield client
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Its first line, headers and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return first, headers, await reader.readexactly(int(headers.get("Content-Length", 0)))


def answer(body: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def reply(request: bytes, result: str, **members: object) -> bytes:
    """The answer to this question, with other ``members`` where they are given."""
    told = {"result": json.loads(result), "id": json.loads(request)["id"], **members}
    return answer(json.dumps({name: value for name, value in told.items() if value is not ...}).encode())


def always(*pieces: bytes) -> Handler:
    """Every request gets these bytes, one piece after the other; then the connection is closed."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # who heard enough does not wait for the rest
            await read_request(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    return handle


async def test_a_request_is_what_bitcoind_expects() -> None:
    seen: list[Any] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(answer(b'{"result":7,"id":1}'))
        writer.close()

    async with serving(handle, "/wallet/my wallet") as client:
        assert await client.call("getblockcount") == 7
    ((first, headers, body),) = seen
    assert first == "POST /wallet/my%20wallet HTTP/1.1"
    assert headers["Authorization"] == "Basic YTpi"
    assert headers["Host"].startswith("127.0.0.1:")
    assert body == b'{"jsonrpc":"2.0","id":1,"method":"getblockcount","params":[]}'


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
async def test_an_answer_may_come_in_any_pieces(size: int) -> None:
    whole = answer(b'{"result":"' + b"ab" * 2000 + b'","error":null,"id":1}')
    async with serving(always(*(whole[at : at + size] for at in range(0, len(whole), size)))) as client:
        assert await client.call_hex("getblock") == b"\xab" * 2000


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"result":"zz","id":1}', "getblock is not hexadecimal"),
        (b'{"result":"abc","id":1}', "getblock is not hexadecimal"),
        (b'{"result":7,"id":1}', "getblock is not hexadecimal"),
        (b'{"result":"ab', "no bitcoind"),
        (b'{"result":"ab"]', "no bitcoind"),
        (b"", "no bitcoind"),
        (b'{"result":null,"error":{"code":-5,"message":"Block not found"},"id":1}', "Block not found"),
    ],
)
async def test_hexadecimal_that_is_none_is_told(body: bytes, reason: str) -> None:
    async with serving(always(answer(body))) as client:
        with pytest.raises(LeydenError, match=reason):
            await client.call_hex("getblock")


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": 1, "result": "abab", "error": null}',
        b'{\n  "jsonrpc" : "2.0",\n  "result" : "abab",\n  "id" : 1\n}\n',
        b'{"result":"abab","id":1}',
    ],
)
async def test_hexadecimal_may_be_spelled_as_any_json_is(body: bytes) -> None:
    """Not bitcoind itself, but what stands in front of it, may write spaces."""
    async with serving(always(answer(body))) as client:
        assert await client.call_hex("getblock") == b"\xab\xab"


async def test_a_connection_is_kept_until_the_other_end_says_otherwise() -> None:
    connections, requests = 0, 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, requests
        connections += 1
        try:
            while True:
                await read_request(reader)
                requests += 1
                closes = "connection: Close\r\n" * (requests == 3)
                writer.write(answer(b'{"result":%d,"id":%d}' % (requests, requests), extra=closes))
        except asyncio.IncompleteReadError:
            writer.close()

    async with serving(handle) as client:
        assert [await client.call("getblockcount") for _ in range(5)] == [1, 2, 3, 4, 5]
    assert connections == 2


async def test_a_kept_connection_that_broke_is_replaced() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, body = await read_request(reader)
        writer.write(reply(body, "1"))
        writer.close()

    async with serving(handle) as client:
        assert [await client.call("getblockcount") for _ in range(5)] == [1] * 5


@pytest.mark.parametrize("early", [1, 60, 90])
async def test_what_came_before_a_question_is_no_answer_to_it(early: int) -> None:
    """The rest of it follows the question, and would shift every answer of this connection by one."""
    extra = answer(b'{"result":"of another question","id":1}')
    connections = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            _, _, body = await read_request(reader)
            writer.write(reply(body, str(connections)))
            if connections == 1:
                await writer.drain()
                await answered.wait()
                writer.write(extra[:early])
                await writer.drain()
            await read_request(reader)
            writer.write(extra[early:])
            await writer.drain()
        writer.close()

    answered = asyncio.Event()
    async with serving(handle) as client:
        assert await client.call("getblockcount") == 1
        answered.set()
        (idle,) = client._idle
        async with asyncio.timeout(TIMEOUT):
            while not (idle._filled or idle._body):
                await asyncio.sleep(0)
        assert await client.call("getblockcount") == 2
    assert connections == 2


@pytest.mark.parametrize("wrong", [0, 2, "1", None, ...], ids=str)
@pytest.mark.parametrize("method", ["call", "call_hex", "batch", "error"])
async def test_an_answer_to_another_question_is_not_taken(method: str, wrong: object) -> None:
    """A proxy that mixes answers up: what it has mixed up once, it gives to the next question too."""
    connections, mixing = 0, False
    both = asyncio.Barrier(2)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                _, _, body = await read_request(reader)
                if not mixing:
                    if connections <= 2:
                        await both.wait()
                    writer.write(reply(body, "1"))
                elif method == "batch":
                    ids = [question["id"] for question in json.loads(body)]
                    replies = [{"result": 7, "id": None if each is ... else each} for each in (ids[0], wrong)]
                    writer.write(answer(json.dumps(replies).encode()))
                elif method == "error":
                    writer.write(reply(body, "null", id=wrong, error={"code": -27, "message": "already in chain"}))
                else:
                    writer.write(reply(body, '"abab"', id=wrong))
        writer.close()

    async with serving(handle) as client:
        assert await asyncio.gather(client.call("getblockcount"), client.call("getblockcount")) == [1, 1]
        mixing = True
        first, second = [await mixed_up(client, method) for _ in range(2)]
        assert str(first) == str(second), "one trouble, however often it is tried"
        assert first.asked != second.asked
        assert first.named == second.named == (None if wrong is ... else wrong,)
        mixing = False
        assert await client.call("getblockcount") == 1
    assert connections == 4, "nothing that was open then is used again"


async def mixed_up(client: RpcClient, method: str) -> RpcMixedUp:
    with pytest.raises(RpcMixedUp, match="another question") as caught:
        if method == "call_hex":
            await client.call_hex("getblock")
        elif method == "batch":
            await client.batch("getblockhash", [[1], [2]])
        else:
            await client.call("getblockhash", 1)
    return caught.value


async def test_a_batch_is_answered_call_by_call() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, body = await read_request(reader)
        ids = [question["id"] for question in json.loads(body)]
        replies = [{"result": f"of {each}", "id": each} for each in (*ids, ids[0])]
        writer.write(answer(json.dumps(replies).encode()))
        writer.close()

    async with serving(handle) as client:
        with pytest.raises(RpcMixedUp):
            await client.batch("getblockhash", [[1], [2]])


async def test_two_programs_behind_one_proxy_ask_under_other_numbers() -> None:
    seen: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, _, body = await read_request(reader)
        seen.append(json.loads(body)["id"])
        writer.write(reply(body, "1"))
        writer.close()

    async with serving(handle) as client:
        for _ in range(2):
            other = RpcClient(f"http://127.0.0.1:{client._port}", Credentials(user="a", password="b"))
            assert await other.call("getblockcount") == 1
            await other.close()
    assert abs(seen[0] - seen[1]) > 1000


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "closed by the other end"),
        (b"HTTP/1.1 200 OK\r\nContent-Len", "closed by the other end"),
        (answer(b"{}")[:-1], "closed by the other end"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "does not tell its length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LONGEST_BODY + 1), "too long"),
        (answer(b"{}") + b"more", "too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * LONGEST_HEAD, "has no end"),
    ],
)
async def test_what_is_no_answer_is_told(said: bytes, reason: str) -> None:
    async with serving(always(said)) as client:
        with pytest.raises(RpcUnavailable, match=f"no answer from bitcoind at 127.0.0.1:.*{reason}"):
            await client.call("getblockcount")


async def test_closing_ends_calls_under_way() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await ended.wait()
        writer.close()

    async with serving(handle) as client:
        call = asyncio.ensure_future(client.call("getblockcount"))
        await asked.wait()
        await client.close()
        with pytest.raises(RpcUnavailable):
            await call
        ended.set()


async def test_closing_ends_a_call_that_is_connecting() -> None:
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with serving(handle) as client:
        call = asyncio.ensure_future(client.call("getblockcount"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(RpcUnavailable, match="was closed"):
            await call
        ended.set()


@pytest.mark.parametrize(
    "refusal",
    [
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        b"HTTP/1.1 405 Method Not Allowed\r\n\r\n",
        answer(b"who are you?", "401 Unauthorized"),
        b"",
    ],
    ids=["a page of no told length", "no length at all", "another password", "hangs up"],
)
async def test_what_stands_before_bitcoind_may_know_json_rpc_alone(refusal: bytes) -> None:
    raw = bytes(range(200))
    block_hash = BlockHash(sha256d(raw[:80]))
    asked: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                first, _, body = await read_request(reader)
                asked.append(first.split()[0])
                if first.startswith("GET"):
                    writer.write(refusal)
                    break
                writer.write(reply(body, f'"{raw.hex()}"'))
        writer.close()

    async with serving(handle) as client:
        blocks = Blocks(client)
        assert [await blocks.fetch(block_hash) for _ in range(3)] == [raw] * 3
    assert asked.count("POST") == 3
    assert asked.count("GET") == 1


async def test_bitcoind_that_is_away_is_no_reason_to_give_up_rest() -> None:
    raw = bytes(range(200))
    block_hash = BlockHash(sha256d(raw[:80]))
    busy = True

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, _, _ = await read_request(reader)
        writer.write(answer(b"later", "503 Service Unavailable") if busy else answer(raw))
        assert busy or first.startswith("GET")
        writer.close()

    async with serving(handle) as client:
        blocks = Blocks(client)
        with pytest.raises(RpcUnavailable, match="too busy"):
            await blocks.fetch(block_hash)
        busy = False
        assert await blocks.fetch(block_hash) == raw
