"""Rows of the node, version 1. A released layout never changes; see ``docs/keyspace.md``.

Transactions and numbers are fixed here. Peers and events are MessagePack maps: a later program may add a field with a
default, and a reader skips fields that it does not know.
"""

from typing import Annotated

import msgspec
from msgspec import Struct

from leyden.hooks.types import AnyEvent
from leyden.wire.codec import rest, tlv, tlv_struct, u8, u32, utf8


@tlv_struct
class TrackedTransaction(Struct, frozen=True, kw_only=True):
    """``confirmed_height`` 0: not in a block. ``conflict_height``: where another transaction took one of its inputs.
    ``claim``: under which the wallet holds its coins; empty if a channel knows, or nobody does."""

    raw: Annotated[bytes, tlv(1, rest)]
    kind: Annotated[int, tlv(3, u8)]
    confirmed_height: Annotated[int, tlv(5, u32)] = 0
    conflict_height: Annotated[int, tlv(7, u32)] = 0
    claim: Annotated[str, tlv(9, utf8)] = ""

    @property
    def decided_height(self) -> int:
        """0 while it may still enter a block and has not."""
        return self.confirmed_height or self.conflict_height


class PeerAddress(Struct, frozen=True, kw_only=True):
    host: str
    port: int


StoredEvent = tuple[int, AnyEvent]
"""Unix time and the event."""

encode_msgpack = msgspec.msgpack.Encoder().encode
decode_peer = msgspec.msgpack.Decoder(PeerAddress).decode
decode_event = msgspec.msgpack.Decoder(StoredEvent).decode
