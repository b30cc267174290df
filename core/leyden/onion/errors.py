"""What is wrong with an onion, together with the failure that BOLT 4 wants returned for it."""

from leyden.types import Rule, RuleViolation
from leyden.wire.failures import (
    Failure,
    FailureCode,
    InvalidOnionBlinding,
    InvalidOnionHmac,
    InvalidOnionKey,
    InvalidOnionVersion,
)


class OnionError(RuleViolation):
    """An onion that cannot be built, opened or read. It costs one HTLC (or onion message), never the connection.

    ``failure`` is what to return; None where nobody else is involved (our own onion did not fit). One with
    ``sha256_of_onion`` (the BADONION codes) goes into ``update_fail_malformed_htlc``; any other one, and
    ``invalid_onion_blinding`` at the introduction node of a blinded path, is encoded by
    ``leyden.wire.failures.encode_failure``, wrapped by ``make_failure`` and sent in ``update_fail_htlc``.
    """

    def __init__(self, broken: Rule, message: str, *, failure: Failure | None = None, **details: object) -> None:
        super().__init__(broken, message, **details)
        self.failure = failure

    @property
    def failure_code(self) -> FailureCode | None:
        """The code of ``failure``, flags included."""
        return None if self.failure is None else FailureCode(self.failure.CODE)

    @property
    def sha256_of_onion(self) -> bytes | None:
        """Digest of the packet as it arrived, if the failure is one of the malformed ones."""
        if isinstance(self.failure, InvalidOnionVersion | InvalidOnionHmac | InvalidOnionKey | InvalidOnionBlinding):
            return self.failure.sha256_of_onion
        return None
