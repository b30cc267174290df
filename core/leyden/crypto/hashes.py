"""Hashes, HMAC and HKDF. Everything is SHA-256 based except RIPEMD-160, which Bitcoin scripts need."""

import functools
import hashlib
import hmac
from collections.abc import Callable

from leyden.crypto.errors import CryptoError
from leyden.crypto.ripemd160 import ripemd160_python

_sha256 = hashlib.sha256
_BLOCK = 64
_INNER = bytes(x ^ 0x36 for x in range(256))
_OUTER = bytes(x ^ 0x5C for x in range(256))


def sha256(data: bytes) -> bytes:
    """32-byte SHA-256."""
    return _sha256(data).digest()


def sha256d(data: bytes) -> bytes:
    """SHA-256 of SHA-256: ids of transactions and blocks, in internal byte order."""
    return _sha256(_sha256(data).digest()).digest()


def _find_ripemd160() -> Callable[[bytes], bytes]:
    try:
        empty = hashlib.new("ripemd160", usedforsecurity=False)
    except ValueError:
        return ripemd160_python

    def ripemd160_openssl(data: bytes) -> bytes:
        # Copying a fresh state is several times cheaper than asking OpenSSL for the algorithm by name again.
        state = empty.copy()
        state.update(data)
        return state.digest()

    return ripemd160_openssl


_ripemd160 = _find_ripemd160()


def ripemd160(data: bytes) -> bytes:
    """20-byte RIPEMD-160 (OpenSSL's where it has one, else in Python)."""
    return _ripemd160(data)


def hash160(data: bytes) -> bytes:
    """RIPEMD-160 of SHA-256, 20 bytes: the hash behind P2PKH, P2SH and P2WPKH."""
    return _ripemd160(_sha256(data).digest())


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """32-byte HMAC-SHA-256. For a key that is used again and again ``HmacKey`` is twice as fast."""
    return hmac.digest(key, data, "sha256")


class HmacKey:
    """HMAC-SHA-256 under one key, with both padded key blocks hashed in advance.

    Safe to share between threads: the kept states are only ever copied.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK:
            key = sha256(key)
        block = key.ljust(_BLOCK, b"\0")
        self._inner = _sha256(block.translate(_INNER))
        self._outer = _sha256(block.translate(_OUTER))

    def digest(self, data: bytes) -> bytes:
        """32 bytes."""
        inner = self._inner.copy()
        inner.update(data)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()


def hkdf_two(salt: bytes, ikm: bytes) -> tuple[bytes, bytes]:
    """HKDF-SHA-256 with empty info, 64 bytes of output as two keys (BOLT 8, handshake and key rotation)."""
    key = HmacKey(hmac.digest(salt, ikm, "sha256"))
    first = key.digest(b"\x01")
    return first, key.digest(first + b"\x02")


def hkdf(salt: bytes, ikm: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256 (RFC 5869); ``length`` at most 8160 bytes, else ``CryptoError``."""
    if not 0 <= length <= 255 * 32:
        raise CryptoError(f"HKDF gives at most 8160 bytes, not {length}")
    key = HmacKey(hmac.digest(salt, ikm, "sha256"))
    out = block = b""
    for i in range(1, (length + 31) // 32 + 1):
        block = key.digest(block + info + bytes((i,)))
        out += block
    return out[:length]


@functools.lru_cache(maxsize=64)
def _tag_state(tag: bytes) -> "hashlib._Hash":
    digest = sha256(tag)
    return _sha256(digest + digest)


def tagged_hash(tag: bytes, data: bytes) -> bytes:
    """SHA-256 under a tag, as in BIP 340: ``sha256(sha256(tag) + sha256(tag) + data)``."""
    state = _tag_state(tag).copy()
    state.update(data)
    return state.digest()


def constant_time_equal(left: bytes, right: bytes) -> bool:
    """Compare secrets and authentication codes without telling by timing where they differ."""
    return hmac.compare_digest(left, right)
