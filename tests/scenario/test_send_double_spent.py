"""A payment on chain of which another transaction takes a coin: its other coins are held while the payment may still
come back, and not a block longer."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import Network, Transaction, TxOut, decode_address, p2wsh
from leyden.hooks.services import CoinUnavailable
from leyden.hooks.signing import SignPsbt, SpendPurpose
from leyden.hooks.types import CoinState, FundedTransaction
from leyden.node import Node, Services, keyspace
from leyden.node.opening import signed_transaction
from leyden.node.txtracker import RETAINED_DEPTH
from leyden.testing.simulation import Crash, Simulation
from leyden.types import FeeRatePerKw, LeydenError, OutPoint, Sat, Txid

from tests.scenario.conftest import World, until
from tests.scenario.send_kit import broadcast_payment, forget_claim, sign_payment
from tests.scenario.sim_kit import FUNDS, fund

STRANGER = "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqdku202"
RATE = FeeRatePerKw(2000)
TAKEN, OTHER, THIRD = Sat(2_000_000), Sat(1_000_000), Sat(400_000)
SENT = Sat(2_500_000)


class Scene:
    """Alice has three coins, and a transaction that takes one of them lies ready while she pays with two."""

    def __init__(self, world: World, alice: Node, conflict: Transaction) -> None:
        self.world = world
        self.alice = alice
        self.conflict = conflict

    @classmethod
    async def begin(cls, world: World, adapt: Callable[[Services], Services] = lambda services: services) -> "Scene":
        alice = await world.start("alice", adapt=adapt)
        for amount in (TAKEN, OTHER, THIRD):
            script = decode_address(await alice.new_address(), Network.REGTEST)
            world.chain.faucet(script, amount)
        await world.mine(1)
        await until(lambda: len(alice.coins()) == 3)
        return cls(world, alice, await sign(alice, [coin(alice, TAKEN)], Sat(1_900_000)))

    async def pay(self) -> Txid:
        return await self.alice.send_coins(STRANGER, SENT, coins=[coin(self.alice, TAKEN), coin(self.alice, OTHER)])

    async def double_spend(self) -> None:
        """The block has the other transaction; no mempool has ours."""
        await self.world.mine(0)
        self.forget()
        self.world.chain.mine_block([self.conflict])
        await self.world.mine(0)

    def forget(self) -> None:
        self.world.chain.mempool.keep_only({})

    async def restart(self) -> None:
        await self.world.stop(self.alice)
        self.alice = await self.world.start("alice")

    def states(self) -> dict[int, CoinState]:
        """Of the coins that Alice began with."""
        return {each.value: each.state for each in self.alice.coins() if each.value in (TAKEN, OTHER, THIRD)}

    def claims(self) -> tuple[str, ...]:
        return self.alice.core.services.wallet.claims()


def coin(node: Node, value: Sat) -> OutPoint:
    return next(each.outpoint for each in node.coins() if each.value == value)


async def sign(node: Node, coins: list[OutPoint], amount: Sat) -> Transaction:
    """A payment to a stranger that the node forgets to have made."""
    core = node.core

    def build() -> FundedTransaction:
        wallet, outputs = core.services.wallet, [TxOut(value=amount, script=p2wsh(b"\x51"))]
        funded, changes = wallet.fund("test", outputs, RATE, core.chain.height, coins=coins)
        core.engine.journal.merge(changes)
        core.engine.journal.merge(wallet.release("test"))
        return funded

    funded = await node._calls.call(build)
    request = SignPsbt(request_id="test", psbt=funded.psbt, purpose=SpendPurpose.WITHDRAWAL)
    return signed_transaction(funded, await core.services.onchain_signer.sign_psbt(request))


@pytest.mark.parametrize("restart", [(), ("waiting",), ("taken",), ("deep",), ("waiting", "taken", "deep")], ids=str)
async def test_the_other_coins_are_held_until_nothing_brings_it_back(world: World, restart: tuple[str, ...]) -> None:
    scene = await Scene.begin(world)
    await scene.pay()
    if "waiting" in restart:
        await scene.restart()
    assert scene.states() == {THIRD: CoinState.FREE}
    await scene.double_spend()
    if "taken" in restart:
        await scene.restart()
    assert scene.states() == {OTHER: CoinState.LOCKED, THIRD: CoinState.FREE}
    await world.mine(RETAINED_DEPTH - 2)
    if "deep" in restart:
        await scene.restart()
    assert scene.states() == {OTHER: CoinState.LOCKED, THIRD: CoinState.FREE}
    assert len(scene.claims()) == 1
    await world.mine(1)
    assert scene.states() == {OTHER: CoinState.FREE, THIRD: CoinState.FREE}
    assert scene.claims() == ()
    await scene.restart()
    assert scene.states() == {OTHER: CoinState.FREE, THIRD: CoinState.FREE}
    # They pay for something else.
    txid = await scene.alice.send_coins(STRANGER, Sat(1_300_000), coins=[coin(scene.alice, v) for v in (OTHER, THIRD)])
    await world.mine(1)
    assert {entry["txid"]: entry["confirmed_height"] for entry in scene.alice.transactions()} == {
        txid[::-1].hex(): world.chain.height
    }


@pytest.mark.parametrize("restart", [False, True])
async def test_a_reorg_before_that_brings_the_payment_back(world: World, restart: bool) -> None:
    scene = await Scene.begin(world)
    txid = await scene.pay()
    await scene.double_spend()
    await world.mine(RETAINED_DEPTH - 2)
    if restart:
        await scene.restart()
    world.chain.reorg(RETAINED_DEPTH - 1, forget=True)
    scene.forget()
    await world.mine(0)
    await until(lambda: world.chain.find_transaction(txid) is not None)  # it is broadcast again
    await world.mine(1)
    if restart:
        await scene.restart()
    assert scene.states() == {THIRD: CoinState.FREE}
    await world.mine(RETAINED_DEPTH)
    assert scene.states() == {THIRD: CoinState.FREE}
    assert scene.claims() == ()
    balance = scene.alice.wallet_balance()
    assert TAKEN + OTHER + THIRD - SENT - 3000 < balance.free < TAKEN + OTHER + THIRD - SENT
    assert balance.locked == 0


async def test_a_payment_that_came_back_loses_its_coin_again(world: World) -> None:
    scene = await Scene.begin(world)
    await scene.pay()
    await scene.double_spend()
    world.chain.reorg(1, forget=True)
    await scene.double_spend()
    await scene.restart()
    assert scene.states() == {OTHER: CoinState.LOCKED, THIRD: CoinState.FREE}
    await world.mine(RETAINED_DEPTH - 1)
    assert scene.states() == {OTHER: CoinState.FREE, THIRD: CoinState.FREE}
    assert scene.claims() == ()


async def test_what_was_paid_with_its_change_ends_with_it(world: World) -> None:
    """And holds its coins as long: it may come back with what it builds on."""
    scene = await Scene.begin(world)
    await scene.pay()
    (change,) = [each for each in scene.alice.coins() if not each.height]
    await scene.alice.send_coins(STRANGER, Sat(800_000), coins=[change.outpoint, coin(scene.alice, THIRD)])
    await scene.double_spend()
    assert scene.states() == {OTHER: CoinState.LOCKED, THIRD: CoinState.LOCKED}
    await world.mine(RETAINED_DEPTH - 2)
    await scene.restart()
    assert scene.states() == {OTHER: CoinState.LOCKED, THIRD: CoinState.LOCKED}
    await world.mine(1)
    assert scene.states() == {OTHER: CoinState.FREE, THIRD: CoinState.FREE}
    assert scene.claims() == ()


async def test_a_payment_with_a_raised_fee_frees_its_coins_too(world: World) -> None:
    scene = await Scene.begin(world)
    txid = await scene.pay()
    await scene.alice.bump(txid, FeeRatePerKw(5000))
    await scene.double_spend()
    assert scene.states() == {OTHER: CoinState.LOCKED, THIRD: CoinState.FREE}
    await world.mine(RETAINED_DEPTH - 1)
    assert scene.states() == {OTHER: CoinState.FREE, THIRD: CoinState.FREE}
    assert scene.claims() == ()


async def test_the_original_of_a_raised_payment_confirms(world: World) -> None:
    """Its change is there for whoever wants it: nothing can come of the other one but by a reorg."""
    scene = await Scene.begin(world)
    txid = await scene.pay()
    original, _ = world.chain.find_transaction(txid) or pytest.fail("it was not broadcast")
    await scene.alice.bump(txid, FeeRatePerKw(5000))
    scene.forget()
    world.chain.mine_block([original])
    await world.mine(0)
    assert [(each.height, each.state) for each in scene.alice.coins() if each.value != THIRD] == [
        (world.chain.height, CoinState.FREE)
    ]


@pytest.mark.parametrize("restart", [False, True])
async def test_a_payment_that_could_not_be_raised_holds_its_coins(world: World, restart: bool) -> None:
    scene, signer = await slow_scene(world)
    txid = await scene.pay()
    held = scene.claims()
    signer.refuses = True
    with pytest.raises(LeydenError, match="not today"):
        await scene.alice.bump(txid, FeeRatePerKw(5000))
    assert scene.claims() == held
    await scene.double_spend()
    if restart:
        await scene.restart()
    assert scene.states() == {OTHER: CoinState.LOCKED, THIRD: CoinState.FREE}
    await world.mine(RETAINED_DEPTH - 1)
    assert scene.states() == {OTHER: CoinState.FREE, THIRD: CoinState.FREE}
    assert scene.claims() == ()


async def test_a_claim_that_took_the_coin_over_is_kept(world: World) -> None:
    """Nobody's claim ends but that of the transaction that ended."""
    scene = await Scene.begin(world)
    await scene.pay()
    await scene.double_spend()
    (held,) = scene.claims()
    core = scene.alice.core

    def another() -> None:
        wallet, outputs = core.services.wallet, [TxOut(value=Sat(100_000), script=p2wsh(b"\x51"))]
        core.engine.journal.merge(wallet.release(held))
        coins = [coin(scene.alice, OTHER)]
        core.engine.journal.merge(wallet.fund("another", outputs, RATE, core.chain.height, coins=coins)[1])

    await scene.alice._calls.call(another)
    await world.mine(RETAINED_DEPTH - 1)
    assert scene.alice.transactions() == []
    assert scene.claims() == ("another",)
    assert scene.states() == {OTHER: CoinState.LOCKED, THIRD: CoinState.FREE}


class SlowSigner:
    """Signs when the test lets it."""

    def __init__(self, signer: Any) -> None:
        self.unattended = True
        self.refuses = False
        self.descriptors = signer.descriptors
        self._sign = signer.sign_psbt
        self.asked, self.may = asyncio.Event(), asyncio.Event()
        self.may.set()

    async def sign_psbt(self, request: SignPsbt) -> bytes:
        self.asked.set()
        await self.may.wait()
        if self.refuses:
            raise LeydenError("not today")
        signed: bytes = await self._sign(request)
        return signed

    def wait(self) -> None:
        self.asked.clear()
        self.may.clear()


async def slow_scene(world: World) -> tuple[Scene, SlowSigner]:
    signers: list[SlowSigner] = []

    def adapt(services: Services) -> Services:
        signers.append(SlowSigner(services.onchain_signer))
        return msgspec.structs.replace(services, onchain_signer=signers[0])

    return await Scene.begin(world, adapt), signers[0]


async def test_a_coin_that_is_taken_while_somebody_signs(world: World) -> None:
    """The block was told before there was a transaction to look for: nobody would ever find that it excludes it."""
    scene, signer = await slow_scene(world)
    signer.wait()
    paying = asyncio.ensure_future(scene.pay())
    await signer.asked.wait()
    await scene.double_spend()
    signer.may.set()
    with pytest.raises(CoinUnavailable, match="while it was signed for"):
        await paying
    assert scene.alice.transactions() == []
    assert scene.claims() == ()
    assert scene.states() == {OTHER: CoinState.FREE, THIRD: CoinState.FREE}


async def test_a_channels_coin_that_is_taken_while_somebody_signs(world: World) -> None:
    """It would wait for its funding for ever: nothing of it is told to the peer, and the coins are free."""
    scene, signer = await slow_scene(world)
    bob = await world.start("bob")
    await world.connect(scene.alice, bob)
    signer.wait()
    opening = asyncio.ensure_future(scene.alice.open_channel(bob.node_id, SENT))
    await signer.asked.wait()
    await scene.double_spend()
    signer.may.set()
    with pytest.raises(LeydenError, match="while it was signed for"):
        await opening
    assert (scene.alice.transactions(), scene.alice.channels()) == ([], [])
    assert scene.claims() == ()
    assert scene.states() == {OTHER: CoinState.FREE, THIRD: CoinState.FREE}


async def test_a_payment_that_confirms_while_somebody_signs_its_replacement(world: World) -> None:
    scene, signer = await slow_scene(world)
    txid = await scene.pay()
    held = scene.claims()
    signer.wait()
    bumping = asyncio.ensure_future(scene.alice.bump(txid, FeeRatePerKw(5000)))
    await signer.asked.wait()
    await world.mine(1)
    signer.may.set()
    with pytest.raises(CoinUnavailable, match="while it was signed for"):
        await bumping
    (entry,) = scene.alice.transactions()
    assert (entry["txid"], entry["confirmed_height"]) == (txid[::-1].hex(), world.chain.height)
    assert scene.claims() == held
    assert {each.state for each in scene.alice.coins()} == {CoinState.FREE}


# --- crashes ----------------------------------------------------------------------------------------------------------

CLAIM = "send:of the test"
LAST = RETAINED_DEPTH - 1


class Town:
    """One simulated node, whose payment has lost a coin almost so deep that it is given up."""

    def __init__(self, folder: Path) -> None:
        self.simulation = Simulation(12, folder / "chain")
        self.alice = self.simulation.add_node("alice")
        for _ in range(2):
            fund(self.simulation, self.alice)
        first, self.other = (each.outpoint for each in self.alice.core.services.wallet.coins())
        conflict = sign_payment(self.alice, "conflict", Sat(1_000_000), [first])
        forget_claim(self.alice, "conflict")
        self.payment = sign_payment(self.alice, CLAIM, Sat(FUNDS + 1_000_000))
        assert len(self.payment.inputs) == 2
        broadcast_payment(self.alice, self.payment, CLAIM)
        self.simulation.chain.mempool.keep_only({})
        self.simulation.chain.mine_block([conflict])
        self.poll()

    def poll(self) -> None:
        for _ in range(3):
            if not self.alice.alive:
                self.alice.start()
            self.alice.poll_chain()
            self.simulation.settle()

    def mine(self, count: int) -> None:
        for _ in range(count):
            self.simulation.mine(1)
            self.poll()

    def held(self) -> bool:
        """Either the payment is tracked and holds its coin, or neither: in memory as on disk."""
        core = self.alice.core
        claims = core.services.wallet.claims()
        (coin,) = [coin for coin in core.services.wallet.coins() if coin.outpoint == self.other]
        assert (coin.state is CoinState.LOCKED) == bool(claims)
        assert core.tracker.claims() == frozenset(claims)
        stored = [key for key in self.alice.disk.rows if key.startswith((keyspace.TRANSACTION, keyspace.WALLET + b"c"))]
        assert len(stored) == 2 * len(claims), stored
        return bool(claims)


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path)
    yield town
    town.simulation.close()


def test_a_node_that_was_away_frees_the_coins_when_it_is_back(town: Town) -> None:
    town.alice.kill()
    town.simulation.chain.mine(LAST - 1)
    town.poll()
    assert town.held()
    town.alice.kill()
    town.simulation.chain.mine(10)
    town.poll()
    assert not town.held()


def test_a_failed_commit_frees_nothing_that_is_not_durable(town: Town) -> None:
    town.mine(LAST - 1)
    assert town.held()
    town.alice.store.fail_next()
    town.simulation.mine(1)
    assert town.alice.core.engine.degraded
    town.simulation.advance(3)
    town.poll()
    assert not town.alice.core.engine.degraded
    assert not town.held()


@pytest.mark.parametrize("crash", range(4))
def test_a_crash_at_any_point_of_that_block(town: Town, crash: int) -> None:
    """The payment is forgotten and its claim ends in one commit, whichever side of it the process dies on."""
    town.mine(LAST - 1)
    assert town.held()
    left = crash

    def die(_name: str) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise Crash

    town.alice.on_point = die
    town.simulation.chain.mine(1)
    town.alice.poll_chain()
    town.simulation.settle()
    died = not town.alice.alive
    town.alice.on_point = lambda _name: None
    if died:
        town.alice.start()
        town.held()  # one or the other, and never half of it
    town.poll()
    assert not town.held()
    assert died == (crash < 2), "a commit has two sides"


@pytest.mark.parametrize("point", [0, 1])
def test_a_crash_before_the_payment_is_durable_frees_its_coins(tmp_path: Path, point: int) -> None:
    """A claim that no tracked transaction names is what a crash left behind; one that is named is kept."""
    simulation = Simulation(12, tmp_path / "chain")
    alice = simulation.add_node("alice")
    fund(simulation, alice)
    tx = sign_payment(alice, CLAIM, Sat(1_000_000))
    points: list[str] = []

    def die(name: str) -> None:
        points.append(name)
        if len(points) == point + 1:
            raise Crash

    alice.on_point = die
    broadcast_payment(alice, tx, CLAIM)
    assert not alice.alive
    alice.on_point = lambda _name: None
    alice.start()
    assert alice.core.services.wallet.claims() == ((CLAIM,) if point else ())
    assert alice.core.tracker.is_tracked(tx.txid) == bool(point)
    simulation.close()
