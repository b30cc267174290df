"""What a bitcoind means when it does not take a transaction: for every broadcaster that has one behind it."""

from leyden.hooks.types import BroadcastRefusal

_KNOWN = (
    "txn-already-in-mempool",
    "txn-already-known",
    "txn-same-nonwitness-data-in-mempool",
    "already in block chain",
    "already in utxo set",
)
_MEANINGS: tuple[tuple[BroadcastRefusal, tuple[str, ...]], ...] = (
    (BroadcastRefusal.MISSING_INPUTS, ("missingorspent", "missing-inputs", "missing inputs", "not-child-with-unconf")),
    (BroadcastRefusal.TOO_EARLY, ("non-final", "bip68-final", "premature-spend")),
    (
        BroadcastRefusal.LOW_FEE,
        ("relay fee not met", "min fee not met", "fee-not-met", "insufficient fee", "mempool full", "fee-too-low"),
    ),
    (
        BroadcastRefusal.CONFLICT,
        (
            "mempool-conflict",
            "bip125-replacement",
            "replacement-adds",
            "package rbf failed",
            "potential replacements",
            "spends-conflicting",
            "conflict-in-package",
        ),
    ),
    (
        BroadcastRefusal.INVALID,
        (
            *("bad-txns", "bad-witness", "script-verify", "scriptpubkey", "scriptsig", "coinbase", "decode"),
            *("dust", "tx-size", "datacarrier", "bare-multisig", "multi-op-return"),
        ),
    ),
)
"""Parts of its reasons, the first that is found counts."""


def is_known(reason: str) -> bool:
    """Whether it refuses because it, or the chain, has the transaction already."""
    lowered = reason.lower()
    return any(part in lowered for part in _KNOWN)


def refusal_of(reason: str) -> BroadcastRefusal:
    """Of what kind ``reason`` is; ``OTHER`` for words that are not known: nothing is called invalid by a guess."""
    lowered = reason.lower()
    return next(
        (refusal for refusal, parts in _MEANINGS if any(part in lowered for part in parts)), BroadcastRefusal.OTHER
    )
