"""Errors of the transport. Every ``TransportError`` costs the connection and nothing else: channels stay."""

import enum
from typing import Any

from leyden.types import LeydenError, Rule, RuleViolation


class HandshakeFailure(enum.StrEnum):
    """How a handshake went wrong, by the names that the appendix of BOLT 8 gives its cases."""

    ACT1_READ_FAILED = "ACT1_READ_FAILED"
    ACT1_BAD_VERSION = "ACT1_BAD_VERSION"
    ACT1_BAD_PUBKEY = "ACT1_BAD_PUBKEY"
    ACT1_BAD_TAG = "ACT1_BAD_TAG"
    ACT2_READ_FAILED = "ACT2_READ_FAILED"
    ACT2_BAD_VERSION = "ACT2_BAD_VERSION"
    ACT2_BAD_PUBKEY = "ACT2_BAD_PUBKEY"
    ACT2_BAD_TAG = "ACT2_BAD_TAG"
    ACT3_READ_FAILED = "ACT3_READ_FAILED"
    ACT3_BAD_VERSION = "ACT3_BAD_VERSION"
    ACT3_BAD_CIPHERTEXT = "ACT3_BAD_CIPHERTEXT"
    ACT3_BAD_PUBKEY = "ACT3_BAD_PUBKEY"
    ACT3_BAD_TAG = "ACT3_BAD_TAG"


class TransportError(RuleViolation):
    """The peer broke BOLT 8, or we were about to. The object that raised it is dead: close the connection.

    ``failure`` names what was wrong with a handshake act (None once messages flow). ``messages`` holds what the same
    call of ``Session.feed`` had already authenticated and decrypted, so that nothing depends on how TCP cut the stream.
    """

    def __init__(
        self,
        rule: Rule,
        message: str,
        *,
        failure: HandshakeFailure | None = None,
        messages: tuple[bytes, ...] = (),
        **details: object,
    ) -> None:
        super().__init__(rule, message if failure is None else f"{message}: {failure}", **details)
        self.failure = failure
        self.messages = messages


class HandshakeOrderError(LeydenError):
    """The caller asked for a step of the handshake out of order, twice, or after it failed: a bug of the caller."""


def require_act(condition: object, broken: Rule, failure: HandshakeFailure, message: str, /, **details: Any) -> None:
    """``leyden.types.require`` for one condition of a handshake act.

    Raises:
        TransportError: the condition does not hold and the rule is on.
    """
    if not condition and broken.enabled:
        raise TransportError(broken, message, failure=failure, **details)
