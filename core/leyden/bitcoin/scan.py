"""A whole block looked through without building its transactions: ids, scripts, what is spent.

Catching up looks at every transaction of thousands of blocks to find a few. One pass over the bytes gives all that
matching needs; only what matches is parsed. Nothing here is trusted: the ids must add up to the merkle root of the
header (``ScannedBlock.check``), which pins every byte that is not a witness.
"""

import hashlib
import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import cast

from leyden.bitcoin.block import HEADER_LENGTH, merkle_root
from leyden.bitcoin.encoding import read_varint
from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.transaction import Transaction, read_transaction
from leyden.types import Txid

_LONG = 0xFD
"""From here on a length takes more than one byte."""
_LONG_LENGTHS = {0xFD: struct.Struct("<xH"), 0xFE: struct.Struct("<xI"), 0xFF: struct.Struct("<xQ")}


class ScannedBlock:
    """What ``scan_block`` found. Lists over the whole block go in its order; they are not to be changed.

    ``scripts``: of every output. ``spent``: the outpoint of every input, 36 bytes as serialised. ``witnesses``: of
    every input that has one, the number of items and the last item. The parallel lists of ``*_ends`` say how many of
    them there are up to the end of each transaction.
    """

    __slots__ = (
        "_starts",
        "raw",
        "script_ends",
        "scripts",
        "spent",
        "spent_ends",
        "txids",
        "witness_ends",
        "witnesses",
    )

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.txids: list[Txid] = []
        self.scripts: list[bytes] = []
        self.spent: list[bytes] = []
        self.witnesses: list[tuple[int, bytes]] = []
        self.script_ends: list[int] = []
        self.spent_ends: list[int] = []
        self.witness_ends: list[int] = []
        self._starts: list[int] = []

    @property
    def header(self) -> bytes:
        return self.raw[:HEADER_LENGTH]

    def __len__(self) -> int:
        return len(self.txids)

    def transaction(self, position: int) -> Transaction:
        """Parsed; ``BitcoinError`` if its form is wrong, ``IndexError`` if there is no such one."""
        return read_transaction(self.raw, self._starts[position])[0]

    def transactions(self) -> tuple[Transaction, ...]:
        """All of them, parsed."""
        return tuple(self.transaction(position) for position in range(len(self)))

    def check(self) -> None:
        """``BitcoinError`` unless these are the transactions that the header commits to, each once."""
        if not self.txids or len(set(self.txids)) != len(self.txids):
            raise BitcoinError("the block has no transactions or repeats one")
        if merkle_root(self.txids) != self.raw[36:68]:
            raise BitcoinError("the transactions are not those that the header commits to")


def scan_block(raw: bytes) -> ScannedBlock:
    """Look through the block that ``raw`` is, from its first byte to its last; ``BitcoinError`` for anything else.

    Cheaper than ``parse_block`` by several times. It does not look inside scripts, nor at amounts.
    """
    try:
        return _scan(raw)
    except (IndexError, struct.error):
        raise BitcoinError("unexpected end of data") from None


def _scan(raw: bytes) -> ScannedBlock:
    block = ScannedBlock(raw)
    count, at = read_varint(raw, HEADER_LENGTH)
    if count > len(raw):
        raise BitcoinError("unexpected end of data")
    # Calls cost more than the work here, so this one function does it all with local names.
    sha256 = hashlib.sha256
    scripts, spent, witnesses, starts = block.scripts, block.spent, block.witnesses, block._starts
    script_ends, spent_ends, witness_ends = block.script_ends, block.spent_ends, block.witness_ends
    txids = cast(list[bytes], block.txids)
    for _ in range(count):
        start = at
        starts.append(at)
        body = at + 4
        segwit = raw[body] == 0
        if segwit:
            if raw[body + 1] != 1:
                raise BitcoinError("no inputs, or an unknown extension of the transaction format")
            body += 2
        inputs, at = raw[body], body + 1
        if inputs >= _LONG:
            inputs, at = _long(raw, body)
        for _ in range(inputs):
            spent.append(raw[at : at + 36])
            at += 36
            length = raw[at]
            if length >= _LONG:
                length, at = _long(raw, at)
                at += length + 4
            else:
                at += length + 5
        outputs, at = raw[at], at + 1
        if outputs >= _LONG:
            outputs, at = _long(raw, at - 1)
        for _ in range(outputs):
            at += 9
            length = raw[at - 1]
            if length >= _LONG:
                length, at = _long(raw, at - 1)
            end = at + length
            scripts.append(raw[at:end])
            at = end
        end = at
        if segwit:
            for _ in range(inputs):
                items, at, begin = raw[at], at + 1, at + 1
                if items >= _LONG:
                    items, at = _long(raw, at - 1)
                for _ in range(items):
                    begin = at + 1
                    length = raw[at]
                    if length >= _LONG:
                        length, begin = _long(raw, at)
                    at = begin + length
                if items:
                    witnesses.append((items, raw[begin:at]))
            found = sha256(sha256(raw[start : start + 4] + raw[body:end] + raw[at : at + 4]).digest()).digest()
        else:
            found = sha256(sha256(raw[start : at + 4]).digest()).digest()
        txids.append(found)
        at += 4
        script_ends.append(len(scripts))
        spent_ends.append(len(spent))
        witness_ends.append(len(witnesses))
    if at != len(raw):
        raise BitcoinError("the block ends before or behind its last transaction")
    return block


def _long(raw: bytes, at: int) -> tuple[int, int]:
    """A length of three, five or nine bytes."""
    packed = _LONG_LENGTHS[raw[at]]
    value: int = packed.unpack_from(raw, at)[0]
    if value > len(raw):
        raise BitcoinError("unexpected end of data")
    return value, at + packed.size


def positions(hits: Iterable[int], ends: Sequence[int]) -> set[int]:
    """Which transactions the places ``hits`` of a list of ``ScannedBlock`` belong to; ``ends`` is its ``*_ends``."""
    return {bisect_right(ends, hit) for hit in hits}
