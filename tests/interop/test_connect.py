"""Connections: dialled by either side, what both offer, pings."""

import pytest
from leyden.wire import Ping
from leyden.wire.features import Feature

from tests.interop.bed import Bed
from tests.interop.story import Story


async def test_we_dial(story: Story) -> None:
    await story.connect()
    (peer,) = story.node.peers()
    assert (peer.node_id, peer.inbound) == (story.bed.node_id, False)
    await story.hang_up()


async def test_they_dial(story: Story) -> None:
    await story.connect_in()
    (peer,) = story.node.peers()
    assert (peer.node_id, peer.inbound) == (story.bed.node_id, True)


async def test_they_hang_up(story: Story) -> None:
    await story.connect()
    await story.ask(story.peer.disconnect, story.node.node_id.hex())
    await story.until(lambda: story.connection is None, "the peer hung up")


async def test_features(story: Story) -> None:
    """What every node of today offers, and what our channels need."""
    await story.connect()
    assert story.connection is not None
    offered = story.connection.features
    for feature in (
        Feature.OPTION_DATA_LOSS_PROTECT,
        Feature.VAR_ONION_OPTIN,
        Feature.OPTION_STATIC_REMOTEKEY,
        Feature.PAYMENT_SECRET,
        Feature.OPTION_ANCHORS,
        Feature.OPTION_CHANNEL_TYPE,
    ):
        assert offered.offers(feature), feature


async def test_our_ping(story: Story) -> None:
    """The pong has as many bytes as we asked for: one of another length would end the connection (C-146)."""
    await story.connect()
    connection = story.connection
    assert connection is not None
    for size in (0, 8, 1000):
        connection._pong_due = size
        story.node.core.engine.post(lambda size=size: connection.send(Ping(num_pong_bytes=size, ignored=bytes(3))))
        await story.until(lambda: connection._pong_due is None, f"a pong of {size} bytes")
    assert story.connection is connection


@pytest.mark.last
def test_their_ping(bed: Bed) -> None:
    """Seen by a connection that was open beside all the other scenarios; our pong is what they expect."""
    observer = bed.observer
    assert observer is not None
    bed.wait(lambda: bool(observer.pings), "the peer pings", 100.0)
    assert all(size < 65_532 for size in observer.pings), "no answer is due above that (C-145)"
