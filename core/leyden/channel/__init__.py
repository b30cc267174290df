"""BOLT 2: one channel as a value.

``step(channel, event, env)`` moves it and says what to do; ``records(old, new)`` says which rows change. Nothing here
owns a socket, a clock, a key or a disk.
"""

from leyden.channel import effects, events
from leyden.channel.effects import Delivery, Effect, Effects
from leyden.channel.env import ChannelPolicy, Env, FeeRates, policy_mistake
from leyden.channel.errors import ChannelError, ErrorCode
from leyden.channel.events import AnyInput, Command, Event
from leyden.channel.limits import has_anchors
from leyden.channel.loading import load
from leyden.channel.machine import step
from leyden.channel.opening import OpenParams, check_open_channel, open_channel, receive_open_channel
from leyden.channel.records import channel_id_of, records
from leyden.channel.state import (
    ON_CHAIN,
    OPENING,
    OPERATING,
    TERMINAL,
    Channel,
    Config,
    Funding,
    Lifecycle,
    Link,
    LiveHtlc,
    Stage,
    Terms,
    Totals,
)

__all__ = [
    "ON_CHAIN",
    "OPENING",
    "OPERATING",
    "TERMINAL",
    "AnyInput",
    "Channel",
    "ChannelError",
    "ChannelPolicy",
    "Command",
    "Config",
    "Delivery",
    "Effect",
    "Effects",
    "Env",
    "ErrorCode",
    "Event",
    "FeeRates",
    "Funding",
    "Lifecycle",
    "Link",
    "LiveHtlc",
    "OpenParams",
    "Stage",
    "Terms",
    "Totals",
    "channel_id_of",
    "check_open_channel",
    "effects",
    "events",
    "has_anchors",
    "load",
    "open_channel",
    "policy_mistake",
    "receive_open_channel",
    "records",
    "step",
]
