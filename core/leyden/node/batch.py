"""Many channels funded by one transaction: nothing is broadcast before every peer has signed, and then all at once.

The ``funding_signed`` messages wait here until the last one is in; all of them are applied in one turn, so that the
channels and the transaction become durable in one commit. Until then every channel is still opening, which a crash or
a lost peer forgets: either all of them get their funding, or none.
"""

from collections.abc import Callable

import msgspec

from leyden.bitcoin import Transaction, TxOut
from leyden.channel import Lifecycle, step
from leyden.channel.effects import FundingNeeded
from leyden.channel.events import FailChannel, MessageReceived, ProvideFunding
from leyden.node.channels import ChannelActor, ChannelManager
from leyden.types import ChannelId, FeeRatePerKw, LeydenError, OutPoint, Sat
from leyden.wire import FundingSigned


class BatchFailed(LeydenError):
    """No channel of the batch was opened, and its coins are free again."""


class FundingWish(msgspec.Struct, frozen=True, kw_only=True):
    """How a funding transaction is to be made: by default with the estimated feerate and the wallet's choice."""

    feerate: FeeRatePerKw | None = None
    coins: tuple[OutPoint, ...] = ()
    max_fee: Sat | None = None
    """A dearer transaction is not made: this much was approved."""


class Batch:
    """One funding transaction in the making. ``size`` channels belong to it."""

    def __init__(
        self,
        claim_id: str,
        size: int,
        wish: FundingWish,
        done: Callable[[list[ChannelId]], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.claim_id = claim_id
        self.size = size
        self.wish = wish
        self.members: dict[ChannelId, ChannelActor] = {}
        """By temporary id, in the order asked for."""
        self.needed: dict[ChannelId, FundingNeeded] = {}
        self._signed: dict[ChannelId, FundingSigned] = {}
        self._withheld: dict[ChannelId, Transaction] = {}
        self._opened: dict[ChannelId, ChannelId] = {}
        self._done = done
        self._failed: Callable[[BaseException], None] | None = failed

    # -- answering the caller ----------------------------------------------------------------------------------------

    def opened(self, temporary: ChannelId, channel_id: ChannelId) -> None:
        """A channel is durable; the caller is told when all are."""
        self._opened[temporary] = channel_id
        if len(self._opened) == self.size and self._failed is not None:
            self._failed = None
            self._done([self._opened[member] for member in self.members])

    def fail(self, reason: str) -> None:
        failed, self._failed = self._failed, None
        if failed is not None:
            failed(BatchFailed(f"no channel of the batch was opened: {reason}"))

    # -- coins -------------------------------------------------------------------------------------------------------

    def outputs(self) -> list[TxOut]:
        return [TxOut(value=self.needed[member].amount, script=self.needed[member].script) for member in self.members]

    def provide(self, channels: ChannelManager, tx: Transaction) -> None:
        """Tell every channel which output is its own."""
        for member, actor in list(self.members.items()):
            script = self.needed[member].script
            vout = next(i for i, output in enumerate(tx.outputs) if output.script == script)
            channels.apply(actor, ProvideFunding(tx=tx, vout=vout))

    # -- signatures --------------------------------------------------------------------------------------------------

    def hold(self, actor: ChannelActor, message: FundingSigned) -> bool:
        """Keep the message; whether every peer has signed now."""
        self._signed[actor.channel.config.temporary_channel_id] = message
        return len(self._signed) == self.size

    def withhold(self, actor: ChannelActor, tx: Transaction) -> None:
        self._withheld[actor.channel.config.temporary_channel_id] = tx

    def why_not(self, channels: ChannelManager) -> str:
        """Empty if every signature is good. Steps are pure: this tries them on values that nobody keeps."""
        for member, actor in self.members.items():
            event = MessageReceived(message=self._signed[member])
            after, _ = step(actor.channel, event, channels.env(actor.peer_id))
            if after.lifecycle is not Lifecycle.FUNDER_VALIDATING:
                return f"{actor.peer_id.hex()} signed wrongly"
        return ""

    def complete(self, channels: ChannelManager) -> bool:
        """Every signature is good: all channels take theirs, and the transaction leaves with this turn's commit.

        False if our signer refused one of them after all: nothing was broadcast.
        """
        for member, actor in list(self.members.items()):
            channels.apply(actor, MessageReceived(message=self._signed[member]))
        if len(self._withheld) < self.size:
            return False
        channels.broadcast_funding(next(iter(self._withheld.values())))
        return True

    def abandon(self, channels: ChannelManager, reason: str) -> None:
        """Fail what is still there. The transaction was never broadcast."""
        self.fail(reason)
        for actor in list(self.members.values()):
            if channels.get(actor.channel.channel_id) is actor and not actor.channel.is_terminal:
                channels.apply(actor, FailChannel(text="the batch of openings failed"))


def missing(batch: Batch, channels: ChannelManager) -> ChannelId | None:
    """A member that has ended, by its temporary id."""
    for member, actor in batch.members.items():
        if channels.get(actor.channel.channel_id) is not actor or actor.channel.is_terminal:
            return member
    return None
