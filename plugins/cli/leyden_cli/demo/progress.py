"""What the demo shows while it runs: one line per step, with colours on a terminal only."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text


class Step:
    """The line of one step; ``note`` says what came out."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Progress:
    """Prints steps as they end. ``verbose`` also tells the details."""

    def __init__(self, console: Console, verbose: bool) -> None:
        self.console = console
        self._verbose = verbose
        self._number = 0

    def say(self, text: str = "") -> None:
        self.console.print(Text(text), soft_wrap=True)

    def detail(self, text: str) -> None:
        if self._verbose:
            self.say(f"      {text}")

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A numbered step; a spinner turns meanwhile on a terminal."""
        self._number += 1
        began, step = time.monotonic(), Step()
        spinner = self.console.status(Text(title)) if self.console.is_terminal else contextlib.nullcontext()
        with spinner:
            yield step
        took = time.monotonic() - began
        line = Text(f"{self._number:>3}. ", style="dim")
        line.append(title, style="bold")
        line.append(f"  {'; '.join(step.notes)}" if step.notes else "", style="")
        line.append(f"  {took:.2f} s", style="dim")
        self.console.print(line, soft_wrap=True)
