"""What every conformance suite says when something is not as it must be: plain ``AssertionError``s with a reason."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from leyden.types import LeydenError

T = TypeVar("T")

CANCEL_AFTER = (0, 1, 2, 3, 5, 10)
"""Passes of the event loop that a call gets before it is cancelled."""


def expect(condition: object, message: str) -> None:
    """``AssertionError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise AssertionError(message)


def expect_equal(got: object, wanted: object, what: object = "") -> None:
    """``AssertionError`` that shows both unless they are equal."""
    if got != wanted:
        raise AssertionError((f"{what}: " if what else "") + f"got {got!r}, expected {wanted!r}")


def expect_one_line(text: str, what: str) -> None:
    """Whatever a person is told fits on one line and says something."""
    expect(text.strip(), f"{what} says nothing")
    expect(len(text.splitlines()) == 1 and len(text) <= 1_000, f"{what} is not one line: {text!r}")


async def expect_refusal(work: Awaitable[object], what: str) -> str:
    """``work`` must raise a ``LeydenError`` of one line; its text."""
    try:
        answer = await work
    except LeydenError as error:
        expect_one_line(str(error), what)
        return str(error)
    raise AssertionError(f"{what} is no error, but {answer!r}")


def needed(part: T | None, name: str, bed: object) -> T:
    """What a suite cannot do without; ``LeydenError`` if the bed does not supply it."""
    if part is None:
        raise LeydenError(f"this suite needs `{name}` in the {type(bed).__name__}")
    return part


async def cancel(call: Callable[[], Awaitable[object]], passes: int) -> None:
    """Begin ``call`` and cancel it after so many passes of the event loop: it may be done by then, it must not fail."""
    task = asyncio.ensure_future(call())
    for _ in range(passes):
        await asyncio.sleep(0)
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    fine = isinstance(outcome, asyncio.CancelledError) or not isinstance(outcome, BaseException)
    expect(fine, f"a cancelled call raised {outcome!r}")
