"""The working surface of one step: the channel so far and the effects so far."""

from typing import Any

from msgspec.structs import replace

from leyden.channel.effects import Deliver, Delivery, Disconnect, Effect, Publish, Send, SetTimer, Sign
from leyden.channel.env import Env
from leyden.channel.state import Awaiting, Channel, Link, ShutdownState
from leyden.hooks.signing import AnySignerRequest
from leyden.hooks.types import Alarm, NodeEvent
from leyden.types import LeydenError, RuleViolation
from leyden.wire import ErrorMessage, Message, WarningMessage


class Misplaced(LeydenError):
    """A message that this state does not expect: costs a warning and the connection (BOLT 2 leaves it open)."""


class FailNow(LeydenError):
    """The channel has to fail with this text (not by a rule of the checklist but as BOLT 1 or 2 demands)."""


class Turn:
    """Mutable for the length of one step; ``channel`` is replaced, never changed in place."""

    __slots__ = ("channel", "effects", "env")

    def __init__(self, channel: Channel, env: Env) -> None:
        self.channel = channel
        self.env = env
        self.effects: list[Effect] = []

    def set(self, **changes: Any) -> None:
        self.channel = replace(self.channel, **changes)

    def set_shutdown(self, **changes: Any) -> None:
        self.channel = replace(self.channel, shutdown=replace(self.channel.shutdown, **changes))

    @property
    def shutdown(self) -> ShutdownState:
        return self.channel.shutdown

    # -- effects -------------------------------------------------------------------------------------------------------

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    def deliver(self, delivery: Delivery) -> None:
        self.effects.append(Deliver(delivery=delivery))

    def publish(self, event: NodeEvent) -> None:
        self.effects.append(Publish(event=event))

    def alarm(self, subject: str, text: str) -> None:
        self.publish(Alarm(subject=subject, text=text))

    def set_timer(self, name: str, seconds: int) -> None:
        self.effects.append(SetTimer(name=name, seconds=seconds))

    def disconnect(self, reason: str) -> None:
        self.effects.append(Disconnect(reason=reason))

    def send_now(self, message: Message) -> None:
        """Past the outbox: errors, warnings, opening messages, ``channel_reestablish``."""
        self.effects.append(Send(message=message))

    def send(self, message: Message) -> None:
        """In order: waits while an earlier message still waits for the signer; dropped while the link is not up."""
        channel = self.channel
        if channel.link is not Link.UP:
            return
        if channel.outbox:
            self.set(outbox=(*channel.outbox, message))
        else:
            self.effects.append(Send(message=message))

    def send_error(self, text: str) -> None:
        self.send_now(ErrorMessage(channel_id=self.channel.channel_id, data=text.encode()))

    def send_warning(self, text: str) -> None:
        self.send_now(WarningMessage(channel_id=self.channel.channel_id, data=text.encode()))

    # -- signer --------------------------------------------------------------------------------------------------------

    def request_id(self, operation: str, number: int | str) -> str:
        return f"{self.channel.channel_id.hex()}:{operation}:{number}"

    def ask(self, request: AnySignerRequest) -> None:
        """Put a question to the signer; one that it refused stays open but is never put to it again."""
        channel = self.channel
        if all(known.request_id != request.request_id for known in channel.pending):
            self.set(pending=(*channel.pending, request))
        if request.request_id not in channel.refused:
            self.effects.append(Sign(request=request))

    def hold_place(self, request_id: str) -> None:
        """Keep a place in the outbox for the message that the answer will make."""
        if self.channel.link is Link.UP:
            self.set(outbox=(*self.channel.outbox, Awaiting(request_id=request_id)))

    def fill_place(self, request_id: str, message: Message) -> None:
        """The message for a held place is there: send everything that has become ready. No place: nothing to send."""
        outbox = list(self.channel.outbox)
        for index, item in enumerate(outbox):
            if isinstance(item, Awaiting) and item.request_id == request_id:
                outbox[index] = message
                break
        else:
            return
        ready = 0
        for item in outbox:
            if isinstance(item, Awaiting):
                break
            self.effects.append(Send(message=item))
            ready += 1
        self.set(outbox=tuple(outbox[ready:]))

    def is_pending(self, operation: str) -> bool:
        marker = f":{operation}:"
        return any(marker in request.request_id for request in self.channel.pending)


def one_line(error: Exception) -> str:
    """What we tell the peer: the rule's message with its values, without quoting its bytes."""
    return error.message if isinstance(error, RuleViolation) else str(error)
