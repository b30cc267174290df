"""Garbage on real sockets: the listener of a node that runs for real shrugs it off."""

import asyncio
import contextlib
import gc
import socket

from leyden.node import Node
from leyden.node.peers import HANDSHAKE_BURST
from leyden.types import Msat

from tests.scenario.conftest import World, until

RUBBISH = (
    b"",
    b"\x00",
    bytes(49),
    bytes(50),
    bytes(200),
    b"\x00\x02" + bytes(48),
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + b"x" * 100,
    b"\xff" * 300_000,
)


async def throw(node: Node, data: bytes, *, reset: bool) -> bytes:
    """Connect, say ``data``, listen for what comes back, and leave (rudely if asked)."""
    if node.address is None:
        raise AssertionError("the node does not listen")
    reader, writer = await asyncio.open_connection(*node.address)
    answer = b""
    with contextlib.suppress(TimeoutError, OSError):
        writer.write(data)
        async with asyncio.timeout(0.2):
            answer = await reader.read(100)
    if reset:
        writer.transport.abort()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return answer


async def test_rubbish_and_floods_leave_the_channel_alone(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    for data in RUBBISH:
        answers = await asyncio.gather(throw(bob, data, reset=False), throw(bob, data, reset=True))
        assert set(answers) == {b""}  # not a byte for those who do not know whom they talk to
    # more connections at once than handshakes are allowed: the surplus is dropped before any key is used
    flood = await asyncio.gather(*(throw(bob, b"\x00", reset=n % 2 == 0) for n in range(HANDSHAKE_BURST + 30)))
    assert set(flood) == {b""}
    invoice = await bob.create_invoice(Msat(2_000_000), "after the flood")
    assert (await alice.pay(invoice.bolt11, timeout=60)).status == "succeeded"
    await until(lambda: len(bob.core.peers._connections) == 1)


async def test_connections_at_the_moment_of_the_stop_leave_nothing_behind(world: World) -> None:
    """Not accepted yet, just accepted, just begun: each gets an end and none is left to the garbage collector."""
    for steps in range(8):
        bob = await world.start("bob")
        assert bob.address is not None
        with socket.socket() as stranger:
            stranger.setblocking(False)
            stopping = asyncio.ensure_future(world.stop(bob))
            for _ in range(steps):
                await asyncio.sleep(0)
            try:
                await asyncio.get_running_loop().sock_connect(stranger, bob.address)
                assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(stranger, 1), 20) == b""
            except ConnectionError:
                pass  # nobody listens any more
            await stopping
    gc.collect()
