"""A peer that cheats inside the update dance, at reestablish and at the close: one channel, every byte of it ours."""

from collections.abc import Callable

import pytest
from leyden.bitcoin import Network, p2wpkh
from leyden.channel import ChannelPolicy, Lifecycle, Link
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.channel.limits import compute_totals, compute_unacked
from leyden.crypto import sha256
from leyden.hooks.types import BroadcastKind
from leyden.testing.channel_pair import PAIR_FEATURES, ChannelEnd, ChannelPair
from leyden.types import BlockHeight, Msat, Sat, Side
from leyden.wire import (
    ChannelReestablish,
    ClosingSigned,
    CommitmentSigned,
    ErrorMessage,
    FeeRange,
    Message,
    RevokeAndAck,
    Shutdown,
    UpdateAddHtlc,
    UpdateFailHtlc,
    UpdateFee,
    UpdateFulfillHtlc,
    decode,
)
from leyden.wire.features import Feature, Features
from leyden_inmemory.manager import InMemoryKeyManager
from msgspec.structs import replace

SIGNERS = [InMemoryKeyManager(bytes([n]) * 32, Network.REGTEST).channel_signer for n in (1, 2)]
HUGE = 2**64 - 1


def make_pair(push: int = 300_000_000, a: ChannelPolicy | None = None, b: ChannelPolicy | None = None) -> ChannelPair:
    pair = ChannelPair(SIGNERS[0], SIGNERS[1], policy_a=a, policy_b=b)
    pair.open(1_000_000, push)
    return pair


@pytest.fixture
def pair() -> ChannelPair:
    return make_pair()


def preimage_of(amount: int) -> bytes:
    """What ``ChannelPair.add`` makes of an amount."""
    return sha256(b"preimage" + amount.to_bytes(8, "big"))


def say(end: ChannelEnd, message: Message) -> None:
    end.do(ev.MessageReceived(message=message))


def forged_add(pair: ChannelPair, id: int, amount: int, expiry: int = 500) -> UpdateAddHtlc:
    return UpdateAddHtlc(
        channel_id=pair.a.channel.channel_id,
        id=id,
        amount_msat=amount,
        payment_hash=sha256(preimage_of(amount)),
        cltv_expiry=expiry,
        onion_routing_packet=bytes(1366),
    )


def received(end: ChannelEnd) -> list[fx.HtlcReceived]:
    return [d for d in end.take_deliveries() if isinstance(d, fx.HtlcReceived)]


def is_sound(end: ChannelEnd) -> bool:
    """Running totals equal a recomputation, nothing is negative, and the sum is the capacity."""
    channel = end.channel
    for side, totals in ((Side.LOCAL, channel.local_next), (Side.REMOTE, channel.remote_next)):
        if totals != compute_totals(channel, side) or min(totals.local_msat, totals.remote_msat) < 0:
            return False
    return channel.unacked == compute_unacked(channel) and channel.local_settled + channel.remote_settled == 10**9


# -- the dance ---------------------------------------------------------------------------------------------------------


def test_a_violation_leaves_the_state_as_it_was(pair: ChannelPair) -> None:
    """Each message out of order or out of bounds: no state, no broadcast, the connection ends."""
    id = pair.a.channel.channel_id
    victim = pair.b
    pair.add(victim, 5_000_000)
    pair.end_turn(victim)
    old_revocation = RevokeAndAck(
        channel_id=id, per_commitment_secret=bytes(31) + b"\1", next_per_commitment_point=pair.a.channel.local_point
    )
    good = [decode(data) for data in victim.sent]
    attacks: list[Message] = [
        forged_add(pair, 1, 10_000),  # skips an id
        forged_add(pair, 0, 0),
        forged_add(pair, 0, HUGE),
        forged_add(pair, 0, 1_000_000_001),
        forged_add(pair, 0, 700_000_000),  # all that the peer has, the reserve and the fee included
        forged_add(pair, 0, 10_000, expiry=500_000_000),
        UpdateFulfillHtlc(channel_id=id, id=0, payment_preimage=preimage_of(5_000_000)),  # not committed yet
        UpdateFailHtlc(channel_id=id, id=0, reason=b""),
        UpdateFulfillHtlc(channel_id=id, id=HUGE, payment_preimage=bytes(32)),
        UpdateFee(channel_id=id, feerate_per_kw=2**32 - 1),
        UpdateFee(channel_id=id, feerate_per_kw=0),
        CommitmentSigned(channel_id=id, signature=bytes([1]) * 64, htlc_signature=()),
        CommitmentSigned(channel_id=id, signature=bytes(64), htlc_signature=(bytes(64),) * 483),
        ClosingSigned(channel_id=id, fee_satoshis=0, signature=bytes([1]) * 64),
    ]
    assert [type(message) for message in good] == [UpdateAddHtlc, CommitmentSigned]
    for message in attacks:
        before, said = victim.channel, len(victim.disconnects)
        say(victim, message)
        assert victim.channel is before, message
        assert len(victim.disconnects) == said + 1, message
    assert not victim.broadcasts
    say(victim, old_revocation)  # a false secret is the one that closes the channel
    assert victim.channel.lifecycle is Lifecycle.FORCE_CLOSING


def test_a_revocation_twice(pair: ChannelPair) -> None:
    """The second copy is not taken for the revocation of the next commitment, wherever it arrives."""
    pair.add(pair.b, 5_000_000)
    pair.end_turn(pair.b)
    pair.deliver(pair.b)
    pair.end_turn(pair.a)
    revocation = decode(pair.a.sent[0])
    assert isinstance(revocation, RevokeAndAck)
    pair.deliver(pair.a, 1)
    before = pair.b.channel
    say(pair.b, revocation)
    assert pair.b.channel is before
    assert pair.b.disconnects


@pytest.mark.parametrize("first", [True, False])
def test_two_htlcs_of_one_hash_and_amount(pair: ChannelPair, first: bool) -> None:
    """Ids decide: paying one of two equal HTLCs never pays the other."""
    for _ in range(2):
        pair.add(pair.a, 5_000_000)
    pair.settle()
    assert [h.id for h in received(pair.b)] == [0, 1]
    pair.b.do(ev.FulfillHtlc(id=0 if first else 1, preimage=preimage_of(5_000_000)))
    pair.settle()
    assert pair.b.channel.local_settled == 305_000_000
    assert list(pair.a.channel.local_htlcs) == [1 if first else 0]
    pair.b.do(ev.FailHtlc(id=1 if first else 0, reason=b"no"))
    pair.settle()
    assert pair.b.channel.local_settled == 305_000_000
    assert is_sound(pair.a)
    assert is_sound(pair.b)


def test_failed_then_fulfilled_then_reconnected(pair: ChannelPair) -> None:
    """A removal that was not signed may change over a reconnect, never within one connection."""
    amount = 5_000_000
    pair.add(pair.a, amount)
    pair.settle()
    id = pair.a.channel.channel_id
    say(pair.a, UpdateFailHtlc(channel_id=id, id=0, reason=b"x"))
    before = pair.a.channel
    say(pair.a, UpdateFulfillHtlc(channel_id=id, id=0, payment_preimage=preimage_of(amount)))
    assert pair.a.channel is before
    pair.reconnect()
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(amount)))
    pair.settle()
    assert pair.a.channel.remote_settled == 305_000_000
    assert not [d for d in pair.a.take_deliveries() if isinstance(d, fx.HtlcFailed)]


def test_an_id_used_again_after_a_reconnect_is_the_new_htlc(pair: ChannelPair) -> None:
    say(pair.b, forged_add(pair, 0, 9_000_000))  # proposed, never signed
    pair.reconnect()
    pair.add(pair.a, 4_000_000)
    pair.settle()
    (htlc,) = received(pair.b)
    assert (htlc.id, htlc.amount_msat) == (0, 4_000_000)
    assert is_sound(pair.b)


def test_dust_on_the_peers_commitment_only() -> None:
    """HTLCs that have outputs on ours but not on the peer's burn when the peer closes: their sum is bounded too."""
    mallory = ChannelPolicy(minimum_depth=1, dust_limit=Sat(9_999), max_dust_exposure_msat=Msat(10**12))
    victim = ChannelPolicy(minimum_depth=1)
    pair = make_pair(0, mallory, victim)
    for index in range(40):
        pair.add(pair.a, 4_900_000 + index)
    pair.settle()
    htlcs = received(pair.b)
    assert len(htlcs) == 40
    assert 0 < sum(h.amount_msat for h in htlcs if not h.must_fail) <= victim.max_dust_exposure_msat


@pytest.mark.parametrize("cut", range(1, 16))
def test_the_connection_is_cut_after_each_message(cut: int) -> None:
    """Adds both ways, a fulfilment, a failure and a fee change; cut once after message ``cut``: nothing is lost."""
    pair = make_pair()
    pair.add(pair.a, 7_000_000)
    pair.add(pair.b, 8_000_000)
    pair.settle()
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(7_000_000)))
    pair.a.do(ev.FailHtlc(id=0, reason=b"no"))
    pair.add(pair.a, 9_000_000)
    pair.a.do(ev.UpdateFee(feerate=600))
    for end in pair.ends:
        pair.end_turn(end)
    for index in range(cut):
        source = pair.a if (index % 2 and pair.a.sent) or not pair.b.sent else pair.b
        if not pair.deliver(source, 1):
            break
        pair.end_turn(pair.other(source))
    pair.disconnect()
    for end in pair.ends:
        end.restart()
    pair.connect()
    pair.settle()
    assert pair.a.channel.feerate == pair.b.channel.feerate == 600
    assert [len(c.local_htlcs) + len(c.remote_htlcs) for c in (pair.a.channel, pair.b.channel)] == [1, 1]
    assert pair.b.channel.local_settled == 307_000_000
    assert all(is_sound(end) for end in pair.ends)


def test_an_update_that_expired_while_the_peer_was_away_does_not_close_the_channel(pair: ChannelPair) -> None:
    """An HTLC that was never signed for is dropped and reported instead of offered when it is too late."""
    pair.add(pair.a, 10_000_000)
    pair.end_turn(pair.a)
    pair.add(pair.a, 11_000_000, expiry=200)  # waits for the peer's revocation
    pair.add(pair.a, 12_000_000)
    pair.disconnect()
    for end in pair.ends:
        end.env = replace(end.env, height=BlockHeight(300))
        end.do(ev.BlockConnected(height=BlockHeight(300)))
    pair.reconnect()
    pair.mine(1)
    assert [end.channel.lifecycle for end in pair.ends] == [Lifecycle.NORMAL] * 2
    assert [d.id for d in pair.a.take_deliveries() if isinstance(d, fx.HtlcFailed)] == [1, 2]
    assert pair.add(pair.a, 13_000_000) == 1
    pair.settle()
    assert [h.amount_msat for h in received(pair.b)] == [10_000_000, 13_000_000]
    assert all(is_sound(end) for end in pair.ends)


# -- reestablish -------------------------------------------------------------------------------------------------------


def away(pair: ChannelPair) -> ChannelReestablish:
    """Some history, then a reconnect: what ``b`` honestly says, not delivered yet."""
    pair.add(pair.a, 10_000_000)
    pair.settle()
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(10_000_000)))
    pair.settle()
    pair.disconnect()
    pair.connect()
    message = decode(pair.b.sent[-1])
    assert isinstance(message, ChannelReestablish)
    assert (message.next_commitment_number, message.next_revocation_number) == (3, 2)
    return message


LIES: dict[str, Callable[[ChannelReestablish], ChannelReestablish]] = {
    "commitment far ahead": lambda m: replace(m, next_commitment_number=HUGE),
    "commitment ahead": lambda m: replace(m, next_commitment_number=4),
    "commitment behind": lambda m: replace(m, next_commitment_number=2),
    "revocation ahead, old secret": lambda m: replace(m, next_revocation_number=3),
    "revocation far ahead": lambda m: replace(m, next_revocation_number=HUGE),
    "revocation past the last": lambda m: replace(m, next_revocation_number=2**48),
    "revocation ahead, no secret": lambda m: replace(
        m, next_revocation_number=9, your_last_per_commitment_secret=bytes(32)
    ),
    "revocation 0": lambda m: replace(m, next_revocation_number=0),
    "wrong secret": lambda m: replace(m, your_last_per_commitment_secret=bytes([1]) * 32),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_at_reestablish_never_makes_us_give_up(pair: ChannelPair, lie: str) -> None:
    """It may cost the channel (we close it with our newest state), never the right to close it."""
    message = away(pair)
    say(pair.a, LIES[lie](message))
    assert pair.a.channel.lifecycle is Lifecycle.FORCE_CLOSING
    assert pair.a.broadcasts[-1].kind is BroadcastKind.UNILATERAL_CLOSE


@pytest.mark.parametrize("honest_first", [True, False])
def test_the_secret_of_one_message_does_not_vouch_for_another(pair: ChannelPair, honest_first: bool) -> None:
    """While a slow signer checks one secret, a second message tells another story; answers come in any order."""
    message = away(pair)
    bluff = replace(message, next_revocation_number=7, your_last_per_commitment_secret=bytes(32))
    pair.a.hold_signer = True
    for said in (message, bluff) if honest_first else (bluff, message):
        say(pair.a, said)
    pair.a.questions.reverse()
    pair.a.hold_signer = False
    pair.a.answer_signer()
    assert pair.a.channel.lifecycle is not Lifecycle.DATA_LOSS


def test_reestablish_again_when_the_link_is_up(pair: ChannelPair) -> None:
    """Nothing is sent twice and nothing moves."""
    message = away(pair)
    pair.settle()
    assert pair.a.channel.link is Link.UP
    before = pair.a.channel
    say(pair.a, message)
    say(pair.a, replace(message, next_revocation_number=1, next_commitment_number=2))
    assert pair.a.channel is before
    assert not pair.a.sent


# -- closing -----------------------------------------------------------------------------------------------------------


def shut_down(pair: ChannelPair) -> None:
    """Both have said ``shutdown``; ``a`` (the funder) has not been answered."""
    pair.b.do(ev.Shutdown())
    pair.end_turn(pair.b)
    pair.deliver(pair.b)
    pair.end_turn(pair.a)


@pytest.mark.parametrize("fee", [0, 700_001, 1_000_001, HUGE])
def test_a_closing_fee_that_we_would_never_pay(pair: ChannelPair, fee: int) -> None:
    shut_down(pair)
    say(pair.a, ClosingSigned(channel_id=pair.a.channel.channel_id, fee_satoshis=fee, signature=bytes([1]) * 64))
    assert not [b for b in pair.a.broadcasts if b.kind is BroadcastKind.MUTUAL_CLOSE]
    assert pair.a.channel.closing_tx is None or pair.a.channel.lifecycle is Lifecycle.FORCE_CLOSING


def close_with(pair: ChannelPair, thief: ChannelEnd, fee: int, fee_range: FeeRange | None = None) -> None:
    """``thief`` signs a close at ``fee`` as its own terms have it, whatever it should have offered."""
    from leyden.channel import shutdown
    from leyden.channel.turn import Turn

    turn = Turn(thief.channel, thief.fresh_env())
    values = shutdown._values(thief.channel, Sat(fee), Side.LOCAL)
    assert values is not None
    turn.ask(shutdown._request(turn, *values))
    answer = thief._answer(turn.channel.pending[-1])
    victim = pair.other(thief)
    say(
        victim,
        ClosingSigned(
            channel_id=victim.channel.channel_id,
            fee_satoshis=fee,
            signature=answer.signature,  # type: ignore[union-attr]
            fee_range=fee_range,
        ),
    )


def test_a_closing_fee_taken_from_us_without_measure(pair: ChannelPair) -> None:
    """We fund; the peer signs a close that burns most of our balance, with and without a range."""
    for fee_range in (None, FeeRange(min_fee_satoshis=0, max_fee_satoshis=HUGE)):
        pair = make_pair()
        shut_down(pair)
        close_with(pair, pair.b, 600_000, fee_range)
        assert not [b for b in pair.a.broadcasts if b.kind is BroadcastKind.MUTUAL_CLOSE]


def test_our_output_is_not_left_out_of_the_close() -> None:
    """A peer with a high dust limit signs a close without our 9,000 sat: we do not complete it."""
    mallory = ChannelPolicy(minimum_depth=1, dust_limit=Sat(10_000))
    pair = make_pair(9_000_000, mallory, ChannelPolicy(minimum_depth=1))
    pair.a.do(ev.Shutdown())
    pair.settle()
    assert all(9_000 in [output.value for output in b.tx.outputs] for b in pair.b.broadcasts)


def test_a_few_satoshi_below_the_peers_dust_limit_may_be_left_out() -> None:
    """What the proposer may drop by BOLT 3 and nobody would miss does not keep the channel open."""
    pair = make_pair(500_000, ChannelPolicy(minimum_depth=1, dust_limit=Sat(546)), ChannelPolicy(minimum_depth=1))
    pair.a.do(ev.Shutdown())
    pair.settle()
    assert pair.b.channel.lifecycle is Lifecycle.CLOSING


def test_another_shutdown_script_than_the_one_committed_upfront(pair: ChannelPair) -> None:
    script = p2wpkh(bytes([9]) * 20)
    say(pair.a, Shutdown(channel_id=pair.a.channel.channel_id, scriptpubkey=script))
    assert not pair.a.channel.shutdown.received
    assert pair.a.disconnects


def test_a_shutdown_that_our_own_script_does_not_suit() -> None:
    """The peer took a feature back between two connections: no exception leaves the step."""
    anysegwit = b"\x51\x20" + bytes(32)
    features = Features.of(Feature.OPTION_STATIC_REMOTEKEY, Feature.OPTION_ANCHORS)
    pair = ChannelPair(SIGNERS[0], SIGNERS[1], features=features)
    pair.open()
    pair.b.env = replace(pair.b.env, shutdown_script=anysegwit)
    say(pair.b, Shutdown(channel_id=pair.b.channel.channel_id, scriptpubkey=p2wpkh(bytes(20))))
    assert pair.b.disconnects
    assert pair.b.channel.lifecycle is Lifecycle.NORMAL
    assert PAIR_FEATURES.offers(Feature.OPTION_SHUTDOWN_ANYSEGWIT)


# -- funding -----------------------------------------------------------------------------------------------------------


def test_a_channel_that_was_never_funded_is_not_kept_for_ever() -> None:
    """Opened with a made-up outpoint, then failed by its own opener: the rows go when the funding cannot come."""
    pair = ChannelPair(SIGNERS[0], SIGNERS[1])
    pair.propose()
    pair.accept()
    pair.settle()
    pair.provide_funding()
    pair.settle()
    say(pair.b, ErrorMessage(channel_id=pair.b.channel.channel_id, data=b"bye"))
    pair.b.commit()
    height = BlockHeight(pair.b.env.height + pair.b.env.policy.funding_timeout)
    pair.b.env = replace(pair.b.env, height=height)
    pair.b.do(ev.BlockConnected(height=height))
    pair.b.commit()
    assert pair.b.channel.lifecycle is Lifecycle.CLOSED
    assert not pair.b.rows


@pytest.mark.parametrize("closer", ["us", "the peer"])
def test_another_output_told_as_the_funding_does_not_drop_a_channel_that_is_on_chain(closer: str) -> None:
    """The confirmed output is judged while the channel waits or runs, not when its money is already being swept."""
    pair = make_pair()
    end = pair.a if closer == "us" else pair.b
    end.do(ev.ForceClose(reason="x"))
    tx = end.broadcasts[-1].tx
    pair.confirm_spend(tx)
    before = pair.a.channel
    pair.a.do(ev.FundingConfirmed(height=pair.a.env.height, tx_index=1, output=tx.outputs[0]))
    assert pair.a.channel.lifecycle is before.lifecycle
    assert pair.a.channel.spend is not None
    pair.a.commit()
    assert pair.a.rows


def test_a_reorg_of_the_peers_close_does_not_leave_us_waiting_for_the_peer(pair: ChannelPair) -> None:
    """The peer's commitment left the chain and the peer does not send it again: we do, it pays us as well."""
    pair.b.do(ev.ForceClose(reason="x"))
    tx = pair.b.broadcasts[-1].tx
    pair.confirm_spend(tx)
    before = len(pair.a.broadcasts)
    pair.a.do(ev.FundingUnspent())
    assert [broadcast.tx.txid for broadcast in pair.a.broadcasts[before:]] == [tx.txid]
    pair.confirm_spend(tx)
    assert pair.a.channel.lifecycle is Lifecycle.REMOTE_CLOSED
    assert pair.a.channel.spend is not None
    assert pair.a.channel.spend.sweep is not None
