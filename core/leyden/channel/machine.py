"""One step of a channel."""

from leyden.channel.effects import Effects
from leyden.channel.env import Env
from leyden.channel.events import AnyInput
from leyden.channel.state import Channel


def step(channel: Channel, event: AnyInput, env: Env) -> tuple[Channel, Effects]:
    """The channel after ``event`` and what the shell has to do, in order.

    A peer's violation is a result: the state fails or stays, with the effects that the rule demands.
    An illegal command raises ``ChannelError``; nothing has changed then.
    """
    raise NotImplementedError
