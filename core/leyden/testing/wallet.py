"""Conformance of a ``Wallet``: subclass ``WalletSuite``, supply the fixture ``new_wallet``, run pytest.

The suite plays the shell: it keeps the rows that the wallet asks to store, feeds blocks and takes blocks back.
"""

from collections.abc import Callable

import pytest

from leyden.bitcoin import (
    parse_psbt,
    signed_weight,
)
from leyden.hooks.services import CannotBump, CoinUnavailable, InsufficientFunds, ReserveNeeded, Wallet
from leyden.hooks.types import (
    CoinState,
    DestinationPurpose,
)
from leyden.testing.expectations import expect, expect_equal
from leyden.testing.wallet_bench import (
    FEERATE,
    PREFIX,
    Bench,
    FixedDestinations,
    change_output,
    check_funded,
    check_psbt,
    coinbase,
    payment,
    spent_outpoints,
    stranger,
    transaction,
)
from leyden.types import FeeRatePerKw, OutPoint, Txid

__all__ = [
    "FEERATE",
    "PREFIX",
    "Bench",
    "FixedDestinations",
    "WalletSuite",
    "check_funded",
    "check_psbt",
    "coinbase",
    "payment",
    "stranger",
    "transaction",
]


class WalletSuite:
    """What the node relies on. Fixture ``new_wallet``: makes a fresh, unloaded wallet."""

    @pytest.fixture
    async def bench(self, new_wallet: Callable[[], Wallet]) -> Bench:
        bench = Bench(new_wallet())
        await bench.load()
        return bench

    # -- scripts ---------------------------------------------------------------------------------------------------

    async def test_scripts_are_handed_out_once_even_over_restarts(self, bench: Bench) -> None:
        given = [bench.script(purpose) for purpose in DestinationPurpose for _ in range(3)]
        await bench.load()
        given += [bench.script(purpose) for purpose in DestinationPurpose for _ in range(3)]
        expect_equal(len(set(given)), len(given), "different scripts handed out")
        for script in given:
            expect(bench.wallet.owns(script) and script in bench.wallet.scripts(), "a script was forgotten")
        expect(not bench.wallet.owns(stranger(1)), "owns a stranger's script")

    async def test_scripts_are_watched_before_they_are_handed_out(self, bench: Bench) -> None:
        ahead = set(bench.wallet.scripts())
        for purpose in DestinationPurpose:
            expect(bench.script(purpose) in ahead, "a script was not watched before it was handed out")
        await bench.wallet.top_up()
        expect(len(bench.wallet.scripts()) > len(ahead), "the look-ahead does not move on")

    # -- coins -----------------------------------------------------------------------------------------------------

    async def test_a_payment_counts_once(self, bench: Bench) -> None:
        tx = payment(1, (70_000, bench.script()), (9_000, stranger(1)))
        block = bench.connect(tx)
        before = dict(bench.rows)
        bench.keep(bench.wallet.on_block_connected(block))
        expect_equal(bench.rows, before, "rows after a block that came twice")
        balance = bench.wallet.balance()
        found = (balance.confirmed, balance.unconfirmed, balance.immature, balance.locked)
        expect_equal(found, (70_000, 0, 0, 0), "balance after a block that came twice")
        expect_equal(dict(bench.wallet.history()), {tx.txid: 70_000})

    async def test_a_block_that_is_not_about_us_changes_no_coins(self, bench: Bench) -> None:
        bench.connect(payment(1, (5_000, stranger(2))), coinbase(1, (5, stranger(3))))
        expect_equal(bench.total(), 0, "balance of strangers' payments")
        expect_equal(dict(bench.wallet.history()), {}, "history of strangers' payments")

    async def test_coinbase_needs_100_blocks(self, bench: Bench) -> None:
        bench.connect(coinbase(1, (50_000, bench.script())))
        bench.mine(98)
        expect_equal((bench.wallet.balance().confirmed, bench.wallet.balance().immature), (0, 50_000), "early")
        with pytest.raises(InsufficientFunds):
            bench.fund("early", (10_000, stranger(1)))
        bench.mine(1)
        expect_equal((bench.wallet.balance().confirmed, bench.wallet.balance().immature), (50_000, 0), "ripe")
        bench.fund("ripe", (10_000, stranger(1)))

    # -- spending --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("amount", [500, 30_000, 99_000, 129_000])
    async def test_funding_is_exact_and_locks(self, bench: Bench, amount: int) -> None:
        bench.connect(*(payment(n, (value, bench.script())) for n, value in enumerate((100_000, 20_000, 10_000))))
        funded = bench.fund("claim", (amount, stranger(1)))
        check_funded(funded, [(amount, stranger(1))], FEERATE)
        spent = sum(output.value for output in parse_psbt(funded.psbt).spent_outputs())
        expect_equal(bench.wallet.balance().locked, spent, "locked")

    async def test_taproot_coins_are_spent_too(self, bench: Bench) -> None:
        """Alone, without the transactions behind them; beside others, with them."""
        taproot = [bench.script(DestinationPurpose.RECEIVE_TAPROOT) for _ in range(2)]
        bench.connect(payment(1, (50_000, taproot[0]), (40_000, taproot[1])))
        alone = bench.fund("alone", (70_000, stranger(1)))
        check_funded(alone, [(70_000, stranger(1))], FEERATE)
        expect(all(i.non_witness_utxo is None for i in parse_psbt(alone.psbt).inputs), "taproot needs no previous tx")
        bench.keep(bench.wallet.release("alone"))
        bench.connect(payment(2, (30_000, bench.script())))
        mixed = bench.fund("mixed", (110_000, stranger(1)))
        check_funded(mixed, [(110_000, stranger(1))], FEERATE)
        expect_equal(len(parse_psbt(mixed.psbt).inputs), 3)

    async def test_the_same_claim_gives_the_same_transaction(self, bench: Bench) -> None:
        bench.connect(*(payment(n, (50_000, bench.script())) for n in range(4)))
        first = bench.fund("claim", (30_000, stranger(1)))
        await bench.load()
        again = bench.fund("claim", (30_000, stranger(1)), feerate=FeeRatePerKw(5000))
        expect_equal(again.tx, first.tx, "the same claim again")
        other = bench.fund("claim", (31_000, stranger(1)))
        expect_equal(spent_outpoints(other), spent_outpoints(first), "coins of the same claim")

    async def test_locked_coins_are_not_chosen_again_until_released(self, bench: Bench) -> None:
        bench.connect(*(payment(n, (50_000, bench.script())) for n in range(2)))
        first = bench.fund("first", (30_000, stranger(1)))
        await bench.load()
        second = bench.fund("second", (30_000, stranger(1)))
        expect(not spent_outpoints(first) & spent_outpoints(second), "a locked coin was chosen again")
        with pytest.raises(InsufficientFunds) as caught:
            bench.fund("third", (30_000, stranger(1)))
        expect_equal(caught.value.available, 0)
        expect(caught.value.needed > 30_000, "fees are not part of what is needed")
        bench.keep(bench.wallet.release("first"))
        await bench.load()
        third = bench.fund("third", (30_000, stranger(1)))
        expect_equal(spent_outpoints(third), spent_outpoints(first))

    async def test_what_a_late_watch_brings_counts_as_if_it_had_come_in_time(self, bench: Bench) -> None:
        """Transactions of blocks that were connected before: the payment, later the spend, then a block takes both."""
        script = bench.script()
        bench.mine(3)
        paid = payment(1, (70_000, script))
        spent = transaction([OutPoint(paid.txid, 0)], [(60_000, stranger(1)), (9_000, bench.script())])
        bench.rescan(2, paid)
        expect_equal(bench.wallet.balance().confirmed, 70_000, "what a late watch brought")
        bench.rescan(2, paid)
        bench.rescan(3, spent)
        expect_equal(bench.wallet.balance().confirmed, 9_000)
        expect_equal([(coin.value, coin.height) for coin in bench.wallet.coins()], [(9_000, 3)])
        await bench.load()
        expect_equal(bench.wallet.balance().confirmed, 9_000)
        bench.disconnect(2)
        expect_equal(bench.wallet.balance().confirmed + bench.wallet.balance().unconfirmed, 70_000)
        bench.disconnect(1)
        expect_equal(bench.wallet.balance().confirmed, 0)

    async def test_saying_again_what_is_known_changes_nothing(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        funded = bench.fund("claim", (30_000, stranger(1)))
        bench.broadcast(funded.tx)
        rows = dict(bench.rows)
        bench.broadcast(funded.tx)
        bench.keep(bench.wallet.release("a claim that nobody made"))
        expect_equal((dict(bench.rows), bench.wallet.balance().confirmed), (rows, 0), "after saying it again")

    async def test_claims_survive_a_restart_and_can_then_be_released(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        bench.fund("claim", (30_000, stranger(1)))
        await bench.load()
        expect_equal(bench.wallet.claims(), ("claim",), "claims after a restart")
        with pytest.raises(InsufficientFunds):
            bench.fund("other", (30_000, stranger(1)))
        bench.keep(bench.wallet.release("claim"))
        await bench.load()
        expect_equal((bench.wallet.claims(), bench.wallet.balance().free), ((), 100_000))
        bench.fund("other", (30_000, stranger(1)))

    async def test_our_unconfirmed_change_counts_and_can_be_spent(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        first = bench.fund("first", (30_000, stranger(1)))
        bench.broadcast(first.tx)
        balance = bench.wallet.balance()
        expect_equal((balance.confirmed, balance.unconfirmed), (0, 70_000 - first.fee), "with unconfirmed change")
        second = bench.fund("second", (30_000, stranger(2)))
        expect_equal({i.prevout.txid for i in second.tx.inputs}, {first.tx.txid})
        bench.broadcast(second.tx)
        bench.connect(first.tx, second.tx)
        balance = bench.wallet.balance()
        expect_equal((balance.confirmed, balance.unconfirmed), (40_000 - first.fee - second.fee, 0))
        expect_equal(bench.wallet.history()[first.tx.txid], -30_000 - first.fee)

    async def test_coins_stay_known_until_their_spending_is_deep(self, bench: Bench) -> None:
        """Our own transaction, or its double spend, is looked for by the coin, which need not show its script."""
        script = bench.script()
        bench.connect(payment(1, (100_000, script)))
        coin = OutPoint(bench.blocks[0].transactions[0].tx.txid, 0)
        expect_equal(tuple(bench.wallet.spent_coins()), (), "spent coins while none is")
        spending = transaction([coin], [(99_000, stranger(1))])
        bench.broadcast(spending)
        await bench.load()
        expect_equal(tuple(bench.wallet.spent_coins()), ((coin, script),), "spent by what is unconfirmed")
        bench.connect(spending)
        bench.mine(100)
        await bench.load()
        expect_equal(tuple(bench.wallet.spent_coins()), ((coin, script),), "spent 101 blocks ago")
        bench.mine(143)
        expect_equal(tuple(bench.wallet.spent_coins()), (), "spent so deep that nothing takes it back")

    async def test_what_strangers_can_take_back_is_not_spent(self, bench: Bench) -> None:
        """A mutual close pays us, but the peer has a say in it until it is confirmed."""
        close = payment(1, (60_000, bench.script(DestinationPurpose.SHUTDOWN)))
        bench.broadcast(close)
        expect_equal(bench.wallet.balance().unconfirmed, 60_000)
        with pytest.raises(InsufficientFunds):
            bench.fund("claim", (10_000, stranger(1)))
        bench.connect(close)
        bench.fund("claim", (10_000, stranger(1)))

    async def test_a_replaced_transaction_counts_no_more(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        coin = OutPoint(bench.blocks[0].transactions[0].tx.txid, 0)
        change = bench.script(DestinationPurpose.CHANGE)
        bench.broadcast(transaction([coin], [(90_000, change)]))
        bench.broadcast(transaction([coin], [(80_000, change)]))
        expect_equal(bench.total(), 80_000, "after a replacement")
        bench.connect(transaction([coin], [(70_000, stranger(1))]))
        expect_equal(bench.total(), 0)

    async def test_what_a_replaced_transaction_carried_falls_with_it(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        coin = OutPoint(bench.blocks[0].transactions[0].tx.txid, 0)
        change = bench.script(DestinationPurpose.CHANGE)
        first = transaction([coin], [(90_000, change)])
        bench.broadcast(first)
        bench.broadcast(transaction([OutPoint(first.txid, 0)], [(85_000, change)]))
        expect_equal(bench.total(), 85_000)
        bench.broadcast(transaction([coin], [(80_000, change)]))
        expect_equal(bench.total(), 80_000, "after the replacement of what it built on")

    async def test_confirmed_coins_come_first(self, bench: Bench) -> None:
        bench.connect(*(payment(n, (100_000, bench.script())) for n in range(2)))
        first = bench.fund("first", (30_000, stranger(1)))
        bench.broadcast(first.tx)
        left = 70_000 - first.fee
        second = bench.fund("second", (left - 500, stranger(2)))
        expect(first.tx.txid not in {o.txid for o in spent_outpoints(second)}, "spent unconfirmed change without need")

    async def test_a_claim_never_takes_more_coins(self, bench: Bench) -> None:
        bench.connect(*(payment(n, (50_000, bench.script())) for n in range(3)))
        first = bench.fund("claim", (30_000, stranger(1)))
        with pytest.raises(InsufficientFunds):
            bench.fund("claim", (50_000, stranger(1)))
        expect_equal(bench.fund("claim", (30_000, stranger(1))), first)

    # -- coin control and reserve ----------------------------------------------------------------------------------

    async def test_coins_say_what_can_be_done_with_them(self, bench: Bench) -> None:
        bench.connect(payment(1, (50_000, bench.script()), (60_000, bench.script())), coinbase(1, (7, bench.script())))
        close = payment(2, (30_000, bench.script(DestinationPurpose.SHUTDOWN)))
        bench.broadcast(close)
        bench.fund("claim", (55_000, stranger(1)))
        found = {coin.value: (coin.state, coin.claim, coin.height) for coin in bench.wallet.coins()}
        wanted = {
            50_000: (CoinState.FREE, "", 1),
            60_000: (CoinState.LOCKED, "claim", 1),
            7: (CoinState.IMMATURE, "", 1),
            30_000: (CoinState.FOREIGN, "", 0),
        }
        expect_equal(found, wanted, "state, claim and height of each coin")
        expect_equal(bench.wallet.balance().free, 50_000)
        expect_equal(sum(coin.value for coin in bench.wallet.coins()), bench.total() + 7)

    async def test_exactly_the_coins_asked_for_are_spent(self, bench: Bench) -> None:
        bench.connect(payment(1, *((50_000 + n, bench.script()) for n in range(4))))
        chosen = [coin.outpoint for coin in bench.wallet.coins()][1:3]
        funded = bench.fund("claim", (20_000, stranger(1)), coins=chosen)
        check_funded(funded, [(20_000, stranger(1))], FEERATE)
        expect_equal(spent_outpoints(funded), set(chosen), "coins spent, of those asked for")
        expect_equal(bench.fund("claim", (20_000, stranger(1))), funded)
        with pytest.raises(CoinUnavailable, match="claim"):
            bench.fund("other", (20_000, stranger(1)), coins=chosen[:1])
        with pytest.raises(CoinUnavailable):
            bench.fund("other", (20_000, stranger(1)), coins=[OutPoint(Txid(bytes(32)), 0)])
        left = [coin.outpoint for coin in bench.wallet.coins() if coin.state is CoinState.FREE]
        with pytest.raises(InsufficientFunds):
            bench.fund("other", (60_000, stranger(1)), coins=left[:1])
        expect_equal(bench.wallet.claims(), ("claim",))

    async def test_a_reserve_of_confirmed_coins_stays(self, bench: Bench) -> None:
        bench.connect(payment(1, (50_000, bench.script()), (40_000, bench.script())))
        rows = dict(bench.rows)
        with pytest.raises(ReserveNeeded):
            bench.fund("claim", (75_000, stranger(1)), keep=20_000)
        expect_equal((dict(bench.rows), bench.wallet.claims()), (rows, ()))
        check_funded(bench.fund("claim", (65_000, stranger(1)), keep=20_000), [(65_000, stranger(1))], FEERATE)

    async def test_unconfirmed_change_is_no_reserve_for_the_next_transaction(self, bench: Bench) -> None:
        """The change of the transaction at hand counts, or a wallet with one coin could not do anything."""
        bench.connect(payment(1, (100_000, bench.script())))
        first = bench.fund("first", (10_000, stranger(1)), keep=20_000)
        bench.broadcast(first.tx)
        with pytest.raises(ReserveNeeded):
            bench.fund("second", (10_000, stranger(1)), keep=20_000)
        bench.fund("second", (10_000, stranger(1)))
        bench.keep(bench.wallet.release("second"))
        bench.connect(first.tx)
        bench.fund("second", (10_000, stranger(1)), keep=20_000)

    # -- more fee ----------------------------------------------------------------------------------------------------

    async def test_a_replacement_pays_the_same_with_more_fee(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script()), (40_000, bench.script())))
        first = bench.fund("first", (30_000, stranger(1)), (5_000, stranger(2)))
        bench.broadcast(first.tx)
        second = bench.bump("second", first.tx.txid, 4_000)
        check_funded(second, [(30_000, stranger(1)), (5_000, stranger(2))], FeeRatePerKw(4_000))
        expect_equal(spent_outpoints(second), spent_outpoints(first), "coins of the replacement")
        expect_equal(change_output(second).script, change_output(first).script)
        bench.broadcast(second.tx)
        expect_equal(bench.total(), 105_000 - second.fee)
        expect(first.tx.txid not in bench.wallet.history(), "the replaced transaction counts still")
        bench.connect(second.tx)
        expect_equal(bench.wallet.balance().confirmed, 105_000 - second.fee)

    async def test_a_replacement_pays_for_its_relay(self, bench: Bench) -> None:
        """However little more is asked for: the old fee, and the least feerate for itself (BIP 125, rule 4)."""
        bench.connect(payment(1, (100_000, bench.script())))
        first = bench.fund("first", (30_000, stranger(1)))
        bench.broadcast(first.tx)
        weight = signed_weight(parse_psbt(first.psbt))
        with pytest.raises(CannotBump, match="already"):
            bench.bump("second", first.tx.txid, 1_000)
        second = bench.bump("second", first.tx.txid, 1_005)
        expect(second.fee >= first.fee + weight * 250 // 1000, f"{second.fee} sat replace {first.fee} sat")

    async def test_a_replacement_takes_further_coins_if_it_must(self, bench: Bench) -> None:
        bench.connect(payment(1, (50_000, bench.script()), (20_000, bench.script())))
        coins = [coin.outpoint for coin in bench.wallet.coins() if coin.value == 50_000]
        first = bench.fund("first", (49_500, stranger(1)), feerate=FeeRatePerKw(500), coins=coins)
        bench.broadcast(first.tx)
        expect_equal(first.change_index, None)
        with pytest.raises(ReserveNeeded):
            bench.bump("second", first.tx.txid, 3_000, keep=19_500)
        second = bench.bump("second", first.tx.txid, 3_000, keep=10_000)
        check_funded(second, [(49_500, stranger(1))], FeeRatePerKw(3_000))
        expect_equal(len(second.tx.inputs), 2)
        bench.keep(bench.wallet.release("second"))
        with pytest.raises(InsufficientFunds):
            bench.bump("second", first.tx.txid, 60_000)

    async def test_what_something_builds_on_is_not_replaced(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        first = bench.fund("first", (30_000, stranger(1)))
        bench.broadcast(first.tx)
        second = bench.fund("second", (20_000, stranger(2)))
        with pytest.raises(CannotBump, match="second"):
            bench.bump("third", first.tx.txid, 3_000)
        bench.broadcast(second.tx)
        with pytest.raises(CannotBump, match=second.tx.txid[::-1].hex()):
            bench.bump("third", first.tx.txid, 3_000)
        bench.bump("third", second.tx.txid, 3_000)
        with pytest.raises(InsufficientFunds):  # nobody builds on what is about to be replaced
            bench.fund("fourth", (1_000, stranger(3)))

    async def test_a_child_pays_for_its_parent(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        parent = bench.fund("parent", (30_000, stranger(1)), feerate=FeeRatePerKw(253))
        bench.broadcast(parent.tx)
        child = bench.bump("child", parent.tx.txid, 2_000, cpfp=True, keep=10_000_000)
        expect_equal([o.txid for o in spent_outpoints(child)], [parent.tx.txid])
        weight = signed_weight(parse_psbt(parent.psbt)) + signed_weight(parse_psbt(child.psbt))
        fee = parent.fee + child.fee
        expect(2 * weight <= fee <= 2 * weight + 30, f"{fee} sat for a weight of {weight}")
        bench.broadcast(child.tx)
        expect_equal(bench.total(), 70_000 - fee)
        with pytest.raises(CannotBump, match="no change"):
            bench.bump("again", parent.tx.txid, 4_000, cpfp=True)
        grandchild = bench.bump("grandchild", child.tx.txid, 4_000, cpfp=True)
        total = 4 * (weight + signed_weight(parse_psbt(grandchild.psbt)))
        expect(total <= fee + grandchild.fee <= total + 40, "the grandchild does not pay for all three")

    async def test_a_child_takes_further_coins_if_it_must(self, bench: Bench) -> None:
        bench.connect(payment(1, (50_000, bench.script()), (25_000, bench.script())))
        coins = [coin.outpoint for coin in bench.wallet.coins() if coin.value == 50_000]
        parent = bench.fund("parent", (49_000, stranger(1)), feerate=FeeRatePerKw(253), coins=coins)
        expect(parent.change_index is not None, "no change")
        bench.broadcast(parent.tx)
        with pytest.raises(ReserveNeeded):
            bench.bump("child", parent.tx.txid, 5_000, cpfp=True, keep=10_000)
        child = bench.bump("child", parent.tx.txid, 5_000, cpfp=True)
        expect_equal(len(child.tx.inputs), 2)
        bench.keep(bench.wallet.release("child"))
        with pytest.raises(InsufficientFunds):
            bench.bump("child", parent.tx.txid, 50_000, cpfp=True)

    async def test_what_cannot_be_bumped(self, bench: Bench) -> None:
        """Confirmed, unknown, not broadcast, and what others have a say in."""
        incoming = payment(1, (100_000, bench.script()))
        bench.connect(incoming)
        funded = bench.fund("claim", (30_000, stranger(1)))
        close = payment(2, (30_000, bench.script(DestinationPurpose.SHUTDOWN)))
        bench.broadcast(close)
        for txid in (incoming.txid, funded.tx.txid, close.txid, Txid(bytes(32))):
            for cpfp in (False, True):
                with pytest.raises(CannotBump):
                    bench.bump("bump", txid, 5_000, cpfp=cpfp)
        expect_equal(bench.wallet.claims(), ("claim",))

    # -- reorganisation --------------------------------------------------------------------------------------------

    async def test_a_disconnect_undoes_payments(self, bench: Bench) -> None:
        script = bench.script()
        bench.connect(payment(1, (10_000, script)))
        rows = dict(bench.rows)
        bench.connect(payment(2, (20_000, script)))
        bench.connect(payment(3, (40_000, script)))
        expect_equal(bench.total(), 70_000)
        bench.disconnect(1)
        expect_equal(bench.total(), 10_000, "after blocks were disconnected")
        expect_equal(bench.rows, rows)
        bench.disconnect(1)
        expect_equal(bench.rows, rows)

    async def test_a_disconnect_makes_our_own_unconfirmed_again(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        funded = bench.fund("claim", (30_000, stranger(1)))
        bench.broadcast(funded.tx)
        before = dict(bench.rows), bench.wallet.balance()
        bench.connect(funded.tx)
        expect_equal(bench.wallet.balance().confirmed, 70_000 - funded.fee)
        bench.disconnect(1)
        expect_equal((dict(bench.rows), bench.wallet.balance()), before, "as before the block")

    async def test_our_own_transaction_without_its_coin_counts_for_nothing(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())))
        funded = bench.fund("claim", (30_000, stranger(1)))
        bench.broadcast(funded.tx)
        gone = bench.blocks[0].transactions[0].tx
        bench.disconnect(0)
        expect_equal(bench.total(), 0, "without the coin that it spends")
        expect_equal(dict(bench.wallet.history()), {}, "history without the coin that it spends")
        bench.connect(gone, branch=1)
        expect_equal(bench.total(), 70_000 - funded.fee)

    async def test_rows_are_the_whole_truth(self, bench: Bench) -> None:
        bench.connect(payment(1, (100_000, bench.script())), coinbase(1, (7_000, bench.script())))
        funded = bench.fund("claim", (30_000, stranger(1)))
        bench.broadcast(funded.tx)
        bench.fund("next", (20_000, stranger(1)))
        balance, history, scripts = bench.wallet.balance(), dict(bench.wallet.history()), bench.wallet.scripts()
        await bench.load()
        expect_equal((bench.wallet.balance(), dict(bench.wallet.history())), (balance, history), "after a restart")
        expect(set(scripts) <= set(bench.wallet.scripts()), "a script was forgotten")
