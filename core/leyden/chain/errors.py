"""What a chain source can get wrong."""

from leyden.types import LeydenError


class ChainSourceError(LeydenError):
    """A source delivered something that no honest chain contains: bad linkage, missing work, a body that does not
    match its header, a fork below everything we keep. Nothing of it was taken; the shell stops trusting the source."""


class HeaderFromFuture(ChainSourceError):
    """A header more than two hours ahead of our clock: refused now, possibly fine later, or our clock is wrong."""
