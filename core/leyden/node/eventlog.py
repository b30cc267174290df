"""Append-only event log: global index, stable id, a durable cursor per consumer, at least once."""

from leyden.hooks.services import Store
from leyden.hooks.types import AnyEvent, LoggedEvent
from leyden.node import keyspace
from leyden.node.journal import Journal
from leyden.node.rows import CURSOR, EVENT, EVENT_COUNT


def encode_event(time: int, event: AnyEvent) -> bytes:
    return EVENT.encode((time, event))


def decode_event(index: int, row: bytes) -> LoggedEvent:
    """``RecordError`` for a row of a newer program or a damaged one."""
    time, event = EVENT.decode(row)
    return LoggedEvent(index=index, time=time, event=event)


class EventLog:
    """Writes events with the turn that caused them and reads them back by cursor. Nothing is kept in memory."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._last = 0
        self._committed = 0

    @property
    def last_index(self) -> int:
        """Index of the newest durable event; 0 when there is none."""
        return self._committed

    async def load(self) -> None:
        row = await self._store.get(keyspace.EVENT_COUNT)
        self._last = self._committed = EVENT_COUNT.decode(row) if row is not None else 0

    def append(self, time: int, event: AnyEvent) -> int:
        self._last += 1
        self._journal.put(keyspace.event_key(self._last), encode_event(time, event))
        self._journal.put(keyspace.EVENT_COUNT, EVENT_COUNT.encode(self._last))
        return self._last

    def commit(self) -> bool:
        """Whether this turn published anything."""
        grown = self._last != self._committed
        self._committed = self._last
        return grown

    def rollback(self) -> None:
        self._last = self._committed

    async def read(self, after: int, limit: int = 100) -> list[LoggedEvent]:
        """At most ``limit`` events with an index above ``after``, oldest first."""
        rows = await self._store.scan(keyspace.EVENT, after=keyspace.event_key(after), limit=limit)
        return [decode_event(int.from_bytes(key[1:], "big"), row) for key, row in rows]

    async def cursor(self, consumer: str) -> int:
        row = await self._store.get(keyspace.CURSOR + consumer.encode())
        return CURSOR.decode(row) if row is not None else 0

    def set_cursor(self, consumer: str, index: int) -> None:
        """Durable with the next commit: events up to ``index`` were handled by ``consumer``."""
        self._journal.put(keyspace.CURSOR + consumer.encode(), CURSOR.encode(index))
