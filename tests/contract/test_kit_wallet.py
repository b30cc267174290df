"""The kit of wallets bites: each of its tests fails, for its own reason, on a wallet that is wrong there."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from leyden.bitcoin import Transaction, TxOut, parse_psbt
from leyden.hooks.services import CannotBump, Destinations, InsufficientFunds, ReserveNeeded
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    CoinState,
    Destination,
    DestinationPurpose,
    FundedTransaction,
    RecordChanges,
    WalletBalance,
    WalletCoin,
)
from leyden.testing.wallet import PREFIX, Bench, WalletSuite
from leyden.types import BlockHeight, FeeRatePerKw, OutPoint, Sat, Txid
from leyden_wallet import OnchainWallet
from leyden_wallet.bumping import Waiting
from leyden_wallet.ledger import Ledger
from leyden_wallet.rows import Claim, Coin, KnownTransaction
from leyden_wallet.selection import Payment, Selection, select, settle
from msgspec.structs import replace

Funded = tuple[FundedTransaction, RecordChanges]
Rows = Sequence[tuple[bytes, bytes]]
NOTHING = RecordChanges()


class _WithLedger(OnchainWallet):
    """On a ledger that is wrong."""

    ledger: type[Ledger] = Ledger

    async def load(self, prefix: bytes, rows: Rows, destinations: Destinations) -> None:
        await super().load(prefix, rows, destinations)
        wrong = self.ledger()
        wrong.load(self._ledger.transactions.items(), self._ledger.tip)
        self._ledger = wrong


# -- scripts -----------------------------------------------------------------------------------------------------------


class _ForgetsWhatItGave(OnchainWallet):
    def next_destination(self, purpose: DestinationPurpose) -> tuple[Destination, RecordChanges]:
        return super().next_destination(purpose)[0], NOTHING


class _WatchesLate(OnchainWallet):
    """What it has handed out, and nothing ahead."""

    given: tuple[bytes, ...] = ()

    def next_destination(self, purpose: DestinationPurpose) -> tuple[Destination, RecordChanges]:
        destination, changes = super().next_destination(purpose)
        self.given += (destination.script,)
        return destination, changes

    def scripts(self) -> Sequence[bytes]:
        return self.given


class _NeverLooksFurther(OnchainWallet):
    async def top_up(self) -> None:
        pass


# -- coins -------------------------------------------------------------------------------------------------------------


class _Miscounts(OnchainWallet):
    """Thinks that it has ``more`` than it has."""

    more = 0

    def balance(self) -> WalletBalance:
        balance = super().balance()
        return replace(balance, confirmed=Sat(balance.confirmed + self.more))


class _CountsTwice(_Miscounts):
    """A block that comes again pays again."""

    def on_block_connected(self, block: BlockConnected) -> RecordChanges:
        for entry in block.transactions:
            if entry.tx.txid in self._ledger.transactions:
                self.more += sum(output.value for output in entry.tx.outputs if self.owns(output.script))
        return super().on_block_connected(block)


class _TakesTheMoneyOfOthers(_Miscounts):
    def on_block_connected(self, block: BlockConnected) -> RecordChanges:
        for entry in block.transactions:
            self.more += sum(output.value for output in entry.tx.outputs if not self.owns(output.script))
        return super().on_block_connected(block)


class _WritesWithEveryBlock(OnchainWallet):
    blocks = 0

    def on_block_connected(self, block: BlockConnected) -> RecordChanges:
        self.blocks += 1
        changes = super().on_block_connected(block)
        return replace(changes, puts=(*changes.puts, (PREFIX + b"blocks", b"%d" % self.blocks)))


class _WritesWhatItKnows(OnchainWallet):
    told = 0

    def on_unconfirmed(self, tx: Transaction) -> RecordChanges:
        self.told += 1
        changes = super().on_unconfirmed(tx)
        return replace(changes, puts=(*changes.puts, (PREFIX + b"told", b"%d" % self.told)))


class _IgnoresLateBlocks(OnchainWallet):
    def on_block_connected(self, block: BlockConnected) -> RecordChanges:
        return super().on_block_connected(block) if block.height > self._ledger.tip else NOTHING


class _IgnoresReorgs(OnchainWallet):
    def on_blocks_disconnected(self, event: BlocksDisconnected) -> RecordChanges:
        return NOTHING


class _ForgetsItsOwn(OnchainWallet):
    """With the block that had it."""

    def on_blocks_disconnected(self, event: BlocksDisconnected) -> RecordChanges:
        changes = super().on_blocks_disconnected(event)
        for txid, known in list(self._ledger.transactions.items()):
            if not known.height:
                self.abandon(txid)
        return changes


class _IgnoresWhatIsUnconfirmed(OnchainWallet):
    def on_unconfirmed(self, tx: Transaction) -> RecordChanges:
        return NOTHING


class _StoresNothingUnconfirmed(OnchainWallet):
    def on_unconfirmed(self, tx: Transaction) -> RecordChanges:
        super().on_unconfirmed(tx)
        return NOTHING


class _ForgetsWhatIsSpent(OnchainWallet):
    """As soon as a block has its spending."""

    def spent_coins(self) -> tuple[tuple[OutPoint, bytes], ...]:
        return tuple((coin.outpoint, coin.script) for coin in self._ledger.spent_coins(1))


class _CallsAllCoinsFree(OnchainWallet):
    def coins(self) -> tuple[WalletCoin, ...]:
        return tuple(replace(coin, state=CoinState.FREE) for coin in super().coins())


class _MinersPayAtOnce(_WithLedger):
    class ledger(Ledger):
        def is_mature(self, maker: KnownTransaction) -> bool:
            return True


class _TrustsStrangers(_WithLedger):
    class ledger(Ledger):
        def is_ours_alone(self, coin: Coin) -> bool:
            return True


class _NothingIsEverReplaced(_WithLedger):
    class ledger(Ledger):
        def _stand(self) -> frozenset[Txid]:
            return frozenset(self._pending)


# -- spending ----------------------------------------------------------------------------------------------------------


class _PaysHalfTheFee(OnchainWallet):
    def fund(
        self, claim_id: str, outputs: Sequence[TxOut], feerate: FeeRatePerKw, locktime: BlockHeight, **options: Any
    ) -> Funded:
        return super().fund(claim_id, outputs, FeeRatePerKw(feerate // 2), locktime, **options)


class _LocksNothing(OnchainWallet):
    async def load(self, prefix: bytes, rows: Rows, destinations: Destinations) -> None:
        await super().load(prefix, rows, destinations)
        self._locks.clear()

    def fund(self, *arguments: Any, **options: Any) -> Funded:
        funded = super().fund(*arguments, **options)
        self._locks.clear()
        return funded


class _ForgetsClaims(OnchainWallet):
    async def load(self, prefix: bytes, rows: Rows, destinations: Destinations) -> None:
        await super().load(prefix, rows, destinations)
        self._locks.clear()
        self._claims.clear()


class _BeginsClaimsAnew(OnchainWallet):
    def fund(self, claim_id: str, *arguments: Any, **options: Any) -> Funded:
        self.release(claim_id)
        return super().fund(claim_id, *arguments, **options)


class _ChoosesForItself(OnchainWallet):
    def _named(self, outpoints: Sequence[OutPoint]) -> list[Coin]:
        return self._spendable()[0][:1]


class _SpendsChangeFirst(OnchainWallet):
    def _choose(self, payment: Payment) -> Selection | None:
        return select(self._spendable()[1], payment) or super()._choose(payment)


class _HidesWhatItSpends(OnchainWallet):
    """Signers do not see the transactions behind the coins."""

    def _funded(self, claim: Claim) -> FundedTransaction:
        funded = super()._funded(claim)
        psbt = parse_psbt(funded.psbt)
        bare = replace(psbt, inputs=tuple(replace(entry, non_witness_utxo=None) for entry in psbt.inputs))
        return replace(funded, psbt=bare.serialize())


class _KeepsNoReserve(OnchainWallet):
    def _check_left(self, selection: Selection, keep: Sat) -> None:
        pass


class _KeepsAReserveOfChange(OnchainWallet):
    """Whatever it is that the change comes from."""

    def _check_left(self, selection: Selection, keep: Sat) -> None:
        super()._check_left(selection, Sat(max(0, keep - selection.change)))


# -- more fee ----------------------------------------------------------------------------------------------------------


class _ReplacesWithOtherCoins(OnchainWallet):
    """Both may confirm."""

    def replace(self, claim_id: str, txid: Txid, feerate: FeeRatePerKw, locktime: BlockHeight, **_: Any) -> Funded:
        tx = self._raw[txid]
        change = self._change_index(tx)
        return self.fund(claim_id, [o for i, o in enumerate(tx.outputs) if i != change], feerate, locktime)


class _Forgiven(Waiting, frozen=True, kw_only=True):
    """A transaction whose replacement need not pay for its relay."""

    paid: Sat

    def pays(self, feerate: FeeRatePerKw) -> bool:
        return 1000 * self.paid >= feerate * self.weight


class _ReplacesForTooLittle(OnchainWallet):
    def _waiting(self, txid: Txid) -> Waiting:
        known = super()._waiting(txid)
        return _Forgiven(fee=Sat(0), weight=known.weight, paid=known.fee)


class _ChildPaysForItself(OnchainWallet):
    def accelerate(self, claim_id: str, txid: Txid, feerate: FeeRatePerKw, locktime: BlockHeight, **_: Any) -> Funded:
        coins = [coin for coin in self._spendable()[1] if coin.outpoint.txid == txid]
        script = self._destinations.peek(DestinationPurpose.CHANGE)
        selection = settle(coins, Payment(amount=Sat(0), output_scripts=(), change_script=script, feerate=feerate))
        assert selection is not None
        return self._claim(claim_id, (), selection, script, locktime)


class _BumpsAnything(OnchainWallet):
    def replace(self, *arguments: Any, **options: Any) -> Funded:
        try:
            return super().replace(*arguments, **options)
        except CannotBump:
            return self._funded(self._claims["claim"]), NOTHING


def not_raised(error: type[Exception]) -> str:
    return f"DID NOT RAISE .*{error.__name__}"


BROKEN: list[tuple[type[OnchainWallet], str, str]] = [
    (_ForgetsWhatItGave, "test_scripts_are_handed_out_once_even_over_restarts", "different scripts handed out"),
    (_WatchesLate, "test_scripts_are_watched_before_they_are_handed_out", "not watched before it was handed out"),
    (_NeverLooksFurther, "test_scripts_are_watched_before_they_are_handed_out", "the look-ahead does not move on"),
    (_CountsTwice, "test_a_payment_counts_once", "balance after a block that came twice"),
    (_WritesWithEveryBlock, "test_a_payment_counts_once", "rows after a block that came twice"),
    (_TakesTheMoneyOfOthers, "test_a_block_that_is_not_about_us_changes_no_coins", "balance of strangers' payments"),
    (_MinersPayAtOnce, "test_coinbase_needs_100_blocks", "early"),
    (_PaysHalfTheFee, "test_funding_is_exact_and_locks", "a fee of .* sat, where .* is the least"),
    (_LocksNothing, "test_funding_is_exact_and_locks", "locked: got 0"),
    (_HidesWhatItSpends, "test_taproot_coins_are_spent_too", "has no previous tx"),
    (_BeginsClaimsAnew, "test_the_same_claim_gives_the_same_transaction", "the same claim again"),
    (_LocksNothing, "test_locked_coins_are_not_chosen_again_until_released", "a locked coin was chosen again"),
    (
        _IgnoresLateBlocks,
        "test_what_a_late_watch_brings_counts_as_if_it_had_come_in_time",
        "brought: got 0",
    ),
    (_WritesWhatItKnows, "test_saying_again_what_is_known_changes_nothing", "after saying it again"),
    (_ForgetsClaims, "test_claims_survive_a_restart_and_can_then_be_released", "claims after a restart"),
    (_IgnoresWhatIsUnconfirmed, "test_our_unconfirmed_change_counts_and_can_be_spent", "with unconfirmed change"),
    (_ForgetsWhatIsSpent, "test_coins_stay_known_until_their_spending_is_deep", "spent 101 blocks ago"),
    (_TrustsStrangers, "test_what_strangers_can_take_back_is_not_spent", not_raised(InsufficientFunds)),
    (_NothingIsEverReplaced, "test_a_replaced_transaction_counts_no_more", "after a replacement: got 170000"),
    (_NothingIsEverReplaced, "test_what_a_replaced_transaction_carried_falls_with_it", "what it built on: got 165000"),
    (_SpendsChangeFirst, "test_confirmed_coins_come_first", "spent unconfirmed change without need"),
    (_BeginsClaimsAnew, "test_a_claim_never_takes_more_coins", not_raised(InsufficientFunds)),
    (_CallsAllCoinsFree, "test_coins_say_what_can_be_done_with_them", "state, claim and height of each coin"),
    (_ChoosesForItself, "test_exactly_the_coins_asked_for_are_spent", "coins spent, of those asked for"),
    (_KeepsNoReserve, "test_a_reserve_of_confirmed_coins_stays", not_raised(ReserveNeeded)),
    (
        _KeepsAReserveOfChange,
        "test_unconfirmed_change_is_no_reserve_for_the_next_transaction",
        not_raised(ReserveNeeded),
    ),
    (_ReplacesWithOtherCoins, "test_a_replacement_pays_the_same_with_more_fee", "coins of the replacement"),
    (_ReplacesForTooLittle, "test_a_replacement_pays_for_its_relay", r"\d+ sat replace \d+ sat"),
    (_KeepsNoReserve, "test_a_replacement_takes_further_coins_if_it_must", not_raised(ReserveNeeded)),
    (_LocksNothing, "test_what_something_builds_on_is_not_replaced", not_raised(CannotBump)),
    (_ChildPaysForItself, "test_a_child_pays_for_its_parent", r"\d+ sat for a weight of \d+"),
    (_KeepsNoReserve, "test_a_child_takes_further_coins_if_it_must", not_raised(ReserveNeeded)),
    (_BumpsAnything, "test_what_cannot_be_bumped", not_raised(CannotBump)),
    (_IgnoresReorgs, "test_a_disconnect_undoes_payments", "after blocks were disconnected: got 70000"),
    (_ForgetsItsOwn, "test_a_disconnect_makes_our_own_unconfirmed_again", "as before the block"),
    (
        _NothingIsEverReplaced,
        "test_our_own_transaction_without_its_coin_counts_for_nothing",
        "without the coin that it spends",
    ),
    (_StoresNothingUnconfirmed, "test_rows_are_the_whole_truth", "after a restart"),
]
ARGUMENTS = {"test_funding_is_exact_and_locks": (30_000,)}
"""Of tests that have parameters."""


async def attempt(wallet: OnchainWallet, test: str) -> None:
    bench = Bench(wallet)
    await bench.load()
    await getattr(WalletSuite(), test)(bench, *ARGUMENTS.get(test, ()))


@pytest.mark.parametrize(("broken", "test", "says"), BROKEN)
async def test_the_suite_catches_broken_wallets(broken: type[OnchainWallet], test: str, says: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)) as caught:
        await attempt(broken(), test)
    assert re.search(says, str(caught.value)), str(caught.value)
    await attempt(OnchainWallet(), test)  # and not because of how it is called here


def test_every_test_of_the_kit_has_a_wallet_that_it_catches() -> None:
    assert {test for _, test, _ in BROKEN} == {name for name in dir(WalletSuite) if name.startswith("test_")}
