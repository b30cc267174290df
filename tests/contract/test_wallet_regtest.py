"""The wallet on a chain with real consensus rules, with a signer that really signs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.bitcoin import Network, Transaction, finalize_psbt, parse_psbt, take_signatures
from leyden.hooks.services import InsufficientFunds
from leyden.hooks.signing import SignPsbt, SpendPurpose
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    DestinationPurpose,
    FundedTransaction,
    SourceSynced,
)
from leyden.testing.wallet import PREFIX, Bench, check_funded, stranger
from leyden.types import BlockHeight, FeeRatePerKw, Sat
from leyden_inmemory.manager import InMemoryKeyManager
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.errors import TransactionRefused
from leyden_regtest.inprocess import InProcessChain
from leyden_wallet import OnchainWallet

RELAY_FLOOR = FeeRatePerKw(253)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmbeddedChain]:
    with EmbeddedChain(tmp_path / "chain") as chain:
        yield chain


class RealBench(Bench):
    """The suite's bench, fed by a chain source and signing with keys in memory."""

    def __init__(self, chain: EmbeddedChain) -> None:
        super().__init__(OnchainWallet())
        self.chain = chain
        self.keys = InMemoryKeyManager(bytes(range(32)), Network.REGTEST)
        self.source = InProcessChain(chain, RELAY_FLOOR)
        self.events = self.source.events()

    async def start(self) -> None:
        await self.wallet.load(PREFIX, sorted(self.rows.items()), self.keys)
        await self.source.start([], BlockHeight(0))
        await self.sync()

    async def sync(self) -> None:
        """Follow the source to the tip of the chain."""
        async for event in self.events:
            if isinstance(event, BlockConnected):
                self.height = event.height
                self.keep(self.wallet.on_block_connected(event))
            elif isinstance(event, BlocksDisconnected):
                self.keep(self.wallet.on_blocks_disconnected(event))
            elif isinstance(event, SourceSynced) and event.block_hash == self.chain.tip_hash:
                return

    async def mine(self, blocks: int = 1) -> None:  # type: ignore[override]  # blocks of a source are waited for
        self.chain.mine(blocks)
        await self.sync()

    async def receive(self, *values: int) -> None:
        for value in values:
            self.chain.faucet(self.script(), Sat(value))
        await self.mine()

    async def signed(self, funded: FundedTransaction) -> Transaction:
        request = SignPsbt(request_id="test", psbt=funded.psbt, purpose=SpendPurpose.WITHDRAWAL)
        signed = parse_psbt(await self.keys.sign_psbt(request))
        return finalize_psbt(take_signatures(parse_psbt(funded.psbt), signed))

    async def send(
        self, claim: str, value: int, feerate: FeeRatePerKw = RELAY_FLOOR
    ) -> tuple[FundedTransaction, Transaction]:
        funded = self.fund(claim, (value, stranger(value)), feerate=feerate)
        check_funded(funded, [(value, stranger(value))], feerate)
        tx = await self.signed(funded)
        self.broadcast(tx)
        self.chain.submit([tx])
        return funded, tx


async def test_coins_come_and_go(chain: EmbeddedChain) -> None:
    bench = RealBench(chain)
    await bench.start()
    await bench.receive(100_000, 60_000, 25_000)
    assert bench.wallet.balance().confirmed == 185_000

    first, tx = await bench.send("many inputs, change", 150_000)
    assert len(tx.inputs) > 1
    assert 1000 * first.fee >= RELAY_FLOOR * tx.weight
    second, _ = await bench.send("unconfirmed change", 10_000)
    await bench.mine()
    left = 185_000 - 160_000 - first.fee - second.fee
    assert bench.wallet.balance().confirmed == left
    with pytest.raises(InsufficientFunds):
        bench.fund("too much", (left, stranger(1)))
    third, _ = await bench.send("all of it", left - 500)
    await bench.mine()
    assert third.change_index is None
    assert bench.total() == 0
    assert sum(bench.wallet.history().values()) == 0


async def test_a_miners_coins_ripen(chain: EmbeddedChain) -> None:
    bench = RealBench(chain)
    await bench.start()
    chain.mine(1, bench.script())
    await bench.mine(98)
    assert bench.wallet.balance().confirmed == 0
    with pytest.raises(InsufficientFunds):
        bench.fund("early", (1000, stranger(1)))
    await bench.mine()
    await bench.send("ripe", 1000)
    await bench.mine()
    assert bench.wallet.balance().confirmed > 0


async def test_a_reorg_returns_our_transaction_to_the_mempool(chain: EmbeddedChain) -> None:
    bench = RealBench(chain)
    await bench.start()
    await bench.receive(100_000)
    funded, _ = await bench.send("claim", 30_000)
    left = 70_000 - funded.fee
    await bench.mine()
    assert bench.wallet.balance().confirmed == left
    chain.reorg(1)
    await bench.sync()
    balance = bench.wallet.balance()
    assert (balance.confirmed, balance.unconfirmed) == (0, left)
    await bench.mine()
    assert bench.wallet.balance().confirmed == left


async def test_every_purpose_can_be_spent(chain: EmbeddedChain) -> None:
    bench = RealBench(chain)
    await bench.start()
    for purpose in DestinationPurpose:
        chain.faucet(bench.script(purpose), Sat(50_000))
    await bench.mine()
    _, tx = await bench.send("sweep", 50_000 * len(DestinationPurpose) - 10_000)
    assert len(tx.inputs) == len(DestinationPurpose)
    await bench.mine()
    assert bench.wallet.balance().confirmed < 10_000


async def test_taproot_alone_and_its_weight(chain: EmbeddedChain) -> None:
    """The feerate is met to the weight unit: a taproot witness has no slack."""
    bench = RealBench(chain)
    await bench.start()
    for value in (50_000, 60_000):
        chain.faucet(bench.script(DestinationPurpose.RECEIVE_TAPROOT), Sat(value))
    await bench.mine()
    funded, tx = await bench.send("all", 100_000, FeeRatePerKw(1_000))
    assert len(tx.inputs) == 2
    assert funded.fee == -(-1_000 * tx.weight // 1000)
    await bench.mine()
    assert bench.wallet.balance().confirmed == 10_000 - funded.fee


async def test_a_seed_and_the_chain_are_enough(chain: EmbeddedChain) -> None:
    bench = RealBench(chain)
    await bench.start()
    await bench.receive(100_000, 60_000)
    await bench.send("spend", 30_000)
    await bench.mine()
    restored = RealBench(chain)
    await restored.start()
    assert restored.total() == bench.total()
    assert restored.wallet.history() == bench.wallet.history()


async def test_a_replacement_is_mined_instead(chain: EmbeddedChain) -> None:
    """Accepted by a mempool that knows the replacement rules, and it is the one in the block."""
    bench = RealBench(chain)
    await bench.start()
    await bench.receive(100_000, 60_000)
    first, old = await bench.send("first", 80_000)
    second = bench.bump("second", old.txid, 2_000)
    new = await bench.signed(second)
    bench.broadcast(new)
    chain.submit([new])
    assert chain.find_transaction(old.txid) is None
    assert 1000 * second.fee >= 2_000 * new.weight
    third = bench.bump("third", new.txid, 2_010)  # hardly more: as much as the mempool asks for
    newest = await bench.signed(third)
    bench.broadcast(newest)
    chain.submit([newest])
    await bench.mine()
    found = chain.find_transaction(newest.txid)
    assert found is not None
    assert found[1] is not None
    assert chain.find_transaction(new.txid) is None
    assert bench.wallet.balance().confirmed == 80_000 - third.fee
    assert first.fee < second.fee < third.fee


async def test_a_child_brings_its_parent_in(chain: EmbeddedChain) -> None:
    """The parent pays less than the mempool takes; with the child it is a package that it takes."""
    bench = RealBench(chain)
    await bench.start()
    await bench.receive(100_000)
    funded = bench.fund("parent", (30_000, stranger(1)), feerate=FeeRatePerKw(10))
    parent = await bench.signed(funded)
    bench.broadcast(parent)
    with pytest.raises(TransactionRefused):
        chain.submit([parent])
    paying = bench.bump("child", parent.txid, 1_500, cpfp=True)
    child = await bench.signed(paying)
    bench.broadcast(child)
    with pytest.raises(TransactionRefused):
        chain.submit([child])
    chain.submit([parent, child])
    assert 1000 * (funded.fee + paying.fee) >= 1_500 * (parent.weight + child.weight)
    await bench.mine()
    assert bench.wallet.balance().confirmed == 70_000 - funded.fee - paying.fee


async def test_taproot_change_of_fees(chain: EmbeddedChain) -> None:
    """Taproot coins are replaced and sped up like the others."""
    bench = RealBench(chain)
    await bench.start()
    chain.faucet(bench.script(DestinationPurpose.RECEIVE_TAPROOT), Sat(100_000))
    await bench.mine()
    _, old = await bench.send("first", 30_000)
    new = await bench.signed(bench.bump("second", old.txid, 1_000))
    bench.broadcast(new)
    chain.submit([new])
    child = await bench.signed(bench.bump("third", new.txid, 5_000, cpfp=True))
    bench.broadcast(child)
    chain.submit([child])
    await bench.mine()
    assert bench.wallet.balance().unconfirmed == 0
    assert chain.find_transaction(child.txid) is not None
