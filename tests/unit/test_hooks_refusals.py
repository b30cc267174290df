"""The words of bitcoind, Bitcoin Core and Knots, and what they mean."""

import pytest
from leyden.hooks.refusals import is_known, refusal_of
from leyden.hooks.types import BroadcastRefusal


@pytest.mark.parametrize(
    ("reason", "refusal"),
    [
        ("bad-txns-inputs-missingorspent", BroadcastRefusal.MISSING_INPUTS),
        ("Missing inputs", BroadcastRefusal.MISSING_INPUTS),
        ("package-not-child-with-unconfirmed-parents", BroadcastRefusal.MISSING_INPUTS),
        ("non-final", BroadcastRefusal.TOO_EARLY),
        ("non-BIP68-final", BroadcastRefusal.TOO_EARLY),
        ("bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 3", BroadcastRefusal.TOO_EARLY),
        ("min relay fee not met, 0 < 110", BroadcastRefusal.LOW_FEE),
        ("mempool min fee not met, 110 < 500", BroadcastRefusal.LOW_FEE),
        ("mempool full", BroadcastRefusal.LOW_FEE),
        ("insufficient fee, rejecting replacement ab, less fees than conflicting txs", BroadcastRefusal.LOW_FEE),
        ("txn-mempool-conflict", BroadcastRefusal.CONFLICT),
        ("bip125-replacement-disallowed", BroadcastRefusal.CONFLICT),
        ("too many potential replacements, rejecting replacement ab", BroadcastRefusal.CONFLICT),
        ("bad-txns-spends-conflicting-tx, ab spends conflicting transaction cd", BroadcastRefusal.CONFLICT),
        ("package RBF failed: new transaction cannot have mempool ancestors", BroadcastRefusal.CONFLICT),
        ("bad-txns-in-belowout, value in (0.1) < value out (0.2)", BroadcastRefusal.INVALID),
        ("bad-witness-nonstandard", BroadcastRefusal.INVALID),
        ("mempool-script-verify-flag-failed (Witness program hash mismatch)", BroadcastRefusal.INVALID),
        ("dust, tx with dust output must be 0-fee", BroadcastRefusal.INVALID),
        ("TX decode failed", BroadcastRefusal.INVALID),
        ("too-long-mempool-chain, too many descendants", BroadcastRefusal.OTHER),
        ("TRUC-violation, tx ab would exceed descendant count limit", BroadcastRefusal.OTHER),
        ("package-mempool-limits", BroadcastRefusal.OTHER),
        ("a reason of tomorrow", BroadcastRefusal.OTHER),
        ("", BroadcastRefusal.OTHER),
    ],
)
def test_what_refusals_mean(reason: str, refusal: BroadcastRefusal) -> None:
    assert refusal_of(reason) is refusal
    assert not is_known(reason)


@pytest.mark.parametrize(
    "reason",
    [
        "txn-already-in-mempool",
        "txn-already-known",
        "txn-same-nonwitness-data-in-mempool",
        "Transaction already in block chain",
        "Transaction outputs already in utxo set",
    ],
)
def test_what_is_known_already(reason: str) -> None:
    assert is_known(reason)
