"""Data-loss protection: somebody comes back with an old copy of its database; nobody loses money."""

import shutil
from pathlib import Path

from leyden.channel.limits import closing_balances

from tests.interop.bed import BTC, CAPACITY
from tests.interop.story import Story
from tests.testbed.leyden import Leyden

HALF = CAPACITY * 500


async def test_ours(story: Story, leyden: Leyden, tmp_path: Path) -> None:
    """We run on an old copy: nothing of ours is broadcast, the peer closes, our newest balance comes back."""
    channel = await story.open(push_sat=CAPACITY // 2)
    await story.pay_peer(10_000_000)
    await leyden.stop()
    shutil.copytree(leyden.folder, tmp_path / "old")
    await leyden.start()
    await story.reconnect(channel)
    await story.paid_by_peer(100_000_000)
    await story.pay_peer(20_000_000)
    ours = HALF - 10_000_000 + 100_000_000 - 20_000_000
    await channel.balances(ours, 2 * HALF - ours)
    await leyden.stop()
    shutil.rmtree(leyden.folder)
    shutil.copytree(tmp_path / "old", leyden.folder)
    await leyden.start()
    await story.connect_again()
    tx = await story.spender(channel.funding)
    if channel.ours().state != "data_loss":  # a peer may close without telling us first, and hang up
        assert channel.ours().link != "up"
    values = [round(out["value"] * BTC) for out in tx["vout"]]
    assert ours // 1000 in values or any(0 < ours // 1000 - value < 3_000 for value in values), values
    before = story.node.wallet_balance().confirmed
    await story.mine(1)
    sweep = await story.until(
        lambda: [str(t["txid"]) for t in story.node.transactions() if t["kind"] == "sweep"], "we sweep our balance"
    )
    await story.in_mempool(sweep[0])  # it leaves a moment after it is decided
    await story.mine(6)
    await story.until(
        lambda: story.node.wallet_balance().confirmed > before + ours // 1000 - 5_000, "our money is back"
    )
    assert not any(t["kind"] == "unilateral_close" for t in story.node.transactions())


async def test_theirs(story: Story) -> None:
    """The peer runs on an old copy: we close with our newest commitment."""
    channel = await story.open(push_sat=CAPACITY // 2)
    await story.pay_peer(10_000_000)
    folder = story.peer.home
    old, new = story.bed.folder / "old", story.bed.folder / "new"
    await story.ask(story.peer.stop)
    shutil.copytree(folder, old)
    await story.ask(story.peer.start)
    await story.reconnect(channel)
    await story.paid_by_peer(100_000_000)
    await story.pay_peer(20_000_000)
    ours = HALF - 10_000_000 + 100_000_000 - 20_000_000
    await channel.balances(ours, 2 * HALF - ours)
    actor = story.node.core.channels.get(channel.channel_id)
    assert actor is not None
    local, remote = closing_balances(actor.channel)
    await story.ask(story.peer.stop)
    shutil.copytree(folder, new)
    try:
        await story.ask(_replace, folder, old)
        await story.ask(story.peer.start)
        await story.connect_again()
        asks = getattr(story.peer, "request_force_close", None)
        if not await story.becomes(lambda: channel.ours().state == "force_closing", 5.0) and asks is not None:
            await story.ask(asks, channel.funding)  # a peer may wait for its user to say so
        tx = await story.spender(channel.funding)
        values = [round(out["value"] * BTC) for out in tx["vout"]]
        assert remote in values, values
        assert any(0 <= local - value < 3_000 for value in values), values
        await story.until(lambda: channel.ours().state == "force_closing", "our side has closed")
    finally:
        await story.ask(story.peer.kill)
        await story.ask(_replace, folder, new)
        await story.ask(story.peer.start)


def _replace(folder: Path, copy: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
