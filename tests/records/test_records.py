"""Stored rows are for ever: each sample is read, means what it meant, and is written back byte by byte."""

import contextlib
import copy
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from leyden.node import keyspace
from leyden.node.rows import SCHEMA_VERSION
from leyden.types import LeydenError, RecordError
from leyden.wire.codec import tlv, tlv_struct, u8
from leyden.wire.stored import RowKind
from msgspec import Struct

from tests.records.kinds import BY_AREA, BY_START, KINDS, name_of, plain
from tests.records.layouts import changes, describe, layouts
from tests.records.samples import SAMPLES, read_index, read_layouts

INDEX = read_index()
FROZEN = read_layouts() or {}


@pytest.mark.parametrize("file", INDEX)
def test_a_sample_is_read_and_written_back(file: str) -> None:
    sample, row = INDEX[file], (SAMPLES / file).read_bytes()
    kind = KINDS[sample["kind"]]
    assert row[0] == sample["version"]
    assert name_of(bytes.fromhex(sample["key"])) == sample["kind"]
    value = kind.decode(row)
    assert plain(value) == sample["means"]
    if sample["version"] == kind.version:
        assert kind.encode(value) == row
    else:
        assert plain(kind.decode(kind.encode(value))) == sample["means"]


def test_there_is_a_sample_of_every_version_of_every_kind() -> None:
    """``python -m tests.records`` makes those that are missing."""
    wanted = {(name, version) for name, kind in KINDS.items() for version in range(1, kind.version + 1)}
    assert {(sample["kind"], sample["version"]) for sample in INDEX.values()} == wanted
    assert {path.name for path in SAMPLES.glob("*.bin")} == set(INDEX)


def test_the_samples_hold_the_things_that_matter() -> None:
    means = [(sample["kind"], sample["means"]) for sample in INDEX.values()]
    htlcs = [value for kind, value in means if kind == "channel_htlc"]
    assert {"preimage", "reason", "sha256_of_onion"} <= {name for htlc in htlcs for name in htlc}
    states = [value for kind, value in means if kind == "channel_state"]
    assert {state["dance"]["lifecycle"] for state in states} == set(range(6))
    assert {state["spend"]["kind"] for state in states if "spend" in state} == set(range(5))
    assert any("fee_updates" in state for state in states)


def test_every_area_has_a_kind_and_every_kind_an_area() -> None:
    areas = {*BY_AREA, *(key[:1] for key in BY_START)}
    assert areas == set(keyspace.NAMES)
    assert {kind.area for kind in KINDS.values()} == set(keyspace.NAMES.values())
    assert set(KINDS) == {*BY_AREA.values(), *BY_START.values()}


@pytest.mark.parametrize("name", KINDS)
def test_a_newer_version_is_one_sentence(name: str) -> None:
    kind = KINDS[name]
    for row in (bytes((kind.version + 1,)) + b"whatever comes", b"\xff"):
        with pytest.raises(RecordError, match="written by a newer Leyden") as caught:
            kind.decode(row)
        assert caught.value.is_newer
        assert caught.value.area == kind.area
        assert kind.area in str(caught.value)
    for row in (b"", b"\x00"):
        with pytest.raises(RecordError, match="leyden db check"):
            kind.decode(row)


@pytest.mark.parametrize("file", INDEX)
def test_a_damaged_row_is_a_record_error_or_another_value(file: str) -> None:
    """Every byte changed in two ways, and the row cut short everywhere."""
    row, kind = (SAMPLES / file).read_bytes(), KINDS[INDEX[file]["kind"]]
    step = max(1, len(row) // 120)
    for index in range(0, len(row), step):
        for bad in (
            row[:index] + bytes((row[index] ^ 0x01,)) + row[index + 1 :],
            row[:index] + bytes((row[index] ^ 0xFF,)) + row[index + 1 :],
            row[:index],
        ):
            with contextlib.suppress(RecordError):
                kind.decode(bad)


# -- layouts -----------------------------------------------------------------------------------------------------------


def test_no_layout_changed() -> None:
    """A new version is a module of its own (``docs/keyspace.md``); ``python -m tests.records`` freezes what is new."""
    found = layouts()
    assert changes(FROZEN, found) == []
    assert set(found["structs"]) <= set(FROZEN["structs"]), "run python -m tests.records"


def test_new_versions_raise_the_schema() -> None:
    assert layouts()["history"][0] == FROZEN["history"][-1], "raise SCHEMA_VERSION and run python -m tests.records"
    schemas = [entry["schema"] for entry in FROZEN["history"]]
    assert schemas == sorted(set(schemas))
    assert schemas[-1] == SCHEMA_VERSION


def _set(path: str, row: int, column: int, value: object) -> Callable[[Any], None]:
    def change(found: Any) -> None:
        found["structs"][path][row][column] = value

    return change


HTLC = "leyden.channel.stored.v1.HtlcRow"
STORED_HTLC = "leyden.channel.stored.v1.StoredHtlc"
ALARM = "event.alarm"


@pytest.mark.parametrize(
    "change",
    [
        _set(HTLC, 1, 1, 5),
        _set(HTLC, 1, 2, "u8"),
        _set(HTLC, 1, 3, "required"),
        _set(STORED_HTLC, 0, 0, "amount"),
        lambda found: found["structs"][STORED_HTLC].reverse(),
        lambda found: found["structs"][STORED_HTLC].append(["more", None, "u8", "0"]),
        lambda found: found["structs"][HTLC].append(["more", 18, "u8", "0"]),
        lambda found: found["structs"][HTLC].append(["more", 19, "u8", "required"]),
        lambda found: found["structs"][HTLC].pop(),
        lambda found: found["structs"][ALARM].append(["more", None, "str", "required"]),
        lambda found: found["structs"].pop(HTLC),
        lambda found: found["numbers"]["lifecycles"].insert(0, "new"),
        lambda found: found["numbers"]["payment status"].pop(),
        lambda found: found["flags"].update({"leyden.channel.stored.v1.FLAG_SWEPT": 128}),
    ],
)
def test_a_changed_layout_is_found_out(change: Callable[[Any], None]) -> None:
    found = copy.deepcopy(FROZEN)
    change(found)
    assert changes(FROZEN, found)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["structs"][HTLC].append(["more", 19, "u8", "0"]),
        lambda found: found["structs"][ALARM].append(["more", None, "str", "''"]),
        lambda found: found["numbers"]["lifecycles"].append("new"),
    ],
)
def test_what_older_programs_skip_may_be_added(change: Callable[[Any], None]) -> None:
    found = copy.deepcopy(FROZEN)
    change(found)
    assert changes(FROZEN, found) == []


def test_the_description_sees_every_field() -> None:
    @tlv_struct
    class Row(Struct, frozen=True, kw_only=True):
        number: Annotated[int, tlv(3, u8)] = 7

    assert describe(Row) == [["number", 3, "u8", "7"]]


# -- versions ----------------------------------------------------------------------------------------------------------


def test_two_versions_of_one_kind() -> None:
    """How a second version will be read: by a reader of its own, and written back as the newest."""
    kind: RowKind[str] = RowKind(
        "TEST", lambda value: value.encode() + b"!", bytes.decode, lambda data: data[:-1].decode()
    )
    assert kind.version == 2
    assert kind.encode("a") == b"\x02a!"
    assert kind.decode(b"\x01a") == kind.decode(b"\x02a!") == "a"
    with pytest.raises(RecordError):
        kind.decode(b"\x01\xff")
    with pytest.raises(LeydenError, match="version 3, this one knows 2"):
        kind.decode(b"\x03a")
