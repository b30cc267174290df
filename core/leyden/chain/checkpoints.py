"""Blocks that everybody knows: the first one of each network, and a few later ones to begin a chain of headers at.

The later ones are those whose coins Bitcoin Core accepts as a snapshot (``m_assumeutxo_data`` in its
``src/kernel/chainparams.cpp``): their hashes were reviewed and published widely. A header at one of these heights must
be that block; a checkpoint of one's own is as good where it comes from a node one trusts.
"""

from collections.abc import Mapping

import msgspec

from leyden.bitcoin import Network
from leyden.types import BlockHash, BlockHeight


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A block that is trusted to be in the best chain; ``hash`` in internal order."""

    height: BlockHeight
    hash: BlockHash


_GENESIS_MERKLE_ROOT = "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
_GENESIS_FIELDS = {
    Network.MAINNET: (_GENESIS_MERKLE_ROOT, 1231006505, 0x1D00FFFF, 2083236893),
    Network.TESTNET4: (
        "4e7b2b9128fe0291db0693af2ae418b767e657cd407e80cb1434221eaea7a07a",
        1714777860,
        0x1D00FFFF,
        393743547,
    ),
    Network.SIGNET: (_GENESIS_MERKLE_ROOT, 1598918400, 0x1E0377AE, 52613770),
    Network.REGTEST: (_GENESIS_MERKLE_ROOT, 1296688602, 0x207FFFFF, 2),
}

_KNOWN: Mapping[Network, Mapping[int, str]] = {
    Network.MAINNET: {
        840_000: "0000000000000000000320283a032748cef8227873ff4872689bf23f1cda83a5",
        880_000: "000000000000000000010b17283c3c400507969a9c2afd1dcf2082ec5cca2880",
        910_000: "0000000000000000000108970acb9522ffd516eae17acddcb1bd16469194a821",
        935_000: "0000000000000000000147034958af1652b2b91bba607beacc5e72a56f0fb5ee",
    },
    Network.TESTNET4: {
        90_000: "0000000002ebe8bcda020e0dd6ccfbdfac531d2f6a81457191b99fc2df2dbe3b",
        120_000: "000000000bd2317e51b3c5794981c35ba894ce27d3e772d5c39ecd9cbce01dc8",
    },
    Network.SIGNET: {
        160_000: "0000003ca3c99aff040f2563c2ad8f8ec88bd0fd6b8f0895cfaf1ef90353a62c",
        290_000: "0000000577f2741bb30cd9d39d6d71b023afbeb9764f6260786a97969d5c9ac0",
    },
    Network.REGTEST: {},
}

_TRUSTED = {
    network: {0: network.chain_hash}
    | {height: BlockHash(bytes.fromhex(shown)[::-1]) for height, shown in known.items()}
    for network, known in _KNOWN.items()
}


def all_checkpoints(network: Network) -> tuple[Checkpoint, ...]:
    """All of ``network``, lowest first; the first is the genesis block."""
    return tuple(Checkpoint(height=BlockHeight(h), hash=known) for h, known in sorted(_TRUSTED[network].items()))


def newest_checkpoint(network: Network, below: int | None = None) -> Checkpoint:
    """The highest one, or the highest that is not above ``below``: where to begin when blocks from there on matter."""
    return max(
        (found for found in all_checkpoints(network) if below is None or found.height <= max(below, 0)),
        key=lambda found: found.height,
    )


def trusted_hash(network: Network, height: int) -> BlockHash | None:
    """The only hash that a block of ``network`` at ``height`` can have, where that is known."""
    return _TRUSTED[network].get(height)


def genesis_header(network: Network) -> bytes:
    """The 80 bytes of the first block."""
    root, time, bits, nonce = _GENESIS_FIELDS[network]
    numbers = b"".join(number.to_bytes(4, "little") for number in (time, bits, nonce))
    return (1).to_bytes(4, "little") + bytes(32) + bytes.fromhex(root) + numbers
