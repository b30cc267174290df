"""Public channels: when ``announcement_signatures`` leave, what is taken, and what both make (C-209 to C-212)."""

import pytest
from channel_kit import SIGNERS, forget, send
from leyden.bitcoin import Network
from leyden.channel import events as ev
from leyden.channel import load
from leyden.channel.announce import channel_announcement
from leyden.node.host import run_inline
from leyden.testing.channel_pair import ChannelEnd, ChannelPair, names
from leyden.types import BlockHeight
from leyden.wire import AnnouncementSignatures, ChannelAnnouncement
from leyden.wire.gossip_signatures import check_channel_announcement
from leyden_inmemory.manager import InMemoryKeyManager
from msgspec.structs import replace

MANAGERS = [InMemoryKeyManager(bytes([n]) * 32, Network.REGTEST) for n in (1, 2)]
NODE_IDS = [run_inline(manager.node_id()) for manager in MANAGERS]
WARNED = ["send warning", "disconnect"]


def public_pair(depth: int = 6, *, announce: bool = True, swapped: bool = False) -> ChannelPair:
    """An open channel whose funding has ``depth`` confirmations."""
    order = (1, 0) if swapped else (0, 1)
    pair = ChannelPair(*(SIGNERS[i] for i in order))
    for end, mine, theirs in ((pair.a, *order), (pair.b, *order[::-1])):
        end.identity = MANAGERS[mine]
        end.env = replace(end.env, node_id=NODE_IDS[mine], peer=NODE_IDS[theirs])
    pair.open(push_msat=300_000_000, announce=announce)
    if depth > 1:
        pair.mine(depth - 1)
        pair.settle()
    return pair


def sent(end: ChannelEnd) -> list[AnnouncementSignatures]:
    found = [getattr(effect, "message", None) for effect in end.log]
    return [message for message in found if isinstance(message, AnnouncementSignatures)]


def made(end: ChannelEnd) -> ChannelAnnouncement | None:
    return channel_announcement(end.channel, end.env.node_id, end.env.chain_hash)


@pytest.mark.proves("C-212")
@pytest.mark.parametrize("swapped", [False, True])
def test_both_make_the_same_announcement(swapped: bool) -> None:
    pair = public_pair(swapped=swapped)
    near, far = made(pair.a), made(pair.b)
    assert near is not None
    assert near == far
    check_channel_announcement(near)
    assert [near.node_id_1, near.node_id_2] == sorted(NODE_IDS)
    keys = pair.a.channel.setup
    first = NODE_IDS[1 if swapped else 0] == near.node_id_1
    assert near.bitcoin_key_1 == (keys.local_keys if first else keys.remote_keys).funding_pubkey
    assert near.short_channel_id == pair.a.channel.short_channel_id
    assert near.features == b""
    for end in pair.ends:
        assert made(end) == channel_announcement(load(end.rows.items()), end.env.node_id, end.env.chain_hash)


@pytest.mark.proves("C-209")
def test_six_confirmations_are_waited_for() -> None:
    pair = public_pair(5)
    assert not sent(pair.a)
    assert made(pair.a) is None
    pair.mine(1)
    pair.settle()
    assert [len(sent(end)) for end in pair.ends] == [1, 1]
    assert made(pair.a) is not None


@pytest.mark.proves("C-209")
def test_a_private_channel_is_never_announced() -> None:
    pair = public_pair(announce=False)
    assert not sent(pair.a)
    message = AnnouncementSignatures(
        channel_id=pair.a.channel.channel_id,
        short_channel_id=pair.a.channel.short_channel_id or 0,
        node_signature=bytes(64),
        bitcoin_signature=bytes(64),
    )
    assert names(send(pair, pair.a, message)) == WARNED


@pytest.mark.proves("C-209")
def test_a_channel_that_closes_is_not_announced() -> None:
    pair = public_pair(5)
    pair.add(pair.a, 5_000_000)
    pair.settle()
    pair.a.do(ev.Shutdown())
    pair.settle()
    pair.mine(1)
    pair.settle()
    assert not sent(pair.a)


@pytest.mark.proves("C-210")
def test_an_early_one_waits_and_each_is_answered_once() -> None:
    pair = public_pair(5)
    ahead = replace(pair.a.env, height=BlockHeight(pair.a.env.height + 1))
    pair.a.env = ahead
    pair.a.do(ev.BlockConnected(height=ahead.height))
    pair.settle()
    assert [len(sent(end)) for end in pair.ends] == [1, 0]
    assert pair.b.channel.remote_announcement is None
    pair.b.env = replace(pair.b.env, height=ahead.height)
    pair.b.do(ev.BlockConnected(height=ahead.height))
    pair.settle()
    assert [len(sent(end)) for end in pair.ends] == [1, 1]
    assert made(pair.a) == made(pair.b) is not None
    for _ in range(3):
        pair.a.do(ev.MessageReceived(message=sent(pair.b)[0]))
    pair.settle()
    assert [len(sent(end)) for end in pair.ends] == [1, 1]


@pytest.mark.proves("C-210")
def test_it_is_repeated_on_reconnection_until_the_peers_is_there() -> None:
    pair = public_pair()
    pair.reconnect()
    assert [len(sent(end)) for end in pair.ends] == [1, 1], "both have both"
    pair.a.channel_or_none = replace(pair.a.channel, remote_announcement=None)
    pair.reconnect()
    assert [len(sent(end)) for end in pair.ends] == [2, 2], "asked for and answered"
    assert made(pair.a) == made(pair.b) is not None


@pytest.mark.proves("C-211")
@pytest.mark.parametrize("field", ["node_signature", "bitcoin_signature", "short_channel_id"])
def test_a_wrong_one_is_not_kept(field: str) -> None:
    pair = public_pair()
    good = sent(pair.b)[0]
    pair.a.channel_or_none = replace(pair.a.channel, remote_announcement=None)
    bad = replace(good, **{field: good.short_channel_id + 1 if field == "short_channel_id" else bytes(64)})
    forget(pair.a)
    words = names(send(pair, pair.a, bad))
    assert words == (["send warning"] if field == "short_channel_id" else WARNED)
    assert pair.a.channel.remote_announcement is None


def test_a_wrong_early_one_does_not_stop_the_block() -> None:
    pair = public_pair(5)
    id = pair.add(pair.a, 5_000_000, expiry=120)
    pair.settle()
    bad = AnnouncementSignatures(
        channel_id=pair.a.channel.channel_id,
        short_channel_id=pair.a.channel.short_channel_id or 0,
        node_signature=bytes(64),
        bitcoin_signature=bytes(64),
    )
    assert names(send(pair, pair.a, bad)) == []
    height = BlockHeight(120 + pair.a.env.policy.offered_htlc_grace)
    pair.a.env = replace(pair.a.env, height=height)
    words = names(pair.a.do(ev.BlockConnected(height=height)))
    assert "send warning" in words
    assert "publish ChannelClosing" in words, f"HTLC {id} is past its deadline"


def test_a_reorg_makes_new_signatures() -> None:
    pair = public_pair()
    before = made(pair.a)
    for end in pair.ends:
        end.do(ev.FundingUnconfirmed())
    assert made(pair.a) is None
    pair.confirm_funding(6)
    pair.settle()
    after = made(pair.a)
    assert after is not None
    assert before is not None
    assert after.short_channel_id != before.short_channel_id
    check_channel_announcement(after)
    assert after == made(pair.b)


def test_a_slow_signer_and_a_restart() -> None:
    pair = public_pair(5)
    pair.a.hold_signer = True
    pair.mine(1)
    pair.settle()
    assert not sent(pair.a)
    pair.a.hold_signer = False
    pair.disconnect()
    pair.a.restart()
    pair.connect()
    pair.settle()
    assert made(pair.a) == made(pair.b) is not None
