"""The turn loop: mail in, one atomic commit, then everything leaves.

One turn drains the mail, lets every actor that was touched finish (``TurnEnded`` until nothing moves), commits all
rows in one batch and only then flushes peers, hands transactions to broadcasters and answers callers. If the commit
fails, every post-state of the turn is dropped.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

import structlog

from leyden.hooks.services import Store, StoreError, StoreFenced
from leyden.node import keyspace
from leyden.node.host import Host
from leyden.node.journal import Journal
from leyden.types import LeydenError, RecordError

log = structlog.get_logger("leyden.engine")

T = TypeVar("T")
RETRY_SECONDS = 1.0
PROBE_BYTES = 65_536
"""A disk that is full still takes a byte; the node goes on only when there is room for some turns."""
MAX_ROUNDS = 10_000
"""Rounds of mail and turn endings in one turn; more is a loop that no input can explain."""


class StorageDegraded(LeydenError):
    """The store cannot commit: nothing is sent and nothing new is accepted until it can."""


class Participant(Protocol):
    """A part of the node with state of its own (channels, payments, transactions, wallet, chain, events)."""

    def end_turn(self) -> bool:
        """Finish what this turn began; True when that made new work for somebody."""
        ...

    def write(self, journal: Journal) -> None:
        """Hand over the rows that this turn changed."""
        ...

    def commit(self) -> None:
        """The rows are durable: let effects leave."""
        ...

    def rollback(self) -> None:
        """The commit failed: back to the state at the start of the turn; nothing of it leaves."""
        ...


class Engine:
    """Runs turns. Owns the journal, the mail and the order of things; knows nothing of Lightning."""

    def __init__(self, store: Store, host: Host, epoch: int) -> None:
        self.journal = Journal()
        self.degraded = ""
        self.fenced = False
        self.commits = 0
        self._store = store
        self._host = host
        self._epoch = epoch
        self._mail: deque[Callable[[], None]] = deque()
        self._participants: Sequence[Participant] = ()
        self._after: list[Callable[[], None]] = []
        self._failed_after: list[Callable[[BaseException], None]] = []
        self._busy = False
        self._retry_due = False
        self.on_degraded: Callable[[str], None] = lambda _text: None
        self.reload: Callable[[], Awaitable[None]] | None = None
        """Brings parts that keep no old state of their own (the wallet) back to what is on disk."""

    def set_participants(self, participants: Sequence[Participant]) -> None:
        """In the order in which they end a turn, write and commit."""
        self._participants = participants

    # -- mail ------------------------------------------------------------------------------------------------------

    def post(self, work: Callable[[], None]) -> None:
        """Do ``work`` in the next turn (or this one, if it is still draining)."""
        self._mail.append(work)
        self._host.wake()

    def after_commit(self, work: Callable[[], None], failed: Callable[[BaseException], None] | None = None) -> None:
        """Do ``work`` when this turn is durable, or ``failed`` when it is not."""
        self._after.append(work)
        if failed is not None:
            self._failed_after.append(failed)

    def request(
        self, work: Callable[[], T], done: Callable[[T], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Run ``work`` in a turn; ``done(value)`` once the turn is durable, ``failed`` if it raised or is not."""
        if self.degraded:
            failed(StorageDegraded(f"storage is degraded: {self.degraded}"))
            return

        def run() -> None:
            try:
                value = work()
            except Exception as error:  # the caller's own request failed: it gets the reason
                failed(error)
                return
            self.after_commit(lambda: done(value), failed)

        self.post(run)

    @property
    def has_mail(self) -> bool:
        return bool(self._mail)

    # -- turns -----------------------------------------------------------------------------------------------------

    async def turn(self) -> None:
        """One whole turn. Never raises for a failing store or a poisoned message; ``StoreFenced`` stops the node."""
        if self._busy or self.fenced:
            return
        self._busy = True
        try:
            if self.degraded and not await self._recovered():
                return
            self._work()
            for participant in self._participants:
                participant.write(self.journal)
            changes = self.journal.take()
            if changes.puts or changes.deletes:
                await self._commit(changes.puts, changes.deletes)
            self._release()
        except StoreError as error:
            self._drop(error)
            if isinstance(error, StoreFenced):
                self.fenced = True
                raise
            self._degrade(str(error))
        except Exception as error:  # a bug: nothing of the turn becomes durable or leaves, the node goes on
            log.exception("turn_failed")
            text = f"internal error: {type(error).__name__}"
            self._drop(LeydenError(text))
            self._degrade(text)  # the same rows may fail again at once: with a pause, and with an alarm
        finally:
            self._busy = False
        if self._mail:
            self._host.wake()

    def _work(self) -> None:
        rounds = 0
        while True:
            while self._mail:
                self._try("mail_failed", self._mail.popleft())
            moved = False
            for participant in self._participants:
                moved = participant.end_turn() or moved
            if not moved and not self._mail:
                return
            rounds += 1
            if rounds > MAX_ROUNDS:
                log.error("turn_does_not_settle", rounds=rounds)
                return

    async def _commit(self, puts: tuple[tuple[bytes, bytes], ...], deletes: tuple[bytes, ...]) -> None:
        await self._store.commit(puts, deletes, self._epoch)
        self.commits += 1

    def _release(self) -> None:
        """The turn is durable: nothing may undo it any more, so no failure in here reaches another part."""
        for participant in self._participants:
            self._try("commit_effects_failed", participant.commit)
        after, self._after = self._after, []
        self._failed_after = []
        for work in after:
            self._try("answer_failed", work)

    @staticmethod
    def _try(event: str, work: Callable[[], T]) -> T | None:
        """A bug or a poisoned message must cost neither the turn nor the node."""
        try:
            return work()
        except Exception:
            log.exception(event, work=repr(work))
            return None

    def _drop(self, error: LeydenError) -> None:
        log.error("turn_dropped", reason=str(error))
        self.journal.clear()
        for participant in self._participants:
            self._try("rollback_failed", participant.rollback)
        failed, self._failed_after = self._failed_after, []
        self._after = []
        refusal = StorageDegraded(f"storage is degraded: {error}")
        for callback in failed:
            self._try("answer_failed", partial(callback, refusal))

    def _degrade(self, reason: str) -> None:
        """Storage degraded: mail waits, callers are refused, and each second the store is tried afresh."""
        self.degraded = reason
        self.on_degraded(reason)
        self._pause()

    def _pause(self) -> None:
        self._retry_due = False
        self._host.call_later(RETRY_SECONDS, self._retry)

    def _retry(self) -> None:
        self._retry_due = True
        self._host.wake()

    async def _recovered(self) -> bool:
        if not self._retry_due:
            return False
        if not await self._recover():
            self._pause()
            return False
        return True

    async def _recover(self) -> bool:
        """A failed sync is never retried on the same handle: reopen, prove that a commit works, read back."""
        try:
            await self._store.reopen()
            await self._store.commit(((keyspace.PROBE, bytes(PROBE_BYTES)),), (), self._epoch)
            await self._store.commit(((keyspace.PROBE, b"\x01"),), (), self._epoch)
            if self.reload is not None:
                await self.reload()
        except StoreFenced:
            raise
        except (StoreError, RecordError) as error:
            log.warning("storage_still_degraded", reason=str(error))
            return False
        except Exception:  # what was read back makes no sense: the alarm stands until it does
            log.exception("storage_not_read_back")
            return False
        log.warning("storage_recovered")
        self.degraded = ""
        self.on_degraded("")
        return True
