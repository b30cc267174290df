"""Handshakes and frames gone wrong: each costs that connection and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leyden.node import peer as peer_module
from leyden.testing.scripted_peer import ScriptedPeer
from leyden.transport import ACT_ONE_SIZE, ACT_THREE_SIZE, ACT_TWO_SIZE
from leyden.wire import MESSAGES, Init, Ping, Pong, encode
from leyden.wire.features import Feature, Features

from tests.scenario.sim_kit import BusyNode


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BusyNode]:
    made = BusyNode(Path(tmp_path_factory.mktemp("busy")))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_else_happens(busy: BusyNode) -> Iterator[None]:
    yield
    busy.dismiss()
    busy.check()
    assert busy.connections() == 0


def until_act_three(peer: ScriptedPeer) -> bytes:
    """The handshake up to the script's last act, which is returned unsent."""
    shake = peer.dial().initiator()
    peer.write(shake.act_one())
    act = shake.act_three(peer.ecdh(shake.on_act_two(peer.take(ACT_TWO_SIZE))))
    peer.begin(shake.session())
    return act


# --- acts -------------------------------------------------------------------------------------------------------------


def test_vanishing_at_every_byte_of_the_handshake(busy: BusyNode) -> None:
    for size in range(ACT_ONE_SIZE + 1):
        peer = busy.script().dial()
        peer.write(peer.initiator().act_one()[:size])
        peer.vanish() if size % 2 else peer.hang_up()
        assert busy.connections() == 0, size
    for size in range(ACT_THREE_SIZE + 1):
        peer = busy.script()
        peer.write(until_act_three(peer)[:size])
        peer.vanish() if size % 2 else peer.hang_up()
        assert busy.connections() == 0, size


@pytest.mark.proves("C-151")
def test_every_byte_of_act_one_counts(busy: BusyNode) -> None:
    for position in range(ACT_ONE_SIZE):
        peer = busy.script().dial()
        act = bytearray(peer.initiator().act_one())
        act[position] ^= 1
        peer.write(bytes(act))
        assert peer.closed, position
        with pytest.raises(AssertionError, match="wrote 0 bytes"):
            peer.take(1)


@pytest.mark.proves("C-152")
def test_every_byte_of_act_three_counts(busy: BusyNode) -> None:
    for position in range(ACT_THREE_SIZE):
        peer = busy.script()
        act = bytearray(until_act_three(peer))
        act[position] ^= 1
        peer.write(bytes(act))
        assert peer.closed, position
        peer.expect_closed()


@pytest.mark.proves("C-151")
def test_a_listener_that_answers_act_one_with_nonsense(busy: BusyNode) -> None:
    for answer in (bytes(ACT_TWO_SIZE), b"\x00" + bytes([2]) * 49, b"HTTP/1.1 400 Bad Request".ljust(60)):
        peer = busy.script().listen()
        peer.take(ACT_ONE_SIZE)
        peer.write(answer)
        assert peer.closed
        with pytest.raises(AssertionError, match="wrote 0 bytes"):
            peer.take(1)


@pytest.mark.proves("C-153")
def test_a_handshake_in_single_bytes(busy: BusyNode) -> None:
    peer = busy.script().dial()
    shake = peer.initiator()
    for byte in shake.act_one():
        peer.write(bytes([byte]))
    act = shake.act_three(peer.ecdh(shake.on_act_two(peer.take(ACT_TWO_SIZE))))
    peer.begin(shake.session())
    for byte in act + peer.seal(peer.make_init()):
        peer.write(bytes([byte]))
    peer.expect(Init)
    peer.ping()


@pytest.mark.proves("C-153")
def test_the_first_frames_may_come_with_the_last_act(busy: BusyNode) -> None:
    peer = busy.script()
    act = until_act_three(peer)
    peer.write(act + peer.seal(peer.make_init()) + peer.seal(Ping(num_pong_bytes=2, ignored=b"")))
    peer.expect(Init)
    peer.expect(Pong)


@given(data=st.binary(min_size=ACT_ONE_SIZE, max_size=500))
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_instead_of_a_handshake(busy: BusyNode, data: bytes) -> None:
    peer = busy.script().dial()
    peer.write(data)
    assert peer.closed
    assert busy.connections() == 0


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-156")
def test_every_byte_of_a_frame_counts(busy: BusyNode) -> None:
    size = len(busy.script("size").connect().seal(Ping(num_pong_bytes=1, ignored=b"xy")))
    for position in range(size):
        peer = busy.script(f"flipper {position}").connect()
        good = peer.seal(Ping(num_pong_bytes=7, ignored=b""))
        frame = bytearray(peer.seal(Ping(num_pong_bytes=1, ignored=b"xy")))
        frame[position] ^= 1
        peer.write(good + bytes(frame))
        assert peer.expect(Pong).ignored == bytes(7)  # what was whole counts
        assert peer.expect_closed() == ""


def test_a_bad_frame_after_a_forbidden_message(busy: BusyNode) -> None:
    """Two violations in one read: the first one counts, the connection ends."""
    peer = busy.script().connect()
    forbidden = peer.seal(b"\x00\x14")
    broken = bytearray(peer.seal(Ping(num_pong_bytes=1, ignored=b"")))
    broken[-1] ^= 1
    peer.write(forbidden + bytes(broken))
    peer.expect_closed("C-127")


@pytest.mark.proves("C-156")
@pytest.mark.parametrize("size", [0, 1])
def test_a_frame_too_short_for_a_type(busy: BusyNode, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leyden.transport.session._MIN_MESSAGE_SIZE", 0)  # the script may
    peer = busy.script().connect()
    frame = peer.seal(bytes(size))
    monkeypatch.undo()
    peer.write(frame)
    assert peer.expect_closed() == ""  # not a word: what came is no frame, let alone a message


def test_a_frame_that_promises_more_than_it_brings(busy: BusyNode) -> None:
    """Nothing is held for ever: the ping that is not answered ends it."""
    peer = busy.script().connect()
    peer.write(peer.seal(bytes(60_000))[:1_000])
    peer.answer_pings = False
    busy.simulation.advance(4 * peer_module.PING_INTERVAL)
    assert peer.closed


# --- init -------------------------------------------------------------------------------------------------------------

NOT_INIT = {
    "ping": encode(Ping(num_pong_bytes=1, ignored=b"")),
    "odd": b"\x7f\xff",
    "error": b"\x00\x11" + bytes(34),
    "open_channel": b"\x00\x20" + bytes(319),
}


@pytest.mark.parametrize(
    "first",
    [
        # without the rule the other checks of an opening are in its way
        pytest.param(data, id=name, marks=[] if name == "open_channel" else [pytest.mark.proves("C-137")])
        for name, data in NOT_INIT.items()
    ],
)
def test_nothing_leaves_before_the_peers_init(busy: BusyNode, first: bytes) -> None:
    peer = busy.script().connect(init=False)
    busy.simulation.advance(peer_module.HANDSHAKE_TIMEOUT - 1)
    peer.expect_silence()
    peer.send(first)
    assert peer.expect_closed() == ""


@pytest.mark.proves("C-137")
def test_the_node_greets_first(busy: BusyNode) -> None:
    """``connect`` of the script takes our ``init`` before it sends its own; once the peer's arrived, we answer."""
    peer = busy.script().connect(init=False)
    peer.send(peer.make_init(), Ping(num_pong_bytes=4, ignored=b""))
    assert peer.expect(Pong).ignored == bytes(4)
    again = busy.script("early").connect(init=False)
    again.send(Ping(num_pong_bytes=4, ignored=b""), again.make_init())
    assert again.expect_closed() == ""


@pytest.mark.proves("C-138")
def test_features_we_cannot_meet(busy: BusyNode) -> None:
    peer = busy.script()
    base = peer.features
    for bad in (
        base | Features.of(1_000),
        base | Features.of(Feature.OPTION_DUAL_FUND),
        base | Features.of(Feature.OPTION_SIMPLE_CLOSE + 1, Feature.OPTION_ONION_MESSAGES_ONLY_CHANNELS + 1),
    ):
        peer = busy.script().connect(init=peer.make_init(bad))
        peer.expect_closed("C-138")
    for good in (base | Features.of(1_001, 4_095), base | Features.of(Feature.BASIC_MPP + 1), Features()):
        peer = busy.script().connect(init=peer.make_init(good))
        peer.ping()
        peer.hang_up()


@pytest.mark.proves("C-140")
def test_a_peer_of_another_chain(busy: BusyNode) -> None:
    ours = busy.node.config.network.chain_hash
    for networks in ((bytes(32),), ()):
        init = Init(globalfeatures=b"", features=busy.script().features.to_bytes(), networks=networks)
        busy.script().connect(init=init).expect_closed("C-140")
    for fine in (None, (bytes(32), ours)):
        init = Init(globalfeatures=b"", features=busy.script().features.to_bytes(), networks=fine)
        peer = busy.script().connect(init=init)
        peer.ping()
        peer.hang_up()


def test_an_address_report_changes_nothing(busy: BusyNode) -> None:
    init = Init(globalfeatures=b"", features=b"", networks=None, remote_addr=b"\x01\x7f\x00\x00\x01\x26\x07")
    peer = busy.script().connect(init=init)
    peer.ping()
    assert peer.remote_init is not None
    assert peer.remote_init.remote_addr is None


def test_a_second_init_changes_nothing(busy: BusyNode) -> None:
    peer = busy.script().connect()
    peer.send(peer.make_init(Features.of(1_000)))
    peer.ping()


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-127")
def test_unknown_odd_types_are_skipped(busy: BusyNode) -> None:
    peer = busy.script().connect()
    for kind in (3, 201, 32_769, 65_535):
        peer.send(kind.to_bytes(2, "big") + b"content")
    peer.ping()
    peer.send(b"\x00\x14")
    peer.expect_closed("C-127")


@pytest.mark.proves("C-127")
def test_every_message_cut_short(busy: BusyNode) -> None:
    """A type without any field: each declared message has at least one."""
    for kind, declared in sorted(MESSAGES.items()):
        for rest in (b"", b"\x00"):
            peer = busy.script(f"cutter {kind} {len(rest)}").connect()
            peer.send(kind.to_bytes(2, "big") + rest)
            assert peer.closed, declared.NAME
            peer.expect_closed("C-127")


@pytest.mark.proves("C-127")
@pytest.mark.parametrize("length", [b"\x00\x05", b"\xff\xff"])
def test_a_length_beyond_the_message(busy: BusyNode, length: bytes) -> None:
    peer = busy.script().connect()
    peer.send(b"\x00\x12" + b"\x00\x01" + length + b"four")
    peer.expect_closed("C-127")


@pytest.mark.proves("C-128")
@pytest.mark.parametrize(
    "extension", [b"\x02\x00", b"\x01\x05four", b"\x01\xfd\x00\x01x", b"\x03\x00\x01\x00", b"\x01"], ids=range(5)
)
def test_an_invalid_extension_closes_the_connection(busy: BusyNode, extension: bytes) -> None:
    """Unknown even record, length beyond the end, length not minimal, types out of order, cut."""
    peer = busy.script().connect()
    plain = encode(Ping(num_pong_bytes=9, ignored=b"ab"))
    peer.send(plain + b"\x01\x02ok")  # an unknown odd record is skipped
    assert peer.expect(Pong).ignored == bytes(9)
    peer.send(plain + extension)
    assert "C-1" in peer.expect_closed()


@given(data=st.binary(max_size=200))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_inside(busy: BusyNode, data: bytes) -> None:
    peer = busy.script("fuzz").connect()
    peer.send(data.ljust(2, b"\x00"))
    if not peer.closed:
        peer.hang_up()


@given(kind=st.sampled_from(sorted(MESSAGES)), data=st.binary(max_size=1_500))
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_of_a_known_type(busy: BusyNode, kind: int, data: bytes) -> None:
    peer = busy.script("fuzz").connect()
    peer.send(kind.to_bytes(2, "big") + data)
    if not peer.closed:
        peer.hang_up()


# --- ping -------------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-145")
def test_the_length_of_a_pong(busy: BusyNode) -> None:
    peer = busy.script().connect()
    for size in (0, 1, 65_531):
        peer.ping(size)
    for size in (65_532, 65_535):
        peer.send(Ping(num_pong_bytes=size, ignored=bytes(10)))
        peer.expect_silence()
    peer.ping()
