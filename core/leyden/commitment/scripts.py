"""Witness scripts of BOLT 3 as byte templates.

The HTLC scripts come as a prefix and suffix per commitment (``HtlcScripts``): only the hash, and for received HTLCs the
expiry, differ from one HTLC to the next.
"""

from collections.abc import Callable
from functools import lru_cache

from leyden.bitcoin import opcodes as op
from leyden.bitcoin import p2wpkh, p2wsh, push_int
from leyden.crypto import hash160, ripemd160

_PUSH20, _PUSH33 = 20, 33  # an opcode below 76 pushes that many bytes

_IF_KEY = bytes((op.OP_IF, _PUSH33))
_ELSE = bytes((op.OP_ELSE,))
_CSV_DROP_KEY = bytes((op.OP_CHECKSEQUENCEVERIFY, op.OP_DROP, _PUSH33))
_ENDIF_CHECKSIG = bytes((op.OP_ENDIF, op.OP_CHECKSIG))
_KEY = bytes((_PUSH33,))
_CHECKSIGVERIFY_1_CSV = bytes((op.OP_CHECKSIGVERIFY, op.OP_1, op.OP_CHECKSEQUENCEVERIFY))
_ANCHOR_TAIL = bytes((op.OP_CHECKSIG, op.OP_IFDUP, op.OP_NOTIF, op.OP_16, op.OP_CHECKSEQUENCEVERIFY, op.OP_ENDIF))

_DUP_HASH160_HASH = bytes((op.OP_DUP, op.OP_HASH160, _PUSH20))
_IF_REVOKED_ELSE_KEY = bytes((op.OP_EQUAL, op.OP_IF, op.OP_CHECKSIG, op.OP_ELSE, _PUSH33))
_SWAP_SIZE_32_EQUAL = bytes((op.OP_SWAP, op.OP_SIZE, 1, 32, op.OP_EQUAL))
_TIMEOUT_MULTISIG = bytes((op.OP_NOTIF, op.OP_DROP, op.OP_2, op.OP_SWAP, _PUSH33))
_ELSE_HASH160_HASH = bytes((op.OP_2, op.OP_CHECKMULTISIG, op.OP_ELSE, op.OP_HASH160, _PUSH20))
_IF_HASH160_HASH = bytes((op.OP_IF, op.OP_HASH160, _PUSH20))
_SUCCESS_MULTISIG = bytes((op.OP_EQUALVERIFY, op.OP_2, op.OP_SWAP, _PUSH33))
_ELSE_DROP = bytes((op.OP_2, op.OP_CHECKMULTISIG, op.OP_ELSE, op.OP_DROP))
_EQUALVERIFY_CHECKSIG_ENDIF = bytes((op.OP_EQUALVERIFY, op.OP_CHECKSIG, op.OP_ENDIF))
_CLTV_DROP_CHECKSIG_ENDIF = bytes((op.OP_CHECKLOCKTIMEVERIFY, op.OP_DROP, op.OP_CHECKSIG, op.OP_ENDIF))
_1_CSV_DROP = bytes((op.OP_1, op.OP_CHECKSEQUENCEVERIFY, op.OP_DROP))
_ENDIF = bytes((op.OP_ENDIF,))

push_number: Callable[[int], bytes] = lru_cache(maxsize=4096)(push_int)
"""The shortest push of a delay or height; the same few expiries come again and again."""


def to_local_script(revocation_pubkey: bytes, to_self_delay: int, delayed_pubkey: bytes) -> bytes:
    """The owner's balance, and what HTLC transactions pay to: its owner after a delay in blocks, or the penalty key."""
    return b"".join(
        (_IF_KEY, revocation_pubkey, _ELSE, push_number(to_self_delay), _CSV_DROP_KEY, delayed_pubkey, _ENDIF_CHECKSIG)
    )


def to_remote_script(payment_pubkey: bytes) -> bytes:
    """The other side's balance with anchors: its payment basepoint after one confirmation."""
    return _KEY + payment_pubkey + _CHECKSIGVERIFY_1_CSV


def to_remote_output_script(payment_pubkey: bytes, anchors: bool) -> bytes:
    """Output script of ``to_remote``: P2WPKH, or with anchors the P2WSH of ``to_remote_script``."""
    return p2wsh(to_remote_script(payment_pubkey)) if anchors else p2wpkh(payment_pubkey)


def anchor_script(funding_pubkey: bytes) -> bytes:
    """An anchor: its owner's funding key at once, anybody after 16 blocks."""
    return _KEY + funding_pubkey + _ANCHOR_TAIL


class HtlcScripts:
    """HTLC witness scripts of one commitment; ``owner`` is whose commitment it is."""

    __slots__ = ("offered_prefix", "offered_suffix", "received_middle", "received_prefix", "received_suffix")

    def __init__(
        self, revocation_pubkey: bytes, owner_htlc_pubkey: bytes, other_htlc_pubkey: bytes, anchors: bool
    ) -> None:
        head = b"".join(
            (
                _DUP_HASH160_HASH,
                hash160(revocation_pubkey),
                _IF_REVOKED_ELSE_KEY,
                other_htlc_pubkey,
                _SWAP_SIZE_32_EQUAL,
            )
        )
        tail = _1_CSV_DROP + _ENDIF if anchors else _ENDIF
        self.offered_prefix = head + _TIMEOUT_MULTISIG + owner_htlc_pubkey + _ELSE_HASH160_HASH
        self.offered_suffix = _EQUALVERIFY_CHECKSIG_ENDIF + tail
        self.received_prefix = head + _IF_HASH160_HASH
        self.received_middle = _SUCCESS_MULTISIG + owner_htlc_pubkey + _ELSE_DROP
        self.received_suffix = _CLTV_DROP_CHECKSIG_ENDIF + tail

    def offered(self, payment_hash: bytes) -> bytes:
        """Script of an HTLC that the owner offered."""
        return self.offered_prefix + ripemd160(payment_hash) + self.offered_suffix

    def received(self, payment_hash: bytes, cltv_expiry: int) -> bytes:
        """Script of an HTLC that the owner received; it expires at height ``cltv_expiry``."""
        return b"".join(
            (
                self.received_prefix,
                ripemd160(payment_hash),
                self.received_middle,
                push_number(cltv_expiry),
                self.received_suffix,
            )
        )
