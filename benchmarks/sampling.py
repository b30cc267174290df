"""Where the CPU time of a process goes: its stack is looked at on every tick of its CPU clock, and nothing is traced.

A tick that falls into C is handled when C returns, and so counts for the Python line that called it.
"""

import signal
from collections import Counter
from types import FrameType

TICK_SECONDS = 0.001

PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("curve", ("leyden/crypto/curve.py", "leyden/crypto/schnorr.py", "leyden/crypto/shachain.py")),
    ("ciphers and hashes", ("leyden/crypto/",)),
    ("SQLite", ("leyden_sqlite/", "/sqlite3/")),
    ("wire and records", ("leyden/wire/", "leyden/channel/records.py", "leyden/channel/rows.py")),
    ("commitments", ("leyden/commitment/", "leyden/bitcoin/")),
    ("transport", ("leyden/transport/",)),
    ("onion", ("leyden/onion/",)),
    ("invoices", ("leyden/invoice/",)),
    ("channel machine", ("leyden/channel/", "leyden_inmemory/")),
    ("payments", ("leyden/payments/", "leyden/node/payments.py")),
    ("node: peers, turns, journal", ("leyden/node/",)),
    ("event loop and sockets", ("/asyncio/", "/selectors.py")),
)
"""The innermost frame of the stack that belongs to one of them decides; the first that fits."""
OTHER = "the load itself and the rest"


class Sampler:
    """``start`` and ``stop`` in the main thread; ``take`` says how many ticks fell into each part since the last."""

    def __init__(self) -> None:
        self._parts: Counter[str] = Counter()

    def take(self) -> dict[str, int]:
        taken, self._parts = self._parts, Counter()
        return dict(taken)

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._tick)
        signal.setitimer(signal.ITIMER_PROF, TICK_SECONDS, TICK_SECONDS)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)

    def _tick(self, _number: int, frame: FrameType | None) -> None:
        while frame is not None:
            name = frame.f_code.co_filename
            for part, marks in PARTS:
                if any(mark in name for mark in marks):
                    self._parts[part] += 1
                    return
            frame = frame.f_back
        self._parts[OTHER] += 1
