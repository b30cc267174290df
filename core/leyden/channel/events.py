"""What a channel is told: events in the past tense, commands in the imperative."""

import msgspec

from leyden.bitcoin import Transaction, TxOut
from leyden.hooks.signing import AnySignerAnswer
from leyden.types import BlockHeight, FeeRatePerKw, Msat, PaymentHash, Preimage, Sat
from leyden.wire import Message
from leyden.wire.features import Features


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


# -- events: peer, turn, signer ----------------------------------------------------------------------------------------


class MessageReceived(_Record, frozen=True, kw_only=True):
    """A decoded message of this channel (also an ``ErrorMessage`` or ``WarningMessage`` that names it, or all)."""

    message: Message


class PeerConnected(_Record, frozen=True, kw_only=True):
    """``init`` messages were exchanged; ``features`` are the negotiated ones."""

    features: Features


class PeerDisconnected(_Record, frozen=True, kw_only=True):
    pass


class TurnEnded(_Record, frozen=True, kw_only=True):
    """All mail of this turn was handled: the channel may now sign a commitment for everything it gathered."""


class Restarted(_Record, frozen=True, kw_only=True):
    """The channel was loaded from its rows: watches, timers and open signer requests are issued again."""


class SignerAnswered(_Record, frozen=True, kw_only=True):
    request_id: str
    answer: AnySignerAnswer


class SignerFailed(_Record, frozen=True, kw_only=True):
    """``refused``: the signer's policy says no (never asked again unchanged); else it is away and is asked again."""

    request_id: str
    refused: bool
    text: str


class TimerFired(_Record, frozen=True, kw_only=True):
    name: str


class FeerateChanged(_Record, frozen=True, kw_only=True):
    """``env.feerates`` moved enough to look at: a funder may propose ``update_fee``."""


# -- events: chain -----------------------------------------------------------------------------------------------------


class BlockConnected(_Record, frozen=True, kw_only=True):
    """The chain grew to ``height`` (after the channel's own transactions of that block were told)."""

    height: BlockHeight


class FundingConfirmed(_Record, frozen=True, kw_only=True):
    """The funding transaction is in the block at ``height``; ``output`` is what stands at our outpoint."""

    height: BlockHeight
    tx_index: int
    output: TxOut


class FundingUnconfirmed(_Record, frozen=True, kw_only=True):
    """A reorg took the funding transaction out of the chain."""


class FundingRuledOut(_Record, frozen=True, kw_only=True):
    """The funding transaction that we broadcast can never confirm: another one took a coin that it needs, so deep that
    no reorg brings it back."""


class FundingSpent(_Record, frozen=True, kw_only=True):
    """``tx``, confirmed at ``height``, spends the funding output or another outpoint that the channel watches."""

    tx: Transaction
    height: BlockHeight


class FundingUnspent(_Record, frozen=True, kw_only=True):
    """A reorg took back the confirmed spend."""

    sweep_only: bool = False
    """Only the transaction that took our balance: the spend of the funding output is still confirmed."""


# -- commands ----------------------------------------------------------------------------------------------------------


class ProvideFunding(_Record, frozen=True, kw_only=True):
    """The signed funding transaction; output ``vout`` pays exactly what ``FundingNeeded`` asked for."""

    tx: Transaction
    vout: int


class AddHtlc(_Record, frozen=True, kw_only=True):
    """Offer an HTLC. The assigned id is the effect ``HtlcAdded``."""

    amount_msat: Msat
    payment_hash: PaymentHash
    cltv_expiry: BlockHeight
    onion_routing_packet: bytes
    path_key: bytes | None = None


class FulfillHtlc(_Record, frozen=True, kw_only=True):
    """Claim an HTLC that the peer offered. Accepted while disconnected; ``attribution_data`` is sent as given."""

    id: int
    preimage: Preimage


class FailHtlc(_Record, frozen=True, kw_only=True):
    """Fail an HTLC that the peer offered; ``reason`` is the encrypted failure packet."""

    id: int
    reason: bytes


class FailMalformedHtlc(_Record, frozen=True, kw_only=True):
    """Fail an HTLC whose onion was unreadable; ``failure_code`` must carry the BADONION bit."""

    id: int
    sha256_of_onion: bytes
    failure_code: int


class UpdateFee(_Record, frozen=True, kw_only=True):
    feerate: FeeRatePerKw


class Shutdown(_Record, frozen=True, kw_only=True):
    """Close cooperatively. Empty ``script``: the upfront script, else ``env.shutdown_script``.

    ``feerate`` is our target for the closing transaction (default: ``close_minimum``); the fee range goes from the
    minimum feerate to ``max_fee`` satoshi (default: a multiple of the target).
    """

    script: bytes = b""
    feerate: FeeRatePerKw | None = None
    max_fee: Sat | None = None


class ForceClose(_Record, frozen=True, kw_only=True):
    """Broadcast our commitment. ``reason`` goes to the events and, as an error, to the peer."""

    reason: str


class FailChannel(_Record, frozen=True, kw_only=True):
    """Send an error with ``text``; a funded channel is closed on chain, an unfunded one is dropped."""

    text: str


PeerEvent = MessageReceived | PeerConnected | PeerDisconnected
ChainEvent = BlockConnected | FundingConfirmed | FundingUnconfirmed | FundingRuledOut | FundingSpent | FundingUnspent
Event = PeerEvent | TurnEnded | Restarted | SignerAnswered | SignerFailed | TimerFired | FeerateChanged | ChainEvent
Command = (
    ProvideFunding
    | AddHtlc
    | FulfillHtlc
    | FailHtlc
    | FailMalformedHtlc
    | UpdateFee
    | Shutdown
    | ForceClose
    | FailChannel
)
AnyInput = Event | Command
