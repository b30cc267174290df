"""ChaCha20, ChaCha20-Poly1305 and XOR, on the ``cryptography`` package."""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from leyden.crypto.errors import CryptoError

TAG_LENGTH = 16
_ZERO_NONCE = bytes(16)


def _check_length(name: str, value: bytes, length: int) -> None:
    if len(value) != length:
        raise CryptoError(f"{name} must have {length} bytes, not {len(value)}")


class Aead:
    """ChaCha20-Poly1305 under one key (BOLT 8): the nonce is four zero bytes and the 64-bit little-endian counter.

    The cipher object is kept, which saves a third of the cost of a small message. Never use a counter twice.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        _check_length("key", key, 32)
        self._cipher = ChaCha20Poly1305(key)

    def encrypt(self, counter: int, ad: bytes, data: bytes) -> bytes:
        """Ciphertext followed by its 16-byte tag; ``ad`` is authenticated but not part of the result."""
        return self._cipher.encrypt(b"\0\0\0\0" + counter.to_bytes(8, "little"), data, ad)

    def decrypt(self, counter: int, ad: bytes, data: bytes) -> bytes:
        """The plaintext; ``CryptoError`` if the tag does not match."""
        try:
            return self._cipher.decrypt(b"\0\0\0\0" + counter.to_bytes(8, "little"), data, ad)
        except InvalidTag:
            raise CryptoError("ciphertext does not authenticate") from None


def aead_encrypt(key: bytes, nonce: bytes, ad: bytes, plain: bytes) -> bytes:
    """ChaCha20-Poly1305 (RFC 8439) with a 12-byte nonce; ciphertext and 16-byte tag."""
    _check_length("key", key, 32)
    _check_length("nonce", nonce, 12)
    return ChaCha20Poly1305(key).encrypt(nonce, plain, ad)


def aead_decrypt(key: bytes, nonce: bytes, ad: bytes, cipher: bytes) -> bytes:
    """The inverse of ``aead_encrypt``; ``CryptoError`` if the tag does not match."""
    _check_length("key", key, 32)
    _check_length("nonce", nonce, 12)
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, cipher, ad)
    except InvalidTag:
        raise CryptoError("ciphertext does not authenticate") from None


def chacha20_stream(key: bytes, length: int) -> bytes:
    """``length`` bytes of ChaCha20 key stream, counter and nonce zero (BOLT 4, pseudo-random byte stream)."""
    return chacha20_xor(key, bytes(length))


def chacha20_xor(key: bytes, data: bytes) -> bytes:
    """``data`` XOR the key stream of ``chacha20_stream``: cheaper than making the stream and XORing it."""
    _check_length("key", key, 32)
    return Cipher(ChaCha20(key, _ZERO_NONCE), None).encryptor().update(data)


def xor(left: bytes, right: bytes) -> bytes:
    """Bytewise XOR of two strings of equal length; ``CryptoError`` otherwise."""
    size = len(left)
    if size != len(right):
        raise CryptoError(f"cannot XOR {size} bytes with {len(right)}")
    return (int.from_bytes(left, "little") ^ int.from_bytes(right, "little")).to_bytes(size, "little")
