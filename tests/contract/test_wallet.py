"""The built-in wallet against the conformance suite of wallets, and what is special about it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from leyden.bitcoin import Network, p2tr, p2wsh
from leyden.hooks.registry import ServiceContext, load_plugins
from leyden.hooks.services import NoDestination, Wallet
from leyden.hooks.types import Destination, DestinationPurpose, FundedTransaction
from leyden.testing.wallet import (
    FEERATE,
    PREFIX,
    Bench,
    FixedDestinations,
    WalletSuite,
    check_funded,
    coinbase,
    payment,
    stranger,
    transaction,
)
from leyden.types import BlockHeight, FeeRatePerKw, LeydenError, OutPoint
from leyden_wallet import OnchainWallet, WalletError
from leyden_wallet.destinations import LOOK_AHEAD
from leyden_wallet.rows import DESTINATION, RAW, StoredDestination, encode_row


@pytest.fixture
def new_wallet() -> Callable[[], Wallet]:
    return OnchainWallet


@pytest.fixture
async def bench() -> Bench:
    bench = Bench(OnchainWallet())
    await bench.load()
    return bench


def built_in(bench: Bench) -> OnchainWallet:
    assert isinstance(bench.wallet, OnchainWallet)
    return bench.wallet


class TestOnchainWallet(WalletSuite):
    pass


def test_is_found_by_its_name(tmp_path: Path) -> None:
    registry = load_plugins(["wallet"])
    wallet = registry.make("wallet", "wallet", {}, ServiceContext(folder=tmp_path, network=Network.REGTEST))
    assert isinstance(wallet, OnchainWallet)


async def test_restores_from_the_chain_alone(bench: Bench) -> None:
    """Every script of a gap limit's distance is found in one pass, even when a block pays to many in a row."""
    scripts = [bench.script() for _ in range(3 * LOOK_AHEAD)]
    blocks = [payment(n, (1000, script)) for n, script in enumerate(scripts)]
    restored = Bench(OnchainWallet())
    await restored.load()
    restored.connect(*blocks)
    assert restored.total() == 1000 * len(scripts)
    assert restored.script() not in scripts
    again = dict(restored.rows)
    await restored.load()
    assert restored.total() == 1000 * len(scripts)
    assert restored.rows == again


class SlowDevice(FixedDestinations):
    """Answers, but not at once."""

    async def destination(self, purpose: DestinationPurpose, index: int) -> Destination:
        await asyncio.sleep(0)
        return await super().destination(purpose, index)


async def test_a_slow_device_is_asked_ahead() -> None:
    bench = Bench(OnchainWallet())
    bench.destinations = SlowDevice()
    await bench.load()
    given = {bench.script() for _ in range(LOOK_AHEAD)}
    with pytest.raises(WalletError):
        bench.script()
    await asyncio.gather(bench.wallet.top_up(), bench.wallet.top_up())
    given |= {bench.script() for _ in range(LOOK_AHEAD)}
    assert len(given) == 2 * LOOK_AHEAD


async def test_only_scripts_that_our_key_alone_spends_count() -> None:
    """A destination may be a script that we cannot sign for, such as a multisig of a cold wallet."""

    class Elsewhere(FixedDestinations):
        async def destination(self, purpose: DestinationPurpose, index: int) -> Destination:
            known = await super().destination(purpose, index)
            script = p2wsh(known.pubkey) if index % 2 else p2tr(known.pubkey[1:])
            return msgspec.structs.replace(known, script=script)

    bench = Bench(OnchainWallet())
    bench.destinations = Elsewhere()
    await bench.load()
    bench.connect(payment(1, (10_000, bench.script()), (10_000, bench.script())))
    assert bench.total() == 0


async def test_keys_without_taproot() -> None:
    class Plain(FixedDestinations):
        async def destination(self, purpose: DestinationPurpose, index: int) -> Destination:
            if purpose is DestinationPurpose.RECEIVE_TAPROOT:
                raise NoDestination("this device has no taproot keys")
            return await super().destination(purpose, index)

    bench = Bench(OnchainWallet())
    bench.destinations = Plain()
    await bench.load()
    with pytest.raises(WalletError, match="this device has no taproot keys"):
        bench.script(DestinationPurpose.RECEIVE_TAPROOT)
    bench.connect(payment(1, (10_000, bench.script())))
    assert bench.total() == 10_000


async def test_rows_without_keys_are_completed(bench: Bench) -> None:
    """The first rows of a destination had its script and path only."""
    script = bench.script()
    (key,) = [key for key in bench.rows if key[1:2] == DESTINATION]
    path = (list(DestinationPurpose).index(DestinationPurpose.RECEIVE), 0)
    bench.rows[key] = encode_row(StoredDestination(script=script, path=path))
    await bench.load()
    bench.connect(payment(1, (10_000, script)))
    check_funded(bench.fund("claim", (5_000, stranger(1))), [(5_000, stranger(1))], FEERATE)


async def test_transactions_behind_coins_are_kept_while_needed(bench: Bench) -> None:
    bench.connect(payment(1, (100_000, bench.script())))
    funded = bench.fund("claim", (30_000, stranger(1)))
    bench.broadcast(funded.tx)
    bench.connect(funded.tx)
    kept = {key[2:] for key in bench.rows if key[1:2] == RAW}
    assert kept == {bench.blocks[0].transactions[0].tx.txid, funded.tx.txid}
    bench.mine(99)
    assert {key[2:] for key in bench.rows if key[1:2] == RAW} == kept
    bench.mine(1)
    assert {key[2:] for key in bench.rows if key[1:2] == RAW} == {funded.tx.txid}
    await bench.load()
    check_funded(bench.fund("next", (30_000, stranger(1))), [(30_000, stranger(1))], FEERATE)


async def test_dust_is_not_paid_out(bench: Bench) -> None:
    bench.connect(payment(1, (10_000, bench.script())))
    with pytest.raises(WalletError):
        bench.fund("claim", (293, stranger(1)))


async def test_used_before_loaded() -> None:
    with pytest.raises(WalletError):
        OnchainWallet().next_destination(DestinationPurpose.RECEIVE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"t" + bytes(32), b"\x02"),
        (b"t" + bytes(32), b"\x01\x07\x05hello"),
        (b"z", b"\x01"),
        (b"a\x00\x00\x00\x00\x05", b"\x01\x01\x00"),
    ],
)
async def test_rows_of_a_newer_program_or_damaged_ones(key: bytes, value: bytes) -> None:
    with pytest.raises(LeydenError) as caught:
        await OnchainWallet().load(PREFIX, [(PREFIX + key, value)], FixedDestinations())
    assert "\n" not in str(caught.value)


async def test_abandoned_transactions_give_their_coins_back(bench: Bench) -> None:
    bench.connect(payment(1, (100_000, bench.script())))
    funded = bench.fund("claim", (30_000, stranger(1)))
    bench.broadcast(funded.tx)
    bench.keep(built_in(bench).abandon(funded.tx.txid))
    bench.keep(built_in(bench).abandon(funded.tx.txid))
    assert bench.wallet.balance().confirmed == 100_000
    assert built_in(bench).claims() == ("claim",)


async def test_claims_of_long_spent_coins_are_forgotten(bench: Bench) -> None:
    bench.connect(payment(1, (100_000, bench.script())))
    funded = bench.fund("claim", (30_000, stranger(1)))
    bench.broadcast(funded.tx)
    bench.connect(funded.tx)
    bench.mine(99)
    assert built_in(bench).claims() == ("claim",)
    bench.mine(1)
    assert built_in(bench).claims() == ()
    await bench.load()
    assert built_in(bench).claims() == ()


async def test_a_mutual_close_that_lost_to_another_close(bench: Bench) -> None:
    """The chain spends the same funding output in another way that pays us nothing: our version is worth nothing."""
    funding = OutPoint(payment(9, (1, stranger(9))).txid, 0)
    ours = transaction([funding], [(60_000, bench.script(DestinationPurpose.SHUTDOWN))])
    bench.broadcast(ours)
    assert bench.total() == 60_000
    bench.connect(transaction([funding], [(59_000, stranger(1))]))
    assert bench.total() == 0
    assert ours.txid not in bench.wallet.history()
    bench.disconnect(0)
    assert bench.total() == 60_000


async def test_a_change_too_small_goes_to_the_fee(bench: Bench) -> None:
    bench.connect(payment(1, (10_000, bench.script())))
    probe = bench.fund("probe", (5_000, stranger(1)))
    bench.keep(bench.wallet.release("probe"))
    largest = 5_000 + probe.tx.outputs[probe.change_index or 0].value if probe.change_index is not None else 0
    funded = bench.fund("claim", (largest - 100, stranger(1)))
    assert funded.change_index is None
    assert funded.fee == 10_000 - (largest - 100)


async def test_a_spend_that_nobody_made_takes_no_script_with_it(bench: Bench) -> None:
    """Else many refused ones leave a gap in which a restored seed does not look for the change that comes after."""
    bench.connect(payment(1, (100_000, bench.script()), (100_000, bench.script())))
    first = change_of(bench.fund("refused", (30_000, stranger(1))))
    for _ in range(2 * LOOK_AHEAD):
        bench.keep(bench.wallet.release("refused"))
        await bench.load()
        assert change_of(bench.fund("refused", (30_000, stranger(1)))) == first


async def test_a_script_that_something_pays_is_not_handed_out_again(bench: Bench) -> None:
    bench.connect(payment(1, *[(100_000, bench.script()) for _ in range(4)]))
    sent = bench.fund("sent", (30_000, stranger(1)))
    bench.broadcast(sent.tx)
    bench.keep(bench.wallet.release("sent"))
    used = {change_of(sent)}
    for name in ("held", "released"):  # not the last one handed out: it stays where it is
        used.add(change_of(bench.fund(name, (30_000, stranger(1)))))
    bench.keep(bench.wallet.release("held"))
    used.add(change_of(bench.fund("later", (30_000, stranger(1)))))
    assert len(used) == 4


async def test_a_replacement_that_nobody_made_leaves_the_change_where_it_was(bench: Bench) -> None:
    bench.connect(payment(1, *[(100_000, bench.script()) for _ in range(2)]))
    sent = bench.fund("sent", (30_000, stranger(1)))
    bench.broadcast(sent.tx)
    raised, changes = bench.wallet.replace("raised", sent.tx.txid, FeeRatePerKw(4 * FEERATE), BlockHeight(1))
    bench.keep(changes)
    assert change_of(raised) == change_of(sent)
    bench.keep(bench.wallet.release("raised"))
    assert change_of(bench.fund("next", (30_000, stranger(1)))) != change_of(sent)


async def test_a_claim_holds_its_coins_again_when_nobody_made_its_replacement(bench: Bench) -> None:
    bench.connect(payment(1, (100_000, bench.script()), (90_000, bench.script())))
    sent = bench.fund("sent", (150_000, stranger(1)))
    bench.broadcast(sent.tx)
    for claim in ("raised", "late"):  # before and after the other in the order of rows
        _, changes = bench.wallet.replace(claim, sent.tx.txid, FeeRatePerKw(4 * FEERATE), BlockHeight(1))
        bench.keep(changes)
        if claim == "late":
            await bench.load()
        bench.keep(bench.wallet.release(claim))
        assert bench.wallet.claims() == ("sent",)
        taken, other = (txin.prevout for txin in sent.tx.inputs)
        bench.connect(transaction([taken], [(50_000, stranger(2))]))
        assert [(coin.outpoint, coin.claim) for coin in bench.wallet.coins()] == [(other, "sent")]
        bench.disconnect(1)
    bench.keep(bench.wallet.release("sent"))
    assert bench.wallet.claims() == ()


async def test_nobody_builds_on_what_is_about_to_be_replaced(bench: Bench) -> None:
    """Whatever else leaves meanwhile; once it is replaced nothing is left to be held, and a block may still have it."""
    bench.connect(payment(1, *[(100_000, bench.script()) for _ in range(2)]))
    sent = bench.fund("sent", (30_000, stranger(1)))
    bench.broadcast(sent.tx)
    raised = bench.bump("raised", sent.tx.txid, 4 * FEERATE)
    bench.broadcast(bench.fund("other", (60_000, stranger(2))).tx)
    change = OutPoint(sent.tx.txid, sent.change_index or 0)
    assert {coin.outpoint: coin.claim for coin in bench.wallet.coins()}[change] == "raised"
    bench.broadcast(raised.tx)
    bench.connect(sent.tx)
    assert {coin.outpoint: coin.claim for coin in bench.wallet.coins()}[change] == ""


def change_of(funded: FundedTransaction) -> bytes:
    assert funded.change_index is not None
    return funded.tx.outputs[funded.change_index].script


async def test_blocks_may_come_late(bench: Bench) -> None:
    """A watch that was added late makes the source deliver an old block again, with what it had not matched before."""
    script = bench.script()
    bench.connect()
    bench.mine(5)
    late = bench.blocks[0]
    filled = type(late)(
        height=late.height,
        block_hash=late.block_hash,
        header=late.header,
        transactions=(*late.transactions,),
        full=False,
    )
    bench.keep(bench.wallet.on_block_connected(filled))
    bench.disconnect(0)
    bench.connect(coinbase(1, (5000, script)))
    assert bench.wallet.balance().immature == 5000
