"""The headers that were checked, from where we began up to the tip."""

import msgspec
from leyden.bitcoin import HEADER_LENGTH, Network
from leyden.chain.difficulty import HeaderTip, linked_hashes, trusted_tip
from leyden.crypto import sha256d
from leyden.types import BlockHash, BlockHeight

CONTEXT = 2026
"""Headers up to a block that let every later one be judged exactly."""


class HeaderStore:
    """Consecutive headers from ``base`` on. 80 bytes each, and nothing else."""

    def __init__(self, network: Network, base: int, headers: bytes) -> None:
        """``headers`` are linked to a block that is trusted, which is the last of them."""
        self._network = network
        self._data = bytearray(headers)
        self.base = base
        self.tip: HeaderTip = trusted_tip(network, BlockHeight(base + len(headers) // HEADER_LENGTH - 1), headers)

    @property
    def height(self) -> BlockHeight:
        return self.tip.height

    def header(self, height: int) -> bytes:
        """``IndexError`` where there is none."""
        if not self.base <= height <= self.tip.height:
            raise IndexError(height)
        at = (height - self.base) * HEADER_LENGTH
        return bytes(self._data[at : at + HEADER_LENGTH])

    def hash(self, height: int) -> BlockHash:
        return BlockHash(sha256d(self.header(height)))

    def merkle_root(self, height: int) -> bytes:
        return self.header(height)[36:68]

    def has(self, height: int, block_hash: bytes) -> bool:
        return self.base <= height <= self.tip.height and self.hash(height) == block_hash

    def span(self, first: int, last: int) -> bytes:
        """The headers from ``first`` to ``last``."""
        return bytes(self._data[(first - self.base) * HEADER_LENGTH : (last + 1 - self.base) * HEADER_LENGTH])

    def tip_at(self, height: int) -> HeaderTip:
        """The chain up to ``height``; its work counts from there."""
        if height == self.tip.height:
            return msgspec.structs.replace(self.tip, work=0)
        return trusted_tip(self._network, BlockHeight(height), self.span(max(self.base, height - CONTEXT + 1), height))

    def work_above(self, height: int) -> int:
        """Hashes that our blocks above ``height`` took on average."""
        return self.tip_at(height).extended(self.span(height + 1, self.tip.height))[0].work

    def extend(self, headers: bytes, now: int) -> None:
        """``ChainSourceError`` names the first header that breaks a rule; then nothing is taken."""
        self.tip, _ = self.tip.extended(headers, now=now)
        self._data += headers

    def replace(self, fork: int, branch: bytes, tip: HeaderTip) -> None:
        """The blocks above ``fork`` by ``branch``, which was checked and ends with ``tip``."""
        del self._data[(fork + 1 - self.base) * HEADER_LENGTH :]
        self._data += branch
        self.tip = tip

    def extend_down(self, headers: bytes) -> None:
        """Older headers, the last of them just below ``base``. ``ChainSourceError`` unless ours name them."""
        linked_hashes(headers, last=BlockHash(bytes(self._data[4:36])))
        self._data[:0] = headers
        self.base -= len(headers) // HEADER_LENGTH
