"""*Chain degraded*: what keeps the node from trusting its view of the chain, and for how long.

While anything is wrong no channel is opened or accepted and no HTLC is offered; deadlines, claims and closes go on.
Each trouble raises one alarm when it has lasted; when none is left, one notice says that it is over.
"""

from collections.abc import Callable

import msgspec
import structlog

from leyden.bitcoin import Network
from leyden.hooks.types import Alarm, AlarmCleared, NodeEvent
from leyden.types import clean_text

log = structlog.get_logger("leyden.chain")

DEFAULT_TIP_AGE_MINUTES = 90
SUBJECT = "chain_degraded"


class ChainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Table ``[chain]`` of a config."""

    max_tip_age_minutes: int | None = None
    """How old the newest block may be; 0: any age. By default 90, and any age on regtest, which mines on demand."""
    trouble_seconds: int = 60
    """How long a source may be in trouble, or behind, before the node calls its view of the chain degraded."""
    failover_seconds: int = 30
    """How long a source may be in trouble before the next one takes over, if there is one."""
    return_seconds: int = 300
    """How long a source must have worked again before it takes over from one that stands behind it in the config."""

    def tip_age_seconds(self, network: Network) -> int:
        """0: no limit."""
        if self.max_tip_age_minutes is None:
            return 0 if network is Network.REGTEST else DEFAULT_TIP_AGE_MINUTES * 60
        return self.max_tip_age_minutes * 60

    def mistake(self) -> str:
        """What is wrong with these settings, in one line; empty if nothing is."""
        for name in ("trouble_seconds", "failover_seconds", "return_seconds"):
            if not 0 <= getattr(self, name) <= 86_400:
                return f"{name} must be between 0 and 86400 (a day)"
        minutes = self.max_tip_age_minutes
        if minutes is not None and not 0 <= minutes <= 10_080:
            return "max_tip_age_minutes must be between 0 (no limit) and 10080 (a week)"
        if minutes is not None and 0 < minutes < 20:
            return "max_tip_age_minutes below 20 would stop payments many times a day: blocks are often that far apart"
        return ""


class ChainHealth:
    """The troubles that stand now, by a stable word each."""

    def __init__(
        self,
        publish: Callable[[NodeEvent], None],
        now: Callable[[], float],
        standing: Callable[[str], str | None] = lambda _subject: None,
    ) -> None:
        """``standing``: the text of the alarm with this subject that stands in the log."""
        self._publish = publish
        self._now = now
        self._standing = standing
        self._since: dict[str, tuple[float, str]] = {}
        self._raised: dict[str, str] = {}
        self._over: list[str] = []
        """Troubles that are over while others last."""
        self.on_change: Callable[[str], None] = lambda _why: None
        """Told ``why`` whenever it changes."""

    @property
    def why(self) -> str:
        """Why the view of the chain is not to be trusted, in one line; empty while it is."""
        return "; ".join(self._raised.values())

    def note(self, word: str, reason: str, grace: float = 0.0) -> None:
        """Something is wrong (or, with an empty ``reason``, is not any more). It counts once it has lasted for
        ``grace`` seconds; whoever notes it goes on doing so while it lasts."""
        if not reason:
            self._since.pop(word, None)
            cleared = self._raised.pop(word, None)
            if cleared is not None:
                log.warning("chain_trouble_over", trouble=word)
                self._over.append(cleared)
                if not self._raised:
                    self._clear("; ".join(dict.fromkeys(self._over)))
                self.on_change(self.why)
            return
        text = clean_text(reason)
        since, _ = self._since.setdefault(word, (self._now(), text))
        self._since[word] = (since, text)
        if word not in self._raised and self._now() - since >= grace:
            self._raised[word] = text
            log.warning("chain_degraded", trouble=word, reason=text)
            self._publish(Alarm(subject=SUBJECT, text=text))
            self.on_change(self.why)

    def settle(self) -> None:
        """Everything was looked at. An alarm of an earlier run, or of before memory was read back, is over if nothing
        is wrong now, not even something that has yet to last."""
        stands = self._standing(SUBJECT)
        if stands is not None and not self._since:
            self._clear(stands)

    def _clear(self, text: str) -> None:
        self._over.clear()
        self._publish(AlarmCleared(subject=SUBJECT, text=f"over: {text}"))

    def forget(self) -> None:
        """The turn that raised these was dropped, or memory was read back: they are raised again if they last."""
        self._since.clear()
        self._raised.clear()
        self._over.clear()
        self.on_change("")
