"""Rows damaged in every area: the node starts or refuses in one sentence, the check reports, nothing crashes."""

import random
from collections.abc import Iterator

import pytest
from leyden.bitcoin import Network
from leyden.channel.rows import DynamicRow, decode_row, encode_row
from leyden.node import NodeCore, check_rows, keyspace
from leyden.node.core import Questions
from leyden.node.host import run_inline
from leyden.node.rows import EVENT_COUNT, SCHEMA, SCHEMA_VERSION
from leyden.payments.records import MAILBOX, MailRow
from leyden.testing.memory_store import MemoryDisk, MemoryStore
from leyden.testing.simulation import SimNode
from leyden.testing.story import Deal, Plan, Story
from leyden.types import LeydenError, Msat, RecordError
from leyden_wallet import OnchainWallet
from msgspec.structs import replace

Rows = dict[bytes, bytes]
FLIPS = 12
"""Of each row; at most ``MOST_ROWS`` rows of each area."""
MOST_ROWS = 4


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Two nodes with a past, HTLCs in flight both ways that wait for a decision."""
    told = Story(1, tmp_path_factory.mktemp("damage") / "chain", Plan())
    told._fund()
    told._open()
    told._pay([Deal("alice", "bob", Msat(20_000_000 + n)) for n in range(3)])
    told._pay([Deal("bob", "alice", Msat(3_000_000)), Deal("alice", "bob", Msat(5_000_000), known=False)])
    told._fly([Deal("alice", "bob", Msat(7_000_000)), Deal("bob", "alice", Msat(2_000_000))])
    core = told.alice.core

    def small_things() -> None:
        core.peers.connect(told.bob.node_id, "127.0.0.1", 9735, lambda _error: None)
        core.events.set_cursor("accounting", 1)

    core.engine.post(small_things)
    told.simulation.settle()
    yield told
    told.simulation.close()


@pytest.fixture
def rows(story: Story) -> Rows:
    return dict(story.alice.disk.rows)


def load(node: SimNode, rows: Rows) -> NodeCore:
    """A node on these rows; it has run its first turn."""
    services = node.simulation.make_services(node)
    store = MemoryStore(MemoryDisk(rows))
    core = run_inline(NodeCore.load(node.config, replace(services, store=store), node, Questions()))
    run_inline(core.engine.turn())
    return core


def check(rows: Rows) -> list[str]:
    lines = list(check_rows(sorted(rows.items()), Network.REGTEST, OnchainWallet().check_rows))
    assert not [line for line in lines if "\n" in line]
    return lines


def test_a_sound_database_is_sound(story: Story, rows: Rows) -> None:
    for node in story.nodes:
        assert check(node.disk.rows) == []
    assert {key[:1] for key in rows} == set(keyspace.NAMES)
    load(story.alice, rows)
    assert check({}) == []


@pytest.mark.parametrize("area", keyspace.NAMES, ids=lambda area: keyspace.NAMES[area])
def test_flipped_bytes(story: Story, rows: Rows, area: bytes) -> None:
    rng = random.Random(area)
    keys = [key for key in rows if key.startswith(area)]
    for key in rng.sample(keys, min(MOST_ROWS, len(keys))):
        value = rows[key]
        for index in [0, *(rng.randrange(len(value)) for _ in range(FLIPS))]:
            bad = value[:index] + bytes((value[index] ^ rng.randrange(1, 256),)) + value[index + 1 :]
            found = check({**rows, key: bad})
            if not index:
                assert found, "a version that nobody wrote"
            try:
                load(story.alice, {**rows, key: bad})
            except RecordError as error:
                assert "\n" not in str(error)  # noqa: PT017
                assert found
            except LeydenError as error:
                assert key == keyspace.NODE_ID
                assert "belongs to node" in str(error)  # noqa: PT017


@pytest.mark.parametrize("area", keyspace.NAMES, ids=lambda area: keyspace.NAMES[area])
def test_keys_cut_short_and_strange_rows(story: Story, rows: Rows, area: bytes) -> None:
    """Rows that stand where none belongs: they are reported, and where they are read at the start, refused."""
    key = next(key for key in rows if key.startswith(area))
    for strange in (key[:-1], key + b"\x00", area, area + b"\xff" * 32, area + b"\x01"):
        if strange in rows:
            continue
        changed = {**rows, strange: rows[key]}
        assert check(changed) or area in (keyspace.CURSOR, keyspace.PEER), strange
        try:
            load(story.alice, changed)
        except RecordError as error:
            assert "\n" not in str(error)  # noqa: PT017


READ_AT_START = [
    area
    for area in keyspace.NAMES
    if area not in (keyspace.EVENT, keyspace.CURSOR, keyspace.PREIMAGE)  # read when somebody asks
]


@pytest.mark.parametrize("area", READ_AT_START, ids=lambda area: keyspace.NAMES[area])
def test_a_newer_row_stops_the_start(story: Story, rows: Rows, area: bytes) -> None:
    key = next(key for key in rows if key.startswith(area))
    before = {**rows, key: b"\x02" + rows[key][1:]}
    disk = MemoryDisk(before)
    services = story.simulation.make_services(story.alice)
    with pytest.raises(RecordError, match="written by a newer Leyden") as caught:
        run_inline(
            NodeCore.load(story.alice.config, replace(services, store=MemoryStore(disk)), story.alice, Questions())
        )
    assert caught.value.is_newer
    assert disk.rows == before
    assert any(keyspace.NAMES[area] in line for line in check(before))


def test_a_newer_schema_stops_the_start_before_anything_is_read(story: Story, rows: Rows) -> None:
    rows[keyspace.SCHEMA] = SCHEMA.encode(SCHEMA_VERSION + 1)
    rows[next(key for key in rows if key.startswith(keyspace.CHANNEL_STATE))] = b"\x09 something new"
    with pytest.raises(RecordError, match="META: schema 2, this one knows 1: written by a newer Leyden"):
        load(story.alice, rows)
    del rows[keyspace.SCHEMA]
    with pytest.raises(RecordError, match="schema number is missing"):
        load(story.alice, rows)
    assert any("META" in line for line in check(rows))


def test_what_belongs_together(story: Story, rows: Rows) -> None:
    """Each pair of rows that must fit is made not to."""

    def first(area: bytes) -> bytes:
        return next(key for key in rows if key.startswith(area))

    def without(area: bytes) -> Rows:
        return {key: value for key, value in rows.items() if key != first(area)}

    channel = first(keyspace.CHANNEL_CONFIG)[1:]
    mail, other = first(keyspace.MAILBOX), bytes(32)
    value = MAILBOX.decode(rows[mail])
    for expected, changed in (
        ("belongs to no channel", without(keyspace.CHANNEL_CONFIG)),
        ("missing or mixed", without(keyspace.CHANNEL_STATE)),
        ("secrets of channel", without(keyspace.CHANNEL_SECRET)),
        ("do not fit our newest commitment", without(keyspace.CHANNEL_HTLC)),
        ("belongs to no channel", {**rows, keyspace.MAILBOX + other + mail[33:]: rows[mail]}),
        ("the channel has no HTLC 77", _moved(rows, channel, replace(value, id=77))),
        ("is another one", {**rows, mail: MAILBOX.encode(replace(value, amount_msat=1))}),
        ("event 1 is missing", without(keyspace.EVENT)),
        ("the newest event is", {**rows, keyspace.EVENT_COUNT: EVENT_COUNT.encode(1)}),
        ("missing or unreadable", {key: v for key, v in rows.items() if key != keyspace.NODE_ID}),
        ("is missing", without(keyspace.CHAIN)),
        (
            "scripts are missing",
            {**rows, first(keyspace.WALLET + b"a")[:-1] + b"\x63": rows[first(keyspace.WALLET + b"a")]},
        ),
        ("no area of this version", {**rows, b"~": b"\x01"}),
        ("no name of this version", {**rows, b"mother": b"\x01"}),
        ("not that of the payment hash", {**rows, keyspace.PREIMAGE + other: rows[first(keyspace.PREIMAGE)]}),
    ):
        assert any(expected in line for line in check(changed)), (expected, check(changed))


def _moved(rows: Rows, channel: bytes, value: MailRow) -> Rows:
    return {**rows, keyspace.MAILBOX + channel + (77).to_bytes(8, "big"): MAILBOX.encode(value)}


def test_a_balance_that_is_not_the_capacity(story: Story, rows: Rows) -> None:
    key = next(key for key in rows if key.startswith(keyspace.CHANNEL_STATE))
    row = decode_row(DynamicRow, rows[key])
    rows[key] = encode_row(replace(row, dance=replace(row.dance, local_settled=row.dance.local_settled + 1)))
    assert any("the capacity is 1000000000 msat" in line for line in check(rows))
