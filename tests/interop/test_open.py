"""Channels opened by us and by the peer: each type, private and public, with pushed money."""

import pytest

from tests.interop.bed import CAPACITY
from tests.interop.peer import ChannelKind
from tests.interop.story import Story

KINDS = pytest.mark.parametrize("kind", list(ChannelKind), ids=lambda kind: kind.value)
PUBLIC = pytest.mark.parametrize("public", [False, True], ids=["private", "public"])
PUSHED = 200_000


@KINDS
@PUBLIC
async def test_by_us(story: Story, kind: ChannelKind, public: bool) -> None:
    channel = await story.open(kind=kind, public=public, push_sat=PUSHED)
    ours, theirs = await channel.usable()
    assert ours.local_is_funder
    assert ours.channel_type.startswith(kind.value)
    assert (ours.capacity_sat, theirs.capacity_sat) == (CAPACITY, CAPACITY)
    assert theirs.kind in (kind, None)
    assert theirs.public in (public, None)
    assert theirs.peer_is_funder in (False, None)
    assert ours.short_channel_id == theirs.short_channel_id
    await channel.balances((CAPACITY - PUSHED) * 1000, PUSHED * 1000)


@KINDS
@PUBLIC
async def test_by_them(story: Story, kind: ChannelKind, public: bool) -> None:
    channel = await story.opened_by_peer(kind=kind, public=public, push_sat=PUSHED)
    ours, theirs = await channel.usable()
    assert not ours.local_is_funder
    assert ours.channel_type.startswith(kind.value)
    assert (ours.capacity_sat, theirs.capacity_sat) == (CAPACITY, CAPACITY)
    assert theirs.kind in (kind, None)
    assert theirs.public in (public, None)
    assert theirs.peer_is_funder in (True, None)
    await channel.balances(PUSHED * 1000, (CAPACITY - PUSHED) * 1000)
