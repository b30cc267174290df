"""Rows: what is written when, what is not, and what a damaged or newer store costs."""

import pytest
from channel_kit import commit_add, open_pair, pay, preimage_of
from leyden.channel import events as ev
from leyden.channel import load, records
from leyden.channel.records import channel_id_of
from leyden.hooks.types import RecordChanges
from leyden.types import RecordError


def areas(changes: RecordChanges) -> str:
    return "".join(sorted(key[:1].decode() for key, _ in changes.puts))


def test_what_each_step_of_a_payment_writes() -> None:
    pair = open_pair()
    a, b = pair.a, pair.b
    before = b.channel
    pair.add(a, 5_000_000)
    assert areas(records(a._stored, a.channel)) == "dh"
    pair.end_turn(a)
    pair.deliver(a, 1)
    assert records(before, b.channel) == RecordChanges(), "an uncommitted update of the peer is not stored"
    pair.deliver(a)
    assert areas(records(before, b.channel)) == "dgh"
    b.commit()
    pair.end_turn(b)
    pair.deliver(b)
    assert areas(records(a._stored, a.channel)) == "dghs"
    pair.settle()
    b.do(ev.FulfillHtlc(id=0, preimage=preimage_of(5_000_000)))
    b.commit()
    before = a.channel
    pair.deliver(b)
    assert records(before, a.channel) == RecordChanges()
    pair.settle()
    assert not [key for key in a.rows if key[:1] == b"h"]
    assert not [key for key in b.rows if key[:1] == b"h"]


def test_nothing_changes_nothing() -> None:
    pair = open_pair()
    for end in pair.ends:
        assert end.commit() == 0
        end.do(ev.TurnEnded())
        end.do(ev.PeerDisconnected())
        end.do(ev.PeerConnected(features=end.features))
        assert records(end._stored, end.channel) == RecordChanges()


def test_rows_stay_few_however_many_payments() -> None:
    pair = open_pair()
    counts = []
    for n in range(8):
        pay(pair, pair.a, 1_000_000 + n)
        counts.append(len(pair.a.rows))
    assert max(counts) <= 3 + 5, "config, state, signatures and log2 of the number of secrets"


def test_onions_are_kept_only_while_they_are_needed() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 5_000_000)
    for end in pair.ends:
        sizes = [len(value) for key, value in end.rows.items() if key[:1] == b"h"]
        assert len(sizes) == 1
        assert sizes[0] < 100


def test_a_channel_that_is_over_leaves_no_rows() -> None:
    pair = open_pair()
    commit_add(pair, pair.a, 5_000_000)
    channel = pair.a.channel
    assert set(records(channel, None).deletes) == set(pair.a.rows)
    assert dict(records(None, channel).puts) == pair.a.rows
    assert {channel_id_of(key) for key in pair.a.rows} == {channel.channel_id}


def test_damaged_missing_and_newer_rows_are_refused() -> None:
    pair = open_pair()
    rows = pair.a.rows
    config = next(key for key in rows if key[:1] == b"c")
    for bad in (
        {},
        {key: value for key, value in rows.items() if key != config},
        {**rows, config: b"\x02" + rows[config][1:]},
        {**rows, config: rows[config][:-1]},
        {**rows, config: b""},
        {**rows, b"z" + config[1:]: b""},
        {**rows, b"c" + bytes(32): rows[config]},
        {**rows, config: rows[config] + bytes.fromhex("fdfffe00")},
    ):
        with pytest.raises(RecordError, match="the database cannot be read: CHANNEL"):
            load(bad.items())
    load({**rows, config: rows[config] + bytes.fromhex("fdffff00")}.items())
