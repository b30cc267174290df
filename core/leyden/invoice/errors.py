"""The one error of this package."""

from leyden.types import Rule, RuleViolation


class InvoiceError(RuleViolation):
    """The invoice is refused: it must not be paid. ``rule`` names the checklist line."""


def refuse_unless(condition: object, broken: Rule, message: str, /, **details: object) -> None:
    """``require`` with ``InvoiceError`` in place of its base class."""
    if not condition and broken.enabled:
        raise InvoiceError(broken, message, **details)
