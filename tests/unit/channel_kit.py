"""Two channels with in-memory keys, and short words for what the tests of ``leyden.channel`` do with them."""

from collections.abc import Iterable
from typing import Any, TypeVar

import pytest
from leyden.bitcoin import Network
from leyden.channel import ChannelError, ChannelPolicy, ErrorCode, Lifecycle
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.crypto import sha256
from leyden.testing.channel_pair import PAIR_FEATURES, ChannelEnd, ChannelPair
from leyden.types import Preimage
from leyden.wire import Message, decode
from leyden.wire.features import Feature, Features
from leyden_inmemory.manager import InMemoryKeyManager

M = TypeVar("M", bound=Message)

SIGNERS = [InMemoryKeyManager(bytes([n]) * 32, Network.REGTEST).channel_signer for n in (1, 2)]


def make_pair(
    *,
    policy_a: ChannelPolicy | None = None,
    policy_b: ChannelPolicy | None = None,
    features: Features = PAIR_FEATURES,
) -> ChannelPair:
    return ChannelPair(SIGNERS[0], SIGNERS[1], policy_a=policy_a, policy_b=policy_b, features=features)


def open_pair(funding: int = 1_000_000, push_msat: int = 0, **kwargs: Any) -> ChannelPair:
    pair = make_pair(**kwargs)
    pair.open(funding, push_msat)
    for end in pair.ends:
        forget(end)
    return pair


def with_features(*more: Feature) -> Features:
    return PAIR_FEATURES | Features.of(*more)


def lifecycle(end: ChannelEnd) -> Lifecycle:
    return end.channel.lifecycle


def forget(end: ChannelEnd) -> None:
    """Start a new page: effects, events and deliveries so far are of no interest."""
    end.log.clear()
    end.events.clear()
    end.deliveries.clear()
    end.disconnects.clear()


def preimage_of(amount: int) -> Preimage:
    """The preimage that ``ChannelPair.add`` makes for an amount."""
    return Preimage(sha256(b"preimage" + amount.to_bytes(8, "big")))


def send(pair: ChannelPair, target: ChannelEnd, message: Message) -> list[fx.Effect]:
    """Hand a message to one side as if the other had sent it; returns everything that side did."""
    start = len(target.log)
    target.do(ev.MessageReceived(message=message))
    return target.log[start:]


def waiting(end: ChannelEnd, kind: type[M]) -> M:
    """The one message of a kind that waits to be delivered."""
    found = [m for m in map(decode, end.sent) if isinstance(m, kind)]
    assert len(found) == 1, [type(m).__name__ for m in map(decode, end.sent)]
    return found[0]


def waiting_names(end: ChannelEnd) -> list[str]:
    return [m.NAME if isinstance(m, Message) else "?" for m in map(decode, end.sent)]


def of_kind(effects: Iterable[fx.Effect], kind: type[M]) -> list[M]:
    return [e.message for e in effects if isinstance(e, fx.Send) and isinstance(e.message, kind)]


def refused(end: ChannelEnd, command: ev.AnyInput, code: ErrorCode) -> ChannelError:
    """The command is refused and leaves the state equal."""
    before = end.channel
    with pytest.raises(ChannelError) as caught:
        end.do(command)
    assert caught.value.code is code, caught.value
    assert end.channel is before
    return caught.value


def pay(pair: ChannelPair, source: ChannelEnd, amount: int) -> None:
    """One whole payment."""
    target = pair.other(source)
    id = pair.add(source, amount)
    pair.settle()
    target.do(ev.FulfillHtlc(id=id, preimage=preimage_of(amount)))
    pair.settle()


def commit_add(pair: ChannelPair, source: ChannelEnd, amount: int, **kwargs: Any) -> int:
    """An HTLC that is irrevocably committed."""
    id = pair.add(source, amount, **kwargs)
    pair.settle()
    return id
