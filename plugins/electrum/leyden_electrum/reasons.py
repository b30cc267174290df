"""The words with which bitcoind refuses a transaction, as servers hand them on."""

from collections.abc import Sequence

from leyden.hooks.types import BroadcastRefusal, BroadcastResult
from leyden.types import clean_text

MAX_REASON = 200
KNOWN = (
    "already in block chain",
    "already in utxo set",
    "already in mempool",
    "txn-already-in-mempool",
    "txn-already-known",
    "txn-same-nonwitness-data-in-mempool",
)
_WORDS: Sequence[tuple[BroadcastRefusal, Sequence[str]]] = (
    (
        BroadcastRefusal.LOW_FEE,
        ("min relay fee not met", "mempool min fee not met", "insufficient fee", "min fee not met", "mempool full"),
    ),
    (BroadcastRefusal.CONFLICT, ("txn-mempool-conflict", "bip125-replacement-disallowed", "replacement-")),
    (BroadcastRefusal.MISSING_INPUTS, ("missingorspent", "missing inputs", "missing-inputs", "inputs-spent")),
    (BroadcastRefusal.TOO_EARLY, ("non-final", "non-bip68-final", "premature-spend-of-coinbase")),
    (
        BroadcastRefusal.INVALID,
        ("bad-txns", "bad-witness", "script-verify-flag", "scriptpubkey", "scriptsig", "dust", "tx-size", "decode"),
    ),
)


def is_known(words: str) -> bool:
    """Whether this refusal says that the transaction is in the mempool or the chain already."""
    lower = words.lower()
    return any(known in lower for known in KNOWN)


def refused(words: str) -> BroadcastResult:
    """Servers add the whole transaction in brackets and a phrase of their own; what is left is bitcoind's reason."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith("[")] or ["it does not say why"]
    lower = words.lower()
    kind = next((refusal for refusal, marks in _WORDS if any(mark in lower for mark in marks)), BroadcastRefusal.OTHER)
    return BroadcastResult(accepted=False, reason=clean_text(kept[-1], MAX_REASON), refusal=kind)
