"""What bitcoind says about itself, and what is wrong with that for us, in words."""

from typing import Any

import msgspec
from leyden.bitcoin import Network
from leyden.hooks.errors import PluginError
from leyden.types import BlockHash, BlockHeight

from leyden_bitcoind.client import RpcClient

CHAINS = {
    Network.MAINNET: "main",
    Network.TESTNET4: "testnet4",
    Network.SIGNET: "signet",
    Network.REGTEST: "regtest",
}


LOADING_GAP = 10
"""Blocks that bitcoind may lack of those it has headers of before we wait for it."""


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """A look at bitcoind. ``prune_height``: the lowest block that it still has whole; 0 when it prunes nothing."""

    chain: str
    genesis: BlockHash
    height: BlockHeight
    tip: BlockHash
    headers: BlockHeight
    loading: bool
    prune_height: BlockHeight


async def look(client: RpcClient, network: Network) -> Backend:
    """Ask; errors of ``RpcClient.call``. ``PluginError`` if bitcoind is on another network than ``network``."""
    info, genesis = await client.batch_of([("getblockchaininfo", ()), ("getblockhash", (0,))])
    for answer in (info, genesis):
        if isinstance(answer, Exception):
            raise answer
    height, headers = BlockHeight(info["blocks"]), BlockHeight(info["headers"])
    found = Backend(
        chain=info["chain"],
        genesis=hash_of(genesis),
        height=height,
        tip=hash_of(info["bestblockhash"]),
        headers=headers,
        loading=headers - height > LOADING_GAP or (info["initialblockdownload"] and _is_loading(network, info)),
        prune_height=BlockHeight(info.get("pruneheight", 0) if info.get("pruned") else 0),
    )
    if found.chain != CHAINS[network]:
        raise PluginError(
            f"bitcoind is on {found.chain!r}, this node on {CHAINS[network]!r}: "
            "point bitcoind.url at the right one, or change network"
        )
    if found.genesis != network.chain_hash:
        raise PluginError(f"bitcoind calls its chain {found.chain!r}, but it begins with another block: {genesis}")
    return found


def _is_loading(network: Network, info: dict[str, Any]) -> bool:
    """bitcoind calls it a download while its tip is a day old. On regtest that is no reason to wait: nobody mines."""
    return network is not Network.REGTEST or info["headers"] > info["blocks"]


def pruned_message(height: int, prune_height: int) -> str:
    """For a block that bitcoind does not have any more."""
    return (
        f"bitcoind has pruned block {height} and all below {prune_height}: give it a higher -prune and let it load "
        "them again (-reindex), or use another chain source"
    )


def hash_of(shown: str) -> BlockHash:
    """From how people see it."""
    return BlockHash(bytes.fromhex(shown)[::-1])


def shown(block_hash: bytes) -> str:
    """As people see it."""
    return block_hash[::-1].hex()
