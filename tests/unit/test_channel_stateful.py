"""Two channels under random interleavings: updates, cut connections, restarts from rows, slow signers.

Signatures that verify prove that both sides agree on every commitment; on top of that the running totals equal a
recomputation, what is loaded equals what was stored, sums are constant, and in the end every HTLC has resolved once.
"""

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from leyden.bitcoin import Network
from leyden.channel import ChannelError, ChannelPolicy, Lifecycle, Link, Stage, load
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.channel.limits import compute_totals, compute_unacked
from leyden.channel.records import records
from leyden.channel.stages import is_unsigned
from leyden.channel.views import signed_view
from leyden.crypto import sha256
from leyden.testing.channel_pair import ChannelEnd, ChannelPair
from leyden.types import FeeRatePerKw, Msat, Side
from leyden_inmemory.manager import InMemoryKeyManager

CAPACITY = 1_000_000_000
SIGNERS = [InMemoryKeyManager(bytes([n]) * 32, Network.REGTEST).channel_signer for n in (1, 2)]
EXPECTED_REFUSALS = {
    "insufficient_balance",
    "too_many_htlcs",
    "in_flight_limit",
    "dust_exposure",
    "not_connected",
    "closing",
    "wrong_state",
    "htlc_not_committed",
    "unknown_htlc",
    "not_funder",
    "bad_feerate",
}


class PairMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        policy = ChannelPolicy(minimum_depth=1, max_accepted_htlcs=6, max_dust_exposure_msat=Msat(1_200_000))
        self.pair = ChannelPair(SIGNERS[0], SIGNERS[1], policy_a=policy, policy_b=policy)
        self.next_preimage = 0
        self.preimages: dict[bytes, bytes] = {}
        self.offered: Counter[tuple[str, int]] = Counter()
        self.known: dict[str, dict[int, fx.HtlcReceived]] = {"a": {}, "b": {}}
        self.outcome: dict[tuple[str, int], str] = {}
        self.connected = True

    @initialize(push=st.sampled_from([0, 300_000_000, 500_000_000]))
    def open(self, push: int) -> None:
        self.pair.open(1_000_000, push)

    def end(self, first: bool) -> ChannelEnd:
        return self.pair.a if first else self.pair.b

    def refused(self, error: ChannelError) -> None:
        assert error.code.value in EXPECTED_REFUSALS, error

    # -- rules ---------------------------------------------------------------------------------------------------------

    @rule(first=st.booleans(), amount=st.sampled_from([1, 1_000, 353_999, 354_000, 5_000_000, 50_000_000, 300_000_000]))
    def add(self, first: bool, amount: int) -> None:
        end = self.end(first)
        self.next_preimage += 1
        preimage = sha256(self.next_preimage.to_bytes(8, "big"))
        try:
            id = self.pair.add(end, amount, preimage)
        except ChannelError as error:
            self.refused(error)
            return
        self.preimages[sha256(preimage)] = preimage
        self.offered[end.name, id] += 1
        assert self.offered[end.name, id] == 1

    @rule(first=st.booleans(), pick=st.integers(0, 9), how=st.sampled_from(["fulfill", "fulfill", "fail", "malformed"]))
    def resolve(self, first: bool, pick: int, how: str) -> None:
        end = self.end(first)
        known = self.known[end.name]
        if not known:
            return
        received = known[sorted(known)[pick % len(known)]]
        command: ev.Command
        if how == "fulfill" and not received.must_fail:
            command = ev.FulfillHtlc(id=received.id, preimage=self.preimages[received.payment_hash])
        elif how == "malformed":
            command = ev.FailMalformedHtlc(id=received.id, sha256_of_onion=bytes(32), failure_code=0xC005)
        else:
            command = ev.FailHtlc(id=received.id, reason=bytes(292))
        end.do(command)
        del known[received.id]

    @rule(feerate=st.sampled_from([253, 500, 1_000, 2_500, 4_000]))
    def change_fee(self, feerate: int) -> None:
        try:
            self.pair.a.do(ev.UpdateFee(feerate=FeeRatePerKw(feerate)))
        except ChannelError as error:
            self.refused(error)

    @rule(first=st.booleans(), limit=st.integers(1, 4))
    def deliver(self, first: bool, limit: int) -> None:
        end = self.end(first)
        self.pair.deliver(end, limit)

    @rule(first=st.booleans())
    def end_turn(self, first: bool) -> None:
        self.pair.end_turn(self.end(first))

    @rule(first=st.booleans())
    def deliver_all(self, first: bool) -> None:
        end = self.end(first)
        self.pair.deliver(end)
        self.pair.end_turn(self.pair.other(end))

    @rule(first=st.booleans(), hold=st.booleans())
    def slow_signer(self, first: bool, hold: bool) -> None:
        end = self.end(first)
        end.hold_signer = hold
        if not hold:
            end.answer_signer()

    @rule(first=st.booleans(), count=st.integers(1, 3))
    def answer(self, first: bool, count: int) -> None:
        self.end(first).answer_signer(count)

    @precondition(lambda self: self.connected)
    @rule()
    def disconnect(self) -> None:
        self._commit_and_absorb()
        self.pair.disconnect()
        self.connected = False

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        self.pair.connect()
        self.connected = True

    @rule(first=st.booleans())
    def restart(self, first: bool) -> None:
        """Killed after a commit: what was not sent is lost, and the other side notices."""
        end = self.end(first)
        self._commit_and_absorb()
        before = end.channel
        end.restart()
        self.pair.other(end).do(ev.PeerDisconnected())
        self.pair.other(end).sent.clear()
        self.connected = False
        assert end.channel.local_number == before.local_number
        assert end.channel.remote_revoked == before.remote_revoked

    def _commit_and_absorb(self) -> None:
        for end in self.pair.ends:
            end.commit()
        self.absorb()

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def absorb(self) -> None:
        for end in self.pair.ends:
            for delivery in end.take_deliveries():
                match delivery:
                    case fx.HtlcReceived():
                        assert delivery.id not in self.known[end.name]
                        self.known[end.name][delivery.id] = delivery
                        assert len(delivery.onion_routing_packet) == 1366
                    case fx.HtlcFulfilled():
                        assert self.outcome.get((end.name, delivery.id), "fulfilled") == "fulfilled"
                        self.outcome[end.name, delivery.id] = "fulfilled"
                    case fx.HtlcFailed():
                        assert (end.name, delivery.id) not in self.outcome
                        self.outcome[end.name, delivery.id] = "failed"

    @invariant()
    def healthy(self) -> None:
        for end in self.pair.ends:
            if end.channel_or_none is None:
                continue
            channel = end.channel
            assert channel.lifecycle is Lifecycle.NORMAL, channel.failure
            assert not end.disconnects, end.disconnects
            assert channel.local_settled + channel.remote_settled == CAPACITY
            assert channel.local_next == compute_totals(channel, Side.LOCAL)
            assert channel.remote_next == compute_totals(channel, Side.REMOTE)
            assert channel.unacked == compute_unacked(channel)
            assert channel.unsigned == is_unsigned(channel)
            for totals in (channel.local_next, channel.remote_next):
                in_flight = totals.local_in_flight + totals.remote_in_flight
                assert totals.local_msat + totals.remote_msat + in_flight == CAPACITY

    @invariant()
    def stored_state_is_whole(self) -> None:
        """Loading the rows and storing the result again changes nothing."""
        for end in self.pair.ends:
            if end.rows and end.channel_or_none is not None and end.commit() >= 0:
                loaded = load(end.rows.items())
                assert not records(None, loaded).deletes
                assert dict(records(None, loaded).puts) == end.rows
                for side in Side:
                    assert signed_view(loaded, side) == signed_view(end.channel, side)

    def teardown(self) -> None:
        if self.pair.a.channel_or_none is None:
            return
        pair = self.pair
        for end in pair.ends:
            end.hold_signer = False
            end.answer_signer()
        pair.reconnect()
        self.absorb()
        for end in pair.ends:
            for received in list(self.known[end.name].values()):
                if received.must_fail:
                    end.do(ev.FailHtlc(id=received.id, reason=bytes(292)))
                else:
                    preimage = self.preimages[received.payment_hash]
                    end.do(ev.FulfillHtlc(id=received.id, preimage=preimage))
            self.known[end.name].clear()
        pair.settle()
        self.absorb()
        self.healthy()
        assert pair.a.channel.local_settled == pair.b.channel.remote_settled
        assert set(self.outcome) == set(self.offered), "an HTLC did not resolve"
        for end in pair.ends:
            assert end.channel.link is Link.UP
            assert not end.channel.local_htlcs
            assert not end.channel.remote_htlcs
            assert not end.channel.pending
            assert not end.channel.outbox


def test_stage_numbers_are_those_of_the_rows() -> None:
    assert [stage.value for stage in Stage] == list(range(1, 11))


TestPair = PairMachine.TestCase
TestPair.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
