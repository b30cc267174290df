"""A channel waits for ``channel_reestablish`` as long as its peer likes: once a person has to hear of it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from leyden.channel import OPERATING, Link
from leyden.hooks.types import Alarm, NodeEvent
from leyden.node.host import Host, TimerHandle
from leyden.types import NodeId

if TYPE_CHECKING:
    from leyden.node.channels import ChannelActor

SILENT_SECONDS = 60.0
"""A peer that has not said ``channel_reestablish`` so long after ``init`` leaves a person something to look at."""


class Silence:
    """Looks at the channels of each peer once after it has connected; ``channels`` are those of one peer."""

    def __init__(
        self,
        host: Host,
        post: Callable[[Callable[[], None]], None],
        publish: Callable[[NodeEvent], None],
        channels: Callable[[NodeId], Sequence["ChannelActor"]],
    ) -> None:
        self._host = host
        self._post = post
        self._publish = publish
        self._channels = channels
        self._timers: dict[NodeId, TimerHandle] = {}

    def on_ready(self, node_id: NodeId) -> None:
        """The time counts from the newest connection."""
        self.on_gone(node_id)
        if not self._channels(node_id):
            return

        def look() -> None:
            if self._timers.get(node_id) is timer:  # else it has left, or come again, since the timer ran out
                del self._timers[node_id]
                self._look(node_id)

        timer = self._timers[node_id] = self._host.call_later(SILENT_SECONDS, lambda: self._post(look))

    def on_gone(self, node_id: NodeId) -> None:
        """Whoever comes and goes leaves no timers behind."""
        timer = self._timers.pop(node_id, None)
        if timer is not None:
            timer.cancel()

    def _look(self, node_id: NodeId) -> None:
        for actor in self._channels(node_id):
            channel = actor.channel
            waits = channel.link is Link.REESTABLISHING and channel.lifecycle in OPERATING
            silent = waits and channel.reestablish is None  # else it has spoken, and our signer thinks about it
            if silent and not actor.silent:
                text = f"{node_id.hex()} is connected but does not resume channel {channel.channel_id.hex()}"
                self._publish(Alarm(subject="peer_silent", text=text))
            actor.silent = silent
