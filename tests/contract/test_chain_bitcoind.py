"""The bitcoind plugin against a real bitcoind: the conformance kits, and look-ups."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from leyden.bitcoin import Network, decode_address, p2wsh, parse_block
from leyden.hooks.types import BroadcastRefusal, FeeTarget, UtxoFound, UtxoSpent, UtxoUnknown
from leyden.testing import chain as suite
from leyden.testing.broadcaster import AbsentBroadcasterSuite, BroadcasterBed, BroadcasterSuite
from leyden.testing.chain import (
    AbsentBackendSuite,
    ChainBed,
    ChainSourceSuite,
    SlowBackendSuite,
    WrongNetworkSuite,
    anyone_script,
    spend_anyone,
)
from leyden.testing.fees import FeeBed, FeeEstimatorSuite
from leyden.types import OutPoint, Sat, Txid, make_short_channel_id
from leyden_bitcoind import BitcoindNode, Credentials, RpcClient, RpcRefused, RpcUnavailable
from leyden_bitcoind.fees import estimate
from leyden_bitcoind.news import News
from leyden_bitcoind.submitting import refused

from tests.testbed import running
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.bitcoind_control import BitcoindControl

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


@pytest.fixture(scope="module")
def unreliable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    """One that is killed and frozen."""
    with running.bitcoind(tmp_path_factory.mktemp("unreliable")) as daemon:
        yield daemon


def client(daemon: Bitcoind, *, timeout: float = 30.0) -> RpcClient:
    return RpcClient(daemon.url, Credentials(user=daemon.user, password=daemon.password), timeout_seconds=timeout)


def node(daemon: Bitcoind, *, zmq: bool = False, network: Network = Network.REGTEST) -> BitcoindNode:
    news = News([daemon.zmq] if zmq else [])
    return BitcoindNode(client(daemon), network, news, poll_seconds=30.0 if zmq else 0.05)


class TestPolling(ChainSourceSuite, WrongNetworkSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind) -> ChainBed:
        return ChainBed(
            make_source=lambda: node(daemon),
            control=BitcoindControl(daemon),
            make_stranger=lambda: node(daemon, network=Network.SIGNET),
        )


class TestOverZmq(ChainSourceSuite):
    """Polling is so slow here that only a message can be the reason why a test ends in time."""

    @pytest.fixture
    def bed(self, daemon: Bitcoind) -> ChainBed:
        return ChainBed(make_source=lambda: node(daemon, zmq=True), control=BitcoindControl(daemon))


class TestWhenItIsAway(AbsentBackendSuite, SlowBackendSuite):
    @pytest.fixture
    def bed(self, unreliable: Bitcoind) -> ChainBed:
        control = BitcoindControl(unreliable)
        return ChainBed(
            make_source=lambda: node(unreliable), control=control, power=control.power, freeze=control.freeze
        )


@pytest.fixture
async def made() -> AsyncIterator[list[BitcoindNode]]:
    """Those that a test made, to be closed after it."""
    nodes: list[BitcoindNode] = []
    yield nodes
    for each in nodes:
        await each.stop()


def noted(made: list[BitcoindNode], daemon: Bitcoind) -> BitcoindNode:
    made.append(node(daemon))
    return made[-1]


class TestBroadcasting(BroadcasterSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind, made: list[BitcoindNode]) -> BroadcasterBed:
        return BroadcasterBed(
            make_broadcaster=lambda: noted(made, daemon), control=BitcoindControl(daemon), says_kind=True
        )


class TestBroadcastingWhenItIsAway(AbsentBroadcasterSuite):
    @pytest.fixture
    def bed(self, unreliable: Bitcoind, made: list[BitcoindNode]) -> BroadcasterBed:
        control = BitcoindControl(unreliable)
        return BroadcasterBed(
            make_broadcaster=lambda: noted(made, unreliable), control=control, power=control.power, says_kind=True
        )


class TestFees(FeeEstimatorSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind, made: list[BitcoindNode]) -> FeeBed:
        return FeeBed(make_estimator=lambda: noted(made, daemon))


# -- remote procedure calls --------------------------------------------------------------------------------------------


async def test_errors_carry_the_code(daemon: Bitcoind) -> None:
    rpc = client(daemon)
    with pytest.raises(RpcRefused) as caught:
        await rpc.call("getblockhash", 10_000_000)
    assert caught.value.code == -8
    assert await rpc.batch("getblockhash", [(0,), (1,)]) == [daemon.rpc("getblockhash", n) for n in (0, 1)]
    with pytest.raises(RpcRefused):
        await rpc.batch("getblockhash", [(0,), (10_000_000,)])
    height, bad, tip = await rpc.batch_of([("getblockcount", ()), ("nonsense", ()), ("getbestblockhash", ())])
    assert (height, tip) == (daemon.rpc("getblockcount"), daemon.rpc("getbestblockhash"))
    assert isinstance(bad, RpcRefused)
    assert await rpc.batch("getblockhash", []) == []
    await rpc.close()
    with pytest.raises(RpcUnavailable, match="closed"):
        await rpc.call("getblockcount")


async def test_more_calls_than_connections_wait_their_turn(daemon: Bitcoind) -> None:
    rpc = client(daemon)
    hashes = await asyncio.gather(*(rpc.call("getblockhash", n) for n in range(40)))
    assert hashes == [daemon.rpc("getblockhash", n) for n in range(40)]
    await rpc.close()


# -- look-ups ----------------------------------------------------------------------------------------------------------


async def test_outputs_are_found_spent_or_unknown(daemon: Bitcoind) -> None:
    source = node(daemon)
    script = decode_address(daemon.rpc("getnewaddress"), Network.REGTEST)
    tx = await BitcoindControl(daemon).pay(script, Sat(123_456))
    vout = next(i for i, output in enumerate(tx.outputs) if output.script == script)
    outpoint = OutPoint(tx.txid, vout)
    assert isinstance(await source.find_utxo(outpoint), UtxoUnknown)  # not confirmed yet
    daemon.mine()
    found = await source.find_utxo(outpoint)
    assert isinstance(found, UtxoFound)
    assert (found.output.value, found.height, found.coinbase) == (123_456, daemon.rpc("getblockcount"), False)
    assert isinstance(await source.find_utxo(tx.inputs[0].prevout), UtxoSpent)
    assert isinstance(await source.find_utxo(OutPoint(Txid(bytes(32)), 0)), UtxoUnknown)
    await source.stop()


async def test_a_channel_output_is_found_by_its_short_channel_id(daemon: Bitcoind) -> None:
    source, control = node(daemon), BitcoindControl(daemon)
    witness_script = anyone_script(b"announced")
    script = p2wsh(witness_script)
    paid = await control.pay(script, Sat(77_000))
    daemon.mine()
    height, tip = await control.tip()
    mined = parse_block((await source.get_block(tip)).raw).transactions
    index = next(n for n, tx in enumerate(mined) if tx.txid == paid.txid)
    vout = next(n for n, output in enumerate(paid.outputs) if output.script == script)
    scid = make_short_channel_id(height, index, vout)
    found = await source.find_channel_output(scid)
    assert isinstance(found, UtxoFound)
    assert (found.output.value, found.output.script, found.height) == (77_000, script, height)
    for nowhere in (
        make_short_channel_id(height + 100, 0, 0),
        make_short_channel_id(height, 500, 0),
        make_short_channel_id(height, index, 9),
    ):
        assert isinstance(await source.find_channel_output(nowhere), UtxoUnknown)
    await control.submit(spend_anyone(paid, Sat(76_000), witness_script))
    assert isinstance(await source.find_channel_output(scid), UtxoFound)  # the spend is not confirmed
    daemon.mine()
    assert await source.find_channel_output(scid) == UtxoSpent()
    await source.stop()


# -- fees and refusals -------------------------------------------------------------------------------------------------


class Scripted:
    """Answers of a bitcoind with estimates, which a regtest chain never has."""

    def __init__(self, pool: dict[str, float], rates: dict[tuple[int, str], float]) -> None:
        self.pool = pool
        self.rates = rates

    async def batch_of(self, calls: list[tuple[str, tuple[int, str]]]) -> list[object]:
        return [self.pool if method == "getmempoolinfo" else self._estimate(*params) for method, params in calls]

    def _estimate(self, blocks: int, mode: str) -> dict[str, object]:
        rate = self.rates.get((blocks, mode))
        return {"errors": ["Insufficient data"], "blocks": blocks} if rate is None else {"feerate": rate}


QUIET = {"mempoolminfee": 0.000001, "minrelaytxfee": 0.000001}


@pytest.mark.parametrize(
    ("pool", "rates", "target", "expected"),
    [
        (QUIET, {(6, "CONSERVATIVE"): 0.0002, (6, "ECONOMICAL"): 0.0001}, FeeTarget.URGENT_SWEEP, 5000),
        (QUIET, {(12, "ECONOMICAL"): 0.00012001}, FeeTarget.FUNDING, 3001),  # rounded up
        (QUIET, {(6, "ECONOMICAL"): 0.0001}, FeeTarget.URGENT_SWEEP, 2500),  # the other mode
        (QUIET, {(12, "ECONOMICAL"): 0.00008}, FeeTarget.URGENT_SWEEP, 2000),  # more blocks
        (QUIET, {(1008, "CONSERVATIVE"): 0.00004}, FeeTarget.SWEEP, 1000),
        (QUIET, {(12, "ECONOMICAL"): 0.000001}, FeeTarget.SWEEP, 253),  # what nodes relay at least
        ({"mempoolminfee": 0.0004, "minrelaytxfee": 0.00001}, {(12, "ECONOMICAL"): 0.0001}, FeeTarget.SWEEP, 10_000),
        (QUIET, {}, FeeTarget.SWEEP, None),
    ],
)
async def test_estimates_on_mainnet(
    pool: dict[str, float], rates: dict[tuple[int, str], float], target: FeeTarget, expected: int | None
) -> None:
    assert await estimate(Scripted(pool, rates), Network.MAINNET, target) == expected


async def test_feerates_fall_back_on_a_test_network() -> None:
    assert await estimate(Scripted(QUIET, {}), Network.REGTEST, FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE) == 253
    assert await estimate(Scripted(QUIET, {}), Network.SIGNET, FeeTarget.URGENT_SWEEP) == 5000
    assert await estimate(Scripted(QUIET, {(6, "ECONOMICAL"): 0.0001}), Network.SIGNET, FeeTarget.URGENT_SWEEP) == 2500


async def test_an_absent_bitcoind_has_no_estimate() -> None:
    rpc = RpcClient("http://127.0.0.1:1", Credentials(user="a", password="b"))
    assert await estimate(rpc, Network.REGTEST, FeeTarget.SWEEP) is None


@pytest.mark.parametrize(
    ("reason", "refusal"),
    [
        ("bad-txns-inputs-missingorspent", BroadcastRefusal.MISSING_INPUTS),
        ("missing-inputs", BroadcastRefusal.MISSING_INPUTS),
        ("non-final", BroadcastRefusal.TOO_EARLY),
        ("non-BIP68-final", BroadcastRefusal.TOO_EARLY),
        ("bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 3", BroadcastRefusal.TOO_EARLY),
        ("min relay fee not met, 0 < 11", BroadcastRefusal.LOW_FEE),
        ("mempool min fee not met, 110 < 500", BroadcastRefusal.LOW_FEE),
        ("insufficient fee, rejecting replacement ab, less fees than conflicting txs", BroadcastRefusal.LOW_FEE),
        ("txn-mempool-conflict", BroadcastRefusal.CONFLICT),
        ("replacement-adds-unconfirmed, replacement ab adds unconfirmed input", BroadcastRefusal.CONFLICT),
        ("too-long-mempool-chain, too many descendants", BroadcastRefusal.OTHER),
        ("mandatory-script-verify-flag-failed (Witness program hash mismatch)", BroadcastRefusal.INVALID),
        ("dust, tx with dust output must be 0-fee", BroadcastRefusal.INVALID),
        ("TX decode failed", BroadcastRefusal.INVALID),
    ],
)
def test_what_refusals_mean(reason: str, refusal: BroadcastRefusal) -> None:
    result = refused(reason)
    assert (result.accepted, result.refusal, result.reason) == (False, refusal, reason)


def test_the_suite_is_the_one_that_is_shipped() -> None:
    assert suite.ChainSourceSuite is ChainSourceSuite
