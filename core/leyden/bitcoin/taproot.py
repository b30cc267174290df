"""Taproot: output keys, script trees and what a signature commits to (BIP 341, BIP 342, BIP 86). Annexes are not made.

Keys are x-only, 32 bytes. A tree is a leaf or a pair of trees; ``merkle_root`` is empty for an output that only a key
can spend (BIP 86).
"""

from collections.abc import Sequence

import msgspec

from leyden.bitcoin.encoding import write_varint
from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.script import p2tr
from leyden.bitcoin.sighash import (
    SIGHASH_ALL,
    SIGHASH_ANYONECANPAY,
    SIGHASH_NONE,
    SIGHASH_SINGLE,
    SIGHASH_SINGLE_ANYONECANPAY,
)
from leyden.bitcoin.transaction import Transaction, TxOut, pack_u32, serialize_outpoint
from leyden.crypto import pubkey_create, secret_add, secret_negate, sha256, tagged_hash, xonly_tweak_add

SIGHASH_DEFAULT = 0x00
"""Signs the same as ALL and leaves the type out of the signature, which then has 64 bytes (BIP 341)."""
LEAF_TAPSCRIPT = 0xC0
"""Leaf version of BIP 342, the only one in use."""
NO_CODESEPARATOR = 0xFFFFFFFF

_MAX_DEPTH = 128
_HASHTYPES = frozenset(
    (
        SIGHASH_DEFAULT,
        SIGHASH_ALL,
        SIGHASH_NONE,
        SIGHASH_SINGLE,
        SIGHASH_ALL | SIGHASH_ANYONECANPAY,
        SIGHASH_NONE | SIGHASH_ANYONECANPAY,
        SIGHASH_SINGLE_ANYONECANPAY,
    )
)
_EPOCH = b"\x00"
_KEY_VERSION = b"\x00"


class TapLeaf(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One script of a tree. ``version`` is even; a script path reveals one leaf and the hashes beside its way up."""

    script: bytes
    version: int = LEAF_TAPSCRIPT

    @property
    def hash(self) -> bytes:
        """32 bytes; ``BitcoinError`` if the version is odd or no byte."""
        if not 0 <= self.version <= 0xFE or self.version & 1:
            raise BitcoinError(f"{self.version} is no leaf version")
        data = bytes((self.version,)) + write_varint(len(self.script)) + self.script
        return tagged_hash(b"TapLeaf", data)


TapTree = TapLeaf | tuple["TapTree", "TapTree"]


class TapPath(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf and the hashes that lead from it to the root, lowest first."""

    leaf: TapLeaf
    path: tuple[bytes, ...]

    def control_block(self, internal_key: bytes, merkle_root: bytes) -> bytes:
        """The last witness item of a spend through this leaf; the item before it is the script."""
        _, parity = taproot_output_key(internal_key, merkle_root)
        return bytes((self.leaf.version | parity,)) + internal_key + b"".join(self.path)


def tap_branch_hash(left: bytes, right: bytes) -> bytes:
    """The node above two nodes; their order does not matter."""
    low, high = (left, right) if left < right else (right, left)
    return tagged_hash(b"TapBranch", low + high)


def tap_tree(tree: TapTree) -> tuple[bytes, tuple[TapPath, ...]]:
    """The merkle root of ``tree`` and the path of every leaf, from left to right.

    ``BitcoinError`` if the tree is deeper than 128.
    """
    return _tap_tree(tree, 0)


def _tap_tree(tree: TapTree, depth: int) -> tuple[bytes, tuple[TapPath, ...]]:
    if depth > _MAX_DEPTH:
        raise BitcoinError("a script tree is at most 128 deep")
    if isinstance(tree, TapLeaf):
        return tree.hash, (TapPath(leaf=tree, path=()),)
    (left, left_paths), (right, right_paths) = _tap_tree(tree[0], depth + 1), _tap_tree(tree[1], depth + 1)
    paths = [TapPath(leaf=p.leaf, path=(*p.path, right)) for p in left_paths]
    paths += [TapPath(leaf=p.leaf, path=(*p.path, left)) for p in right_paths]
    return tap_branch_hash(left, right), tuple(paths)


def taproot_tweak(internal_key: bytes, merkle_root: bytes = b"") -> bytes:
    """What is added to the internal key: it commits to the root, or without one to there being no script."""
    if len(internal_key) != 32 or len(merkle_root) not in (0, 32):
        raise BitcoinError("an internal key has 32 bytes and a merkle root 32 or none")
    return tagged_hash(b"TapTweak", internal_key + merkle_root)


def taproot_output_key(internal_key: bytes, merkle_root: bytes = b"") -> tuple[bytes, int]:
    """Output key and the parity of its y; ``CryptoError`` if the internal key is no point."""
    return xonly_tweak_add(internal_key, taproot_tweak(internal_key, merkle_root))


def taproot_output_script(internal_key: bytes, merkle_root: bytes = b"") -> bytes:
    """The P2TR script that pays to ``internal_key`` or, by one of its scripts, to the tree."""
    return p2tr(taproot_output_key(internal_key, merkle_root)[0])


def taproot_output_secret(secret: bytes, merkle_root: bytes = b"") -> bytes:
    """The secret that signs for the output key of ``secret``'s internal key."""
    pubkey = pubkey_create(secret)
    even = secret if pubkey[0] == 2 else secret_negate(secret)
    return secret_add(even, taproot_tweak(pubkey[1:], merkle_root))


def taproot_signature(signature: bytes, hashtype: int = SIGHASH_DEFAULT) -> bytes:
    """A 64-byte Schnorr signature as it stands in a witness."""
    return signature if hashtype == SIGHASH_DEFAULT else signature + bytes((hashtype,))


def sighash_taproot(
    tx: Transaction,
    index: int,
    spent: Sequence[TxOut],
    hashtype: int = SIGHASH_DEFAULT,
    *,
    leaf_hash: bytes | None = None,
    codeseparator: int = NO_CODESEPARATOR,
) -> bytes:
    """The 32-byte digest that a Schnorr signature of input ``index`` signs (BIP 341, signature validation).

    ``spent`` are the outputs that all inputs spend, in order. With ``leaf_hash`` that leaf's script spends, and
    ``codeseparator`` is the place of the last OP_CODESEPARATOR that was executed, counted in operations (BIP 342).
    ``BitcoinError`` if the index or type is out of range, SINGLE has no output at ``index``, or ``spent`` is too short.
    """
    message = taproot_message(tx, index, spent, hashtype, leaf_hash=leaf_hash, codeseparator=codeseparator)
    return tagged_hash(b"TapSighash", _EPOCH + message)


def taproot_message(
    tx: Transaction,
    index: int,
    spent: Sequence[TxOut],
    hashtype: int = SIGHASH_DEFAULT,
    *,
    leaf_hash: bytes | None = None,
    codeseparator: int = NO_CODESEPARATOR,
) -> bytes:
    """What ``sighash_taproot`` hashes behind the epoch byte."""
    if not 0 <= index < len(tx.inputs):
        raise BitcoinError(f"the transaction has no input {index}")
    if len(spent) != len(tx.inputs):
        raise BitcoinError(f"{len(tx.inputs)} inputs but {len(spent)} outputs spent")
    if hashtype not in _HASHTYPES:
        raise BitcoinError(f"{hashtype} is no taproot sighash type")
    base, one_input = hashtype & 0x03, hashtype & SIGHASH_ANYONECANPAY
    parts = [bytes((hashtype,)), pack_u32(tx.version), pack_u32(tx.locktime)]
    if not one_input:
        parts += (tx.prevouts_sha256, _amounts_sha256(spent), _scripts_sha256(spent), tx.sequences_sha256)
    if base not in (SIGHASH_NONE, SIGHASH_SINGLE):
        parts.append(tx.outputs_sha256)
    parts.append(b"\x00" if leaf_hash is None else b"\x02")  # the lowest bit would announce an annex
    if one_input:
        txin = tx.inputs[index]
        parts += (serialize_outpoint(txin.prevout), spent[index].serialize(), pack_u32(txin.sequence))
    else:
        parts.append(pack_u32(index))
    if base == SIGHASH_SINGLE:
        if index >= len(tx.outputs):
            raise BitcoinError(f"SIGHASH_SINGLE needs an output {index}")
        parts.append(sha256(tx.outputs[index].serialize()))
    if leaf_hash is not None:
        if len(leaf_hash) != 32:
            raise BitcoinError(f"a leaf hash has 32 bytes, not {len(leaf_hash)}")
        parts += (leaf_hash, _KEY_VERSION, pack_u32(codeseparator))
    return b"".join(parts)


def _amounts_sha256(spent: Sequence[TxOut]) -> bytes:
    return sha256(b"".join([output.value.to_bytes(8, "little") for output in spent]))


def _scripts_sha256(spent: Sequence[TxOut]) -> bytes:
    return sha256(b"".join([write_varint(len(output.script)) + output.script for output in spent]))
