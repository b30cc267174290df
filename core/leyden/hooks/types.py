"""Records that cross the border between the core and plugins: chain, fees, wallet, spending, peers and events."""

import enum

import msgspec

from leyden.bitcoin import Transaction, TxOut, parse_psbt
from leyden.types import (
    BlockHash,
    BlockHeight,
    ChannelId,
    CltvDelta,
    FeeRatePerKw,
    Msat,
    NodeId,
    OutPoint,
    PaymentHash,
    Preimage,
    Sat,
    Txid,
)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every record below: immutable, keyword only."""


# -- chain ---------------------------------------------------------------------------------------------------------


class BlockTransaction(Record, frozen=True, kw_only=True):
    """A transaction and its index inside its block.

    ``branch`` is its merkle branch: the hashes (32 bytes, in the order of consensus) to combine with its txid on the
    way to the root of the header, lowest first. The core checks it. A source that has ``proofs`` gives one with every
    transaction; ``None`` says that there is none (the whole block is there, or the source is taken at its word).
    """

    position: int
    tx: Transaction
    branch: tuple[bytes, ...] | None = None


class BlockConnected(Record, frozen=True, kw_only=True):
    """One block on top of the previous one. ``full`` tells whether ``transactions`` is the whole block.

    A source may give a whole block as it is serialised instead: ``raw``, with ``full`` and no ``transactions``. The
    core then parses those that somebody watches, which is several times faster.
    """

    height: BlockHeight
    block_hash: BlockHash
    header: bytes
    transactions: tuple[BlockTransaction, ...]
    full: bool
    raw: bytes = b""


class BlocksDisconnected(Record, frozen=True, kw_only=True):
    """Every block above ``fork_height`` has left the best chain; ``fork_hash`` is the block that is still in it."""

    fork_height: BlockHeight
    fork_hash: BlockHash


class HistoryFound(Record, frozen=True, kw_only=True):
    """Transactions in a block that was connected before, which its ``BlockConnected`` did not bring: the watch came
    later, or the backend told of them late.

    Sources that deliver matched transactions answer a late ``Watch`` with these, in the order of heights. Sent twice it
    is harmless; for a block that is not in the best chain (any more) it means nothing.
    """

    height: BlockHeight
    block_hash: BlockHash
    transactions: tuple[BlockTransaction, ...]


class SourceSynced(Record, frozen=True, kw_only=True):
    """The source has delivered everything up to its own tip: sent after ``start``, after each catch-up, and after the
    history of late watches."""

    height: BlockHeight
    block_hash: BlockHash


class SourceTip(Record, frozen=True, kw_only=True):
    """Where the chain of the source ends, told before a long catch-up so that progress can be shown. May be left out.

    While the backend itself is still loading blocks, this is the highest that it knows of, by headers.
    """

    height: BlockHeight


class SourceTrouble(Record, frozen=True, kw_only=True):
    """The source cannot do its work, in one line for a person: its backend is away, is loading, is on another chain.
    An empty ``reason``: it can again. May be left out; without it the core goes by silence alone."""

    reason: str


class SourceWarning(Record, frozen=True, kw_only=True):
    """Something that a person should know, in one line, though the source goes on: a server lied and was left. It
    becomes an alarm."""

    text: str


ChainEvent = (
    BlockConnected | BlocksDisconnected | HistoryFound | SourceSynced | SourceTip | SourceTrouble | SourceWarning
)


class Watch(Record, frozen=True, kw_only=True):
    """Deliver every transaction that pays ``script`` or spends ``outpoint``, from ``since_height`` on."""

    script: bytes
    outpoint: OutPoint | None = None
    since_height: BlockHeight = BlockHeight(0)


class SourceInfo(Record, frozen=True, kw_only=True):
    """What a chain source can do. ``prune_height``: no blocks below it.

    ``full_blocks``: every ``BlockConnected`` is a whole block and ``get_block`` gives whole blocks, so the core itself
    looks at older blocks again when a watch comes late. Without it the source delivers that history (``HistoryFound``)
    and ``get_block`` may refuse. ``proofs``: every transaction comes with its merkle branch.
    """

    name: str
    full_blocks: bool
    proofs: bool = False
    mempool: bool = False
    prune_height: BlockHeight = BlockHeight(0)


class UtxoFound(Record, frozen=True, kw_only=True):
    output: TxOut
    height: BlockHeight
    coinbase: bool = False


class UtxoSpent(Record, frozen=True, kw_only=True):
    pass


class UtxoUnknown(Record, frozen=True, kw_only=True):
    reason: str = ""


UtxoAnswer = UtxoFound | UtxoSpent | UtxoUnknown


class BroadcastKind(enum.Enum):
    FUNDING = "funding"
    MUTUAL_CLOSE = "mutual_close"
    UNILATERAL_CLOSE = "unilateral_close"
    SWEEP = "sweep"
    WALLET = "wallet"


class BroadcastRefusal(enum.Enum):
    """Why a transaction was not taken, as far as the backend tells."""

    OTHER = "other"
    UNAVAILABLE = "unavailable"
    """Nobody was asked: the backend is away or still loading."""
    LOW_FEE = "low_fee"
    """Below what is relayed now, or too little to replace what conflicts."""
    CONFLICT = "conflict"
    """Another transaction of the mempool spends one of its inputs and may not be replaced by this one."""
    MISSING_INPUTS = "missing_inputs"
    """An input is unknown or was spent in a block."""
    TOO_EARLY = "too_early"
    """A lock time or a relative delay is not over."""
    INVALID = "invalid"
    """It breaks a rule of consensus or of relay, whatever the mempool holds."""


class BroadcastResult(Record, frozen=True, kw_only=True):
    """``accepted`` also when the transaction is already known or confirmed; else ``reason`` says why not, in one line,
    and ``refusal`` of what kind that is."""

    accepted: bool
    reason: str = ""
    refusal: BroadcastRefusal = BroadcastRefusal.OTHER


class FeeTarget(enum.Enum):
    """What the feerate is for (the purposes of ``FeeEstimator.estimate``)."""

    MAXIMUM = "maximum"
    URGENT_SWEEP = "urgent_sweep"
    MIN_ALLOWED_ANCHOR_REMOTE = "min_allowed_anchor_remote"
    ANCHOR_CHANNEL = "anchor_channel"
    MIN_ALLOWED_NON_ANCHOR_REMOTE = "min_allowed_non_anchor_remote"
    NON_ANCHOR_CHANNEL = "non_anchor_channel"
    CLOSE_MINIMUM = "close_minimum"
    SWEEP = "sweep"
    FUNDING = "funding"


# -- wallet --------------------------------------------------------------------------------------------------------


class WalletBalance(Record, frozen=True, kw_only=True):
    """In satoshi. ``confirmed`` excludes ``immature`` coinbases; ``locked`` is the part of ``confirmed`` and
    ``unconfirmed`` that a claim holds; ``free`` is the part of ``confirmed`` that none does."""

    confirmed: Sat
    unconfirmed: Sat
    immature: Sat
    locked: Sat
    free: Sat

    @property
    def spendable(self) -> Sat:
        """What no claim holds, confirmed or not."""
        return Sat(self.confirmed + self.unconfirmed - self.locked)


class CoinState(enum.Enum):
    """Whether the wallet would spend a coin now."""

    FREE = "free"
    LOCKED = "locked"
    """A claim holds it."""
    IMMATURE = "immature"
    """A coinbase that needs more blocks."""
    FOREIGN = "foreign"
    """Unconfirmed, and somebody else can take it back."""


class WalletCoin(Record, frozen=True, kw_only=True):
    """An unspent output of ours. ``height`` 0: unconfirmed; ``claim``: who holds it."""

    outpoint: OutPoint
    value: Sat
    script: bytes
    height: BlockHeight
    state: CoinState
    claim: str = ""


class FundedTransaction(Record, frozen=True, kw_only=True):
    """An unsigned transaction that pays what was asked, as a PSBT (BIP 174, version 0); ``fee`` in satoshi.

    Every input brings the transaction that it spends (unless all inputs are taproot) and the origin of its key; an
    output of ours brings the origin of its key.
    """

    psbt: bytes
    fee: Sat
    change_index: int | None

    @property
    def tx(self) -> Transaction:
        """The transaction, unsigned."""
        return parse_psbt(self.psbt).tx


class DestinationPurpose(enum.Enum):
    RECEIVE = "receive"
    CHANGE = "change"
    SHUTDOWN = "shutdown"
    SWEEP = "sweep"
    RECEIVE_TAPROOT = "receive_taproot"


class Destination(Record, frozen=True, kw_only=True):
    """A script of ours and where its key comes from: the compressed key (for taproot the internal one, whose first
    byte then means nothing), the fingerprint of the root (4 bytes) and the derivation path."""

    script: bytes
    purpose: DestinationPurpose
    index: int
    path: tuple[int, ...]
    pubkey: bytes
    fingerprint: bytes


Puts = tuple[tuple[bytes, bytes], ...]
Deletes = tuple[bytes, ...]


class RecordChanges(Record, frozen=True, kw_only=True):
    """Rows to put and to delete in the commit of the turn that made them."""

    puts: Puts = ()
    deletes: Deletes = ()


# -- questions asked of plugins ------------------------------------------------------------------------------------


class PeerInfo(Record, frozen=True, kw_only=True):
    """``leyden_accept_peer``: who connected, before any channel message is processed."""

    node_id: NodeId
    address: str
    inbound: bool
    features: bytes


class OpenRequest(Record, frozen=True, kw_only=True):
    """``leyden_accept_channel``: what the peer offers."""

    node_id: NodeId
    temporary_channel_id: ChannelId
    funding_satoshis: Sat
    push_msat: Msat
    feerate_per_kw: FeeRatePerKw
    to_self_delay: CltvDelta
    announce: bool
    channel_type: bytes


class AcceptTerms(Record, frozen=True, kw_only=True):
    """Yes, with terms; ``None`` keeps the config's value."""

    minimum_depth: int | None = None
    max_htlc_value_in_flight_msat: Msat | None = None
    to_self_delay: CltvDelta | None = None


class Refusal(Record, frozen=True, kw_only=True):
    reason: str


class IncomingPayment(Record, frozen=True, kw_only=True):
    """``leyden_accept_payment``: a complete HTLC set for one of our invoices."""

    payment_hash: PaymentHash
    amount_msat: Msat
    invoice_msat: Msat | None
    label: str


class SpendRequest(Record, frozen=True, kw_only=True):
    """``leyden_approve_spend``: an outgoing payment or on-chain send that a caller asked for.

    ``kind`` is ``payment``, ``onchain`` or ``channel``; ``destination`` a node id in hex or an address.
    ``max_fee_msat`` is the most that the spend costs besides ``amount_msat``: the fee of the transaction that was made
    and waits for the answer (``onchain``); the fee that the funding transaction would have now, each channel of a batch
    with its share, where a dearer one is not made (``channel``); 0 for a ``payment``, which goes to the peer of a
    channel only.
    """

    kind: str
    amount_msat: Msat
    max_fee_msat: Msat
    destination: str
    caller: str = "api"


# -- events --------------------------------------------------------------------------------------------------------


class NodeEvent(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of the events of the log: at least once, in order of ``LoggedEvent.index``; compensated, never deleted."""


class ChannelPending(NodeEvent, frozen=True, kw_only=True, tag="channel_pending"):
    channel_id: ChannelId
    node_id: NodeId
    funding_txid: Txid
    funding_vout: int
    capacity_sat: Sat


class ChannelReadyEvent(NodeEvent, frozen=True, kw_only=True, tag="channel_ready"):
    channel_id: ChannelId
    node_id: NodeId


class ChannelClosing(NodeEvent, frozen=True, kw_only=True, tag="channel_closing"):
    channel_id: ChannelId
    initiator: str
    reason: str


class ChannelClosed(NodeEvent, frozen=True, kw_only=True, tag="channel_closed"):
    """``how``: ``cooperative``, ``local_force``, ``remote_force`` or ``unfunded``; ``txid`` is the closing one's."""

    channel_id: ChannelId
    how: str
    reason: str
    txid: Txid | None


class OpenFailed(NodeEvent, frozen=True, kw_only=True, tag="open_failed"):
    channel_id: ChannelId
    node_id: NodeId
    reason: str


class PaymentReceived(NodeEvent, frozen=True, kw_only=True, tag="payment_received"):
    payment_hash: PaymentHash
    amount_msat: Msat
    label: str


class PaymentSent(NodeEvent, frozen=True, kw_only=True, tag="payment_sent"):
    payment_hash: PaymentHash
    preimage: Preimage
    amount_msat: Msat
    fee_msat: Msat


class PaymentFailed(NodeEvent, frozen=True, kw_only=True, tag="payment_failed"):
    payment_hash: PaymentHash
    reason: str


class TransactionConfirmed(NodeEvent, frozen=True, kw_only=True, tag="transaction_confirmed"):
    txid: Txid
    height: BlockHeight
    kind: str


class TransactionUnconfirmed(NodeEvent, frozen=True, kw_only=True, tag="transaction_unconfirmed"):
    """Compensates ``TransactionConfirmed`` after a reorg."""

    txid: Txid
    kind: str


STANDING_ALARMS = frozenset({"chain_degraded", "chain_source", "store"})
"""Subjects that name a state: such an alarm stands until ``AlarmCleared`` with its subject, over restarts too, and may
be raised again meanwhile."""
ONE_TIME_ALARMS = frozenset(
    {
        "breach",
        "chain_history",
        "data_loss",
        "deep_reorg",
        "feerate",
        "funding",
        "htlcs_on_chain",
        "payment_returned",
        "peer_silent",
        "reorg",
        "signer",
        "signer_refused",
        "source_warning",
        "storage",
        "sweep",
        "unknown_spend",
    }
)
"""Subjects that tell what happened, once each time; nothing clears them."""


class Alarm(NodeEvent, frozen=True, kw_only=True, tag="alarm"):
    """Something a person should look at: ``subject`` is a stable word, ``text`` one line.

    The words are those of ``STANDING_ALARMS`` and ``ONE_TIME_ALARMS``.
    """

    subject: str
    text: str


class AlarmCleared(NodeEvent, frozen=True, kw_only=True, tag="alarm_cleared"):
    """Everything that alarms with this ``subject`` told of is over; only for ``STANDING_ALARMS``."""

    subject: str
    text: str


AnyEvent = (
    ChannelPending
    | ChannelReadyEvent
    | ChannelClosing
    | ChannelClosed
    | OpenFailed
    | PaymentReceived
    | PaymentSent
    | PaymentFailed
    | TransactionConfirmed
    | TransactionUnconfirmed
    | Alarm
    | AlarmCleared
)


class LoggedEvent(Record, frozen=True, kw_only=True):
    """An event and its place in the log; ``index`` starts at 1, ``time`` is unix seconds of the turn that wrote it."""

    index: int
    time: int
    event: AnyEvent
