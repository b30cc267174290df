"""Payments of one turn share a commitment: the fewer channels have to sign, the more payments a second."""

import asyncio

from leyden.channel import ChannelPolicy
from leyden.node import Node
from leyden.types import Msat, Sat

from tests.scenario.conftest import World, until

POLICY = ChannelPolicy(minimum_depth=3, max_accepted_htlcs=5)


async def open_three(world: World) -> tuple[Node, Node]:
    alice, bob = await world.start("alice", policy=POLICY), await world.start("bob", policy=POLICY)
    await world.fund(alice, 5_000_000)
    await world.connect(alice, bob)
    for _ in range(3):
        await alice.open_channel(bob.node_id, Sat(1_000_000))
    await world.mine(4)
    await until(lambda: sum(c.usable for c in alice.channels()) == sum(c.usable for c in bob.channels()) == 3)
    return alice, bob


async def pay_at_once(alice: Node, bob: Node, count: int) -> list[int]:
    """How many millisatoshi arrived over each channel, most first."""
    invoices = [(await bob.create_invoice(Msat(1_000_000), "")).bolt11 for _ in range(count)]
    results = await asyncio.gather(*(alice.pay(bolt11, timeout=60) for bolt11 in invoices))
    assert [result.status for result in results] == ["succeeded"] * count
    await until(lambda: all(channel.htlcs == 0 for channel in (*alice.channels(), *bob.channels())))
    return sorted((channel.local_msat for channel in bob.channels()), reverse=True)


async def test_payments_of_one_turn_go_over_one_channel(world: World) -> None:
    alice, bob = await open_three(world)
    assert await pay_at_once(alice, bob, 4) == [4_000_000, 0, 0]
    assert await pay_at_once(alice, bob, 3) == [4_000_000, 3_000_000, 0], "next turn: again the richest"


async def test_a_channel_that_is_full_is_left_for_the_next(world: World) -> None:
    alice, bob = await open_three(world)
    assert await pay_at_once(alice, bob, 12) == [5_000_000, 5_000_000, 2_000_000]
