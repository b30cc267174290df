"""The newest headers of the best chain: the rules they obey, roll-back, locator.

A header is kept for each of the newest ``KEPT_HEADERS`` blocks: the period that the next change of difficulty is
reckoned from, and room for a reorg across that change, which is far more than any reorg has ever needed.
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from leyden.bitcoin import (
    HEADER_LENGTH,
    BitcoinError,
    Network,
    check_proof_of_work,
    parse_header,
    target_from_bits,
    work_from_bits,
)
from leyden.chain.checkpoints import Checkpoint, genesis_header, trusted_hash
from leyden.chain.difficulty import (
    MEDIAN_SPAN,
    RETARGET_INTERVAL,
    HeaderTip,
    bits_from_target,
    linked_hashes,
    trusted_tip,
)
from leyden.chain.errors import ChainSourceError
from leyden.chain.rows import BASE, HEADER, BaseRow, HeaderRow
from leyden.crypto import sha256d
from leyden.hooks.types import RecordChanges
from leyden.types import BlockHash, BlockHeight, RecordError

KEPT_HEADERS = RETARGET_INTERVAL + 288
_LOCATOR_DENSE = 10
_CHUNK = 64
_KNOWN_DIFFICULTY = {Network.MAINNET: (840_000, 0x17034219)}
"""Height and compact difficulty of a block that everybody knows."""
_MAX_FALL = 16
"""By how much difficulty may have fallen since: it never fell to less than half of what it had been."""

_Link = tuple[BlockHash, bytes]
"""Hash and header of a block."""


class HeaderChain(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive headers; ``base_height`` and ``base_hash`` name the block below the first of them.

    With no headers and no ``base_hash`` nothing was seen yet: the first block may be the one at ``base_height + 1``.
    """

    network: Network
    base_height: BlockHeight
    base_hash: BlockHash | None = None
    tip_height: BlockHeight
    chunks: tuple[tuple[_Link, ...], ...] = ()
    """The blocks above the base, cut at multiples of ``_CHUNK`` in height: one more block shares all the others with
    the value before it."""
    pruned: bool = False
    """Older headers were dropped, so a fork below the base cannot be followed any more."""

    def __len__(self) -> int:
        return self.tip_height - self.base_height

    @property
    def tip_hash(self) -> BlockHash | None:
        return self.chunks[-1][-1][0] if self.chunks else self.base_hash

    @property
    def hashes(self) -> tuple[BlockHash, ...]:
        """Of all blocks above the base, in order; costs a copy."""
        return tuple(block_hash for chunk in self.chunks for block_hash, _ in chunk)

    @property
    def headers(self) -> tuple[bytes, ...]:
        """Of all blocks above the base, in order; costs a copy."""
        return tuple(header for chunk in self.chunks for _, header in chunk)

    def _link(self, height: int) -> _Link | None:
        if not self.base_height < height <= self.tip_height:
            return None
        first = self.base_height + 1
        chunk = self.chunks[height // _CHUNK - first // _CHUNK]
        return chunk[height - max(first, height - height % _CHUNK)]

    def hash_at(self, height: int) -> BlockHash | None:
        """Hash of our block at ``height``, ``None`` where we keep none."""
        if height == self.base_height:
            return self.base_hash
        link = self._link(height)
        return None if link is None else link[0]

    def header_at(self, height: int) -> bytes:
        """Our header at ``height``; ``IndexError`` where we keep none."""
        link = self._link(height)
        if link is None:
            raise IndexError(height)
        return link[1]

    def work_above(self, height: int) -> int:
        """Hashes that our blocks above ``height`` took on average; ``IndexError`` below the base."""
        if height < self.base_height:
            raise IndexError(height)
        work, known, each = 0, b"", 0
        for at in _span(height, self.tip_height):
            bits = self.header_at(at)[72:76]
            if bits != known:
                known, each = bits, work_from_bits(int.from_bytes(bits, "little"))
            work += each
        return work

    def locator(self) -> tuple[tuple[BlockHeight, BlockHash], ...]:
        """Our blocks newest first: the last ten, then ever wider steps, then the base."""
        found: list[tuple[BlockHeight, BlockHash]] = []
        height, step = int(self.tip_height), 1
        while height > self.base_height:
            block_hash = self.hash_at(height)
            if block_hash is not None:
                found.append((BlockHeight(height), block_hash))
            if len(found) >= _LOCATOR_DENSE:
                step *= 2
            height -= step
        if self.base_hash is not None:
            found.append((self.base_height, self.base_hash))
        return tuple(found)

    def links(self, height: BlockHeight, header: bytes) -> bool:
        """Whether ``header`` can be our next one, as far as height and previous hash tell."""
        if height != self.tip_height + 1:
            return False
        return self.tip_hash is None or header[4:36] == self.tip_hash

    def tip(self) -> HeaderTip | None:
        """What the rules know about our newest block; ``None`` while not a single header is known."""
        height = self.tip_height
        if height > self.base_height:
            since = height % RETARGET_INTERVAL
            period = self._known_header(height - since)
            newest = [self._known_header(at) for at in range(max(height - MEDIAN_SPAN + 1, 0), height + 1)]
            known = [header for header in newest if header is not None]
            if period is None and self.network is Network.TESTNET4:
                known = [self.header_at(at) for at in _span(max(self.base_height, height - since), height)]
            return trusted_tip(self.network, height, b"".join(known), period)
        header = self._known_header(height)
        return None if header is None else trusted_tip(self.network, height, header)

    def _known_header(self, height: int) -> bytes | None:
        if height == 0 and self.base_height == 0:
            return genesis_header(self.network)
        link = self._link(height)
        return None if link is None else link[1]

    def extended(
        self, height: BlockHeight, block_hash: BlockHash, header: bytes, *, now: int | None = None
    ) -> "HeaderChain":
        """With one more block, which must link (``links``). ``ChainSourceError`` if the header is not what it claims
        to be, lacks work, has another difficulty than is due or a time that cannot be; ``now`` as for
        ``HeaderTip.extended``."""
        if len(header) != HEADER_LENGTH or sha256d(header) != block_hash:
            raise ChainSourceError(f"block {height}: the header does not have the hash it is announced with")
        tip = self.tip()
        if tip is None:
            self._check_first(height, block_hash, header)
        else:
            tip.extended(header, now=now)
        base_height, base_hash, pruned, chunks = self.base_height, self.base_hash, self.pruned, self.chunks
        if base_hash is None:
            base_hash = BlockHash(header[4:36])
        link = (block_hash, header)
        if chunks and height % _CHUNK:
            chunks = (*chunks[:-1], (*chunks[-1], link))
        else:
            chunks = (*chunks, (link,))
        surplus = height - base_height - KEPT_HEADERS
        for _ in range(surplus):
            base_height, base_hash, pruned = BlockHeight(base_height + 1), chunks[0][0][0], True
            chunks = (chunks[0][1:], *chunks[1:]) if len(chunks[0]) > 1 else chunks[1:]
        return HeaderChain(
            network=self.network,
            base_height=base_height,
            base_hash=base_hash,
            tip_height=height,
            chunks=chunks,
            pruned=pruned,
        )

    def _check_first(self, height: BlockHeight, block_hash: BlockHash, header: bytes) -> None:
        """Nothing is known that the first header could be measured by, but the block it must be or follow."""
        if self.base_hash is not None and header[4:36] != self.base_hash:
            raise ChainSourceError(f"block {height} does not follow the one before")
        for at, found in ((height, block_hash), (height - 1, header[4:36])):
            expected = trusted_hash(self.network, at)
            if expected is not None and found != expected:
                raise ChainSourceError(f"block {at} is not the block that {self.network.label} has there")
        try:
            parsed = parse_header(header)
            check_proof_of_work(parsed, self.network)
            least = least_work_bits(self.network, height)
            if least is not None and target_from_bits(parsed.bits) > target_from_bits(least):
                # With the difficulty of 2009 anybody mines a chain of any length in a minute.
                raise ChainSourceError(
                    f"block {height} has difficulty {parsed.bits:#010x}, far too little for {self.network.label} today"
                )
        except BitcoinError as error:
            raise ChainSourceError(f"block {height}: {error}") from error

    def cut_to(self, height: BlockHeight, block_hash: BlockHash) -> "HeaderChain":
        """Without the blocks above ``height``. A fork below the base empties the chain and moves the base, unless
        headers were dropped there: then the reorg is deeper than anything believable, ``ChainSourceError``."""
        if height >= self.tip_height:
            return self
        if height >= self.base_height:
            first = self.base_height + 1
            whole = (height + 1) // _CHUNK - first // _CHUNK
            chunks = self.chunks[: max(whole, 0)]
            if height >= first and (height + 1) % _CHUNK:
                start = max(first, height - height % _CHUNK)
                chunks = (*chunks, self.chunks[height // _CHUNK - first // _CHUNK][: height - start + 1])
            return msgspec.structs.replace(self, tip_height=height, chunks=chunks)
        if self.pruned:
            raise ChainSourceError(
                f"a reorg to height {height} is deeper than the {KEPT_HEADERS} blocks that are kept: "
                "check the chain source"
            )
        return msgspec.structs.replace(self, base_height=height, base_hash=block_hash, tip_height=height, chunks=())


def least_work_bits(network: Network, height: int) -> int | None:
    """The easiest difficulty, in compact form, of a first header at ``height``, which nothing before it can judge;
    ``None`` where work is cheap or nothing is known."""
    since, bits = _KNOWN_DIFFICULTY.get(network, (0, 0))
    if not bits or height < since:
        return None
    return bits_from_target(target_from_bits(bits) * _MAX_FALL)


def begin(network: Network, below: BlockHeight) -> HeaderChain:
    """Nothing seen yet; the first block will be the one above ``below``."""
    return HeaderChain(network=network, base_height=below, tip_height=below)


def begin_at(network: Network, checkpoint: Checkpoint, headers: bytes) -> HeaderChain:
    """The chain that ends at ``checkpoint``, with ``headers`` (80 bytes each) up to it, itself last, as anybody gave
    them: with 2,016 of them every later header is judged exactly. ``ChainSourceError`` if they do not lead there."""
    hashes = linked_hashes(headers, last=checkpoint.hash)
    if len(hashes) > checkpoint.height + 1:
        raise ChainSourceError(f"there are not that many headers up to checkpoint {checkpoint.height}")
    base = BlockHeight(checkpoint.height - len(hashes))
    cut = [headers[at : at + HEADER_LENGTH] for at in range(0, len(headers), HEADER_LENGTH)]
    return _chain(network, base, BlockHash(headers[4:36]), tuple(zip(hashes, cut, strict=True)), pruned=False)


def _chain(
    network: Network, base: BlockHeight, base_hash: BlockHash, links: tuple[_Link, ...], *, pruned: bool
) -> HeaderChain:
    first_cut = _CHUNK - (base + 1) % _CHUNK
    cuts = [0, *range(first_cut, len(links), _CHUNK), len(links)]
    return HeaderChain(
        network=network,
        base_height=base,
        base_hash=base_hash,
        tip_height=BlockHeight(base + len(links)),
        chunks=tuple(links[a:b] for a, b in pairwise(cuts)) if links else (),
        pruned=pruned,
    )


def records(old: HeaderChain | None, new: HeaderChain, prefix: bytes) -> RecordChanges:
    """Rows that turn what is stored for ``old`` into what is to be stored for ``new`` (``old`` None: nothing stored).

    One row per header: ``prefix`` + height (4 bytes, big-endian) = version byte + header; the row of the base holds
    version byte, a flag for dropped headers and the hash. Invariant: ``load`` of the rows gives ``new`` again.
    """
    if new.base_hash is None:
        return RecordChanges()
    if old is None or old.base_hash is None:
        old = begin(new.network, new.base_height)
    same: int = max(min(old.tip_height, new.tip_height), new.base_height)
    while same > new.base_height and old.hash_at(same) != new.hash_at(same):
        same -= 1  # equal hashes mean equal history, so the rows differ only above
    puts = [
        (_key(prefix, height), HEADER.encode(HeaderRow(header=new.header_at(height))))
        for height in _span(same, new.tip_height)
    ]
    if _base_row(old) != _base_row(new):
        puts.append((_base_key(prefix), _base_row(new)))
    dropped = [*_span(old.base_height, min(new.base_height, old.tip_height)), *_span(new.tip_height, old.tip_height)]
    return RecordChanges(puts=tuple(puts), deletes=tuple(_key(prefix, height) for height in dropped))


def _span(above: int, to: int) -> range:
    return range(above + 1, to + 1)


def _key(prefix: bytes, height: int) -> bytes:
    return prefix + height.to_bytes(4, "big")


def _base_key(prefix: bytes) -> bytes:
    return prefix + b"\xff\xff\xff\xff"


def _base_row(chain: HeaderChain) -> bytes:
    """Empty while nothing was seen."""
    if chain.base_hash is None:
        return b""
    return BASE.encode(BaseRow(pruned=int(chain.pruned), height=chain.base_height, hash=chain.base_hash))


def load(
    rows: Sequence[tuple[bytes, bytes]], prefix: bytes, network: Network, birth_height: BlockHeight
) -> HeaderChain:
    """Rebuild from rows; with none, an empty chain whose first block is ``birth_height``. ``RecordError`` if the rows
    are not what ``records`` wrote."""
    if not rows:
        return begin(network, BlockHeight(birth_height - 1))
    stored = dict(rows)
    if _base_key(prefix) not in stored:
        raise RecordError("CHAIN", "the stored headers have no base")
    base = BASE.decode(stored.pop(_base_key(prefix)))
    if base.pruned > 1:
        raise RecordError("CHAIN", "the base of the stored headers makes no sense")
    links: list[_Link] = []
    previous = BlockHash(base.hash)
    for height in _span(base.height, base.height + len(stored)):
        row = stored.get(_key(prefix, height)) if 0 <= height < 1 << 32 else None
        if row is None:
            raise RecordError("CHAIN", f"the stored header {height} is missing")
        header = HEADER.decode(row).header
        if header[4:36] != previous:
            raise RecordError("CHAIN", f"the stored header {height} does not follow the one before")
        previous = BlockHash(sha256d(header))
        links.append((previous, header))
    return _chain(network, BlockHeight(base.height), BlockHash(base.hash), tuple(links), pruned=bool(base.pruned))
