"""What can go wrong between values and bytes."""

from leyden.types import LeydenError, Rule, RuleViolation


class WireError(RuleViolation):
    """Bytes that break a rule of BOLT 1, or a value that a rule forbids to send. ``rule`` says which one.

    The reaction of the rule is the one for a peer message; a payment onion fails the HTLC instead, a BOLT 12 document
    is refused. Inside a TLV stream ``details`` has ``offset`` (start of the record, or where its type or length is
    cut) and, once that was read, ``record`` (its type).
    """


class EncodeError(LeydenError):
    """A value of our own does not fit its field: a mistake of the calling code, never of a peer."""


class Malformed(Exception):
    """Private to ``leyden.wire``: a field does not fit its bytes; the caller knows the rule."""


def refuse(broken: Rule, message: str, **details: object) -> None:
    """Raise ``WireError`` unless the checklist report has switched the rule off."""
    if broken.enabled:
        raise WireError(broken, message, **details)
