"""The wallet inside a node: taproot coins, chosen coins, the reserve of anchor channels, raised fees."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import Network, decode_address, is_p2tr, p2wpkh
from leyden.channel import ChannelPolicy
from leyden.hooks.services import CannotBump, CoinUnavailable, ReserveNeeded
from leyden.hooks.types import CoinState
from leyden.node import AnchorReserve, BumpMethod, Node, Services
from leyden.node.batch import BatchFailed
from leyden.node.opening import OpenRefused
from leyden.types import ChannelId, FeeRatePerKw, LeydenError, Msat, NodeId, OutPoint, Sat, Txid

from tests.scenario.conftest import World, until

RESERVE = AnchorReserve()
STRANGER = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"
STATIC = ChannelPolicy(minimum_depth=3, channel_types=("static_remotekey",))


async def receive(world: World, node: Node, *amounts: int, taproot: bool = False) -> None:
    before = node.wallet_balance().confirmed
    for amount in amounts:
        address = await node.new_address(taproot=taproot)
        world.chain.faucet(decode_address(address, Network.REGTEST), Sat(amount))
    await world.mine(1)
    await until(lambda: node.wallet_balance().confirmed == before + sum(amounts))


def mempool(world: World, txid: bytes) -> Any:
    """The transaction as the chain has it, or ``None``."""
    found = world.chain.find_transaction(Txid(txid))
    return None if found is None else found[0]


async def tracked(world: World, node: Node) -> Any:
    """The one transaction that the node waits for, once it has arrived."""
    (entry,) = node.transactions()
    txid = bytes.fromhex(str(entry["txid"]))[::-1]
    await until(lambda: mempool(world, txid) is not None)
    return mempool(world, txid)


async def test_a_channel_is_funded_by_the_taproot_coin_that_was_named(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await receive(world, alice, 900_000)
    await receive(world, alice, 800_000, taproot=True)
    (chosen,) = [coin for coin in alice.coins() if is_p2tr(coin.script)]
    await world.connect(alice, bob)
    await alice.open_channel(
        NodeId(bob.node_id), Sat(300_000), coins=[chosen.outpoint], funding_feerate=FeeRatePerKw(3_000)
    )
    tx = await tracked(world, alice)
    assert [tx_in.prevout for tx_in in tx.inputs] == [chosen.outpoint]
    assert 800_000 - sum(output.value for output in tx.outputs) == -(-3_000 * tx.weight // 1000)
    await world.mine(4)
    await until(lambda: all(node.channels()[0].usable for node in (alice, bob)))
    assert chosen.outpoint not in {coin.outpoint for coin in alice.coins()}


async def test_named_coins_are_sent(world: World) -> None:
    alice = await world.start("alice")
    await receive(world, alice, 50_000, 60_000, 70_000)
    by_value = {coin.value: coin.outpoint for coin in alice.coins()}
    await alice.send_coins(STRANGER, Sat(80_000), coins=[by_value[Sat(50_000)], by_value[Sat(60_000)]])
    tx = await tracked(world, alice)
    assert {tx_in.prevout for tx_in in tx.inputs} == {by_value[Sat(50_000)], by_value[Sat(60_000)]}
    with pytest.raises(CoinUnavailable):
        await alice.send_coins(STRANGER, Sat(10_000), coins=[by_value[Sat(50_000)]])
    with pytest.raises(CoinUnavailable):
        await alice.send_coins(STRANGER, Sat(10_000), coins=[OutPoint(tx.txid, 7)])
    assert {coin.state for coin in alice.coins()} == {CoinState.FREE}


async def test_whoever_has_no_reserve_accepts_no_anchors(world: World) -> None:
    """A channel without anchors needs none; with coins in the wallet the other kind is welcome too."""
    alice = await world.start("alice")
    bob = await world.start("bob", reserve=RESERVE)
    await receive(world, alice, 2_000_000)
    await receive(world, bob, 19_000)
    await world.connect(alice, bob)
    await alice.open_channel(NodeId(bob.node_id), Sat(300_000))
    await world.mine(1)
    assert bob.anchor_reserve() == (10_000, 19_000)
    with pytest.raises(OpenRefused, match="not enough coins in reserve"):
        await alice.open_channel(NodeId(bob.node_id), Sat(300_000))
    await alice.update_channel_policy(channel_types=["static_remotekey"])
    await alice.open_channel(NodeId(bob.node_id), Sat(300_000))
    await alice.update_channel_policy(channel_types=["anchors"])
    await receive(world, bob, 1_000)
    await alice.open_channel(NodeId(bob.node_id), Sat(300_000))
    assert bob.anchor_reserve() == (20_000, 20_000)


async def test_sends_and_opens_leave_the_reserve(world: World) -> None:
    alice = await world.start("alice", reserve=RESERVE)
    bob = await world.start("bob")
    await receive(world, alice, 1_000_000)
    await world.connect(alice, bob)
    with pytest.raises(OpenRefused, match="10000 sat in reserve"):
        await alice.open_channel(NodeId(bob.node_id), Sat(995_000))
    await alice.open_channel(NodeId(bob.node_id), Sat(900_000))
    with pytest.raises(ReserveNeeded):  # the change is not confirmed yet
        await alice.send_coins(STRANGER, Sat(10_000))
    await world.mine(1)
    with pytest.raises(ReserveNeeded):
        await alice.send_coins(STRANGER, Sat(90_000))
    with pytest.raises(OpenRefused, match="20000 sat in reserve"):
        await alice.open_channel(NodeId(bob.node_id), Sat(85_000))
    await alice.send_coins(STRANGER, Sat(80_000))
    await world.mine(3)
    needed, held = alice.anchor_reserve()
    assert (needed, held) == (10_000, alice.wallet_balance().confirmed)
    assert held > needed


async def test_the_reserve_has_a_cap_and_ends_with_the_channels(world: World) -> None:
    alice = await world.start("alice", reserve=AnchorReserve(per_channel=Sat(20_000), most=Sat(30_000)))
    bob = await world.start("bob")
    await receive(world, alice, 500_000, 500_000)
    await world.connect(alice, bob)
    ids = [await alice.open_channel(NodeId(bob.node_id), Sat(200_000)) for _ in range(2)]
    assert alice.anchor_reserve()[0] == 30_000
    await world.mine(4)
    await until(lambda: all(channel.usable for channel in alice.channels()))
    for channel_id in ids:
        await alice.close_channel(channel_id)
    await until(lambda: alice.anchor_reserve()[0] == 0)


async def test_a_batch_leaves_the_reserve_of_all_its_channels(world: World) -> None:
    alice = await world.start("alice", reserve=RESERVE)
    friends = [await world.start(name) for name in ("bob", "carol")]
    await receive(world, alice, 500_000)
    for friend in friends:
        await world.connect(alice, friend)
    asked = [(NodeId(friend.node_id), Sat(243_000), Msat(0)) for friend in friends]
    with pytest.raises(BatchFailed, match=r"^500000 sat are spendable, .* 20000 sat in reserve"):
        await alice.open_channels(asked)  # known before any peer is asked
    ids = await alice.open_channels([(node_id, Sat(239_000), push) for node_id, _, push in asked])
    assert len(ids) == 2
    assert alice.anchor_reserve()[0] == 20_000


class AskingSigner:
    """Signs, but not without a person."""

    unattended = False

    def __init__(self, signer: Any) -> None:
        self.sign_psbt = signer.sign_psbt
        self.descriptors = signer.descriptors


def asking(services: Services) -> Services:
    return msgspec.structs.replace(services, onchain_signer=AskingSigner(services.onchain_signer))


async def test_coins_that_a_person_must_sign_for_are_no_reserve(world: World) -> None:
    alice = await world.start("alice", reserve=RESERVE, adapt=asking)
    bob = await world.start("bob")
    await receive(world, alice, 1_000_000)
    await receive(world, bob, 1_000_000)
    await world.connect(alice, bob)
    with pytest.raises(OpenRefused, match="ask a person"):
        await alice.open_channel(NodeId(bob.node_id), Sat(300_000))
    with pytest.raises(OpenRefused, match="not enough coins in reserve"):
        await bob.open_channel(NodeId(alice.node_id), Sat(300_000))
    await alice.send_coins(STRANGER, Sat(900_000))


class LyingSigner(AskingSigner):
    """Comes back with whatever it likes."""

    unattended = True

    def __init__(self, signer: Any, answers: Sequence[bytes]) -> None:
        super().__init__(signer)
        self.answers = list(answers)
        self.sign_psbt = self.lie

    async def lie(self, request: Any) -> bytes:
        return self.answers.pop() if self.answers else bytes(request.psbt)


async def test_a_signer_that_lies_costs_nothing(world: World) -> None:
    """Unsigned, or no PSBT at all: an error, and the coins are free again."""
    alice = await world.start(
        "alice",
        adapt=lambda services: msgspec.structs.replace(
            services, onchain_signer=LyingSigner(services.onchain_signer, [b"", b"psbt\xff\x00"])
        ),
    )
    await receive(world, alice, 100_000)
    for _ in range(3):
        with pytest.raises(LeydenError):
            await alice.send_coins(STRANGER, Sat(50_000))
    assert [coin.state for coin in alice.coins()] == [CoinState.FREE]
    assert alice.transactions() == []


def test_the_stranger() -> None:
    assert decode_address(STRANGER, Network.REGTEST) == p2wpkh(bytes(20))


# -- more fee --------------------------------------------------------------------------------------------------------


def txid_of(text: object) -> Txid:
    return Txid(bytes.fromhex(str(text))[::-1])


async def test_a_payment_is_replaced_and_the_replacement_confirms(world: World) -> None:
    alice = await world.start("alice")
    await receive(world, alice, 100_000)
    old = await alice.send_coins(STRANGER, Sat(40_000), feerate=FeeRatePerKw(300))
    await until(lambda: mempool(world, old) is not None)
    with pytest.raises(CannotBump, match="already"):
        await alice.bump(old, FeeRatePerKw(250))
    bumped = await alice.bump(old, FeeRatePerKw(5_000))
    assert bumped.method is BumpMethod.RBF
    await until(lambda: mempool(world, bumped.txid) is not None)
    assert mempool(world, old) is None
    await world.mine(1)
    await until(lambda: alice.wallet_balance().unconfirmed == 0)
    fee, weight = 60_000 - alice.wallet_balance().confirmed, mempool(world, bumped.txid).weight
    assert 5_000 * weight <= 1000 * fee <= 5_000 * (weight + 2)  # a signature may be shorter than it was priced
    assert {entry["txid"]: entry["confirmed_height"] for entry in alice.transactions()} == {
        old[::-1].hex(): 0,
        bumped.txid[::-1].hex(): world.chain.height,
    }
    with pytest.raises(CannotBump, match="waits for a block"):
        await alice.bump(bumped.txid, FeeRatePerKw(9_000))
    await world.mine(6)
    await until(lambda: alice.transactions() == [])


async def test_a_restart_does_not_hinder_a_replacement(world: World) -> None:
    alice = await world.start("alice")
    await receive(world, alice, 100_000)
    old = await alice.send_coins(STRANGER, Sat(40_000), feerate=FeeRatePerKw(300))
    await world.stop(alice)
    alice = await world.start("alice")
    bumped = await alice.bump(old, FeeRatePerKw(2_000))
    await until(lambda: mempool(world, bumped.txid) is not None)
    await world.mine(1)
    assert mempool(world, old) is None


async def test_a_funding_transaction_is_paid_for_by_its_change(world: World) -> None:
    """Its feerate is too low for any mempool; replacing it would lose the channel, and the refusal says so."""
    alice, bob = await world.start("alice"), await world.start("bob")
    await receive(world, alice, 1_000_000)
    await world.connect(alice, bob)
    await alice.open_channel(NodeId(bob.node_id), Sat(400_000), funding_feerate=FeeRatePerKw(20))
    (entry,) = alice.transactions()
    funding = txid_of(entry["txid"])
    await until(lambda: "relay fee" in str(alice.transactions()[0]["refused"]))
    with pytest.raises(CannotBump, match=r"cannot be replaced \(rbf\).*signed for its id.*\(cpfp\)"):
        await alice.bump(funding, FeeRatePerKw(3_000), BumpMethod.RBF)
    bumped = await alice.bump(funding, FeeRatePerKw(3_000))
    assert bumped.method is BumpMethod.CPFP
    await until(lambda: mempool(world, bumped.txid) is not None)
    parent, child = mempool(world, funding), mempool(world, bumped.txid)
    fee = 1_000_000 - 400_000 - sum(output.value for output in child.outputs)
    assert 3_000 * (parent.weight + child.weight) <= 1000 * fee <= 3_030 * (parent.weight + child.weight)
    again = await alice.bump(bumped.txid, FeeRatePerKw(8_000))
    assert again.method is BumpMethod.RBF
    await until(lambda: mempool(world, again.txid) is not None)
    await world.mine(4)
    await until(lambda: alice.channels()[0].usable and bob.channels()[0].usable)
    assert mempool(world, bumped.txid) is None


async def test_a_funding_transaction_without_change_cannot_be_bumped(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await receive(world, alice, 400_700)
    await world.connect(alice, bob)
    await alice.open_channel(NodeId(bob.node_id), Sat(400_000), funding_feerate=FeeRatePerKw(1_000))
    (entry,) = alice.transactions()
    with pytest.raises(CannotBump, match=r"signed for its id.*no change"):
        await alice.bump(txid_of(entry["txid"]), FeeRatePerKw(3_000))


async def test_what_the_peer_signed_too_is_not_the_wallets_to_bump(world: World) -> None:
    alice, bob = await world.start("alice"), await world.start("bob")
    await receive(world, alice, 1_000_000)
    channel_id = await world.channel(alice, bob, 400_000)
    await world.mine(6)
    await alice.close_channel(ChannelId(channel_id))
    await until(lambda: any(entry["kind"] == "mutual_close" for entry in alice.transactions()))
    (close,) = [entry["txid"] for entry in alice.transactions() if entry["kind"] == "mutual_close"]
    with pytest.raises(CannotBump, match="signed with the peer"):
        await alice.bump(txid_of(close), FeeRatePerKw(3_000))
    with pytest.raises(CannotBump, match="not a transaction of this node"):
        await alice.bump(Txid(bytes(32)), FeeRatePerKw(3_000))
