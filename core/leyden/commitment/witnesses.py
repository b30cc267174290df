"""Witness stacks for every way to spend an output of BOLT 3.

Signatures are 64 bytes compact, as on the wire; they become DER plus hash type here. Scripts are the witness scripts.
"""

from leyden.bitcoin import SIGHASH_ALL
from leyden.commitment.htlc_tx import counterparty_sighash_type
from leyden.crypto import sig_to_der

Witness = tuple[bytes, ...]


def _der(signature: bytes, hashtype: int = SIGHASH_ALL) -> bytes:
    return sig_to_der(signature) + bytes((hashtype,))


def funding_witness(pubkey_a: bytes, signature_a: bytes, pubkey_b: bytes, signature_b: bytes, script: bytes) -> Witness:
    """Both signatures on the funding output, in the order of the sorted keys; for commitments and closes."""
    first, second = (signature_a, signature_b) if pubkey_a < pubkey_b else (signature_b, signature_a)
    return (b"", _der(first), _der(second), script)


def to_local_delayed_witness(signature: bytes, script: bytes) -> Witness:
    """``to_local`` or an HTLC transaction's output, by its owner; the input's sequence must be ``to_self_delay``."""
    return (_der(signature), b"", script)


def to_local_penalty_witness(signature: bytes, script: bytes) -> Witness:
    """``to_local`` or an HTLC transaction's output of a revoked commitment, with the revocation key."""
    return (_der(signature), b"\x01", script)


def to_remote_anchors_witness(signature: bytes, script: bytes) -> Witness:
    """``to_remote`` of a channel with anchors; the input's sequence must be 1."""
    return (_der(signature), script)


def p2wpkh_witness(signature: bytes, pubkey: bytes) -> Witness:
    """``to_remote`` of a static_remotekey channel and of zero-fee commitments."""
    return (_der(signature), pubkey)


def htlc_success_witness(
    remote_signature: bytes,
    local_signature: bytes,
    preimage: bytes,
    script: bytes,
    *,
    anchors: bool,
    zero_fee: bool = False,
) -> Witness:
    """HTLC-success on the owner's commitment; ``remote_signature`` came with ``commitment_signed``."""
    hashtype = counterparty_sighash_type(anchors, zero_fee=zero_fee)
    return (b"", _der(remote_signature, hashtype), _der(local_signature), preimage, script)


def htlc_timeout_witness(
    remote_signature: bytes, local_signature: bytes, script: bytes, *, anchors: bool, zero_fee: bool = False
) -> Witness:
    """HTLC-timeout on the owner's commitment."""
    hashtype = counterparty_sighash_type(anchors, zero_fee=zero_fee)
    return (b"", _der(remote_signature, hashtype), _der(local_signature), b"", script)


def htlc_preimage_claim_witness(signature: bytes, preimage: bytes, script: bytes) -> Witness:
    """The owner offered this HTLC and we know its preimage; with anchors the input's sequence must be 1."""
    return (_der(signature), preimage, script)


def htlc_timeout_claim_witness(signature: bytes, script: bytes) -> Witness:
    """The owner received this HTLC from us and it expired, which the locktime must say; with anchors sequence 1."""
    return (_der(signature), b"", script)


def htlc_penalty_witness(signature: bytes, revocation_pubkey: bytes, script: bytes) -> Witness:
    """An HTLC output of a revoked commitment, with the revocation key."""
    return (_der(signature), revocation_pubkey, script)


def anchor_witness(signature: bytes, script: bytes) -> Witness:
    """An anchor, by its owner's funding key."""
    return (_der(signature), script)


def anchor_anyone_witness(script: bytes) -> Witness:
    """An anchor, by anybody once 16 blocks deep; the input's sequence must be 16."""
    return (b"", script)


SHARED_ANCHOR_WITNESS: Witness = ()
"""The shared anchor of zero-fee commitments: anybody, at once."""
