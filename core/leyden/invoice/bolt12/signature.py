"""What a BOLT 12 signature covers: the root of a tree over the records, tagged with the document and the field (C-254).

Every record is paired with a nonce that only who knows the first record can compute, so that a single record can be
proved later without giving away its neighbours. Signing is the key manager's; here are the digest and the check.
"""

from leyden.crypto import is_valid_point, schnorr_verify, sha256, tagged_hash
from leyden.invoice.errors import InvoiceError
from leyden.types.rules import C_254
from leyden.wire.bolt12 import InvoiceRequest
from leyden.wire.codec import encode_struct, split_records, write_bigsize

SIGNATURE_TYPES = range(240, 1001)
"""Records that sign the others and are not signed themselves."""
REQUEST_NAME = "invoice_request"
INVOICE_NAME = "invoice"


def merkle_root(stream: bytes) -> bytes:
    """The 32-byte root over the records of a TLV stream, signatures left out.

    ``InvoiceError`` (C-254) when there is nothing to sign; ``WireError`` when ``stream`` is no TLV stream.
    """
    unsigned = SIGNATURE_TYPES if C_254.enabled else range(0)
    records = [(kind, stream[start:end]) for kind, start, _, end in split_records(stream) if kind not in unsigned]
    if not records:
        raise InvoiceError(C_254, "nothing to sign")
    leaf_tag = _midstate(b"LnLeaf")
    nonce_tag = _midstate(b"LnNonce" + records[0][1])
    level = [_branch(sha256(leaf_tag + record), sha256(nonce_tag + write_bigsize(kind))) for kind, record in records]
    while len(level) > 1:
        # One left over at the end climbs up: the deepest branches hold the lowest records.
        pairs = [_branch(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]


def _midstate(tag: bytes) -> bytes:
    hashed = sha256(tag)
    return hashed + hashed


_BRANCH = _midstate(b"LnBranch")


def _branch(left: bytes, right: bytes) -> bytes:
    return sha256(_BRANCH + (left + right if left < right else right + left))


def signing_digest(document: InvoiceRequest, name: str) -> bytes:
    """The 32 bytes that BIP 340 signs for the record ``signature``; ``name`` is that of the stream."""
    return tagged_hash(f"lightning{name}signature".encode(), merkle_root(encode_struct(document)))


def is_signed_by(document: InvoiceRequest, name: str, key: bytes) -> bool:
    """Whether the document's ``signature`` is there and was made with the compressed ``key``."""
    if document.signature is None or not is_valid_point(key):
        return False
    return schnorr_verify(key[1:], signing_digest(document, name), document.signature)
