"""Feerates by purpose, cached with their age and bounded: nothing on a hot path asks an estimator."""

from collections.abc import Callable, Sequence

import msgspec
import structlog

from leyden.channel import FeeRates
from leyden.hooks.services import FeeEstimator
from leyden.hooks.types import FeeTarget
from leyden.node.host import Caller, Host
from leyden.types import FeeRatePerKw

log = structlog.get_logger("leyden.fees")

FLOOR = FeeRatePerKw(253)
CEILING = FeeRatePerKw(250_000)
REFRESH_SECONDS = 60.0
STALE_SECONDS = 3600.0


class FeeCache:
    """Asks the estimators in order for each purpose and keeps the first good answer."""

    def __init__(self, estimators: Sequence[FeeEstimator], host: Host, caller: Caller) -> None:
        self.rates = FeeRates()
        self._estimators = estimators
        self._host = host
        self._caller = caller
        self._updated: float | None = None
        self.on_refreshed: Callable[[], None] = lambda: None
        """The feerate for commitments was asked for again, with or without a new answer; only posts mail."""

    @property
    def stale(self) -> bool:
        """No answer for an hour (or ever): no channel may be opened on it."""
        return self._updated is None or self._host.wall_time() - self._updated > STALE_SECONDS

    def refresh(self) -> None:
        """Ask for every purpose now, and again each minute."""
        for target in FeeTarget:
            self._ask(target, 0)
        self._host.call_later(REFRESH_SECONDS, self.refresh)

    def _ask(self, target: FeeTarget, position: int) -> None:
        if position >= len(self._estimators):
            return
        estimator = self._estimators[position]

        def done(rate: FeeRatePerKw | None, error: BaseException | None) -> None:
            if not isinstance(rate, int) or error is not None:
                if error is not None or rate is not None:
                    log.warning("fee_estimate_failed", target=target.value, reason=str(error or type(rate).__name__))
                self._ask(target, position + 1)
                return
            self._updated = self._host.wall_time()
            bounded = FeeRatePerKw(min(max(rate, FLOOR), CEILING))
            if getattr(self.rates, target.value) != bounded:
                self.rates = msgspec.structs.replace(self.rates, **{target.value: bounded})
            if target in (FeeTarget.ANCHOR_CHANNEL, FeeTarget.NON_ANCHOR_CHANNEL):
                self.on_refreshed()

        self._caller.call(estimator, estimator.estimate(target), done, f"fee estimate {target.value}")
