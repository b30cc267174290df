"""Every declaration, by property: values survive, cut and garbled bytes raise ``WireError`` and nothing else."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.testing.wire_strategies import messages, structs
from leyden.wire import MESSAGES, Message, UnknownMessage, WireError, bolt12, codec, decode, encode, onion_message
from leyden.wire.codec import codec_of, decode_struct, encode_struct
from leyden.wire.failures import FAILURES, UnknownFailure, decode_failure, encode_failure, failure_code
from leyden.wire.onion_payload import EncryptedData, OnionPayload

ALL = sorted(MESSAGES.values(), key=lambda cls: cls.TYPE)
STREAMS: list[type[msgspec.Struct]] = [
    OnionPayload,
    EncryptedData,
    onion_message.OnionMessagePayload,
    bolt12.Offer,
    bolt12.InvoiceRequest,
    bolt12.Bolt12Invoice,
    bolt12.InvoiceError,
]

quick = settings(deadline=None, max_examples=15)


def by_name(cls: type[Message]) -> str:
    return cls.NAME


@pytest.mark.parametrize("cls", ALL, ids=by_name)
@quick
@given(data=st.data())
def test_message_survives(cls: type[Message], data: st.DataObject) -> None:
    message = data.draw(structs(cls))
    raw = encode(message)
    assert raw[:2] == cls.TYPE.to_bytes(2, "big")
    assert decode(raw) == message


@pytest.mark.proves("C-127")
@pytest.mark.parametrize("cls", ALL, ids=by_name)
@settings(deadline=None, max_examples=2)
@given(data=st.data())
def test_message_cut_short(cls: type[Message], data: st.DataObject) -> None:
    """Cut inside its fields a message is refused; cut in its extension it may be a shorter valid one."""
    message = data.draw(structs(cls))
    records = {record.name: record.default for record in codec_of(cls).records}
    bare = msgspec.structs.replace(message, **records, **({"excess": b""} if hasattr(message, "excess") else {}))
    raw = encode(bare)
    for length in range(len(raw)):
        with pytest.raises(WireError) as caught:
            decode(raw[:length])
        assert caught.value.rule.id == "C-127"
    whole = encode(message)
    for length in range(len(raw), len(whole)):
        try:
            shorter = decode(whole[:length])
        except WireError:
            continue
        assert isinstance(shorter, Message)
        assert encode(shorter) == whole[:length]


@settings(deadline=None, max_examples=200)
@given(kind=st.one_of(st.sampled_from(sorted(MESSAGES)), st.integers(0, 0xFFFF)), content=st.binary(max_size=300))
def test_garbage(kind: int, content: bytes) -> None:
    survives_garbage(kind.to_bytes(2, "big") + content)


@settings(deadline=None, max_examples=200)
@given(message=messages(), data=st.data())
def test_garbled(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(2, len(raw) - 1)) if len(raw) > 2 else 0] = data.draw(st.integers(0, 255))
    survives_garbage(bytes(raw) + data.draw(st.binary(max_size=4)))


def survives_garbage(raw: bytes) -> None:
    """What is accepted means the same when it is sent again."""
    try:
        message = decode(raw)
    except WireError:
        return
    if not isinstance(message, UnknownMessage):
        assert decode(encode(message)) == message


@pytest.mark.parametrize("cls", STREAMS, ids=lambda cls: cls.__name__)
@quick
@given(data=st.data())
def test_stream_survives(cls: type[msgspec.Struct], data: st.DataObject) -> None:
    value = data.draw(structs(cls))
    assert decode_struct(cls, encode_struct(value)) == value


@pytest.mark.parametrize("cls", STREAMS, ids=lambda cls: cls.__name__)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_stream_garbled(cls: type[msgspec.Struct], data: st.DataObject) -> None:
    raw = bytearray(encode_struct(data.draw(structs(cls))) + data.draw(st.binary(max_size=8)))
    if raw:
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        value = decode_struct(cls, bytes(raw))
    except WireError:
        return
    assert encode_struct(value) == bytes(raw)


@pytest.mark.parametrize("cls", FAILURES.values(), ids=lambda cls: cls.NAME)
@quick
@given(data=st.data())
def test_failure_survives(cls: Any, data: st.DataObject) -> None:
    failure = data.draw(structs(cls))
    raw = encode_failure(failure)
    assert decode_failure(raw) == failure
    assert decode_failure(raw + b"behind") == failure
    assert failure_code(failure) == cls.CODE


@settings(deadline=None, max_examples=100)
@given(raw=st.binary(max_size=60))
def test_failure_garbage(raw: bytes) -> None:
    """A failure from anywhere on the route always has a reading, unless even its code is missing."""
    try:
        failure = decode_failure(raw)
    except WireError:
        assert len(raw) < 2
        return
    assert failure_code(failure).to_bytes(2, "big") == raw[:2]
    if isinstance(failure, UnknownFailure):
        assert encode_failure(failure) == raw


def test_every_declaration_describes_itself() -> None:
    rows = codec.describe(MESSAGES[36])
    assert rows == [
        ("channel_id", None, "channel_id"),
        ("second_per_commitment_point", None, "point"),
        ("short_channel_id", 1, "short_channel_id"),
    ]
    for cls in ALL:
        assert cls.__doc__
        assert len(codec.describe(cls)) == len(cls.__struct_fields__)
