"""The fast part of ``python -m tests.fuzz``: every target over its seeds, cut seeds, mutations and random bytes."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from leyden.channel import Link
from leyden.wire.stored import RowKind

from tests.fuzz import stored_rows
from tests.fuzz.__main__ import CORPUS, corpus_of
from tests.fuzz.channels import moments
from tests.fuzz.mutate import fuzz, mutations
from tests.fuzz.target import Target, joined, pieces
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.no_kernel_verdict("PSBTs that are complete and make no sense")

ROOT = Path(__file__).resolve().parents[2]
MAX_CORPUS = 300_000
MUTATIONS = 200
ACCEPTING = sorted(set(TARGETS) - {"onion_message", "blinded_payment"})
"""Targets whose decoders take more than half of their seeds; the others judge what they have decoded."""


def is_accepted(target: Target, data: bytes) -> bool:
    try:
        target.check(data)
    except target.expected:
        return False
    return True


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_their_mutations_do_no_harm(name: str) -> None:
    seeds = corpus_of(name)
    assert seeds, f"no seeds: python -m tests.fuzz.make_corpus, and add corpus/{name}"
    for data in [*seeds, *islice(mutations(seeds, 1), MUTATIONS)]:
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_an_input_may_end_after_any_byte(name: str) -> None:
    seeds = sorted(corpus_of(name), key=lambda seed: abs(len(seed) - 150))
    for data in seeds[:2]:
        for size in range(min(len(data), 400)):
            TARGETS[name].run(data[:size])


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=300))
def test_random_bytes_do_no_harm(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_reach_behind_the_first_check(name: str) -> None:
    seeds = corpus_of(name)
    accepted = sum(is_accepted(TARGETS[name], data) for data in seeds)
    wanted = len(seeds) // (4 if name == "psbt" else 2) if name in ACCEPTING else 1
    assert accepted >= max(1, wanted), f"{accepted} of {len(seeds)}"


def test_the_corpus_is_small_and_belongs_to_targets() -> None:
    folders = {path.name for path in CORPUS.iterdir() if path.is_dir()}
    assert folders == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MAX_CORPUS


def test_every_kind_of_row_is_read() -> None:
    found = list(stored_rows.kinds())
    assert len(found) >= 10
    assert all(isinstance(kind, RowKind) for kind in found)
    refused = [row for row in corpus_of("rows") if not any(is_readable(kind, row) for kind in found)]
    assert not refused


def test_channels_are_disturbed_in_every_phase_of_their_life() -> None:
    found = moments()
    assert {moment.name for moment in found} == {"a", "b"}
    assert {moment.channel.link for moment in found} >= {Link.UP, Link.REESTABLISHING}
    assert len({moment.channel.lifecycle for moment in found}) >= 5
    assert any(moment.channel.shutdown.received for moment in found)
    assert any(moment.channel.local_htlcs and moment.channel.remote_htlcs for moment in found)


def is_readable(kind: "RowKind[object]", row: bytes) -> bool:
    return is_accepted(Target(kind.decode, (Exception,)), row)


# -- the tools themselves ----------------------------------------------------------------------------------------------


def test_pieces_and_joined_are_inverse() -> None:
    parts = [b"", b"a", bytes(255)]
    assert pieces(joined(parts)) == parts
    assert pieces(b"\x05ab") == [b"ab"]


def test_mutations_are_a_function_of_the_seed() -> None:
    first, again = (list(islice(mutations([b"abc", b"def"], 7), 50)) for _ in range(2))
    assert first == again
    assert len(set(first)) > 25


def test_an_error_that_was_not_declared_is_found() -> None:
    def check(data: bytes) -> None:
        if len(data) > 2:
            raise ValueError("declared")
        if b"\xff" in data:
            raise KeyError("not declared")

    runs, data, error = fuzz(Target(check, (ValueError,)), [b"ab"], 5, seed=1)
    assert runs > 1
    assert data is not None
    assert b"\xff" in data
    assert error == "KeyError: 'not declared'"


def test_the_command_says_what_it_did() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--engine", "blind", "--seconds", "2", "fields", "text"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" inputs  nothing") == 2
    assert "fuzz: 2 targets passed, 0 failed" in done.stdout
