"""Properties of the built-in wallet: selection is exact, locks exclude, history does not matter after a reorg."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import Transaction, parse_psbt, signed_weight
from leyden.crypto import sha256
from leyden.hooks.services import CannotBump, InsufficientFunds, ReserveNeeded
from leyden.hooks.types import DestinationPurpose
from leyden.testing.wallet import Bench, check_funded, check_psbt, coinbase, payment, stranger, transaction
from leyden.types import FeeRatePerKw, OutPoint, Sat, Txid
from leyden_wallet import OnchainWallet
from leyden_wallet.rows import Coin
from leyden_wallet.selection import Payment, select, settle

values = st.integers(1, 200_000)
feerates = st.integers(253, 20_000).map(FeeRatePerKw)


def loaded() -> Bench:
    bench = Bench(OnchainWallet())
    asyncio.run(bench.load())
    return bench


def coin(number: int, value: int) -> Coin:
    return Coin(outpoint=OutPoint(Txid(sha256(bytes((number,)))), number), value=Sat(value), script=stranger(number))


def pay(amount: int, feerate: FeeRatePerKw) -> Payment:
    return Payment(amount=Sat(amount), output_scripts=(stranger(0),), change_script=stranger(1), feerate=feerate)


@given(st.lists(values, max_size=30), st.integers(300, 600_000), feerates)
@settings(deadline=None, max_examples=300)
def test_selection_covers_amount_and_fee_to_the_satoshi(worth: list[int], amount: int, feerate: FeeRatePerKw) -> None:
    coins = [coin(i, value) for i, value in enumerate(worth)]
    chosen = select(coins, pay(amount, feerate))
    if chosen is None:
        reach = sum(max(0, 1000 * value - 272 * feerate) for value in worth)
        assert reach <= 1000 * amount + feerate * 180 + 2000
        return
    assert len({c.outpoint for c in chosen.coins}) == len(chosen.coins)
    assert set(chosen.coins) <= set(coins)
    assert sum(c.value for c in chosen.coins) == amount + chosen.change + chosen.fee
    assert chosen.change == 0 or chosen.change >= 294
    least = pay(amount, feerate).fee(chosen.coins, change=chosen.change > 0)
    assert least <= chosen.fee <= least + (0 if chosen.change else 294 + pay(amount, feerate).fee((), change=True))
    assert select(list(reversed(coins)), pay(amount, feerate)) == chosen


@given(st.lists(values, min_size=1, max_size=12), st.data(), feerates)
@settings(deadline=None, max_examples=100)
def test_an_exact_match_is_found(worth: list[int], data: st.DataObject, feerate: FeeRatePerKw) -> None:
    """Whenever some set of coins pays for everything without change, the choice needs no change."""
    coins = [coin(i, value) for i, value in enumerate(worth)]
    some = data.draw(st.lists(st.sampled_from(coins), min_size=1, unique_by=lambda c: c.outpoint))
    amount = sum(c.value for c in some) - pay(1, feerate).fee(some, change=False) - 1
    if amount < 300 or any(1000 * c.value <= 272 * feerate for c in some):
        return
    chosen = select(coins, pay(amount, feerate))
    assert chosen is not None
    assert chosen.change == 0
    assert settle(some, pay(amount, feerate)) is not None


@given(st.lists(values, min_size=1, max_size=12), st.lists(st.integers(300, 100_000), max_size=8), feerates)
@settings(deadline=None, max_examples=60)
def test_no_coin_is_chosen_twice_while_locked(worth: list[int], amounts: list[int], feerate: FeeRatePerKw) -> None:
    bench = loaded()
    bench.connect(*(payment(n, (value, bench.script())) for n, value in enumerate(worth)))
    locked: set[OutPoint] = set()
    for number, amount in enumerate(amounts):
        outputs = [(amount, stranger(number))]
        try:
            funded = bench.fund(f"claim {number}", *outputs, feerate=feerate)
        except InsufficientFunds:
            continue
        check_funded(funded, outputs, feerate)
        taken = {tx_input.prevout for tx_input in funded.tx.inputs}
        assert not taken & locked
        locked |= taken
        asyncio.run(bench.load())
    assert bench.wallet.balance().confirmed == sum(worth)


@given(
    st.lists(values, min_size=1, max_size=8),
    st.lists(st.integers(400, 60_000), min_size=1, max_size=3),
    feerates,
    st.integers(1, 40_000),
    st.booleans(),
    st.integers(0, 50_000),
)
@settings(deadline=None, max_examples=150)
def test_bumping_keeps_every_promise(
    worth: list[int], amounts: list[int], feerate: FeeRatePerKw, wanted: int, cpfp: bool, keep: int
) -> None:
    """Who was paid is paid, the fee is enough for mempools and for what was asked, and the reserve is not touched."""
    bench = loaded()
    purposes = (DestinationPurpose.RECEIVE, DestinationPurpose.RECEIVE_TAPROOT)
    bench.connect(*(payment(n, (value, bench.script(purposes[n % 2]))) for n, value in enumerate(worth)))
    outputs = [(amount, stranger(number)) for number, amount in enumerate(amounts)]
    try:
        old = bench.fund("old", *outputs, feerate=feerate)
    except InsufficientFunds:
        return
    bench.broadcast(old.tx)
    rows, free = dict(bench.rows), bench.wallet.balance().free
    try:
        new = bench.bump("new", old.tx.txid, wanted, cpfp=cpfp, keep=keep)
    except (CannotBump, InsufficientFunds, ReserveNeeded):
        assert bench.rows == rows
        return
    psbt, before = parse_psbt(new.psbt), parse_psbt(old.psbt)
    check_psbt(psbt, (0 if cpfp else len(outputs), new.change_index))
    assert sum(o.value for o in psbt.spent_outputs()) == sum(o.value for o in new.tx.outputs) + new.fee
    weight, old_weight = signed_weight(psbt), signed_weight(before)
    spent, old_spent = ({tx_input.prevout for tx_input in tx.inputs} for tx in (new.tx, old.tx))
    if cpfp:
        assert {o for o in spent if o.txid == old.tx.txid}
        assert 1000 * (new.fee + old.fee) >= wanted * (weight + old_weight)
        extra = {o for o in spent if o.txid != old.tx.txid}
    else:
        assert [(o.value, o.script) for i, o in enumerate(new.tx.outputs) if i != new.change_index] == outputs
        assert old_spent <= spent
        assert 1000 * new.fee >= wanted * weight
        assert 1000 * (new.fee - old.fee) >= 250 * weight
        extra = spent - old_spent
    if extra:
        change = 0 if cpfp or new.change_index is None else new.tx.outputs[new.change_index].value
        assert bench.wallet.balance().free + change >= keep
    else:
        assert bench.wallet.balance().free == free
    bench.broadcast(new.tx)
    bench.connect(*((old.tx, new.tx) if cpfp else (new.tx,)))
    fees = new.fee + old.fee if cpfp else new.fee
    assert bench.wallet.balance().confirmed == sum(worth) - sum(amounts) - fees


# -- reorganisation ----------------------------------------------------------------------------------------------------

Plan = list[list[tuple[str, int, int]]]
"""Blocks of steps: what happens, a number that picks coins or scripts, an amount."""

steps = st.tuples(st.sampled_from(["pay", "coinbase", "take", "confirm"]), st.integers(0, 5), st.integers(1000, 90_000))
plans = st.lists(st.lists(steps, max_size=4), max_size=4)


class World:
    """A chain on which strangers pay us and anybody spends our coins."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.scripts = [bench.script(purpose) for purpose in DestinationPurpose for _ in range(2)]
        self.own: list[Transaction] = []

    def follow(self, plan: Plan, branch: int) -> None:
        for number, block in enumerate(plan):
            chosen: list[Transaction] = []
            for place, (what, pick, amount) in enumerate(block):
                chosen += self.act(what, pick, amount, branch * 10_000 + number * 100 + place, chosen)
            self.bench.connect(*chosen, branch=branch)

    def act(self, what: str, pick: int, amount: int, seed: int, block: list[Transaction]) -> list[Transaction]:
        """Transactions that are valid behind the chain and those chosen for this block."""
        script = self.scripts[pick % len(self.scripts)]
        if what == "pay":
            return [payment(seed, (amount, script), (5000, stranger(seed)))]
        if what == "coinbase":
            return [coinbase(seed, (amount, script))]
        mined = [entry.tx for connected in self.bench.blocks for entry in connected.transactions] + block
        made = {OutPoint(tx.txid, vout): output for tx in mined for vout, output in enumerate(tx.outputs)}
        for tx in mined:
            for tx_input in tx.inputs:
                made.pop(tx_input.prevout, None)
        if what == "take":
            coins = [outpoint for outpoint, output in made.items() if self.bench.wallet.owns(output.script)]
            return [transaction([coins[pick % len(coins)]], [(amount, stranger(seed)), (700, script)])] if coins else []
        ready = [tx for tx in self.own if all(tx_input.prevout in made for tx_input in tx.inputs)]
        return [ready[pick % len(ready)]] if ready else []

    def spend(self, amounts: list[int]) -> None:
        for number, amount in enumerate(amounts):
            try:
                funded = self.bench.fund(f"claim {number}", (amount, stranger(number)))
            except InsufficientFunds:
                continue
            self.bench.broadcast(funded.tx)
            self.own.append(funded.tx)


@given(plans, st.lists(st.integers(1000, 50_000), max_size=3), plans, plans)
@settings(deadline=None, max_examples=150)
def test_only_the_final_chain_counts(common: Plan, spent: list[int], lost: Plan, final: Plan) -> None:
    reorged, straight = World(loaded()), World(loaded())
    for world in (reorged, straight):
        world.follow(common, 1)
        world.spend(spent)
    reorged.follow(lost, 2)
    reorged.bench.disconnect(len(common))
    for world in (reorged, straight):
        world.follow(final, 3)
    a, b = reorged.bench, straight.bench
    assert a.rows == b.rows
    assert a.wallet.balance() == b.wallet.balance()
    assert a.wallet.history() == b.wallet.history()
    asyncio.run(a.load())
    assert a.wallet.balance() == b.wallet.balance()
    assert a.wallet.history() == b.wallet.history()


@given(plans, st.lists(st.integers(1000, 50_000), max_size=3), plans)
@settings(deadline=None, max_examples=100)
def test_the_sum_of_history_is_what_we_have(before: Plan, spent: list[int], after: Plan) -> None:
    world = World(loaded())
    world.follow(before, 1)
    world.spend(spent)
    world.follow(after, 2)
    balance = world.bench.wallet.balance()
    assert sum(world.bench.wallet.history().values()) == balance.confirmed + balance.unconfirmed + balance.immature
