"""Following the chain as a value: order, reorgs, headers, watches. No socket, no clock."""

from leyden.chain.errors import ChainSourceError
from leyden.chain.follower import (
    BlockFetched,
    BlockRescanned,
    ChainFollower,
    FetchBlock,
    FollowerInput,
    FollowerOutput,
    HistoryMissing,
    RestartSource,
    SourceFault,
    WatchesAdded,
    WatchesRemoved,
    load,
    records,
    step,
)
from leyden.chain.headers import KEPT_HEADERS, HeaderChain
from leyden.chain.watches import WatchSet, spent_script

__all__ = [
    "KEPT_HEADERS",
    "BlockFetched",
    "BlockRescanned",
    "ChainFollower",
    "ChainSourceError",
    "FetchBlock",
    "FollowerInput",
    "FollowerOutput",
    "HeaderChain",
    "HistoryMissing",
    "RestartSource",
    "SourceFault",
    "WatchSet",
    "WatchesAdded",
    "WatchesRemoved",
    "load",
    "records",
    "spent_script",
    "step",
]
