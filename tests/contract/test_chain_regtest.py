"""The regtest chain source, over a real socket and in process, against the conformance suite."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from leyden.bitcoin import Transaction
from leyden.hooks.types import BlockConnected, BlocksDisconnected, ChainEvent
from leyden.testing.chain import ChainBed, ChainSourceSuite
from leyden.testing.chain import driver as driving
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, Sat
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.client import RegtestClient
from leyden_regtest.inprocess import InProcessChain
from leyden_regtest.server import ChainServer


class DirectControl:
    """The chain is in this process in both beds; only the source under test differs."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self.chain = chain

    async def tip(self) -> tuple[BlockHeight, BlockHash]:
        return self.chain.height, self.chain.tip_hash

    async def mine(self, blocks: int) -> None:
        self.chain.mine(blocks)

    async def reorg(self, depth: int, blocks: int) -> None:
        self.chain.reorg(depth, blocks, forget=True)

    async def pay(self, script: bytes, value: Sat) -> Transaction:
        return self.chain.faucet(script, value)

    async def submit(self, tx: Transaction) -> None:
        self.chain.submit([tx])


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmbeddedChain]:
    with EmbeddedChain(tmp_path / "chain") as chain:
        yield chain


class TestInProcess(ChainSourceSuite):
    @pytest.fixture
    def bed(self, chain: EmbeddedChain) -> ChainBed:
        return ChainBed(
            make_source=lambda: InProcessChain(chain, FeeRatePerKw(1000)),
            control=DirectControl(chain),
        )


class TestOverSocket(ChainSourceSuite):
    @pytest.fixture
    async def bed(self, chain: EmbeddedChain) -> AsyncIterator[ChainBed]:
        with tempfile.TemporaryDirectory() as folder:  # short path, mode 0700
            path = Path(folder) / "chain.sock"
            server = ChainServer(chain, path)
            await server.start()
            yield ChainBed(make_source=lambda: RegtestClient(path), control=DirectControl(chain))
            await server.close()


class _HidesReorgs(InProcessChain):
    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            if not isinstance(event, BlocksDisconnected):
                yield event


class _LeavesOut(InProcessChain):
    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            if isinstance(event, BlockConnected):
                event = msgspec.structs.replace(event, full=False, transactions=event.transactions[:1])
            yield event


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (_HidesReorgs, "test_reorg_while_following"),
        (_HidesReorgs, "test_reorg_while_away"),
        (_LeavesOut, "test_watched_payment_and_spend_are_delivered_with_position"),
    ],
)
async def test_the_suite_catches_broken_sources(
    chain: EmbeddedChain, monkeypatch: pytest.MonkeyPatch, broken: type[InProcessChain], test: str
) -> None:
    monkeypatch.setattr(driving, "TIMEOUT", 0.3)
    bed = ChainBed(make_source=lambda: broken(chain, FeeRatePerKw(1000)), control=DirectControl(chain))
    with pytest.raises((AssertionError, TimeoutError)):
        await getattr(ChainSourceSuite(), test)(bed)
