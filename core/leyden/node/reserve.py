"""Coins that stay in the wallet so that commitments of anchor channels can be confirmed in time.

A commitment with anchors pays little by itself: whoever closes alone adds the fee when the time comes, from coins that
nobody had better spend before.
"""

import msgspec

from leyden.channel import TERMINAL, Channel, Lifecycle, has_anchors
from leyden.hooks.services import OnchainSigner, Wallet
from leyden.node.channels import ChannelManager
from leyden.types import Sat

_OVER = TERMINAL | {Lifecycle.CLOSING}


class AnchorReserve(msgspec.Struct, frozen=True, kw_only=True):
    """Table ``[anchor_reserve]``. Satoshi for each channel with anchors, up to ``most`` for all of them."""

    per_channel: Sat = Sat(10_000)
    most: Sat = Sat(100_000)
    to_accept: bool = True
    """Refuse channels that peers open while the reserve for them is not there."""


NO_RESERVE = AnchorReserve(per_channel=Sat(0))
"""For nodes that begin without coins and lose nothing: tests, benchmarks."""


class ReserveKeeper:
    """Compares what channels need with what the wallet has."""

    def __init__(
        self, config: AnchorReserve, channels: ChannelManager, wallet: Wallet, onchain_signer: OnchainSigner
    ) -> None:
        self.config = config
        self._channels = channels
        self._wallet = wallet
        self._signer = onchain_signer

    def needed(self, more: int = 0) -> Sat:
        """What the channels of now and ``more`` new ones need, satoshi."""
        count = more + sum(1 for channel in self._channels.channels() if may_need_a_bump(channel))
        return Sat(min(count * self.config.per_channel, self.config.most))

    @property
    def held(self) -> Sat:
        """Confirmed coins that no claim holds, if nobody has to be asked to spend them."""
        return self._wallet.balance().free if self._signer.unattended else Sat(0)

    def keep(self) -> Sat:
        """What a transaction must leave in the wallet. Coins that a person has to sign for were no reserve before."""
        return self.needed() if self._signer.unattended else Sat(0)

    def why_not_open(self, funding: Sat, channels: int = 1) -> str:
        """Why we do not open so many channels with anchors, of ``funding`` satoshi in all, now; empty if we may try."""
        needed = self.needed(channels)
        if not needed:
            return ""
        if not self._signer.unattended:
            return (
                f"anchor channels need {needed} sat in reserve, and the on-chain signer has to ask a person before it "
                "spends: set per_channel = 0 in [anchor_reserve] if that is meant"
            )
        spendable = self._wallet.balance().spendable
        if funding + needed > spendable:
            return f"{spendable} sat are spendable, of which anchor channels need {needed} sat in reserve"
        return ""

    def why_not_accept(self, asking: int = 0) -> str:
        """Why no peer may open a channel with anchors now, besides ``asking`` others; empty if it may."""
        needed = self.needed(1 + asking)
        if not self.config.to_accept or self.held >= needed:
            return ""
        return f"not enough confirmed coins in reserve to close one more channel: {self.held} of {needed} sat"


def may_need_a_bump(channel: Channel) -> bool:
    """A commitment of this channel could still have to be confirmed by our coins."""
    return has_anchors(channel) and channel.lifecycle not in _OVER
