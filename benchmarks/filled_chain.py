"""A regtest chain whose blocks are full of transactions, made without a node: the same bytes on every machine.

Inputs and outputs have the sizes of P2WPKH: the witness script drops a key-sized and a signature-sized item, so that
anyone may spend and nothing has to be signed. Some of the transactions have other shapes (more outputs, more inputs).
"""

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from leyden.bitcoin import (
    Block,
    Header,
    Network,
    Transaction,
    TxIn,
    TxOut,
    merkle_root,
    p2wsh,
    push_data,
    target_from_bits,
    witness_commitment,
)
from leyden.types import BlockHash, OutPoint, Sat, Txid

MATURITY = 100
FIRST_TIME = 1_767_225_600
"""2026-01-01; a block a second."""
BITS = 0x207FFFFF
SCRIPT = push_data(b"\x02" * 33) + b"\x6d\x51"
"""Key-sized push, OP_2DROP (it and the item below), OP_TRUE."""
SIGNATURE = bytes(71)
PAID = p2wsh(SCRIPT)
SHAPES = ((1, 2), (1, 2), (2, 2), (1, 1), (1, 3), (2, 1), (2, 2), (1, 2), (2, 2), (3, 2))
"""Inputs and outputs of the transactions, over and over; as many go in as come out."""


def filled_blocks(blocks: int, transactions: int) -> Iterator[bytes]:
    """Raw blocks from height 1 on: some to mature, one that splits coins, ``blocks`` with ``transactions`` each."""
    coins: deque[tuple[OutPoint, Sat]] = deque()
    previous = Network.REGTEST.chain_hash
    height = 0
    first_coinbase: Transaction | None = None
    for height in range(1, MATURITY + 2):
        block = _block(height, previous, ())
        first_coinbase = first_coinbase or block.transactions[0]
        previous = block.hash
        yield block.serialize()
    if first_coinbase is None:
        return
    split = 2 * transactions + 50
    value = Sat(first_coinbase.outputs[0].value // split)
    fan = _spend([OutPoint(first_coinbase.txid, 0)], [value] * split)
    coins.extend((OutPoint(fan.txid, vout), value) for vout in range(split))
    todo: list[Sequence[Transaction]] = [(fan,)]
    for _ in range(blocks):
        for body in todo:
            height += 1
            block = _block(height, previous, body)
            previous = block.hash
            yield block.serialize()
        todo = [_shuffled(coins, transactions)]
    yield _block(height + 1, previous, todo[0]).serialize()


def _shuffled(coins: "deque[tuple[OutPoint, Sat]]", transactions: int) -> list[Transaction]:
    made = []
    for number in range(transactions):
        inputs, outputs = SHAPES[number % len(SHAPES)]
        spent = [coins.popleft() for _ in range(inputs)]
        total = sum(value for _, value in spent)
        each = Sat(total // outputs)
        tx = _spend([outpoint for outpoint, _ in spent], [each] * outputs)
        coins.extend((OutPoint(tx.txid, vout), each) for vout in range(outputs))
        made.append(tx)
    return made


def _spend(spent: Sequence[OutPoint], values: Sequence[Sat]) -> Transaction:
    return Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=outpoint, sequence=0xFFFFFFFD, witness=(SIGNATURE, SCRIPT)) for outpoint in spent),
        outputs=tuple(TxOut(value=value, script=PAID) for value in values),
        locktime=0,
    )


def _block(height: int, previous: BlockHash, body: Sequence[Transaction]) -> Block:
    coinbase = Transaction(
        version=2,
        inputs=(
            TxIn(
                prevout=OutPoint(Txid(bytes(32)), 0xFFFFFFFF),
                script_sig=_height_push(height) + push_data(b"leyden"),
                sequence=0xFFFFFFFF,
                witness=(bytes(32),),
            ),
        ),
        outputs=(TxOut(value=Sat(50_00000000 >> height // 150), script=PAID), witness_commitment(body)),
        locktime=0,
    )
    transactions = (coinbase, *body)
    root = merkle_root([tx.txid for tx in transactions])
    nonce, target = 0, target_from_bits(BITS)
    while True:
        header = Header(
            version=0x20000000,
            prev_hash=previous,
            merkle_root=root,
            time=FIRST_TIME + height,
            bits=BITS,
            nonce=nonce,
        )
        if int.from_bytes(header.hash, "little") <= target:
            return Block(header=header, transactions=transactions)
        nonce += 1


def _height_push(height: int) -> bytes:
    if height <= 16:
        return bytes((0x50 + height,))
    return push_data(height.to_bytes(height.bit_length() // 8 + 1, "little"))


def cached_blocks(folder: Path, blocks: int, transactions: int) -> list[bytes]:
    """``filled_blocks``, kept in ``folder`` for the next time."""
    path = folder / f"filled-{blocks}-{transactions}.blocks"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            for raw in filled_blocks(blocks, transactions):
                file.write(struct.pack("<I", len(raw)) + raw)
        part.rename(path)
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return found
