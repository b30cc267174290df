"""What travels over the socket: one JSON object per line.

A request names its ``method`` and carries an ``id`` that its reply repeats. A connection that sent ``follow`` also
gets pushes, which have a ``push`` member and no id. Hashes and txids are hexadecimal in the order that people read
(reversed); scripts, headers, transactions and blocks are serialized and hexadecimal.
"""

import msgspec
from leyden.bitcoin import parse_block
from leyden.hooks.types import BlockConnected, BlocksDisconnected, BlockTransaction, SourceSynced
from leyden.types import BlockHash, BlockHeight

MAX_LINE = 32 * 1024 * 1024
"""Bytes; a full block in hexadecimal is a quarter of it."""


class Request(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="method", forbid_unknown_fields=True, omit_defaults=True
):
    """Base of the requests; an unknown member is an error."""

    id: int = 0


class GetInfo(Request, frozen=True, kw_only=True, tag="info"):
    """Height, tip, mempool size, fee."""


class GetHeaders(Request, frozen=True, kw_only=True, tag="headers"):
    """Headers of the best chain from ``start``, at most ``count`` (2,000)."""

    start: int
    count: int = 2000


class GetBlock(Request, frozen=True, kw_only=True, tag="block"):
    """By ``hash`` (any branch) or ``height`` (best chain)."""

    hash: str | None = None
    height: int | None = None


class Broadcast(Request, frozen=True, kw_only=True, tag="broadcast"):
    """A package, parents first. The reply says ``accepted`` or why not; a refusal is no error."""

    package: list[str]


class Mine(Request, frozen=True, kw_only=True, tag="mine"):
    """``blocks`` blocks that pay ``script`` or ``address`` (the faucet without either)."""

    blocks: int = 1
    script: str | None = None
    address: str | None = None


class FaucetPay(Request, frozen=True, kw_only=True, tag="faucet"):
    """Pay ``sat`` satoshi to ``address`` or ``script``; confirmed by the next block."""

    sat: int
    address: str | None = None
    script: str | None = None


class Reorg(Request, frozen=True, kw_only=True, tag="reorg"):
    """Replace ``depth`` blocks by ``depth + extra``; ``forget`` drops their transactions for good."""

    depth: int
    extra: int = 1
    forget: bool = False


class FindUtxo(Request, frozen=True, kw_only=True, tag="utxo"):
    txid: str
    vout: int


class FindTransaction(Request, frozen=True, kw_only=True, tag="transaction"):
    txid: str


class FindSpender(Request, frozen=True, kw_only=True, tag="spender"):
    """The transaction that spends an output, confirmed or in the mempool."""

    txid: str
    vout: int


class ListMempool(Request, frozen=True, kw_only=True, tag="mempool"):
    """The transactions of the mempool, parents first."""


class Fee(Request, frozen=True, kw_only=True, tag="fee"):
    """The constant feerate in sat per 1000 weight; ``set`` changes it."""

    set: int | None = None


class Follow(Request, frozen=True, kw_only=True, tag="follow"):
    """Push the chain on this connection: after the newest known hash of ``locator`` or from ``birth_height``."""

    locator: list[str] = []
    birth_height: int = 0


class Stop(Request, frozen=True, kw_only=True, tag="stop"):
    """Stop the server."""


AnyRequest = (
    GetInfo
    | GetHeaders
    | GetBlock
    | Broadcast
    | Mine
    | FaucetPay
    | Reorg
    | FindUtxo
    | FindTransaction
    | FindSpender
    | ListMempool
    | Fee
    | Follow
    | Stop
)


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """``code`` is a short stable word, ``message`` one line for people."""

    code: str
    message: str


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None


# -- results ---------------------------------------------------------------------------------------------------------


class ChainInfo(msgspec.Struct, frozen=True, kw_only=True):
    height: int
    hash: str
    mempool: int
    feerate_per_kw: int
    faucet_script: str


class BlockResult(msgspec.Struct, frozen=True, kw_only=True):
    height: int
    hash: str
    block: str


class BroadcastOutcome(msgspec.Struct, frozen=True, kw_only=True):
    accepted: bool
    reason: str = ""


class UtxoResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``status`` is ``found`` (with the rest), ``spent`` or ``unknown``."""

    status: str
    sat: int = 0
    script: str = ""
    height: int = 0
    coinbase: bool = False


class TransactionResult(msgspec.Struct, frozen=True, kw_only=True):
    """``height`` is ``None`` in the mempool."""

    txid: str
    transaction: str
    height: int | None


# -- pushes ----------------------------------------------------------------------------------------------------------


class Push(msgspec.Struct, frozen=True, kw_only=True, tag_field="push"):
    """Base of what a following connection is told, in order."""


class ConnectedPush(Push, frozen=True, kw_only=True, tag="connected"):
    height: int
    block: str


class DisconnectedPush(Push, frozen=True, kw_only=True, tag="disconnected"):
    fork_height: int
    fork_hash: str


class SyncedPush(Push, frozen=True, kw_only=True, tag="synced"):
    height: int
    hash: str


AnyPush = ConnectedPush | DisconnectedPush | SyncedPush
Pushed = BlockConnected | BlocksDisconnected | SourceSynced
"""The events of a chain that this protocol carries."""


def text_hash(block_hash_or_txid: bytes) -> str:
    return block_hash_or_txid[::-1].hex()


def make_push(event: Pushed, raw_block: bytes) -> AnyPush:
    """``raw_block`` is used for a connected block only."""
    match event:
        case BlockConnected():
            return ConnectedPush(height=event.height, block=raw_block.hex())
        case BlocksDisconnected():
            return DisconnectedPush(fork_height=event.fork_height, fork_hash=text_hash(event.fork_hash))
        case SourceSynced():
            return SyncedPush(height=event.height, hash=text_hash(event.block_hash))


def read_push(push: AnyPush) -> Pushed:
    """The chain event of a push; ``BitcoinError`` or ``ValueError`` if the server sent nonsense."""
    match push:
        case ConnectedPush():
            return connected_block(BlockHeight(push.height), bytes.fromhex(push.block))
        case DisconnectedPush():
            return BlocksDisconnected(
                fork_height=BlockHeight(push.fork_height), fork_hash=BlockHash(bytes.fromhex(push.fork_hash)[::-1])
            )
        case SyncedPush():
            return SourceSynced(height=BlockHeight(push.height), block_hash=BlockHash(bytes.fromhex(push.hash)[::-1]))


def connected_block(height: BlockHeight, raw: bytes) -> BlockConnected:
    """A serialized block as the full event that it is; ``BitcoinError`` if it cannot be parsed."""
    block = parse_block(raw)
    transactions = tuple(BlockTransaction(position=index, tx=tx) for index, tx in enumerate(block.transactions))
    return BlockConnected(height=height, block_hash=block.hash, header=raw[:80], transactions=transactions, full=True)
