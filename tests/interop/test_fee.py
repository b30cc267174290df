"""The funder follows the market: ``update_fee`` by us and by the peer, with payments before, meanwhile and after."""

import asyncio

import pytest

from tests.interop.bed import CAPACITY
from tests.interop.peer import ChannelKind
from tests.interop.story import Story

KINDS = pytest.mark.parametrize("kind", list(ChannelKind), ids=lambda kind: kind.value)
HALF = CAPACITY * 500
AMOUNT = 20_000_000
"""With an output at every feerate here, so that nothing counts as exposed."""


@KINDS
async def test_update_by_us(story: Story, kind: ChannelKind) -> None:
    channel = await story.open(kind=kind, push_sat=CAPACITY // 2)
    before = channel.ours().feerate_per_kw
    for feerate in (before + 1_000, before + 500):
        await story.node.update_channel_policy(commitment_feerate=feerate)
        await asyncio.gather(story.pay_peer(AMOUNT), story.paid_by_peer(AMOUNT))
        await story.until(lambda feerate=feerate: channel.ours().feerate_per_kw == feerate, "the new feerate holds")
        await channel.balances(HALF, HALF)


@KINDS
async def test_update_by_them(story: Story, kind: ChannelKind) -> None:
    """LDK Node looks at the market once a minute."""
    channel = await story.opened_by_peer(kind=kind, push_sat=CAPACITY // 2)
    await story.paid_by_peer(1_000_000)  # some fundees' first update comes with the first payment
    await story.pay_peer(1_000_000)
    before = channel.ours().feerate_per_kw
    try:
        await story.ask(story.peer.set_feerate, 4_000)
        await story.until(lambda: channel.ours().feerate_per_kw > before, "the peer raised the feerate")
        raised = channel.ours().feerate_per_kw
        await story.paid_by_peer(AMOUNT)
        await story.pay_peer(AMOUNT)
        await channel.balances(HALF, HALF)
    finally:
        await story.ask(story.peer.set_feerate, 1_250)
    await story.until(lambda: channel.ours().feerate_per_kw < raised, "the peer lowered it again")
    await story.paid_by_peer(AMOUNT)
    await story.pay_peer(AMOUNT)
    await channel.balances(HALF, HALF)
