"""What a step asks the shell to do, in order. Messages leave only after the commit of the turn that made them."""

import msgspec

from leyden.bitcoin import Transaction, TxOut
from leyden.hooks.signing import AnySignerRequest
from leyden.hooks.types import BroadcastKind, NodeEvent
from leyden.types import BlockHeight, Msat, OutPoint, PaymentHash, Preimage, Sat
from leyden.wire import Message


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    pass


# -- deliveries: work for another actor, a durable mailbox row ---------------------------------------------------------


class FundingNeeded(_Record, frozen=True, kw_only=True):
    """Build and sign a transaction that pays ``amount`` to ``script``, coins locked under ``claim_id``.

    It must not be broadcast: answer with ``ProvideFunding``."""

    claim_id: str
    script: bytes
    amount: Sat


class FundingAbandoned(_Record, frozen=True, kw_only=True):
    """The channel will not use the coins locked under ``claim_id``."""

    claim_id: str


class HtlcReceived(_Record, frozen=True, kw_only=True):
    """An HTLC that the peer offered is irrevocably committed: decide on it."""

    id: int
    amount_msat: Msat
    payment_hash: PaymentHash
    cltv_expiry: BlockHeight
    onion_routing_packet: bytes
    path_key: bytes | None = None
    must_fail: bool = False
    """Our limit of value without outputs was exceeded (C-086): fail it with ``temporary_channel_failure``."""


class HtlcFulfilled(_Record, frozen=True, kw_only=True):
    """The peer paid an HTLC of ours; told as soon as learnt (and again if the peer repeats it after a reconnect)."""

    id: int
    preimage: Preimage


class HtlcFailed(_Record, frozen=True, kw_only=True):
    """An HTLC of ours failed and its removal is irrevocable: encrypted ``reason``, or a malformed report's fields."""

    id: int
    amount_msat: Msat
    payment_hash: PaymentHash
    reason: bytes = b""
    sha256_of_onion: bytes | None = None
    failure_code: int | None = None


Delivery = FundingNeeded | FundingAbandoned | HtlcReceived | HtlcFulfilled | HtlcFailed


# -- effects -----------------------------------------------------------------------------------------------------------


class Send(_Record, frozen=True, kw_only=True):
    message: Message


class Broadcast(_Record, frozen=True, kw_only=True):
    """Hand ``tx`` to the tracker, which repeats it until it is irrevocable; ``spent`` are its previous outputs."""

    tx: Transaction
    kind: BroadcastKind
    spent: tuple[TxOut, ...]


class Sign(_Record, frozen=True, kw_only=True):
    """Ask the channel's signer. The same request may be issued again (same id, same content)."""

    request: AnySignerRequest


class Deliver(_Record, frozen=True, kw_only=True):
    delivery: Delivery


class Watch(_Record, frozen=True, kw_only=True):
    """Tell the channel of transactions that pay ``script`` or spend ``outpoint``."""

    script: bytes
    outpoint: OutPoint | None = None


class SetTimer(_Record, frozen=True, kw_only=True):
    """``TimerFired(name)`` after ``seconds``; replaces a running timer of that name, 0 cancels it."""

    name: str
    seconds: int


class Publish(_Record, frozen=True, kw_only=True):
    event: NodeEvent


class Disconnect(_Record, frozen=True, kw_only=True):
    """Close the connection after what was sent before."""

    reason: str


class HtlcAdded(_Record, frozen=True, kw_only=True):
    """The result of ``AddHtlc``."""

    id: int


Effect = Send | Broadcast | Sign | Deliver | Watch | SetTimer | Publish | Disconnect | HtlcAdded
Effects = tuple[Effect, ...]
