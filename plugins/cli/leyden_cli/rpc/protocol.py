"""What travels over the socket: requests, replies and the parameters of every method.

Ids of channels and nodes and hashes are hexadecimal; txids are written as people read them (reversed). Amounts are
integers in the unit that their name says. An unknown parameter is an error.
"""

from typing import Annotated, Literal

import msgspec

MAX_LINE = 1024 * 1024
"""Bytes of a request; nothing the node understands comes near it."""
MAX_WAIT = 60.0
"""Seconds that ``events`` waits at most; ask again for more."""

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
REFUSED = 1
"""The node refused or failed to do it; ``data.kind`` is the name of the error."""
TIMED_OUT = 2
"""Time ran out; what was begun goes on."""

Id = int | str | None
Whole = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
FeeRate = Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)]
"""Satoshi per 1000 weight units."""
Coin = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}:[0-9]{1,7}$")]
"""``TXID:VOUT``."""


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call, or a notification if it has no ``id``."""

    jsonrpc: Literal["2.0"]
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: Id | msgspec.UnsetType = msgspec.UNSET


class ErrorData(msgspec.Struct, frozen=True, kw_only=True):
    kind: str


class RpcError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    code: int
    message: str
    data: ErrorData | None = None


class Success(msgspec.Struct, frozen=True, kw_only=True):
    jsonrpc: Literal["2.0"] = "2.0"
    result: msgspec.Raw
    id: Id


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    jsonrpc: Literal["2.0"] = "2.0"
    error: RpcError
    id: Id


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Either of the two, as the client reads it."""

    id: Id = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: RpcError | None = None


class Params(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the parameters below."""


class NoParams(Params, frozen=True, kw_only=True):
    pass


class ConnectParams(Params, frozen=True, kw_only=True):
    node_id: str
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]


class NodeParams(Params, frozen=True, kw_only=True):
    node_id: str


class OpenParams(Params, frozen=True, kw_only=True):
    """``feerate_per_kw`` of the funding transaction; by default what the fee estimator says. ``coins``: exactly these
    fund it."""

    node_id: str
    funding_sat: Positive
    push_msat: Whole = 0
    announce: bool = False
    feerate_per_kw: FeeRate | None = None
    coins: list[Coin] = []


class CloseParams(Params, frozen=True, kw_only=True):
    """``address`` takes our share (default: the key manager's destination); ``max_fee_sat`` is the most that we pay for
    the closing transaction. None of the three goes with ``force``, whose transaction is signed already."""

    channel_id: str
    force: bool = False
    address: str | None = None
    feerate_per_kw: FeeRate | None = None
    max_fee_sat: Positive | None = None


class InvoiceParams(Params, frozen=True, kw_only=True):
    """``amount_msat`` null: the payer chooses. ``expiry`` in seconds."""

    amount_msat: Positive | None = None
    description: str = ""
    expiry: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] = 3600
    label: str = ""


class PayParams(Params, frozen=True, kw_only=True):
    """``key`` makes a repeated call return the first one's outcome; ``timeout`` in seconds ends only the waiting."""

    bolt11: str
    amount_msat: Positive | None = None
    key: str = ""
    timeout: Seconds | None = None


class HashParams(Params, frozen=True, kw_only=True):
    payment_hash: str


class AddressParams(Params, frozen=True, kw_only=True):
    type: Literal["p2wpkh", "p2tr"] = "p2wpkh"


class SendParams(Params, frozen=True, kw_only=True):
    """``coins``: exactly these are spent."""

    address: str
    amount_sat: Positive
    feerate_per_kw: FeeRate | None = None
    coins: list[Coin] = []


class BumpParams(Params, frozen=True, kw_only=True):
    """``method`` null: replace a payment (rbf), speed up a funding transaction by its change (cpfp)."""

    txid: str
    feerate_per_kw: FeeRate
    method: Literal["rbf", "cpfp"] | None = None


class EventsParams(Params, frozen=True, kw_only=True):
    """Events with an index above ``after``; if there is none, wait up to ``wait`` seconds for the next."""

    after: Whole = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    wait: Seconds = 0.0


# -- results that are not records of the node ---------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, kw_only=True):
    done: bool = True


class OpenResult(msgspec.Struct, frozen=True, kw_only=True):
    channel_id: str


class AddressResult(msgspec.Struct, frozen=True, kw_only=True):
    address: str


class SendResult(msgspec.Struct, frozen=True, kw_only=True):
    txid: str


class BumpResult(msgspec.Struct, frozen=True, kw_only=True):
    """``txid`` of the new transaction; ``method``: whether it replaces the old one (rbf) or spends it (cpfp)."""

    txid: str
    method: str


class BalanceResult(msgspec.Struct, frozen=True, kw_only=True):
    """The wallet's coins, and our share of the channels that no closing transaction pays out yet.

    HTLCs in flight count as if they failed. ``anchor_reserve_sat`` is what channels with anchors need in confirmed
    coins; ``reserved_sat`` is what of that is there.
    """

    confirmed_sat: int
    unconfirmed_sat: int
    immature_sat: int
    locked_sat: int
    anchor_reserve_sat: int
    reserved_sat: int
    channels_msat: int


class CoinView(msgspec.Struct, frozen=True, kw_only=True):
    """``state``: free, locked (``claim`` holds it), immature, or foreign (unconfirmed, others can take it back)."""

    coin: str
    value_sat: int
    address: str
    height: int
    state: str
    claim: str


class TransactionView(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction of ours that is not irrevocable yet; ``refused``: why broadcasters did not take it, each with its
    reason; ``accepted_by``: those that did."""

    txid: str
    kind: str
    confirmed_height: int
    refused: str
    accepted_by: str = ""


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """``time`` is unix seconds; ``facts`` are the fields of the event."""

    index: int
    time: int
    type: str
    facts: dict[str, str | int | None]


class PluginView(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin in the running node. ``faults`` counts exceptions, timeouts and wrong answers of this run."""

    plugin: str
    quarantined: bool
    calls: int
    faults: int
    last_fault: str
