"""A counterpart as a process of ours with its log: started, waited for, ended by its pid."""

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE = 120.0
"""Seconds for whatever a program does by itself: a limit for what hangs, never met on a machine that is merely busy."""


class Program:
    """``name`` is for messages; ``log`` takes all it says, over restarts."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, words: list[str]) -> None:
        """Its stdin ends when we do."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)

    @property
    def started(self) -> bool:
        """Since then nobody has ended it; it may have ended by itself."""
        return self._process is not None

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def ends_by_itself(self, seconds: float) -> int | None:
        """Its exit code, or ``None`` if it runs on."""
        try:
            return None if self._process is None else self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def log_tail(self, lines: int = 40) -> str:
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wait(self, reached: Callable[[], object], what: str) -> None:
        """``AssertionError`` with the end of its log when it hangs."""
        deadline = time.monotonic() + PATIENCE
        while not reached():
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} takes over {PATIENCE:g} s {what}:\n{self.log_tail(10)}")
            time.sleep(0.05)

    def send_signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def end(self) -> None:
        """Politely: it may write down what it has to."""
        self.send_signal(signal.SIGTERM)
        self.send_signal(signal.SIGCONT)  # a frozen one hears nothing
        self.ends_by_itself(PATIENCE)
        self.kill()

    def kill(self) -> None:
        """As if the machine had lost its power. Gone when this returns."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
