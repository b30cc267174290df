"""Schnorr signatures (BIP 340) on libsecp256k1: 32-byte x-only keys, 64-byte signatures, 32-byte messages.

An x-only key stands for the point with even y, so the secrets ``d`` and ``ORDER - d`` sign alike. Randomness comes in
as ``aux``; the nonce is sound without it, fresh bytes only protect against side channels and faults.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from coincurve._libsecp256k1 import ffi as _ffi  # the raw library: there is no public name for it
from coincurve._libsecp256k1 import lib as _lib
from coincurve.context import GLOBAL_CONTEXT

from leyden.crypto.curve import parse_point
from leyden.crypto.errors import CryptoError

_ctx = GLOBAL_CONTEXT.ctx
_NULL = _ffi.NULL
_new = _ffi.new
_view = _ffi.buffer
_Keypair = _ffi.typeof("secp256k1_keypair *")
_Xonly = _ffi.typeof("secp256k1_xonly_pubkey *")
_Int = _ffi.typeof("int *")
_Bytes32 = _ffi.typeof("unsigned char[32]")
_Bytes64 = _ffi.typeof("unsigned char[64]")

_PARSED_KEYS = 256
NO_AUX = bytes(32)
"""The auxiliary bytes of a signature that is to be the same every time."""


def _check32(name: str, value: bytes) -> None:
    # The library reads 32 bytes whatever it is given.
    if len(value) != 32:
        raise CryptoError(f"{name} must have 32 bytes, not {len(value)}")


def _parse_uncached(key: bytes) -> Any:
    _check32("x-only key", key)
    parsed = _new(_Xonly)
    if not _lib.secp256k1_xonly_pubkey_parse(_ctx, parsed, key):
        raise CryptoError("not a valid x-only key")
    return parsed


_parse: Callable[[bytes], Any] = lru_cache(maxsize=_PARSED_KEYS)(_parse_uncached)


def is_valid_xonly(key: bytes) -> bool:
    """True for the 32 bytes of an x coordinate on the curve."""
    try:
        _parse(key)
    except CryptoError:
        return False
    return True


def xonly(pubkey: bytes) -> bytes:
    """The x-only form of a compressed key; ``CryptoError`` if that is not a valid point."""
    parse_point(pubkey)
    return pubkey[1:]


def xonly_create(secret: bytes) -> bytes:
    """The x-only key of ``secret``; ``CryptoError`` if the secret is not a valid one."""
    keypair = _keypair(secret)
    key, out = _new(_Xonly), _new(_Bytes32)
    _lib.secp256k1_keypair_xonly_pub(_ctx, key, _NULL, keypair)
    _lib.secp256k1_xonly_pubkey_serialize(_ctx, out, key)
    return _view(out)[:]  # type: ignore[no-any-return]


def _keypair(secret: bytes) -> Any:
    _check32("secret", secret)
    keypair = _new(_Keypair)
    if not _lib.secp256k1_keypair_create(_ctx, keypair, secret):
        raise CryptoError("not a valid secret key")
    return keypair


def schnorr_sign(secret: bytes, digest: bytes, aux: bytes) -> bytes:
    """The 64-byte signature of the 32-byte ``digest``; ``aux`` is 32 bytes of randomness, or ``NO_AUX``.

    ``CryptoError`` on a bad secret or a wrong length.
    """
    _check32("digest", digest)
    _check32("aux", aux)
    out = _new(_Bytes64)
    if not _lib.secp256k1_schnorrsig_sign32(_ctx, out, digest, _keypair(secret), aux):
        raise CryptoError("signing failed")
    return _view(out)[:]  # type: ignore[no-any-return]


def schnorr_verify(key: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is valid for ``digest`` under the x-only ``key``; False for a wrong length.

    ``CryptoError`` for a key that is no x coordinate of the curve, or a digest that has not 32 bytes.
    """
    _check32("digest", digest)
    parsed = _parse(key)
    return len(signature) == 64 and bool(_lib.secp256k1_schnorrsig_verify(_ctx, signature, digest, 32, parsed))


def xonly_tweak_add(key: bytes, tweak: bytes) -> tuple[bytes, int]:
    """``lift(key) + tweak * G`` as (x-only key, parity of y), as taproot outputs need it (BIP 341).

    ``CryptoError`` for an invalid key, a tweak of ORDER or more, or a sum at infinity.
    """
    _check32("tweak", tweak)
    total, out, parity = _new(_ffi.typeof("secp256k1_pubkey *")), _new(_Bytes32), _new(_Int)
    if not _lib.secp256k1_xonly_pubkey_tweak_add(_ctx, total, _parse(key), tweak):
        raise CryptoError("tweak out of range")
    tweaked = _new(_Xonly)
    _lib.secp256k1_xonly_pubkey_from_pubkey(_ctx, tweaked, parity, total)
    _lib.secp256k1_xonly_pubkey_serialize(_ctx, out, tweaked)
    return _view(out)[:], parity[0]
