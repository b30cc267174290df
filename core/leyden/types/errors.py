"""Errors that name the rule they enforce and the reaction it demands.

``require(condition, C_088, "...", offered=..., allowed=...)`` is how a rule of the specification is enforced: no
``assert`` guards anything that a peer, a plugin or a disk can influence. Every ``Rule`` can be switched off by
``leyden.testing.checklist``, which then demands that a test which claims the rule fails.
"""

import enum
from typing import Any

from leyden.types.text import clean_text

_LONGEST = 300
"""Characters of what is said about a row: what is in it may be anything."""


class LeydenError(Exception):
    """Root of every error that Leyden raises on purpose. ``str(error)`` is one line that says what to do."""


class RecordError(LeydenError):
    """A stored row of ``area`` (``docs/keyspace.md``) cannot be used: it is damaged, or a newer program wrote it.

    Nothing is guessed and nothing skipped: a node that forgot a channel would tell its peer to close it.
    """

    def __init__(self, area: str, problem: str, advice: str = "it is damaged, run `leyden db check`") -> None:
        self.area = area
        self.problem = problem
        self.is_newer = False
        super().__init__(f"the database cannot be read: {area}: {clean_text(problem, _LONGEST)}: {advice}")

    @classmethod
    def newer(cls, area: str, problem: str) -> "RecordError":
        """For a version above all that this program knows."""
        error = cls(area, problem, "written by a newer Leyden, start that one")
        error.is_newer = True
        return error


class Reaction(enum.Enum):
    """What a violation costs (the letters of ``docs/spec/checklist.md``)."""

    ABORT = "A"
    """End the negotiation; an existing channel stays usable."""
    FAIL_CHANNEL = "F"
    """Fail the channel; while it opens: refuse it."""
    ERROR = "E"
    """Send ``error`` and fail the channel."""
    WARN_OR_ERROR = "W/E"
    """``warning`` and close the connection, or ``error`` and fail the channel."""
    WARN = "W"
    DISCONNECT = "D"
    """Close the connection; channels stay."""
    IGNORE = "I"
    FAIL_HTLC = "H"
    WARN_OR_DROP = "W/D"
    """Drop the message; ``warning`` and/or close the connection."""
    WARN_AND_DISCONNECT = "W+D"
    UNROUTABLE = "N"
    """Keep the channel or node out of routes."""
    REFUSE = "R"
    """Refuse the document (invoice, offer)."""
    DUTY = "-"
    """Our own duty: nobody else can violate it."""


class Rule:
    """One line of the checklist. ``enabled`` is only ever changed by ``leyden.testing.checklist``."""

    __slots__ = ("enabled", "id", "reaction")

    def __init__(self, id: str, reaction: Reaction) -> None:
        self.id = id
        self.reaction = reaction
        self.enabled = True

    def __repr__(self) -> str:
        return self.id


class RuleViolation(LeydenError):
    """Somebody broke ``rule``; ``details`` carries the offered and the allowed values."""

    def __init__(self, rule: Rule, message: str, **details: object) -> None:
        self.rule = rule
        self.reaction = rule.reaction
        self.message = message
        self.details = details
        values = ", ".join(f"{k}={v.hex() if isinstance(v, bytes) else v}" for k, v in details.items())
        super().__init__(f"{message} [{rule.id}]" + (f" ({values})" if values else ""))


_RULES: dict[str, Rule] = {}


def rule(id: str, reaction: Reaction) -> Rule:
    """Declare a rule once, at module level; asking again for the same id returns the same object."""
    known = _RULES.get(id)
    if known is None:
        known = _RULES[id] = Rule(id, reaction)
    elif known.reaction is not reaction:
        raise LeydenError(f"rule {id} is declared with reactions {known.reaction} and {reaction}")
    return known


def all_rules() -> dict[str, Rule]:
    """Every rule declared by the modules imported so far, by id."""
    return dict(_RULES)


def require(condition: object, broken: Rule, message: str, /, **details: Any) -> None:
    """Raise ``RuleViolation`` unless ``condition`` holds (or the rule was switched off by the checklist report)."""
    if not condition and broken.enabled:
        raise RuleViolation(broken, message, **details)
