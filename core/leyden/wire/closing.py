"""Closing a channel by agreement: legacy and simple close (BOLT 2)."""

from typing import Annotated

from msgspec import Struct

from leyden.wire import fields as f
from leyden.wire.features import Feature
from leyden.wire.layout import nested, wire_struct
from leyden.wire.message import Message, message
from leyden.wire.tlv import tlv


@wire_struct
class FeeRange(Struct, frozen=True, kw_only=True, gc=False):
    """Closing fees in satoshi that the sender would accept. The upper one may be "any", hence no bound on it."""

    min_fee_satoshis: Annotated[int, f.sat]
    max_fee_satoshis: Annotated[int, f.u64]


@message(38, "shutdown")
class Shutdown(Message, frozen=True, kw_only=True, gc=False):
    """The sender adds no more HTLCs and wants its funds at ``scriptpubkey``."""

    channel_id: Annotated[bytes, f.channel_id]
    scriptpubkey: Annotated[bytes, f.var_bytes]


@message(39, "closing_signed", unless=Feature.OPTION_SIMPLE_CLOSE)
class ClosingSigned(Message, frozen=True, kw_only=True, gc=False):
    """A fee in satoshi and the sender's signature of the closing transaction that pays it (legacy)."""

    channel_id: Annotated[bytes, f.channel_id]
    fee_satoshis: Annotated[int, f.sat]
    signature: Annotated[bytes, f.signature]
    fee_range: Annotated[FeeRange | None, tlv(1, nested(FeeRange))] = None


@message(40, "closing_complete", needs=(Feature.OPTION_SIMPLE_CLOSE,))
class ClosingComplete(Message, frozen=True, kw_only=True, gc=False):
    """The closer's proposal, signed, for one to three shapes of the closing transaction (simple close).

    ``fee_satoshis`` is paid by the closer. A record is there for each shape that is signed.
    """

    channel_id: Annotated[bytes, f.channel_id]
    closer_scriptpubkey: Annotated[bytes, f.var_bytes]
    closee_scriptpubkey: Annotated[bytes, f.var_bytes]
    fee_satoshis: Annotated[int, f.sat]
    locktime: Annotated[int, f.u32]
    closer_output_only: Annotated[bytes | None, tlv(1, f.signature)] = None
    closee_output_only: Annotated[bytes | None, tlv(2, f.signature)] = None
    closer_and_closee_outputs: Annotated[bytes | None, tlv(3, f.signature)] = None


@message(41, "closing_sig", needs=(Feature.OPTION_SIMPLE_CLOSE,))
class ClosingSig(Message, frozen=True, kw_only=True, gc=False):
    """The closee's signature of exactly one shape that ``ClosingComplete`` offered (simple close)."""

    channel_id: Annotated[bytes, f.channel_id]
    closer_scriptpubkey: Annotated[bytes, f.var_bytes]
    closee_scriptpubkey: Annotated[bytes, f.var_bytes]
    fee_satoshis: Annotated[int, f.sat]
    locktime: Annotated[int, f.u32]
    closer_output_only: Annotated[bytes | None, tlv(1, f.signature)] = None
    closee_output_only: Annotated[bytes | None, tlv(2, f.signature)] = None
    closer_and_closee_outputs: Annotated[bytes | None, tlv(3, f.signature)] = None
