"""The whole story of two nodes over channels of the other types, with and without a crash in it."""

import msgspec
import pytest
from leyden.bitcoin import Network, parse_transaction
from leyden.channel import ChannelError
from leyden.channel.announce import channel_announcement
from leyden.hooks.errors import SettingsError
from leyden.hooks.types import BroadcastKind
from leyden.node import Node
from leyden.node.core import LOCAL_FEATURES
from leyden.node.rows import BROADCAST_KINDS
from leyden.testing.crash import tell
from leyden.testing.story import Plan, parse_plan
from leyden.types import ChannelId, FeeRatePerKw, Msat, Sat
from leyden.wire import ChannelAnnouncement
from leyden.wire.features import Feature, Features
from leyden.wire.gossip_signatures import check_channel_announcement

from tests.scenario.conftest import POLICY, World, until, usable


def test_the_story_over_a_channel_without_anchors() -> None:
    wrong, points = tell(1, Plan(static=True))
    assert not wrong
    assert points


@pytest.mark.parametrize("text", ["alice@40,static", "bob@101,static", "alice@60+,static", "bob#30!,static"])
def test_a_crash_over_a_channel_without_anchors(text: str) -> None:
    plan = parse_plan(text)
    assert plan.static
    assert str(plan) == text
    assert tell(1, plan)[0] == ""


async def pay(payer: Node, payee: Node, amount: int) -> str:
    invoice = await payee.create_invoice(Msat(amount), "")
    return (await payer.pay(invoice.bolt11, timeout=60)).status


async def test_a_channel_of_more_than_2_to_the_24_satoshi(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 40_000_000)
    await world.channel(alice, bob, 30_000_000)
    assert await pay(alice, bob, 20_000_000_000) == "succeeded"
    assert bob.channels()[0].capacity_sat == 30_000_000


async def test_a_trusted_opener_pays_before_any_block(world: World) -> None:
    alice = await world.start("alice")
    trusting = msgspec.structs.replace(POLICY, trusted_zero_conf=(alice.node_id.hex(),))
    bob, carol = await world.start("bob", policy=trusting), await world.start("carol")
    await world.fund(alice, 5_000_000)
    for node in (bob, carol):
        await world.connect(alice, node)
    with pytest.raises(Exception, match="not trusted"):
        await alice.open_channel(carol.node_id, Sat(1_000_000), zero_conf=True)
    height = alice.info().height
    await alice.open_channel(bob.node_id, Sat(1_000_000), zero_conf=True)
    await until(lambda: usable(alice) and usable(bob))
    assert await pay(alice, bob, 50_000_000) == "succeeded"
    assert await pay(bob, alice, 10_000_000) == "succeeded"
    assert alice.info().height == height
    (near,), (far,) = alice.channels(), bob.channels()
    assert near.channel_type == far.channel_type == "anchors+scid_alias+zeroconf"
    assert near.local_alias == far.remote_alias is not None
    assert near.remote_alias == far.local_alias is not None
    assert near.short_channel_id is None
    await world.mine(1)
    await until(lambda: alice.channels()[0].short_channel_id is not None)
    assert await pay(alice, bob, 1_000_000) == "succeeded"


async def test_limits_and_fees_change_while_the_node_runs(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 9_000_000)
    await world.channel(alice, bob)
    assert alice.channels()[0].feerate_per_kw == 1_000
    for feerate in (2_345, 2_300, 1_000):
        policy = await alice.update_channel_policy(commitment_feerate=feerate)
        assert policy == alice.channel_policy()
        await until(lambda feerate=feerate: {n.channels()[0].feerate_per_kw for n in (alice, bob)} == {feerate})
    await bob.update_channel_policy(min_funding=2_000_000, channel_types=["static_remotekey"])
    with pytest.raises(Exception, match="unsuitable channel_type"):
        await alice.open_channel(bob.node_id, Sat(3_000_000))
    await alice.update_channel_policy(channel_types=["static_remotekey"], commitment_feerate=0, max_funding=5_000_000)
    with pytest.raises(Exception, match="too small"):
        await alice.open_channel(bob.node_id, Sat(1_000_000))
    await alice.open_channel(bob.node_id, Sat(3_000_000), feerate=FeeRatePerKw(900))
    assert {channel.channel_type for channel in bob.channels()} == {
        "anchors+scid_alias",
        "static_remotekey",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"minimum_depht": 3},
        {"minimum_depth": -1},
        {"minimum_depth": "3"},
        {"channel_types": ["taproot"]},
        {"channel_types": []},
        {"trusted_zero_conf": ["nobody"]},
    ],
)
async def test_a_policy_with_a_mistake_changes_nothing(world: World, changes: dict[str, object]) -> None:
    alice = await world.start("alice")
    with pytest.raises(SettingsError):
        await alice.update_channel_policy(max_funding=1_000_000, **changes)
    assert alice.channel_policy() == POLICY


async def test_a_close_is_replaced_by_one_with_a_higher_fee(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    channel_id = ChannelId(await world.channel(alice, bob, push_msat=400_000_000))

    def closes() -> set[str]:
        found = [{str(t["txid"]) for t in node.transactions() if t["kind"] == "mutual_close"} for node in (alice, bob)]
        return found[0] & found[1]

    await alice.close_channel(channel_id)
    await until(lambda: len(closes()) == 2)
    first = closes()
    with pytest.raises(ChannelError, match="too little"):
        await alice.close_channel(channel_id)
    await alice.close_channel(channel_id, feerate=FeeRatePerKw(5_000))
    await until(lambda: len(closes()) == 3)
    await world.mine(1)
    winner = {t["txid"] for t in alice.transactions() if t["kind"] == "mutual_close" and t["confirmed_height"]}
    assert winner == closes() - first
    assert bob.wallet_balance().confirmed == 400_000
    await world.mine(5)
    await until(lambda: not alice.channels() and not bob.channels())


@pytest.mark.parametrize("simple", [True, False])
async def test_a_close_costs_no_more_than_it_may(world: World, simple: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not simple:
        without = Features(LOCAL_FEATURES.bits & ~(3 << Feature.OPTION_SIMPLE_CLOSE))
        monkeypatch.setattr("leyden.node.core.LOCAL_FEATURES", without)
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    channel_id = ChannelId(await world.channel(alice, bob, push_msat=400_000_000))
    await alice.close_channel(channel_id, feerate=FeeRatePerKw(5_000), max_fee=Sat(300))

    def paid() -> list[int]:
        """What each closing transaction takes from alice, whose output is the larger one."""
        tracked = alice.core.tracker._transactions.items()
        closes = [
            parse_transaction(row.raw) for _, row in tracked if BROADCAST_KINDS[row.kind] is BroadcastKind.MUTUAL_CLOSE
        ]
        return [600_000 - max(output.value for output in tx.outputs) for tx in closes]

    await until(lambda: 300 in paid())
    await until(lambda: len(paid()) == (2 if simple else 1))
    assert max(paid()) == 300
    await world.mine(1)
    await until(lambda: any(t["confirmed_height"] for t in alice.transactions() if t["kind"] == "mutual_close"))


async def test_a_public_channel_is_signed_by_both(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await world.fund(alice, 5_000_000)
    await world.connect(alice, bob)
    await alice.open_channel(bob.node_id, Sat(1_000_000), announce=True)

    def announcements() -> list[ChannelAnnouncement | None]:
        return [
            channel_announcement(channel, node.node_id, Network.REGTEST.chain_hash)
            for node in (alice, bob)
            for channel in node.core.channels.channels()
        ]

    await world.mine(5)
    await until(lambda: usable(alice) and usable(bob))
    assert announcements() == [None, None]
    await world.mine(1)
    await until(lambda: None not in announcements())
    near, far = announcements()
    assert near == far is not None
    check_channel_announcement(near)
    await world.stop(bob)
    bob = await world.start("bob")
    assert announcements() == [near, near]
