"""HTLCs and updates: limits, ids, stages, deadlines, signatures, revocations, fees (BOLT 2; C-071 to C-090)."""

from typing import Any

import pytest
from channel_kit import (
    commit_add,
    forget,
    lifecycle,
    of_kind,
    open_pair,
    pay,
    preimage_of,
    refused,
    send,
    waiting,
    waiting_names,
)
from leyden.channel import ChannelError, ChannelPolicy, ErrorCode, Lifecycle, Stage
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.channel.limits import available_to_send
from leyden.crypto import sha256
from leyden.hooks.types import BroadcastKind
from leyden.testing.channel_pair import ChannelPair, names
from leyden.types import BlockHeight, FeeRatePerKw, Msat, PaymentHash
from leyden.wire import (
    CommitmentSigned,
    RevokeAndAck,
    UpdateAddHtlc,
    UpdateFailHtlc,
    UpdateFailMalformedHtlc,
    UpdateFulfillHtlc,
    WarningMessage,
)
from leyden.wire import UpdateFee as UpdateFeeMessage
from msgspec.structs import replace

WARNED = ["send warning", "disconnect"]
FAILED = ["send error", "publish ChannelClosing", "sign SignHolderCommitment", "broadcast unilateral_close"]


def add_command(amount: int, **changes: object) -> ev.AddHtlc:
    command = ev.AddHtlc(
        amount_msat=Msat(amount),
        payment_hash=PaymentHash(sha256(preimage_of(amount))),
        cltv_expiry=BlockHeight(500),
        onion_routing_packet=bytes(1366),
    )
    return replace(command, **changes)


def add_message(pair: ChannelPair, id: int = 0, amount: int = 10_000_000, expiry: int = 500) -> UpdateAddHtlc:
    return UpdateAddHtlc(
        channel_id=pair.a.channel.channel_id,
        id=id,
        amount_msat=amount,
        payment_hash=sha256(preimage_of(amount)),
        cltv_expiry=expiry,
        onion_routing_packet=bytes(1366),
    )


def failed(amount: int, **how: Any) -> fx.HtlcFailed:
    """The first HTLC of a channel, of ``amount`` msat."""
    return fx.HtlcFailed(id=0, amount_msat=Msat(amount), payment_hash=PaymentHash(sha256(preimage_of(amount))), **how)


def test_one_payment_from_end_to_end() -> None:
    pair = open_pair()
    id = pair.add(pair.a, 50_000_000)
    assert names(pair.a.log) == ["htlcadded", "send update_add_htlc"]
    pair.settle()
    assert [type(d) for d in pair.b.deliveries] == [fx.HtlcReceived]
    pair.b.do(ev.FulfillHtlc(id=id, preimage=preimage_of(50_000_000)))
    pair.settle()
    assert pair.a.deliveries == [fx.HtlcFulfilled(id=0, preimage=preimage_of(50_000_000))]
    assert pair.a.channel.local_settled == pair.b.channel.remote_settled == 950_000_000
    assert not pair.a.channel.local_htlcs
    assert not pair.b.channel.remote_htlcs


def test_batches_share_commitments() -> None:
    pair = open_pair()
    ids = [pair.add(pair.a, 1_000_000 + n) for n in range(20)]
    pair.settle()
    assert pair.a.channel.remote_number == 1
    for n, id in enumerate(ids):
        pair.b.do(ev.FulfillHtlc(id=id, preimage=preimage_of(1_000_000 + n)))
    pair.settle()
    assert pair.a.channel.remote_number == 2
    assert pair.a.channel.local_settled == 1_000_000_000 - 20_000_000 - 190


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-071")
def test_we_offer_no_amount_below_the_minimum_and_no_time_as_expiry() -> None:
    pair = open_pair(policy_b=ChannelPolicy(minimum_depth=1, htlc_minimum_msat=Msat(1_000)))
    assert refused(pair.a, add_command(999), ErrorCode.AMOUNT_TOO_SMALL).details == {"offered": 999, "allowed": 1_000}
    refused(pair.a, add_command(0), ErrorCode.AMOUNT_TOO_SMALL)
    refused(pair.a, add_command(5_000, cltv_expiry=BlockHeight(500_000_000)), ErrorCode.BAD_EXPIRY)
    refused(pair.a, add_command(5_000, onion_routing_packet=bytes(1365)), ErrorCode.BAD_ONION)
    pair.a.do(add_command(1_000))


@pytest.mark.proves("C-071")
@pytest.mark.parametrize(("amount", "expiry"), [(0, 500), (999, 500), (1_000, 500_000_000)])
def test_a_peers_htlc_below_the_minimum_or_with_a_time_costs_the_connection(amount: int, expiry: int) -> None:
    pair = open_pair(policy_b=ChannelPolicy(minimum_depth=1, htlc_minimum_msat=Msat(1_000)))
    before = pair.b.channel
    assert names(send(pair, pair.b, add_message(pair, amount=amount, expiry=expiry))) == WARNED
    assert pair.b.channel is before


@pytest.mark.proves("C-072")
def test_count_and_value_in_flight_are_limited_on_both_sides() -> None:
    limits = ChannelPolicy(minimum_depth=1, max_accepted_htlcs=2, max_in_flight_percent=10)
    pair = open_pair(policy_b=limits)
    assert refused(pair.a, add_command(100_000_001), ErrorCode.IN_FLIGHT_LIMIT).details["allowed"] == 100_000_000
    for _ in range(2):
        pair.a.do(add_command(10_000_000))
    assert refused(pair.a, add_command(10_000_000), ErrorCode.TOO_MANY_HTLCS).details == {"offered": 3, "allowed": 2}
    pair.settle()
    refused(pair.a, add_command(10_000_000), ErrorCode.TOO_MANY_HTLCS)
    assert names(send(pair, pair.b, add_message(pair, id=2))) == WARNED


@pytest.mark.proves("C-072")
def test_a_peer_that_exceeds_our_value_in_flight_costs_the_connection() -> None:
    pair = open_pair(policy_b=ChannelPolicy(minimum_depth=1, max_in_flight_percent=10))
    assert names(send(pair, pair.b, add_message(pair, amount=100_000_001))) == WARNED
    assert names(send(pair, pair.b, add_message(pair, amount=100_000_000))) == []


@pytest.mark.proves("C-073")
def test_the_funder_keeps_reserve_anchors_and_a_fee_spike_buffer() -> None:
    pair = open_pair()
    channel = pair.a.channel
    most = available_to_send(channel, 2)
    # both reserves are 1 %; 500 sat/kw doubled, with this HTLC and one more; two anchors
    assert most == 1_000_000_000 - 10_000_000 - (1_000 * (1124 + 2 * 172) // 1000 + 660) * 1000
    error = refused(pair.a, add_command(most + 1), ErrorCode.INSUFFICIENT_BALANCE)
    assert error.details["allowed"] == most
    pair.a.do(add_command(most))
    pair.settle()
    assert pair.b.channel.remote_next.remote_msat == 1_000_000_000 - most
    refused(pair.a, add_command(1), ErrorCode.INSUFFICIENT_BALANCE)


@pytest.mark.proves("C-073")
def test_a_funder_that_dips_into_its_reserve_costs_the_connection() -> None:
    pair = open_pair()
    cost = (500 * (1124 + 172) // 1000 + 660) * 1000
    limit = 1_000_000_000 - 10_000_000 - cost
    assert names(send(pair, pair.b, add_message(pair, amount=limit + 1))) == WARNED
    assert names(send(pair, pair.b, add_message(pair, amount=limit))) == []


@pytest.mark.proves("C-073")
def test_the_fundee_keeps_its_reserve_and_leaves_the_funder_its_fees() -> None:
    pair = open_pair(push_msat=100_000_000)
    refused(pair.b, add_command(90_000_001), ErrorCode.INSUFFICIENT_BALANCE)
    assert names(send(pair, pair.a, add_message(pair, amount=90_000_001))) == WARNED
    pair = open_pair(funding=100_000, push_msat=97_750_000)
    error = refused(pair.b, add_command(1_000_000), ErrorCode.INSUFFICIENT_BALANCE)
    assert "peer could not pay" in str(error)


@pytest.mark.proves("C-074")
def test_ids_count_from_0_without_gaps_and_hashes_may_repeat() -> None:
    pair = open_pair()
    same = [pair.add(pair.a, 5_000_000, b"x" * 32) for _ in range(3)]
    pair.settle()
    assert same == [0, 1, 2]
    pair.b.do(ev.FulfillHtlc(id=0, preimage=b"x" * 32))
    pair.settle()
    assert pair.add(pair.a, 5_000_000) == 3
    for id in (0, 3, 5):
        assert names(send(pair, pair.b, add_message(pair, id=id)))[:2] == (WARNED if id != 3 else [])


@pytest.mark.proves("C-074")
def test_an_id_that_was_never_acknowledged_is_used_again_after_a_reconnect() -> None:
    pair = open_pair()
    pair.add(pair.a, 5_000_000)
    pair.deliver(pair.a)
    assert pair.b.channel.next_remote_id == 1
    pair.reconnect()
    assert [d.id for d in pair.b.deliveries if isinstance(d, fx.HtlcReceived)] == [0]
    pay(pair, pair.a, 7_000_000)
    assert pair.a.channel.next_local_id == pair.b.channel.next_remote_id == 2


# -- who acts when -----------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-076")
def test_an_htlc_is_delivered_only_when_both_are_bound_to_it() -> None:
    pair = open_pair()
    pair.add(pair.a, 5_000_000)
    pair.end_turn(pair.a)
    pair.deliver(pair.a)
    pair.end_turn(pair.b)
    assert waiting_names(pair.b) == ["revoke_and_ack", "commitment_signed"]
    assert pair.b.channel.remote_htlcs[0].stage == Stage.ADD_SIGNED_BY_OTHER
    assert not pair.b.deliveries
    pair.deliver(pair.b)
    assert not pair.b.deliveries
    pair.deliver(pair.a)
    assert [d.id for d in pair.b.deliveries if isinstance(d, fx.HtlcReceived)] == [0]
    assert pair.b.channel.remote_htlcs[0].stage == Stage.COMMITTED


@pytest.mark.proves("C-077")
def test_a_failure_is_told_only_when_the_removal_is_irrevocable() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 5_000_000)
    forget(pair.a)
    pair.b.do(ev.FailHtlc(id=0, reason=b"r" * 292))
    pair.end_turn(pair.b)
    pair.deliver(pair.b)
    pair.end_turn(pair.a)
    assert not pair.a.deliveries
    pair.deliver(pair.a)
    assert not pair.a.deliveries
    pair.deliver(pair.b)
    assert pair.a.deliveries == [failed(5_000_000, reason=b"r" * 292)]
    pair.settle()
    assert len(pair.a.deliveries) == 1


@pytest.mark.proves("C-079")
def test_a_preimage_is_told_at_once() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 5_000_000)
    forget(pair.a)
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(5_000_000)))
    pair.deliver(pair.b)
    assert pair.a.deliveries == [fx.HtlcFulfilled(id=0, preimage=preimage_of(5_000_000))]
    pair.settle()
    assert len(pair.a.deliveries) == 1


def test_a_malformed_report_keeps_its_fields() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 5_000_000)
    forget(pair.a)
    pair.b.do(ev.FailMalformedHtlc(id=0, sha256_of_onion=b"o" * 32, failure_code=0xC005))
    pair.settle()
    assert pair.a.deliveries == [failed(5_000_000, sha256_of_onion=b"o" * 32, failure_code=0xC005)]


@pytest.mark.proves("C-080")
def test_an_offered_htlc_past_its_grace_closes_on_chain() -> None:
    pair = open_pair()
    pair.add(pair.a, 5_000_000, expiry=pair.a.env.height + 10)
    pair.settle()
    forget(pair.a)
    pair.mine(12)
    assert lifecycle(pair.a) is Lifecycle.NORMAL
    pair.mine(1)
    assert names(pair.a.log) == [*FAILED, "publish Alarm"]
    assert lifecycle(pair.a) is Lifecycle.FORCE_CLOSING
    assert pair.a.broadcasts[-1].kind is BroadcastKind.UNILATERAL_CLOSE


@pytest.mark.proves("C-080")
def test_a_fulfilled_htlc_that_is_not_let_go_closes_on_chain() -> None:
    pair = open_pair()
    height = pair.a.env.height
    commit_add(pair, pair.a, 5_000_000, expiry=height + 30)
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(5_000_000)))
    pair.disconnect()
    pair.mine(11)
    assert lifecycle(pair.b) is Lifecycle.NORMAL
    pair.mine(1)
    assert lifecycle(pair.b) is Lifecycle.FORCE_CLOSING
    assert lifecycle(pair.a) is Lifecycle.NORMAL


def test_a_failed_htlc_near_its_expiry_closes_nothing() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 5_000_000, expiry=pair.a.env.height + 30)
    pair.b.do(ev.FailHtlc(id=0, reason=b""))
    pair.disconnect()
    pair.mine(20)
    assert lifecycle(pair.b) is Lifecycle.NORMAL


@pytest.mark.proves("C-081")
def test_only_committed_htlcs_are_removed_and_only_once() -> None:
    pair = open_pair()
    pair.add(pair.a, 5_000_000)
    pair.deliver(pair.a)
    command = ev.FulfillHtlc(id=0, preimage=preimage_of(5_000_000))
    refused(pair.b, command, ErrorCode.HTLC_NOT_COMMITTED)
    refused(pair.b, ev.FailHtlc(id=0, reason=b""), ErrorCode.HTLC_NOT_COMMITTED)
    pair.settle()
    refused(pair.b, ev.FulfillHtlc(id=7, preimage=preimage_of(5_000_000)), ErrorCode.UNKNOWN_HTLC)
    refused(pair.b, ev.FulfillHtlc(id=0, preimage=preimage_of(1)), ErrorCode.WRONG_PREIMAGE)
    malformed = ev.FailMalformedHtlc(id=0, sha256_of_onion=bytes(32), failure_code=0x4005)
    refused(pair.b, malformed, ErrorCode.BAD_FAILURE)
    pair.b.do(command)
    refused(pair.b, command, ErrorCode.HTLC_NOT_COMMITTED)


@pytest.mark.proves("C-082")
@pytest.mark.parametrize("bad", ["unknown", "preimage", "badonion", "uncommitted", "twice"])
def test_a_bad_removal_costs_the_connection(bad: str) -> None:
    pair = open_pair()
    id = pair.a.channel.channel_id
    commit_add(pair, pair.a, 5_000_000)
    good = UpdateFulfillHtlc(channel_id=id, id=0, payment_preimage=preimage_of(5_000_000))
    message: UpdateFulfillHtlc | UpdateFailHtlc | UpdateFailMalformedHtlc = good
    if bad == "unknown":
        message = replace(good, id=1)
    elif bad == "preimage":
        message = replace(good, payment_preimage=bytes(32))
    elif bad == "badonion":
        message = UpdateFailMalformedHtlc(channel_id=id, id=0, sha256_of_onion=bytes(32), failure_code=0x4005)
    elif bad == "uncommitted":
        pair.add(pair.a, 6_000_000)
        message = UpdateFailHtlc(channel_id=id, id=1, reason=b"")
    else:
        assert names(send(pair, pair.a, good)) == ["deliver HtlcFulfilled"]
        message = UpdateFailHtlc(channel_id=id, id=0, reason=b"")
    before = pair.a.channel
    assert names(send(pair, pair.a, message)) == WARNED
    assert pair.a.channel is before


# -- dust --------------------------------------------------------------------------------------------------------------

DUST = ChannelPolicy(minimum_depth=1, max_dust_exposure_msat=Msat(1_000_000))


@pytest.mark.proves("C-086")
def test_dust_beyond_the_limit_is_never_offered() -> None:
    pair = open_pair(policy_a=DUST)
    for _ in range(3):
        pair.add(pair.a, 300_000)
    error = refused(pair.a, add_command(300_000), ErrorCode.DUST_EXPOSURE)
    assert error.details == {"offered": 1_200_000, "allowed": 1_000_000}
    pair.settle()
    refused(pair.a, add_command(300_000), ErrorCode.DUST_EXPOSURE)
    pair.add(pair.a, 354_000)


@pytest.mark.proves("C-086")
def test_received_dust_beyond_the_limit_must_fail_and_is_never_paid() -> None:
    pair = open_pair(policy_b=DUST)
    for n in range(4):
        pair.add(pair.a, 300_000 + n)
    pair.settle()
    received = [d for d in pair.b.deliveries if isinstance(d, fx.HtlcReceived)]
    assert [d.must_fail for d in received] == [False, False, False, True]
    refused(pair.b, ev.FulfillHtlc(id=3, preimage=preimage_of(300_003)), ErrorCode.DUST_EXPOSURE)
    pair.b.restart()
    refused(pair.b, ev.FulfillHtlc(id=3, preimage=preimage_of(300_003)), ErrorCode.DUST_EXPOSURE)
    pair.b.do(ev.FailHtlc(id=3, reason=b""))
    pair.reconnect()
    assert [d.id for d in pair.a.deliveries if isinstance(d, fx.HtlcFailed)] == [3]


# -- signatures and revocations ----------------------------------------------------------------------------------------


@pytest.mark.proves("C-087")
def test_nothing_is_signed_without_a_change() -> None:
    pair = open_pair()
    assert names(pair.a.do(ev.TurnEnded())) == []
    pair.add(pair.a, 5_000_000)
    assert names(pair.a.do(ev.TurnEnded())) == ["sign SignCounterpartyCommitment"]
    assert names(pair.a.do(ev.TurnEnded())) == []
    pair.settle()
    assert names(pair.a.do(ev.TurnEnded())) == []


def test_one_signature_for_each_output_in_the_order_of_outputs() -> None:
    pair = open_pair()
    for amount in (9_000_000, 300_000, 5_000_000, 7_000_000):
        pair.add(pair.a, amount)
    pair.end_turn(pair.a)
    assert len(waiting(pair.a, CommitmentSigned).htlc_signature) == 3
    pair.settle()


def high_s(signature: bytes) -> bytes:
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    return signature[:32] + (order - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")


@pytest.mark.proves("C-088")
@pytest.mark.parametrize("bad", ["zeros", "high_s", "htlc", "htlc_high_s", "too_few", "too_many"])
def test_a_bad_commitment_signature_costs_the_connection_and_nothing_else(bad: str) -> None:
    pair = open_pair()
    pair.add(pair.a, 5_000_000)
    pair.end_turn(pair.a)
    good = waiting(pair.a, CommitmentSigned)
    signature, htlcs = good.signature, good.htlc_signature
    message = {
        "zeros": replace(good, signature=bytes(64)),
        "high_s": replace(good, signature=high_s(signature)),
        "htlc": replace(good, htlc_signature=(signature,)),
        "htlc_high_s": replace(good, htlc_signature=(high_s(htlcs[0]),)),
        "too_few": replace(good, htlc_signature=()),
        "too_many": replace(good, htlc_signature=(*htlcs, htlcs[0])),
    }[bad]
    pair.deliver(pair.a, 1)
    pair.b.commit()
    assert names(send(pair, pair.b, message)) == WARNED
    assert pair.b.channel.local_number == 0
    assert pair.b.commit() == 0
    pair.reconnect()
    assert pair.b.channel.local_number == 1


def test_a_second_commitment_before_our_revocation_costs_the_connection() -> None:
    pair = open_pair()
    pair.b.hold_signer = True
    pair.add(pair.a, 5_000_000)
    pair.end_turn(pair.a)
    again = waiting(pair.a, CommitmentSigned)
    pair.deliver(pair.a)
    assert names(send(pair, pair.b, again)) == WARNED


def revocation(pair: ChannelPair) -> RevokeAndAck:
    pair.add(pair.a, 5_000_000)
    pair.end_turn(pair.a)
    pair.deliver(pair.a)
    return waiting(pair.b, RevokeAndAck)


@pytest.mark.proves("C-089")
@pytest.mark.parametrize("change", [{"per_commitment_secret": bytes(32)}, {"per_commitment_secret": b"\1" * 32}])
def test_a_wrong_secret_fails_the_channel(change: dict[str, object]) -> None:
    pair = open_pair()
    message = revocation(pair)
    forget(pair.a)
    assert names(send(pair, pair.a, replace(message, **change))) == FAILED
    assert lifecycle(pair.a) is Lifecycle.FORCE_CLOSING


def test_an_uninvited_revocation_costs_the_connection() -> None:
    pair = open_pair()
    message = revocation(pair)
    pair.settle()
    assert names(send(pair, pair.a, message)) == WARNED


def test_a_slow_signer_never_reorders_messages() -> None:
    """An add after the question to the signer leaves after the ``commitment_signed`` that does not contain it."""
    pair = open_pair()
    pair.a.hold_signer = True
    pair.add(pair.a, 5_000_000)
    pair.end_turn(pair.a)
    pair.add(pair.a, 6_000_000)
    assert waiting_names(pair.a) == ["update_add_htlc"]
    pair.a.answer_signer()
    assert waiting_names(pair.a) == ["update_add_htlc", "commitment_signed", "update_add_htlc"]
    pair.a.hold_signer = False
    pair.settle()
    assert len([d for d in pair.b.deliveries if isinstance(d, fx.HtlcReceived)]) == 2


def test_an_absent_signer_is_asked_again_and_a_refusal_is_final() -> None:
    pair = open_pair()
    pair.a.hold_signer = True
    pair.add(pair.a, 5_000_000)
    pair.end_turn(pair.a)
    request = pair.a.questions.popleft()
    effects = pair.a.do(ev.SignerFailed(request_id=request.request_id, refused=False, text="gone"))
    assert names(effects) == ["settimer"]
    pair.a.do(ev.TimerFired(name="signer"))
    assert pair.a.questions.popleft() == request
    effects = pair.a.do(ev.SignerFailed(request_id=request.request_id, refused=True, text="no"))
    assert names(effects) == ["publish Alarm"]
    pair.a.do(ev.TimerFired(name="signer"))
    assert not pair.a.questions
    assert lifecycle(pair.a) is Lifecycle.NORMAL


# -- fees --------------------------------------------------------------------------------------------------------------


def fee_message(pair: ChannelPair, feerate: int) -> UpdateFeeMessage:
    return UpdateFeeMessage(channel_id=pair.a.channel.channel_id, feerate_per_kw=feerate)


def test_a_fee_change_reaches_both_commitments() -> None:
    pair = open_pair()

    pair.a.do(ev.UpdateFee(feerate=FeeRatePerKw(1_500)))
    pair.settle()
    for end in pair.ends:
        assert end.channel.feerate == 1_500
        assert not end.channel.fee_updates
    pay(pair, pair.a, 5_000_000)


@pytest.mark.proves("C-090")
@pytest.mark.parametrize("feerate", [252, 250_001])
def test_an_absurd_feerate_costs_the_connection(feerate: int) -> None:
    pair = open_pair()
    assert names(send(pair, pair.b, fee_message(pair, feerate))) == WARNED


def test_what_a_peer_pays_is_not_absurd_because_our_mempool_is_empty() -> None:
    """Estimators differ most when blocks are not full; 25 satoshi per virtual byte of the peer's money harm nobody."""
    pair = open_pair()
    env = pair.b.env
    pair.b.env = replace(env, feerates=replace(env.feerates, maximum=FeeRatePerKw(253)))
    assert names(send(pair, pair.b, fee_message(pair, 6_250))) == []
    assert names(send(pair, pair.b, fee_message(pair, 6_251))) == WARNED


@pytest.mark.proves("C-090")
def test_the_side_that_does_not_pay_sets_no_feerate() -> None:
    pair = open_pair(push_msat=500_000_000)
    assert names(send(pair, pair.a, fee_message(pair, 1_000))) == WARNED
    refused(pair.b, ev.UpdateFee(feerate=FeeRatePerKw(1_000)), ErrorCode.NOT_FUNDER)


@pytest.mark.proves("C-090")
def test_a_feerate_that_cannot_be_paid_costs_the_connection() -> None:
    pair = open_pair(funding=30_000)
    assert names(send(pair, pair.b, fee_message(pair, 200_000))) == WARNED
    refused(pair.a, ev.UpdateFee(feerate=FeeRatePerKw(200_000)), ErrorCode.INSUFFICIENT_BALANCE)
    refused(pair.a, ev.UpdateFee(feerate=FeeRatePerKw(252)), ErrorCode.BAD_FEERATE)


def test_a_low_feerate_is_accepted_while_it_raises_the_current_one() -> None:
    pair = open_pair()
    env = pair.b.env
    pair.b.env = replace(env, feerates=replace(env.feerates, min_allowed_anchor_remote=FeeRatePerKw(2_000)))
    assert names(send(pair, pair.b, fee_message(pair, 499))) == WARNED
    assert names(send(pair, pair.b, fee_message(pair, 600))) == []


def test_the_feerate_follows_the_estimate_upwards_at_once_and_downwards_when_it_halves() -> None:
    pair = open_pair()

    def follow(feerate: int) -> list[str]:
        pair.set_feerate(feerate)
        words = names(pair.a.do(ev.FeerateChanged()))
        pair.settle()
        return words

    assert follow(501) == ["send update_fee"]
    assert follow(300) == []
    assert follow(251) == []
    assert follow(2_000) == ["send update_fee"]
    assert follow(999) == ["send update_fee"]
    assert names(pair.b.do(ev.FeerateChanged())) == []


def test_commands_need_a_connection_but_removals_wait_for_one() -> None:
    pair = open_pair(push_msat=100_000_000)
    commit_add(pair, pair.a, 5_000_000)
    pair.disconnect()
    refused(pair.a, add_command(1_000_000), ErrorCode.NOT_CONNECTED)
    refused(pair.a, ev.UpdateFee(feerate=FeeRatePerKw(1_000)), ErrorCode.NOT_CONNECTED)
    pair.b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(5_000_000)))
    pair.connect()
    pair.settle()
    assert pair.b.channel.local_settled == 105_000_000


def test_warnings_carry_the_rule_in_words_only() -> None:
    pair = open_pair()
    effects = send(pair, pair.b, add_message(pair, id=9))
    text = of_kind(effects, WarningMessage)[0].data
    assert text == b"wrong HTLC id"


def test_errors_carry_offered_and_allowed() -> None:
    pair = open_pair()
    with pytest.raises(ChannelError, match=r"offered=2000000000, allowed=\d+"):
        pair.a.do(add_command(2_000_000_000, amount_msat=Msat(2_000_000_000)))
