"""What a header must prove: linkage, work, the difficulty that is due at its height, and a believable time.

``HeaderTip`` is all that the rules need to know about a chain, in constant size: a fork is judged by keeping the tip at
the fork point. ``HeaderTip.extended`` takes a run of headers as they come off the wire.

- mainnet, signet: every 2016 blocks the target is scaled by the time that the period took, at most by four. The first
  block of a period does not count into its duration, so 2015 intervals are measured.
- testnet4 (BIP 94): the same, scaled from the *first* block of the period; a block more than 20 minutes after its
  parent must have the easiest difficulty, except the first of a period; a period may begin at most ten minutes before
  the block in front of it.
- regtest: always the easiest difficulty.

On signet the header proves work alone: the signature that makes a block valid there is in its coinbase transaction.
"""

import struct
from collections.abc import Iterator, Sequence

import msgspec

from leyden.bitcoin import HEADER_LENGTH, BitcoinError, Network, target_from_bits, work_from_bits
from leyden.chain.checkpoints import Checkpoint, genesis_header, trusted_hash
from leyden.chain.errors import ChainSourceError, HeaderFromFuture
from leyden.crypto import sha256d
from leyden.types import BlockHash, BlockHeight

RETARGET_INTERVAL = 2016
"""Blocks in a period of equal difficulty."""
PERIOD_SECONDS = 14 * 24 * 3600
MAX_ADJUSTMENT = 4
EASY_AFTER_SECONDS = 20 * 60
MAX_TIMEWARP_SECONDS = 600
MAX_FUTURE_SECONDS = 2 * 3600
MEDIAN_SPAN = 11
"""Blocks whose median time the next one must exceed."""

_FIELDS = struct.Struct("<4x32s32xII4x")


class PowRules(msgspec.Struct, frozen=True, kw_only=True):
    """How difficulty works on a network."""

    limit: int
    """The easiest target."""
    limit_bits: int
    retargets: bool = True
    bip94: bool = False


def bits_from_target(target: int) -> int:
    """The compact form, rounded down to what it can hold: the inverse of ``target_from_bits``.

    ``BitcoinError`` unless 0 < target < 2**256.
    """
    if not 0 < target < 1 << 256:
        raise BitcoinError("a target is a positive number of at most 256 bits")
    size = (target.bit_length() + 7) // 8
    mantissa = target >> 8 * (size - 3) if size > 3 else target << 8 * (3 - size)
    if mantissa & 0x800000:  # that bit is the sign
        mantissa, size = mantissa >> 8, size + 1
    return size << 24 | mantissa


def pow_rules(network: Network) -> PowRules:
    """The rules of ``network``."""
    return _RULES[network]


_RULES = {
    network: PowRules(
        limit=network.pow_limit,
        limit_bits=bits_from_target(network.pow_limit),
        retargets=network is not Network.REGTEST,
        bip94=network is Network.TESTNET4,
    )
    for network in Network
}


def retargeted_bits(network: Network, bits: int, seconds: int) -> int:
    """The difficulty of the period after one with difficulty ``bits`` whose last block was ``seconds`` after its first.

    On testnet4 ``bits`` is that of the first block of the period (BIP 94), elsewhere all blocks have the same.
    """
    seconds = max(PERIOD_SECONDS // MAX_ADJUSTMENT, min(seconds, PERIOD_SECONDS * MAX_ADJUSTMENT))
    return bits_from_target(min(target_from_bits(bits) * seconds // PERIOD_SECONDS, _RULES[network].limit))


class HeaderTip(msgspec.Struct, frozen=True, kw_only=True):
    """The newest block of a chain of headers, and what the rules need to judge the next one."""

    network: Network
    height: BlockHeight
    hash: BlockHash
    time: int
    bits: int
    work: int
    """Hashes that the blocks up to here took on average, counted from where the chain was begun: of two chains begun
    at the same place the one with more is the better."""
    times: tuple[int, ...]
    """Of the newest blocks, oldest first, at most ``MEDIAN_SPAN``."""
    period_time: int | None
    """Time of the first block of this period of difficulty; ``None`` if the chain was begun later than that."""
    period_bits: int | None
    """Difficulty of this period; ``None`` where it is not known (testnet4, begun among easy blocks)."""

    @property
    def median_time(self) -> int | None:
        """The next block must be later than this (seconds since 1970); ``None`` while too few blocks are known."""
        return _median(self.times, self.height)

    def allowed_targets(self, time: int) -> tuple[int, int]:
        """(hardest, easiest) target that the next block may have if it carries ``time``; they are equal where enough of
        the chain is known."""
        return _allowed(self.network, self.height + 1, time, self.time, self.period_time, self.period_bits)

    def extended(self, headers: bytes, *, now: int | None = None) -> tuple["HeaderTip", tuple[BlockHash, ...]]:
        """After ``headers`` (80 bytes each, in order), and their hashes.

        ``ChainSourceError`` names the first header that breaks a rule, ``HeaderFromFuture`` one that is more than two
        hours ahead of ``now`` (seconds since 1970; ``None``: not checked): that one may be fine later.
        """
        network, height, last_time, work = self.network, int(self.height), self.time, self.work
        period_time, period_bits, times = self.period_time, self.period_bits, list(self.times)
        special = _RULES[network].bip94
        known_bits, target, block_work = -1, 0, 0
        hashes: list[BlockHash] = []
        previous: bytes = self.hash
        for block_hash, parent, time, bits in _fields(headers):
            height += 1
            if parent != previous:
                raise ChainSourceError(f"header {height} does not follow the one before")
            if bits != known_bits:
                target, block_work = _target(height, bits)
                known_bits = bits
            first = height % RETARGET_INTERVAL == 0
            if first or special or bits != period_bits:
                hardest, easiest = _allowed(network, height, time, last_time, period_time, period_bits)
                if not hardest <= target <= easiest:
                    raise ChainSourceError(_wrong_difficulty(height, bits, hardest, easiest))
                if first:
                    period_time, period_bits = time, bits
                elif period_bits is None and time <= last_time + EASY_AFTER_SECONDS:
                    period_bits = bits  # no exception applies, so this is the difficulty of the period
            if int.from_bytes(block_hash, "little") > target:
                raise ChainSourceError(f"header {height} does not meet its proof of work")
            if time <= last_time:
                _check_time(network, height, time, last_time, times)
            if now is not None and time > now + MAX_FUTURE_SECONDS:
                raise HeaderFromFuture(f"header {height} is more than two hours ahead of our clock")
            expected = trusted_hash(network, height)
            if expected is not None and block_hash != expected:
                raise ChainSourceError(f"header {height} is not the block that {network.label} has there")
            times.append(time)
            del times[:-MEDIAN_SPAN]
            previous, last_time, work = block_hash, time, work + block_work
            hashes.append(BlockHash(block_hash))
        if not hashes:
            return self, ()
        tip = HeaderTip(
            network=network,
            height=BlockHeight(height),
            hash=hashes[-1],
            time=last_time,
            bits=known_bits,
            work=work,
            times=tuple(times),
            period_time=period_time,
            period_bits=period_bits,
        )
        return tip, tuple(hashes)


def genesis_tip(network: Network) -> HeaderTip:
    """The chain that consists of the first block."""
    return trusted_tip(network, BlockHeight(0), genesis_header(network))


def start_at(network: Network, checkpoint: Checkpoint, headers: bytes) -> HeaderTip:
    """Begin at ``checkpoint``: ``headers`` are those up to it, itself last, as anybody gave them.

    They are believed only as far as each is named by the next. With all of its period of difficulty and the ten before
    (at most 2,026 headers; those from the last multiple of 2,016 on are enough but for the median time) every later
    header is judged exactly. ``ChainSourceError`` if they do not lead to the checkpoint.
    """
    linked_hashes(headers, last=checkpoint.hash)
    if len(headers) // HEADER_LENGTH > checkpoint.height + 1:
        raise ChainSourceError(f"there are not that many headers up to checkpoint {checkpoint.height}")
    return trusted_tip(network, checkpoint.height, headers)


def trusted_tip(network: Network, height: BlockHeight, headers: bytes, period: bytes | None = None) -> HeaderTip:
    """The chain that ends at ``height`` with ``headers`` (the newest last, at least one), which were checked before.

    ``period`` is the first header of the period of difficulty, needed where it is not among them. ``work`` counts from
    the newest.
    """
    rows = [(time, bits) for _, time, bits in _FIELDS.iter_unpack(headers)]
    if not rows:
        raise ChainSourceError("a chain of headers begins with one")
    since = height % RETARGET_INTERVAL
    first = rows[-1 - since] if since < len(rows) else None
    if first is None and period is not None:
        first = _FIELDS.unpack(period)[1:]
    bip94 = _RULES[network].bip94
    if first is not None and bip94:
        period_bits: int | None = first[1]
    else:
        period_bits = _learnt_bits(rows, _RULES[network].limit_bits) if bip94 else rows[-1][1]
    return HeaderTip(
        network=network,
        height=height,
        hash=BlockHash(sha256d(headers[-HEADER_LENGTH:])),
        time=rows[-1][0],
        bits=rows[-1][1],
        work=0,
        times=tuple(time for time, _ in rows[-MEDIAN_SPAN:]),
        period_time=None if first is None else first[0],
        period_bits=period_bits,
    )


def linked_hashes(headers: bytes, *, last: BlockHash) -> tuple[BlockHash, ...]:
    """The hashes of ``headers``, of which each names the one before and the newest is ``last``: that makes all of them
    as good as ``last`` is. ``ChainSourceError`` otherwise."""
    hashes: list[BlockHash] = []
    for block_hash, parent, _, _ in _fields(headers):
        if hashes and parent != hashes[-1]:
            raise ChainSourceError(f"header {len(hashes)} of {len(headers) // HEADER_LENGTH} does not follow")
        hashes.append(BlockHash(block_hash))
    if not hashes or hashes[-1] != last:
        raise ChainSourceError(f"the headers do not end with block {last[::-1].hex()}")
    return tuple(hashes)


def _learnt_bits(rows: Sequence[tuple[int, int]], easy: int) -> int | None:
    """Difficulty of a period of testnet4 as the newest of its blocks, ``rows`` of (time, bits), tell it: that of one
    which was not ``easy`` by exception."""
    for (before, _), (time, bits) in zip(rows[-2::-1], rows[:0:-1], strict=True):
        if bits != easy or time <= before + EASY_AFTER_SECONDS:
            return bits
    return rows[0][1] if rows[0][1] != easy else None


def _fields(headers: bytes) -> Iterator[tuple[bytes, bytes, int, int]]:
    """(hash, previous hash, time, bits) of each."""
    if len(headers) % HEADER_LENGTH:
        raise ChainSourceError(f"headers have {HEADER_LENGTH} bytes each: {len(headers)} bytes are not whole ones")
    at = 0
    for previous, time, bits in _FIELDS.iter_unpack(headers):
        yield sha256d(headers[at : at + HEADER_LENGTH]), previous, time, bits
        at += HEADER_LENGTH


def _target(height: int, bits: int) -> tuple[int, int]:
    """(target, work) of ``bits``."""
    try:
        return target_from_bits(bits), work_from_bits(bits)
    except BitcoinError as error:
        raise ChainSourceError(f"header {height}: {error}") from error


def _allowed(
    network: Network, height: int, time: int, last_time: int, period_time: int | None, period_bits: int | None
) -> tuple[int, int]:
    """(hardest, easiest) target at ``height`` for a block of ``time`` whose parent has ``last_time``; ``period_*`` are
    of the period that the parent is in."""
    rules = _RULES[network]
    if not rules.retargets:
        return rules.limit, rules.limit
    first = height % RETARGET_INTERVAL == 0
    if not first and rules.bip94 and time > last_time + EASY_AFTER_SECONDS:
        return rules.limit, rules.limit
    if period_bits is None:
        return 1, rules.limit
    if not first:
        due = target_from_bits(period_bits)
        return due, due
    if period_time is None:
        hardest = retargeted_bits(network, period_bits, 0)
        easiest = retargeted_bits(network, period_bits, MAX_ADJUSTMENT * PERIOD_SECONDS)
        return target_from_bits(hardest), target_from_bits(easiest)
    due = target_from_bits(retargeted_bits(network, period_bits, last_time - period_time))
    return due, due


def _wrong_difficulty(height: int, bits: int, hardest: int, easiest: int) -> str:
    due = f"{bits_from_target(easiest):#010x}"
    if hardest != easiest:
        due = f"{bits_from_target(hardest):#010x} to {due}"
    return f"header {height} has difficulty {bits:#010x} where {due} is due"


def _median(times: Sequence[int], height: int) -> int | None:
    """Of the newest blocks up to ``height``; near the start of a chain all there are count."""
    if len(times) < MEDIAN_SPAN and len(times) != height + 1:
        return None
    return sorted(times)[len(times) // 2]


def _check_time(network: Network, height: int, time: int, last_time: int, times: Sequence[int]) -> None:
    """For a block that is not later than its parent, which is later than the median itself."""
    median = _median(times, height - 1)
    if median is not None and time <= median:
        raise ChainSourceError(f"header {height} is not later than the median of the {len(times)} before it")
    if _RULES[network].bip94 and height % RETARGET_INTERVAL == 0 and time < last_time - MAX_TIMEWARP_SECONDS:
        raise ChainSourceError(f"header {height} begins a period more than ten minutes before its parent (BIP 94)")
