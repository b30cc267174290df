"""The declarations of ``leyden.wire`` against the field tables of the BOLTs: names, order, kinds, numbers, features."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.wire import (
    MESSAGES,
    BlindedPath,
    BlindedPathHop,
    ChannelUpdateChecksums,
    ChannelUpdateTimestamps,
    OnionMessagePayload,
)
from leyden.wire.bolt12 import BlindedPayinfo, Bolt12Invoice, FallbackAddress, InvoiceError, InvoiceRequest, Offer
from leyden.wire.failures import FAILURES, FailureCode
from leyden.wire.fields import Field
from leyden.wire.layout import Nested, codec_of
from leyden.wire.onion_payload import EncryptedData, OnionPayload

DATA = json.loads((Path(__file__).parent / "data" / "messages.json").read_text())

Table = list[tuple[str, str]]

# A length or count belongs to what it measures.
COUNTED = {
    "byte": "u{} length + bytes",
    "signature": "u{} count + signature",
    "witness": "u{} count + u16 length + bytes",
}
REST = {"byte": "bytes to the end", "utf8": "utf8"}
STRUCTS: dict[str, type[msgspec.Struct]] = {
    "blinded_path": BlindedPath,
    "blinded_path_hop": BlindedPathHop,
    "channel_update_timestamps": ChannelUpdateTimestamps,
    "channel_update_checksums": ChannelUpdateChecksums,
    "blinded_payinfo": BlindedPayinfo,
    "fallback_address": FallbackAddress,
}
STREAMS: dict[str, type[msgspec.Struct]] = {
    "payload": OnionPayload,
    "encrypted_data_tlv": EncryptedData,
    "onionmsg_tlv": OnionMessagePayload,
    "offer": Offer,
    "invoice_request": InvoiceRequest,
    "invoice": Bolt12Invoice,
    "invoice_error": InvoiceError,
}


def expected(fields: str) -> Table:
    """A BOLT table (``len u16, data byte*len``) in the words of our field types (``data: u16 length + bytes``)."""
    rows = [re.fullmatch(r"(\S+) ([^*]+)(?:\*(\S+))?", row) for row in fields.split(", ") if row]
    parsed = [row.groups() for row in rows if row]
    kinds = {name: kind for name, kind, _ in parsed}
    counts = {count for _, _, count in parsed if count}
    return [(name, kind_of(kind, count, kinds)) for name, kind, count in parsed if name not in counts]


def kind_of(kind: str, count: str | None, kinds: dict[str, str]) -> str:
    if kind.startswith("tlv_"):
        return "bytes to the end"  # a document of BOLT 12, kept as bytes
    name = STRUCTS[kind].__name__ if kind in STRUCTS else kind
    if count is None:
        return name
    if count == "rest":
        return REST.get(kind, f"{name}...")
    if kind == "sha256[..4]":
        return f"byte*{4 * int(count)}"
    if count in kinds:
        bits = kinds[count].replace("byte", "u8")[1:]
        return COUNTED.get(kind, "u{} count + " + name).format(bits)
    return f"{name}*{count}"


def normal(name: str) -> str:
    """Our names of equal kinds: 32 bytes without a meaning of their own, one byte."""
    return {"u8": "byte", "short_channel_id": "u64"}.get(name, name)


def declared(fields: list[tuple[str, Field[Any]]]) -> Table:
    return [(name, normal(field.name)) for name, field in fields]


def normalised(table: Table) -> Table:
    return [(name, normal(kind)) for name, kind in table]


def check_fields(cls: type[msgspec.Struct], fields: str) -> None:
    ours = [(name, field) for name, field in codec_of(cls).fields if name != "excess"]
    assert declared(ours) == normalised(expected(fields))


def check_stream(cls: type[msgspec.Struct], records: list[tuple[int, str, str]]) -> None:
    ours = sorted(codec_of(cls).records, key=lambda record: record.type)
    assert [(r.type, r.name) for r in ours] == [(number, name) for number, name, _ in records]
    for record, (_, _, fields) in zip(ours, records, strict=True):
        table = normalised(expected(fields))
        if not table:
            assert record.field.name == "flag"
        elif isinstance(record.field, Nested) and record.field.codec.cls not in STRUCTS.values():
            assert declared(record.field.codec.fields) == table
        else:
            assert [normal(record.field.name)] == [kind for _, kind in table]


def test_every_message_is_declared() -> None:
    assert len(DATA["messages"]) == 50
    assert {number: cls.NAME for number, cls in MESSAGES.items()} == {row[0]: row[1] for row in DATA["messages"]}


@pytest.mark.parametrize("row", DATA["messages"], ids=lambda row: row[1])
def test_message(row: list[Any]) -> None:
    number, _, fields, stream, needs = row
    cls = MESSAGES[number]
    check_fields(cls, fields)
    check_stream(cls, DATA["streams"][stream] if stream else [])
    assert_needs(cls, needs)


def assert_needs(cls: Any, needs: str) -> None:
    if needs.startswith("peer offers"):
        needs = ""  # what the peer offers, not what both negotiated: the gossip syncer asks that itself
    if needs.startswith("not "):
        assert cls.UNLESS.name.lower() == needs[4:]
        needs = ""
    wanted = re.sub(r" \(.*\)", "", needs).split(" or ") if needs else []
    assert [feature.name.lower() for feature in cls.NEEDS] == wanted


def test_every_stream_is_declared() -> None:
    assert len(DATA["streams"]) == 30
    carried = {row[3] for row in DATA["messages"] if row[3]}
    assert set(DATA["streams"]) == carried | set(STREAMS)


@pytest.mark.parametrize("name", sorted(STREAMS))
def test_stream(name: str) -> None:
    cls = STREAMS[name]
    assert codec_of(cls).fields == []
    check_stream(cls, DATA["streams"][name])


@pytest.mark.parametrize("name", sorted(DATA["subtypes"]))
def test_subtype(name: str) -> None:
    if name == "witness":  # nothing but bytes behind their length: tx_signatures holds them directly
        assert [kind for _, kind in expected(DATA["subtypes"][name])] == ["u16 length + bytes"]
    else:
        check_fields(STRUCTS[name], DATA["subtypes"][name])


def test_every_failure_is_declared() -> None:
    assert len(DATA["failures"]) == len(FailureCode) == 22
    assert {code: cls.NAME for code, cls in FAILURES.items()} == {row[0]: row[1] for row in DATA["failures"]}


@pytest.mark.parametrize(("code", "name", "fields"), DATA["failures"])
def test_failure(code: int, name: str, fields: str) -> None:
    check_fields(FAILURES[code], fields)
