"""Expected weights, fees and trimming (BOLT 3 with Appendix A), and the input weights of penalties (BOLT 5).

Weights are the fixed figures both sides agree on (73-byte signatures), not those of a finished transaction.
"""

from leyden.types import FeeRatePerKw, Msat, Sat, fee_for_weight
from leyden.types.rules import C_105, C_106, C_107, C_112

ANCHOR_VALUE = Sat(330)
SHARED_ANCHOR_MAX = Sat(240)
"""The shared anchor of a zero-fee commitment holds what the other outputs leave, up to this; the rest are fees."""
HTLC_OUTPUT_WEIGHT = 172
TO_LOCAL_PENALTY_INPUT_WEIGHT = 324
"""Also of a revoked HTLC transaction's output (BOLT 5)."""
TO_REMOTE_P2WPKH_INPUT_WEIGHT = 272
MAX_HTLCS_PER_SIDE = 483
"""Per direction: a penalty for 2 x 483 HTLCs and both balances still fits a standard transaction (BOLT 5)."""
MAX_HTLCS_PER_SIDE_ZERO_FEE = 114
"""Per direction: a commitment with 2 x 114 outputs more is the largest within the 10 kvB of a version 3 transaction."""
_SHARED_ANCHOR_WEIGHT = 4 * (8 + 1 + 4)


def commitment_weight(anchors: bool, untrimmed_htlcs: int, *, zero_fee: bool = False) -> int:
    """Agreed weight of a commitment transaction with its witness (BOLT 3, fee calculation).

    With ``zero_fee`` nobody agrees on it: it is what a child has to pay for.
    """
    base = 1124 if anchors else 724
    return base + (_SHARED_ANCHOR_WEIGHT if zero_fee else 0) + HTLC_OUTPUT_WEIGHT * untrimmed_htlcs


def commitment_fee(anchors: bool, feerate: FeeRatePerKw, untrimmed_htlcs: int, *, zero_fee: bool = False) -> Sat:
    """Base fee in satoshi that the funder pays, rounded down; anchors and trimmed outputs come on top."""
    if not C_106.enabled or (zero_fee and C_112.enabled):
        return Sat(0)
    return fee_for_weight(feerate, commitment_weight(anchors, untrimmed_htlcs))


def anchors_cost(anchors: bool) -> Sat:
    """What the funder pays for both anchors, whether or not the transaction has them, in satoshi."""
    return Sat(2 * ANCHOR_VALUE if anchors else 0)


def htlc_timeout_weight(anchors: bool) -> int:
    return 666 if anchors else 663


def htlc_success_weight(anchors: bool) -> int:
    return 706 if anchors else 703


def htlc_tx_fee(anchors: bool, feerate: FeeRatePerKw, offered_by_owner: bool, *, zero_fee: bool = False) -> Sat:
    """Fee in satoshi inside the HTLC-timeout (offered) or HTLC-success (received) transaction.

    0 with anchors and with ``zero_fee``.
    """
    if (anchors and C_107.enabled) or (zero_fee and C_112.enabled):
        return Sat(0)
    weight = htlc_timeout_weight(anchors) if offered_by_owner else htlc_success_weight(anchors)
    return fee_for_weight(feerate, weight)


def trim_threshold(
    anchors: bool, dust_limit: Sat, feerate: FeeRatePerKw, offered_by_owner: bool, *, zero_fee: bool = False
) -> Sat:
    """The least whole-satoshi amount with which an HTLC gets an output on the owner's commitment (BOLT 3, trimming)."""
    if not C_105.enabled:
        return Sat(0)
    return Sat(dust_limit + htlc_tx_fee(anchors, feerate, offered_by_owner, zero_fee=zero_fee))


def is_trimmed(
    *,
    anchors: bool,
    dust_limit: Sat,
    feerate: FeeRatePerKw,
    offered_by_owner: bool,
    amount_msat: Msat,
    zero_fee: bool = False,
) -> bool:
    """Whether an HTLC is too small for an output on the commitment whose owner set ``dust_limit``."""
    return amount_msat // 1000 < trim_threshold(anchors, dust_limit, feerate, offered_by_owner, zero_fee=zero_fee)


def offered_htlc_penalty_input_weight(anchors: bool) -> int:
    """Input that spends an offered HTLC of a revoked commitment with the revocation key (BOLT 5)."""
    return 410 if anchors else 407


def received_htlc_penalty_input_weight(anchors: bool) -> int:
    """Input that spends a received HTLC of a revoked commitment with the revocation key (BOLT 5)."""
    return 416 if anchors else 413
