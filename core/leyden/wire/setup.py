"""Messages about the connection itself (BOLT 1)."""

from typing import Annotated

from leyden.wire import fields as f
from leyden.wire.features import Feature
from leyden.wire.layout import list_of
from leyden.wire.message import Message, message
from leyden.wire.tlv import tlv


@message(16, "init")
class Init(Message, frozen=True, kw_only=True, gc=False):
    """First message of each side: features, chains, and the address that the sender sees us at.

    Both bitmaps count together (``received_features``); nodes of today leave ``globalfeatures`` empty. ``networks`` are
    chain hashes, ``remote_addr`` one address descriptor of BOLT 7.
    """

    globalfeatures: Annotated[bytes, f.var_bytes]
    features: Annotated[bytes, f.var_bytes]
    networks: Annotated[tuple[bytes, ...] | None, tlv(1, list_of(f.chain_hash))] = None
    remote_addr: Annotated[bytes | None, tlv(3, f.rest)] = None


@message(17, "error")
class ErrorMessage(Message, frozen=True, kw_only=True, gc=False):
    """Something is beyond repair: fail ``channel_id``, or every channel with the sender when it is all zeros."""

    channel_id: Annotated[bytes, f.channel_id]
    data: Annotated[bytes, f.var_bytes]


@message(1, "warning")
class WarningMessage(Message, frozen=True, kw_only=True, gc=False):
    """Something is wrong but no channel fails by it; ``data`` is text for people, if printable."""

    channel_id: Annotated[bytes, f.channel_id]
    data: Annotated[bytes, f.var_bytes]


@message(18, "ping")
class Ping(Message, frozen=True, kw_only=True, gc=False):
    """Ask for a ``pong`` of ``num_pong_bytes`` bytes; none is due from 65532 on."""

    num_pong_bytes: Annotated[int, f.u16]
    ignored: Annotated[bytes, f.var_bytes]


@message(19, "pong")
class Pong(Message, frozen=True, kw_only=True, gc=False):
    """Answer to ``ping``; ``ignored`` has the length that was asked for."""

    ignored: Annotated[bytes, f.var_bytes]


@message(7, "peer_storage", needs=(Feature.OPTION_PROVIDE_STORAGE,))
class PeerStorage(Message, frozen=True, kw_only=True, gc=False):
    """A blob, opaque to the receiver, to be kept and given back; it replaces the one before."""

    blob: Annotated[bytes, f.var_bytes]


@message(9, "peer_storage_retrieval", needs=(Feature.OPTION_PROVIDE_STORAGE,))
class PeerStorageRetrieval(Message, frozen=True, kw_only=True, gc=False):
    """The blob that the receiver stored with the sender."""

    blob: Annotated[bytes, f.var_bytes]
