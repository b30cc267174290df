"""Feerates as servers estimate them, never below what their nodes relay."""

import math

import structlog
from leyden.bitcoin import Network
from leyden.hooks.types import FeeTarget
from leyden.types import FeeRatePerKw

from leyden_electrum.errors import ServerRefused
from leyden_electrum.server import Server

log = structlog.get_logger("leyden.electrum")

MIN_FEERATE = 253
"""One satoshi per virtual byte, rounded up: what nodes relay at least."""
LONGEST = 1008
"""Blocks; nobody estimates for more."""
_TARGETS: dict[FeeTarget, tuple[int, int]] = {
    FeeTarget.MAXIMUM: (1, 8000),
    FeeTarget.URGENT_SWEEP: (6, 5000),
    FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE: (1008, 253),
    FeeTarget.ANCHOR_CHANNEL: (1008, 500),
    FeeTarget.MIN_ALLOWED_NON_ANCHOR_REMOTE: (144, 253),
    FeeTarget.NON_ANCHOR_CHANNEL: (12, 2000),
    FeeTarget.CLOSE_MINIMUM: (144, 500),
    FeeTarget.SWEEP: (12, 1000),
    FeeTarget.FUNDING: (12, 1000),
}
"""Blocks to confirm in, and the feerate (sat per 1000 weight) for test networks without estimates."""


async def estimate(server: Server, network: Network, target: FeeTarget) -> FeeRatePerKw | None:
    """The server's estimate for ``target``. Without one, that for more blocks: better a floor than nothing. Else a
    fixed figure on test networks, and ``None`` on mainnet. Errors of the server are raised."""
    blocks, fallback = _TARGETS[target]
    found = 0
    for attempt in dict.fromkeys((blocks, min(2 * blocks, LONGEST), LONGEST)):
        found = _per_kw(await server.estimate_fee(attempt))
        if found:
            break
    if not found:
        if network is Network.MAINNET:
            log.warning("no_fee_estimate", target=target.value, reason=f"{server.address} has none")
            return None
        found = fallback
    return FeeRatePerKw(max(found, await _minimum(server)))


async def _minimum(server: Server) -> int:
    try:
        return max(_per_kw(await server.minimum_fee()), MIN_FEERATE)
    except ServerRefused:
        return MIN_FEERATE


def _per_kw(bitcoin_per_kvb: float) -> int:
    """Bitcoin per 1000 vbytes in sat per 1000 weight, rounded up; 0 for what is no feerate (-1: no estimate)."""
    if not math.isfinite(bitcoin_per_kvb) or not 0 < bitcoin_per_kvb < 21_000_000:
        return 0
    return -(-round(bitcoin_per_kvb * 100_000_000) // 4)
