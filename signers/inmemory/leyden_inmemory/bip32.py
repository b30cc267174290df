"""BIP 32: a tree of secrets from one seed. Secrets only; nothing here ever prints one."""

import hashlib
import hmac
from collections.abc import Iterable

from leyden.bitcoin import base58check_encode
from leyden.crypto import hash160, pubkey_create, secret_add
from leyden.types import LeydenError

HARDENED = 0x80000000
"""Added to an index, it makes the child underivable from public keys."""
_PUBLIC_MAINNET, _PUBLIC_TESTNET = bytes.fromhex("0488b21e"), bytes.fromhex("043587cf")  # xpub, tpub
_CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


class ExtendedSecret:
    """A secret key and its chain code, 32 bytes each (BIP 32, extended private key)."""

    __slots__ = ("chain_code", "secret")

    def __init__(self, secret: bytes, chain_code: bytes) -> None:
        self.secret = secret
        self.chain_code = chain_code

    def __repr__(self) -> str:
        return "ExtendedSecret(...)"

    @classmethod
    def from_seed(cls, seed: bytes) -> "ExtendedSecret":
        """The root of the tree; ``LeydenError`` for a seed that is not 16 to 64 bytes long."""
        if not 16 <= len(seed) <= 64:
            raise LeydenError(f"a BIP 32 seed has 16 to 64 bytes, this one has {len(seed)}")
        digest = hmac.digest(b"Bitcoin seed", seed, hashlib.sha512)
        return cls(_checked(digest[:32]), digest[32:])

    def child(self, index: int) -> "ExtendedSecret":
        """The child at ``index``; indices of ``HARDENED`` and above are hardened."""
        if not 0 <= index < 1 << 32:
            raise LeydenError(f"a BIP 32 index lies between 0 and 2**32 - 1, not {index}")
        head = b"\x00" + self.secret if index >= HARDENED else pubkey_create(self.secret)
        digest = hmac.digest(self.chain_code, head + index.to_bytes(4, "big"), hashlib.sha512)
        return ExtendedSecret(secret_add(self.secret, _checked(digest[:32])), digest[32:])

    def descend(self, path: Iterable[int]) -> "ExtendedSecret":
        node = self
        for index in path:
            node = node.child(index)
        return node

    def public_text(self, parent: "ExtendedSecret", index: int, *, depth: int, mainnet: bool) -> str:
        """The extended public key in Base58, as child ``index`` of ``parent`` at ``depth`` (BIP 32, serialisation)."""
        version = _PUBLIC_MAINNET if mainnet else _PUBLIC_TESTNET
        place = bytes((depth,)) + parent.fingerprint() + index.to_bytes(4, "big")
        return base58check_encode(version + place + self.chain_code + pubkey_create(self.secret))

    def fingerprint(self) -> bytes:
        """4 bytes that name this key (BIP 32)."""
        return hash160(pubkey_create(self.secret))[:4]


def _checked(secret: bytes) -> bytes:
    """BIP 32 skips values outside the curve order; at odds of 2**-127 we stop instead of inventing a rule."""
    if not 0 < int.from_bytes(secret, "big") < _CURVE_ORDER:
        raise LeydenError("this seed leads to a key outside the curve order: choose another seed or index")
    return secret


def format_path(path: Iterable[int]) -> str:
    """``m/84'/1'/0'/0/7``."""
    return "/".join(["m", *(f"{i - HARDENED}'" if i >= HARDENED else str(i) for i in path)])
