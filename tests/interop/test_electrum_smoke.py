"""Leyden and Electrum: open, pay both ways, close; by us and by them; seen from both sides and on chain."""

import asyncio

import pytest
from leyden.types import ChannelId, Msat, NodeId, Sat

from tests.interop.conftest import BTC, Story

pytestmark = [pytest.mark.slow, pytest.mark.testbed]

CAPACITY = 1_000_000


async def pay_electrum(story: Story, sat: int) -> None:
    request = await story.ask("add_request", amount=f"{sat / BTC:.8f}", memo="coffee", lightning=True)
    result = await story.node.pay(request["lightning_invoice"], timeout=30)
    assert (result.status, result.amount_msat) == ("succeeded", sat * 1000), result
    status = await story.ask("get_request", request_id=request["request_id"])
    assert status["status_str"] == "Paid"


async def paid_by_electrum(story: Story, sat: int) -> None:
    invoice = await story.node.create_invoice(Msat(sat * 1000), "tea")
    result = await story.ask("lnpay", invoice=invoice.bolt11, timeout=30)
    assert result["success"], result
    record = await story.node.invoice(bytes.fromhex(invoice.payment_hash))  # type: ignore[arg-type]
    assert record is not None
    assert (record.status, record.received_msat) == ("paid", sat * 1000)
    assert result["preimage"]


async def test_we_open_pay_both_ways_and_close(story: Story) -> None:
    await story.fund(5_000_000)
    await story.connect()
    peer = story.node.peers()[0]
    assert peer.node_id == story.electrum.node_id
    channel_id = await story.node.open_channel(NodeId(bytes.fromhex(peer.node_id)), Sat(CAPACITY))
    await story.mine(3)
    ours, theirs = await story.usable()
    assert ours.local_is_funder
    assert ours.short_channel_id == theirs["short_channel_id"]
    assert (ours.capacity_sat, theirs["capacity"]) == (CAPACITY, CAPACITY)

    await pay_electrum(story, 200_000)
    await story.balances(800_000, 200_000)
    await paid_by_electrum(story, 50_000)
    await story.balances(850_000, 150_000)
    await asyncio.gather(*(pay_electrum(story, 1_000 + n) for n in range(5)))
    await story.balances(844_990, 155_010)

    await story.node.close_channel(channel_id)
    await closed(story, channel_id, fundee=155_010)


async def test_they_open_pay_both_ways_and_close(story: Story) -> None:
    await story.connect()
    address = story.node.info().address
    opened = await story.ask("open_channel", connection_string=address, amount=f"{CAPACITY / BTC:.8f}")
    await story.in_mempool(opened.partition(":")[0])
    await story.mine(3)
    ours, theirs = await story.usable()
    assert not ours.local_is_funder
    assert theirs["channel_point"] == opened

    await paid_by_electrum(story, 300_000)
    await story.balances(300_000, 700_000)
    await pay_electrum(story, 100_000)
    await story.balances(200_000, 800_000)

    channel_id = ChannelId(bytes.fromhex(ours.channel_id))
    await story.ask("close_channel", channel_point=opened)
    await closed(story, channel_id, fundee=200_000)


async def closed(story: Story, channel_id: ChannelId, *, fundee: int) -> None:
    """Both agree on one closing transaction, it confirms, and the side that did not fund pays no fee."""
    txids = await story.until(
        lambda: [t["txid"] for t in story.node.transactions() if t["kind"] == "mutual_close"], "we have a closing"
    )
    await story.in_mempool(str(txids[0]))
    values = [round(out["value"] * BTC) for out in story.bed.bitcoind.rpc("getrawtransaction", txids[0], 1)["vout"]]
    assert fundee in values
    assert 0 < CAPACITY - sum(values) < 2_000, "the fee"
    event = await story.gone(channel_id)
    assert event.how == "cooperative"
    await story.until(
        lambda: [c["state"] for c in story.theirs()] in ([], ["REDEEMED"]) or story.theirs()[0]["closing_txid"],
        "the peer knows of the close",
    )
    for channel in story.theirs():
        assert channel["closing_txid"] == txids[0]
