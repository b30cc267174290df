"""The socket: whatever is written to it is answered with a proper error, and the server lives on."""

import asyncio
import contextlib
import gc
import json
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from leyden.hooks.types import Alarm, LoggedEvent, PaymentReceived, TransactionConfirmed
from leyden.types import BlockHeight, LeydenError, Msat, PaymentHash, Txid
from leyden_cli.client import CallFailed, Client
from leyden_cli.errors import CliError, NoNode
from leyden_cli.rpc import protocol as p
from leyden_cli.rpc import server as server_module
from leyden_cli.rpc.methods import InvalidParams, Method, NodeMethods, view_event
from leyden_cli.rpc.server import Lines, RpcServer


class Echo(p.Params, frozen=True, kw_only=True):
    text: str
    times: p.Whole = 1


class Refuses(LeydenError):
    pass


async def echo(params: Echo) -> list[str]:
    return [params.text] * params.times


async def refuse(_: p.NoParams) -> None:
    raise Refuses("not today:\x1b[31m \u202ered")


async def crash(_: p.NoParams) -> None:
    raise RuntimeError("secret detail")


async def misuse(_: p.NoParams) -> None:
    raise InvalidParams("no sense")


async def late(_: p.NoParams) -> None:
    raise TimeoutError


TABLE: dict[str, Method[Any]] = {
    "echo": Method(Echo, echo),
    "refuse": Method(p.NoParams, refuse),
    "crash": Method(p.NoParams, crash),
    "misuse": Method(p.NoParams, misuse),
    "late": Method(p.NoParams, late),
}


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    server = RpcServer(tmp_path / "s.sock", TABLE)
    await server.start()
    yield tmp_path / "s.sock"
    await server.close()
    assert not (tmp_path / "s.sock").exists()


async def exchange(path: Path, data: bytes, replies: int = 1) -> list[Any]:
    """Send bytes, read this many lines."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(data)
        await writer.drain()
        return [json.loads(await asyncio.wait_for(reader.readline(), 60)) for _ in range(replies)]
    finally:
        writer.close()
        await writer.wait_closed()


def request(method: str, params: object = msgspec.UNSET, id: object = 1) -> bytes:
    message = {"jsonrpc": "2.0", "method": method, "id": id}
    if params is not msgspec.UNSET:
        message["params"] = params
    return json.dumps(message).encode() + b"\n"


async def test_call(path: Path) -> None:
    (reply,) = await exchange(path, request("echo", {"text": "hi", "times": 2}, "seven"))
    assert reply == {"jsonrpc": "2.0", "id": "seven", "result": ["hi", "hi"]}


async def test_socket_is_private(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # noqa: ASYNC240


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"garbage\n", p.PARSE_ERROR),
        (b"\xff\xfe\x00\n", p.PARSE_ERROR),
        (b'{"jsonrpc": "2.0"\n', p.PARSE_ERROR),
        (b"[" * 5000 + b"\n", p.INVALID_REQUEST),
        (b'{"x": ' + b"[" * 5000 + b"\n", p.PARSE_ERROR),
        (b"[]\n", p.INVALID_REQUEST),
        (b"3\n", p.INVALID_REQUEST),
        (b'{"method": "echo", "id": 1}\n', p.INVALID_REQUEST),
        (b'{"jsonrpc": "1.0", "method": "echo", "id": 1}\n', p.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": 3, "id": 1}\n', p.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "echo", "id": {}}\n', p.INVALID_REQUEST),
        (request("ech"), p.METHOD_NOT_FOUND),
        (request("echo"), p.INVALID_PARAMS),
        (request("echo", []), p.INVALID_PARAMS),
        (request("echo", {"text": 3}), p.INVALID_PARAMS),
        (request("echo", {"text": "x", "tmies": 3}), p.INVALID_PARAMS),
        (request("echo", {"text": "x", "times": 10**30}), p.INVALID_PARAMS),
        (request("echo", None), p.INVALID_PARAMS),
        (request("misuse"), p.INVALID_PARAMS),
        (request("refuse"), p.REFUSED),
        (request("late"), p.TIMED_OUT),
        (request("crash"), p.INTERNAL_ERROR),
    ],
)
async def test_bad_lines_get_an_error_and_the_connection_goes_on(path: Path, line: bytes, code: int) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    reply = json.loads(await asyncio.wait_for(reader.readline(), 60))
    assert reply["error"]["code"] == code
    assert "result" not in reply
    assert "secret" not in reply["error"]["message"]
    writer.write(request("echo", {"text": "still here"}))
    assert json.loads(await asyncio.wait_for(reader.readline(), 60))["result"] == ["still here"]
    writer.close()
    await writer.wait_closed()


async def test_text_in_errors_is_harmless(path: Path) -> None:
    (reply,) = await exchange(path, request("refuse"))
    assert reply["error"] == {"code": 1, "message": "not today:?[31m ?red", "data": {"kind": "Refuses"}}


async def test_huge_line_is_dropped(path: Path) -> None:
    data = b"x" * (3 * p.MAX_LINE) + b"\n" + request("echo", {"text": "next"})
    refused, answered = await exchange(path, data, replies=2)
    assert refused["error"]["code"] == p.INVALID_REQUEST
    assert answered["result"] == ["next"]


@given(st.lists(st.binary(max_size=30)), st.integers(1, 40))
def test_lines_do_not_depend_on_chunks(parts: list[bytes], size: int) -> None:
    data = b"\n".join(parts) + b"\n"
    lines = Lines()
    found = [line for start in range(0, len(data), size) for line in lines.feed(data[start : start + size])]
    assert found == [line for line in data.split(b"\n") if line.strip()]


def test_endless_line_is_not_kept() -> None:
    lines = Lines()
    found = [answer for _ in range(40) for answer in lines.feed(b"x" * 65_536)]
    assert found == [None]
    assert lines.feed(b"tail\nnext\n") == [b"next"]


async def test_notification_has_no_reply(path: Path) -> None:
    line = b'{"jsonrpc": "2.0", "method": "echo", "params": {"text": "x"}}\n'
    (reply,) = await exchange(path, line + b"\n\n" + request("echo", {"text": "y"}, 9))
    assert reply["id"] == 9


async def test_replies_to_a_half_closed_connection(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request("echo", {"text": "x"}))
    writer.write_eof()
    assert json.loads(await reader.readline())["result"] == ["x"]
    assert await reader.read() == b""
    writer.close()


async def test_dead_nodes_socket_is_replaced(tmp_path: Path) -> None:
    first = RpcServer(tmp_path / "s.sock", TABLE)
    await first.start()
    second = RpcServer(tmp_path / "s.sock", TABLE)
    await second.start()
    assert await exchange(tmp_path / "s.sock", request("echo", {"text": "x"}))
    await second.close()
    await first.close()


async def test_no_file_of_others_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "s.sock").write_text("mine")
    with pytest.raises(CliError, match="cannot listen"):
        await RpcServer(tmp_path / "s.sock", TABLE).start()
    assert (tmp_path / "s.sock").read_text() == "mine"


async def test_long_path_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="too long"):
        await RpcServer(tmp_path / ("x" * 120), TABLE).start()


async def test_close_ends_calls_in_progress(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def forever(_: p.NoParams) -> None:
        begun.set()
        await asyncio.Event().wait()

    server = RpcServer(tmp_path / "s.sock", {"forever": Method(p.NoParams, forever)})
    await server.start()
    async with await Client.connect(tmp_path / "s.sock") as client:
        call = asyncio.ensure_future(client.call("forever", p.NoParams(), p.Done))
        await begun.wait()
        await server.close()
        with pytest.raises(NoNode, match="hung up"):
            await call
        with pytest.raises(NoNode):
            await client.info()


# -- the client ------------------------------------------------------------------------------------------------------


async def test_client_mixes_answers_up_for_nobody(path: Path) -> None:
    async with await Client.connect(path) as client:
        texts = [f"number {number}" for number in range(200)]
        answers = await asyncio.gather(*(client.call("echo", Echo(text=text), list[str]) for text in texts))
    assert answers == [[text] for text in texts]


async def test_client_raises_what_the_node_says(path: Path) -> None:
    async with await Client.connect(path) as client:
        with pytest.raises(CallFailed, match="not today") as caught:
            await client.call("refuse", p.NoParams(), p.Done)
        assert (caught.value.code, caught.value.kind) == (p.REFUSED, "Refuses")
        with pytest.raises(CliError, match="another version"):
            await client.call("echo", Echo(text="x"), p.Done)


async def test_client_without_a_node(tmp_path: Path) -> None:
    with pytest.raises(NoNode, match="no node answers on"):
        await Client.connect(tmp_path / "nobody.sock")


# -- methods ---------------------------------------------------------------------------------------------------------


class FakeNode:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.log: list[LoggedEvent] = []
        self.news = asyncio.Event()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def never(*_: object, **__: object) -> None:
            raise AssertionError(f"{name} must not be called")

        return never

    async def events(self, after: int, limit: int) -> list[LoggedEvent]:
        return [event for event in self.log if event.index > after][:limit]

    async def follow(self, after: int) -> AsyncIterator[LoggedEvent]:
        await self.news.wait()
        for event in self.log[after:]:
            yield event


class FakeDispatcher:
    def health(self) -> tuple[()]:
        return ()


def methods(node: FakeNode, stop: Callable[[], None] = lambda: None) -> NodeMethods:
    return NodeMethods(cast("Any", node), cast("Any", FakeDispatcher()), stop)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("connect", {"node_id": "02", "host": "localhost", "port": 9735}),
        ("connect", {"node_id": "02" * 33, "host": "localhost", "port": 0}),
        ("disconnect", {"node_id": "zz"}),
        ("open", {"node_id": "02" * 33, "funding_sat": 0}),
        ("open", {"node_id": "02" * 33, "funding_sat": 1, "push_msat": 1001}),
        ("open", {"node_id": "02" * 33, "funding_sat": 1, "feerate_per_kw": 0}),
        ("invoice", {"amount_msat": 0}),
        ("invoice", {"amount_msat": 1, "expiry": 0}),
        ("payment", {"payment_hash": "00"}),
        ("send", {"address": "x", "amount_sat": -1}),
        ("events", {"after": -1}),
        ("open", {"node_id": "02" * 33, "funding_sat": 10**30}),
        ("stop", {"now": True}),
    ],
)
async def test_senseless_parameters_never_reach_the_node(tmp_path: Path, method: str, params: object) -> None:
    server = RpcServer(tmp_path / "s.sock", methods(FakeNode()).table)
    await server.start()
    (reply,) = await exchange(tmp_path / "s.sock", request(method, params))
    await server.close()
    assert reply["error"]["code"] == p.INVALID_PARAMS


def test_every_method_has_a_call_in_the_client() -> None:
    names = {"connect": "connect_peer", "open": "open_channel", "close": "close_channel"}
    for name in methods(FakeNode()).table:
        assert hasattr(Client, names.get(name, name)), name


def alarm(index: int) -> LoggedEvent:
    return LoggedEvent(index=index, time=1, event=Alarm(subject="storage", text="\x07bell"))


async def test_events_wait_for_the_next(tmp_path: Path) -> None:
    node = FakeNode()
    server = RpcServer(tmp_path / "s.sock", methods(node).table)
    await server.start()
    async with await Client.connect(tmp_path / "s.sock") as client:
        assert await client.events() == []
        assert await client.events(wait=0.01) == []
        waiting = asyncio.ensure_future(client.events(wait=5))
        await asyncio.sleep(0.01)
        node.log.append(alarm(1))
        node.news.set()
        (event,) = await waiting
        assert event.facts == {"subject": "storage", "text": "?bell"}
        assert await client.events(1) == []
    await server.close()


async def test_stop_is_answered_first(tmp_path: Path) -> None:
    stopped = asyncio.Event()
    server = RpcServer(tmp_path / "s.sock", methods(FakeNode(), stopped.set).table)
    await server.start()
    async with await Client.connect(tmp_path / "s.sock") as client:
        await client.stop()
        assert stopped.is_set()
    await server.close()


def test_events_show_ids_as_people_read_them() -> None:
    txid = Txid(bytes(range(32)))
    shown = view_event(
        LoggedEvent(index=3, time=9, event=TransactionConfirmed(txid=txid, height=BlockHeight(5), kind="funding"))
    )
    assert (shown.index, shown.time, shown.type) == (3, 9, "transaction_confirmed")
    assert shown.facts == {"txid": bytes(reversed(range(32))).hex(), "height": 5, "kind": "funding"}
    paid = PaymentReceived(payment_hash=PaymentHash(bytes(range(32))), amount_msat=Msat(1), label="")
    assert view_event(LoggedEvent(index=1, time=1, event=paid)).facts["payment_hash"] == bytes(range(32)).hex()


async def test_connections_at_the_moment_of_the_close_leave_nothing_behind(tmp_path: Path) -> None:
    """Not accepted yet, just accepted, just begun: each gets an end and none is left to the garbage collector."""
    for steps in range(8):
        path = tmp_path / f"{steps}.sock"
        server = RpcServer(path, methods(FakeNode()).table)
        await server.start()
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            client.connect(str(path))
            for _ in range(steps):
                await asyncio.sleep(0)
            await server.close()
            with contextlib.suppress(ConnectionResetError):
                assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 1), 20) == b""
    gc.collect()


async def test_a_client_that_does_not_listen_is_dropped_at_the_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leyden_cli.rpc.server._LAST_SECONDS", 0.05)
    server = RpcServer(tmp_path / "s.sock", methods(FakeNode()).table)
    await server.start()
    _, writer = await asyncio.open_unix_connection(tmp_path / "s.sock", limit=1)
    writer.write(request("nonsense") * 20_000)
    await until_full(server)
    (held,) = server._connections.values()
    await server.close()
    assert held.transport.is_closing()
    assert held.transport.get_write_buffer_size() == 0
    writer.transport.abort()
    gc.collect()


async def test_clients_that_do_not_listen_are_waited_for_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, hang_up = asyncio.Barrier(3), server_module._hang_up

    async def all_at_once(writer: asyncio.StreamWriter) -> None:
        await waited.wait()
        await hang_up(writer)

    monkeypatch.setattr(server_module, "_hang_up", all_at_once)
    server = RpcServer(tmp_path / "s.sock", methods(FakeNode()).table)
    await server.start()
    clients = [await asyncio.open_unix_connection(tmp_path / "s.sock") for _ in range(waited.parties)]
    async with asyncio.timeout(60):
        while len(server._connections) < len(clients):
            await asyncio.sleep(0)
        await server.close()
    for _, writer in clients:
        writer.transport.abort()


async def until_full(server: RpcServer) -> None:
    """Answers wait for the client to read."""
    async with asyncio.timeout(60):
        while not any(writer.transport.get_write_buffer_size() for writer in server._connections.values()):
            await asyncio.sleep(0.01)
