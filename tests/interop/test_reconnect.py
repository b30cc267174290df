"""Coming back while payments are pending on either side: the link cut, us killed, the peer killed."""

import asyncio
from typing import TypeVar

import pytest
from leyden.crypto import sha256
from leyden_cli.errors import CliError

from tests.interop.bed import CAPACITY, PATIENCE
from tests.interop.cutting import Cutter
from tests.interop.peer import PeerChannel
from tests.interop.process import LeydenProcess
from tests.interop.story import Chan, Held, Story
from tests.testbed.leyden import Leyden

T = TypeVar("T")
HALF = CAPACITY * 500
AMOUNT = 5_000_000
PREIMAGE = sha256(b"the preimage of a payment that waits")
MOST_MESSAGES = 40


async def half_each(story: Story) -> Chan:
    return await story.open(push_sat=CAPACITY // 2)


class Pending:
    """A payment each way that waits at its payee."""

    def __init__(self, story: Story, channel: Chan) -> None:
        self.story = story
        self.channel = channel
        self.held: Held | None = None
        self.theirs = ""

    async def begin(self) -> "Pending":
        story = self.story
        preimage = sha256(PREIMAGE + self.channel.channel_id)
        self.preimage = preimage
        bolt11 = await story.ask(story.peer.create_hold_invoice, sha256(preimage).hex(), AMOUNT)
        await story.begin_payment(bolt11)
        self.held = story.hold()
        ours = await story.invoice(AMOUNT)
        self.theirs = ours.payment_hash
        await story.ask(story.peer.start_payment, ours.bolt11)
        await self.wait_in_flight()
        await story.until(lambda: self.held is not None and bool(self.held.answers), "our node has to decide")
        return self

    async def wait_in_flight(self) -> None:
        await self.story.until(lambda: self.channel.in_flight() == 2, "an HTLC each way is in flight")

    async def settle(self, ok: bool) -> None:
        """Both payees take it or both refuse; everyone agrees on the end."""
        story = self.story
        if ok:
            await story.settle(self.preimage)
        else:
            await story.cancel(sha256(self.preimage))
        if self.held is not None:
            self.held.decide(ok)
        ours = await story.our_payment(sha256(self.preimage))
        assert ours.status == ("succeeded" if ok else "failed"), ours
        theirs = await story.their_payment(self.theirs)
        # without ``held`` our node was restarted and took what waited
        assert theirs.ok is (ok or self.held is None), theirs
        received = AMOUNT if theirs.ok else 0
        sent = AMOUNT if ok else 0
        await self.channel.balances(HALF - sent + received, HALF + sent - received)


@pytest.mark.parametrize("ok", [True, False], ids=["settled", "failed"])
async def test_link_lost(story: Story, ok: bool) -> None:
    channel = await half_each(story)
    pending = await Pending(story, channel).begin()
    await story.hang_up()
    await story.reconnect(channel)
    await pending.wait_in_flight()
    await pending.settle(ok)


async def test_they_dial_again(story: Story) -> None:
    """The link comes back from the other side."""
    channel = await half_each(story)
    pending = await Pending(story, channel).begin()
    await story.hang_up()
    await story.connect_in()
    await channel.usable()
    await pending.settle(True)


async def test_we_restart(story: Story) -> None:
    channel = await half_each(story)
    pending = await Pending(story, channel).begin()
    await story.leyden.stop()
    await story.leyden.start()
    pending.held = None
    await story.reconnect(channel)
    await pending.settle(True)


@pytest.mark.parametrize("ok", [True, False], ids=["settled", "failed"])
async def test_they_are_killed(story: Story, ok: bool) -> None:
    """kill -9 the peer."""
    channel = await half_each(story)
    pending = await Pending(story, channel).begin()
    await story.ask(story.peer.kill)
    await story.until(lambda: story.connection is None, "we notice that the peer is gone")
    await story.ask(story.peer.start)
    await story.reconnect(channel)
    await pending.wait_in_flight()
    await pending.settle(ok)
    await story.pay_peer(1_000_000)


async def test_they_are_killed_while_paying(story: Story) -> None:
    """Killed in the middle of 20 payments; every one ends the same way on both sides.

    LND may give back what it has taken (docs/interop.md): then we say which, and nobody lost money but LND.
    """
    channel = await half_each(story)
    amounts = [AMOUNT // 2 + n * 1000 for n in range(20)]  # a peer may allow only a tenth of the channel in flight
    bolt11s = [await story.ask(story.peer.create_invoice, msat, "one of 20") for msat in amounts]
    paying = [asyncio.ensure_future(story.node.pay(bolt11)) for bolt11 in bolt11s]
    await story.until(lambda: channel.ours().htlcs > 0 or any(p.done() for p in paying), "HTLCs are on their way")
    await story.ask(story.peer.kill)
    await story.ask(story.peer.start)
    await story.until(lambda: story.node.peers() == [] or story.connection is not None, "we noticed")
    await story.reconnect(channel)
    ended = await story.ended(paying)
    sent = await story.kept_by_peer(channel, ended)
    await channel.balances(HALF - sent, HALF + sent)
    await story.pay_peer(1_000_000)


async def test_we_are_killed_while_we_pay(story: Story, leyden: Leyden) -> None:
    """kill -9 of ``leyden start``; what it had offered goes on after a new start."""
    channel = await half_each(story)
    preimage = sha256(PREIMAGE + channel.channel_id)
    bolt11 = await story.ask(story.peer.create_hold_invoice, sha256(preimage).hex(), AMOUNT)
    await leyden.stop()
    process = LeydenProcess(leyden.folder)
    try:
        await process.start()
        await usable_in(process, story, channel)
        paying = asyncio.ensure_future(process.client.pay(bolt11))
        await story.until(lambda: _theirs(story, channel) == 1, "the HTLC is at the peer")
    finally:
        await process.kill()
    with pytest.raises(CliError):
        await paying
    await leyden.start()
    await story.reconnect(channel)
    await story.settle(preimage)
    ended = await story.our_payment(sha256(preimage))
    assert ended.status == "succeeded", ended
    await channel.balances(HALF - AMOUNT, HALF + AMOUNT)


async def test_we_are_killed_while_they_pay(story: Story, leyden: Leyden) -> None:
    """kill -9 of ``leyden start`` before it decided; the new start takes the payment that waits."""
    channel = await half_each(story)
    await leyden.stop()
    process = LeydenProcess(leyden.folder, holding=True)
    try:
        await process.start()
        await usable_in(process, story, channel)
        invoice = await process.client.invoice(AMOUNT, "tea")
        await story.ask(story.peer.start_payment, invoice.bolt11)
        await story.until(lambda: _theirs(story, channel) == 1, "the HTLC is at the peer")

        async def ours() -> bool:
            return (await process.client.channels())[0].htlcs == 1

        await story.until_we(ours, "the HTLC is here")
    finally:
        await process.kill()
    await leyden.start()
    await story.reconnect(channel)
    assert (await story.their_payment(invoice.payment_hash)).ok
    await story.received(invoice.payment_hash, AMOUNT)
    await channel.balances(HALF + AMOUNT, HALF - AMOUNT)


async def test_we_are_killed_again_and_again(story: Story, leyden: Leyden) -> None:
    """Five times in the middle of payments both ways; the figures of both sides agree in the end."""
    channel = await half_each(story)
    theirs: list[str] = []
    await leyden.stop()
    for _ in range(5):
        process = LeydenProcess(leyden.folder)
        try:
            await process.start()
            await usable_in(process, story, channel)
            first = await story.ask(story.peer.create_invoice, AMOUNT, "coffee")
            await process.client.pay(first, timeout=PATIENCE)
            bolt11s = [await story.ask(story.peer.create_invoice, AMOUNT, "coffee") for _ in range(5)]
            invoices = [await process.client.invoice(AMOUNT, "tea") for _ in range(5)]
            paying = [asyncio.ensure_future(process.client.pay(bolt11)) for bolt11 in bolt11s]
            for invoice in invoices:
                await story.ask(story.peer.start_payment, invoice.bolt11)
                theirs.append(invoice.payment_hash)
        finally:
            await process.kill()
        await asyncio.gather(*paying, return_exceptions=True)
    await leyden.start()
    await story.reconnect(channel)
    for payment_hash in theirs:  # nothing may be in flight for a moment, and the peer tries again
        await story.their_payment(payment_hash)
    await story.until(lambda: channel.ours().htlcs == 0 and _theirs(story, channel) == 0, "nothing is in flight")
    for payment in await story.node.payments():
        await story.our_payment(bytes.fromhex(payment.payment_hash))
    sent = sum(p.amount_msat for p in await story.node.payments() if p.status == "succeeded")
    received = sum(i.received_msat for i in await story.node.invoices() if i.status == "paid")
    assert sent >= 5 * AMOUNT
    await channel.balances(HALF - sent + received, HALF + sent - received)


async def test_cut_between_any_two_messages_of_our_payment(story: Story) -> None:
    channel = await half_each(story)
    ours = HALF
    for budget in range(MOST_MESSAGES):
        bolt11 = await story.ask(story.peer.create_invoice, AMOUNT, f"cut after {budget}")
        cutter = await begin_cut(story, channel, budget)
        result = await until_paid(story, channel, cutter, asyncio.ensure_future(story.node.pay(bolt11)))
        sent = await story.ask(story.peer.invoice_paid_msat, result.payment_hash)
        assert sent == (AMOUNT if result.status == "succeeded" else 0), result
        ours -= sent
        await channel.balances(ours, 2 * HALF - ours)
        if not cutter.cut and story.connection is cutter.peer:
            assert result.status == "succeeded"
            assert budget >= 5
            return
    raise AssertionError("the payment never ran uncut")


async def test_cut_between_any_two_messages_of_their_payment(story: Story) -> None:
    channel = await half_each(story)
    ours = HALF
    for budget in range(MOST_MESSAGES):
        invoice = await story.invoice(AMOUNT)
        cutter = await begin_cut(story, channel, budget)
        await story.ask(story.peer.start_payment, invoice.bolt11)
        paying = asyncio.ensure_future(story.their_payment(invoice.payment_hash))
        paid = await until_paid(story, channel, cutter, paying)
        received = (await story.our_invoice(invoice.payment_hash)).received_msat
        assert received == (AMOUNT if paid.ok else 0), paid
        ours += received
        await channel.balances(ours, 2 * HALF - ours)
        if not cutter.cut and story.connection is cutter.peer:
            assert paid.ok
            assert budget >= 5
            return
    raise AssertionError("the payment never ran uncut")


async def begin_cut(story: Story, channel: Chan, budget: int) -> Cutter:
    """On a connection that works; a peer that makes a new one by itself gets away with it."""
    await story.reconnect(channel)
    connection = await story.until(lambda: story.connection, "we are connected")
    assert connection is not None
    return Cutter(connection, budget)


async def until_paid(story: Story, channel: Chan, cutter: Cutter, paying: "asyncio.Future[T]") -> T:
    """Wait for the end of the payment; when the link was cut, connect again."""
    await story.until(lambda: cutter.cut or paying.done(), "the payment ended or was cut")
    if cutter.cut:
        await story.reconnect(channel)
    result = await paying
    if not cutter.cut:  # what follows the preimage may still be cut
        await story.until(lambda: cutter.cut or channel.in_flight() == channel.ours().htlcs == 0, "all is settled")
        if cutter.cut:
            await story.reconnect(channel)
    cutter.remove()
    return result


async def usable_in(process: LeydenProcess, story: Story, ours: Chan) -> None:
    """The process has connected by itself, and the channel is usable on both sides."""

    async def usable() -> bool:
        (channel,) = await process.client.channels()
        return channel.usable

    await story.until_we(usable, "the process has its channel back")
    await story.until(lambda: _seen_by_peer(story, ours).usable, "and the peer, too")


def _theirs(story: Story, channel: Chan) -> int:
    """HTLCs that the peer has."""
    return _seen_by_peer(story, channel).htlcs


def _seen_by_peer(story: Story, channel: Chan) -> PeerChannel:
    """While our node does not run in this process."""
    found = [c for c in story.peer.channels() if c.funding == channel.funding]
    assert found, "the peer has this channel no more"
    return found[0]
