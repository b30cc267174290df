"""What a real Lightning implementation must let a scenario do to it: one driver a program, all alike.

Drivers are synchronous and wait for states, never for time; scenarios call them from a thread. Amounts carry their
unit in the name; a channel is named by its funding outpoint as people write it (``txid:vout``); node ids are hex.
"""

import enum
from pathlib import Path
from typing import Protocol

import msgspec

from tests.testbed.program import PATIENCE


class PeerRefused(Exception):
    """The peer refused a command; the text is its own reason."""


class NotSupported(Exception):
    """This peer has no such thing at all; the text says which limit of it that is."""


class ChannelKind(enum.Enum):
    STATIC_REMOTEKEY = "static_remotekey"
    ANCHORS = "anchors"


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A channel that the peer is to fund. ``close_address``: where it is to be paid in a close (upfront shutdown)."""

    node_id: str
    host: str
    port: int
    sat: int
    push_sat: int = 0
    public: bool = False
    kind: ChannelKind = ChannelKind.ANCHORS
    close_address: str | None = None


class PeerChannel(msgspec.Struct, frozen=True, kw_only=True):
    """A channel as the peer sees it; ``None`` where the peer does not tell. ``usable``: open, and we are connected."""

    funding: str
    remote_node_id: str
    capacity_sat: int
    local_msat: int
    remote_msat: int
    usable: bool
    htlcs: int = 0
    kind: ChannelKind | None = None
    public: bool | None = None
    peer_is_funder: bool | None = None
    short_channel_id: str | None = None
    closing_txid: str | None = None


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    """How a payment by the peer ended: ``preimage`` in hex if it succeeded, else the peer's own words."""

    ok: bool
    preimage: str = ""
    reason: str = ""


class LightningPeer(Protocol):
    """A real node of another implementation on the bitcoind of the test bed, with coins of its own once funded.

    ``start`` returns when the node serves and has the tip; ``stop`` and ``kill`` when the process is gone; after either
    ``start`` takes the same node up again. Whatever a peer cannot do at all raises ``NotSupported``.
    """

    name: str
    """A short word for the table: electrum, ldk, lnd."""
    home: Path
    """What the node keeps is in here: copied while it is stopped and put back later, it is an old backup."""

    @property
    def version(self) -> str: ...

    @property
    def node_id(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int:
        """Where it listens for Lightning peers; the same after a restart."""
        ...

    def start(self) -> object: ...

    def stop(self) -> None: ...

    def kill(self) -> None:
        """SIGKILL."""
        ...

    def log_tail(self, lines: int = 40) -> str:
        """The end of its log, for a failing test."""
        ...

    # -- chain and wallet --------------------------------------------------------------------------------------------

    def height(self) -> int:
        """Blocks it has followed."""
        ...

    def new_address(self) -> str: ...

    def confirmed_sat(self) -> int: ...

    def set_feerate(self, sat_per_kw: int) -> None:
        """From now on it believes that this is the market's feerate; a funder then sends ``update_fee``."""
        ...

    # -- peers -------------------------------------------------------------------------------------------------------

    def connect(self, node_id: str, host: str, port: int) -> None: ...

    def disconnect(self, node_id: str) -> None: ...

    def connected(self) -> list[str]:
        """Node ids of its peers."""
        ...

    # -- channels ----------------------------------------------------------------------------------------------------

    def open_channel(self, opening: Opening) -> str:
        """The funding outpoint; its transaction is in the mempool."""
        ...

    def channels(self) -> list[PeerChannel]:
        """Pending, open and closing ones."""
        ...

    def close_channel(self, funding: str, *, force: bool = False, sat_per_vbyte: int | None = None) -> None:
        """Begin to close; whoever calls watches the chain."""
        ...

    # -- payments ----------------------------------------------------------------------------------------------------

    def create_invoice(self, msat: int | None, memo: str = "", *, expiry: int = 3600) -> str:
        """BOLT 11."""
        ...

    def invoice_paid_msat(self, payment_hash: str) -> int:
        """What was received for it; 0 while it is unpaid."""
        ...

    def pay(self, bolt11: str, *, timeout: float = PATIENCE) -> Paid:
        """Wait for the end; also for an invoice of an amount of our choice."""
        ...

    def start_payment(self, bolt11: str) -> None:
        """As ``pay``, without waiting: the HTLC may stay in flight as long as the payee wants."""
        ...

    def payment(self, payment_hash: str) -> Paid | None:
        """How a payment begun by ``start_payment`` ended; ``None`` while it is in flight."""
        ...

    def create_hold_invoice(self, payment_hash: str, msat: int) -> str:
        """An invoice whose HTLCs stay pending until one of the two below."""
        ...

    def settle_hold_invoice(self, preimage: str) -> None: ...

    def cancel_hold_invoice(self, payment_hash: str) -> None: ...
