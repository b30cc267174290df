"""Cutting a connection between any two messages: our end of the encrypted session, with a budget."""

from typing import cast

from leyden.node.driver import PeerSocket
from leyden.node.peer import Peer
from leyden.transport import Session

CHANNEL_MESSAGES = range(32, 256)
"""Types that are about channels (BOLT 2); pings and gossip come and go as they like."""


class Cutter:
    """Lets ``budget`` more channel messages of both directions through; then the connection is dead.

    What is on the way by then is lost, as when a cable is pulled.
    """

    def __init__(self, peer: Peer, budget: int) -> None:
        assert peer._session is not None
        self.left = budget
        self.cut = False
        self.peer = peer
        self._session: Session = peer._session
        peer._session = cast(Session, self)  # the two methods that a peer calls

    def remove(self) -> None:
        """Nothing more is counted."""
        if not self.cut:
            self.peer._session = self._session

    def encrypt(self, message: bytes) -> bytes:
        return self._session.encrypt(message) if self._passes(message) else b""

    def feed(self, data: bytes) -> list[bytes]:
        return [message for message in self._session.feed(data) if self._passes(message)]

    def _passes(self, message: bytes) -> bool:
        if self.cut:
            return False
        if int.from_bytes(message[:2], "big") in CHANNEL_MESSAGES:
            self.left -= 1
        if self.left >= 0:
            return True
        self.cut = True
        cast(PeerSocket, self.peer._wire).abort()
        return False
