"""``leyden-regtest``: the server as a process, its socket, clients through restarts, command line, plugin."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from leyden.bitcoin import Network, encode_address, p2wpkh, p2wsh
from leyden.hooks.errors import PluginError
from leyden.hooks.registry import ServiceContext, load_plugins
from leyden.hooks.types import (
    BlocksDisconnected,
    BroadcastKind,
    ChainEvent,
    FeeTarget,
    SourceSynced,
    SourceTrouble,
    UtxoUnknown,
)
from leyden.testing.chain import ANYONE_SCRIPT, ChainDriver, spend_anyone
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, OutPoint, Sat, Txid
from leyden_regtest import protocol as p
from leyden_regtest.__main__ import main
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.client import RegtestClient, ServerGone, call
from leyden_regtest.errors import ChainError
from leyden_regtest.protocol import connected_block
from leyden_regtest.server import ChainServer

ADDRESS = encode_address(p2wpkh(b"\x02" * 33), Network.REGTEST)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:  # short enough for a socket, mode 0700
        yield Path(name)


@contextmanager
def running(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A server process that is ready."""
    command = [sys.executable, "-m", "leyden_regtest", "serve", "--dir", str(folder / "c")]
    command += ["--socket", str(folder / "s"), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("leyden-regtest ready: height ")
            yield process
        finally:
            process.kill()


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[tuple[EmbeddedChain, Path]]:
    with EmbeddedChain(folder / "c") as chain:
        server = ChainServer(chain, folder / "s")
        await server.start()
        yield chain, folder / "s"
        await server.close()


# -- the process -------------------------------------------------------------------------------------------------------


def test_sigterm_stops_cleanly_and_a_restart_finds_the_chain(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(folder) as process:
        assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o600
        assert main(["mine", "2", "--socket", str(folder / "s")]) == 0
        assert main(["faucet", ADDRESS, "50000", "--socket", str(folder / "s")]) == 0
        assert main(["reorg", "1", "--extra", "2", "--socket", str(folder / "s")]) == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert not (folder / "s").exists()
    capsys.readouterr()
    with running(folder) as process:
        assert main(["info", "--socket", str(folder / "s")]) == 0
        assert "height: 114" in capsys.readouterr().out
        assert main(["stop", "--socket", str(folder / "s")]) == 0
        assert process.wait(10) == 0


async def test_a_client_lives_through_kill_and_restart(folder: Path) -> None:
    driver = ChainDriver(RegtestClient(folder / "s"), 108)
    with running(folder) as process:
        info = await call(folder / "s", p.GetInfo(), p.ChainInfo)
        await driver.start()
        await driver.run_until(info.height, bytes.fromhex(info.hash)[::-1])
        process.kill()
        process.wait()
    trouble = await driver.take_event()
    assert isinstance(trouble, SourceTrouble)
    assert "leyden-regtest serve" in trouble.reason
    answer = await driver.source.find_utxo(OutPoint(Txid(bytes(32)), 0))
    assert isinstance(answer, UtxoUnknown)
    assert "leyden-regtest serve" in answer.reason
    with running(folder):  # over the socket that the killed one left behind
        tip = (await call(folder / "s", p.Mine(blocks=2), list[str]))[-1]
        await driver.run_until(112, bytes.fromhex(tip)[::-1])
    assert driver.connected() == [108, 109, 110, 111, 112]
    assert driver.restarts == 0
    assert driver.notices[-1] == SourceTrouble(reason="")
    await driver.stop()


@pytest.mark.parametrize("problem", ["open folder", "long path", "second server", "used folder", "bad folder"])
def test_a_server_that_cannot_serve_says_why_in_one_line(folder: Path, problem: str) -> None:
    chain, socket, expected = folder / "x", folder / "t", ""
    if problem == "open folder":
        socket.mkdir(mode=0o755)
        socket, expected = socket / "s", "chmod 700"
    elif problem == "long path":
        socket, expected = folder / ("x" * 120), "shorter"
    elif problem == "second server":
        socket, expected = folder / "s", "another server"
    elif problem == "used folder":
        chain, expected = folder / "c", "in use"
    else:
        (folder / "x").write_text("")
        expected = "File exists"
    command = [sys.executable, "-m", "leyden_regtest", "serve", "--dir", str(chain), "--socket", str(socket)]
    with running(folder) if problem in ("second server", "used folder") else nullcontext():
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr


def test_a_verb_without_a_server_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--socket", str(folder / "s")]) == 2
    assert "is `leyden-regtest serve` running there?" in capsys.readouterr().err


# -- requests ----------------------------------------------------------------------------------------------------------


async def exchange(path: Path, *lines: bytes) -> list[dict[str, object]]:
    """Send lines, read replies until the server hangs up or has answered all."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"".join(lines))
    replies = []
    for _ in lines:
        line = await reader.readline()
        if not line:
            break
        replies.append(json.loads(line))
    writer.close()
    await writer.wait_closed()
    return replies


@pytest.mark.parametrize(
    "line", [b"garbage\n", b"\xff\xfe\n", b"[]\n", b'{"method":"nothing"}\n', b'{"method":"mine","block":1}\n']
)
async def test_garbage_costs_that_connection_only(server: tuple[EmbeddedChain, Path], line: bytes) -> None:
    _, path = server
    replies = await exchange(path, line, b'{"id":2,"method":"info"}\n')
    assert len(replies) == 1
    assert "error" in replies[0]
    assert (await call(path, p.GetInfo(), p.ChainInfo)).height == 110


async def test_requests_on_one_connection_are_answered_in_order(server: tuple[EmbeddedChain, Path]) -> None:
    _, path = server
    lines = [b'{"id":%d,"method":"mine"}\n' % number for number in range(5)]
    assert [reply["id"] for reply in await exchange(path, *lines)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (p.Mine(blocks=0), "out of range"),
        (p.Mine(blocks=1, script="xyz"), "not hexadecimal"),
        (p.Mine(blocks=1, address="bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"), "address"),
        (p.FaucetPay(sat=1000), "address or script"),
        (p.FaucetPay(sat=1, address=ADDRESS), "dust"),
        (p.Reorg(depth=0), "not possible"),
        (p.Reorg(depth=1, extra=0), "at least 2"),
        (p.GetBlock(height=5000), "no block at height"),
        (p.GetBlock(hash="00" * 32), "unknown block"),
        (p.GetBlock(hash="00"), "64 hexadecimal digits"),
        (p.Broadcast(package=["00"]), "end of data"),
        (p.Fee(set=0), "out of range"),
        (p.Follow(locator=["zz"]), "not hexadecimal"),
    ],
)
async def test_wrong_requests_are_refused(
    server: tuple[EmbeddedChain, Path], request_: p.AnyRequest, message: str
) -> None:
    chain, path = server
    with pytest.raises(ChainError, match=message):
        await call(path, request_, object)
    assert chain.height == 110


async def test_headers_transactions_and_spenders(server: tuple[EmbeddedChain, Path]) -> None:
    chain, path = server
    headers = await call(path, p.GetHeaders(start=109), list[str])
    assert [bytes.fromhex(header) for header in headers] == [chain.block_at(109).header, chain.block_at(110).header]
    paid = await call(path, p.FaucetPay(sat=50_000, address=ADDRESS), p.TransactionResult)
    assert await call(path, p.ListMempool(), list[str]) == [paid.transaction]
    await call(path, p.Mine(), list[str])
    found = await call(path, p.FindTransaction(txid=paid.txid), p.TransactionResult)
    assert (found.transaction, found.height) == (paid.transaction, 111)
    spent = chain.block_at(111).block.transactions[1].inputs[0].prevout
    spender = await call(path, p.FindSpender(txid=p.text_hash(spent.txid), vout=spent.vout), p.TransactionResult)
    assert spender.txid == paid.txid
    assert await call(path, p.FindTransaction(txid="11" * 32), object) is None


async def test_a_slow_follower_holds_up_nobody(server: tuple[EmbeddedChain, Path]) -> None:
    _, path = server
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b'{"method":"follow"}\n')
    await call(path, p.Mine(blocks=2000), list[str])
    assert (await call(path, p.GetInfo(), p.ChainInfo)).height == 2110
    await reader.readline()
    pushes: list[dict[str, object]] = []
    while not pushes or pushes[-1]["height"] != 2110:
        pushes.append(json.loads(await reader.readline()))
    assert [push["height"] for push in pushes if push["push"] == "connected"] == list(range(2111))
    writer.close()
    await writer.wait_closed()


# -- services ----------------------------------------------------------------------------------------------------------


async def test_broadcast_says_why_not(server: tuple[EmbeddedChain, Path]) -> None:
    chain, path = server
    client = RegtestClient(path)
    paid = chain.faucet(p2wsh(ANYONE_SCRIPT), Sat(10_000))
    free = spend_anyone(paid, Sat(10_000))
    refused = await client.broadcast([free], BroadcastKind.WALLET)
    assert not refused.accepted
    assert refused.reason.startswith("min relay fee not met")
    tx = spend_anyone(paid, Sat(9_000))
    assert (await client.broadcast([paid, tx], BroadcastKind.WALLET)).accepted
    chain.mine()
    assert (await client.broadcast([paid, tx], BroadcastKind.WALLET)).accepted
    gone = await RegtestClient(path.with_name("nobody")).broadcast([tx], BroadcastKind.WALLET)
    assert not gone.accepted


async def test_fees_are_the_servers_constant_or_the_settings(server: tuple[EmbeddedChain, Path]) -> None:
    _, path = server
    client = RegtestClient(path)
    assert await client.estimate(FeeTarget.FUNDING) == 1000
    await call(path, p.Fee(set=2500), int)
    assert await client.estimate(FeeTarget.ANCHOR_CHANNEL) == 2500
    assert await client.estimate(FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE) == 253
    assert await client.estimate(FeeTarget.MAXIMUM) == 25_000
    assert await RegtestClient(path, FeeRatePerKw(700)).estimate(FeeTarget.SWEEP) == 700
    assert await RegtestClient(path.with_name("nobody")).estimate(FeeTarget.SWEEP) is None


async def test_stop_ends_events_even_without_a_server(folder: Path) -> None:
    client = RegtestClient(folder / "nobody")
    await client.start((), BlockHeight(1))

    async def drain() -> list[ChainEvent]:
        return [event async for event in client.events()]

    async with asyncio.TaskGroup() as group:
        draining = group.create_task(drain())
        await asyncio.sleep(0.02)
        await client.stop()
    assert [type(event) for event in draining.result()] == [SourceTrouble]


async def test_a_locator_of_another_chain_forks_at_the_genesis_block(server: tuple[EmbeddedChain, Path]) -> None:
    chain, path = server
    client = RegtestClient(path)
    await client.start([(BlockHeight(400), BlockHash(b"\x11" * 32))], BlockHeight(300))
    stream = aiter(client.events())
    assert await anext(stream) == BlocksDisconnected(fork_height=BlockHeight(0), fork_hash=chain.hash_at(0))
    assert (await anext(stream)) == connected_block(BlockHeight(1), chain.block_at(1).raw)
    await client.stop()
    assert [event async for event in stream] == []


async def test_the_plugin_provides_three_services_through_the_registry(folder: Path) -> None:
    registry = load_plugins(["regtest"])
    context = ServiceContext(folder=folder, network=Network.REGTEST)
    tables = {"regtest": {"socket": "s", "feerate_per_kw": 500}}
    made = {
        kind: registry.make(kind, None, tables, context) for kind in ("chain_source", "broadcaster", "fee_estimator")
    }
    assert len({id(service) for service in made.values()}) == 1
    with EmbeddedChain(folder / "c") as chain:
        server = ChainServer(chain, folder / "s")
        await server.start()
        driver = ChainDriver(made["chain_source"], 111)
        await driver.start()
        await driver.run_until(110, chain.tip_hash)
        assert isinstance(driver.outputs[-1], SourceSynced)
        await driver.stop()
        await server.close()


def test_the_plugin_refuses_other_networks_and_unknown_settings(folder: Path) -> None:
    registry = load_plugins(["regtest"])
    signet = ServiceContext(folder=folder, network=Network.SIGNET)
    with pytest.raises(PluginError, match="regtest only"):
        registry.make("chain_source", "regtest", {"regtest": {"socket": "s"}}, signet)
    with pytest.raises(PluginError, match="socket"):
        registry.make("chain_source", "regtest", {"regtest": {"sockt": "s"}}, signet)


def test_the_plugin_does_not_load_the_kernel() -> None:
    code = "import sys, leyden_regtest.plugin, leyden_regtest.__main__; sys.exit('pbk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode == 0


async def test_nobody_there_is_its_own_error(folder: Path) -> None:
    with pytest.raises(ServerGone):
        await call(folder / "nobody", p.GetInfo(), p.ChainInfo)
