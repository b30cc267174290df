"""Peers that lie about channels: errors, warnings, ids that are not theirs, floods, and wrong signatures."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog
from leyden.channel import OPENING, Lifecycle
from leyden.hooks.types import Alarm
from leyden.node.opening import MAX_UNFUNDED_PEERS, MAX_UNFUNDED_PER_PEER
from leyden.node.peers import MAX_EXCUSES
from leyden.node.silence import SILENT_SECONDS
from leyden.testing.scripted_peer import ScriptedPeer
from leyden.wire import (
    AcceptChannel,
    ChannelReady,
    ChannelReestablish,
    ClosingSigned,
    CommitmentSigned,
    ErrorMessage,
    FundingCreated,
    FundingSigned,
    Init,
    Message,
    OpenChannel,
    RevokeAndAck,
    Shutdown,
    UpdateFee,
    UpdateFulfillHtlc,
    WarningMessage,
)
from leyden.wire.features import Context, Feature, Features, make_features

from tests.scenario.sim_kit import BusyNode, channels, fund, logged, start_opening

UNKNOWN = bytes([7]) * 32
ALL = bytes(32)
POINT = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
SIGNATURE = bytes([1]) * 64


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[BusyNode]:
    made = BusyNode(tmp_path)
    yield made
    made.simulation.settle()
    made.bystander.ping()
    made.close()


def as_friend(busy: BusyNode, *, reestablish: bool = True) -> ScriptedPeer:
    """The script takes the friend's place: same keys, and the channel is up again."""
    identity = busy.friend.core.services.node_identity
    busy.friend.kill()
    busy.simulation.settle()
    peer = ScriptedPeer(busy.simulation, busy.node, "friend", identity=identity).connect()
    ours = peer.expect(ChannelReestablish)
    assert ours.channel_id == busy.channel_id
    if reestablish:
        peer.send(first_reestablish(busy))
        peer.expect(ChannelReady)  # both sides are at the first commitment, so it is repeated
        assert busy.channel.is_usable
    return peer


def first_reestablish(busy: BusyNode) -> ChannelReestablish:
    """What a friend who has seen nothing but the opening says."""
    return ChannelReestablish(
        channel_id=busy.channel_id,
        next_commitment_number=1,
        next_revocation_number=0,
        your_last_per_commitment_secret=bytes(32),
        my_current_per_commitment_point=POINT,
    )


def proposal(busy: BusyNode) -> OpenChannel:
    """A proposal that the node takes: what the node itself would send to a stranger."""
    fund(busy.simulation, busy.node)
    peer = ScriptedPeer(busy.simulation, busy.node, "listener").accept()
    start_opening(busy.node, peer.node_id)
    message = peer.expect(OpenChannel)
    peer.vanish()
    busy.simulation.settle()
    return message


def again(message: OpenChannel, number: int) -> OpenChannel:
    return msgspec.structs.replace(message, temporary_channel_id=number.to_bytes(32, "big"))


# --- error and warning ------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-142")
def test_an_error_fails_the_channel_it_names(busy: BusyNode) -> None:
    peer = as_friend(busy)
    peer.send(ErrorMessage(channel_id=busy.channel_id, data=b"fire"))
    assert busy.channel.lifecycle is Lifecycle.FORCE_CLOSING
    assert "fire" in busy.channel.failure
    busy.simulation.mine(1)
    assert busy.channel.is_usable is False
    peer.ping()  # the connection stays


@pytest.mark.proves("C-142")
def test_an_error_with_all_zeros_fails_every_channel_with_that_peer(busy: BusyNode) -> None:
    peer = as_friend(busy)
    peer.send(ErrorMessage(channel_id=ALL, data=b"everything burns"))
    assert busy.channel.lifecycle is Lifecycle.FORCE_CLOSING


@pytest.mark.parametrize("text", [b"internal error", b"link failed to shutdown"])
def test_an_error_that_is_not_meant_costs_only_the_connection(busy: BusyNode, text: bytes) -> None:
    """LND says so of channels that are well, while it stops: everybody else keeps them."""
    peer = as_friend(busy)
    peer.send(ErrorMessage(channel_id=busy.channel_id, data=text))
    peer.expect_closed()
    assert busy.channel.lifecycle is Lifecycle.NORMAL
    peer.connect()
    peer.expect(ChannelReestablish)
    peer.send(first_reestablish(busy))
    peer.expect(ChannelReady)
    assert busy.channel.is_usable


@pytest.mark.proves("C-142")
def test_an_error_that_is_not_meant_is_meant_when_it_is_said_again_and_again(busy: BusyNode) -> None:
    peer = as_friend(busy)
    for _ in range(MAX_EXCUSES):
        peer.send(ErrorMessage(channel_id=busy.channel_id, data=b"internal error"))
        peer.expect_closed()
        assert busy.channel.lifecycle is Lifecycle.NORMAL
        peer.reconnect()
        peer.expect(ChannelReestablish)
    peer.send(ErrorMessage(channel_id=busy.channel_id, data=b"internal error"))
    assert busy.channel.lifecycle is Lifecycle.FORCE_CLOSING


def test_errors_about_channels_of_others_are_ignored(busy: BusyNode) -> None:
    peer = busy.script().connect()
    for channel_id in (busy.channel_id, UNKNOWN, ALL):
        peer.send(ErrorMessage(channel_id=channel_id, data=b"fire"))
        peer.expect_silence()
    peer.ping()
    busy.check()


@pytest.mark.proves("C-143")
@pytest.mark.parametrize("everything", [True, False])
def test_a_warning_fails_nothing(busy: BusyNode, everything: bool) -> None:
    peer = as_friend(busy)
    peer.send(WarningMessage(channel_id=ALL if everything else busy.channel_id, data=b"smoke"))
    peer.ping()
    assert busy.channel.is_usable


def test_trouble_that_can_pass_is_a_warning(busy: BusyNode) -> None:
    """A signature for changes that were never made: the connection ends, the channel waits for better days."""
    peer = as_friend(busy)
    peer.send(CommitmentSigned(channel_id=busy.channel_id, signature=SIGNATURE, htlc_signature=()))
    assert peer.expect(WarningMessage).channel_id == busy.channel_id
    peer.expect_closed()
    assert busy.channel.lifecycle is Lifecycle.NORMAL
    peer = ScriptedPeer(busy.simulation, busy.node, identity=peer.identity).connect()
    peer.expect(ChannelReestablish)
    peer.send(first_reestablish(busy))
    peer.expect(ChannelReady)
    assert busy.channel.is_usable


@pytest.mark.proves("C-143")
def test_our_error_uses_the_temporary_id_and_ends_the_opening_here_too(busy: BusyNode) -> None:
    message = again(proposal(busy), 1)
    peer = busy.script().connect()
    peer.send(message)
    assert peer.expect(AcceptChannel).temporary_channel_id == message.temporary_channel_id
    peer.send(
        FundingCreated(
            temporary_channel_id=message.temporary_channel_id,
            funding_txid=bytes(32),
            funding_output_index=0,
            signature=SIGNATURE,
        )
    )
    assert peer.expect(ErrorMessage).channel_id == message.temporary_channel_id
    assert [c.channel_id for c in channels(busy.node)] == [busy.channel_id]
    warned = busy.script("warner").connect()
    warned.send(message)
    warned.expect(AcceptChannel)
    warned.send(WarningMessage(channel_id=message.temporary_channel_id, data=b"hm"))
    warned.ping()
    assert any(c.lifecycle in OPENING for c in channels(busy.node))


def test_text_of_a_peer_is_cleaned_before_it_is_logged(busy: BusyNode) -> None:
    peer = as_friend(busy)
    nasty = "\x1b[31mred\x00\r\nfake line ‮reversed " + "x" * 5_000
    with structlog.testing.capture_logs() as logged:
        peer.send(WarningMessage(channel_id=ALL, data=nasty.encode()))
        peer.send(ErrorMessage(channel_id=ALL, data=nasty.encode() + b"\xff\xfe"))
    texts = [entry["text"] for entry in logged if entry["event"] == "peer_says"] + [busy.channel.failure]
    assert len(texts) == 3
    for text in texts:
        assert "red" in text
        assert len(text) < 600
        assert text.isprintable()


# --- channels that are not theirs -------------------------------------------------------------------------------------


def channel_messages(channel_id: bytes) -> list[Message]:
    return [
        ChannelReady(channel_id=channel_id, second_per_commitment_point=POINT),
        Shutdown(channel_id=channel_id, scriptpubkey=b"\x00\x14" + bytes(20)),
        ClosingSigned(channel_id=channel_id, fee_satoshis=1, signature=SIGNATURE),
        CommitmentSigned(channel_id=channel_id, signature=SIGNATURE, htlc_signature=()),
        RevokeAndAck(channel_id=channel_id, per_commitment_secret=bytes(32), next_per_commitment_point=POINT),
        UpdateFee(channel_id=channel_id, feerate_per_kw=253),
        UpdateFulfillHtlc(channel_id=channel_id, id=0, payment_preimage=bytes(32)),
        FundingSigned(channel_id=channel_id, signature=SIGNATURE),
        ChannelReestablish(
            channel_id=channel_id,
            next_commitment_number=1,
            next_revocation_number=0,
            your_last_per_commitment_secret=bytes(32),
            my_current_per_commitment_point=POINT,
        ),
    ]


@pytest.mark.proves("C-144")
def test_messages_for_an_unknown_channel_get_an_error(busy: BusyNode) -> None:
    peer = busy.script().connect()
    for channel_id in (UNKNOWN, busy.channel_id, ALL):
        for message in channel_messages(channel_id):
            peer.send(message)
            assert peer.expect(ErrorMessage).channel_id == channel_id, message
    opening = AcceptChannel(
        temporary_channel_id=UNKNOWN,
        dust_limit_satoshis=354,
        max_htlc_value_in_flight_msat=1,
        channel_reserve_satoshis=354,
        htlc_minimum_msat=1,
        minimum_depth=1,
        to_self_delay=6,
        max_accepted_htlcs=1,
        funding_pubkey=POINT,
        revocation_basepoint=POINT,
        payment_basepoint=POINT,
        delayed_payment_basepoint=POINT,
        htlc_basepoint=POINT,
        first_per_commitment_point=POINT,
    )
    peer.send(opening)
    assert peer.expect(ErrorMessage).channel_id == UNKNOWN
    peer.ping()
    busy.check()


@pytest.mark.parametrize("index", range(9))
def test_the_friend_turns_bad(busy: BusyNode, index: int) -> None:
    """Every message out of place costs the connection or the channel, never the node."""
    peer = as_friend(busy)
    peer.send(channel_messages(busy.channel_id)[index])
    peer.simulation.settle()
    busy.bystander.ping()
    busy.simulation.mine(1)
    assert not busy.core.engine.degraded


@pytest.mark.parametrize("index", range(8))
def test_the_friend_speaks_before_reestablish(busy: BusyNode, index: int) -> None:
    peer = as_friend(busy, reestablish=False)
    peer.send(channel_messages(busy.channel_id)[index])
    assert busy.channel.lifecycle is Lifecycle.NORMAL
    assert not busy.channel.is_usable


# --- floods and repeated ids ------------------------------------------------------------------------------------------


def test_four_openings_without_funding_per_peer(busy: BusyNode) -> None:
    message = proposal(busy)
    peer = busy.script().connect()
    for number in range(MAX_UNFUNDED_PER_PEER):
        peer.send(again(message, number))
        peer.expect(AcceptChannel)
    for number in range(MAX_UNFUNDED_PER_PEER, 20):
        peer.send(again(message, number))
        assert peer.expect(ErrorMessage).channel_id == number.to_bytes(32, "big")
    assert sum(c.lifecycle in OPENING for c in channels(busy.node)) == MAX_UNFUNDED_PER_PEER
    peer.ping()
    busy.check()
    peer.vanish()
    assert [c.channel_id for c in channels(busy.node)] == [busy.channel_id]


def test_four_channels_with_a_funding_nobody_has_seen_per_peer(busy: BusyNode) -> None:
    """Signing first commitments for fundings that never come costs us rows: it is bounded like openings."""
    for _ in range(MAX_UNFUNDED_PER_PEER + 3):
        fund(busy.simulation, busy.friend)
    for _ in range(MAX_UNFUNDED_PER_PEER + 3):
        start_opening(busy.friend, busy.node.node_id)
    waiting = [c for c in channels(busy.node) if c.lifecycle is Lifecycle.AWAIT_CONFIRMATION]
    assert len(waiting) == MAX_UNFUNDED_PER_PEER


class SlowSigner:
    """Answers in a later turn."""

    stateless = inline = False

    def __init__(self, signer: object) -> None:
        self._signer = signer

    def __getattr__(self, name: str) -> object:
        return getattr(self._signer, name)


def test_a_slow_signer_does_not_widen_the_bound(busy: BusyNode) -> None:
    message = proposal(busy)
    opener = busy.core.opener
    opener._signer = SlowSigner(opener._signer)  # type: ignore[assignment]  # passes everything on
    peer = busy.script().connect()
    peer.send(*(again(message, number) for number in range(20)))
    assert sum(c.lifecycle in OPENING for c in channels(busy.node)) == MAX_UNFUNDED_PER_PEER


def test_fifty_peers_with_openings(busy: BusyNode) -> None:
    message = proposal(busy)
    crowd = []
    for number in range(MAX_UNFUNDED_PEERS):
        peer = busy.script(f"crowd {number}").connect()
        peer.send(again(message, number + 1))
        peer.expect(AcceptChannel)
        crowd.append(peer)
    late = busy.script("late").connect()
    late.send(again(message, 999))
    assert "too many peers" in late.expect(ErrorMessage).data.decode()
    crowd[0].vanish()
    late.send(again(message, 999))
    late.expect(AcceptChannel)
    busy.check()


def test_the_same_temporary_id_twice_replaces_the_first(busy: BusyNode) -> None:
    message = again(proposal(busy), 5)
    peer = busy.script().connect()
    for _ in range(3):
        peer.send(message)
        peer.expect(AcceptChannel)
    assert sum(c.lifecycle in OPENING for c in channels(busy.node)) == 1
    busy.check()


def test_two_peers_with_the_same_temporary_id(busy: BusyNode) -> None:
    """Temporary ids are a peer's own: nobody can push another peer's opening out."""
    message = again(proposal(busy), 5)
    first, second = busy.script("first").connect(), busy.script("second").connect()
    first.send(message)
    first.expect(AcceptChannel)
    second.send(message)
    second.simulation.settle()
    first.send(
        FundingCreated(
            temporary_channel_id=message.temporary_channel_id,
            funding_txid=bytes(32),
            funding_output_index=0,
            signature=SIGNATURE,
        )
    )
    assert b"no such channel" not in first.expect(ErrorMessage).data


def test_a_temporary_id_that_is_a_channels_id(busy: BusyNode) -> None:
    message = msgspec.structs.replace(proposal(busy), temporary_channel_id=busy.channel_id)
    peer = busy.script().connect()
    peer.send(message)
    assert peer.expect(ErrorMessage).channel_id == busy.channel_id
    busy.check()


ANCHORS = Features.of(Feature.OPTION_STATIC_REMOTEKEY, Feature.OPTION_ANCHORS)
ALIAS = Features.of(Feature.OPTION_SCID_ALIAS)
PLAIN = Init(
    globalfeatures=b"",
    features=make_features(
        Context.INIT,
        required=(Feature.VAR_ONION_OPTIN, Feature.PAYMENT_SECRET, Feature.OPTION_STATIC_REMOTEKEY),
        optional=(Feature.OPTION_ANCHORS, Feature.OPTION_CHANNEL_TYPE),
    ).to_bytes(),
)
"""A peer without large channels, aliases and zero-conf."""


def test_a_channel_type_that_was_not_negotiated(busy: BusyNode) -> None:
    peer = busy.script().connect(init=PLAIN)
    peer.send(msgspec.structs.replace(again(proposal(busy), 1), channel_type=(ANCHORS | ALIAS).to_bytes()))
    assert "C-020" in peer.expect(ErrorMessage).data.decode()


def test_storage_trouble_with_a_channel(busy: BusyNode, expected_errors: set[str]) -> None:
    """The commit of a block fails: every peer is let go, the block comes again, the channel comes back by itself."""
    expected_errors.update(("turn_dropped", "storage_degraded"))
    height = busy.core.chain.height
    busy.node.store.fail_next(3)
    busy.simulation.mine(2)
    assert busy.core.engine.degraded
    assert not busy.core.peers.connected()
    assert busy.channel.lifecycle is Lifecycle.NORMAL
    busy.simulation.advance(10)
    busy.simulation.mine(1)
    assert not busy.core.engine.degraded
    assert busy.core.chain.height == height + 3
    busy.simulation.connect(busy.friend, busy.node)
    assert busy.channel.is_usable
    busy.bystander = ScriptedPeer(busy.simulation, busy.node, "bystander").connect()
    busy.check()


def test_a_peer_that_never_resumes_a_channel_is_told_of_once(busy: BusyNode) -> None:
    def told() -> int:
        alarms = logged(busy.node, Alarm)
        assert all(alarm.subject == "peer_silent" and busy.channel_id.hex() in alarm.text for alarm in alarms)
        return len(alarms)

    busy.simulation.advance(SILENT_SECONDS + 1)
    assert told() == 0, "the friend is there and the channel works"
    peer = as_friend(busy, reestablish=False)
    busy.simulation.advance(SILENT_SECONDS - 1)
    assert told() == 0
    busy.simulation.advance(2)
    assert told() == 1
    peer.reconnect()
    busy.simulation.advance(SILENT_SECONDS + 1)
    assert told() == 1
    peer.reconnect()
    peer.send(first_reestablish(busy))
    assert busy.channel.is_usable
    busy.simulation.advance(SILENT_SECONDS + 1)
    assert told() == 1
    peer.reconnect()
    busy.simulation.advance(SILENT_SECONDS / 2)
    peer.reconnect()
    busy.simulation.advance(SILENT_SECONDS - 1)
    assert told() == 1, "the time counts from the newest connection"
    busy.simulation.advance(2)
    assert told() == 2


def test_a_peer_that_comes_and_goes_leaves_no_timers(busy: BusyNode) -> None:
    def timers() -> int:
        return sum(not timer.cancelled for *_, timer in busy.simulation._timers)

    peer = as_friend(busy, reestablish=False)
    before = timers()
    for _ in range(5):
        peer.reconnect()
    assert timers() <= before
