"""Verdicts of libbitcoinkernel on transactions: an independent judge of everything that Leyden signs.

``verify_transaction`` runs every input through the consensus script interpreter with all flags. ``VerdictCollector``
hooks into ``leyden.bitcoin.finalize_hooks`` and gathers each finalised transaction; the pytest plugin asks for its
verdicts after each test. The kernel comes with ``py-bitcoinkernel`` (a dependency of ``leyden-regtest``); without it
every function here raises ``KernelMissing`` rather than passing silently.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from leyden.bitcoin import Transaction, TxOut
from leyden.types import LeydenError


class KernelMissing(LeydenError):
    """The package ``py-bitcoinkernel`` is not installed."""


def _load_kernel() -> Any:
    try:
        import pbk
        import pbk.script
    except ImportError as error:
        raise KernelMissing(
            "transactions cannot be judged: py-bitcoinkernel is missing (pip install leyden-regtest)"
        ) from error
    return pbk


def first_failing_input(tx: Transaction, prevouts: Sequence[TxOut]) -> int | None:
    """Index of the first input whose script or witness the kernel refuses; ``None`` if all pass.

    ``prevouts`` lists the spent output of each input in order, values in satoshi. Raises ``LeydenError`` if their
    number differs from that of the inputs or if the kernel cannot parse the transaction.
    """
    pbk = _load_kernel()
    if len(prevouts) != len(tx.inputs):
        raise LeydenError(f"{len(tx.inputs)} inputs but {len(prevouts)} spent outputs")
    try:
        judged = pbk.Transaction(tx.serialize())
    except RuntimeError as error:
        raise LeydenError("the kernel cannot parse this transaction") from error
    scripts = [pbk.ScriptPubkey(out.script) for out in prevouts]
    spent = [pbk.TransactionOutput(script, out.value) for script, out in zip(scripts, prevouts, strict=True)]
    data = pbk.script.PrecomputedTransactionData(judged, spent)
    flags = pbk.ScriptVerificationFlags.ALL
    for index, (script, out) in enumerate(zip(scripts, prevouts, strict=True)):
        if not script.verify(out.value, judged, data, index, flags):
            return index
    return None


def verify_transaction(tx: Transaction, prevouts: Sequence[TxOut]) -> bool:
    """Whether every input of ``tx`` validly spends its entry of ``prevouts`` (scripts and signatures only).

    Invariant: true exactly if consensus would accept all scripts with every soft fork active. Locktimes that compare
    with the chain, coinbase maturity and amounts are not looked at. Errors as in ``first_failing_input``.
    """
    return first_failing_input(tx, prevouts) is None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A finalised transaction that the kernel refuses: its first bad input and the raw bytes to look at."""

    txid: bytes
    input: int
    raw: bytes

    def __str__(self) -> str:
        return f"transaction {self.txid[::-1].hex()} input {self.input} is refused by the kernel: {self.raw.hex()}"


class VerdictCollector:
    """Gathers finalised transactions and judges them on request. Not thread-safe: tests run in one thread."""

    def __init__(self) -> None:
        self._pending: dict[tuple[bytes, tuple[TxOut, ...]], Transaction] = {}
        self.judged = 0
        self.refused = 0

    def collect(self, tx: Transaction, prevouts: tuple[TxOut, ...]) -> None:
        """The hook: called by ``leyden.bitcoin.finalize_transaction``. The same transaction counts once per test."""
        self._pending[(tx.wtxid, tuple(prevouts))] = tx

    def discard(self) -> int:
        """Forget what was gathered (a test that means to make invalid transactions); how many these were."""
        count = len(self._pending)
        self._pending.clear()
        return count

    def judge(self) -> list[Refused]:
        """Judge and forget everything gathered; the refused ones. ``KernelMissing`` if there is no kernel."""
        pending, self._pending = self._pending, {}
        refused = []
        for (_, prevouts), tx in pending.items():
            bad = first_failing_input(tx, prevouts)
            self.judged += 1
            if bad is not None:
                self.refused += 1
                refused.append(Refused(txid=tx.txid, input=bad, raw=tx.serialize()))
        return refused
