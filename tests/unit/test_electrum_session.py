"""A connection to an Electrum server, against a server of a few lines that says what the test wants."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import Network
from leyden.bitcoin.block import HEADER_LENGTH
from leyden.chain.checkpoints import genesis_header
from leyden_electrum import parse_address, session
from leyden_electrum.dial import Dialer
from leyden_electrum.errors import ServerFault, ServerRefused, ServerUnavailable, ServerUnusable
from leyden_electrum.pins import Pins
from leyden_electrum.server import Confirmed, Server, script_hash

Answer = Callable[[str, list[Any]], Any]
GENESIS = Network.REGTEST.chain_hash[::-1].hex()


class Fake:
    """Answers by ``answer(method, params)``; ``BaseException`` results become errors, ``bytes`` go out as they are."""

    def __init__(self, version: str, answer: Answer) -> None:
        self.version = version
        self.answer = answer
        self.heard: list[dict[str, Any]] = []
        self.writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        while line := await reader.readline():
            message = json.loads(line)
            self.heard.append(message)
            if "method" not in message:
                continue
            method, params = message["method"], message["params"]
            if method == "server.version":
                result: Any = ["Fake 1.0", self.version]
            elif method == "server.features":
                result = {"genesis_hash": GENESIS}
            else:
                result = self.answer(method, params)
            if isinstance(result, bytes):
                writer.write(result)
            elif isinstance(result, Exception):
                error = {"code": 2, "message": str(result)}
                writer.write(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode() + b"\n")
            else:
                # Padded as real servers do: white space in front of the last brace, and empty lines.
                text = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result})[:-1]
                writer.write(text.encode() + b" " * 500 + b"}\r\n\n")
        writer.close()


@asynccontextmanager
async def connected(
    folder: Path, answer: Answer = lambda method, params: None, *, version: str = "1.6"
) -> AsyncIterator[tuple[Server, Fake]]:
    fake = Fake(version, answer)
    listener = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    address = parse_address(f"127.0.0.1:{listener.sockets[0].getsockname()[1]}:t")
    server = None
    try:
        server = await Server.connect(Dialer(Pins(folder)), address, Network.REGTEST, lambda: None)
        yield server, fake
    finally:
        if server is not None:
            await server.close()
        listener.close()
        if fake.writer is not None:
            fake.writer.close()
            await asyncio.gather(fake.writer.wait_closed(), return_exceptions=True)
        await listener.wait_closed()
        await asyncio.sleep(0)


async def test_answers_find_their_questions_in_whatever_order(tmp_path: Path) -> None:
    async with connected(tmp_path, lambda method, params: params[0]) as (server, _):
        answers = await asyncio.gather(*(server.session.call("echo", (n,), int) for n in range(1200)))
        assert answers == list(range(1200))
        assert await server.session.call_many("echo", [(n,) for n in range(2 * session.WINDOW + 7)], int) == list(
            range(2 * session.WINDOW + 7)
        )


async def test_a_refusal_is_one_answer_among_others(tmp_path: Path) -> None:
    def answer(method: str, params: list[Any]) -> Any:
        return ValueError("not\nthis one") if params[0] == 2 else params[0]

    async with connected(tmp_path, answer) as (server, _):
        answers = await server.session.call_many("echo", [(n,) for n in range(4)], int)
        refusal = answers[2]
        assert isinstance(refusal, ServerRefused)
        assert (answers[0], answers[1], answers[3]) == (0, 1, 3)
        assert refusal.words == "not\nthis one"
        assert "\n" not in str(refusal)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"hello\n", "it does not speak the Electrum protocol: 'hello'"),
        (b"[1,2]\n", "it does not speak the Electrum protocol"),
        (b"[" * 200_000 + b"\n", "it does not speak the Electrum protocol"),
        (b'{"result":' + b"[" * 200_000 + b"\n", "it does not speak the Electrum protocol"),
        (b'{"id": 3, "result": "no number"}\n', "its answer to ask makes no sense: '\"no number\"'"),
        (b'{"id": 3, "result": null}\n', "its answer to ask makes no sense"),
        (b'{"id": 3, "result": ' + b"9" * 5000 + b"}\n", "makes no sense"),
    ],
)
async def test_nonsense_ends_the_connection_in_words(said: bytes, why: str, tmp_path: Path) -> None:
    async with connected(tmp_path, lambda method, params: said) as (server, _):
        with pytest.raises(ServerFault) as fault:
            await server.session.call("ask", (), int)
        assert why in str(fault.value)
        assert len(str(fault.value)) < 400
        assert "\n" not in str(fault.value)
        with pytest.raises(ServerFault):
            await server.session.call("ask", (), int)


async def test_a_message_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_LINE", 1 << 20)
    async with connected(tmp_path, lambda method, params: b"1" * (2 << 20)) as (server, _):
        with pytest.raises(ServerFault, match="it sends a message of more than 1 MiB"):
            await server.session.call("ask", (), int)


async def test_silence_ends_the_connection(tmp_path: Path) -> None:
    async with connected(tmp_path, lambda method, params: b"") as (server, _):
        server.session._timeout = 0.1  # only now: the greeting may take longer on a busy machine
        other = server.session.send("another", ())
        with pytest.raises(ServerUnavailable, match=r"it does not answer ask within 0.1 s"):
            await server.session.call("ask", (), int)
        with pytest.raises(ServerUnavailable):
            await server.session.answer("another", other, int)


async def test_a_closed_connection_ends_what_is_under_way(tmp_path: Path) -> None:
    async with connected(tmp_path, lambda method, params: b"") as (server, fake):
        waiting = asyncio.ensure_future(server.session.call("ask", (), int))
        while len(fake.heard) < 3:
            await asyncio.sleep(0)
        assert fake.writer is not None
        fake.writer.close()
        with pytest.raises(ServerUnavailable, match="it closed the connection"):
            await waiting


async def test_an_answer_that_nobody_waits_for_is_not_taken_for_another(tmp_path: Path) -> None:
    async with connected(tmp_path, lambda method, params: params[0]) as (server, _):
        for passes in (0, 1, 3):
            task = asyncio.ensure_future(server.session.call("echo", (1,), int))
            for _ in range(passes):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await server.session.call("echo", (2,), int) == 2


async def test_notices_and_pings_of_the_server(tmp_path: Path) -> None:
    header = genesis_header(Network.REGTEST).hex()
    script = b"\x51"
    lines: list[dict[str, Any]] = [
        {"method": "blockchain.headers.subscribe", "params": [{"height": 7, "hex": header}]},
        {"method": "blockchain.scripthash.subscribe", "params": [script_hash(script)[::-1].hex(), "ab" * 32]},
        {"method": "blockchain.outpoint.subscribe", "params": ["cd" * 32, 1, {"spender_txhash": "ef" * 32}]},
        {"method": "blockchain.headers.subscribe", "params": ["nonsense"]},
        {"method": "blockchain.headers.subscribe", "params": [{"height": 8, "hex": "00"}]},
        {"method": "server.ping", "params": ["0" * 128]},
        {"method": "of.tomorrow", "params": {"what": "ever"}},
        {"method": "server.ping", "params": [], "id": "theirs"},
        {"id": 4711, "result": "of a question that nobody asked"},
    ]
    said = b"".join(json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n" for line in lines)
    async with connected(tmp_path, lambda method, params: said if method == "speak" else 5) as (server, fake):
        server.session.send("speak", ())
        assert await server.session.call("ask", (), int) == 5
        assert server.tip is not None
        assert (server.tip.height, server.tip.header.hex()) == (7, header)
        assert server.touched == {script_hash(script): "ab" * 32}
        assert [outpoint.vout for outpoint in server.spent] == [1]
        assert await server.session.call("ask", (), int) == 5
        assert {"jsonrpc": "2.0", "id": "theirs", "result": {"data": ""}} in fake.heard


@pytest.mark.parametrize("version", ["1.3", "0.9", "2.0", "one", "", "1.4.1.1.1"])
async def test_versions_that_we_do_not_speak(version: str, tmp_path: Path) -> None:
    with pytest.raises((ServerUnusable, ServerFault), match=r"protocol (version )?'?" + version.replace(".", r"\.")):
        async with connected(tmp_path, version=version):
            pass


async def test_what_differs_between_versions(tmp_path: Path) -> None:
    """Headers in one piece or as a list, scripts by hash or by themselves, histories bare or wrapped."""
    header = genesis_header(Network.REGTEST).hex()
    history = [{"tx_hash": "ab" * 32, "height": 5}, {"tx_hash": "cd" * 32, "height": 0}]
    asked: list[tuple[str, Any]] = []

    def answer(version: str) -> Answer:
        def say(method: str, params: list[Any]) -> Any:
            asked.append((method, params))
            match method.rpartition(".")[2]:
                case "headers":
                    shape = {"hex": header * 2} if version == "1.4" else {"headers": [header] * 2}
                    return {"count": 2, "max": 2016, **shape}
                case "get_history":
                    return {"history": history} if version == "1.7" else history
                case "relayfee":
                    return 0.00001
                case "get_info":
                    return {"mempoolminfee": 0.00002, "minrelaytxfee": 0.00001}
            return None

        return say

    for version in ("1.4", "1.4.2", "1.6", "1.7"):
        async with connected(tmp_path, answer(version), version=version) as (server, _):
            assert len(await server.headers(0, 2)) == 2 * HEADER_LENGTH
            (told,) = await server.histories([b"\x51"])
            assert told.confirmed == (Confirmed(txid=bytes.fromhex("ab" * 32), height=5),)
            assert await server.minimum_fee() == (0.00001 if version.startswith("1.4") else 0.00002)
            assert server.takes_packages is (version in ("1.6", "1.7"))
            assert await server.spenders([]) == []
    scripts = {method: params for method, params in asked if "get_history" in method}
    assert scripts == {
        "blockchain.scripthash.get_history": [script_hash(b"\x51")[::-1].hex()],
        "blockchain.scriptpubkey.get_history": ["51"],
    }


@pytest.mark.parametrize(
    "answer",
    [
        {"count": 3, "hex": genesis_header(Network.REGTEST).hex() * 3},
        {"count": 1, "hex": genesis_header(Network.REGTEST).hex() * 2},
        {"count": 2, "hex": "zz"},
        {"count": -1, "hex": ""},
        {"count": 1},
    ],
)
async def test_headers_that_were_not_asked_for(answer: Any, tmp_path: Path) -> None:
    async with connected(tmp_path, lambda method, params: answer) as (server, _):
        with pytest.raises(ServerFault):
            await server.headers(0, 2)
