"""Blocks with real proof of work at regtest difficulty, without a kernel: for tests of the follower."""

from collections.abc import Sequence

import msgspec
from leyden.bitcoin import Header, Network, Transaction, TxIn, TxOut, merkle_root, p2wsh
from leyden.bitcoin.block import target_from_bits
from leyden.hooks.types import BlockConnected, BlockTransaction
from leyden.types import BlockHash, BlockHeight, OutPoint, Sat, Txid

BITS = 0x207FFFFF
GENESIS = Network.REGTEST.chain_hash
FIRST_TIME = 1296688602


def make_tx(
    salt: int, *, script: bytes = b"\x51", prevout: OutPoint | None = None, witness: Sequence[bytes] = ()
) -> Transaction:
    spent = prevout or OutPoint(Txid(salt.to_bytes(32, "big")), 0)
    txin = TxIn(prevout=spent, sequence=0, witness=tuple(witness))
    return Transaction(version=2, inputs=(txin,), outputs=(TxOut(value=Sat(1000), script=script),), locktime=0)


def make_block(
    previous: bytes, height: int, transactions: Sequence[Transaction] = (), salt: int = 0, bits: int = BITS
) -> BlockConnected:
    body = (make_tx(height << 32 | salt, script=p2wsh(b"coinbase")), *transactions)
    header = Header(
        version=1,
        prev_hash=BlockHash(previous),
        merkle_root=merkle_root([tx.txid for tx in body]),
        time=FIRST_TIME + height,
        bits=bits,
        nonce=0,
    )
    while int.from_bytes(header.hash, "little") > target_from_bits(bits):
        header = msgspec.structs.replace(header, nonce=header.nonce + 1)
    found = tuple(BlockTransaction(position=index, tx=tx) for index, tx in enumerate(body))
    return BlockConnected(
        height=BlockHeight(height), block_hash=header.hash, header=header.serialize(), transactions=found, full=True
    )


def make_chain(count: int, *, previous: bytes = GENESIS, first: int = 1, salt: int = 0) -> list[BlockConnected]:
    blocks = []
    for height in range(first, first + count):
        blocks.append(make_block(previous, height, salt=salt))
        previous = blocks[-1].block_hash
    return blocks
