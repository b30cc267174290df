"""How far a catch-up is: a figure for ``leyden info`` and a log line now and then."""

import structlog

log = structlog.get_logger("leyden.chain")

LOG_SECONDS = 10.0
WORTH_SHOWING = 6
"""Blocks; whoever is less far behind is not catching up but following."""


class Progress:
    """Told of each block; forgets the catch-up when the tip is reached."""

    def __init__(self) -> None:
        self.target = 0
        """The highest block that the source is known to have."""
        self._first = 0
        self._began = 0.0
        self._logged = 0.0
        self._height = 0
        self._now = 0.0

    def on_target(self, target: int, height: int, now: float) -> None:
        """The source says where its chain ends while we are at ``height``."""
        self.target = target
        if not self._began and target - height > WORTH_SHOWING:
            self._first, self._height = height, height
            self._began = self._logged = self._now = now
            log.info("catching_up", height=height, target=target, blocks=target - height)

    def on_block(self, height: int, now: float) -> None:
        self.target = max(self.target, height)
        if not self._began:  # a source that does not tell its tip: counted from the first of a quick row
            self._first, self._began, self._logged = height - 1, now, now
        self._height, self._now = height, now
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            facts: dict[str, object] = {"height": height, "blocks_per_second": round(self.rate, 1)}
            if self.target > height:
                facts |= {"target": self.target, "left": self.target - height}
                if self.rate:
                    facts["minutes_left"] = round((self.target - height) / self.rate / 60, 1)
            log.info("catching_up", **facts)

    def on_synced(self, height: int, now: float) -> None:
        if self._began and height - self._first > WORTH_SHOWING:
            seconds = round(now - self._began, 1)
            log.info("caught_up", height=height, blocks=height - self._first, seconds=seconds)
        self.target = height
        self._began = 0.0

    @property
    def rate(self) -> float:
        """Blocks a second since the catch-up began; 0 when there is none."""
        seconds = self._now - self._began
        return (self._height - self._first) / seconds if self._began and seconds > 0 else 0.0

    @property
    def done(self) -> int:
        """Blocks of this catch-up that are behind us."""
        return self._height - self._first if self._began else 0

    @property
    def total(self) -> int:
        """Blocks of this catch-up, as far as the source told; 0 when there is none."""
        return max(self.target - self._first, self.done) if self._began else 0
