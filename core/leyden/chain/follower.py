"""Putting what any chain source sends into strict order.

``step(follower, input) -> (follower', outputs)`` is pure. A block comes out once, on top of the one before it; blocks
leave by one ``BlocksDisconnected`` to the fork point. Duplicates vanish, gaps ask the source to start again from our
locator, lies are reported as ``SourceFault`` and change nothing. The caller stores ``records(old, new)`` in the commit
of the turn that absorbed the outputs.
"""

from collections.abc import Iterable, Sequence

import msgspec

from leyden.bitcoin import (
    HEADER_LENGTH,
    BitcoinError,
    Network,
    check_txids,
    merkle_root_from_branch,
)
from leyden.chain.errors import ChainSourceError, HeaderFromFuture
from leyden.chain.headers import HeaderChain
from leyden.chain.headers import load as load_headers
from leyden.chain.headers import records as header_records
from leyden.chain.watches import BlockIndex, WatchSet
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    ChainEvent,
    HistoryFound,
    RecordChanges,
    SourceSynced,
    SourceTip,
    SourceTrouble,
    SourceWarning,
    Watch,
)
from leyden.types import BlockHash, BlockHeight

INNER_NODE_BYTES = 64
"""A transaction of this size could be a node of the merkle tree in disguise."""

# -- inputs besides ChainEvent -------------------------------------------------------------------------------------


class WatchesAdded(msgspec.Struct, frozen=True, kw_only=True):
    """The source acknowledged ``watches`` with ``active_from`` (``ChainSource.watch``); blocks from the lowest
    ``since_height`` up to there are looked at again. Pass ``active_from`` None when the source was not asked yet:
    everything from ``since_height`` to the tip is then looked at again. For a watch that was followed before a restart
    ``since_height`` is the first block not yet absorbed, or the rescan covers history that is already known."""

    watches: tuple[Watch, ...]
    active_from: BlockHeight | None = None


class WatchesRemoved(msgspec.Struct, frozen=True, kw_only=True):
    watches: tuple[Watch, ...]


class BlockFetched(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to ``FetchBlock`` (``ChainSource.get_block``)."""

    block: BlockConnected


class LookBack(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks from ``from_height`` on are looked at again for everything that is watched: the source that brought them
    may have left something out."""

    from_height: BlockHeight


FollowerInput = ChainEvent | WatchesAdded | WatchesRemoved | BlockFetched | LookBack

# -- outputs besides those events of the source that pass --------------------------------------------------------------


class BlockRescanned(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions of a block already connected that match watches added since; may repeat one seen before."""

    height: BlockHeight
    block_hash: BlockHash
    transactions: tuple[BlockTransaction, ...]


class FetchBlock(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the source for this block and answer with ``BlockFetched``; ask again after a failure."""

    height: BlockHeight
    block_hash: BlockHash


class RestartSource(msgspec.Struct, frozen=True, kw_only=True):
    """The stream has a gap: call ``ChainSource.start`` again with ``locator``."""

    locator: tuple[tuple[BlockHeight, BlockHash], ...]
    reason: str


class SourceFault(msgspec.Struct, frozen=True, kw_only=True):
    """The source lied or is on another chain; ``reason`` is one line for the alarm."""

    reason: str


class HistoryMissing(msgspec.Struct, frozen=True, kw_only=True):
    """A watch reaches below the oldest header kept: blocks before ``from_height`` cannot be looked at again."""

    from_height: BlockHeight


FollowerOutput = (
    BlockConnected
    | BlocksDisconnected
    | SourceSynced
    | SourceTip
    | SourceTrouble
    | SourceWarning
    | BlockRescanned
    | FetchBlock
    | RestartSource
    | SourceFault
    | HistoryMissing
)


class _Rescan(msgspec.Struct, frozen=True, kw_only=True):
    """A block to look at again. ``found`` is set when it came but an older one has not."""

    height: BlockHeight
    block_hash: BlockHash
    watches: WatchSet
    found: tuple[BlockTransaction, ...] | None = None


class _Newest:
    """The newest block, whole, and what it pays and spends as soon as somebody asks."""

    __slots__ = ("_block", "_index", "height")

    def __init__(self, block: BlockConnected) -> None:
        self.height = block.height
        self._block = block.raw or block.transactions
        self._index: BlockIndex | None = None

    def matching(self, watches: Iterable[Watch]) -> tuple[BlockTransaction, ...]:
        if self._index is None:
            self._index = BlockIndex(self._block)
        return self._index.matching(watches)


class ChainFollower(msgspec.Struct, frozen=True, kw_only=True):
    """Where we are. Only ``chain`` is stored; the rest is rebuilt or asked for again after a restart."""

    chain: HeaderChain
    watches: WatchSet = msgspec.field(default_factory=WatchSet)
    newest: _Newest | None = None
    """The newest block if it came in full: a watch added because of it is matched against it at once."""
    rescans: tuple[_Rescan, ...] = ()
    """By height: older blocks come out first, for what spends must not be told before what it spends."""
    synced: bool = False
    """The source has delivered everything up to its tip, and nothing left since."""
    proofs: bool = False
    """Transactions of blocks that are not whole must come with their merkle branches (``SourceInfo.proofs``)."""

    @property
    def height(self) -> BlockHeight:
        return self.chain.tip_height

    @property
    def best_hash(self) -> BlockHash | None:
        return self.chain.tip_hash

    @property
    def locator(self) -> tuple[tuple[BlockHeight, BlockHash], ...]:
        """For ``ChainSource.start``."""
        return self.chain.locator()


_Step = tuple[ChainFollower, tuple[FollowerOutput, ...]]


def step(follower: ChainFollower, happened: FollowerInput, now: int | None = None) -> _Step:
    """Absorb one input. Never raises for what a source sent: a lie gives ``SourceFault`` and an equal follower.

    With ``now`` (unix seconds) a block that is more than two hours ahead of it is asked for again later.
    """
    try:
        match happened:
            case BlockConnected():
                return _on_connected(follower, happened, now)
            case BlocksDisconnected():
                return _on_disconnected(follower, happened)
            case HistoryFound():
                return _on_history(follower, happened)
            case SourceSynced():
                return _on_synced(follower, happened)
            case SourceTip() | SourceTrouble() | SourceWarning():
                return follower, (happened,)
            case WatchesAdded():
                return _on_watches_added(follower, happened)
            case WatchesRemoved():
                return _replace(follower, watches=follower.watches.removing(happened.watches)), ()
            case BlockFetched():
                return _on_block_fetched(follower, happened.block)
            case LookBack():
                return _on_look_back(follower, happened.from_height)
    except HeaderFromFuture as error:
        return follower, (_restart(follower, str(error)),)
    except ChainSourceError as error:
        return follower, (SourceFault(reason=str(error)),)


def _replace(follower: ChainFollower, **changes: object) -> ChainFollower:
    return msgspec.structs.replace(follower, **changes)


def _on_connected(follower: ChainFollower, block: BlockConnected, now: int | None) -> _Step:
    chain = follower.chain
    if chain.hash_at(block.height) == block.block_hash:
        return follower, ()
    if not chain.links(block.height, block.header):
        return follower, (_restart(follower, f"block {block.height} does not follow our {chain.tip_height}"),)
    chain = chain.extended(block.height, block.block_hash, block.header, now=now)
    found = _watched_in(block, follower.watches, follower.proofs)
    newest = _Newest(block) if block.full else None
    after = _replace(follower, chain=chain, newest=newest)
    return after, (msgspec.structs.replace(block, transactions=found, full=False, raw=b""),)


def _on_disconnected(follower: ChainFollower, event: BlocksDisconnected) -> _Step:
    chain = follower.chain
    if event.fork_height > chain.tip_height:
        return follower, (_restart(follower, f"a fork at {event.fork_height} is above our {chain.tip_height}"),)
    known = chain.hash_at(event.fork_height)
    if known is not None and known != event.fork_hash:
        return follower, (_restart(follower, f"the fork point at {event.fork_height} is not our block"),)
    if event.fork_height == chain.tip_height:
        return follower, ()
    chain = chain.cut_to(event.fork_height, event.fork_hash)
    rescans = tuple(rescan for rescan in follower.rescans if rescan.height <= event.fork_height)
    return _replace(follower, chain=chain, newest=None, rescans=rescans, synced=False), (event,)


def _on_synced(follower: ChainFollower, event: SourceSynced) -> _Step:
    if event.height < follower.chain.tip_height and follower.chain.hash_at(event.height) == event.block_hash:
        # An older tip of ours, repeated or from a source that lags behind another: nothing is taken back for it.
        return follower, ()
    if follower.chain and event.block_hash != follower.chain.tip_hash:
        return _replace(follower, synced=False), (
            _restart(follower, f"the source ends at {event.height}, not with us"),
        )
    return _replace(follower, synced=True), (event,)


def _restart(follower: ChainFollower, reason: str) -> RestartSource:
    return RestartSource(locator=follower.locator, reason=reason)


def _watched_in(block: BlockConnected, watches: WatchSet, proofs: bool) -> tuple[BlockTransaction, ...]:
    """What of ``block`` is watched. A full one must be the one its header commits to, in order; of a partial one every
    merkle branch must fit."""
    if block.raw:
        return _watched_in_raw(block, watches)
    if not block.full:
        _check_branches(block.height, block.header, block.transactions, proofs)
        return watches.matching(block.transactions)
    if [found.position for found in block.transactions] != list(range(len(block.transactions))):
        raise ChainSourceError(f"block {block.height}: positions of its transactions are not 0, 1, 2…")
    try:
        check_txids([found.tx.txid for found in block.transactions], block.header[36:68])
    except BitcoinError as error:
        raise ChainSourceError(f"block {block.height}: the transactions do not match the header: {error}") from error
    return watches.matching(block.transactions)


def _watched_in_raw(block: BlockConnected, watches: WatchSet) -> tuple[BlockTransaction, ...]:
    if not block.full or block.transactions or block.raw[:HEADER_LENGTH] != block.header:
        raise ChainSourceError(f"block {block.height}: its bytes are not the block that is announced")
    try:
        body = watches.scan(block.raw)
        body.check()
        return watches.matching_in(body)
    except BitcoinError as error:
        raise ChainSourceError(f"block {block.height}: {error}") from error


def _check_branches(height: int, header: bytes, transactions: Sequence[BlockTransaction], proofs: bool) -> None:
    """What the branches prove must be so; their lengths agree, for all transactions of a block are equally deep."""
    depths = {len(found.branch) for found in transactions if found.branch is not None}
    if len(depths) > 1:
        raise ChainSourceError(f"block {height}: its merkle branches are not equally long")
    for found in transactions:
        if found.branch is None:
            if proofs:
                raise ChainSourceError(f"block {height}: a transaction came without its merkle branch")
            continue
        if len(found.tx.serialize_legacy()) == INNER_NODE_BYTES:
            raise ChainSourceError(f"block {height}: a transaction of 64 bytes cannot be told from an inner node")
        try:
            root = merkle_root_from_branch(found.tx.txid, found.position, found.branch)
        except BitcoinError as error:
            raise ChainSourceError(f"block {height}: {error}") from error
        if root != header[36:68]:
            raise ChainSourceError(f"block {height}: the merkle branch of {found.tx.txid[::-1].hex()} does not fit")


def _on_history(follower: ChainFollower, found: HistoryFound) -> _Step:
    """For a block of another branch it means nothing: when that branch becomes ours it is delivered with it."""
    if found.height <= follower.chain.base_height:
        if follower.chain.pruned and found.transactions:
            return follower, (HistoryMissing(from_height=BlockHeight(follower.chain.base_height + 1)),)
        return follower, ()
    if follower.chain.hash_at(found.height) != found.block_hash:
        return follower, ()
    _check_branches(found.height, follower.chain.header_at(found.height), found.transactions, follower.proofs)
    matching = follower.watches.matching(found.transactions)
    if not matching:
        return follower, ()
    return follower, (BlockRescanned(height=found.height, block_hash=found.block_hash, transactions=matching),)


def _on_watches_added(follower: ChainFollower, added: WatchesAdded) -> _Step:
    if not added.watches:
        return follower, ()
    chain, newest = follower.chain, follower.newest
    after = _replace(follower, watches=follower.watches.adding(added.watches))
    first = min(watch.since_height for watch in added.watches)
    # The block that is being worked on was matched without these watches, even if the source knows them already.
    last = chain.tip_height if added.active_from is None else min(chain.tip_height, added.active_from - 1)
    last = max(last, chain.tip_height if newest is not None else last)
    outputs: list[FollowerOutput] = []
    if chain.pruned and first <= chain.base_height:
        outputs.append(HistoryMissing(from_height=BlockHeight(chain.base_height + 1)))
    rescans = {rescan.block_hash: rescan for rescan in after.rescans}
    for height in range(max(first, chain.base_height + 1), last + 1):
        wanted = tuple(watch for watch in added.watches if watch.since_height <= height)
        block_hash = chain.hash_at(height)
        if block_hash is None:
            continue
        if newest is not None and newest.height == height:
            try:
                outputs.extend(_rescanned(newest.height, block_hash, newest.matching(wanted)))
                continue
            except BitcoinError:
                pass  # damaged where its header does not cover it: asked for again
        asked = rescans.get(block_hash)
        if asked is None or asked.found is not None:
            outputs.append(FetchBlock(height=BlockHeight(height), block_hash=block_hash))
        # A block that is already asked for serves these watches too.
        watches = (WatchSet() if asked is None else asked.watches).adding(wanted)
        rescans[block_hash] = _Rescan(height=BlockHeight(height), block_hash=block_hash, watches=watches)
    ordered = tuple(sorted(rescans.values(), key=lambda rescan: rescan.height))
    return _replace(after, rescans=ordered), tuple(outputs)


def _on_look_back(follower: ChainFollower, first: BlockHeight) -> _Step:
    chain = follower.chain
    if not follower.watches:
        return follower, ()
    rescans = {rescan.block_hash: rescan for rescan in follower.rescans}
    outputs: list[FollowerOutput] = []
    for height in range(max(first, chain.base_height + 1), chain.tip_height + 1):
        block_hash = chain.hash_at(height)
        if block_hash is None:
            continue
        asked = rescans.get(block_hash)
        if asked is None or asked.found is not None:
            outputs.append(FetchBlock(height=BlockHeight(height), block_hash=block_hash))
        rescans[block_hash] = _Rescan(height=BlockHeight(height), block_hash=block_hash, watches=follower.watches)
    ordered = tuple(sorted(rescans.values(), key=lambda rescan: rescan.height))
    return _replace(follower, rescans=ordered), tuple(outputs)


def _rescanned(
    height: BlockHeight, block_hash: BlockHash, found: tuple[BlockTransaction, ...]
) -> Iterable[BlockRescanned]:
    if found:
        yield BlockRescanned(height=height, block_hash=block_hash, transactions=found)


def _on_block_fetched(follower: ChainFollower, block: BlockConnected) -> _Step:
    """Late answers for blocks that left the chain are dropped: their replacements were matched with every watch."""
    asked = next((rescan for rescan in follower.rescans if rescan.block_hash == block.block_hash), None)
    if asked is None or asked.found is not None:
        return follower, ()
    if asked.height > follower.chain.base_height and follower.chain.header_at(asked.height) != block.header:
        raise ChainSourceError(f"block {asked.height}: fetched with another header")
    if not block.full:
        raise ChainSourceError(f"block {asked.height}: fetched without all of its transactions")
    block = msgspec.structs.replace(block, height=asked.height)
    done = msgspec.structs.replace(asked, found=_watched_in(block, asked.watches, follower.proofs))
    return _release(follower, [done if rescan is asked else rescan for rescan in follower.rescans])


def _release(follower: ChainFollower, rescans: list[_Rescan]) -> _Step:
    """What was looked at leaves from the oldest on, up to the first block that is still missing."""
    outputs: list[FollowerOutput] = []
    while rescans and rescans[0].found is not None:
        oldest = rescans.pop(0)
        outputs.extend(_rescanned(oldest.height, oldest.block_hash, oldest.found or ()))
    return _replace(follower, rescans=tuple(rescans)), tuple(outputs)


def records(old: ChainFollower | None, new: ChainFollower, prefix: bytes) -> RecordChanges:
    """Rows to put and delete so that ``load`` finds ``new.chain`` again; see ``leyden.chain.headers.records``."""
    return header_records(old.chain if old is not None else None, new.chain, prefix)


def load(
    rows: Sequence[tuple[bytes, bytes]], prefix: bytes, network: Network, birth_height: BlockHeight
) -> ChainFollower:
    """A follower from stored rows, or a new one whose first block is ``birth_height``. It watches nothing yet."""
    return ChainFollower(chain=load_headers(rows, prefix, network, birth_height))
