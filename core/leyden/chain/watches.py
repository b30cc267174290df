"""What to look for in blocks: scripts that are paid or spent, outputs that are spent."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from leyden.bitcoin import Transaction, TxIn, p2wpkh, p2wsh
from leyden.hooks.types import BlockTransaction, Watch
from leyden.types import OutPoint

_PUBKEY_SIZE = 33


class WatchSet(msgspec.Struct, frozen=True, kw_only=True):
    """Counted, so that two users may watch the same thing and one may stop. Never stored: the shell registers every
    watch again at start."""

    scripts: Mapping[bytes, int] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    outpoints: Mapping[OutPoint, int] = msgspec.field(default_factory=lambda: MappingProxyType({}))

    def adding(self, watches: Iterable[Watch]) -> "WatchSet":
        return self._counting(watches, 1)

    def removing(self, watches: Iterable[Watch]) -> "WatchSet":
        """Without one count each of ``watches``; what is not watched is ignored."""
        return self._counting(watches, -1)

    def _counting(self, watches: Iterable[Watch], step: int) -> "WatchSet":
        scripts, outpoints = dict(self.scripts), dict(self.outpoints)
        for watch in watches:
            _count(scripts, watch.script, step)
            if watch.outpoint is not None:
                _count(outpoints, watch.outpoint, step)
        return WatchSet(scripts=scripts, outpoints=outpoints)

    def matches(self, tx: Transaction) -> bool:
        """Whether ``tx`` pays or spends something watched.

        A spent script is recognised from the witness (P2WPKH: the key; P2WSH: the script), so that coins received
        before the last start are seen to leave although only their script is watched.
        """
        if any(output.script in self.scripts for output in tx.outputs):
            return True
        return any(txin.prevout in self.outpoints or spent_script(txin) in self.scripts for txin in tx.inputs)

    def matching(self, transactions: Iterable[BlockTransaction]) -> tuple[BlockTransaction, ...]:
        return tuple(found for found in transactions if self.matches(found.tx))


def _count(table: dict[bytes, int] | dict[OutPoint, int], key: bytes | OutPoint, step: int) -> None:
    counts: dict[object, int] = table  # type: ignore[assignment]
    left = counts.get(key, 0) + step
    if left > 0:
        counts[key] = left
    else:
        counts.pop(key, None)


def spent_script(txin: TxIn) -> bytes | None:
    """The version 0 script that an input spends, as far as its witness shows it."""
    if not txin.witness:
        return None
    last = txin.witness[-1]
    if len(txin.witness) == 2 and len(last) == _PUBKEY_SIZE:
        return p2wpkh(last)
    return p2wsh(last)
