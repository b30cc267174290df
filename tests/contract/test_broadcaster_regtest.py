"""Broadcasters on the embedded chain, in process and over the socket, against the conformance suite."""

import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from leyden.bitcoin import Transaction
from leyden.hooks.types import BroadcastKind, BroadcastRefusal, BroadcastResult
from leyden.testing.broadcaster import AbsentBroadcasterSuite, BroadcasterBed, BroadcasterSuite
from leyden.testing.chain import BackendSwitch
from leyden.types import FeeRatePerKw
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.client import RegtestClient
from leyden_regtest.errors import TransactionRefused
from leyden_regtest.inprocess import InProcessChain
from msgspec.structs import replace

from tests.contract.regtest_bed import DirectControl, SocketControl, server_process


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[EmbeddedChain]:
    with EmbeddedChain(tmp_path / "chain") as chain:
        yield chain


class TestInProcess(BroadcasterSuite):
    @pytest.fixture
    def bed(self, chain: EmbeddedChain) -> BroadcasterBed:
        return BroadcasterBed(
            make_broadcaster=lambda: InProcessChain(chain, FeeRatePerKw(1000)),
            control=DirectControl(chain),
            says_kind=True,
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
                    says_kind=True,
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
            return BroadcastResult(accepted=False, reason="txn-already-known", refusal=BroadcastRefusal.INVALID)
        self.sent.add(package[-1].txid)
        return self.submit(package)


class _SaysNothing(_Broken):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        result = self.submit(package)
        return result if result.accepted else BroadcastResult(accepted=False)


class _CallsItInvalid(_Broken):
    """Whatever the chain does not take."""

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        result = self.submit(package)
        return result if result.accepted else replace(result, refusal=BroadcastRefusal.INVALID)


RAISED = "a refusal is an answer"
GONE = "was accepted but is not in the next block"
WRONG = "accepted, but no miner could take it"
BROKEN: list[tuple[type[_Broken], str, str]] = [
    (_SendsNothing, "test_what_is_accepted_is_in_the_next_block", GONE),
    (_RefusesWhatIsKnown, "test_what_is_known_or_confirmed_already_is_accepted", "refused: txn-already-known"),
    (_RefusesWhatIsKnown, "test_confirmed_and_spent_already", "refusal 'invalid'"),
    (_SendsNothing, "test_an_unconfirmed_chain_sent_one_by_one", GONE),
    (_ForgetsTheChild, "test_a_package_of_parent_and_child", GONE),
    (_ForgetsTheChild, "test_a_package_whose_parent_is_confirmed", GONE),
    (_ForgetsTheChild, "test_a_child_that_pays_for_its_parent", "refused: "),
    (_Raises, "test_inputs_that_nobody_knows", RAISED),
    (_TakesAll, "test_a_conflict_with_a_block", WRONG),
    (_TakesAll, "test_a_conflict_that_pays_less_and_one_that_pays_more", WRONG),
    (_Raises, "test_too_low_a_fee", RAISED),
    (_SaysNothing, "test_too_low_a_fee", "says nothing"),
    (_CallsItInvalid, "test_too_early", "refusal 'invalid'"),
    (_TakesAll, "test_too_early", WRONG),
    (_Raises, "test_what_breaks_the_rules", RAISED),
    (_TakesAll, "test_many_at_the_same_time_get_their_own_answers", "accepted: got"),
    (_RefusesWhatIsKnown, "test_a_cancelled_broadcast_leaves_it_in_order", "refused: txn-already-known"),
]


@pytest.mark.no_kernel_verdict("some of these let invalid transactions pass on purpose")
@pytest.mark.parametrize(("broken", "test", "says"), BROKEN)
async def test_the_suite_catches_broken_broadcasters(
    chain: EmbeddedChain, broken: type[_Broken], test: str, says: str
) -> None:
    bed = BroadcasterBed(make_broadcaster=lambda: broken(chain), control=DirectControl(chain))
    with pytest.raises(AssertionError) as caught:
        await getattr(BroadcasterSuite(), test)(bed)
    assert says in str(caught.value)


class _NamesNoKind(_Broken):
    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        return self.submit(package)


async def test_the_suite_catches_one_that_does_not_say_the_kind_though_it_could(chain: EmbeddedChain) -> None:
    bed = BroadcasterBed(make_broadcaster=lambda: _NamesNoKind(chain), control=DirectControl(chain), says_kind=True)
    with pytest.raises(AssertionError, match="refusal 'other', expected one of"):
        await BroadcasterSuite().test_too_early(bed)


async def test_the_suite_catches_one_that_accepts_for_an_absent_backend(chain: EmbeddedChain) -> None:
    async def switch() -> None:
        pass

    bed = BroadcasterBed(
        make_broadcaster=lambda: _TakesAll(chain),
        control=DirectControl(chain),
        power=BackendSwitch(off=switch, on=switch),
    )
    with pytest.raises(AssertionError, match="an absent backend accepted"):
        await AbsentBroadcasterSuite().test_an_absent_backend_is_a_refusal_in_words(bed)


def test_every_test_of_the_kit_has_a_broadcaster_that_it_catches() -> None:
    assert {test for _, test, _ in BROKEN} == {name for name in dir(BroadcasterSuite) if name.startswith("test_")}
