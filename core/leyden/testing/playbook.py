"""Playbooks: events in, effects out, for one channel without a peer.

A ``Playbook`` holds a channel and says what each event must produce, in the words of ``names``::

    book = Playbook(channel, env)
    book.expect(AddHtlc(...), "htlcadded", "send update_add_htlc")
    book.expect(TurnEnded(), "sign SignCounterpartyCommitment")
    book.refuses(UpdateFee(feerate=1), ErrorCode.NOT_FUNDER)
"""

from collections.abc import Sequence

from leyden.channel import AnyInput, Channel, ChannelError, Effect, Env, ErrorCode, step
from leyden.testing.channel_pair import names
from leyden.types import LeydenError


class PlaybookError(LeydenError):
    """The channel did something else than the playbook says."""


class Playbook:
    """A channel under test and every effect it has asked for."""

    def __init__(self, channel: Channel, env: Env) -> None:
        self.channel = channel
        self.env = env
        self.effects: list[Effect] = []

    def do(self, event: AnyInput) -> Sequence[Effect]:
        """One step."""
        self.channel, effects = step(self.channel, event, self.env)
        self.effects += effects
        return effects

    def expect(self, event: AnyInput, *words: str) -> Sequence[Effect]:
        """One step whose effects are exactly these; ``PlaybookError`` otherwise."""
        effects = self.do(event)
        if names(effects) != list(words):
            raise PlaybookError(f"{type(event).__name__}: expected {list(words)}, got {names(effects)}")
        return effects

    def refuses(self, event: AnyInput, code: ErrorCode) -> ChannelError:
        """The command is refused with this code, carries its values, and leaves the state untouched."""
        before = self.channel
        try:
            self.do(event)
        except ChannelError as error:
            if error.code is not code:
                raise PlaybookError(
                    f"{type(event).__name__}: refused with {error.code}, not {code}: {error}"
                ) from error
            if self.channel is not before:
                raise PlaybookError(f"{type(event).__name__}: refused, but the state moved") from error
            return error
        raise PlaybookError(f"{type(event).__name__} was not refused")
