"""The regtest chain source, over a real socket and in process, against the conformance suite."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from leyden.bitcoin import merkle_branch
from leyden.crypto import sha256d
from leyden.hooks.types import BlockConnected, BlockTransaction, ChainEvent
from leyden.testing.chain import (
    AbsentBackendSuite,
    BackendSwitch,
    ChainBed,
    ChainSourceSuite,
    Lie,
    LyingBackendSuite,
    SlowBackendSuite,
)
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.client import RegtestClient
from leyden_regtest.inprocess import InProcessChain
from leyden_regtest.server import ChainServer
from msgspec.structs import replace

from tests.contract.regtest_bed import DirectControl, SocketControl, server_process


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


class TestOverSocket(ChainSourceSuite, AbsentBackendSuite):
    @pytest.fixture
    async def bed(self, chain: EmbeddedChain) -> AsyncIterator[ChainBed]:
        with tempfile.TemporaryDirectory() as folder:  # short path, mode 0700
            path = Path(folder) / "chain.sock"
            server = ChainServer(chain, path)
            await server.start()
            power = BackendSwitch(off=server.close, on=server.start)
            yield ChainBed(make_source=lambda: RegtestClient(path), control=DirectControl(chain), power=power)
            await server.close()


class TestServerProcess(AbsentBackendSuite, SlowBackendSuite):
    """The server as a process: killed with SIGKILL, frozen with SIGSTOP."""

    @pytest.fixture
    async def bed(self) -> AsyncIterator[ChainBed]:
        with tempfile.TemporaryDirectory() as folder:
            async with server_process(Path(folder)) as server:
                path = server.socket
                yield ChainBed(
                    make_source=lambda: RegtestClient(path),
                    control=SocketControl(path),
                    power=server.power,
                    freeze=server.freeze,
                )


# -- liars -------------------------------------------------------------------------------------------------------------


class _Liar(InProcessChain):
    """Says something false about each block, in a way that it was told."""

    def __init__(self, chain: EmbeddedChain, lie: Callable[[BlockConnected], BlockConnected]) -> None:
        super().__init__(chain, FeeRatePerKw(1000))
        self._lie = lie

    async def events(self) -> AsyncIterator[ChainEvent]:
        async for event in super().events():
            yield self._lie(event) if isinstance(event, BlockConnected) else event


def _without_a_transaction(block: BlockConnected) -> BlockConnected:
    return replace(block, transactions=block.transactions[:-1])


def _with_a_transaction_changed(block: BlockConnected) -> BlockConnected:
    last = block.transactions[-1]
    changed = replace(last, tx=replace(last.tx, locktime=last.tx.locktime + 1))
    return replace(block, transactions=(*block.transactions[:-1], changed))


def _with_a_false_proof(block: BlockConnected) -> BlockConnected:
    """As a server that only proves: a transaction that is not there, with the branch of another."""
    txids = [item.tx.txid for item in block.transactions]
    invented = replace(block.transactions[-1].tx, locktime=7)
    branch = tuple(merkle_branch(txids, len(txids) - 1))
    return replace(block, full=False, transactions=(BlockTransaction(position=0, tx=invented, branch=branch),))


def _without_work(block: BlockConnected) -> BlockConnected:
    """A header that nobody has worked for: the bits of the easiest target are met by every second hash."""
    for nonce in range(1_000):
        header = block.header[:76] + nonce.to_bytes(4, "little")
        if int.from_bytes(sha256d(header), "little") >> 255:
            return replace(block, header=header, block_hash=BlockHash(sha256d(header)))
    raise AssertionError("no bad nonce")


def _with_another_hash(block: BlockConnected) -> BlockConnected:
    return replace(block, block_hash=BlockHash(bytes(32)))


def _with_another_height(block: BlockConnected) -> BlockConnected:
    return replace(block, height=BlockHeight(block.height + 1))


LIES = [_without_a_transaction, _with_a_transaction_changed, _with_a_false_proof, _without_work, _with_another_hash]
LIES += [_with_another_height]


class TestLies(LyingBackendSuite):
    """The core sees through them: a source may be nothing but a pipe."""

    @pytest.fixture
    def bed(self, chain: EmbeddedChain) -> ChainBed:
        def lie(how: Callable[[BlockConnected], BlockConnected]) -> Lie:
            return Lie(name=how.__name__, make_source=lambda: _Liar(chain, how))

        return ChainBed(
            make_source=lambda: InProcessChain(chain, FeeRatePerKw(1000)),
            control=DirectControl(chain),
            lies=[lie(how) for how in LIES],
        )
