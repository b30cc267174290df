"""Feerates by purpose, cached with their age and bounded: nothing on a hot path asks an estimator."""

from collections.abc import Callable, Sequence

import msgspec
import structlog

from leyden.channel import FeeRates
from leyden.hooks.services import FeeEstimator
from leyden.hooks.types import FeeTarget
from leyden.node.host import Caller, Host
from leyden.types import FeeRatePerKw, clean_text

log = structlog.get_logger("leyden.fees")

FLOOR = FeeRatePerKw(253)
CEILING = FeeRatePerKw(250_000)
ANCHOR_CEILING = FeeRatePerKw(25_000)
"""Most that a commitment with anchors pays, 100 satoshi per virtual byte: enough for any mempool, and more can be added
when it is broadcast. Whatever an estimator says, a funder's balance does not become fee."""
REFRESH_SECONDS = 60.0
STALE_SECONDS = 3600.0
PATIENCE_SECONDS = 20.0
"""An estimator that has not answered by then counts as one without an answer."""
MAX_JUMP = 10
"""An estimate that differs from the last good one by more than this factor needs a second opinion."""
AGREEMENT = 3
"""Two estimators agree if they differ by at most this factor."""
_NEEDED = (FeeTarget.FUNDING,)
_NEEDED_ONE = (FeeTarget.ANCHOR_CHANNEL, FeeTarget.NON_ANCHOR_CHANNEL)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The last good answer for one purpose: sat per 1000 weight, who gave it, and when (unix seconds)."""

    rate: FeeRatePerKw
    estimator: str
    at: float


class FeeCache:
    """Asks the estimators in order for each purpose and keeps the first good answer."""

    def __init__(self, estimators: Sequence[tuple[str, FeeEstimator]], host: Host, caller: Caller) -> None:
        self.rates = FeeRates()
        self.estimates: dict[FeeTarget, Estimate] = {}
        self._estimators = estimators
        self._host = host
        self._caller = caller
        self._round = 0
        self._reasons: dict[tuple[FeeTarget, str], str] = {}
        self.on_refreshed: Callable[[], None] = lambda: None
        """The feerate for commitments was asked for again, with or without a new answer; only posts mail."""

    @property
    def stale(self) -> bool:
        """No answer for an hour (or ever) about what an opening costs: no channel may be opened on it."""
        return any(self._is_old(target) for target in _NEEDED) or all(self._is_old(target) for target in _NEEDED_ONE)

    def _is_old(self, target: FeeTarget) -> bool:
        known = self.estimates.get(target)
        return known is None or self._host.wall_time() - known.at > STALE_SECONDS

    def refresh(self) -> None:
        """Ask for every purpose now, and again each minute."""
        self._round += 1
        asked_in = self._round
        for target in FeeTarget:
            self._ask(target, 0, ())
        self._host.call_later(REFRESH_SECONDS, lambda: self.refresh() if self._round == asked_in else None)

    def _ask(self, target: FeeTarget, position: int, doubtful: tuple[tuple[str, FeeRatePerKw], ...]) -> None:
        """Ask the estimator at ``position``; ``doubtful`` are answers so far that need a second opinion."""
        if position >= len(self._estimators):
            if doubtful:
                self._bound(target, *doubtful[0])
            return
        name, estimator = self._estimators[position]
        answered = False

        def done(rate: FeeRatePerKw | None, error: BaseException | None) -> None:
            nonlocal answered
            if answered:
                return
            answered = True
            if error is not None or rate is None or not _is_rate(rate):
                if error is not None or rate is not None:
                    self._complain(target, name, str(error or f"it answered {clean_text(repr(rate), 40)}"))
                self._ask(target, position + 1, doubtful)
                return
            bounded = FeeRatePerKw(min(max(rate, FLOOR), CEILING))
            if self._is_plausible(target, bounded) or any(_agree(bounded, other) for _, other in doubtful):
                self._adopt(target, name, bounded)
            else:
                self._ask(target, position + 1, (*doubtful, (name, bounded)))

        self._caller.call(estimator, _estimate(estimator, target), done, f"fee estimate {target.value} over {name}")
        if not answered:
            self._host.call_later(PATIENCE_SECONDS, lambda: done(None, TimeoutError("no answer in time")))

    def _complain(self, target: FeeTarget, name: str, reason: str) -> None:
        """Once for each reason."""
        if self._reasons.get((target, name)) != reason:
            self._reasons[target, name] = reason
            log.warning("fee_estimate_failed", target=target.value, estimator=name, reason=clean_text(reason))

    def _is_plausible(self, target: FeeTarget, rate: FeeRatePerKw) -> bool:
        last = self.estimates.get(target)
        if last is None or self._is_old(target):
            return True
        return last.rate <= rate * MAX_JUMP and rate <= last.rate * MAX_JUMP

    def _bound(self, target: FeeTarget, name: str, rate: FeeRatePerKw) -> None:
        """Nobody confirms a jump: go as far as one jump may, and look again in a minute."""
        last = self.estimates[target].rate
        bounded = FeeRatePerKw(min(max(rate, last // MAX_JUMP, FLOOR), last * MAX_JUMP))
        log.warning(
            "fee_estimate_jumps", target=target.value, estimator=name, before=last, estimate=rate, taken=bounded
        )
        self._adopt(target, name, bounded)

    def _adopt(self, target: FeeTarget, name: str, rate: FeeRatePerKw) -> None:
        self._reasons.pop((target, name), None)
        self.estimates[target] = Estimate(rate=rate, estimator=name, at=self._host.wall_time())
        rates = _in_order(msgspec.structs.replace(self.rates, **{known.value: e.rate for known, e in self._known()}))
        if rates != self.rates:
            self.rates = rates
        if target in _NEEDED_ONE:
            self.on_refreshed()

    def _known(self) -> list[tuple[FeeTarget, Estimate]]:
        return list(self.estimates.items())


def _in_order(rates: FeeRates) -> FeeRates:
    """Purposes that cannot contradict each other do not: what is urgent pays no less than what is not, a peer is not
    asked for more than we would pay, and no bound is below what we pay ourselves."""
    urgent = max(rates.urgent_sweep, rates.sweep)
    anchors = FeeRatePerKw(min(rates.anchor_channel, ANCHOR_CEILING))
    paid = (urgent, rates.funding, anchors, rates.non_anchor_channel, rates.close_minimum)
    return msgspec.structs.replace(
        rates,
        urgent_sweep=urgent,
        anchor_channel=anchors,
        min_allowed_anchor_remote=min(rates.min_allowed_anchor_remote, anchors),
        min_allowed_non_anchor_remote=min(rates.min_allowed_non_anchor_remote, rates.non_anchor_channel),
        maximum=max(rates.maximum, *paid),
    )


def _is_rate(answer: object) -> bool:
    return isinstance(answer, int) and not isinstance(answer, bool) and answer > 0


def _agree(one: int, other: int) -> bool:
    return one <= other * AGREEMENT and other <= one * AGREEMENT


async def _estimate(estimator: FeeEstimator, target: FeeTarget) -> FeeRatePerKw | None:
    """One that raises at once, or is not even asynchronous, fails alone like any other."""
    return await estimator.estimate(target)
