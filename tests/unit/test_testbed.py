"""The test bed itself: ports that stay ours, programs that are fetched or built once, whoever asks for them."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from tests.testbed import cache, electrum_liar, program
from tests.testbed.bitcoind import Bitcoind, RpcError, free_port
from tests.testbed.electrum_server import ElectrumServer
from tests.testbed.lnd_rest import Rest
from tests.testbed.peer_program import DATA_LOST, PeerDied, PeerProgram


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody could listen on a port that is held")
def test_a_port_is_given_to_nobody_else() -> None:
    port = free_port()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))


def test_a_server_may_listen_on_its_port_again_and_again() -> None:
    port = free_port()
    for _ in range(3):
        with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)) as one:
            other, _ = server.accept()
            other.close()  # the server's end is the one that lingers
            assert one.recv(1) == b""
    with socket.socket() as late:
        assert late.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a program that is kept in a cache of its own."""
    monkeypatch.setattr(cache, "CACHE", tmp_path / "cache")
    made = tmp_path / "source"
    made.write_text("one")
    return made


def test_what_was_built_is_built_again_only_when_a_source_or_a_flag_changes(source: Path) -> None:
    builds: list[Path] = []
    first = cache.built("program", [source], builds.append)
    assert cache.built("program", [source], builds.append) == first
    assert builds == [first]
    flagged = cache.built("program", [source], builds.append, ["-O"])
    source.write_text("two")
    changed = cache.built("program", [source], builds.append)
    assert builds == [first, flagged, changed]
    assert len({first, flagged, changed}) == 3


def test_of_what_was_built_the_newest_are_kept(source: Path) -> None:
    made = []
    for number in range(cache.KEPT + 2):
        source.write_text(str(number))
        made.append(cache.built("program", [source], lambda folder: None))
        os.utime(made[-1] / ".complete", (number, number))
    assert sorted(path for path in made[0].parent.iterdir()) == sorted(made[-cache.KEPT :])


def test_a_build_that_broke_off_half_way_begins_from_nothing(source: Path) -> None:
    def breaks(folder: Path) -> None:
        (folder / "half").write_text("of a progr")
        raise KeyboardInterrupt

    def works(folder: Path) -> None:
        (folder / "whole").write_text("a program")

    with pytest.raises(KeyboardInterrupt):
        cache.built("program", [source], breaks)
    folder = cache.built("program", [source], works)
    assert sorted(path.name for path in folder.iterdir()) == [".complete", "whole"]


def test_two_who_want_the_same_build_it_once(source: Path) -> None:
    begun, go_on, builds = Event(), Event(), []

    def build(folder: Path) -> None:
        builds.append(folder)
        begun.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.built, "program", [source], build)
        assert begun.wait(60)
        second = pool.submit(cache.built, "program", [source], build)
        go_on.set()
        assert first.result(60) == second.result(60)
    assert len(builds) == 1


def test_a_step_that_fails_or_takes_too_long_says_so() -> None:
    with pytest.raises(cache.Unavailable, match="program: sh failed: no such thing"):
        cache.run("program", ["sh", "-c", "echo no such thing >&2; exit 3"], 60)
    with pytest.raises(cache.Unavailable, match="timed out"):
        cache.run("program", ["sleep", "60"], 0.01)


def test_what_asks_the_network_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PAUSES", (0.0, 0.0))
    count = 'echo . >> tries; [ "$(wc -l < tries)" -ge %d ] || { echo no route >&2; exit 1; }'
    cache.fetch("program", ["sh", "-c", count % 3], 60, cwd=tmp_path)
    with pytest.raises(cache.Unavailable, match="no route"):
        cache.fetch("program", ["sh", "-c", count % 99], 60, cwd=tmp_path)
    assert len((tmp_path / "tries").read_text().splitlines()) == 6


def test_what_hangs_is_not_tried_again(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    tries.touch()
    with pytest.raises(cache.Unavailable, match="timed out"):
        cache.fetch("program", ["sh", "-c", "echo . >> tries; exec sleep 60"], 1, cwd=tmp_path)
    assert len(tries.read_text().splitlines()) <= 1


class Dying(PeerProgram):
    """Ends before it serves, with these last words."""

    name = "dying"

    def __init__(self, folder: Path, last_words: str) -> None:
        super().__init__(folder, Bitcoind(folder / "bitcoind"))
        self._last_words = last_words

    def command(self) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.exit({self._last_words!r})"]


def test_a_peer_that_dies_at_its_start_because_its_data_is_old_was_started(tmp_path: Path) -> None:
    """It may learn so from us before it obeys its first command."""
    peer = Dying(tmp_path, f"PANIC {DATA_LOST} and stop")
    assert peer.start() is peer
    with pytest.raises(PeerDied, match="died"):
        peer.call("info")
    peer.kill()


def test_a_peer_that_dies_at_its_start_for_another_reason_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(cache.Unavailable, match="no such library"):
        Dying(tmp_path, "no such library").start()


def test_a_program_that_does_not_end_politely_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "PATIENCE", 0.1)
    deaf = program.Program("deaf", tmp_path / "log")
    deaf.start(["sh", "-c", "trap '' TERM; echo up; while true; do read line || sleep 1; done"])
    while not deaf.log_tail():
        pass
    assert deaf.runs
    deaf.end()
    assert not deaf.started


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Callable[..., Bitcoind]]:
    """A bitcoind that gives these HTTP answers, each on a connection of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def serve(answers: Sequence[bytes]) -> None:
            for answer in answers:
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 " + answer)

        def script(*answers: bytes) -> Bitcoind:
            daemon = Bitcoind(tmp_path / "bitcoind")
            daemon.port = server.getsockname()[1]
            pool.submit(serve, answers)
            return daemon

        yield script


def test_a_bitcoind_that_is_busy_is_asked_again(scripted: Callable[..., Bitcoind]) -> None:
    """It has more to do for the peers than it lets wait, and has not begun with the call."""
    busy = b"503 Service Unavailable\r\nContent-Length: 25\r\n\r\nWork queue depth exceeded"
    found = b'200 OK\r\nContent-Length: 25\r\n\r\n{"result":7,"error":null}'
    assert scripted(busy, busy, found).rpc("getblockcount") == 7


def test_a_bitcoind_that_refuses_is_not_asked_again(scripted: Callable[..., Bitcoind]) -> None:
    refusal = b'{"result":null,"error":{"code":-8,"message":"out of range"}}'
    said = b"500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(refusal) + refusal
    with pytest.raises(RpcError, match=r"out of range \(code -8\)"):
        scripted(said).rpc("getblockhash", 1)


@pytest.mark.parametrize("said", [b'200 OK\r\nContent-Length: 99\r\n\r\n{"result', b'200 OK\r\n\r\n{"result', b""])
def test_a_bitcoind_that_breaks_off_is_gone(said: bytes, scripted: Callable[..., Bitcoind]) -> None:
    with pytest.raises(OSError):
        scripted(said).rpc("getblockcount")


@pytest.mark.parametrize("away", [False, True])
async def test_a_proxy_hangs_up_on_who_is_just_connecting(
    away: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while it dials the real server itself, which may not even be there."""
    connect, dialled, go_on = asyncio.open_connection, asyncio.Event(), asyncio.Event()

    async def dial(*address: Any, **options: Any) -> Any:
        dialled.set()
        await go_on.wait()
        raise ConnectionRefusedError

    liar = await electrum_liar.Liar(ElectrumServer(tmp_path, Bitcoind(tmp_path))).start()
    monkeypatch.setattr(asyncio, "open_connection", dial)
    reader, writer = await connect("127.0.0.1", liar.port)
    async with asyncio.timeout(60):
        await dialled.wait()
        if away:
            go_on.set()
        await liar.stop()
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("answer", [b'{"a', b"5\r\nhalf"])
def test_half_an_answer_of_a_node_that_was_killed_is_a_lost_connection(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                kind = b"Transfer-Encoding: chunked" if answer.startswith(b"5") else b"Content-Length: 9"
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n" + answer)

        served = pool.submit(serve)
        with pytest.raises(ConnectionError, match="/v1/getinfo"):
            Rest(server.getsockname()[1]).call("GET", "/v1/getinfo")
        served.result(60)
