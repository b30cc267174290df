"""What the wallet cannot do."""

from leyden.types import LeydenError


class WalletError(LeydenError):
    """A request that the wallet cannot serve, or rows that it cannot read; the text says what to do."""
