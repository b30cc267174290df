"""Payments both ways: 1 msat up to what a channel carries, many at once, above and below dust."""

import asyncio

from tests.interop.bed import CAPACITY, Story


async def test_both_ways(story: Story) -> None:
    channel = await story.open()
    await story.pay_peer(200_000_000)
    await channel.balances(800_000_000, 200_000_000)
    await story.paid_by_peer(50_000_000)
    await channel.balances(850_000_000, 150_000_000)


async def test_30_at_once_by_us(story: Story) -> None:
    channel = await story.open(push_sat=CAPACITY // 2)
    amounts = [1_000_000 + n * 1000 for n in range(30)]
    await asyncio.gather(*(story.pay_peer(msat) for msat in amounts))
    half = CAPACITY * 500
    await channel.balances(half - sum(amounts), half + sum(amounts))


async def test_30_at_once_by_them(story: Story) -> None:
    channel = await story.open(push_sat=CAPACITY // 2)
    amounts = [1_000_000 + n * 1000 for n in range(30)]
    await asyncio.gather(*(story.paid_by_peer(msat) for msat in amounts))
    half = CAPACITY * 500
    await channel.balances(half + sum(amounts), half - sum(amounts))
