"""Rules of headers: figures of real chains, and random chains against a rule book that looks at the whole history."""

import time as clock
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import BitcoinError, Header, Network, parse_header, target_from_bits
from leyden.chain import (
    ChainSourceError,
    Checkpoint,
    HeaderFromFuture,
    HeaderTip,
    all_checkpoints,
    begin_at,
    genesis_header,
    genesis_tip,
    linked_hashes,
    newest_checkpoint,
    start_at,
)
from leyden.chain import checkpoints as known_blocks
from leyden.chain import difficulty as rules
from leyden.chain import headers as kept
from leyden.chain.difficulty import bits_from_target, pow_rules, retargeted_bits, trusted_tip
from leyden.chain.headers import HeaderChain, begin, load
from leyden.crypto import sha256d
from leyden.types import BlockHash, BlockHeight

EASY = 0x207FFFFF
T0 = 1_700_000_000


# -- figures of real chains --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "bits", "first", "last", "expected"),
    [
        # mainnet, heights of first and last block of the period; Bitcoin Core's src/test/pow_tests.cpp
        pytest.param(Network.MAINNET, 0x1D00FFFF, 1261130161, 1262152739, 0x1D00D86A, id="main-30240-32255"),
        pytest.param(Network.MAINNET, 0x1D00FFFF, 1231006505, 1233061996, 0x1D00FFFF, id="main-0-2015-limit"),
        pytest.param(Network.MAINNET, 0x1C05A3F4, 1279008237, 1279297671, 0x1C0168FD, id="main-66528-68543-fast"),
        pytest.param(Network.MAINNET, 0x1C387F6F, 1263163443, 1269211443, 0x1D00E1FD, id="main-46367-slow"),
        # signet; rust-bitcoin's tests of difficulty adjustment
        pytest.param(Network.SIGNET, 503543726, 1598918400, 1599332177, 503394215, id="signet-0-2015"),
        pytest.param(Network.SIGNET, 503394215, 1599332844, 1600591200, 503397348, id="signet-2016-4031"),
    ],
)
def test_retargets_that_happened(network: Network, bits: int, first: int, last: int, expected: int) -> None:
    assert retargeted_bits(network, bits, last - first) == expected


def test_the_first_interval_of_a_period_is_not_measured() -> None:
    """Mainnet 32256: from the first block of its period (30240), not from the one before that (1261129646)."""
    assert retargeted_bits(Network.MAINNET, 0x1D00FFFF, 1262152739 - 1261128623) != 0x1D00D86A


@pytest.mark.parametrize("network", list(Network))
def test_genesis_headers_hash_to_the_chain_hash(network: Network) -> None:
    header = genesis_header(network)
    assert sha256d(header) == network.chain_hash
    assert parse_header(header).bits == pow_rules(network).limit_bits
    tip = genesis_tip(network)
    assert (tip.height, tip.hash, tip.median_time) == (0, network.chain_hash, parse_header(header).time)


def test_the_second_block_of_mainnet_follows_the_first() -> None:
    block_1 = bytes.fromhex(
        "010000006fe28c0ab6f1b372c1a6a246ae63f74f931e8365e15a089c68d6190000000000"
        "982051fd1e4ba744bbbe680e1fee14677ba1a3c3540bf7b1cdb606e857233e0e61bc6649ffff001d01e36299"
    )
    tip, hashes = genesis_tip(Network.MAINNET).extended(block_1)
    assert hashes[0][::-1].hex() == "00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048"
    assert tip.work == 0x100010001
    with pytest.raises(ChainSourceError, match="does not follow"):
        tip.extended(block_1)
    with pytest.raises(ChainSourceError, match="proof of work"):
        genesis_tip(Network.MAINNET).extended(block_1[:-1] + b"\x00")


@pytest.mark.parametrize("network", list(Network))
def test_checkpoints_are_rising_and_have_work(network: Network) -> None:
    known = all_checkpoints(network)
    assert known[0] == Checkpoint(height=BlockHeight(0), hash=network.chain_hash)
    assert [found.height for found in known] == sorted({found.height for found in known})
    assert all(int.from_bytes(found.hash, "little") <= network.pow_limit for found in known)
    assert newest_checkpoint(network) == known[-1]
    assert newest_checkpoint(network, below=known[-1].height - 1) == known[max(len(known) - 2, 0)]
    assert newest_checkpoint(network, below=-5) == known[0]


# -- compact targets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bits", [0x1D00FFFF, 0x1E0377AE, EASY, 0x1C05A3F4, 0x170331DB, 0x03123456, 0x02123400, 0x01120000]
)
def test_compact_targets_round_trip(bits: int) -> None:
    assert bits_from_target(target_from_bits(bits)) == bits


@pytest.mark.parametrize(("target", "bits"), [(0x80, 0x02008000), (0x7F, 0x017F0000), (0x12345678, 0x04123456)])
def test_compact_targets_keep_the_sign_bit_free(target: int, bits: int) -> None:
    assert bits_from_target(target) == bits


@given(st.integers(1, (1 << 256) - 1))
def test_compact_targets_lose_only_low_bits(target: int) -> None:
    back = target_from_bits(bits_from_target(target))
    assert back <= target < back + (back >> 15) + 1


@pytest.mark.parametrize("target", [0, -1, 1 << 256])
def test_no_compact_form(target: int) -> None:
    with pytest.raises(BitcoinError):
        bits_from_target(target)


@given(st.integers(1, 1 << 224), st.integers(-(1 << 32), 1 << 32))
def test_a_retarget_moves_at_most_by_four(target: int, seconds: int) -> None:
    bits = bits_from_target(target)
    before, after = (
        target_from_bits(bits),
        target_from_bits(retargeted_bits(Network.MAINNET, bits, seconds)) if target > 3 else 0,
    )
    if target > 1 << 24:
        assert before // 4 * 0.99 <= after <= min(before * 4, Network.MAINNET.pow_limit)


# -- random chains against the whole history ---------------------------------------------------------------------------


class Row(NamedTuple):
    time: int
    bits: int


def due(bip94: bool, history: list[Row], time: int) -> int:
    """Difficulty after all of ``history`` as the rule is written: walks back over blocks."""
    limit = pow_rules(Network.TESTNET4 if bip94 else Network.MAINNET).limit_bits
    height, last = len(history), history[-1]
    if height % rules.RETARGET_INTERVAL == 0:
        first = history[height - rules.RETARGET_INTERVAL]
        seconds = min(max(last.time - first.time, rules.PERIOD_SECONDS // 4), rules.PERIOD_SECONDS * 4)
        target = target_from_bits(first.bits if bip94 else last.bits) * seconds // rules.PERIOD_SECONDS
        return bits_from_target(min(target, target_from_bits(limit)))
    if not bip94:
        return last.bits
    if time > last.time + 1200:
        return limit
    at = height - 1
    while at % rules.RETARGET_INTERVAL and history[at].bits == limit:
        at -= 1
    return history[at].bits


def mine(previous: bytes, time: int, bits: int) -> bytes:
    target = target_from_bits(bits)
    for nonce in range(1 << 32):
        header = Header(
            version=4, prev_hash=BlockHash(previous), merkle_root=bytes(32), time=time, bits=bits, nonce=nonce
        )
        if int.from_bytes(header.hash, "little") <= target:
            return header.serialize()
    raise AssertionError("no nonce")


@pytest.fixture
def small_periods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Periods of 16 blocks and a difficulty that can be mined in a test, on every network."""
    monkeypatch.setattr(rules, "RETARGET_INTERVAL", 16)
    monkeypatch.setattr(kept, "RETARGET_INTERVAL", 16)
    monkeypatch.setattr(kept, "KEPT_HEADERS", 20)
    monkeypatch.setattr(kept, "_CHUNK", 4)
    monkeypatch.setattr(rules, "PERIOD_SECONDS", 16 * 600)
    for network, found in rules._RULES.items():
        changed = rules.PowRules(
            limit=target_from_bits(EASY), limit_bits=EASY, retargets=found.retargets, bip94=found.bip94
        )
        monkeypatch.setitem(rules._RULES, network, changed)


def starting(network: Network, rows: list[Row]) -> tuple[HeaderTip, list[bytes]]:
    """A trusted chain with these blocks, the first at height 0, work not looked at."""
    headers: list[bytes] = []
    previous = bytes(32)
    for row in rows:
        header = Header(
            version=4, prev_hash=BlockHash(previous), merkle_root=bytes(32), time=row.time, bits=row.bits, nonce=0
        )
        headers.append(header.serialize())
        previous = header.hash
    return trusted_tip(network, BlockHeight(len(rows) - 1), b"".join(headers)), headers


@settings(deadline=None, max_examples=60)
@given(data=st.data(), bip94=st.booleans())
@pytest.mark.usefixtures("small_periods")
def test_difficulty_is_the_one_of_the_whole_history(data: st.DataObject, bip94: bool) -> None:
    network = Network.TESTNET4 if bip94 else Network.SIGNET
    history = [Row(T0 + 600 * n, EASY) for n in range(12)]
    tip, headers = starting(network, history)
    chain = _chain_of(network, headers)
    gap = st.integers(30, 1500) if bip94 else st.integers(60, 900)
    for _ in range(data.draw(st.integers(5, 50), label="blocks")):
        time = history[-1].time + data.draw(gap, label="gap")
        bits = due(bip94, history, time)
        assert tip.allowed_targets(time) == (target_from_bits(bits),) * 2
        header = mine(tip.hash, time, bits)
        wrong = bits - 1 if bits != EASY else bits_from_target(target_from_bits(EASY) // 2)
        with pytest.raises(ChainSourceError, match="difficulty"):
            tip.extended(mine(tip.hash, time, wrong))
        height = BlockHeight(tip.height + 1)
        tip, hashes = tip.extended(header)
        chain = chain.extended(height, hashes[0], header)
        assert chain.tip() == _without_work(tip)
        history.append(Row(time, bits))


def _without_work(tip: HeaderTip) -> HeaderTip:
    return msgspec.structs.replace(tip, work=0)


def _chain_of(network: Network, headers: list[bytes]) -> HeaderChain:
    """As it would be after a start below all of them."""
    last = BlockHash(sha256d(headers[-1]))
    return begin_at(network, Checkpoint(height=BlockHeight(len(headers) - 1), hash=last), b"".join(headers))


@pytest.mark.usefixtures("small_periods")
def test_a_batch_and_single_headers_give_the_same_tip() -> None:
    tip, _ = starting(Network.SIGNET, [Row(T0 + 600 * n, EASY) for n in range(12)])
    single, run = tip, b""
    for n in range(40):
        time = T0 + 600 * 12 + 300 * n
        _, easiest = single.allowed_targets(time)
        header = mine(single.hash, time, bits_from_target(easiest))
        single, _ = single.extended(header)
        run += header
    together, hashes = tip.extended(run)
    assert together == single
    assert hashes == tuple(BlockHash(sha256d(run[at : at + 80])) for at in range(0, len(run), 80))
    assert together.bits != EASY  # two changes of difficulty were crossed
    assert linked_hashes(run, last=together.hash) == hashes
    assert tip.extended(b"") == (tip, ())
    with pytest.raises(ChainSourceError, match="whole"):
        tip.extended(run[:-1])
    swapped = run[:80] + run[160:240] + run[80:160] + run[240:]
    for broken in (swapped, run[:-80]):
        with pytest.raises(ChainSourceError):
            linked_hashes(broken, last=together.hash)
    with pytest.raises(ChainSourceError, match="header 13 does not follow"):
        tip.extended(swapped)


@pytest.mark.usefixtures("small_periods")
def test_a_chain_begun_inside_a_period_allows_a_range_at_its_end() -> None:
    tip = trusted_tip(Network.SIGNET, BlockHeight(31), mine(bytes(32), T0, 0x1F7FFFFF))
    assert tip.period_time is None
    hardest, easiest = tip.allowed_targets(T0 + 600)
    assert bits_from_target(hardest) == 0x1F1FFFFF
    assert bits_from_target(easiest) == 0x2001FFFF
    with pytest.raises(ChainSourceError, match="0x2002ffff where 0x1f1fffff to 0x2001ffff is due"):
        tip.extended(mine(tip.hash, T0 + 600, 0x2002FFFF))
    after, _ = tip.extended(mine(tip.hash, T0 + 600, 0x2000FFFF))
    assert (after.period_time, after.period_bits) == (T0 + 600, 0x2000FFFF)


@pytest.mark.usefixtures("small_periods")
def test_testnet4_begun_among_easy_blocks_learns_the_difficulty() -> None:
    """Easy ones by exception tell nothing; the first block without it does."""
    tip = trusted_tip(Network.TESTNET4, BlockHeight(20), mine(bytes(32), T0, EASY))
    assert tip.period_bits is None
    tip, _ = tip.extended(mine(tip.hash, T0 + 1201, EASY))
    assert tip.period_bits is None
    tip, _ = tip.extended(mine(tip.hash, T0 + 1300, 0x2007FFFF))
    assert tip.period_bits == 0x2007FFFF
    with pytest.raises(ChainSourceError, match="difficulty"):
        tip.extended(mine(tip.hash, T0 + 1400, EASY))
    easy = mine(tip.hash, T0 + 1300 + 1201, EASY)
    after, _ = tip.extended(easy)
    assert after.period_bits == 0x2007FFFF
    with pytest.raises(ChainSourceError, match="difficulty"):  # the exception is a must, not a may
        tip.extended(mine(tip.hash, T0 + 1300 + 1201, 0x2007FFFF))


@pytest.mark.usefixtures("small_periods")
def test_the_first_of_a_period_of_testnet4_has_no_exception_and_no_time_warp() -> None:
    tip, _ = starting(Network.TESTNET4, [Row(T0 + 100 * n, 0x2007FFFF) for n in range(16)])
    due_bits = bits_from_target(tip.allowed_targets(T0 + 10_000)[1])
    assert due_bits == retargeted_bits(Network.TESTNET4, 0x2007FFFF, 1500)
    with pytest.raises(ChainSourceError, match="difficulty"):
        tip.extended(mine(tip.hash, T0 + 10_000, EASY))
    tip.extended(mine(tip.hash, T0 + 10_000, due_bits))
    tip.extended(mine(tip.hash, tip.time - 400, due_bits))  # later than the median, within ten minutes
    slow, _ = starting(Network.TESTNET4, [Row(T0 + 600 * n, 0x2007FFFF) for n in range(16)])
    due_bits = bits_from_target(slow.allowed_targets(T0)[1])
    slow.extended(mine(slow.hash, slow.time - 600, due_bits))
    with pytest.raises(ChainSourceError, match="BIP 94"):
        slow.extended(mine(slow.hash, slow.time - 601, due_bits))
    signet, _ = starting(Network.SIGNET, [Row(T0 + 600 * n, 0x2007FFFF) for n in range(16)])
    signet.extended(mine(signet.hash, signet.time - 601, due_bits))  # no such rule elsewhere


def test_regtest_never_retargets() -> None:
    tip = trusted_tip(Network.REGTEST, BlockHeight(2015), mine(bytes(32), T0, EASY))
    tip.extended(mine(tip.hash, T0 + 1, EASY))
    with pytest.raises(ChainSourceError, match="0x207fffff is due"):
        tip.extended(mine(tip.hash, T0 + 1, 0x201FFFFF))


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_block_is_later_than_the_median_of_eleven() -> None:
    """The newest may be earlier than its parent, but not as early as the sixth of the eleven before it."""
    tip, _ = starting(Network.REGTEST, [Row(T0 + n, EASY) for n in range(20)])
    assert tip.median_time == T0 + 14
    with pytest.raises(ChainSourceError, match="median"):
        tip.extended(mine(tip.hash, T0 + 14, EASY))
    after, _ = tip.extended(mine(tip.hash, T0 + 15, EASY))
    assert after.median_time == T0 + 15
    with pytest.raises(ChainSourceError, match="median"):
        after.extended(mine(after.hash, T0 + 15, EASY))


def test_the_median_is_not_guessed_where_too_little_is_known() -> None:
    tip = trusted_tip(Network.REGTEST, BlockHeight(50), mine(bytes(32), T0, EASY))
    assert tip.median_time is None
    tip.extended(mine(tip.hash, T0 - 1000, EASY))


def test_a_block_from_the_future_is_refused_for_now() -> None:
    tip = trusted_tip(Network.REGTEST, BlockHeight(50), mine(bytes(32), T0, EASY))
    header = mine(tip.hash, T0 + 7201, EASY)
    with pytest.raises(HeaderFromFuture, match="header 51 is more than two hours ahead"):
        tip.extended(header, now=T0)
    tip.extended(header, now=T0 + 1)
    tip.extended(header)


@given(st.lists(st.integers(-4000, 4000), min_size=1, max_size=40))
def test_times_are_judged_as_by_sorting(steps: list[int]) -> None:
    """The check that is skipped for a block later than its parent would always have passed."""
    times = [T0 + n for n in range(11)]
    tip, _ = starting(Network.REGTEST, [Row(time, EASY) for time in times])
    for step in steps:
        time = times[-1] + step
        good = time > sorted(times[-11:])[5]
        header = mine(tip.hash, time, EASY)
        if good:
            tip, _ = tip.extended(header)
            times.append(time)
        else:
            with pytest.raises(ChainSourceError, match="median"):
                tip.extended(header)


# -- starting in the middle --------------------------------------------------------------------------------------------


def regtest_headers(count: int, previous: bytes = Network.REGTEST.chain_hash, first_time: int = T0) -> list[bytes]:
    headers = []
    for n in range(count):
        headers.append(mine(previous, first_time + n, EASY))
        previous = sha256d(headers[-1])
    return headers


def test_start_at_a_checkpoint() -> None:
    headers = regtest_headers(30)
    checkpoint = Checkpoint(height=BlockHeight(30), hash=BlockHash(sha256d(headers[-1])))
    for taken in (1, 12, 30):
        tip = start_at(Network.REGTEST, checkpoint, b"".join(headers[-taken:]))
        assert (tip.height, tip.hash, tip.work) == (30, checkpoint.hash, 0)
        chain = begin_at(Network.REGTEST, checkpoint, b"".join(headers[-taken:]))
        assert (chain.tip_height, chain.tip_hash, len(chain)) == (30, checkpoint.hash, taken)
        assert chain.base_height == 30 - taken
    run = b"".join(headers)
    for bad in (run[:-80], run[80:160] + run[:80], b""):
        with pytest.raises(ChainSourceError):
            start_at(Network.REGTEST, checkpoint, bad)
        with pytest.raises(ChainSourceError):
            begin_at(Network.REGTEST, checkpoint, bad)
    low = Checkpoint(height=BlockHeight(3), hash=checkpoint.hash)
    for start in (start_at, begin_at):
        with pytest.raises(ChainSourceError, match="not that many"):
            start(Network.REGTEST, low, run)


def test_a_header_at_a_known_height_must_be_the_known_block(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = regtest_headers(3)
    tip, hashes = genesis_tip(Network.REGTEST).extended(b"".join(headers))
    monkeypatch.setitem(known_blocks._TRUSTED[Network.REGTEST], 2, hashes[1])
    assert genesis_tip(Network.REGTEST).extended(b"".join(headers))[0] == tip
    other = regtest_headers(3, first_time=T0 + 50)
    with pytest.raises(ChainSourceError, match="header 2 is not the block that regtest has there"):
        genesis_tip(Network.REGTEST).extended(b"".join(other))
    chain = begin(Network.REGTEST, BlockHeight(1))
    with pytest.raises(ChainSourceError, match="block 2 is not"):
        chain.extended(BlockHeight(2), BlockHash(sha256d(other[1])), other[1])
    chain = begin(Network.REGTEST, BlockHeight(2))
    with pytest.raises(ChainSourceError, match="block 2 is not"):
        chain.extended(BlockHeight(3), BlockHash(sha256d(other[2])), other[2])


# -- the chain that is kept --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(
    base=st.integers(0, 12),
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 9)), min_size=1, max_size=20),
)
def test_the_kept_chain_is_a_list_of_headers(base: int, steps: list[tuple[bool, int]]) -> None:
    """Against a plain list, however it grew and was cut; rows give an equal value."""
    limits = kept.KEPT_HEADERS, kept._CHUNK
    kept.KEPT_HEADERS, kept._CHUNK = 13, 4
    try:
        _grow_and_cut(base, steps)
    finally:
        kept.KEPT_HEADERS, kept._CHUNK = limits


def _grow_and_cut(base: int, steps: list[tuple[bool, int]]) -> None:
    chain = begin(Network.REGTEST, BlockHeight(base))
    model: list[bytes] = []  # headers from base + 1 on
    first = base + 1
    stored: dict[bytes, bytes] = {}
    stamp = T0
    for grow, count in steps:
        before = chain
        if grow:
            for _ in range(count):
                stamp += 1
                previous = chain.tip_hash or Network.REGTEST.chain_hash
                header = mine(previous, stamp, EASY)
                chain = chain.extended(BlockHeight(chain.tip_height + 1), BlockHash(sha256d(header)), header)
                model.append(header)
            surplus = max(len(model) - 13, 0)
            first, model = first + surplus, model[surplus:]
        else:
            height = max(chain.tip_height - count, chain.base_height)
            chain = chain.cut_to(BlockHeight(height), chain.hash_at(height) or BlockHash(bytes(32)))
            model = model[: height - first + 1]
        changes = kept.records(before, chain, b"h")
        stored.update(changes.puts)
        for key in changes.deletes:
            stored.pop(key, None)
        assert chain.headers == tuple(model)
        assert chain.hashes == tuple(sha256d(header) for header in model)
        assert (chain.tip_height, len(chain)) == (first + len(model) - 1, len(model))
        for at, header in enumerate(model):
            assert chain.header_at(first + at) == header
            assert chain.hash_at(first + at) == sha256d(header)
        for outside in (first - 2, first + len(model)):
            assert chain.hash_at(outside) is None
            with pytest.raises(IndexError):
                chain.header_at(outside)
        assert chain.work_above(chain.base_height) == 2 * len(model)
        if chain.base_hash is not None:
            assert load(sorted(stored.items()), b"h", Network.REGTEST, BlockHeight(base + 1)) == chain


@pytest.mark.usefixtures("small_periods")
def test_a_reorg_across_a_change_of_difficulty_is_judged_exactly() -> None:
    """More is kept than a period, so that the block it is reckoned from is still there."""
    _, headers = starting(Network.SIGNET, [Row(T0 + 600 * n, EASY) for n in range(12)])
    chain = _chain_of(Network.SIGNET, headers)
    for n in range(12, 35):
        chain = _add(chain, T0 + 600 * 12 + 300 * n)
    assert chain.pruned
    fork = chain.cut_to(BlockHeight(31), chain.hash_at(31) or BlockHash(bytes(32)))
    tip = fork.tip()
    assert tip is not None
    hardest, easiest = tip.allowed_targets(tip.time + 1)
    assert hardest == easiest
    assert _add(fork, tip.time + 1).tip_height == 32


def _add(chain: HeaderChain, time: int) -> HeaderChain:
    tip = chain.tip()
    assert tip is not None
    header = mine(tip.hash, time, bits_from_target(tip.allowed_targets(time)[1]))
    return chain.extended(BlockHeight(chain.tip_height + 1), BlockHash(sha256d(header)), header)


def test_stored_rows_of_the_chain_stay_as_they_were() -> None:
    """One row per header and one of the base, as before headers were shared between values."""
    headers = regtest_headers(3)
    chain = begin(Network.REGTEST, BlockHeight(0))
    for height, header in enumerate(headers, 1):
        chain = chain.extended(BlockHeight(height), BlockHash(sha256d(header)), header)
    rows = dict(kept.records(None, chain, b"h").puts)
    assert rows == {
        **{b"h" + height.to_bytes(4, "big"): rows[b"h" + height.to_bytes(4, "big")] for height in (1, 2, 3)},
        b"h\xff\xff\xff\xff": rows[b"h\xff\xff\xff\xff"],
    }
    assert all(headers[height - 1] in rows[b"h" + height.to_bytes(4, "big")] for height in (1, 2, 3))


@pytest.mark.slow
def test_fifty_thousand_headers_per_second() -> None:
    """With hashing; the bound leaves room for a busy machine."""
    run = b"".join(regtest_headers(4000))
    tip = genesis_tip(Network.REGTEST)
    best = 1e9
    for _ in range(5):
        began = clock.process_time()
        tip.extended(run)
        best = min(best, clock.process_time() - began)
    assert 4000 / best > 50_000, f"{4000 / best:.0f} headers/s"
