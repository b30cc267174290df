"""A block that comes as bytes gives what the same block gives parsed."""

import msgspec
import pytest
from chain_blocks import GENESIS, make_block, make_tx
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import Block, Network, Transaction, p2wpkh, p2wsh, parse_header
from leyden.chain import BlockFetched, BlockRescanned, ChainFollower, FetchBlock, SourceFault, WatchesAdded, load, step
from leyden.hooks.types import BlockConnected, Watch
from leyden.types import BlockHeight, OutPoint, Txid

KEY = b"\x02" * 33
WITNESS_SCRIPT = b"\x51\x52"
SCRIPTS = (p2wpkh(KEY), p2wsh(WITNESS_SCRIPT), b"\x51", b"\x6a\x01\x01")
OUTPOINTS = tuple(OutPoint(Txid(bytes((n,)) * 32), n) for n in range(3))
WITNESSES: tuple[tuple[bytes, ...], ...] = ((), (b"sig", KEY), (b"", WITNESS_SCRIPT), (WITNESS_SCRIPT,), (b"\x01",) * 3)

watches = st.lists(
    st.builds(Watch, script=st.sampled_from(SCRIPTS), outpoint=st.none() | st.sampled_from(OUTPOINTS)), max_size=3
)


def as_raw(block: BlockConnected) -> BlockConnected:
    whole = Block(header=parse_header(block.header), transactions=tuple(found.tx for found in block.transactions))
    return msgspec.structs.replace(block, transactions=(), raw=whole.serialize())


def new(wanted: list[Watch]) -> ChainFollower:
    follower = load((), b"b", Network.REGTEST, BlockHeight(1))
    return step(follower, WatchesAdded(watches=tuple(wanted), active_from=BlockHeight(0)))[0]


@st.composite
def bodies(draw: st.DrawFn) -> list[Transaction]:
    count = draw(st.integers(0, 5))
    return [
        make_tx(
            n + 1,
            script=draw(st.sampled_from(SCRIPTS)),
            prevout=draw(st.none() | st.sampled_from(OUTPOINTS)),
            witness=draw(st.sampled_from(WITNESSES)),
        )
        for n in range(count)
    ]


@settings(deadline=None)
@given(body=bodies(), early=watches, late=watches)
def test_bytes_and_parsed_transactions_match_the_same(
    body: list[Transaction], early: list[Watch], late: list[Watch]
) -> None:
    unique = list({tx.txid: tx for tx in body}.values())
    block = make_block(GENESIS, 1, unique)
    parsed, raw = new(early), new(early)
    parsed, parsed_out = step(parsed, block)
    raw, raw_out = step(raw, as_raw(block))
    assert raw_out == parsed_out
    added = WatchesAdded(watches=tuple(late))
    assert step(raw, added)[1] == step(parsed, added)[1]
    # and once more as an older block that is fetched again
    on_top = make_block(block.block_hash, 2)
    parsed, raw = step(parsed, on_top)[0], step(raw, as_raw(on_top))[0]
    parsed, raw = step(parsed, added)[0], step(raw, added)[0]
    assert step(raw, BlockFetched(block=as_raw(block)))[1] == step(parsed, BlockFetched(block=block))[1]


def test_only_what_is_watched_is_kept_of_a_block() -> None:
    block = make_block(GENESIS, 1, [make_tx(1), make_tx(2, script=SCRIPTS[0])])
    _, (out,) = step(new([Watch(script=SCRIPTS[0])]), as_raw(block))
    assert isinstance(out, BlockConnected)
    assert [found.position for found in out.transactions] == [2]
    assert (out.raw, out.full) == (b"", False)


@pytest.mark.parametrize("lie", ["another body", "another header", "cut", "both forms", "not full", "swapped"])
def test_lies_in_bytes_are_faults(lie: str) -> None:
    block = make_block(GENESIS, 1, [make_tx(1), make_tx(2)])
    good = as_raw(block)
    other = as_raw(make_block(GENESIS, 1, [make_tx(3)]))
    replace = msgspec.structs.replace
    bad = {
        "another body": replace(good, raw=good.raw[:80] + other.raw[80:]),
        "another header": replace(good, raw=other.raw),
        "cut": replace(good, raw=good.raw[:-1]),
        "both forms": replace(good, transactions=block.transactions),
        "not full": replace(good, full=False),
        "swapped": as_raw(replace(block, transactions=(block.transactions[0], *block.transactions[:0:-1]))),
    }[lie]
    follower = new([])
    after, outputs = step(follower, bad)
    assert after == follower
    assert [type(output) for output in outputs] == [SourceFault]
    assert isinstance(step(follower, good)[1][0], BlockConnected)


def with_empty_witnesses(block: BlockConnected) -> BlockConnected:
    """Its last transaction announces witnesses that are all empty: the ids stay, but it is in no block like that."""
    last = block.transactions[-1].tx.serialize_legacy()
    raw = as_raw(block).raw
    assert raw.endswith(last)
    damaged = last[:4] + b"\x00\x01" + last[4:-4] + b"\x00" + last[-4:]
    return msgspec.structs.replace(as_raw(block), raw=raw[: -len(last)] + damaged)


def test_a_match_that_cannot_be_parsed_is_a_fault() -> None:
    block = make_block(GENESIS, 1, [make_tx(1, script=SCRIPTS[1])])
    follower = new([Watch(script=SCRIPTS[1])])
    after, outputs = step(follower, with_empty_witnesses(block))
    assert after == follower
    assert [type(output) for output in outputs] == [SourceFault]


def test_a_late_match_that_cannot_be_parsed_is_asked_for_again() -> None:
    block = make_block(GENESIS, 1, [make_tx(1, script=SCRIPTS[1])])
    follower, _ = step(new([]), with_empty_witnesses(block))
    follower, outputs = step(follower, WatchesAdded(watches=(Watch(script=SCRIPTS[1]),)))
    assert outputs == (FetchBlock(height=block.height, block_hash=block.block_hash),)
    _, (out,) = step(follower, BlockFetched(block=as_raw(block)))
    assert isinstance(out, BlockRescanned)
    assert [found.position for found in out.transactions] == [1]


def test_a_watch_added_because_of_a_raw_block_sees_that_same_block() -> None:
    block = make_block(GENESIS, 1, [make_tx(1, script=SCRIPTS[1]), make_tx(2, prevout=OUTPOINTS[2])])
    follower, _ = step(new([]), as_raw(block))
    wanted = (Watch(script=SCRIPTS[1]), Watch(script=b"\x00", outpoint=OUTPOINTS[2]))
    _, (out,) = step(follower, WatchesAdded(watches=wanted))
    assert isinstance(out, BlockRescanned)
    assert [found.position for found in out.transactions] == [1, 2]
