"""One channel as a value: a product of small tables.

``lifecycle`` says where the channel is between opening and closed; ``link`` whether messages may flow; the update dance
is the stages of the HTLCs plus four numbers; ``closing`` is the cooperative close; ``pending`` are open questions to
the signer. Numbers of commitments count upwards from 0. Amounts are millisatoshi unless the name says ``sat``.
"""

import enum

import msgspec

from leyden.bitcoin import Transaction
from leyden.commitment import ChannelKeys, CloseShape, SimpleClose
from leyden.crypto import ShachainStore
from leyden.hooks.signing import AnySignerRequest, ChannelSetup, NewChannelKeys
from leyden.types import (
    BlockHeight,
    ChannelId,
    CltvDelta,
    FeeRatePerKw,
    KeysId,
    Msat,
    NodeId,
    OutPoint,
    PaymentHash,
    Preimage,
    Sat,
    ShortChannelId,
    Side,
)
from leyden.wire import AnnouncementSignatures, ChannelReestablish, Message, OpenChannel
from leyden.wire.features import Features


class Lifecycle(enum.Enum):
    """Where a channel is. ``AWAIT_*`` and ``*_SIGNING`` up to ``AWAIT_CONFIRMATION`` are lost by a restart."""

    AWAIT_ACCEPT = "await_accept"
    """Funder: ``open_channel`` was sent."""
    AWAIT_FUNDING = "await_funding"
    """Funder: terms agreed, our wallet builds the funding transaction."""
    FUNDER_SIGNING = "funder_signing"
    """Funder: the signer signs the peer's first commitment."""
    AWAIT_FUNDING_SIGNED = "await_funding_signed"
    """Funder: ``funding_created`` was sent."""
    FUNDER_VALIDATING = "funder_validating"
    """Funder: the signer notes our first commitment; the funding is broadcast only after that."""
    AWAIT_FUNDING_CREATED = "await_funding_created"
    """Fundee: ``accept_channel`` was sent."""
    FUNDEE_SIGNING = "fundee_signing"
    """Fundee: the signer notes our first commitment and signs the peer's."""
    AWAIT_CONFIRMATION = "await_confirmation"
    """Both commitments exist; waiting for depth and for both ``channel_ready``."""
    NORMAL = "normal"
    """Updates flow (a ``shutdown`` may already be under way: see ``shutdown``)."""
    CLOSING = "closing"
    """A mutual close was signed by both and broadcast."""
    FORCE_CLOSING = "force_closing"
    """We decided to broadcast our commitment: no more updates, ever."""
    REMOTE_CLOSED = "remote_closed"
    """A commitment that is not ours spends the funding output on chain."""
    DATA_LOSS = "data_loss"
    """The peer proved that our state is old: we broadcast nothing and wait for its commitment."""
    CLOSED = "closed"
    """The closing transaction is irrevocable and our outputs are swept."""
    ABANDONED = "abandoned"
    """Given up before it was funded."""


TERMINAL = frozenset({Lifecycle.CLOSED, Lifecycle.ABANDONED})
ON_CHAIN = frozenset({Lifecycle.FORCE_CLOSING, Lifecycle.REMOTE_CLOSED, Lifecycle.DATA_LOSS})
OPENING = frozenset(
    {
        Lifecycle.AWAIT_ACCEPT,
        Lifecycle.AWAIT_FUNDING,
        Lifecycle.FUNDER_SIGNING,
        Lifecycle.AWAIT_FUNDING_SIGNED,
        Lifecycle.FUNDER_VALIDATING,
        Lifecycle.AWAIT_FUNDING_CREATED,
        Lifecycle.FUNDEE_SIGNING,
    }
)
"""Not funded yet: a disconnect forgets these (C-093)."""
OPERATING = frozenset({Lifecycle.AWAIT_CONFIRMATION, Lifecycle.NORMAL})


class Link(enum.Enum):
    """Whether messages of this channel may flow."""

    DOWN = "down"
    REESTABLISHING = "reestablishing"
    """We sent ``channel_reestablish`` and wait for the peer's."""
    UP = "up"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What one side demands of the other, as it stands in that side's opening message.

    ``dust_limit`` is for the side's own commitment, ``to_self_delay`` and ``reserve`` bind the other side.
    """

    dust_limit: Sat
    reserve: Sat
    htlc_minimum_msat: Msat
    max_in_flight_msat: Msat
    max_accepted_htlcs: int
    to_self_delay: CltvDelta
    shutdown_script: bytes = b""
    """Committed upfront; empty: not committed."""


class Confirmation(msgspec.Struct, frozen=True, kw_only=True):
    height: BlockHeight
    tx_index: int


class Signatures(msgspec.Struct, frozen=True, kw_only=True):
    """The peer's signatures on our commitment ``number``: what we need to broadcast it."""

    number: int
    signature: bytes
    htlc_signatures: tuple[bytes, ...] = ()


class Funding(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One funding output with the two commitments that spend it. A channel has one, and more while it splices."""

    setup: ChannelSetup
    script: bytes
    confirmation: Confirmation | None = None
    signatures: Signatures | None = None

    @property
    def outpoint(self) -> OutPoint:
        return self.setup.funding_outpoint


class Config(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What never changes after the opening messages."""

    temporary_channel_id: ChannelId
    peer: NodeId
    keys_id: KeysId
    local_is_funder: bool
    channel_type: Features
    announce: bool
    funding_satoshis: Sat
    push_msat: Msat
    initial_feerate: FeeRatePerKw
    local: Terms
    remote: Terms
    minimum_depth: int
    opened_height: BlockHeight
    claim_id: str = ""

    @property
    def funder(self) -> Side:
        return Side.LOCAL if self.local_is_funder else Side.REMOTE

    def terms(self, side: Side) -> Terms:
        return self.local if side is Side.LOCAL else self.remote


class Removal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How an HTLC ends: exactly one of preimage, encrypted reason, malformed report."""

    preimage: Preimage | None = None
    reason: bytes | None = None
    sha256_of_onion: bytes | None = None
    failure_code: int | None = None


class Stage(enum.IntEnum):
    """Where an HTLC stands between O, who offered it, and R, the other side.

    A fee update takes the first five stages, its funder being O.
    """

    ADD_PROPOSED = 1
    ADD_SIGNED_BY_OFFERER = 2
    """In R's commitment."""
    ADD_REVOKED_BY_OTHER = 3
    """R has revoked the commitment without it."""
    ADD_SIGNED_BY_OTHER = 4
    """In O's commitment too."""
    COMMITTED = 5
    """O has revoked too: irrevocably committed, R may act on it."""
    REMOVE_PROPOSED = 6
    REMOVE_SIGNED_BY_OTHER = 7
    """R signed O's commitment without it."""
    REMOVE_REVOKED_BY_OFFERER = 8
    REMOVE_SIGNED_BY_OFFERER = 9
    """O signed R's commitment without it."""
    GONE = 10
    """R has revoked: irrevocably removed; the row is deleted."""


class LiveHtlc(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An HTLC that is in some commitment, or proposed for one. ``order`` ranks our own unacknowledged updates."""

    id: int
    amount_msat: Msat
    payment_hash: PaymentHash
    cltv_expiry: BlockHeight
    stage: int
    onion_routing_packet: bytes = b""
    """Kept until nobody needs it again: offered by us until the peer revoked, by the peer until delivered."""
    path_key: bytes | None = None
    removal: Removal | None = None
    order: int = 0
    must_fail: bool = False
    """It pushed the value without outputs above our limit (C-086): never paid out."""


class FeeUpdate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A feerate on its way through stages 1 to 5."""

    feerate: FeeRatePerKw
    stage: int
    order: int = 0


class Totals(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Running totals of the next commitment of one owner, so that no update has to look at every HTLC.

    Balances are before fees. ``*_count`` and ``*_in_flight`` are by offerer; ``untrimmed`` counts outputs and
    ``dust_msat`` sums what has no output, both directions.
    """

    local_msat: Msat
    remote_msat: Msat
    local_count: int = 0
    local_in_flight: Msat = Msat(0)
    remote_count: int = 0
    remote_in_flight: Msat = Msat(0)
    untrimmed: int = 0
    dust_msat: Msat = Msat(0)


class Unacked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Our HTLCs that the peer has not acknowledged: they will stand in our commitment but are not in its totals yet."""

    msat: Msat = Msat(0)
    untrimmed: int = 0
    dust_msat: Msat = Msat(0)


class Awaiting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A place in the outbox held for a message that the signer still has to make."""

    request_id: str


class CloseOffer(msgspec.Struct, frozen=True, kw_only=True):
    """A ``closing_signed`` of one side; fee and range in satoshi. ``max_fee`` None: no range was given."""

    fee: Sat
    min_fee: Sat = Sat(0)
    max_fee: Sat | None = None


class CloseProposal(msgspec.Struct, frozen=True, kw_only=True):
    """Our ``closing_complete``; it was sent once ``signatures``, one for each shape, are there."""

    close: SimpleClose
    shapes: tuple[CloseShape, ...]
    signatures: tuple[bytes, ...] = ()


class CloseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The peer's ``closing_complete`` while our signer signs ``shape`` of it; ``signature`` is the peer's."""

    close: SimpleClose
    shape: CloseShape
    signature: bytes


class ShutdownState(msgspec.Struct, frozen=True, kw_only=True):
    """The cooperative close. What stands below ``received`` is only of this connection."""

    wanted: bool = False
    """We will send (or have sent) ``shutdown`` with ``local_script``."""
    sent: bool = False
    local_script: bytes = b""
    remote_script: bytes = b""
    initiator: Side = Side.LOCAL
    target_feerate: FeeRatePerKw = FeeRatePerKw(0)
    """0: ``env.feerates.close_minimum`` when the negotiation starts."""
    max_fee: Sat = Sat(0)
    """0: from policy."""
    agreed_fee: Sat | None = None
    """What both signed; a repeated negotiation ends at the same fee."""

    received: bool = False
    negotiating: bool = False
    """Nothing is in flight any more and a fee is being agreed; the timer runs."""
    local_offer: CloseOffer | None = None
    remote_offer: CloseOffer | None = None
    remote_signature: bytes = b""
    """The peer's signature on ``final``; set when we have accepted its offer and only our signature is missing."""
    final: Transaction | None = None
    proposal: CloseProposal | None = None
    """Simple close: ours that is not answered."""
    answer: CloseAnswer | None = None
    """Simple close: the peer's that we are signing."""
    proposed: bool = False
    """Simple close: we have had our turn."""
    again: bool = False
    """Simple close: a further proposal follows the answer to ours."""

    def durable(self) -> "ShutdownState":
        """What of it outlives the connection."""
        return ShutdownState(
            wanted=self.wanted,
            sent=self.sent,
            local_script=self.local_script,
            remote_script=self.remote_script,
            initiator=self.initiator,
            target_feerate=self.target_feerate,
            max_fee=self.max_fee,
            agreed_fee=self.agreed_fee,
        )


class SpendKind(enum.Enum):
    """What spent the funding output."""

    MUTUAL = "mutual"
    LOCAL_COMMITMENT = "local_commitment"
    REMOTE_COMMITMENT = "remote_commitment"
    REMOTE_REVOKED = "remote_revoked"
    REMOTE_FUTURE = "remote_future"
    """Not ours, and later than any that we know."""


class Spend(msgspec.Struct, frozen=True, kw_only=True):
    """The confirmed transaction that spends the funding output, and our sweep of it."""

    tx: Transaction
    height: BlockHeight
    kind: SpendKind
    number: int = 0
    point: bytes = b""
    sweep_outpoint: OutPoint | None = None
    """Our balance among its outputs."""
    sweep: Transaction | None = None
    swept: bool = False
    sweep_height: BlockHeight = BlockHeight(0)


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """One side's consent to announce the channel under this id: its two signatures of ``channel_announcement``."""

    short_channel_id: ShortChannelId
    node_signature: bytes
    bitcoin_signature: bytes


class Channel(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """The state of one channel. Made by ``open_channel``, ``receive_open_channel`` or ``load``; moved by ``step``."""

    channel_id: ChannelId
    """Temporary until the funding outpoint is known."""
    config: Config
    lifecycle: Lifecycle
    link: Link = Link.UP

    # opening
    local_keys: NewChannelKeys | None = None
    """Ours; only while opening."""
    remote_keys: ChannelKeys | None = None
    """The peer's; only while opening."""
    proposal: OpenChannel | None = None
    """Funder: what we sent, until it is answered."""
    funding_tx: Transaction | None = None
    """Funder, until it is broadcast."""

    fundings: tuple[Funding, ...] = ()
    local_ready_sent: bool = False
    remote_ready: bool = False
    local_alias: ShortChannelId | None = None
    remote_alias: ShortChannelId | None = None

    # announcing
    local_announcement: Announcement | None = None
    remote_announcement: Announcement | None = None
    announcement_sent: bool = False
    """On this connection."""
    early_announcement: AnnouncementSignatures | None = None
    """The peer's, which came before we may announce; of this connection."""

    # the update dance
    local_number: int = 0
    """Our newest commitment with the peer's signatures."""
    local_revoked: int = 0
    """How many of ours we revoked: our oldest unrevoked number. One less than ``local_number`` while we owe one."""
    remote_number: int = 0
    """The peer's newest commitment that we signed (or asked the signer to sign)."""
    remote_revoked: int = 0
    revocation_noted: int = 0
    """How many of the peer's revocations the signer has acknowledged."""
    remote_point: bytes = b""
    """The peer's point of commitment ``remote_revoked``."""
    remote_next_point: bytes = b""
    """The peer's point of commitment ``remote_revoked + 1``; empty before its ``channel_ready``."""
    local_point: bytes = b""
    """Our point of commitment ``local_revoked``."""
    local_next_point: bytes = b""
    """Our point of commitment ``local_revoked + 1``."""
    secrets: ShachainStore = ShachainStore()
    commitment_sent_last: bool = False
    """Our ``commitment_signed`` came after our latest ``revoke_and_ack`` (C-096: the order of retransmission)."""

    local_settled: Msat = Msat(0)
    """Balances as if no HTLC were live: an HTLC belongs to its offerer until it is gone."""
    remote_settled: Msat = Msat(0)
    local_htlcs: dict[int, LiveHtlc] = {}
    """Offered by us, by id. Copied, never changed in place."""
    remote_htlcs: dict[int, LiveHtlc] = {}
    next_local_id: int = 0
    next_remote_id: int = 0
    feerate: FeeRatePerKw = FeeRatePerKw(0)
    """Irrevocably committed feerate."""
    fee_updates: tuple[FeeUpdate, ...] = ()
    next_order: int = 0
    local_next: Totals = Totals(local_msat=Msat(0), remote_msat=Msat(0))
    """Totals of our next commitment, which the peer signs."""
    remote_next: Totals = Totals(local_msat=Msat(0), remote_msat=Msat(0))
    unacked: Unacked = Unacked()
    unsigned: bool = False
    """The peer's next commitment would differ from its newest: a ``commitment_signed`` is due."""
    remote_uncommitted: int = 0
    """How many HTLCs the peer proposed that it has not signed for: forgotten by a disconnect."""

    # messages that wait for the signer, in order
    outbox: tuple[Message | Awaiting, ...] = ()
    pending: tuple[AnySignerRequest, ...] = ()
    refused: tuple[str, ...] = ()
    """Ids of requests that the signer refused for good."""
    reestablish: ChannelReestablish | None = None
    """The peer's, while the signer checks the secret in it."""

    # closing
    shutdown: ShutdownState = ShutdownState()
    closing_tx: Transaction | None = None
    """The mutual close or the commitment of ours that we broadcast."""
    spend: Spend | None = None
    failure: str = ""
    """Why the channel failed; sent again as ``error`` whenever the peer comes back."""

    @property
    def funding(self) -> Funding:
        """The funding in use."""
        return self.fundings[0]

    @property
    def setup(self) -> ChannelSetup:
        return self.fundings[0].setup

    @property
    def funding_outpoint(self) -> OutPoint | None:
        return self.fundings[0].setup.funding_outpoint if self.fundings else None

    @property
    def short_channel_id(self) -> ShortChannelId | None:
        """From the block that holds the funding, once it is confirmed."""
        if not self.fundings or (where := self.fundings[0].confirmation) is None:
            return None
        return ShortChannelId(where.height << 40 | where.tx_index << 16 | self.fundings[0].outpoint.vout)

    @property
    def is_usable(self) -> bool:
        """New HTLCs may be offered now (limits permitting)."""
        return (
            self.lifecycle is Lifecycle.NORMAL
            and self.link is Link.UP
            and not (self.shutdown.wanted or self.shutdown.sent or self.shutdown.received)
        )

    @property
    def is_terminal(self) -> bool:
        return self.lifecycle in TERMINAL

    def htlcs(self, offerer: Side) -> dict[int, LiveHtlc]:
        return self.local_htlcs if offerer is Side.LOCAL else self.remote_htlcs
