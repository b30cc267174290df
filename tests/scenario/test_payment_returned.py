"""A peer that gives the preimage of a payment, and then the money back (LND 0.21.3, killed in between, does)."""

from leyden.hooks.types import Alarm, PaymentFailed, PaymentSent
from leyden.node import keyspace
from leyden.payments import PaymentStatus
from leyden.payments.records import decode_payment_record
from leyden.testing.scripted_peer import ScriptedPeer
from leyden.wire import UpdateFulfillHtlc

from tests.scenario.sim_kit import BusyNode, logged

AMOUNT = 5_000_000


def claimed(busy: BusyNode) -> tuple[ScriptedPeer, bytes]:
    """The node has paid the script, which has shown the preimage and never signed for it."""
    peer = busy.script().connect()
    channel = peer.open(peer.propose())
    invoice, preimage = peer.let_pay(AMOUNT)
    peer.run(channel)
    (htlc,) = channel.received
    peer.send(UpdateFulfillHtlc(channel_id=channel.channel.channel_id, id=htlc.id, payment_preimage=preimage))
    return peer, invoice.payment_hash


def test_it_stays_paid_and_a_person_is_told(busy: BusyNode) -> None:
    peer, payment_hash = claimed(busy)
    (channel,) = peer.channels
    before = channel.channel.local_settled
    peer.reestablish(channel)
    channel.fail_malformed(channel.received[0], 0xC004)
    peer.run(channel)

    record = decode_payment_record(busy.node.disk.rows[keyspace.payment_key(payment_hash)])
    assert record.status == PaymentStatus.SUCCEEDED
    assert channel.channel.local_settled == before
    assert not channel.channel.remote_htlcs
    assert logged(busy.node, PaymentSent)[-1].amount_msat == AMOUNT
    assert not logged(busy.node, PaymentFailed)
    (alarm,) = logged(busy.node, Alarm)
    assert alarm.subject == "payment_returned"
    assert f"{AMOUNT} msat" in alarm.text
    assert payment_hash.hex() in alarm.text


def test_a_payment_that_is_taken_in_the_end_alarms_nobody(busy: BusyNode) -> None:
    peer, payment_hash = claimed(busy)
    (channel,) = peer.channels
    peer.reestablish(channel)
    record = decode_payment_record(busy.node.disk.rows[keyspace.payment_key(payment_hash)])
    assert record.preimage is not None
    channel.fulfil(channel.received[0].id, record.preimage)
    peer.run(channel)

    assert [event.payment_hash for event in logged(busy.node, PaymentSent)].count(payment_hash) == 1
    assert not logged(busy.node, Alarm)
    assert not logged(busy.node, PaymentFailed)
