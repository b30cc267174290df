"""Block headers, proof of work, merkle trees and blocks."""

import hashlib
import struct
from collections.abc import Sequence
from functools import cached_property

import msgspec

from leyden.bitcoin.encoding import read_varint, write_varint
from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.network import Network
from leyden.bitcoin.script import op_return
from leyden.bitcoin.transaction import Transaction, TxOut, parse_transaction, read_transaction
from leyden.crypto import sha256d
from leyden.types import BlockHash, Sat, Txid

HEADER_LENGTH = 80
_sha256 = hashlib.sha256
"""Directly: a call more for each of thousands of nodes shows."""
_HEADER = struct.Struct("<i32s32sIII")
_WITNESS_COMMITMENT = bytes.fromhex("aa21a9ed")


class Header(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A block header. ``time`` is in seconds since 1970, ``bits`` the compact form of the target."""

    version: int
    prev_hash: BlockHash
    merkle_root: bytes
    time: int
    bits: int
    nonce: int

    @cached_property
    def hash(self) -> BlockHash:
        """32 bytes in internal order."""
        return BlockHash(sha256d(self.serialize()))

    def serialize(self) -> bytes:
        """80 bytes; ``BitcoinError`` if a field is out of range."""
        if len(self.prev_hash) != 32 or len(self.merkle_root) != 32:
            raise BitcoinError("hashes in a header have 32 bytes")
        try:
            return _HEADER.pack(self.version, self.prev_hash, self.merkle_root, self.time, self.bits, self.nonce)
        except struct.error:
            raise BitcoinError("a number in the header does not fit 32 bits") from None


def parse_header(data: bytes) -> Header:
    """The header that 80 bytes are; ``BitcoinError`` for another length. Proof of work is not checked here."""
    if len(data) != HEADER_LENGTH:
        raise BitcoinError(f"a header has 80 bytes, not {len(data)}")
    version, prev_hash, merkle, time, bits, nonce = _HEADER.unpack(data)
    return Header(version=version, prev_hash=prev_hash, merkle_root=merkle, time=time, bits=bits, nonce=nonce)


def target_from_bits(bits: int) -> int:
    """The target of a compact difficulty; ``BitcoinError`` if that is negative, zero or above 256 bits."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    target = mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)
    if bits & 0x800000 or not 0 < target < 1 << 256:
        raise BitcoinError(f"no valid difficulty: {bits:#010x}")
    return target


def work_from_bits(bits: int) -> int:
    """The number of hashes that a block of this difficulty takes on average; errors as ``target_from_bits``."""
    return (1 << 256) // (target_from_bits(bits) + 1)


def check_proof_of_work(header: Header, network: Network) -> None:
    """``BitcoinError`` unless the hash of the header meets its own target and that is allowed on ``network``.

    Whether the target is the one due at this height is not checked: that needs the headers before it.
    """
    target = target_from_bits(header.bits)
    if target > network.pow_limit:
        raise BitcoinError(f"block difficulty {header.bits:#010x} is too low for {network.label}")
    if int.from_bytes(header.hash, "little") > target:
        raise BitcoinError(f"block {header.hash[::-1].hex()} does not meet its proof of work")


def merkle_root(txids: Sequence[bytes]) -> bytes:
    """The root over transaction ids in block order, 32 bytes in internal order; ``BitcoinError`` without any."""
    if not txids:
        raise BitcoinError("no transactions, no merkle root")
    level = list(txids)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        pairs = iter(level)
        level = [_sha256(_sha256(left + right).digest()).digest() for left, right in zip(pairs, pairs, strict=True)]
    return level[0]


def check_txids(txids: Sequence[bytes], root: bytes) -> None:
    """``BitcoinError`` unless ``root``, as a header has it, commits to exactly these transactions, each once: to repeat
    the last ones would not change it."""
    if not txids or len(set(txids)) != len(txids):
        raise BitcoinError("the block has no transactions or repeats one")
    if merkle_root(txids) != root:
        raise BitcoinError("the transactions are not those that the header commits to")


def merkle_branch(txids: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The hashes that prove transaction ``index``, from the leaves up; ``BitcoinError`` if there is no such one."""
    if not 0 <= index < len(txids):
        raise BitcoinError(f"no transaction {index} in this block")
    level, branch = list(txids), []
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        branch.append(level[index ^ 1])
        level = [sha256d(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
        index >>= 1
    return tuple(branch)


def merkle_root_from_branch(txid: bytes, index: int, branch: Sequence[bytes]) -> bytes:
    """The root that ``branch`` proves for ``txid`` at position ``index``; compare it with the header's.

    ``BitcoinError`` for a position that a tree of this depth cannot have, and for a node on the way that can be read as
    a transaction of 64 bytes: below such a leaf of the tree anything can be proved. A branch whose transaction may be
    chosen by an attacker also needs the check that its length is not 64 bytes (such a one can pass for an inner node).
    """
    if index < 0 or index >> len(branch):
        raise BitcoinError(f"position {index} is outside a merkle tree of depth {len(branch)}")
    value = txid
    for sibling in branch:
        if len(sibling) != 32:
            raise BitcoinError("hashes in a merkle branch have 32 bytes")
        if index & 1:
            if sibling == value:
                raise BitcoinError("a right node that repeats its left one is no transaction of the block")
            node = sibling + value
        else:
            node = value + sibling
        if is_leaf_in_disguise(node):
            raise BitcoinError("a node of the merkle branch can be read as a transaction")
        value = sha256d(node)
        index >>= 1
    return value


def is_leaf_in_disguise(node: bytes) -> bool:
    """Whether the 64 bytes of an inner node could be a transaction of a block as well. Of honest nodes less than one in
    10**12 looks like that."""
    if node[4] != 1:  # there is room for one input and one output only
        return False
    try:
        return bool(parse_transaction(node).outputs)
    except BitcoinError:
        return False


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A block with all its transactions."""

    header: Header
    transactions: tuple[Transaction, ...]

    @property
    def hash(self) -> BlockHash:
        """32 bytes in internal order."""
        return self.header.hash

    def serialize(self) -> bytes:
        """Header, number of transactions, transactions with their witnesses."""
        return b"".join(
            (
                self.header.serialize(),
                write_varint(len(self.transactions)),
                *(tx.serialize() for tx in self.transactions),
            )
        )


def parse_block(data: bytes) -> Block:
    """The block that ``data`` is, from the first byte to the last; ``BitcoinError`` for anything else.

    Only the form is checked; ``check_block`` compares the transactions with the header.
    """
    header = parse_header(data[:HEADER_LENGTH])
    count, at = read_varint(data, HEADER_LENGTH)
    transactions = []
    for _ in range(count):
        tx, at = read_transaction(data, at)
        transactions.append(tx)
    if at != len(data):
        raise BitcoinError(f"{len(data) - at} bytes too many behind the block")
    return Block(header=header, transactions=tuple(transactions))


def check_block(block: Block, network: Network) -> None:
    """``BitcoinError`` unless the proof of work holds and the header commits to exactly these transactions.

    Scripts, amounts and witnesses are not validated.
    """
    check_proof_of_work(block.header, network)
    check_txids([tx.txid for tx in block.transactions], block.header.merkle_root)


def witness_commitment(transactions: Sequence[Transaction], reserved: bytes = bytes(32)) -> TxOut:
    """The coinbase output that commits to all witnesses (BIP 141); ``transactions`` are those after the coinbase.

    ``reserved`` is the only item of the coinbase's witness.
    """
    root = merkle_root([Txid(bytes(32)), *(tx.wtxid for tx in transactions)])
    return TxOut(value=Sat(0), script=op_return(_WITNESS_COMMITMENT + sha256d(root + reserved)))
