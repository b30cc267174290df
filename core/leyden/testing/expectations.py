"""What every conformance suite says when something is not as it must be: plain ``AssertionError``s with a reason."""

from collections.abc import Awaitable
from typing import TypeVar

from leyden.types import LeydenError

T = TypeVar("T")


def expect(condition: object, message: str) -> None:
    """``AssertionError`` with ``message`` unless ``condition`` holds."""
    if not condition:
        raise AssertionError(message)


def expect_equal(got: object, wanted: object, what: str) -> None:
    """``AssertionError`` that shows both unless they are equal."""
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, expected {wanted!r}")


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
