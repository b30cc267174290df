"""Following the chain as a value: order, reorgs, headers, watches. No socket, no clock."""

from leyden.chain.checkpoints import Checkpoint, all_checkpoints, genesis_header, newest_checkpoint, trusted_hash
from leyden.chain.difficulty import HeaderTip, genesis_tip, linked_hashes, start_at
from leyden.chain.errors import ChainSourceError, HeaderFromFuture
from leyden.chain.follower import (
    BlockFetched,
    BlockRescanned,
    ChainFollower,
    FetchBlock,
    FollowerInput,
    FollowerOutput,
    HistoryMissing,
    LookBack,
    RestartSource,
    SourceFault,
    WatchesAdded,
    WatchesRemoved,
    load,
    records,
    step,
)
from leyden.chain.headers import KEPT_HEADERS, HeaderChain, begin_at
from leyden.chain.watches import WatchSet, spent_script

__all__ = [
    "KEPT_HEADERS",
    "BlockFetched",
    "BlockRescanned",
    "ChainFollower",
    "ChainSourceError",
    "Checkpoint",
    "FetchBlock",
    "FollowerInput",
    "FollowerOutput",
    "HeaderChain",
    "HeaderFromFuture",
    "HeaderTip",
    "HistoryMissing",
    "LookBack",
    "RestartSource",
    "SourceFault",
    "WatchSet",
    "WatchesAdded",
    "WatchesRemoved",
    "all_checkpoints",
    "begin_at",
    "genesis_header",
    "genesis_tip",
    "linked_hashes",
    "load",
    "newest_checkpoint",
    "records",
    "spent_script",
    "start_at",
    "step",
    "trusted_hash",
]
