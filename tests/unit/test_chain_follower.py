"""The follower: strict order whatever the source does, lies refused, late watches served."""

import msgspec
import pytest
from chain_blocks import GENESIS, make_block, make_chain, make_tx
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import Network, merkle_branch, p2wpkh, p2wsh
from leyden.chain import (
    BlockFetched,
    BlockRescanned,
    ChainFollower,
    FetchBlock,
    FollowerInput,
    FollowerOutput,
    HeaderChain,
    HistoryMissing,
    RestartSource,
    SourceFault,
    WatchesAdded,
    WatchesRemoved,
    WatchSet,
    headers,
    load,
    records,
    step,
)
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    HistoryFound,
    RecordChanges,
    SourceSynced,
    SourceTip,
    Watch,
)
from leyden.types import BlockHeight, OutPoint, RecordError, Txid

PREFIX = b"b"


def new(birth: int = 1) -> ChainFollower:
    return load((), PREFIX, Network.REGTEST, BlockHeight(birth))


def run(follower: ChainFollower, *inputs: FollowerInput) -> tuple[ChainFollower, list[FollowerOutput]]:
    outputs: list[FollowerOutput] = []
    for happened in inputs:
        follower, more = step(follower, happened)
        outputs.extend(more)
    return follower, outputs


def fork(block: BlockConnected) -> BlocksDisconnected:
    return BlocksDisconnected(fork_height=block.height, fork_hash=block.block_hash)


def synced(block: BlockConnected) -> SourceSynced:
    return SourceSynced(height=block.height, block_hash=block.block_hash)


def heights(outputs: list[FollowerOutput]) -> list[int]:
    return [output.height for output in outputs if isinstance(output, BlockConnected)]


def test_blocks_come_out_once_and_in_order() -> None:
    chain = make_chain(4)
    follower, outputs = run(new(), *chain[:3], chain[1], chain[2], chain[3], synced(chain[3]))
    assert heights(outputs) == [1, 2, 3, 4]
    assert isinstance(outputs[-1], SourceSynced)
    assert follower.synced
    assert (follower.height, follower.best_hash) == (4, chain[3].block_hash)


def test_a_source_may_start_anywhere_but_only_at_the_birth_height() -> None:
    chain = make_chain(4)
    follower, outputs = run(new(3), chain[2], chain[3])
    assert heights(outputs) == [3, 4]
    assert follower.locator == ((4, chain[3].block_hash), (3, chain[2].block_hash), (2, chain[1].block_hash))
    _, outputs = run(new(3), chain[1])
    assert isinstance(outputs[0], RestartSource)


@pytest.mark.parametrize("gap", ["missing block", "unannounced fork", "foreign fork point", "fork above the tip"])
def test_a_gap_asks_the_source_to_start_again(gap: str) -> None:
    chain, other = make_chain(4), make_chain(4, salt=1)
    follower, _ = run(new(), *chain[:2])
    inputs: dict[str, FollowerInput] = {
        "missing block": chain[3],
        "unannounced fork": other[2],
        "foreign fork point": fork(other[0]),
        "fork above the tip": fork(chain[3]),
    }
    after, outputs = run(follower, inputs[gap])
    assert after == follower
    assert [type(output) for output in outputs] == [RestartSource]
    assert isinstance(outputs[0], RestartSource)
    assert outputs[0].locator[0] == (2, chain[1].block_hash)


def test_a_tip_that_is_not_ours_is_a_gap() -> None:
    chain = make_chain(3)
    follower, outputs = run(new(), *chain[:2], synced(chain[2]))
    assert isinstance(outputs[-1], RestartSource)
    assert not follower.synced


def test_an_older_tip_of_ours_takes_nothing_back() -> None:
    chain = make_chain(3)
    follower, outputs = run(new(), *chain, synced(chain[2]), synced(chain[1]))
    assert follower.height == 3
    assert follower.synced
    assert not any(isinstance(output, RestartSource) for output in outputs)


def test_reorg_disconnects_to_the_fork_point_once() -> None:
    chain = make_chain(4)
    branch = make_chain(3, previous=chain[1].block_hash, first=3, salt=7)
    follower, outputs = run(new(), *chain, fork(chain[1]), fork(chain[1]), *branch, synced(branch[2]))
    assert [o for o in outputs if isinstance(o, BlocksDisconnected)] == [fork(chain[1])]
    assert heights(outputs) == [1, 2, 3, 4, 3, 4, 5]
    assert follower.best_hash == branch[2].block_hash


def test_reorg_below_the_birth_height_is_followed() -> None:
    chain = make_chain(4)
    branch = make_chain(4, previous=chain[0].block_hash, first=2, salt=7)
    follower, outputs = run(new(4), chain[3], fork(chain[0]), *branch)
    assert heights(outputs) == [4, 2, 3, 4, 5]
    assert follower.chain.hash_at(1) == chain[0].block_hash


def test_reorg_deeper_than_all_we_keep_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "KEPT_HEADERS", 3)
    chain = make_chain(6)
    follower, _ = run(new(), *chain)
    assert follower.chain.base_height == 3
    after, outputs = run(follower, fork(chain[0]))
    assert after == follower
    assert isinstance(outputs[0], SourceFault)
    assert "deeper" in outputs[0].reason


@pytest.mark.parametrize(
    "lie",
    ["hash", "header length", "work", "difficulty", "too easy", "body", "positions", "repeated tail", "empty"],
)
def test_lies_are_faults_and_change_nothing(lie: str) -> None:
    chain = make_chain(2)
    follower, _ = run(new(), chain[0])
    good = make_block(chain[0].block_hash, 2, [make_tx(5), make_tx(6)])
    replace = msgspec.structs.replace
    bad: BlockConnected
    if lie == "hash":
        bad = replace(good, block_hash=chain[0].block_hash)
    elif lie == "header length":
        bad = replace(good, header=good.header + b"\x00")
    elif lie in ("work", "too easy", "difficulty"):
        # bits of a far harder target: the hash does not meet it; above the limit; easier to meet but not regtest's
        bits = {"work": 0x1D00FFFF, "too easy": 0x2100FFFF, "difficulty": 0x2071FFFF}[lie]
        bad = make_block(chain[0].block_hash, 2, bits=bits) if lie == "difficulty" else _with_bits(good, bits)
    elif lie == "body":
        bad = replace(good, transactions=good.transactions[:-1])
    elif lie == "positions":
        first, second, third = good.transactions
        bad = replace(good, transactions=(first, replace(third, position=1), replace(second, position=2)))
    elif lie == "repeated tail":
        bad = replace(good, transactions=(*good.transactions, replace(good.transactions[2], position=3)))
    else:
        bad = replace(good, transactions=())
    after, outputs = run(follower, bad)
    assert after == follower
    assert [type(output) for output in outputs] == [SourceFault]
    assert heights(run(follower, good)[1]) == [2]


def _with_bits(block: BlockConnected, bits: int) -> BlockConnected:
    from leyden.crypto import sha256d
    from leyden.types import BlockHash

    header = block.header[:72] + bits.to_bytes(4, "little") + block.header[76:]
    return msgspec.structs.replace(block, header=header, block_hash=BlockHash(sha256d(header)))


# -- watches -----------------------------------------------------------------------------------------------------------

KEY = b"\x02" * 33
SCRIPT = p2wsh(b"a script")


def found_by(output: FollowerOutput) -> list[Txid]:
    assert isinstance(output, BlockConnected | BlockRescanned)
    return [found.tx.txid for found in output.transactions]


def test_only_matching_transactions_come_out_with_their_positions() -> None:
    watched = OutPoint(Txid(b"\x09" * 32), 1)
    pays = make_tx(1, script=SCRIPT)
    spends = make_tx(2, prevout=watched)
    spends_script = make_tx(3, witness=[b"sig", b"a script"])
    spends_key = make_tx(4, witness=[b"sig", KEY])
    others = [make_tx(5), make_tx(6, witness=[b"sig", b"\x03" * 33])]
    block = make_block(GENESIS, 1, [others[0], pays, spends, others[1], spends_script, spends_key])
    watches = (Watch(script=SCRIPT), Watch(script=p2wpkh(KEY)), Watch(script=b"\x00", outpoint=watched))
    follower, outputs = run(new(), WatchesAdded(watches=watches), block)
    assert isinstance(outputs[0], BlockConnected)
    assert [found.position for found in outputs[0].transactions] == [2, 3, 5, 6]
    assert not outputs[0].full
    _, outputs = run(follower, WatchesRemoved(watches=watches), make_block(block.block_hash, 2, [pays]))
    assert found_by(outputs[0]) == []


def test_watches_are_counted() -> None:
    watch = Watch(script=SCRIPT, outpoint=OutPoint(Txid(b"\x01" * 32), 0))
    once = WatchSet().adding([watch, watch]).removing([watch])
    assert once.matches(make_tx(1, script=SCRIPT))
    assert not once.removing([watch, watch]).matches(make_tx(1, script=SCRIPT))


def test_a_watch_added_because_of_a_block_sees_that_same_block() -> None:
    pays = make_tx(1, script=SCRIPT)
    spends = make_tx(2, prevout=OutPoint(pays.txid, 0))
    follower, _ = run(new(), make_block(GENESIS, 1, [pays, spends]))
    late = Watch(script=SCRIPT, outpoint=OutPoint(pays.txid, 0), since_height=BlockHeight(1))
    # Even when the source was told in time for the next block only.
    _, outputs = run(follower, WatchesAdded(watches=(late,), active_from=BlockHeight(2)))
    assert [found_by(output) for output in outputs] == [[pays.txid, spends.txid]]


def test_an_older_block_is_fetched_again_for_a_late_watch() -> None:
    pays = make_tx(1, script=SCRIPT)
    first = make_block(GENESIS, 1, [pays])
    second = make_block(first.block_hash, 2)
    follower, _ = run(new(), first, second)
    follower, outputs = run(follower, WatchesAdded(watches=(Watch(script=SCRIPT, since_height=BlockHeight(1)),)))
    assert outputs == [FetchBlock(height=BlockHeight(1), block_hash=first.block_hash)]
    lying = msgspec.structs.replace(first, transactions=first.transactions[:1])
    assert isinstance(run(follower, BlockFetched(block=lying))[1][0], SourceFault)
    follower, outputs = run(follower, BlockFetched(block=first), BlockFetched(block=first))
    assert [found_by(output) for output in outputs] == [[pays.txid]]
    assert follower.rescans == ()


def test_a_block_is_asked_for_once_for_many_watches() -> None:
    pays, pays_other = make_tx(1, script=SCRIPT), make_tx(2, script=p2wpkh(KEY))
    first = make_block(GENESIS, 1, [pays, pays_other])
    follower, _ = run(new(), first, make_block(first.block_hash, 2))
    added = [WatchesAdded(watches=(Watch(script=s, since_height=BlockHeight(1)),)) for s in (SCRIPT, p2wpkh(KEY))]
    follower, outputs = run(follower, *added)
    assert [output.height for output in outputs if isinstance(output, FetchBlock)] == [1]
    _, outputs = run(follower, BlockFetched(block=first))
    assert [found_by(output) for output in outputs] == [[pays.txid, pays_other.txid]]


def test_what_the_source_covers_itself_is_not_fetched() -> None:
    chain = make_chain(3)
    follower, _ = run(new(), *(msgspec.structs.replace(block, full=False, transactions=()) for block in chain))
    watch = Watch(script=SCRIPT, since_height=BlockHeight(1))
    _, outputs = run(follower, WatchesAdded(watches=(watch,), active_from=BlockHeight(3)))
    assert [output.height for output in outputs if isinstance(output, FetchBlock)] == [1, 2]


def test_a_rescan_of_a_block_that_left_the_chain_is_dropped() -> None:
    first = make_block(GENESIS, 1, [make_tx(1, script=SCRIPT)])
    follower, _ = run(new(), first, make_block(first.block_hash, 2))
    follower, _ = run(follower, WatchesAdded(watches=(Watch(script=SCRIPT, since_height=BlockHeight(1)),)))
    gone = BlocksDisconnected(fork_height=BlockHeight(0), fork_hash=GENESIS)
    follower, outputs = run(follower, gone, BlockFetched(block=first))
    assert [type(output) for output in outputs] == [BlocksDisconnected]


def test_a_watch_older_than_all_we_keep_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "KEPT_HEADERS", 2)
    follower, _ = run(new(), *make_chain(5))
    _, outputs = run(follower, WatchesAdded(watches=(Watch(script=SCRIPT, since_height=BlockHeight(2)),)))
    assert HistoryMissing(from_height=BlockHeight(4)) in outputs


def test_blocks_looked_at_again_come_out_from_the_oldest_on() -> None:
    pays = make_tx(1, script=SCRIPT)
    first = make_block(GENESIS, 1, [pays])
    second = make_block(first.block_hash, 2, [make_tx(2, script=SCRIPT)])
    follower, _ = run(new(), first, second, *make_chain(1, previous=second.block_hash, first=3))
    asking = WatchesAdded(watches=(Watch(script=SCRIPT, since_height=BlockHeight(1)),))
    follower, outputs = run(follower, asking, BlockFetched(block=second))
    assert not any(isinstance(output, BlockRescanned) for output in outputs)
    # a watch that comes while an older block is missing is not forgotten, nor is the one before
    other = WatchesAdded(watches=(Watch(script=p2wpkh(KEY), since_height=BlockHeight(2)),))
    follower, outputs = run(follower, other, BlockFetched(block=first))
    assert [found_by(output) for output in outputs if isinstance(output, BlockRescanned)] == [[pays.txid]]
    follower, outputs = run(follower, BlockFetched(block=second))
    assert [found_by(output) for output in outputs] == [[second.transactions[1].tx.txid]]
    assert follower.rescans == ()


def test_a_fetched_block_must_be_whole() -> None:
    first = make_block(GENESIS, 1, [make_tx(1, script=SCRIPT)])
    follower, _ = run(new(), first, make_block(first.block_hash, 2))
    follower, _ = run(follower, WatchesAdded(watches=(Watch(script=SCRIPT, since_height=BlockHeight(1)),)))
    after, outputs = run(follower, BlockFetched(block=msgspec.structs.replace(first, transactions=(), full=False)))
    assert [type(output) for output in outputs] == [SourceFault]
    assert after.rescans


def test_a_watch_set_does_not_change_when_another_is_made_of_it() -> None:
    one, two, three = (Watch(script=bytes((n,)), outpoint=OutPoint(Txid(bytes((n,)) * 32), 0)) for n in (1, 2, 3))
    base = WatchSet().adding([one])
    left, right = base.adding([two]), base.adding([three])
    assert [base.has_script(w.script) for w in (one, two, three)] == [True, False, False]
    assert [left.has_script(w.script) for w in (one, two, three)] == [True, True, False]
    assert [right.has_script(w.script) for w in (one, two, three)] == [True, False, True]
    assert [left.has_outpoint(w.outpoint) for w in (one, two, three) if w.outpoint] == [True, True, False]
    assert left.removing([one, two, three]) == WatchSet()
    assert left == WatchSet().adding([two, one])
    assert not left.removing([one, two]).matches(make_tx(1, script=one.script))
    assert left.matches(make_tx(1, script=one.script))


def test_thousands_of_watches_cost_no_more_each_than_the_first() -> None:
    """By counting work, not time: no set is copied on the way."""
    chain = make_chain(1)
    follower, _ = run(new(), *chain)
    log = follower.watches._log
    for number in range(3_000):
        watch = Watch(script=number.to_bytes(4, "big"), since_height=BlockHeight(1))
        follower, _ = step(follower, WatchesAdded(watches=(watch,), active_from=BlockHeight(2)))
        assert follower.watches._log is log


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), max_size=30))
def test_watch_sets_agree_with_counting(changes: list[tuple[int, int, bool]]) -> None:
    """Random additions and removals on random earlier sets, against plain counts."""
    sets: list[tuple[WatchSet, dict[bytes, int]]] = [(WatchSet(), {})]
    for which, script_number, adds in changes:
        base, counts = sets[which % len(sets)]
        script = bytes((script_number,))
        after = dict(counts)
        after[script] = max(after.get(script, 0) + (1 if adds else -1), 0)
        watch = Watch(script=script)
        sets.append((base.adding([watch]) if adds else base.removing([watch]), after))
    for made, counts in sets:
        for number in range(4):
            assert made.has_script(bytes((number,))) == (counts.get(bytes((number,)), 0) > 0)


# -- sources that deliver what matches ---------------------------------------------------------------------------------


def partial(block: BlockConnected, *positions: int) -> BlockConnected:
    """What a source with proofs makes of ``block``."""
    return msgspec.structs.replace(block, transactions=proved(block, *positions), full=False)


def proved(block: BlockConnected, *positions: int) -> tuple[BlockTransaction, ...]:
    txids = [found.tx.txid for found in block.transactions]
    return tuple(msgspec.structs.replace(block.transactions[at], branch=merkle_branch(txids, at)) for at in positions)


def history(block: BlockConnected, *positions: int) -> HistoryFound:
    return HistoryFound(height=block.height, block_hash=block.block_hash, transactions=proved(block, *positions))


def test_history_of_a_late_watch_comes_from_the_source() -> None:
    pays = make_tx(1, script=SCRIPT)
    first = make_block(GENESIS, 1, [make_tx(2), pays, make_tx(3)])
    second = make_block(first.block_hash, 2)
    follower, _ = run(new(), partial(first), partial(second))
    assert run(follower, history(first, 2))[1] == []  # nobody watches for it
    watch = WatchesAdded(watches=(Watch(script=SCRIPT, since_height=BlockHeight(1)),), active_from=BlockHeight(0))
    follower, outputs = run(follower, watch, history(first, 2))
    assert [found_by(output) for output in outputs] == [[pays.txid]]
    assert isinstance(outputs[0], BlockRescanned)
    assert (outputs[0].height, outputs[0].block_hash) == (1, first.block_hash)
    # said twice it comes twice, and changes nothing here
    assert len(run(follower, history(first, 2))[1]) == 1


def test_history_of_a_block_that_is_not_ours_means_nothing() -> None:
    first = make_block(GENESIS, 1, [make_tx(1, script=SCRIPT)])
    other = make_block(GENESIS, 1, [make_tx(2, script=SCRIPT)])
    follower, _ = run(new(), WatchesAdded(watches=(Watch(script=SCRIPT),)), partial(first, 1))
    ahead = make_block(first.block_hash, 2, [make_tx(3, script=SCRIPT)])
    assert run(follower, history(other, 1), history(ahead, 1)) == (follower, [])


def test_history_below_all_that_is_kept_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headers, "KEPT_HEADERS", 2)
    first = make_block(GENESIS, 1, [make_tx(1, script=SCRIPT)])
    follower, _ = run(new(), WatchesAdded(watches=(Watch(script=SCRIPT),)), partial(first))
    follower, _ = run(follower, *make_chain(4, previous=first.block_hash, first=2))
    assert run(follower, history(first, 1))[1] == [HistoryMissing(from_height=BlockHeight(4))]


def test_a_source_with_proofs_must_give_them() -> None:
    block = make_block(GENESIS, 1, [make_tx(1, script=SCRIPT)])
    bare = msgspec.structs.replace(block, transactions=block.transactions[1:], full=False)
    watching, _ = run(new(), WatchesAdded(watches=(Watch(script=SCRIPT),)))
    assert heights(run(watching, bare)[1]) == [1]
    strict = msgspec.structs.replace(watching, proofs=True)
    assert [type(output) for output in run(strict, bare)[1]] == [SourceFault]
    assert heights(run(strict, partial(block, 1))[1]) == [1]


@pytest.mark.parametrize("lie", ["another position", "another branch", "short", "uneven", "64 bytes", "node size"])
@pytest.mark.parametrize("late", [False, True])
def test_a_merkle_branch_that_proves_nothing_is_a_fault(lie: str, late: bool) -> None:
    small = make_tx(4, script=b"\x51\x51\x51\x51")
    assert len(small.serialize_legacy()) == 64
    watched = make_tx(1, script=SCRIPT)
    block = make_block(GENESIS, 1, [watched, make_tx(2), make_tx(3, script=SCRIPT), small])
    good, other = proved(block, 1, 3)
    bad: tuple[BlockTransaction, ...]
    replace = msgspec.structs.replace
    assert good.branch is not None
    if lie == "another position":
        bad = (replace(good, position=2), other)
    elif lie == "another branch":
        bad = (replace(good, branch=other.branch), other)
    elif lie == "short":
        bad = (replace(good, branch=good.branch[:1], position=1),)
    elif lie == "uneven":
        bad = (good, replace(other, branch=(*good.branch, bytes(32))))
    elif lie == "64 bytes":
        bad = proved(block, 4)
    else:
        bad = (replace(good, branch=(good.branch[0][:31], *good.branch[1:])),)
    start, _ = run(new(), WatchesAdded(watches=(Watch(script=SCRIPT), Watch(script=small.outputs[0].script))))
    told: FollowerInput = replace(block, transactions=bad, full=False)
    if late:
        start, _ = run(start, partial(block))
        told = HistoryFound(height=block.height, block_hash=block.block_hash, transactions=bad)
    after, outputs = run(start, told)
    assert after == start
    assert [type(output) for output in outputs] == [SourceFault]


def test_a_block_from_the_future_is_asked_for_again_later() -> None:
    chain = make_chain(2)
    time = int.from_bytes(chain[1].header[68:72], "little")
    follower, _ = run(new(), chain[0])
    after, outputs = step(follower, chain[1], now=time - 7201)
    assert after == follower
    assert [type(output) for output in outputs] == [RestartSource]
    assert heights(list(step(follower, chain[1], now=time - 7200)[1])) == [2]


def test_what_concerns_the_source_itself_passes() -> None:
    tip = SourceTip(height=BlockHeight(9))
    assert run(new(), tip) == (new(), [tip])


# -- records -----------------------------------------------------------------------------------------------------------


def apply(rows: dict[bytes, bytes], changes: RecordChanges) -> None:
    rows.update(changes.puts)
    for key in changes.deletes:
        rows.pop(key, None)


def reloaded(rows: dict[bytes, bytes]) -> HeaderChain:
    return load(sorted(rows.items()), PREFIX, Network.REGTEST, BlockHeight(1)).chain


def test_one_block_costs_one_row() -> None:
    chain = make_chain(20)
    before, _ = run(new(), *chain[:19])
    after, _ = run(before, chain[19])
    assert len(records(before, after, PREFIX).puts) == 1
    assert records(before, after, PREFIX).deletes == ()
    assert records(after, after, PREFIX) == RecordChanges()


@pytest.mark.parametrize("damage", ["no base", "no header", "short header", "version", "another header"])
def test_damaged_rows_are_refused(damage: str) -> None:
    follower, _ = run(new(), *make_chain(3))
    rows = dict(records(None, follower, PREFIX).puts)
    keys = sorted(rows)
    if damage == "no base":
        del rows[keys[-1]]
    elif damage == "no header":
        del rows[keys[0]]
    elif damage == "short header":
        rows[keys[1]] = rows[keys[1]][:-1]
    elif damage == "another header":
        rows[keys[1]] = rows[keys[1]][:-1] + bytes((rows[keys[1]][-1] ^ 1,))
    else:
        rows[keys[1]] = b"\x02" + rows[keys[1]][1:]
    with pytest.raises(RecordError):
        reloaded(rows)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_delivery_ends_at_the_best_chain(data: st.DataObject) -> None:
    """Random mining and reorgs through a source that repeats and drops; the rows always give the follower back."""
    kept, headers.KEPT_HEADERS = headers.KEPT_HEADERS, 8
    try:
        _deliver_randomly(data)
    finally:
        headers.KEPT_HEADERS = kept


def _deliver_randomly(data: st.DataObject) -> None:
    best = make_chain(3)
    follower = new()
    rows: dict[bytes, bytes] = {}
    replayed: list[bytes] = []
    for salt in range(1, data.draw(st.integers(1, 6), label="rounds") + 1):
        depth = data.draw(st.integers(0, min(4, len(best) - 1)), label="depth")
        best = best[: len(best) - depth]
        best += make_chain(depth + 1, previous=best[-1].block_hash, first=len(best) + 1, salt=salt)
        stream = _stream(follower, best)
        for _ in range(data.draw(st.integers(0, 2), label="mistakes")):
            at = data.draw(st.integers(0, len(stream) - 1), label="at")
            if data.draw(st.booleans(), label="repeat or drop"):
                stream.insert(at, stream[at])
            else:
                stream.pop(at)
                break  # never drop everything: the last event must be able to reveal the gap
        stream.append(synced(best[-1]))
        while stream:
            after, outputs = step(follower, stream.pop(0))
            apply(rows, records(follower, after, PREFIX))
            follower = after
            assert reloaded(rows) == follower.chain
            for output in outputs:
                _replay(replayed, output)
                assert not isinstance(output, SourceFault)
                if isinstance(output, RestartSource):
                    stream = [*_stream(follower, best), synced(best[-1])]
        assert follower.best_hash == best[-1].block_hash
        assert follower.synced
        assert replayed == [block.block_hash for block in best]


def _stream(follower: ChainFollower, best: list[BlockConnected]) -> list[FollowerInput]:
    """What an honest source sends from the follower's place."""
    common: int = follower.height
    while common > 0 and (common > len(best) or follower.chain.hash_at(common) != best[common - 1].block_hash):
        common -= 1
    stream: list[FollowerInput] = list(best[common:])
    if common < follower.height:
        stream.insert(0, fork(best[common - 1]))
    return stream


def _replay(replayed: list[bytes], output: FollowerOutput) -> None:
    """A consumer that trusts the order blindly."""
    if isinstance(output, BlockConnected):
        assert output.height == len(replayed) + 1
        replayed.append(output.block_hash)
    elif isinstance(output, BlocksDisconnected):
        assert output.fork_height < len(replayed)
        del replayed[output.fork_height :]
        assert replayed[-1] == output.fork_hash
