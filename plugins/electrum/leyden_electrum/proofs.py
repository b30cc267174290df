"""Whether a transaction is in a block: merkle proofs against headers that were checked."""

from leyden.bitcoin import BitcoinError, Transaction, merkle_root_from_branch
from leyden.hooks.types import BlockTransaction

from leyden_electrum.server import Proof

INNER_NODE_BYTES = 64
MAX_DEPTH = 24
"""No block has room for 2**24 transactions."""


def proof_mistake(tx: Transaction, proof: Proof, merkle_root: bytes) -> str:
    """What is wrong with ``proof``, empty if it shows that ``tx`` is in the block with this merkle root."""
    if len(tx.serialize_legacy()) == INNER_NODE_BYTES:
        return "a transaction of 64 bytes proves nothing: it may be a node of the merkle tree"
    if len(proof.branch) > MAX_DEPTH:
        return f"a merkle proof of {len(proof.branch)} steps is deeper than any block"
    try:
        root = merkle_root_from_branch(tx.txid, proof.position, proof.branch)
    except BitcoinError as error:
        return str(error)
    return "" if root == merkle_root else "the merkle proof does not lead to the header of the block"


def proved(tx: Transaction, proof: Proof) -> BlockTransaction:
    """With a proof that ``proof_mistake`` found good."""
    return BlockTransaction(position=proof.position, tx=tx, branch=proof.branch)
