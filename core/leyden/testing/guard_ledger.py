"""What a guarding signer remembers: which states of a channel were signed, validated, released and broadcast."""

import msgspec

from leyden.crypto import ShachainStore
from leyden.hooks.signing import ChannelSetup, CommitmentView
from leyden.testing.memory_store import CommitMoment, MemoryStore
from leyden.types import KeysId, OutPoint


class GuardViolation(BaseException):
    """The node asked its signer for something unsafe.

    No ``Exception``, so that nothing swallows it on the way; where something does, ``take_violations`` still has it.
    """


_VIOLATIONS: list[GuardViolation] = []


def record_violation(message: str) -> GuardViolation:
    violation = GuardViolation(message)
    _VIOLATIONS.append(violation)
    return violation


def take_violations() -> list[GuardViolation]:
    """The violations since the last call; a test that provokes one on purpose takes it before it ends."""
    taken = _VIOLATIONS[:]
    _VIOLATIONS.clear()
    return taken


class ChannelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The past of one channel. Numbers are -1 before the first."""

    funding_outpoint: OutPoint
    facts: tuple[object, ...]
    signed: CommitmentView | None = None
    """The newest counterparty commitment that was asked for."""
    signed_before: CommitmentView | None = None
    revoked: int = -1
    """The newest counterparty commitment whose secret was accepted."""
    secrets: ShachainStore = ShachainStore()
    validated: CommitmentView | None = None
    validated_before: CommitmentView | None = None
    released: int = -1
    broadcast: int | None = None
    """The lowest holder commitment signed for broadcast."""
    closing: bool = False

    @property
    def signed_number(self) -> int:
        return -1 if self.signed is None else self.signed.number

    @property
    def validated_number(self) -> int:
        return -1 if self.validated is None else self.validated.number


def facts_of(setup: ChannelSetup) -> tuple[object, ...]:
    """What of a setup can never change while the funding lives."""
    return (
        setup.anchors,
        setup.local_is_funder,
        setup.funding_outpoint,
        setup.funding_satoshis,
        setup.local_to_self_delay,
        setup.remote_to_self_delay,
        setup.local_dust_limit,
        setup.remote_dust_limit,
        setup.local_keys,
        setup.remote_keys,
    )


class GuardLedger:
    """The records of all channels of one signer; give the same ledger to the guard of the restarted node.

    A stateless signer is asked before the turn's commit, and what was asked in a turn that never became durable has
    never left the node. With ``follow`` the ledger forgets such requests when the commit fails, and ``durable_image``
    is the ledger of a node restarted from ``MemoryStore.synced_image``.
    """

    def __init__(self, records: dict[KeysId, ChannelRecord] | None = None) -> None:
        self.records: dict[KeysId, ChannelRecord] = dict(records or {})
        self._durable: dict[KeysId, ChannelRecord] | None = None

    def follow(self, store: MemoryStore) -> None:
        """Tie the ledger to the commits of ``store``."""
        self._durable = dict(self.records)
        store.hooks.append(self._on_commit)

    def durable_image(self) -> "GuardLedger":
        """The ledger as of the last commit (as of now, if it follows no store)."""
        return GuardLedger(self.records if self._durable is None else self._durable)

    def _on_commit(self, moment: CommitMoment, number: int) -> None:
        if moment is CommitMoment.AFTER:
            self._durable = dict(self.records)
        elif moment is CommitMoment.FAILED and self._durable is not None:
            self.records = dict(self._durable)
