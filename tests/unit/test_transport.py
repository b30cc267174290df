"""Transport beyond the vectors: chunking, hostile streams, misuse, sizes."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import Aead, CryptoError, ecdh, pubkey_create
from leyden.transport import (
    ACT_ONE_SIZE,
    ACT_THREE_SIZE,
    ACT_TWO_SIZE,
    MAX_MESSAGE_SIZE,
    ActBuffer,
    HandshakeOrderError,
    InitiatorHandshake,
    ResponderHandshake,
    Session,
    TransportError,
)

DIALLER, LISTENER = b"\x11" * 32, b"\x21" * 32
KEY_A, KEY_B, CHAINING_KEY = b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32


def sessions() -> tuple[Session, Session]:
    return (
        Session(send_key=KEY_A, receive_key=KEY_B, chaining_key=CHAINING_KEY),
        Session(send_key=KEY_B, receive_key=KEY_A, chaining_key=CHAINING_KEY),
    )


def initiator() -> InitiatorHandshake:
    return InitiatorHandshake(pubkey_create(DIALLER), pubkey_create(LISTENER), b"\x12" * 32)


def responder() -> ResponderHandshake:
    return ResponderHandshake(pubkey_create(LISTENER), b"\x22" * 32)


# --- handshake --------------------------------------------------------------------------------------------------------


def test_both_roles_meet() -> None:
    dialler, listener = initiator(), responder()
    act_one = dialler.act_one()
    act_two = listener.act_two(ecdh(LISTENER, listener.on_act_one(act_one)))
    act_three = dialler.act_three(ecdh(DIALLER, dialler.on_act_two(act_two)))
    assert listener.on_act_three(act_three) == pubkey_create(DIALLER)
    assert [len(act_one), len(act_two), len(act_three)] == [ACT_ONE_SIZE, ACT_TWO_SIZE, ACT_THREE_SIZE]
    ours, theirs = dialler.session(), listener.session()
    assert theirs.feed(ours.encrypt(b"ping")) == [b"ping"]
    assert ours.feed(theirs.encrypt(b"pong")) == [b"pong"]


@pytest.mark.proves("C-151")
def test_wrong_node_id_is_noticed_before_act_two() -> None:
    dialler = InitiatorHandshake(pubkey_create(DIALLER), pubkey_create(b"\x99" * 32), b"\x12" * 32)
    listener = responder()
    remote_ephemeral = listener.on_act_one(dialler.act_one())
    with pytest.raises(TransportError) as caught:
        listener.act_two(ecdh(LISTENER, remote_ephemeral))
    assert caught.value.rule.id == "C-151"
    with pytest.raises(HandshakeOrderError):  # the object is dead
        listener.act_two(ecdh(LISTENER, remote_ephemeral))


def test_dialling_something_that_is_no_point() -> None:
    with pytest.raises(CryptoError):
        InitiatorHandshake(pubkey_create(DIALLER), b"\x05" * 33, b"\x12" * 32).act_one()


def test_steps_out_of_order() -> None:
    dialler = initiator()
    with pytest.raises(HandshakeOrderError, match="act two"):
        dialler.act_three(bytes(32))
    dialler = initiator()
    dialler.act_one()
    with pytest.raises(HandshakeOrderError):
        dialler.session()
    listener = responder()
    with pytest.raises(HandshakeOrderError):
        listener.on_act_three(bytes(66))


def test_keys_are_given_away_once() -> None:
    dialler, listener = initiator(), responder()
    act_two = listener.act_two(ecdh(LISTENER, listener.on_act_one(dialler.act_one())))
    dialler.act_three(ecdh(DIALLER, dialler.on_act_two(act_two)))
    dialler.session()
    with pytest.raises(HandshakeOrderError, match="session"):
        dialler.session()


@pytest.mark.proves("C-153")
@pytest.mark.parametrize("size", [0, 49, 51])
def test_an_act_of_another_size_is_refused(size: int) -> None:
    act_one = (initiator().act_one() + b"\0")[:size]
    with pytest.raises(TransportError) as caught:
        responder().on_act_one(act_one)
    assert caught.value.rule.id == "C-153"


@pytest.mark.proves("C-153")
@given(cuts=st.lists(st.integers(0, 140), max_size=8))
@settings(deadline=None, max_examples=50)
def test_acts_are_cut_out_of_any_stream(cuts: list[int]) -> None:
    """Act one, act three and the first frames arrive in arbitrary pieces."""
    stream = bytes(range(50)) + bytes(range(100, 166)) + b"first frame, second"
    buffer = ActBuffer()
    wanted = [ACT_ONE_SIZE, ACT_THREE_SIZE]
    acts = []
    for start, end in pairwise(sorted({0, len(stream), *(c for c in cuts if c < len(stream))})):
        buffer.feed(stream[start:end])
        while wanted and (act := buffer.take(wanted[0])) is not None:
            acts.append(act)
            wanted.pop(0)
    assert acts == [stream[:50], stream[50:116]]
    assert buffer.rest() == b"first frame, second"
    assert buffer.rest() == b""


@given(act=st.binary(min_size=66, max_size=66))
@settings(deadline=None, max_examples=50)
def test_garbage_acts_raise_transport_error_only(act: bytes) -> None:
    with pytest.raises(TransportError):
        listener = responder()
        listener.act_two(ecdh(LISTENER, listener.on_act_one(b"\0" + act[1:50])))
    dialler = initiator()
    dialler.act_one()
    with pytest.raises(TransportError):
        dialler.on_act_two(act[:50])
    dialler, listener = initiator(), responder()
    listener.act_two(ecdh(LISTENER, listener.on_act_one(dialler.act_one())))
    with pytest.raises(TransportError):
        listener.on_act_three(b"\0" + act[1:])


# --- frames -----------------------------------------------------------------------------------------------------------


@given(
    messages=st.lists(st.binary(min_size=2, max_size=300), max_size=12),
    cuts=st.lists(st.integers(0, 5000), max_size=20),
    view=st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_any_chunking_gives_the_same_messages(messages: list[bytes], cuts: list[int], view: bool) -> None:
    sender, receiver = sessions()
    stream = b"".join(sender.encrypt(m) for m in messages)
    got: list[bytes] = []
    for start, end in pairwise(sorted({0, len(stream), *(c for c in cuts if c < len(stream))})):
        chunk = bytearray(stream[start:end])
        got += receiver.feed(memoryview(chunk) if view else chunk)
        chunk[:] = bytes(len(chunk))  # the caller may reuse its buffer
    assert got == messages


def test_byte_by_byte_over_a_rotation() -> None:
    sender, receiver = sessions()
    messages = [i.to_bytes(2, "big") for i in range(501)]
    stream = b"".join(map(sender.encrypt, messages))
    assert [m for i in range(len(stream)) for m in receiver.feed(stream[i : i + 1])] == messages


@pytest.mark.proves("C-155")
def test_directions_rotate_apart() -> None:
    ours, theirs = sessions()
    for _ in range(500):
        theirs.feed(ours.encrypt(b"under the first key"))
    frame = ours.encrypt(b"under the second")
    with pytest.raises(CryptoError):  # not under the old key, whatever the counter
        Aead(KEY_A).decrypt(0, b"", frame[:18])
    with pytest.raises(CryptoError):
        Aead(KEY_A).decrypt(1000, b"", frame[:18])
    assert theirs.feed(frame) == [b"under the second"]
    back = theirs.encrypt(b"still the first")
    assert Aead(KEY_B).decrypt(0, b"", back[:18]) == (15).to_bytes(2, "big")
    assert ours.feed(back) == [b"still the first"]


@pytest.mark.proves("C-154")
def test_frame_layout_and_bounds() -> None:
    ours, theirs = sessions()
    frame = ours.encrypt(b"hello")
    cipher = Aead(KEY_A)
    assert frame == cipher.encrypt(0, b"", b"\x00\x05") + cipher.encrypt(1, b"", b"hello")
    for size in (0, 1, MAX_MESSAGE_SIZE + 1):
        with pytest.raises(TransportError) as caught:
            ours.encrypt(bytes(size))
        assert caught.value.rule.id == "C-154"
    largest = bytes(MAX_MESSAGE_SIZE)
    assert theirs.feed(frame + ours.encrypt(largest)) == [b"hello", largest]  # the refused ones used up nothing


@pytest.mark.proves("C-156")
@pytest.mark.parametrize("position", [0, 2, 17, 18, 30, -1], ids=range(6))
def test_a_changed_byte_ends_the_session(position: int) -> None:
    ours, theirs = sessions()
    good, bad, later = (ours.encrypt(m) for m in (b"good message", b"bad message....", b"later"))
    broken = bytearray(bad)
    broken[position] ^= 1
    with pytest.raises(TransportError) as caught:
        theirs.feed(good + broken + later)
    assert caught.value.rule.id == "C-156"
    assert caught.value.messages == (b"good message",)
    for data in (bad, later, b""):
        with pytest.raises(TransportError) as caught:
            theirs.feed(data)
        assert caught.value.messages == ()


@pytest.mark.proves("C-156")
@pytest.mark.parametrize("size", [0, 1])
def test_a_body_too_short_for_a_type(size: int) -> None:
    _, theirs = sessions()
    header = Aead(KEY_A).encrypt(0, b"", size.to_bytes(2, "big"))
    with pytest.raises(TransportError) as caught:
        theirs.feed(header)  # at once, without waiting for the body
    assert caught.value.rule.id == "C-156"


@pytest.mark.proves("C-156")
@given(garbage=st.binary(min_size=18, max_size=200), cut=st.integers(0, 200))
@settings(deadline=None, max_examples=100)
def test_garbage_never_becomes_a_message(garbage: bytes, cut: int) -> None:
    _, theirs = sessions()
    with pytest.raises(TransportError) as caught:
        theirs.feed(garbage[:cut])
        theirs.feed(garbage[cut:])
    assert caught.value.messages == ()


def test_tiny_chunks_of_a_large_frame_cost_linear_work() -> None:
    """65 kB in single bytes: a buffer that is copied per chunk would move 2 GB and take most of a second."""
    from time import process_time

    ours, theirs = sessions()
    frames = [memoryview(ours.encrypt(bytes(MAX_MESSAGE_SIZE))) for _ in range(2)]
    got = []
    start = process_time()
    for frame in frames:
        for i in range(len(frame)):
            got += theirs.feed(frame[i : i + 1])
    assert len(got) == 2
    assert process_time() - start < 0.5
