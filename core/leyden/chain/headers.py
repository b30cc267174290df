"""The newest headers of the best chain: linkage, proof of work, roll-back, locator.

A header is kept for each of the newest ``KEPT_HEADERS`` blocks, which is far more than any reorg has ever needed.
"""

from collections.abc import Sequence

import msgspec

from leyden.bitcoin import HEADER_LENGTH, BitcoinError, Network, check_proof_of_work, parse_header, target_from_bits
from leyden.chain.errors import ChainSourceError
from leyden.chain.rows import BASE, HEADER, BaseRow, HeaderRow
from leyden.crypto import sha256d
from leyden.hooks.types import RecordChanges
from leyden.types import BlockHash, BlockHeight, RecordError

KEPT_HEADERS = 2016
RETARGET_INTERVAL = 2016
_LOCATOR_DENSE = 10


class HeaderChain(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive headers; ``base_height`` and ``base_hash`` name the block below the first of them.

    With no headers and no ``base_hash`` nothing was seen yet: the first block may be the one at ``base_height + 1``.
    """

    network: Network
    base_height: BlockHeight
    base_hash: BlockHash | None = None
    hashes: tuple[BlockHash, ...] = ()
    headers: tuple[bytes, ...] = ()
    pruned: bool = False
    """Older headers were dropped, so a fork below the base cannot be followed any more."""

    @property
    def tip_height(self) -> BlockHeight:
        return BlockHeight(self.base_height + len(self.hashes))

    @property
    def tip_hash(self) -> BlockHash | None:
        return self.hashes[-1] if self.hashes else self.base_hash

    def hash_at(self, height: int) -> BlockHash | None:
        """Hash of our block at ``height``, ``None`` where we keep none."""
        index = height - self.base_height - 1
        if index == -1:
            return self.base_hash
        return self.hashes[index] if 0 <= index < len(self.hashes) else None

    def header_at(self, height: int) -> bytes:
        """Our header at ``height``; ``IndexError`` where we keep none."""
        index = height - self.base_height - 1
        if index < 0:
            raise IndexError(height)
        return self.headers[index]

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

    def extended(self, height: BlockHeight, block_hash: BlockHash, header: bytes) -> "HeaderChain":
        """With one more block, which must link (``links``). ``ChainSourceError`` if the header is not what it claims
        to be or lacks work."""
        self._check(height, block_hash, header)
        base_height, base_hash, pruned = self.base_height, self.base_hash, self.pruned
        if base_hash is None:
            base_hash = BlockHash(header[4:36])
        hashes, headers = (*self.hashes, block_hash), (*self.headers, header)
        surplus = len(hashes) - KEPT_HEADERS
        if surplus > 0:
            base_height, base_hash, pruned = BlockHeight(base_height + surplus), hashes[surplus - 1], True
            hashes, headers = hashes[surplus:], headers[surplus:]
        return msgspec.structs.replace(
            self, base_height=base_height, base_hash=base_hash, hashes=hashes, headers=headers, pruned=pruned
        )

    def cut_to(self, height: BlockHeight, block_hash: BlockHash) -> "HeaderChain":
        """Without the blocks above ``height``. A fork below the base empties the chain and moves the base, unless
        headers were dropped there: then the reorg is deeper than anything believable, ``ChainSourceError``."""
        keep = height - self.base_height
        if keep >= 0:
            return msgspec.structs.replace(self, hashes=self.hashes[:keep], headers=self.headers[:keep])
        if self.pruned:
            raise ChainSourceError(
                f"a reorg to height {height} is deeper than the {KEPT_HEADERS} blocks that are kept: "
                "check the chain source"
            )
        return msgspec.structs.replace(self, base_height=height, base_hash=block_hash, hashes=(), headers=())

    def _check(self, height: BlockHeight, block_hash: BlockHash, header: bytes) -> None:
        if len(header) != HEADER_LENGTH or sha256d(header) != block_hash:
            raise ChainSourceError(f"block {height}: the header does not have the hash it is announced with")
        parsed = parse_header(header)
        try:
            check_proof_of_work(parsed, self.network)
        except BitcoinError as error:
            raise ChainSourceError(f"block {height}: {error}") from error
        if self.headers and self.network in (Network.MAINNET, Network.REGTEST):
            before = parse_header(self.headers[-1])
            self._check_difficulty(height, target_from_bits(parsed.bits), target_from_bits(before.bits))

    def _check_difficulty(self, height: BlockHeight, target: int, before: int) -> None:
        """Difficulty moves only at retargets and there by at most four; regtest never retargets."""
        if self.network is Network.MAINNET and height % RETARGET_INTERVAL == 0:
            good = before // 4 <= target <= before * 4
        else:
            good = target == before
        if not good:
            raise ChainSourceError(f"block {height}: the difficulty changed where it must not")


def records(old: HeaderChain | None, new: HeaderChain, prefix: bytes) -> RecordChanges:
    """Rows that turn what is stored for ``old`` into what is to be stored for ``new`` (``old`` None: nothing stored).

    One row per header: ``prefix`` + height (4 bytes, big-endian) = version byte + header; the row of the base holds
    version byte, a flag for dropped headers and the hash. Invariant: ``load`` of the rows gives ``new`` again.
    """
    if new.base_hash is None:
        return RecordChanges()
    if old is None or old.base_hash is None:
        old = msgspec.structs.replace(new, hashes=(), headers=(), base_hash=None)
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
        return HeaderChain(network=network, base_height=BlockHeight(birth_height - 1))
    stored = dict(rows)
    if _base_key(prefix) not in stored:
        raise RecordError("CHAIN", "the stored headers have no base")
    base = BASE.decode(stored.pop(_base_key(prefix)))
    if base.pruned > 1:
        raise RecordError("CHAIN", "the base of the stored headers makes no sense")
    headers: list[bytes] = []
    hashes = [BlockHash(base.hash)]
    for height in _span(base.height, base.height + len(stored)):
        row = stored.get(_key(prefix, height)) if 0 <= height < 1 << 32 else None
        if row is None:
            raise RecordError("CHAIN", f"the stored header {height} is missing")
        header = HEADER.decode(row).header
        if header[4:36] != hashes[-1]:
            raise RecordError("CHAIN", f"the stored header {height} does not follow the one before")
        headers.append(header)
        hashes.append(BlockHash(sha256d(header)))
    return HeaderChain(
        network=network,
        base_height=BlockHeight(base.height),
        base_hash=BlockHash(base.hash),
        hashes=tuple(hashes[1:]),
        headers=tuple(headers),
        pruned=bool(base.pruned),
    )
