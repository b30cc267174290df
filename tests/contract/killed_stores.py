"""Stores that are wrong once their process is killed: the conformance suite opens them in its writer by their name."""

import os
from pathlib import Path

from leyden.bitcoin import Network
from leyden.hooks.types import Deletes, Puts
from leyden_sqlite import SqliteStore


class _OnDisk(SqliteStore):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "rows.sqlite")


class AcknowledgesTooEarly(_OnDisk):
    """All commits but the first reach the disk when two more have been acknowledged."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.waiting: list[tuple[Puts, Deletes]] | None = None

    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        if self.waiting is None:
            self.waiting = []
            await super().commit(puts, deletes, epoch)
            return
        self.waiting.append((puts, deletes))
        if len(self.waiting) > 2:
            await super().commit(*self.waiting.pop(0), epoch)


class TearsCommits(_OnDisk):
    """The first row of a commit comes with the next one."""

    waiting: Puts = ()

    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        before, self.waiting = self.waiting, puts[:1]
        await super().commit((*before, *puts[1:]), deletes, epoch)


class LosesARow(_OnDisk):
    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        await super().commit(puts[1:], deletes, epoch)


class NeverDeletes(_OnDisk):
    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        await super().commit(puts, (), epoch)


class WritesOnItsOwn(_OnDisk):
    """What nobody committed yet is there."""

    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        def ahead(text: bytes) -> bytes:
            return b"%020d" % (int(text) + 5)

        rows = tuple((key, ahead(value[:20]) + value[20:]) for key, value in puts if key[:1] == b"r")
        marker = b"d" + (int(puts[0][1][:20]) + 5).to_bytes(8, "big")
        await super().commit((*rows, (marker, b"x")), [key for key, _ in await self.scan(b"d")], epoch)


class GivesAnEpochOutAgain(_OnDisk):
    async def open(self, network: Network) -> int:
        await super().open(network)
        return 1

    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        await super().commit(puts, deletes, self._epoch)


class EndsItsProcess(_OnDisk):
    async def commit(self, puts: Puts, deletes: Deletes, epoch: int) -> None:
        os._exit(3)
