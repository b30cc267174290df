"""The negotiation of ``closing_signed``: all that peers without simple close know; others are told to forget that."""

from collections.abc import Iterator

import pytest
from leyden.types import FeeRatePerKw

from tests.interop.bed import CAPACITY, Bed
from tests.interop.story import Chan, Ends, Story
from tests.interop.test_close import PUSHED, SIMPLE

pytestmark = pytest.mark.usefixtures("legacy")
FUNDERS = pytest.mark.parametrize("funder", ["we opened", "they opened"])


@pytest.fixture(scope="module")
def legacy(bed: Bed) -> Iterator[None]:
    offer = getattr(bed.peer, "offer_simple_close", None)
    if offer is not None:
        offer(False)
    yield
    if offer is not None:
        offer(True)


async def _open(story: Story, funder: str) -> Chan:
    opened = story.open if funder == "we opened" else story.opened_by_peer
    channel = await opened(push_sat=PUSHED)
    assert not story.bed.features.offers(SIMPLE)
    return channel


def check(ends: Ends, fees: range) -> None:
    assert ends.how == "cooperative"
    assert PUSHED in ends.values, "the side that did not fund pays no fee"
    assert ends.fee_sat in fees
    assert sum(ends.values) == CAPACITY - ends.fee_sat


@FUNDERS
async def test_by_us(story: Story, funder: str) -> None:
    channel = await _open(story, funder)
    await story.node.close_channel(channel.channel_id)
    check(await channel.closed_together(), range(100, 4_000))


@FUNDERS
async def test_by_them(story: Story, funder: str) -> None:
    channel = await _open(story, funder)
    await story.ask(story.peer.close_channel, channel.funding)
    check(await channel.closed_together(), range(100, 4_000))


async def test_they_pay_a_high_fee(story: Story) -> None:
    channel = await _open(story, "they opened")
    await story.ask(story.peer.close_channel, channel.funding, sat_per_vbyte=25)
    check(await channel.closed_together(), range(3_000, 6_000))


async def test_we_pay_a_high_fee(story: Story) -> None:
    channel = await _open(story, "we opened")
    await story.node.close_channel(channel.channel_id, feerate=FeeRatePerKw(5_000))
    check(await channel.closed_together(), range(500, 7_000))  # LDK takes the highest of our range
