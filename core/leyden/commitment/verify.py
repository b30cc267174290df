"""Checking what a ``commitment_signed`` carries (BOLT 2)."""

from collections.abc import Sequence

from leyden.commitment.params import CommitmentParams
from leyden.commitment.transaction import Commitment
from leyden.crypto import parse_point, verify_parsed
from leyden.types import require
from leyden.types.rules import C_088


def verify_commitment_signatures(
    params: CommitmentParams, commitment: Commitment, signature: bytes, htlc_signatures: Sequence[bytes]
) -> None:
    """Check the other side's signatures on the owner's commitment and on each of its HTLC transactions.

    Signatures are 64 bytes compact and must be low-S; HTLC signatures come in output order, one per untrimmed HTLC.
    ``RuleViolation`` of C-088 otherwise.
    """
    htlcs = commitment.htlcs
    require(
        len(htlc_signatures) == len(htlcs),
        C_088,
        "wrong number of HTLC signatures",
        offered=len(htlc_signatures),
        allowed=len(htlcs),
    )
    funding_key = parse_point(params.other_keys.funding_pubkey)
    require(
        verify_parsed(funding_key, commitment.sighash, signature),
        C_088,
        "bad commitment signature",
        number=commitment.number,
        txid=commitment.txid[::-1],
    )
    if not htlcs:
        return
    htlc_key = commitment.keys.other_htlc_point
    for entry, htlc_signature in zip(htlcs, htlc_signatures, strict=False):
        if not verify_parsed(htlc_key, entry.sighash, htlc_signature):
            require(False, C_088, "bad HTLC signature", htlc_id=entry.htlc.id, output_index=entry.output_index)
