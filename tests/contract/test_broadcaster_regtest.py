"""Broadcasters on the embedded chain, in process and over the socket, against the conformance suite."""

import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from leyden.bitcoin import Transaction
from leyden.hooks.types import BroadcastKind, BroadcastResult
from leyden.testing import broadcaster as suite
from leyden.testing.broadcaster import AbsentBroadcasterSuite, BroadcasterBed, BroadcasterSuite
from leyden.types import FeeRatePerKw
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.client import RegtestClient
from leyden_regtest.errors import TransactionRefused
from leyden_regtest.inprocess import InProcessChain

from tests.contract.regtest_bed import DirectControl, SocketControl, server_process


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmbeddedChain]:
    with EmbeddedChain(tmp_path / "chain") as chain:
        yield chain


class TestInProcess(BroadcasterSuite):
    @pytest.fixture
    def bed(self, chain: EmbeddedChain) -> BroadcasterBed:
        return BroadcasterBed(
            make_broadcaster=lambda: InProcessChain(chain, FeeRatePerKw(1000)), control=DirectControl(chain)
        )


class TestOverSocket(BroadcasterSuite, AbsentBroadcasterSuite):
    @pytest.fixture
    async def bed(self) -> AsyncIterator[BroadcasterBed]:
        with tempfile.TemporaryDirectory() as folder:  # short path, mode 0700
            async with server_process(Path(folder)) as server:
                yield BroadcasterBed(
                    make_broadcaster=lambda: RegtestClient(server.socket),
                    control=SocketControl(server.socket),
                    power=server.power,
                )


# -- the suite itself --------------------------------------------------------------------------------------------------


class _Broken:
    def __init__(self, chain: EmbeddedChain) -> None:
        self.chain = chain
        self.sent: set[bytes] = set()

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        raise NotImplementedError

    def submit(self, package: Sequence[Transaction]) -> BroadcastResult:
        try:
            self.chain.submit(package)
        except TransactionRefused as error:
            return BroadcastResult(accepted=False, reason=str(error))
        return BroadcastResult(accepted=True)


class _Raises(_Broken):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        self.chain.submit(package)
        return BroadcastResult(accepted=True)


class _ForgetsTheChild(_Broken):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        return self.submit(package[:1])


class _TakesAll(_Broken):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        self.submit(package)
        return BroadcastResult(accepted=True)


class _SendsNothing(_Broken):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        return BroadcastResult(accepted=True)


class _RefusesWhatIsKnown(_Broken):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        if package[-1].txid in self.sent:
            return BroadcastResult(accepted=False, reason="txn-already-known")
        self.sent.add(package[-1].txid)
        return self.submit(package)


class _SaysNothing(_Broken):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        result = self.submit(package)
        return result if result.accepted else BroadcastResult(accepted=False)


@pytest.mark.no_kernel_verdict("some of these let invalid transactions pass on purpose")
@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (_Raises, "test_inputs_that_nobody_knows"),
        (_Raises, "test_too_low_a_fee"),
        (_Raises, "test_what_breaks_the_rules"),
        (_ForgetsTheChild, "test_a_package_of_parent_and_child"),
        (_ForgetsTheChild, "test_a_package_whose_parent_is_confirmed"),
        (_ForgetsTheChild, "test_a_child_that_pays_for_its_parent"),
        (_TakesAll, "test_a_conflict_with_a_block"),
        (_TakesAll, "test_a_conflict_that_pays_less_and_one_that_pays_more"),
        (_TakesAll, "test_too_early"),
        (_TakesAll, "test_many_at_the_same_time_get_their_own_answers"),
        (_SendsNothing, "test_what_is_accepted_is_in_the_next_block"),
        (_SendsNothing, "test_an_unconfirmed_chain_sent_one_by_one"),
        (_RefusesWhatIsKnown, "test_what_is_known_or_confirmed_already_is_accepted"),
        (_RefusesWhatIsKnown, "test_a_cancelled_broadcast_leaves_it_in_order"),
        (_SaysNothing, "test_too_low_a_fee"),
    ],
)
async def test_the_suite_catches_broken_broadcasters(chain: EmbeddedChain, broken: type[_Broken], test: str) -> None:
    bed = BroadcasterBed(make_broadcaster=lambda: broken(chain), control=DirectControl(chain))
    with pytest.raises((AssertionError, TransactionRefused)):
        await getattr(suite.BroadcasterSuite(), test)(bed)
