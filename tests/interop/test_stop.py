"""The peer is stopped as its owner stops it, in the middle of payments: some say strange things then."""

import asyncio
from collections.abc import Sequence
from typing import Any

from tests.interop.bed import CAPACITY
from tests.interop.story import Story

PAYMENTS = 20
AMOUNT = 2_000_000
HALF = CAPACITY * 500


async def test_in_the_middle_of_payments(story: Story) -> None:
    """Every payment ends on both sides with one result, and the channel lives."""
    channel = await story.open(push_sat=CAPACITY // 2)
    sent = 0
    for waited in (0, 1, 3):
        invoices = [await story.ask(story.peer.create_invoice, AMOUNT) for _ in range(PAYMENTS)]
        paying = [asyncio.ensure_future(story.node.pay(bolt11)) for bolt11 in invoices]
        await story.at_once(lambda paying=paying, least=waited: count_ended(paying) >= least, f"{waited} have ended")
        await story.ask(story.peer.stop)
        await story.ask(story.peer.start)
        await story.reconnect(channel)
        ended = await story.ended(paying)
        assert {payment.status for payment in ended} <= {"succeeded", "failed"}
        sent += await story.kept_by_peer(channel, ended)
        await channel.balances(HALF - sent, HALF + sent)


def count_ended(paying: "Sequence[asyncio.Future[Any]]") -> int:
    return sum(payment.done() for payment in paying)
