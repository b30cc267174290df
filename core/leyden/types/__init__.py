"""Units, identifiers, sides and rules: the bottom of the core; it imports nothing of Leyden.

Amounts, feerates and heights are distinct types (``NewType`` over ``int``: free at run time, checked by mypy):
``Sat`` and ``Msat`` are satoshi and millisatoshi, ``FeeRatePerKw`` is sat per 1000 weight units,
``BlockHeight`` and ``CltvDelta`` are blocks.
"""

from leyden.types.errors import LeydenError, Reaction, RecordError, Rule, RuleViolation, all_rules, require, rule
from leyden.types.ids import (
    BlockHash,
    ChannelId,
    KeysId,
    NodeId,
    OutPoint,
    PaymentHash,
    PaymentSecret,
    Preimage,
    ShortChannelId,
    Side,
    Txid,
    format_short_channel_id,
    make_short_channel_id,
    parse_short_channel_id,
)
from leyden.types.text import clean_text
from leyden.types.units import (
    MAX_MONEY_MSAT,
    MAX_MONEY_SAT,
    BlockHeight,
    CltvDelta,
    FeeRatePerKw,
    Msat,
    Sat,
    fee_for_weight,
    msat_floor_sat,
    sat_to_msat,
)

__all__ = [
    "MAX_MONEY_MSAT",
    "MAX_MONEY_SAT",
    "BlockHash",
    "BlockHeight",
    "ChannelId",
    "CltvDelta",
    "FeeRatePerKw",
    "KeysId",
    "LeydenError",
    "Msat",
    "NodeId",
    "OutPoint",
    "PaymentHash",
    "PaymentSecret",
    "Preimage",
    "Reaction",
    "RecordError",
    "Rule",
    "RuleViolation",
    "Sat",
    "ShortChannelId",
    "Side",
    "Txid",
    "all_rules",
    "clean_text",
    "fee_for_weight",
    "format_short_channel_id",
    "make_short_channel_id",
    "msat_floor_sat",
    "parse_short_channel_id",
    "require",
    "rule",
    "sat_to_msat",
]
