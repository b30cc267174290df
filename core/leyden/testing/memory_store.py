"""``MemoryStore``: a ``Store`` for tests that shows what would be on disk and fails on command."""

import bisect
import enum
from collections.abc import Callable
from pathlib import Path

from leyden.bitcoin import Network
from leyden.hooks.services import StoreError, StoreFenced, StoreRefused
from leyden.hooks.types import Deletes, Puts


class MemoryDisk:
    """What survives a crash. Several stores may share one disk; the newest epoch wins."""

    def __init__(self, rows: dict[bytes, bytes] | None = None, epoch: int = 0, network: Network | None = None) -> None:
        self.rows = dict(rows or {})
        self.epoch = epoch
        self.network = network

    def copy(self) -> "MemoryDisk":
        return MemoryDisk(self.rows, self.epoch, self.network)


class CommitMoment(enum.Enum):
    """The sides of a commit at which a crash test may strike."""

    BEFORE = "before"
    """Nothing of the batch is durable."""
    AFTER = "after"
    """All of it is, but the node does not know yet."""
    FAILED = "failed"
    """Nothing of it is, and the node is about to be told so."""


CommitHook = Callable[[CommitMoment, int], None]


class MemoryStore:
    """``Store`` on a ``MemoryDisk``.

    Every entry of ``hooks`` is called with the moment and the number of the commit (from 1): it may take
    ``synced_image()`` or raise, which then comes out of ``commit``. ``fail_next`` makes commits fail.
    """

    inline = True
    """No method ever suspends."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        self.disk = disk if disk is not None else MemoryDisk()
        self.identity_changed = False
        self.commits = 0
        self.failing = False
        """The present (or last) commit is one that ``fail_next`` lets fail; hooks may look."""
        self.hooks: list[CommitHook] = []
        self._failures: list[tuple[StoreError, bool]] = []
        self._epoch: int | None = None
        self._open = False
        self._broken = False

    def synced_image(self) -> MemoryDisk:
        """A copy of everything durable now: start another ``MemoryStore`` on it to play the restart."""
        return self.disk.copy()

    def fail_next(self, count: int = 1, *, durable: bool = False, error: StoreError | None = None) -> None:
        """Let the next ``count`` commits fail; with ``durable`` the batch reaches the disk all the same."""
        for _ in range(count):
            self._failures.append((error or StoreError("disk failure asked for by the test"), durable))

    async def open(self, network: Network) -> int:
        if self.disk.network not in (None, network):
            raise StoreRefused(f"the store belongs to {self.disk.network}, this node runs on {network}")
        self.disk.network = network
        self.disk.epoch += 1
        self._epoch = self.disk.epoch
        self._open, self._broken = True, False
        return self._epoch

    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        self._check_open()
        if self._broken:
            raise StoreError("the last commit failed, reopen the store first")
        for key, value in puts:
            if not value:
                raise StoreError(f"row {key.hex()} would be empty: delete it instead")
        if epoch != self.disk.epoch:
            raise StoreFenced(f"the store was taken over (epoch {self.disk.epoch}, ours is {epoch})")
        self.commits += 1
        self.failing = bool(self._failures)
        self._call_hooks(CommitMoment.BEFORE)
        if self._failures:
            error, durable = self._failures.pop(0)
            self._broken = True
            if durable:
                self._apply(puts, deletes)
            self._call_hooks(CommitMoment.AFTER if durable else CommitMoment.FAILED)
            raise error
        self._apply(puts, deletes)
        self._call_hooks(CommitMoment.AFTER)

    async def get(self, key: bytes) -> bytes | None:
        self._check_open()
        return self.disk.rows.get(key)

    async def scan(self, prefix: bytes, after: bytes = b"", limit: int = 0) -> list[tuple[bytes, bytes]]:
        self._check_open()
        rows = self.disk.rows
        keys = sorted(rows)
        start = max(bisect.bisect_left(keys, prefix), bisect.bisect_right(keys, after))
        found: list[tuple[bytes, bytes]] = []
        for key in keys[start:]:
            if not key.startswith(prefix) or (limit and len(found) == limit):
                break
            found.append((key, rows[key]))
        return found

    async def reopen(self) -> None:
        if self._epoch is None:
            raise StoreError("the store was never opened")
        if self._epoch != self.disk.epoch:
            raise StoreFenced(f"the store was taken over (epoch {self.disk.epoch}, ours is {self._epoch})")
        self._open, self._broken = True, False

    async def close(self) -> None:
        self._open = False

    async def accept_identity(self) -> None:
        self.identity_changed = False

    async def check(self) -> tuple[str, ...]:
        self._check_open()
        return ()

    def _apply(self, puts: Puts, deletes: Deletes) -> None:
        self.disk.rows.update(puts)
        for key in deletes:
            self.disk.rows.pop(key, None)

    def _call_hooks(self, moment: CommitMoment) -> None:
        for hook in tuple(self.hooks):
            hook(moment, self.commits)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError("the store is not open")


_DISKS: dict[Path, MemoryDisk] = {}


def memory_store_at(folder: Path) -> MemoryStore:
    """A store on the disk that this process keeps for ``folder``: the factory of the conformance suite."""
    return MemoryStore(_DISKS.setdefault(folder, MemoryDisk()))
