"""Every lifecycle meets every message, event and command: the table says what happens, and nothing ever raises but
``ChannelError`` for a command."""

from functools import lru_cache

import pytest
from channel_kit import commit_add, make_pair, open_pair, pay
from leyden import wire
from leyden.bitcoin import Transaction, TxIn, TxOut, p2wpkh
from leyden.channel import Channel, ChannelError, Env, ErrorCode, Lifecycle, Link, records, step
from leyden.channel import events as ev
from leyden.channel.tables import COMMANDS, EVENTS, MESSAGES, Verdict, message_verdict, verdict
from leyden.hooks.signing import Signature
from leyden.testing.channel_pair import ChannelEnd, ChannelPair, names
from leyden.types import BlockHeight, FeeRatePerKw, Msat, OutPoint, Sat
from leyden.wire import Message
from leyden.wire.features import Features
from msgspec.structs import replace

L = Lifecycle


def _opening(until: Lifecycle) -> ChannelEnd:
    """One side stopped at a stage of the opening."""
    pair = make_pair()
    pair.propose()
    if until is L.AWAIT_ACCEPT:
        return pair.a
    pair.accept()
    if until is L.AWAIT_FUNDING_CREATED:
        return pair.b
    pair.settle()
    if until is L.AWAIT_FUNDING:
        return pair.a
    pair.a.hold_signer = until is L.FUNDER_SIGNING
    pair.provide_funding()
    if until in (L.FUNDER_SIGNING, L.AWAIT_FUNDING_SIGNED):
        return pair.a
    pair.b.hold_signer = until is L.FUNDEE_SIGNING
    pair.deliver(pair.a)
    if until is L.FUNDEE_SIGNING:
        return pair.b
    pair.a.hold_signer = until is L.FUNDER_VALIDATING
    pair.deliver(pair.b)
    return pair.a


def _later(until: Lifecycle) -> ChannelEnd:
    pair = open_pair(push_msat=300_000_000)
    end = pair.a
    match until:
        case L.NORMAL:
            commit_add(pair, pair.b, 5_000_000)
        case L.CLOSING:
            end.do(ev.Shutdown())
            pair.settle()
        case L.FORCE_CLOSING:
            end.do(ev.ForceClose(reason="x"))
        case L.REMOTE_CLOSED:
            pair.b.do(ev.ForceClose(reason="x"))
            end.do(ev.FundingSpent(tx=pair.b.broadcasts[-1].tx, height=end.env.height))
        case L.DATA_LOSS:
            return _data_loss(pair)
        case L.CLOSED:
            end.do(ev.Shutdown())
            pair.settle()
            pair.confirm_spend(end.broadcasts[-1].tx)
            pair.mine(6)
        case L.ABANDONED:
            end = _opening(L.AWAIT_ACCEPT)
            end.do(ev.PeerDisconnected())
        case _:
            raise AssertionError(until)
    return end


def _data_loss(pair: ChannelPair) -> ChannelEnd:
    pay(pair, pair.a, 5_000_000)
    old = dict(pair.a.rows)
    pay(pair, pair.a, 6_000_000)
    pair.disconnect()
    pair.a.rows = old
    pair.a.restart()
    pair.connect()
    pair.deliver(pair.b)
    return pair.a


@lru_cache
def at(lifecycle: Lifecycle) -> tuple[Channel, Env]:
    early = list(L).index(lifecycle) <= list(L).index(L.AWAIT_CONFIRMATION)
    end = _opening(lifecycle) if early else _later(lifecycle)
    assert end.channel.lifecycle is lifecycle
    return end.channel, end.env


POINT = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")


def messages(channel: Channel) -> list[Message]:
    """One of each kind, well formed and mostly wrong."""
    id = channel.channel_id
    terms = {
        "dust_limit_satoshis": 354,
        "max_htlc_value_in_flight_msat": 1,
        "channel_reserve_satoshis": 1_000,
        "htlc_minimum_msat": 1,
        "to_self_delay": 144,
        "max_accepted_htlcs": 1,
        "funding_pubkey": POINT,
        "revocation_basepoint": POINT,
        "payment_basepoint": POINT,
        "delayed_payment_basepoint": POINT,
        "htlc_basepoint": POINT,
        "first_per_commitment_point": POINT,
    }
    return [
        wire.OpenChannel(
            chain_hash=bytes(32),
            temporary_channel_id=id,
            funding_satoshis=100_000,
            push_msat=0,
            feerate_per_kw=500,
            channel_flags=0,
            **terms,
        ),
        wire.AcceptChannel(temporary_channel_id=id, minimum_depth=1, **terms),
        wire.FundingCreated(
            temporary_channel_id=id, funding_txid=bytes(32), funding_output_index=0, signature=bytes(64)
        ),
        wire.FundingSigned(channel_id=id, signature=bytes(64)),
        wire.ChannelReady(channel_id=id, second_per_commitment_point=POINT),
        wire.Shutdown(channel_id=id, scriptpubkey=p2wpkh(bytes(20))),
        wire.ClosingSigned(channel_id=id, fee_satoshis=500, signature=bytes(64)),
        *(
            kind(
                channel_id=id,
                closer_scriptpubkey=p2wpkh(bytes(20)),
                closee_scriptpubkey=p2wpkh(bytes(20)),
                fee_satoshis=500,
                locktime=0,
                closer_output_only=bytes(64),
            )
            for kind in (wire.ClosingComplete, wire.ClosingSig)
        ),
        wire.UpdateAddHtlc(
            channel_id=id,
            id=99,
            amount_msat=1_000,
            payment_hash=bytes(32),
            cltv_expiry=1,
            onion_routing_packet=bytes(1366),
        ),
        wire.UpdateFulfillHtlc(channel_id=id, id=99, payment_preimage=bytes(32)),
        wire.UpdateFailHtlc(channel_id=id, id=99, reason=b""),
        wire.UpdateFailMalformedHtlc(channel_id=id, id=99, sha256_of_onion=bytes(32), failure_code=0x8000),
        wire.UpdateFee(channel_id=id, feerate_per_kw=500),
        wire.CommitmentSigned(channel_id=id, signature=bytes(64), htlc_signature=()),
        wire.RevokeAndAck(channel_id=id, per_commitment_secret=bytes(32), next_per_commitment_point=POINT),
        wire.ChannelReestablish(
            channel_id=id,
            next_commitment_number=7,
            next_revocation_number=5,
            your_last_per_commitment_secret=bytes(32),
            my_current_per_commitment_point=POINT,
        ),
        wire.ErrorMessage(channel_id=id, data=b"e"),
        wire.WarningMessage(channel_id=id, data=b"w"),
        wire.AnnouncementSignatures(
            channel_id=id, short_channel_id=1, node_signature=bytes(64), bitcoin_signature=bytes(64)
        ),
    ]


def events(channel: Channel) -> list[ev.AnyInput]:
    foreign = Transaction(
        version=2,
        inputs=(TxIn(prevout=_outpoint(channel), sequence=0),),
        outputs=(TxOut(value=Sat(1_000), script=p2wpkh(bytes(20))),),
        locktime=0,
    )
    features = Features()
    height = BlockHeight(10_000)
    return [
        ev.PeerConnected(features=features),
        ev.PeerDisconnected(),
        ev.TurnEnded(),
        ev.Restarted(),
        ev.SignerAnswered(request_id="nobody", answer=Signature(signature=bytes(64))),
        ev.SignerFailed(request_id="nobody", refused=True, text=""),
        ev.TimerFired(name="closing"),
        ev.TimerFired(name="signer"),
        ev.FeerateChanged(),
        ev.BlockConnected(height=height),
        ev.FundingConfirmed(height=height, tx_index=1, output=foreign.outputs[0]),
        ev.FundingUnconfirmed(),
        ev.FundingRuledOut(),
        ev.FundingSpent(tx=foreign, height=height),
        ev.FundingUnspent(),
    ]


def _outpoint(channel: Channel) -> OutPoint:
    return channel.funding_outpoint or OutPoint(bytes(32), 0)


def commands() -> list[ev.AnyInput]:
    tx = Transaction(version=2, inputs=(TxIn(prevout=OutPoint(bytes(32), 0), sequence=0),), outputs=(), locktime=0)
    return [
        ev.ProvideFunding(tx=tx, vout=0),
        ev.AddHtlc(
            amount_msat=Msat(1),
            payment_hash=bytes(32),
            cltv_expiry=BlockHeight(1),
            onion_routing_packet=b"",
        ),
        ev.FulfillHtlc(id=77, preimage=bytes(32)),
        ev.FailHtlc(id=77, reason=b""),
        ev.FailMalformedHtlc(id=77, sha256_of_onion=b"", failure_code=0),
        ev.UpdateFee(feerate=FeeRatePerKw(1)),
        ev.Shutdown(script=b"nonsense"),
        ev.ForceClose(reason="x"),
        ev.FailChannel(text="x"),
    ]


def test_the_samples_cover_every_row() -> None:
    channel, _ = at(L.NORMAL)
    assert {type(m) for m in messages(channel)} == set(MESSAGES)
    assert {type(e) for e in events(channel)} == set(EVENTS)
    assert {type(c) for c in commands()} == set(COMMANDS)


@pytest.mark.parametrize("link", list(Link), ids=lambda link: link.value)
@pytest.mark.parametrize("lifecycle", list(Lifecycle), ids=lambda lifecycle: lifecycle.value)
def test_every_message_in_every_state(lifecycle: Lifecycle, link: Link) -> None:
    start, env = at(lifecycle)
    channel = replace(start, link=link)
    for message in messages(channel):
        after, effects = step(channel, ev.MessageReceived(message=message), env)
        found = message_verdict(type(message), lifecycle, link)
        if found is Verdict.IGNORE:
            assert after is channel, message
            assert not effects, message
        elif found is Verdict.REJECT:
            reply = "send error" if after.lifecycle is L.ABANDONED else "send warning"
            assert names(effects)[0] == reply, message
            assert after.lifecycle in (lifecycle, L.ABANDONED)
        records(channel, after)


@pytest.mark.parametrize("lifecycle", list(Lifecycle), ids=lambda lifecycle: lifecycle.value)
def test_every_event_in_every_state(lifecycle: Lifecycle) -> None:
    channel, env = at(lifecycle)
    for event in events(channel):
        after, effects = step(channel, event, env)
        found = verdict(type(event), lifecycle)
        assert found is not Verdict.REJECT
        if found is Verdict.IGNORE:
            assert after is channel, event
            assert not effects, event
        records(channel, after)


@pytest.mark.parametrize("lifecycle", list(Lifecycle), ids=lambda lifecycle: lifecycle.value)
def test_every_command_in_every_state(lifecycle: Lifecycle) -> None:
    channel, env = at(lifecycle)
    for command in commands():
        found, refusal = verdict(type(command), lifecycle), None
        try:
            after, effects = step(channel, command, env)
            assert effects or after is not channel
            records(channel, after)
        except ChannelError as error:
            refusal = error.code
        assert (refusal is ErrorCode.WRONG_STATE) is (found is Verdict.REJECT), command


def test_no_state_is_left_without_a_way_out() -> None:
    """Every state that is not over can be failed, by a command or by the peer's absence."""
    for lifecycle in Lifecycle:
        over = lifecycle in (L.CLOSED, L.ABANDONED)
        on_chain = lifecycle in (L.FORCE_CLOSING, L.REMOTE_CLOSED, L.DATA_LOSS)
        handled = verdict(ev.FailChannel, lifecycle) is Verdict.HANDLE
        assert handled is not (over or on_chain), lifecycle
