"""``leyden_approve_spend`` is told what a spend costs at most, and nothing that was approved costs more."""

import asyncio

import pytest
from leyden.bitcoin import Network, TxOut, decode_address
from leyden.hooks import hookimpl
from leyden.hooks.types import CoinState, Refusal, SpendRequest
from leyden.node import Node
from leyden.node.opening import OpenRefused
from leyden.node.paying import SpendRefused
from leyden.types import FeeRatePerKw, Msat, NodeId, Sat

from tests.scenario.conftest import World, until, with_plugins

STRANGER = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"


class Budget:
    """Allows so much in all, fees included, and remembers what it was asked."""

    def __init__(self, msat: int) -> None:
        self.left = msat
        self.asked: list[SpendRequest] = []
        self.patience: asyncio.Event | None = None

    @hookimpl
    async def leyden_approve_spend(self, request: SpendRequest) -> bool | Refusal:
        self.asked.append(request)
        if self.patience is not None:
            await self.patience.wait()
        cost = request.amount_msat + request.max_fee_msat
        if cost > self.left:
            return Refusal(reason=f"{cost} msat, and only {self.left} msat are left")
        self.left -= cost
        return True


async def receive(world: World, node: Node, *amounts: int) -> None:
    before = node.wallet_balance().confirmed
    for amount in amounts:
        world.chain.faucet(decode_address(await node.new_address(), Network.REGTEST), Sat(amount))
    await world.mine(1)
    await until(lambda: node.wallet_balance().confirmed == before + sum(amounts))


def all_free(node: Node) -> bool:
    return {coin.state for coin in node.coins()} == {CoinState.FREE}


async def spent(world: World, node: Node, before: int) -> int:
    """What left the wallet since, once the chain has it, satoshi."""
    await world.mine(1)
    await until(lambda: not [entry for entry in node.transactions() if not entry["confirmed_height"]])
    return before - node.wallet_balance().spendable


async def test_a_send_over_the_budget_by_its_fee_alone_is_refused(world: World) -> None:
    budget = Budget(100_000_000)
    alice = await world.start("alice", with_plugins(budget=budget))
    await receive(world, alice, 1_000_000)
    with pytest.raises(SpendRefused, match="only 100000000 msat are left"):
        await alice.send_coins(STRANGER, Sat(100_000), feerate=FeeRatePerKw(2_000))
    assert all_free(alice)
    assert alice.transactions() == []
    await alice.send_coins(STRANGER, Sat(99_000), feerate=FeeRatePerKw(1_000))
    request = budget.asked[-1]
    assert (request.kind, request.amount_msat, request.destination) == ("onchain", 99_000_000, STRANGER)
    assert request.max_fee_msat > 0
    assert await spent(world, alice, 1_000_000) * 1000 == request.amount_msat + request.max_fee_msat


async def test_coins_of_a_send_that_nobody_waits_for_are_free_again(world: World) -> None:
    budget = Budget(100_000_000)
    budget.patience = asyncio.Event()
    alice = await world.start("alice", with_plugins(budget=budget))
    await receive(world, alice, 1_000_000)
    sending = asyncio.ensure_future(alice.send_coins(STRANGER, Sat(10_000)))
    await until(lambda: bool(budget.asked))
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await until(lambda: all_free(alice))


async def test_an_opening_is_asked_for_with_the_fee_of_its_funding(world: World) -> None:
    budget = Budget(301_000_000)
    alice = await world.start("alice", with_plugins(budget=budget))
    bob = await world.start("bob")
    await receive(world, alice, 1_000_000)
    await world.connect(alice, bob)
    with pytest.raises(SpendRefused):
        await alice.open_channel(NodeId(bob.node_id), Sat(300_000), funding_feerate=FeeRatePerKw(5_000))
    assert alice.channels() == []
    assert all_free(alice)
    await alice.open_channel(NodeId(bob.node_id), Sat(300_000), funding_feerate=FeeRatePerKw(1_000))
    request = budget.asked[-1]
    assert request.kind == "channel"
    assert request.max_fee_msat > 0
    assert await spent(world, alice, 1_000_000) * 1000 == request.amount_msat + request.max_fee_msat


async def test_a_funding_that_became_dearer_than_what_was_approved_is_not_made(world: World) -> None:
    """While the plugin thinks, the one coin that would do goes elsewhere: more inputs cost more."""
    budget = Budget(10_000_000_000)
    alice = await world.start("alice", with_plugins(budget=budget))
    bob = await world.start("bob")
    await receive(world, alice, 400_000, 110_000, 110_000, 110_000)
    await world.connect(alice, bob)
    budget.patience = asyncio.Event()
    opening = asyncio.ensure_future(alice.open_channel(NodeId(bob.node_id), Sat(300_000)))
    await until(lambda: bool(budget.asked))
    (large,) = [coin.outpoint for coin in alice.coins() if coin.value == 400_000]
    core = alice.core

    def take() -> None:
        output = TxOut(value=Sat(300_000), script=decode_address(STRANGER, Network.REGTEST))
        wallet = core.services.wallet
        _, changes = wallet.fund("other", [output], FeeRatePerKw(1_000), core.chain.height, coins=[large])
        core.engine.journal.merge(changes)

    core.engine.post(take)
    budget.patience.set()
    with pytest.raises(OpenRefused, match="that were approved"):
        await opening
    assert alice.channels() == []
    assert {coin.claim for coin in alice.coins()} == {"", "other"}


async def test_a_batch_shares_the_fee_among_its_requests(world: World) -> None:
    budget = Budget(10_000_000_000)
    alice = await world.start("alice", with_plugins(budget=budget))
    others = [await world.start(name) for name in ("bob", "carol", "dave")]
    await receive(world, alice, 1_000_000)
    for other in others:
        await world.connect(alice, other)
    await alice.open_channels(
        [(NodeId(other.node_id), Sat(100_000), Msat(0)) for other in others], funding_feerate=FeeRatePerKw(1_000)
    )
    assert [request.amount_msat for request in budget.asked] == [100_000_000] * 3
    cost = sum(request.amount_msat + request.max_fee_msat for request in budget.asked)
    assert await spent(world, alice, 1_000_000) * 1000 == cost


async def test_a_bump_and_a_payment_over_a_direct_channel(world: World) -> None:
    """Safety asks nobody; a payment to the peer itself costs nothing besides."""
    budget = Budget(10_000_000_000)
    alice = await world.start("alice", with_plugins(budget=budget))
    bob = await world.start("bob")
    await receive(world, alice, 3_000_000)
    await world.channel(alice, bob)
    invoice = await bob.create_invoice(Msat(5_000_000), "a book")
    assert (await alice.pay(invoice.bolt11, timeout=60)).status == "succeeded"
    assert (budget.asked[-1].kind, budget.asked[-1].max_fee_msat) == ("payment", 0)
    txid = await alice.send_coins(STRANGER, Sat(10_000), feerate=FeeRatePerKw(500))
    asked = len(budget.asked)
    await alice.bump(txid, FeeRatePerKw(2_000))
    assert len(budget.asked) == asked
