"""Onion messages and blinded paths (BOLT 4)."""

from typing import Annotated

from msgspec import Struct

from leyden.wire import fields as f
from leyden.wire.features import Feature
from leyden.wire.layout import list_of, nested, tlv_struct, wire_struct
from leyden.wire.message import Message, message
from leyden.wire.tlv import UnknownRecord, keep_unknown, tlv


@wire_struct
class BlindedPathHop(Struct, frozen=True, kw_only=True, gc=False):
    """One hop: its blinded key and what only it can read."""

    blinded_node_id: Annotated[bytes, f.point]
    encrypted_recipient_data: Annotated[bytes, f.var_bytes]


@wire_struct
class BlindedPath(Struct, frozen=True, kw_only=True, gc=False):
    """A way to somebody who does not tell who they are.

    ``first_node_id`` is a public key or the direction of a channel and its short id.
    """

    first_node_id: Annotated[bytes, f.sciddir_or_pubkey]
    first_path_key: Annotated[bytes, f.point]
    path: Annotated[tuple[BlindedPathHop, ...], list_of(BlindedPathHop, prefix=1)]


@message(513, "onion_message", needs=(Feature.OPTION_ONION_MESSAGES,))
class OnionMessage(Message, frozen=True, kw_only=True, gc=False):
    """A message for somebody else, wrapped like a payment onion (usually 1366 or 32834 bytes)."""

    path_key: Annotated[bytes, f.point]
    onion_message_packet: Annotated[bytes, f.var_bytes]


@tlv_struct
class OnionMessagePayload(Struct, frozen=True, kw_only=True, gc=False):
    """What one hop finds in an onion message. BOLT 12 documents stay bytes: their signatures cover the bytes."""

    reply_path: Annotated[BlindedPath | None, tlv(2, nested(BlindedPath))] = None
    encrypted_recipient_data: Annotated[bytes | None, tlv(4, f.rest)] = None
    invoice_request: Annotated[bytes | None, tlv(64, f.rest)] = None
    invoice: Annotated[bytes | None, tlv(66, f.rest)] = None
    invoice_error: Annotated[bytes | None, tlv(68, f.rest)] = None
    unknown: Annotated[tuple[UnknownRecord, ...], keep_unknown] = ()
