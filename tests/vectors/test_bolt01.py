"""BOLT 1, appendices A to D: BigSize, TLV streams, truncated and signed integers, message extensions."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from leyden.wire import WireError, codec, decode, encode
from leyden.wire import fields as f
from leyden.wire.codec import (
    decode_struct,
    encode_struct,
    nested,
    read_bigsize,
    tlv,
    tlv_struct,
    wire_struct,
    write_bigsize,
)
from msgspec import Struct, structs

DATA = json.loads((Path(__file__).parent / "data" / "bolt01.json").read_text())


def proving(rows: list[list[Any]]) -> list[Any]:
    """The last column names the rule that the row breaks."""
    return [pytest.param(*row, marks=pytest.mark.proves(row[-1])) for row in rows]


@pytest.mark.parametrize(("data", "value"), DATA["bigsize"]["good"])
def test_bigsize(data: str, value: int) -> None:
    assert write_bigsize(value).hex() == data
    assert read_bigsize(bytes.fromhex(data)) == (value, len(data) // 2)


@pytest.mark.proves("C-131")
@pytest.mark.parametrize(("data", "why"), DATA["bigsize"]["bad"])
def test_bigsize_refused(data: str, why: str) -> None:
    with pytest.raises(WireError) as caught:
        read_bigsize(bytes.fromhex(data))
    assert caught.value.rule.id == "C-131", why


@wire_struct
class N1Tlv3(Struct, frozen=True):
    node_id: Annotated[bytes, f.point]
    amount_msat_1: Annotated[int, f.u64]
    amount_msat_2: Annotated[int, f.u64]


@tlv_struct
class N1(Struct, frozen=True):
    tlv1: Annotated[int | None, tlv(1, f.tu64)] = None
    tlv2: Annotated[int | None, tlv(2, f.short_channel_id)] = None
    tlv3: Annotated[N1Tlv3 | None, tlv(3, nested(N1Tlv3))] = None
    tlv4: Annotated[int | None, tlv(254, f.u16)] = None


@tlv_struct
class N2(Struct, frozen=True):
    tlv1: Annotated[int | None, tlv(0, f.tu64)] = None
    tlv2: Annotated[int | None, tlv(11, f.tu32)] = None


NAMESPACES: dict[str, type[Struct]] = {"n1": N1, "n2": N2}


@pytest.mark.parametrize(("stream", "names", "rule"), proving(DATA["tlv"]["bad"]))
def test_tlv_stream_refused(stream: str, names: str, rule: str) -> None:
    for name in names.split():
        with pytest.raises(WireError) as caught:
            decode_struct(NAMESPACES[name], bytes.fromhex(stream))
        assert caught.value.rule.id == rule


@pytest.mark.parametrize(("stream", "names", "records"), DATA["tlv"]["good"])
def test_tlv_stream(stream: str, names: str, records: dict[str, dict[str, Any]]) -> None:
    for name in names.split():
        value = decode_struct(NAMESPACES[name], bytes.fromhex(stream))
        got = {k: v for k, v in structs.asdict(value).items() if v is not None}
        assert got.keys() == records.keys()
        for record, fields in records.items():
            if isinstance(got[record], N1Tlv3):
                assert structs.asdict(got[record]) == fields | {"node_id": bytes.fromhex(fields["node_id"])}
            else:
                assert [_number(v) for v in fields.values()] == [got[record]]
        if records:
            assert encode_struct(value).hex() == stream


def _number(value: int | str) -> int:
    """The table writes short channel ids as block x transaction x output."""
    if isinstance(value, int):
        return value
    block, transaction, output = map(int, value.split("x"))
    return block << 40 | transaction << 16 | output


def test_streams_compose() -> None:
    """A valid stream before an invalid one is invalid; two valid ones in order of type are valid."""
    good = [(bytes.fromhex(row[0]), row[1]) for row in DATA["tlv"]["good"]]
    bad = [(bytes.fromhex(row[0]), row[1]) for row in DATA["tlv"]["bad"]]
    for name, cls in NAMESPACES.items():
        ours = [stream for stream, names in good if name in names]
        for first in ours:
            for second, names in bad:
                if name in names:
                    with pytest.raises(WireError):
                        decode_struct(cls, first + second)
            for second in ours:
                if first and second and codec.split_records(first)[-1][0] < codec.split_records(second)[0][0]:
                    decode_struct(cls, first + second)


@pytest.mark.parametrize(("data", "value"), DATA["truncated"]["good"])
def test_truncated_int(data: str, value: int) -> None:
    raw = bytes.fromhex(data)
    assert f.tu64.read(raw, 0, len(raw)) == (value, len(raw))
    assert f.tu64.write(value) == raw


@pytest.mark.parametrize(("data", "rule"), proving(DATA["truncated"]["bad"]))
def test_truncated_int_refused(data: str, rule: str) -> None:
    raw = bytes.fromhex(data)
    with pytest.raises(WireError) as caught:
        decode_struct(N1, b"\x01" + bytes([len(raw)]) + raw)
    assert caught.value.rule.id == rule


@pytest.mark.parametrize(("kind", "value", "data"), DATA["signed"]["good"])
def test_signed_int(kind: str, value: int, data: str) -> None:
    field: f.Int = getattr(f, kind)
    raw = bytes.fromhex(data)
    assert field.write(value) == raw
    assert field.read(raw, 0, len(raw)) == (value, len(raw))


@pytest.mark.parametrize("data", DATA["extension"]["good"])
def test_message_extension(data: str) -> None:
    assert encode(decode(bytes.fromhex(data))).hex() == DATA["extension"]["good"][0]


@pytest.mark.proves("C-128")
@pytest.mark.parametrize(("data", "rule"), DATA["extension"]["bad"])
def test_message_extension_refused(data: str, rule: str) -> None:
    with pytest.raises(WireError) as caught:
        decode(bytes.fromhex(data))
    assert caught.value.rule.id == rule
