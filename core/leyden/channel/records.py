"""Rows of a channel: which change from one state to the next, and the state from its rows."""

from collections.abc import Iterable

from leyden.channel.state import Channel
from leyden.hooks.types import RecordChanges


def records(old: Channel | None, new: Channel | None) -> RecordChanges:
    """Rows to put and delete so that the store holds ``new`` where it held ``old``; empty if no row changes."""
    raise NotImplementedError


def load(rows: Iterable[tuple[bytes, bytes]]) -> Channel:
    """The channel of these rows (all rows of one channel, any order); ``link`` is down. Send ``Restarted`` next."""
    raise NotImplementedError


def channel_id_of(key: bytes) -> bytes:
    """The channel id inside a row key."""
    return key[1:33]
