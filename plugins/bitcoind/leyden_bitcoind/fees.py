"""Feerates from ``estimatesmartfee``, never below what bitcoind would relay."""

from typing import Any

import structlog
from leyden.bitcoin import Network
from leyden.hooks.types import FeeTarget
from leyden.types import FeeRatePerKw, Sat

from leyden_bitcoind.client import RpcClient, RpcRefused, RpcUnavailable

log = structlog.get_logger("leyden.bitcoind")

CONSERVATIVE, ECONOMICAL = "CONSERVATIVE", "ECONOMICAL"
_TARGETS: dict[FeeTarget, tuple[int, str, int]] = {
    FeeTarget.MAXIMUM: (1, CONSERVATIVE, 8000),
    FeeTarget.URGENT_SWEEP: (6, CONSERVATIVE, 5000),
    FeeTarget.MIN_ALLOWED_ANCHOR_REMOTE: (1008, ECONOMICAL, 253),
    FeeTarget.ANCHOR_CHANNEL: (1008, ECONOMICAL, 500),
    FeeTarget.MIN_ALLOWED_NON_ANCHOR_REMOTE: (144, ECONOMICAL, 253),
    FeeTarget.NON_ANCHOR_CHANNEL: (12, ECONOMICAL, 2000),
    FeeTarget.CLOSE_MINIMUM: (144, ECONOMICAL, 500),
    FeeTarget.SWEEP: (12, ECONOMICAL, 1000),
    FeeTarget.FUNDING: (12, ECONOMICAL, 1000),
}
"""Blocks to confirm in, how cautious, and the feerate (sat per 1000 weight) for test networks without estimates."""
MIN_FEERATE = 253
"""One satoshi per virtual byte, rounded up: what nodes relay at least."""


async def estimate(client: RpcClient, network: Network, target: FeeTarget) -> FeeRatePerKw | None:
    """bitcoind's estimate for ``target``, at least what its mempool takes now.

    Where there is none for that many blocks in that mode, the other mode and then more blocks are tried: a feerate that
    was enough for a slower confirmation is a floor, and better than none. Else, on test networks, a fixed figure;
    on mainnet ``None``.
    """
    blocks, mode, fallback = _TARGETS[target]
    other = ECONOMICAL if mode == CONSERVATIVE else CONSERVATIVE
    tries = [(blocks, mode), (blocks, other), (min(blocks * 2, 1008), other), (1008, other)]
    try:
        pool, *answers = await client.batch_of(
            [("getmempoolinfo", ()), *(("estimatesmartfee", attempt) for attempt in tries)]
        )
    except RpcUnavailable as error:
        log.warning("no_fee_estimate", target=target.value, reason=str(error))
        return None
    found = next((rate for rate in map(_feerate, answers) if rate is not None), None)
    if found is None:
        if network is Network.MAINNET:
            log.warning("no_fee_estimate", target=target.value, reason=_reason(answers[0]))
            return None
        found = fallback
    return FeeRatePerKw(max(found, _floor(pool)))


def _feerate(answer: Any) -> int | None:
    """Satoshi per 1000 weight, rounded up."""
    if isinstance(answer, dict) and "feerate" in answer:
        return -(-satoshi(answer["feerate"]) // 4)
    return None


def _floor(pool: Any) -> int:
    """What the mempool takes now; it rises when the mempool is full."""
    if not isinstance(pool, dict):
        return MIN_FEERATE
    least = max(satoshi(pool.get("mempoolminfee", 0)), satoshi(pool.get("minrelaytxfee", 0)))
    return max(-(-least // 4), MIN_FEERATE)


def _reason(answer: Any) -> str:
    if isinstance(answer, RpcRefused):
        return str(answer)
    errors = answer.get("errors", []) if isinstance(answer, dict) else []
    return "; ".join(map(str, errors)) or "bitcoind has no estimate yet"


def satoshi(bitcoin: float) -> Sat:
    """Amounts in JSON are decimal bitcoin; eight decimals survive a float."""
    return Sat(round(bitcoin * 100_000_000))
