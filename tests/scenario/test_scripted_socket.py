"""The scripted peer over real sockets, against nodes that run for real."""

import asyncio

import pytest
from leyden.channel import Lifecycle
from leyden.node import Node
from leyden.testing.scripted_channel import ScriptedChannel, ScriptError
from leyden.testing.scripted_socket import ScriptedSocket
from leyden.types import Msat, NodeId, Sat
from leyden.wire import CommitmentSigned, ErrorMessage, Init, Ping, RevokeAndAck, UpdateAddHtlc, WarningMessage

from tests.scenario.conftest import World, until


def script_for(node: Node, name: str = "mallory") -> ScriptedSocket:
    return ScriptedSocket(name, NodeId(node.node_id), patience=20)


def usable(node: Node) -> int:
    return sum(view.usable for view in node.channels())


async def opened_by(world: World, node: Node, peer: ScriptedSocket) -> ScriptedChannel:
    """The node opens a channel to the script; both can pay."""
    opening = asyncio.ensure_future(node.open_channel(peer.node_id, Sat(1_000_000), push=Msat(300_000_000)))
    channel = await peer.answer(node.info().height)
    await peer.run(channel, reached=lambda: channel.channel.lifecycle is Lifecycle.AWAIT_CONFIRMATION)
    await opening
    await until(lambda: world.chain.find_transaction(channel.channel.fundings[0].outpoint.txid))
    await world.mine(3)
    channel.bury(node.info().height - 2, node.info().height)
    await peer.run(channel, reached=lambda: channel.is_open)
    await until(lambda: usable(node) == len(node.channels()))
    return channel


async def test_a_payment_then_a_bad_signature(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.channel(alice, bob)
    assert alice.address is not None
    async with script_for(alice) as peer:
        await peer.connect(*alice.address)
        await peer.ping()
        channel = await opened_by(world, alice, peer)
        invoice, preimage = peer.make_invoice(5_000_000)
        paying = asyncio.ensure_future(alice.pay(invoice.text, timeout=60))
        await peer.run(channel, until=UpdateAddHtlc)
        await peer.run(channel, reached=lambda: channel.received)
        channel.fulfil(channel.received[0].id, preimage)
        await peer.run(channel, until=RevokeAndAck)
        assert (await paying).status == "succeeded"
        await peer.run(channel, reached=lambda: not channel.channel.remote_htlcs)
        channel.offer(1_000_000)
        await peer.run(channel, before=CommitmentSigned)
        await peer.send(channel.changed(signature=bytes(64)))
        assert b"bad commitment signature" in (await peer.expect(WarningMessage)).data
        await peer.expect_closed()
        await until(lambda: usable(alice) == 1)
        await peer.connect(*alice.address)
        await peer.run(channel, reached=lambda: channel.is_open and not channel.channel.local_htlcs)
        await until(lambda: usable(alice) == 2)
        await peer.send(ErrorMessage(channel_id=channel.id, data=b"enough"))
        await until(lambda: usable(alice) == 1)
    due = await bob.create_invoice(Msat(2_000_000), "")
    assert (await alice.pay(due.bolt11, timeout=60)).status == "succeeded"


async def test_the_node_dials_the_script(world: World) -> None:
    alice = await world.start("alice")
    peer = script_for(alice)
    met = asyncio.get_running_loop().create_future()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.accept(reader, writer)
        met.set_result(None)

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with server, peer:
        await alice.connect(peer.node_id, *server.sockets[0].getsockname()[:2])
        await met
        await peer.ping(7)
        await peer.send(b"\x00\x04")
        assert await peer.expect_closed("C-127") == "unknown even message type [C-127] (offered=4)"
        server.close()


async def test_what_a_script_is_told(world: World) -> None:
    alice = await world.start("alice")
    assert alice.address is not None
    peer = script_for(alice)
    with pytest.raises(ScriptError, match="no session yet"):
        await peer.send(Ping(num_pong_bytes=1, ignored=b""))
    with pytest.raises(ScriptError, match="not dialled"):
        await peer.write(b"x")
    async with peer:
        await peer.connect(*alice.address, init=False)
        peer.patience = 0.05
        with pytest.raises(ScriptError, match="the node is silent"):
            await peer.expect(Init)
        peer.patience = 20
        await peer.send(b"\x7f\xff")
        with pytest.raises(ScriptError, match="expected Init, the node closed"):
            await peer.expect(Init)
        assert await peer.expect_closed() == ""
        await peer.dial(*alice.address)
        await peer.write(bytes(50))
        with pytest.raises(ScriptError, match="the node wrote 0 bytes, 50 were due"):
            await peer.take(50)
