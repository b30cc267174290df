"""A channel in any moment of its life hears anything: whatever comes, a step gives a channel that can be stored."""

from functools import cache
from typing import NamedTuple

from leyden.bitcoin import Network
from leyden.channel import Channel, Env
from leyden.channel import events as ev
from leyden.crypto import sha256
from leyden.testing.channel_pair import ChannelEnd, ChannelPair
from leyden.types import Preimage
from leyden.wire import UnknownMessage, WireError, decode
from leyden_inmemory import InMemoryKeyManager

_SIGNERS = [InMemoryKeyManager(bytes([n]) * 32, Network.REGTEST).channel_signer for n in (1, 2)]


class Moment(NamedTuple):
    """An end of a pair just before it hears ``coming``."""

    name: str
    channel: Channel
    env: Env
    coming: tuple[bytes, ...]


class _Recorder(ChannelPair):
    def __init__(self) -> None:
        super().__init__(*_SIGNERS)
        self.moments: list[Moment] = []

    def deliver(self, source: ChannelEnd, limit: int = 1_000_000) -> int:
        target = self.other(source)
        if source.sent and target.channel_or_none is not None:
            self.moments.append(Moment(target.name, target.channel, target.env, tuple(source.sent)))
        return super().deliver(source, limit)


def preimage_of(amount: int) -> Preimage:
    """As ``ChannelPair.add`` makes it."""
    return Preimage(sha256(b"preimage" + amount.to_bytes(8, "big")))


@cache
def moments() -> tuple[Moment, ...]:
    """Opening, HTLCs that are paid, fail and stay, a lost connection, another feerate, a close: in order."""
    pair = _Recorder()
    pair.open(push_msat=300_000_000)
    a, b = pair.ends
    first, second = pair.add(a, 5_000_000), pair.add(a, 6_000_000)
    third = pair.add(b, 7_000_000)
    pair.settle()
    b.do(ev.FulfillHtlc(id=first, preimage=preimage_of(5_000_000)))
    b.do(ev.FailHtlc(id=second, reason=bytes(292)))
    pair.settle()
    pair.set_feerate(1_500)
    a.do(ev.FeerateChanged())
    pair.add(a, 8_000_000)
    pair.end_turn(a)
    pair.reconnect()
    a.do(ev.FulfillHtlc(id=third, preimage=preimage_of(7_000_000)))
    b.do(ev.FailHtlc(id=second + 1, reason=b"no"))
    pair.settle()
    a.do(ev.Shutdown())
    pair.settle()
    return tuple(pair.moments)


def channel_messages(data: bytes) -> None:
    """The moment, then messages behind two bytes of length; an empty one ends the turn, 0xffff cuts the connection."""
    found = moments()
    moment = found[data[0] % len(found) if data else 0]
    end = ChannelEnd(moment.name, _SIGNERS[moment.name == "b"], moment.env.policy, moment.env.features)
    end.channel_or_none, end.env = moment.channel, moment.env
    at = 1
    while at + 2 <= len(data) and not end.channel.is_terminal:
        size = int.from_bytes(data[at : at + 2], "big")
        at += 2
        if size == 0xFFFF:
            end.do(ev.PeerDisconnected())
            end.do(ev.PeerConnected(features=moment.env.features))
        elif size == 0:
            end.do(ev.TurnEnded())
        else:
            _hear(end, data[at : at + size])
            at += size
    if not end.channel.is_terminal:
        end.do(ev.TurnEnded())
        end.commit()
        end.restart()


def _hear(end: ChannelEnd, data: bytes) -> None:
    try:
        message = decode(data)
    except WireError:
        return
    if not isinstance(message, UnknownMessage):
        end.do(ev.MessageReceived(message=message))
