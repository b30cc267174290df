"""Scripts of ours: handed out, and derived ahead so that a payment to the next ones is noticed too."""

from collections.abc import Coroutine
from typing import Any

from leyden.bitcoin import is_p2tr, p2wpkh, taproot_output_script
from leyden.hooks.services import Destinations, NoDestination
from leyden.hooks.types import Destination, DestinationPurpose
from leyden.types import RecordError

from leyden_wallet.errors import WalletError
from leyden_wallet.rows import DESTINATION, PURPOSES, Changes, StoredDestination, encode_row

LOOK_AHEAD = 20
"""Scripts per purpose that are watched beyond the last one handed out (the usual gap limit)."""


class DestinationBook:
    """Indexes count up from 0 for each purpose and are never handed out twice."""

    def __init__(self, source: Destinations) -> None:
        self._source = source
        self._known: dict[DestinationPurpose, list[Destination]] = {purpose: [] for purpose in PURPOSES}
        self._handed_out = dict.fromkeys(PURPOSES, 0)
        self._by_script: dict[bytes, Destination] = {}
        self._spendable: set[bytes] = set()
        self._without: dict[DestinationPurpose, str] = {}
        """Purposes that the keys do not serve, and what they say about it."""

    def __contains__(self, script: bytes) -> bool:
        return script in self._by_script

    def get(self, script: bytes) -> Destination | None:
        """Where ``script`` comes from, or ``None`` if it is not ours."""
        return self._by_script.get(script)

    def can_spend(self, script: bytes) -> bool:
        """Ours, and of a kind that the wallet counts and spends: P2WPKH, or taproot with our key alone (BIP 86)."""
        return script in self._spendable

    def scripts(self) -> tuple[bytes, ...]:
        return tuple(self._by_script)

    def load(self, purpose: DestinationPurpose, index: int, stored: StoredDestination) -> None:
        """A row of an earlier run; rows come in key order, so indexes come without gaps."""
        if index != len(self._known[purpose]):
            raise RecordError("WALLET", f"{purpose.value} script {len(self._known[purpose])} is missing")
        destination = Destination(
            script=stored.script,
            purpose=purpose,
            index=index,
            path=stored.path,
            pubkey=stored.pubkey or b"",
            fingerprint=stored.fingerprint or b"",
        )
        self._add(destination)
        self._handed_out[purpose] = index + 1

    async def complete(self) -> None:
        """Ask again for keys that rows of the first kind do not have."""
        for purpose, known in self._known.items():
            for index, destination in enumerate(known):
                if not destination.pubkey:
                    known[index] = await self._source.destination(purpose, index)
                    self._register(known[index])

    async def top_up(self) -> None:
        for purpose in PURPOSES:
            try:
                await self._top_up(purpose)
            except NoDestination as error:
                self._without[purpose] = str(error)

    async def _top_up(self, purpose: DestinationPurpose) -> None:
        known = self._known[purpose]
        while len(known) < self._handed_out[purpose] + LOOK_AHEAD:
            destination = await self._source.destination(purpose, len(known))
            if destination.index == len(known):  # somebody may have derived it while the device was thinking
                self._add(destination)

    def next(self, purpose: DestinationPurpose, changes: Changes) -> Destination:
        """Hand out the next script. ``WalletError`` when none was derived ahead and the device takes its time."""
        self.peek(purpose)
        index = self._handed_out[purpose]
        self._hand_out(purpose, index, changes)
        return self._known[purpose][index]

    def peek(self, purpose: DestinationPurpose) -> bytes:
        """The script that ``next`` will hand out; errors as there."""
        if purpose in self._without:
            raise WalletError(f"no {purpose.value} scripts: {self._without[purpose]}")
        index = self._handed_out[purpose]
        if index == len(self._known[purpose]):
            self._add(self._at_once(purpose, index))
        return self._known[purpose][index].script

    def mark_used(self, script: bytes, changes: Changes) -> None:
        """The chain pays ``script``: nothing up to it is handed out again, and the look-ahead moves on behind it."""
        used = self._by_script[script]
        if used.index < self._handed_out[used.purpose]:
            return
        for index in range(self._handed_out[used.purpose], used.index + 1):
            self._hand_out(used.purpose, index, changes)
        try:
            while len(self._known[used.purpose]) < used.index + 1 + LOOK_AHEAD:
                self._add(self._at_once(used.purpose, len(self._known[used.purpose])))
        except WalletError:
            return  # the device takes its time: ``top_up`` asks it again

    def take_back(self, script: bytes, changes: Changes) -> None:
        """Nothing ever paid ``script``: if it was the last one of its purpose to be handed out, it is the next again.

        Scripts that went nowhere would else be a gap behind which a restored seed does not look.
        """
        unused = self._by_script.get(script)
        if unused is not None and unused.index + 1 == self._handed_out[unused.purpose]:
            changes.delete(_key(unused.purpose, unused.index))
            self._handed_out[unused.purpose] = unused.index

    def _hand_out(self, purpose: DestinationPurpose, index: int, changes: Changes) -> None:
        destination = self._known[purpose][index]
        stored = StoredDestination(
            script=destination.script,
            path=destination.path,
            pubkey=destination.pubkey,
            fingerprint=destination.fingerprint,
        )
        changes.put(_key(purpose, index), encode_row(stored))
        self._handed_out[purpose] = index + 1

    def _add(self, destination: Destination) -> None:
        self._known[destination.purpose].append(destination)
        self._register(destination)

    def _register(self, destination: Destination) -> None:
        self._by_script[destination.script] = destination
        if destination.pubkey and _script_of(destination) == destination.script:
            self._spendable.add(destination.script)

    def _at_once(self, purpose: DestinationPurpose, index: int) -> Destination:
        """The answer of a provider that never suspends (keys in memory)."""
        question: Coroutine[Any, Any, Destination] = self._source.destination(purpose, index)
        try:
            question.send(None)
        except StopIteration as answer:
            destination: Destination = answer.value
            return destination
        question.close()
        raise WalletError(f"no {purpose.value} script was derived ahead: wait for the device that owns the keys")


def _key(purpose: DestinationPurpose, index: int) -> bytes:
    return DESTINATION + bytes((PURPOSES.index(purpose),)) + index.to_bytes(4, "big")


def _script_of(destination: Destination) -> bytes:
    """The script that our key alone can spend, of the same kind as the one given."""
    if is_p2tr(destination.script):
        return taproot_output_script(destination.pubkey[1:])
    return p2wpkh(destination.pubkey)
