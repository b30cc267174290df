"""Cooperative closes: by us, by the peer, with fees far apart, with a payment pending, with one side empty."""

from contextlib import suppress
from pathlib import Path

import pytest
from leyden.bitcoin import Network, decode_address
from leyden.channel import ChannelError
from leyden.crypto import sha256
from leyden.types import FeeRatePerKw
from leyden.wire.features import Feature

from tests.interop.bed import CAPACITY, Bed
from tests.interop.cutting import Cutter
from tests.interop.story import Chan, Ends, Story
from tests.testbed.leyden import Leyden

PUSHED = 155_010
MOST_MESSAGES = 20
SIMPLE = Feature.OPTION_SIMPLE_CLOSE


def simple(story: Story) -> bool:
    """Both offer ``option_simple_close``: then either side may make the closing transaction, and pays for it."""
    return story.bed.features.offers(SIMPLE)


def check(story: Story, ends: Ends, fundee: int) -> None:
    """One side pays the whole fee: the funder, or with simple close whoever made the transaction."""
    assert ends.how == "cooperative"
    untouched = [fundee, CAPACITY - fundee] if simple(story) else [fundee]
    assert any(value in ends.values for value in untouched), ends
    assert 0 < ends.fee_sat < 25_000
    assert sum(ends.values) == CAPACITY - ends.fee_sat


@pytest.mark.parametrize("funder", ["we opened", "they opened"])
async def test_by_us(story: Story, funder: str) -> None:
    channel = await _open(story, funder)
    await story.node.close_channel(channel.channel_id)
    check(story, await channel.closed_together(), PUSHED)


@pytest.mark.parametrize("funder", ["we opened", "they opened"])
async def test_by_them(story: Story, funder: str) -> None:
    channel = await _open(story, funder)
    await story.ask(story.peer.close_channel, channel.funding)
    check(story, await channel.closed_together(), PUSHED)


async def _open(story: Story, funder: str) -> Chan:
    if funder == "we opened":
        return await story.open(push_sat=PUSHED)
    return await story.opened_by_peer(push_sat=PUSHED)


async def test_by_both_at_once(story: Story) -> None:
    channel = await story.open(push_sat=PUSHED)
    await story.ask(story.peer.close_channel, channel.funding)
    with suppress(ChannelError):  # the peer's shutdown was faster
        await story.node.close_channel(channel.channel_id)
    check(story, await channel.closed_together(), PUSHED)


async def test_we_want_a_high_fee(story: Story) -> None:
    """Ten times what the peer would take: the funder pays, so the peer has no reason to refuse."""
    channel = await story.open(push_sat=PUSHED)
    await story.node.close_channel(channel.channel_id, feerate=FeeRatePerKw(10_000))
    check(story, await channel.closed_together(), PUSHED)


async def test_we_want_a_low_fee(story: Story) -> None:
    channel = await story.open(push_sat=PUSHED)
    await story.node.close_channel(channel.channel_id, feerate=FeeRatePerKw(253))
    check(story, await channel.closed_together(), PUSHED)


async def test_they_want_a_high_fee(story: Story) -> None:
    channel = await story.opened_by_peer(push_sat=PUSHED)
    await story.ask(story.peer.close_channel, channel.funding, sat_per_vbyte=25)
    check(story, await channel.closed_together(), PUSHED)


async def test_they_want_a_low_fee(story: Story) -> None:
    channel = await story.opened_by_peer(push_sat=PUSHED)
    await story.ask(story.peer.close_channel, channel.funding, sat_per_vbyte=2)
    check(story, await channel.closed_together(), PUSHED)


async def test_one_side_empty(story: Story) -> None:
    """The peer has nothing: one output."""
    channel = await story.open()
    await story.node.close_channel(channel.channel_id)
    ends = await channel.closed_together()
    assert ends.how == "cooperative"
    assert len(ends.values) == 1
    assert ends.values[0] == CAPACITY - ends.fee_sat


async def test_below_dust(story: Story) -> None:
    """The peer has less than an output may have: it goes to the miners."""
    channel = await story.open()
    await story.pay_peer(200_000)
    await story.node.close_channel(channel.channel_id)
    ends = await channel.closed_together()
    assert len(ends.values) == 1
    assert ends.fee_sat > 200


async def test_while_our_payment_is_pending(story: Story) -> None:
    """``shutdown`` does not wait for the HTLC, the closing transaction does."""
    channel = await story.open(push_sat=PUSHED)
    preimage = sha256(b"pending" + channel.channel_id)
    bolt11 = await story.ask(story.peer.create_hold_invoice, sha256(preimage).hex(), 5_000_000)
    await story.begin_payment(bolt11)
    await story.until(lambda: channel.in_flight() == 1, "the HTLC is in flight")
    await story.pay_peer(1_000_000)  # by now the peer has looked at what waits: it may refuse that after shutdown
    await story.node.close_channel(channel.channel_id)
    await story.settle(preimage)
    assert (await story.our_payment(sha256(preimage))).status == "succeeded"
    check(story, await channel.closed_together(), PUSHED + 6_000)


async def test_while_their_payment_is_pending(story: Story) -> None:
    channel = await story.open(push_sat=PUSHED)
    held = story.hold()
    invoice = await story.invoice(5_000_000)
    await story.ask(story.peer.start_payment, invoice.bolt11)
    await story.until(lambda: bool(held.answers), "the payment waits for a decision")
    await story.ask(story.peer.close_channel, channel.funding)
    actor = story.node.core.channels.get(channel.channel_id)
    assert actor is not None
    await story.until(lambda: actor.channel.shutdown.received, "the peer's shutdown arrives")
    held.decide(True)
    assert (await story.their_payment(invoice.payment_hash)).ok
    check(story, await channel.closed_together(), PUSHED - 5_000)


async def test_after_a_lost_link(story: Story) -> None:
    """The negotiation begins anew after a reconnect."""
    channel = await story.open(push_sat=PUSHED)
    await story.hang_up()
    await story.node.close_channel(channel.channel_id)
    await story.connect()
    check(story, await channel.closed_together(), PUSHED)


async def test_to_an_address_of_theirs(story: Story) -> None:
    """The peer commits to a shutdown script when it opens; the closing pays there."""
    address = await story.ask(story.peer.new_address)
    channel = await story.opened_by_peer(push_sat=PUSHED, close_address=address)
    actor = story.node.core.channels.get(channel.channel_id)
    assert actor is not None
    assert actor.channel.config.remote.shutdown_script == decode_address(address, Network.REGTEST)
    await story.ask(story.peer.close_channel, channel.funding)
    ends = await channel.closed_together()
    check(story, ends, PUSHED)
    assert decode_address(address, Network.REGTEST).hex() in ends.scripts


async def test_to_a_script_of_ours(story: Story) -> None:
    """We commit to one whenever the peer knows ``option_upfront_shutdown_script``."""
    channel = await story.open(push_sat=PUSHED)
    actor = story.node.core.channels.get(channel.channel_id)
    assert actor is not None
    script = actor.channel.config.local.shutdown_script
    assert bool(script) is story.bed.features.offers(Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT)
    await story.ask(story.peer.close_channel, channel.funding)
    ends = await channel.closed_together()
    if script:
        assert script.hex() in ends.scripts


async def test_cut_between_any_two_messages(bed: Bed, tmp_path: Path) -> None:
    """Whatever message of the negotiation is lost, it ends in one transaction that both know."""
    for budget in range(MOST_MESSAGES):
        leyden = Leyden(tmp_path / str(budget), bed.bitcoind)
        await leyden.start()
        try:
            cut = await _closed_with_a_cut(Story(bed, leyden), budget)
        finally:
            await leyden.stop()
        if not cut:
            assert budget >= 4
            return
    raise AssertionError("the close never ran uncut")


async def _closed_with_a_cut(story: Story, budget: int) -> bool:
    """Whether the connection was cut before all was said."""
    channel = await story.open(push_sat=PUSHED)
    assert story.connection is not None
    cutter = Cutter(story.connection, budget)
    await story.node.close_channel(channel.channel_id)
    await story.until(lambda: cutter.cut or story.is_spent(channel.funding), "it was closed or cut")
    cut = cutter.cut
    cutter.remove()
    if cut:
        await story.until(lambda: story.connection is not cutter.peer, "we notice that the link is gone")
        for _ in range(5):  # a peer that has not noticed may confuse the new connection with the old one
            await story.connect_again()
            if await story.becomes(lambda: story.is_spent(channel.funding), 4.0):
                break
    check(story, await channel.closed_together(), PUSHED)
    return cut
