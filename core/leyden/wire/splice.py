"""Quiescence, splicing and batches (BOLT 2)."""

from typing import Annotated

from leyden.wire import fields as f
from leyden.wire.features import Feature
from leyden.wire.message import Message, message
from leyden.wire.tlv import tlv


@message(2, "stfu", needs=(Feature.OPTION_QUIESCE,))
class Stfu(Message, frozen=True, kw_only=True, gc=False):
    """The sender has no update pending and goes quiet; ``initiator`` is 1 for who asked first."""

    channel_id: Annotated[bytes, f.channel_id]
    initiator: Annotated[int, f.u8]


@message(80, "splice_init", needs=(Feature.OPTION_SPLICE,))
class SpliceInit(Message, frozen=True, kw_only=True, gc=False):
    """Propose a splice; a negative contribution (satoshi) takes funds out."""

    channel_id: Annotated[bytes, f.channel_id]
    funding_contribution_satoshis: Annotated[int, f.signed_sat]
    funding_feerate_perkw: Annotated[int, f.u32]
    locktime: Annotated[int, f.u32]
    funding_pubkey: Annotated[bytes, f.point]
    require_confirmed_inputs: Annotated[bool, tlv(2, f.flag)] = False


@message(81, "splice_ack", needs=(Feature.OPTION_SPLICE,))
class SpliceAck(Message, frozen=True, kw_only=True, gc=False):
    """Agree to a splice; contribution of the accepting side in satoshi."""

    channel_id: Annotated[bytes, f.channel_id]
    funding_contribution_satoshis: Annotated[int, f.signed_sat]
    funding_pubkey: Annotated[bytes, f.point]
    require_confirmed_inputs: Annotated[bool, tlv(2, f.flag)] = False


@message(77, "splice_locked", needs=(Feature.OPTION_SPLICE,))
class SpliceLocked(Message, frozen=True, kw_only=True, gc=False):
    """The splice transaction is deep enough for the sender; txid in internal order."""

    channel_id: Annotated[bytes, f.channel_id]
    splice_txid: Annotated[bytes, f.sha256]


@message(127, "start_batch", needs=(Feature.OPTION_SPLICE,))
class StartBatch(Message, frozen=True, kw_only=True, gc=False):
    """The next ``batch_size`` messages are handled together."""

    channel_id: Annotated[bytes, f.channel_id]
    batch_size: Annotated[int, f.u16]
    message_type: Annotated[int | None, tlv(1, f.u16)] = None
