"""What the embedded chain refuses, and why."""

from leyden.types import LeydenError


class ChainError(LeydenError):
    """The embedded chain cannot do what was asked (bad argument, broken folder, server not reachable)."""


class BlockRefused(ChainError):
    """The kernel refused a block; the message carries its reason, for example ``bad-cb-amount``."""


class TransactionRefused(ChainError):
    """The mempool refused a transaction. ``code`` is a short stable word, bitcoind's own where it has one."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(f"{code}: {message}" if message else code)
