"""Payments both ways: 1 msat up to what a channel carries, many at once, above and below dust."""

import asyncio

import pytest
from leyden.channel.limits import available_to_send, reserve_msat
from leyden.crypto import sha256
from leyden.node.payments import PaymentError
from leyden.types import Msat, Side

from tests.interop.bed import CAPACITY, PATIENCE
from tests.interop.story import Chan, Story

HALF = CAPACITY * 500
"""In msat, what each side has after half was pushed."""


async def half_each(story: Story) -> Chan:
    return await story.open(push_sat=CAPACITY // 2)


async def test_both_ways_when_we_opened(story: Story) -> None:
    channel = await story.open()
    await story.pay_peer(100_000_000)  # a peer may allow only a tenth of the channel in flight
    await channel.balances(900_000_000, 100_000_000)
    await story.paid_by_peer(50_000_000)
    await channel.balances(950_000_000, 50_000_000)


async def test_both_ways_when_they_opened(story: Story) -> None:
    channel = await story.opened_by_peer()
    await story.paid_by_peer(300_000_000)
    await channel.balances(300_000_000, 700_000_000)
    await story.pay_peer(100_000_000)
    await channel.balances(200_000_000, 800_000_000)


async def test_1_msat_by_us(story: Story) -> None:
    channel = await half_each(story)
    bolt11 = await story.ask(story.peer.create_invoice, None, "any amount")
    result = await story.node.pay(bolt11, Msat(1), timeout=PATIENCE)
    assert (result.status, result.amount_msat) == ("succeeded", 1), result
    await channel.balances(HALF - 1, HALF + 1)


async def test_1_msat_by_them(story: Story) -> None:
    channel = await half_each(story)
    await story.paid_by_peer(1)
    await channel.balances(HALF + 1, HALF - 1)


async def test_around_dust(story: Story) -> None:
    """Below, at and above the dust limit, both ways: with an output or without."""
    channel = await half_each(story)
    ours = 0
    for sat in (1, 353, 354, 546, 1_000):
        await story.pay_peer(sat * 1000)
        await story.paid_by_peer((sat + 1) * 1000)
        ours += 1000
        await channel.balances(HALF + ours, HALF - ours)


async def test_to_the_limit_by_us(story: Story) -> None:
    """The most that reserve and fees leave goes through; a millisatoshi more is refused here."""
    channel = await half_each(story)
    actor = story.node.core.channels.get(channel.channel_id)
    assert actor is not None
    sendable = available_to_send(actor.channel, story.node.channel_policy().fee_spike_multiple)
    most = min(sendable, actor.channel.config.remote.max_in_flight_msat)  # a peer may allow a tenth only
    bolt11 = await story.ask(story.peer.create_invoice, None, "all of it")
    with pytest.raises(PaymentError):
        await story.node.pay(bolt11, Msat(most + 1))
    result = await story.node.pay(bolt11, most, timeout=PATIENCE)
    assert result.status == "succeeded", result
    await channel.balances(HALF - most, HALF + most)
    bolt11 = await story.ask(story.peer.create_invoice, None, "and a little more")
    with pytest.raises(PaymentError):
        await story.node.pay(bolt11, Msat(sendable - most + CAPACITY * 10))


async def test_to_the_limit_by_them(story: Story) -> None:
    """What the peer keeps back of its own accord differs; it must not be more than a twentieth of the channel."""
    channel = await half_each(story)
    actor = story.node.core.channels.get(channel.channel_id)
    assert actor is not None
    most = HALF - reserve_msat(actor.channel, Side.REMOTE)
    refused = await story.ask(story.peer.pay, (await story.invoice(most + 1_000)).bolt11)
    assert not refused.ok
    for less in (0, 1, 2, 5, 10, 20, 30, 50):
        amount = (most - CAPACITY * less) // 1000 * 1000
        invoice = await story.invoice(amount)
        paid = await story.ask(story.peer.pay, invoice.bolt11)
        if paid.ok:
            break
    assert paid.ok, paid
    await story.received(invoice.payment_hash, amount)
    await channel.balances(HALF + amount, HALF - amount)


async def test_30_at_once_by_us(story: Story) -> None:
    channel = await half_each(story)
    amounts = [1_000_000 + n * 1000 for n in range(30)]
    await asyncio.gather(*(story.pay_peer(msat) for msat in amounts))
    await channel.balances(HALF - sum(amounts), HALF + sum(amounts))


async def test_30_at_once_by_them(story: Story) -> None:
    channel = await half_each(story)
    amounts = [1_000_000 + n * 1000 for n in range(30)]
    await asyncio.gather(*(story.paid_by_peer(msat) for msat in amounts))
    await channel.balances(HALF + sum(amounts), HALF - sum(amounts))


async def test_30_at_once_across_each_other(story: Story) -> None:
    channel = await half_each(story)
    await asyncio.gather(
        *(story.pay_peer(2_000_000 + n * 1000) for n in range(15)),
        *(story.paid_by_peer(2_000_000 + n * 1000) for n in range(15)),
    )
    await channel.balances(HALF, HALF)


async def test_amount_of_our_choice(story: Story) -> None:
    """An invoice without an amount, of either side's; the other one decides."""
    channel = await half_each(story)
    bolt11 = await story.ask(story.peer.create_invoice, None, "any amount")
    result = await story.node.pay(bolt11, Msat(7_000_000), timeout=PATIENCE)
    assert result.status == "succeeded", result
    await channel.balances(HALF - 7_000_000, HALF + 7_000_000)


async def test_30_in_flight_by_us(story: Story) -> None:
    """All 30 wait at the payee at the same time, then one half is settled and the other cancelled."""
    channel = await half_each(story)
    preimages = [bytes([n + 1]) * 32 for n in range(30)]
    waiting = [asyncio.ensure_future(pay_held(story, preimage)) for preimage in preimages]
    await story.until(lambda: channel.in_flight() == 30, "30 HTLCs are in flight on both sides")
    for n, preimage in enumerate(preimages):
        if n % 2:
            await story.settle(preimage)
        else:
            await story.cancel(sha256(preimage))
    ended = await asyncio.gather(*waiting)
    assert ended == ["failed", "succeeded"] * 15
    await channel.balances(HALF - 15 * 2_000_000, HALF + 15 * 2_000_000)


async def test_30_in_flight_by_them(story: Story) -> None:
    channel = await half_each(story)
    held = story.hold()
    invoices = [await story.invoice(2_000_000) for _ in range(30)]
    for invoice in invoices:
        await story.ask(story.peer.start_payment, invoice.bolt11)
    await story.until(lambda: len(held.answers) == 30 and channel.in_flight() == 30, "30 HTLCs wait here")
    answers, held.answers = held.answers, []
    for n, answer in enumerate(answers):
        held.answers = [answer]
        held.decide(bool(n % 2))
    ended = [await story.their_payment(invoice.payment_hash) for invoice in invoices]
    assert sum(paid.ok for paid in ended) == 15
    for invoice, paid in zip(invoices, ended, strict=True):
        assert (await story.our_invoice(invoice.payment_hash)).status == ("paid" if paid.ok else "unpaid")
    await channel.balances(HALF + 15 * 2_000_000, HALF - 15 * 2_000_000)


async def pay_held(story: Story, preimage: bytes, msat: int = 2_000_000) -> str:
    bolt11 = await story.ask(story.peer.create_hold_invoice, sha256(preimage).hex(), msat)
    return (await story.node.pay(bolt11, timeout=PATIENCE)).status
