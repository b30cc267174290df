"""Amounts, feerates, heights. Rounding is named by the function that does it."""

from typing import NewType

Sat = NewType("Sat", int)
Msat = NewType("Msat", int)
FeeRatePerKw = NewType("FeeRatePerKw", int)
BlockHeight = NewType("BlockHeight", int)
CltvDelta = NewType("CltvDelta", int)

MAX_MONEY_SAT = Sat(21_000_000 * 100_000_000)
MAX_MONEY_MSAT = Msat(MAX_MONEY_SAT * 1000)


def sat_to_msat(amount: Sat) -> Msat:
    """Exact: one satoshi is 1000 millisatoshi."""
    return Msat(amount * 1000)


def msat_floor_sat(amount: Msat) -> Sat:
    """Round down to whole satoshi, as every on-chain output does (BOLT 3)."""
    return Sat(amount // 1000)


def fee_for_weight(feerate: FeeRatePerKw, weight: int) -> Sat:
    """Fee in satoshi of ``weight`` units at ``feerate`` sat per 1000 units, rounded down (BOLT 3, fee calculation)."""
    return Sat(feerate * weight // 1000)
