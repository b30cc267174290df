"""Append-only event log: global index, stable id, a durable cursor per consumer, at least once."""

from leyden.hooks.services import Store
from leyden.hooks.types import STANDING_ALARMS, Alarm, AlarmCleared, AnyEvent, LoggedEvent
from leyden.node import keyspace
from leyden.node.journal import Journal
from leyden.node.rows import CURSOR, EVENT, EVENT_COUNT

_ALARM = keyspace.CURSOR + b"alarm:"
"""A cursor of the log itself, one for each subject that stands: where its newest alarm is."""


def encode_event(time: int, event: AnyEvent) -> bytes:
    return EVENT.encode((time, event))


def decode_event(index: int, row: bytes) -> LoggedEvent:
    """``RecordError`` for a row of a newer program or a damaged one."""
    time, event = EVENT.decode(row)
    return LoggedEvent(index=index, time=time, event=event)


class EventLog:
    """Writes events with the turn that caused them and reads them back by cursor. Memory holds which alarms stand."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal
        self._last = 0
        self._committed = 0
        self._standing: dict[str, str] = {}
        self._standing_committed: dict[str, str] = {}

    @property
    def last_index(self) -> int:
        """Index of the newest durable event; 0 when there is none."""
        return self._committed

    async def load(self) -> None:
        row = await self._store.get(keyspace.EVENT_COUNT)
        self._last = self._committed = EVENT_COUNT.decode(row) if row is not None else 0
        self._standing = {}
        for key, value in await self._store.scan(_ALARM):
            row = await self._store.get(keyspace.event_key(CURSOR.decode(value)))
            event = None if row is None else decode_event(0, row).event
            self._standing[key[len(_ALARM) :].decode()] = event.text if isinstance(event, Alarm) else ""
        self._standing_committed = dict(self._standing)

    def standing(self, subject: str) -> str | None:
        """What the newest alarm with this subject told, if it stands; else ``None``. Restarts change nothing."""
        return self._standing.get(subject)

    def append(self, time: int, event: AnyEvent) -> int:
        self._last += 1
        self._journal.put(keyspace.event_key(self._last), encode_event(time, event))
        self._journal.put(keyspace.EVENT_COUNT, EVENT_COUNT.encode(self._last))
        match event:
            case Alarm(subject=subject, text=text) if subject in STANDING_ALARMS:
                self._standing[subject] = text
                self._journal.put(_ALARM + subject.encode(), CURSOR.encode(self._last))
            case AlarmCleared(subject=subject) if subject in self._standing:
                del self._standing[subject]
                self._journal.delete(_ALARM + subject.encode())
            case _:
                pass
        return self._last

    def commit(self) -> bool:
        """Whether this turn published anything."""
        grown = self._last != self._committed
        self._committed = self._last
        if grown:
            self._standing_committed = dict(self._standing)
        return grown

    def rollback(self) -> None:
        self._last = self._committed
        self._standing = dict(self._standing_committed)

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
