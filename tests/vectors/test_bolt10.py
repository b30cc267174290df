"""BOLT 10: names of queries, defaults, and the nodes behind virtual hosts."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.testing.wire_strategies import POINTS
from leyden.types import NodeId
from leyden.wire.dns_seed import (
    SeedError,
    SeedQuery,
    address_types,
    node_label,
    parse_node_label,
    parse_query_name,
    parse_record,
    query_name,
)
from leyden.wire.node_addresses import AddressType

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt10.json").read_text("utf-8"))
ROOT = DATA["owner"].rstrip(".")
NODE = NodeId(POINTS[0])


@pytest.mark.proves("C-240")
@pytest.mark.parametrize("case", DATA["queries"], ids=lambda case: case["name"])
def test_conditions(case: dict[str, Any]) -> None:
    query = parse_query_name(case["name"], ROOT)
    wanted = {**DATA["defaults"], **case["conditions"]}
    assert (query.realm, query.address_types, query.count, query.node_id) == tuple(wanted[key] for key in "ranl")
    parts = [f"{key}{wanted[key]}" for key in "ran" if wanted[key] != DATA["defaults"][key]]
    assert query_name(DATA["owner"], query) == ".".join([*parts, ROOT])
    assert parse_query_name(query_name(ROOT, query).upper() + ".", ROOT) == query


def test_defaults() -> None:
    assert query_name(ROOT) == ROOT
    assert parse_query_name(ROOT, ROOT) == SeedQuery()
    bits = DATA["address_type_bits"]
    assert address_types([AddressType.IPV4]) == bits["ipv4"]
    assert address_types([AddressType.IPV6]) == bits["ipv6"]
    assert SeedQuery().address_types == bits["ipv4"] | bits["ipv6"] == DATA["defaults"]["a"]


@pytest.mark.parametrize("label", DATA["labels"])
def test_node_labels(label: str) -> None:
    node_id = NodeId(bytes.fromhex(DATA["labels"][label]))
    assert parse_node_label(label) == parse_node_label(label.upper()) == node_id
    assert node_label(node_id) == label
    assert query_name(ROOT, SeedQuery(node_id=node_id)) == f"{label}.{ROOT}"
    assert parse_query_name(f"{label}.{ROOT}", ROOT).node_id == node_id


@pytest.mark.parametrize("record", DATA["records"], ids=lambda record: str(record[-1])[:12])
def test_records(record: list[Any]) -> None:
    *_, port, target = record
    found = parse_record(target, port, DATA["owner"])
    label = target.split(".")[0]
    assert (found.node_id.hex(), found.port) == (DATA["labels"][label], port)
    assert found.host == target.rstrip(".")


def test_unknown_conditions_are_ignored() -> None:
    assert parse_query_name(f"_nodes._tcp.x7.n3.{ROOT}", ROOT) == SeedQuery(count=3)


LABEL = next(iter(DATA["labels"]))


@pytest.mark.parametrize(
    "name",
    [
        f"n.{ROOT}",
        f"nx.{ROOT}",
        f"n-1.{ROOT}",
        f"n{'9' * 10}.{ROOT}",
        f"n\u0663.{ROOT}",
        f"l5.{ROOT}",
        "n5.example.org",
        f"{LABEL[:-1]}q.{ROOT}",
        f"x{ROOT}",
        f"{'x.' * 130}{ROOT}",
    ],
)
def test_names_that_mean_nothing(name: str) -> None:
    with pytest.raises(SeedError):
        parse_query_name(name, ROOT)


@pytest.mark.parametrize(
    ("target", "port"),
    [(f"{LABEL}.{ROOT}", 0), (f"{LABEL}.{ROOT}", 65536), (ROOT, 1), (f"a.{LABEL}.{ROOT}", 1), ("", 1)],
)
def test_records_that_mean_nothing(target: str, port: int) -> None:
    with pytest.raises(SeedError):
        parse_record(target, port, ROOT)


@pytest.mark.parametrize(
    ("root", "query"),
    [
        (ROOT, SeedQuery(count=-1)),
        (ROOT, SeedQuery(node_id=NodeId(bytes(33)))),
        (ROOT, SeedQuery(node_id=NodeId(b""))),
        ("", SeedQuery()),
        ("x" * 64 + ".org", SeedQuery()),
        ("x." * 130 + "org", SeedQuery()),
    ],
)
def test_names_that_cannot_be_asked(root: str, query: SeedQuery) -> None:
    with pytest.raises(SeedError):
        query_name(root, query)


@settings(deadline=None)
@given(st.text("lnran1qpz5.0-\u00e9", max_size=70))
def test_garbage(text: str) -> None:
    for read in (lambda: parse_query_name(f"{text}.{ROOT}", ROOT), lambda: parse_node_label(text)):
        try:
            read()
        except SeedError:
            continue
