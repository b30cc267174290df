"""Cooperative closes, by us and by the peer."""

from tests.interop.bed import CAPACITY, Story

PUSHED = 155_010


async def test_by_us(story: Story) -> None:
    channel = await story.open(push_sat=PUSHED)
    await story.node.close_channel(channel.channel_id)
    ends = await channel.closed_together()
    assert ends.how == "cooperative"
    assert PUSHED in ends.values, "the side that did not fund pays no fee"
    assert 0 < ends.fee_sat < 2_000
    assert sum(ends.values) == CAPACITY - ends.fee_sat


async def test_by_them(story: Story) -> None:
    channel = await story.opened_by_peer(push_sat=PUSHED)
    await story.ask(story.peer.close_channel, channel.funding)
    ends = await channel.closed_together()
    assert ends.how == "cooperative"
    assert PUSHED in ends.values, "the side that did not fund pays no fee"
    assert 0 < ends.fee_sat < 2_000
