"""Building blocks that the consensus rules accept on regtest: coinbase, witness commitment, proof of work."""

import struct
from collections.abc import Sequence

from leyden.bitcoin import (
    SEQUENCE_FINAL,
    Transaction,
    TxIn,
    TxOut,
    merkle_root,
    push_data,
    push_int,
    target_from_bits,
    witness_commitment,
    write_varint,
)
from leyden.crypto import sha256d
from leyden.types import BlockHash, BlockHeight, OutPoint, Sat, Txid

GENESIS_TIME = 1_296_688_602
BLOCK_INTERVAL = 600
"""Seconds between headers: a fixed grid, so that a chain is a function of what was mined; always below now."""
HALVING_INTERVAL = 150
MAX_BLOCK_WEIGHT = 4_000_000
_BITS = 0x207FFFFF
_VERSION = 0x2000_0000
_TARGET = target_from_bits(_BITS)


def subsidy(height: BlockHeight) -> Sat:
    """New coins of the block at ``height``, satoshi (regtest halves every 150 blocks)."""
    halvings = height // HALVING_INTERVAL
    return Sat(50_0000_0000 >> halvings if halvings < 64 else 0)


def block_time(height: BlockHeight) -> int:
    return GENESIS_TIME + BLOCK_INTERVAL * height


def make_coinbase(
    height: BlockHeight, script: bytes, value: Sat, extra: int, transactions: Sequence[Transaction]
) -> Transaction:
    """The coinbase of a block with ``transactions``: ``value`` satoshi to ``script``, and the witness commitment
    (BIP 141). ``extra`` makes it unlike every other coinbase of that height."""
    txin = TxIn(
        prevout=OutPoint(Txid(bytes(32)), 0xFFFF_FFFF),
        script_sig=push_int(height) + push_data(extra.to_bytes(8, "little")),
        sequence=SEQUENCE_FINAL,
        witness=(bytes(32),),
    )
    outputs = (TxOut(value=value, script=script), witness_commitment(transactions))
    return Transaction(version=2, inputs=(txin,), outputs=outputs, locktime=0)


def mine_block(
    previous: BlockHash,
    height: BlockHeight,
    transactions: Sequence[Transaction],
    *,
    fees: Sat,
    script: bytes,
    extra: int,
) -> bytes:
    """A serialized block on top of ``previous`` whose coinbase pays subsidy and ``fees`` (satoshi) to ``script``."""
    coinbase = make_coinbase(height, script, Sat(subsidy(height) + fees), extra, transactions)
    body = [coinbase, *transactions]
    root = merkle_root([tx.txid for tx in body])
    prefix = struct.pack("<i", _VERSION) + previous + root + struct.pack("<II", block_time(height), _BITS)
    nonce = 0
    while int.from_bytes(sha256d(prefix + nonce.to_bytes(4, "little")), "little") > _TARGET:
        nonce += 1
    return prefix + nonce.to_bytes(4, "little") + write_varint(len(body)) + b"".join(tx.serialize() for tx in body)
