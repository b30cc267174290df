"""What can go wrong with an Electrum server."""

from leyden.types import LeydenError, clean_text

MAX_WORDS = 200
"""Characters of what a server says that are repeated to a person."""


class ServerUnavailable(LeydenError):
    """The server does not answer, or not now: worth trying again soon, and another server meanwhile."""


class ServerFault(LeydenError):
    """The server said something that is false or makes no sense: it is left for a long time, and that is reported."""


class ServerUnusable(ServerFault):
    """The server will not do as it is configured: another network, another certificate, too old a protocol."""


class OtherMoment(LeydenError):
    """The server's answers are not of one moment: ask again, and not for ever."""


BUSY = (-101, -102)
"""Codes with which servers of the ElectrumX family say that they have no time for us now."""


class ServerRefused(LeydenError):
    """The server answered a request with an error; ``message`` are its words on one line, ``words`` as they came."""

    def __init__(self, method: str, code: int, message: str) -> None:
        self.code = code
        self.words = message
        self.message = clean_text(message, MAX_WORDS)
        super().__init__(f"it refuses {method}: {self.message} (code {code})")

    def as_trouble(self) -> ServerFault | ServerUnavailable:
        """Where no server may refuse: it is too busy, or none that can serve us."""
        return ServerUnavailable(str(self)) if self.code in BUSY else ServerFault(str(self))
