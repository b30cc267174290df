"""What a chain says by itself: read block by block, without any reorg, by code that shares nothing with the node's."""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from leyden.bitcoin import Block
from leyden.types import OutPoint, Sat, Txid


class Coin(NamedTuple):
    outpoint: OutPoint
    value: Sat
    height: int


class Truth(NamedTuple):
    """``coins``: unspent outputs that pay one of the scripts. ``places``: height and index of every transaction."""

    coins: frozenset[Coin]
    places: dict[Txid, tuple[int, int]]


def read_chain(blocks: Iterable[tuple[int, Block]], scripts: Collection[bytes]) -> Truth:
    """From the first block on."""
    unspent: dict[OutPoint, Coin] = {}
    places: dict[Txid, tuple[int, int]] = {}
    wanted = set(scripts)
    for height, block in blocks:
        for index, tx in enumerate(block.transactions):
            places[tx.txid] = (height, index)
            for txin in tx.inputs:
                unspent.pop(txin.prevout, None)
            for vout, output in enumerate(tx.outputs):
                if output.script in wanted:
                    outpoint = OutPoint(tx.txid, vout)
                    unspent[outpoint] = Coin(outpoint, output.value, height)
    return Truth(frozenset(unspent.values()), places)
