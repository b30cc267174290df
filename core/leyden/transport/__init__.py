"""BOLT 8: the authenticated handshake and the encrypted framing, without sockets, clocks, randomness or static keys.

The shell reads bytes, asks the ``NodeIdentity`` for each Diffie-Hellman answer that needs the static key, and hands
both in. A dialler drives ``InitiatorHandshake``, a listener ``ResponderHandshake``; both end in a ``Session``.
``ActBuffer`` cuts the acts out of the TCP stream.
"""

from leyden.transport.errors import HandshakeFailure, HandshakeOrderError, TransportError
from leyden.transport.handshake import (
    ACT_ONE_SIZE,
    ACT_THREE_SIZE,
    ACT_TWO_SIZE,
    ActBuffer,
    InitiatorHandshake,
    ResponderHandshake,
)
from leyden.transport.session import MAX_MESSAGE_SIZE, Session

__all__ = [
    "ACT_ONE_SIZE",
    "ACT_THREE_SIZE",
    "ACT_TWO_SIZE",
    "MAX_MESSAGE_SIZE",
    "ActBuffer",
    "HandshakeFailure",
    "HandshakeOrderError",
    "InitiatorHandshake",
    "ResponderHandshake",
    "Session",
    "TransportError",
]
