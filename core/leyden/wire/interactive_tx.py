"""Building a transaction together (BOLT 2)."""

from typing import Annotated

from leyden.wire import fields as f
from leyden.wire.features import Feature
from leyden.wire.layout import list_of
from leyden.wire.message import Message, message
from leyden.wire.tlv import tlv


@message(66, "tx_add_input", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxAddInput(Message, frozen=True, kw_only=True, gc=False):
    """Add an input by its whole previous transaction, or by ``shared_input_txid`` for the old funding."""

    channel_id: Annotated[bytes, f.channel_id]
    serial_id: Annotated[int, f.u64]
    prevtx: Annotated[bytes, f.var_bytes]
    prevtx_vout: Annotated[int, f.u32]
    sequence: Annotated[int, f.u32]
    shared_input_txid: Annotated[bytes | None, tlv(0, f.sha256, needs=Feature.OPTION_SPLICE)] = None


@message(67, "tx_add_output", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxAddOutput(Message, frozen=True, kw_only=True, gc=False):
    """Add an output of ``sats`` satoshi."""

    channel_id: Annotated[bytes, f.channel_id]
    serial_id: Annotated[int, f.u64]
    sats: Annotated[int, f.sat]
    script: Annotated[bytes, f.var_bytes]


@message(68, "tx_remove_input", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxRemoveInput(Message, frozen=True, kw_only=True, gc=False):
    """Take back an input that the sender added."""

    channel_id: Annotated[bytes, f.channel_id]
    serial_id: Annotated[int, f.u64]


@message(69, "tx_remove_output", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxRemoveOutput(Message, frozen=True, kw_only=True, gc=False):
    """Take back an output that the sender added."""

    channel_id: Annotated[bytes, f.channel_id]
    serial_id: Annotated[int, f.u64]


@message(70, "tx_complete", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxComplete(Message, frozen=True, kw_only=True, gc=False):
    """The sender has nothing to add; two in a row end the construction."""

    channel_id: Annotated[bytes, f.channel_id]


@message(71, "tx_signatures", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxSignatures(Message, frozen=True, kw_only=True, gc=False):
    """Witnesses for the sender's inputs, each the serialised stack, in the order of the transaction."""

    channel_id: Annotated[bytes, f.channel_id]
    txid: Annotated[bytes, f.sha256]
    witnesses: Annotated[tuple[bytes, ...], list_of(f.var_bytes, prefix=2)]
    shared_input_signature: Annotated[bytes | None, tlv(0, f.signature, needs=Feature.OPTION_SPLICE)] = None


@message(72, "tx_init_rbf", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxInitRbf(Message, frozen=True, kw_only=True, gc=False):
    """Propose to replace the unconfirmed transaction; ``feerate`` in satoshi per 1000 weight."""

    channel_id: Annotated[bytes, f.channel_id]
    locktime: Annotated[int, f.u32]
    feerate: Annotated[int, f.u32]
    funding_output_contribution: Annotated[int | None, tlv(0, f.signed_sat)] = None
    require_confirmed_inputs: Annotated[bool, tlv(2, f.flag)] = False


@message(73, "tx_ack_rbf", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxAckRbf(Message, frozen=True, kw_only=True, gc=False):
    """Agree to replace it; contributions in satoshi."""

    channel_id: Annotated[bytes, f.channel_id]
    funding_output_contribution: Annotated[int | None, tlv(0, f.signed_sat)] = None
    require_confirmed_inputs: Annotated[bool, tlv(2, f.flag)] = False


@message(74, "tx_abort", needs=(Feature.OPTION_DUAL_FUND, Feature.OPTION_SPLICE))
class TxAbort(Message, frozen=True, kw_only=True, gc=False):
    """Give the negotiation up; the channel itself stays."""

    channel_id: Annotated[bytes, f.channel_id]
    data: Annotated[bytes, f.var_bytes]
