"""What the engine needs of its surroundings: a clock, entropy, timers and a place to await things.

The driver implements it on asyncio; ``leyden.testing.simulation`` implements it deterministically. The engine itself
is synchronous: everything that may take time is handed to ``spawn`` and comes back as mail in a later turn.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from leyden.types import LeydenError

T = TypeVar("T")


class TimerHandle(Protocol):
    def cancel(self) -> None: ...


class Host(Protocol):
    def wall_time(self) -> float:
        """Unix seconds."""
        ...

    def entropy(self, length: int) -> bytes:
        """Fresh secure random bytes."""
        ...

    def wake(self) -> None:
        """Mail has arrived: run a turn soon (many calls before the turn count as one)."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], None]) -> TimerHandle:
        """Monotonic timer; the callback only posts mail."""
        ...

    def spawn(
        self, work: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None], name: str
    ) -> None:
        """Await ``work`` elsewhere and call ``done(result, error)`` (which only posts mail)."""
        ...


class SuspendedInline(LeydenError):
    """A provider that declares itself inline suspended: it must not."""


def answers_inline(provider: object) -> bool:
    """Whether the coroutines of ``provider`` never suspend (``stateless`` signers, and whatever says ``inline``)."""
    return bool(getattr(provider, "inline", False) or getattr(provider, "stateless", False))


def run_inline(work: Coroutine[Any, Any, T]) -> T:
    """The answer of a coroutine that never suspends; ``SuspendedInline`` if it does."""
    try:
        work.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    work.close()
    raise SuspendedInline("a provider that declares itself inline suspended")


class Caller:
    """Calls awaitable services: inline ones inside the turn, all others through the host."""

    def __init__(self, host: Host, post: Callable[[Callable[[], None]], None]) -> None:
        self._host = host
        self._post = post

    def call(
        self,
        provider: object,
        work: Coroutine[Any, Any, T],
        done: Callable[[T | None, BaseException | None], None],
        name: str,
    ) -> None:
        """Run ``work`` of ``provider``; ``done`` runs at once for an inline provider, else as mail of a later turn.

        Errors that are no ``LeydenError`` are passed to ``done`` like any other: a plugin's fault is its own.
        """
        if not answers_inline(provider):
            self._host.spawn(work, lambda value, error: self._post(lambda: done(value, error)), name)
            return
        value: T | None
        error: Exception | None
        try:
            value, error = run_inline(work), None
        except Exception as caught:  # a plugin's fault comes back as an answer
            value, error = None, caught
        done(value, error)
