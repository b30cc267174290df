"""What to look for in blocks: scripts that are paid or spent, outputs that are spent."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from leyden.bitcoin import (
    PUBKEY_SIZE,
    ScannedBlock,
    Transaction,
    TxIn,
    p2wpkh,
    p2wsh,
    scan_block,
    serialize_outpoint,
)
from leyden.hooks.types import BlockTransaction, Watch
from leyden.types import OutPoint

K = TypeVar("K")


class _Log:
    """Watches in the order in which they were added, shared by every ``WatchSet`` that they were added to.

    Each key knows the versions (places in that order) at which it was added; a set of an older version does not see
    what came later. So adding one watch costs the same whether there are ten or ten thousand, and still no set changes.
    """

    __slots__ = ("outpoints", "scripts", "version")

    def __init__(self) -> None:
        self.version = 0
        self.scripts: dict[bytes, list[int]] = {}
        self.outpoints: dict[bytes, list[int]] = {}
        """By their 36 bytes in a transaction."""

    def add(self, watches: Iterable[Watch]) -> None:
        for watch in watches:
            self.version += 1
            self.scripts.setdefault(watch.script, []).append(self.version)
            if watch.outpoint is not None:
                self.outpoints.setdefault(serialize_outpoint(watch.outpoint), []).append(self.version)


class WatchSet:
    """Immutable, and counted: two users may watch the same thing and one may stop. Never stored: the shell registers
    every watch again at start."""

    __slots__ = ("_log", "_version")

    def __init__(self) -> None:
        self._log = _Log()
        self._version = 0

    def adding(self, watches: Iterable[Watch]) -> "WatchSet":
        """With one more count of each; its cost grows with ``watches`` alone, unless another set was made of this one
        before."""
        log = self._log if self._version == self._log.version else self._copy()
        log.add(watches)
        return _at(log)

    def removing(self, watches: Iterable[Watch]) -> "WatchSet":
        """Without one count each of ``watches``; what is not watched is ignored. Costs a copy."""
        log = self._copy()
        for watch in watches:
            _drop(log.scripts, watch.script)
            if watch.outpoint is not None:
                _drop(log.outpoints, serialize_outpoint(watch.outpoint))
        return _at(log)

    def _copy(self) -> _Log:
        log = _Log()
        log.version = self._version
        log.scripts = _known(self._log.scripts, self._version)
        log.outpoints = _known(self._log.outpoints, self._version)
        return log

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WatchSet):
            return NotImplemented
        if self._log is other._log and self._version == other._version:
            return True
        return self._counts() == other._counts()

    __hash__ = None  # type: ignore[assignment]  # equal by value and growing: no key

    def _counts(self) -> tuple[dict[bytes, int], dict[bytes, int]]:
        log = self._copy()
        scripts = {script: len(versions) for script, versions in log.scripts.items()}
        return scripts, {outpoint: len(versions) for outpoint, versions in log.outpoints.items()}

    def __bool__(self) -> bool:
        return self._version > 0 and bool(self._log.scripts)

    def has_script(self, script: bytes | None) -> bool:
        versions = self._log.scripts.get(script) if script is not None else None
        return versions is not None and versions[0] <= self._version

    def has_outpoint(self, outpoint: OutPoint) -> bool:
        versions = self._log.outpoints.get(serialize_outpoint(outpoint))
        return versions is not None and versions[0] <= self._version

    def matches(self, tx: Transaction) -> bool:
        """Whether ``tx`` pays or spends something watched.

        A spent script is recognised from the witness (P2WPKH: the key; P2WSH: the script), so that coins received
        before the last start are seen to leave although only their script is watched.
        """
        if any(self.has_script(output.script) for output in tx.outputs):
            return True
        return any(self.has_outpoint(txin.prevout) or self.has_script(spent_script(txin)) for txin in tx.inputs)

    def matching(self, transactions: Sequence[BlockTransaction]) -> tuple[BlockTransaction, ...]:
        if not self:
            return ()
        return tuple(found for found in transactions if self.matches(found.tx))

    def scan(self, raw: bytes) -> ScannedBlock:
        """The block that ``raw`` is, looked through for everything watched; ``BitcoinError`` as of ``scan_block``."""
        return scan_block(raw, self._log.scripts, self._log.outpoints)

    def matching_in(self, block: ScannedBlock) -> tuple[BlockTransaction, ...]:
        """As ``matching``, for what ``scan`` of this set found: what cannot match is never parsed."""
        found = (BlockTransaction(position=n, tx=block.transaction(n)) for n in sorted(set(block.hits)))
        return self.matching(tuple(found))


def _at(log: _Log) -> WatchSet:
    """The newest set of ``log``."""
    made = WatchSet.__new__(WatchSet)
    made._log, made._version = log, log.version
    return made


def _known(table: dict[K, list[int]], version: int) -> dict[K, list[int]]:
    """The entries that a set of this version sees."""
    return {
        key: versions[: bisect_right(versions, version)] for key, versions in table.items() if versions[0] <= version
    }


def _drop(table: dict[K, list[int]], key: K) -> None:
    versions = table.get(key)
    if versions is not None:
        versions.pop()
        if not versions:
            del table[key]


class BlockIndex:
    """A block by what its transactions pay and spend, so that a watch added because of it costs one look-up.

    Made when the first such watch comes; it belongs to the newest block only.
    """

    __slots__ = ("_outpoints", "_scripts", "_transaction")

    def __init__(self, block: Sequence[BlockTransaction] | bytes) -> None:
        self._scripts: dict[bytes, list[int]] = {}
        self._outpoints: dict[bytes, list[int]] = {}
        self._transaction: Callable[[int], BlockTransaction]
        if isinstance(block, bytes):
            self._take_in_raw(block)
        else:
            self._take_in(block)

    def _take_in(self, transactions: Sequence[BlockTransaction]) -> None:
        self._transaction = transactions.__getitem__
        for index, found in enumerate(transactions):
            for output in found.tx.outputs:
                self._scripts.setdefault(output.script, []).append(index)
            for txin in found.tx.inputs:
                self._outpoints.setdefault(serialize_outpoint(txin.prevout), []).append(index)
                script = spent_script(txin)
                if script is not None:
                    self._scripts.setdefault(script, []).append(index)

    def _take_in_raw(self, raw: bytes) -> None:
        asked: list[tuple[dict[bytes, list[int]], bytes]] = []
        block = scan_block(raw, _Everything(self._scripts, asked), _Everything(self._outpoints, asked))
        self._transaction = lambda n: BlockTransaction(position=n, tx=block.transaction(n))
        for (table, key), position in zip(asked, block.hits, strict=True):
            table.setdefault(key, []).append(position)

    def matching(self, watches: Iterable[Watch]) -> tuple[BlockTransaction, ...]:
        """Every transaction that one of ``watches`` looks for, in the order of the block."""
        found: set[int] = set()
        for watch in watches:
            found.update(self._scripts.get(watch.script, ()))
            if watch.outpoint is not None:
                found.update(self._outpoints.get(serialize_outpoint(watch.outpoint), ()))
        return tuple(self._transaction(index) for index in sorted(found))


class _Everything:
    """Looked for is all that a block has: each key that is asked for is a hit, and noted for its ``table``."""

    __slots__ = ("_asked", "_table")

    def __init__(self, table: dict[bytes, list[int]], asked: list[tuple[dict[bytes, list[int]], bytes]]) -> None:
        self._table = table
        self._asked = asked

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, bytes):
            return False
        self._asked.append((self._table, key))
        return True


def spent_script(txin: TxIn) -> bytes | None:
    """The version 0 script that an input spends, as far as its witness shows it."""
    if not txin.witness:
        return None
    last = txin.witness[-1]
    if len(txin.witness) == 2 and len(last) == PUBKEY_SIZE:
        return p2wpkh(last)
    return p2wsh(last)
