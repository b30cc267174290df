"""The rows of one turn: every part of the node puts and deletes here, and one commit makes all of it durable."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from leyden.hooks.types import RecordChanges

K = TypeVar("K")
V = TypeVar("V")


class Journal:
    """Puts and deletes gathered during a turn; the last word on a key wins."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes | None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        self._rows[key] = value

    def delete(self, key: bytes) -> None:
        self._rows[key] = None

    def merge(self, changes: RecordChanges) -> None:
        for key, value in changes.puts:
            self._rows[key] = value
        for key in changes.deletes:
            self._rows[key] = None

    def take(self) -> RecordChanges:
        """Everything gathered so far; the journal is empty afterwards."""
        rows, self._rows = self._rows, {}
        return RecordChanges(
            puts=tuple((key, value) for key, value in rows.items() if value is not None),
            deletes=tuple(key for key, value in rows.items() if value is None),
        )

    def clear(self) -> None:
        self._rows.clear()

    def __bool__(self) -> bool:
        return bool(self._rows)


class Table(Generic[K, V]):
    """Live rows of one area in memory, with the rows of this turn remembered until ``commit`` or ``rollback``.

    Finished rows are forgotten with ``evict``: they stay on disk and no longer cost memory.
    """

    def __init__(
        self, area: bytes, key: Callable[[K], bytes], encode: Callable[[V], bytes], decode: Callable[[bytes], V]
    ) -> None:
        self._area = area
        self._key = key
        self._encode = encode
        self._decode = decode
        self._rows: dict[K, V] = {}
        self._before: dict[K, V | None] = {}
        self._written: dict[K, V | None] = {}

    def load(self, rows: Iterable[tuple[K, bytes]]) -> None:
        self._rows = {key: self._decode(value) for key, value in rows}
        self._before.clear()
        self._written.clear()

    def get(self, key: K) -> V | None:
        return self._rows.get(key)

    def __contains__(self, key: K) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[K]:
        return iter(list(self._rows))

    def values(self) -> list[V]:
        return list(self._rows.values())

    def items(self) -> list[tuple[K, V]]:
        return list(self._rows.items())

    def set(self, key: K, value: V) -> None:
        self._before.setdefault(key, self._rows.get(key))
        self._rows[key] = value
        self._written[key] = value

    def delete(self, key: K) -> None:
        self._before.setdefault(key, self._rows.get(key))
        self._rows.pop(key, None)
        self._written[key] = None

    def evict(self, key: K) -> None:
        """Forget in memory what is (or with this turn will be) on disk."""
        if key in self._rows:
            self._before.setdefault(key, self._rows[key])
            del self._rows[key]

    def write(self, journal: Journal) -> None:
        """Hand the rows of this turn to the journal."""
        for key, value in self._written.items():
            row = self._area + self._key(key)
            if value is None:
                journal.delete(row)
            else:
                journal.put(row, self._encode(value))

    def commit(self) -> None:
        self._before.clear()
        self._written.clear()

    def rollback(self) -> None:
        """Drop the post-state of a turn whose commit failed."""
        for key, value in self._before.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        self.commit()
