"""secp256k1 on libsecp256k1 (coincurve's raw ``ffi`` and ``lib``; its object layer costs up to twice as much).

Keys, signatures and digests go in and come out as ``bytes``. A public key must be parsed before it can be used, which
takes a square root (4 us): ``ParsedPoint`` keeps the result, ``parse_point`` caches it for the keys used last, and the
``*_parsed`` functions take and give ``ParsedPoint`` so that a chain of operations parses and serialises nothing twice.

Threads: a call into the library releases the interpreter lock, so no two calls may share an output buffer. Every call
therefore allocates its own (0.1 us, half a percent of a signature); nothing in this module is mutable but the cache of
parsed keys, which holds public data only and is safe to share.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from coincurve._libsecp256k1 import ffi as _ffi  # the raw library: there is no public name for it
from coincurve._libsecp256k1 import lib as _lib
from coincurve.context import GLOBAL_CONTEXT

from leyden.crypto.errors import CryptoError

ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""The number of points of the curve; secrets lie in ``1..ORDER-1``."""
GENERATOR = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")

_HALF_ORDER = (ORDER // 2).to_bytes(32, "big")
_PARSED_KEYS = 4096

_ctx = GLOBAL_CONTEXT.ctx  # blinded with fresh randomness by coincurve
_NULL = _ffi.NULL
_COMPRESSED = _lib.SECP256K1_EC_COMPRESSED
_new = _ffi.new
_view = _ffi.buffer
_Pubkey = _ffi.typeof("secp256k1_pubkey *")
_Signature = _ffi.typeof("secp256k1_ecdsa_signature *")
_RecoverableSignature = _ffi.typeof("secp256k1_ecdsa_recoverable_signature *")
_Bytes32 = _ffi.typeof("unsigned char[32]")
_Bytes33 = _ffi.typeof("unsigned char[33]")
_Bytes64 = _ffi.typeof("unsigned char[64]")
_Bytes72 = _ffi.typeof("unsigned char[72]")
_Size = _ffi.typeof("size_t *")
_Int = _ffi.typeof("int *")
_Pointers2 = _ffi.typeof("secp256k1_pubkey *[2]")
_Pointers = _ffi.typeof("secp256k1_pubkey *[]")

_pubkey_create = _lib.secp256k1_ec_pubkey_create
_pubkey_parse = _lib.secp256k1_ec_pubkey_parse
_pubkey_serialize = _lib.secp256k1_ec_pubkey_serialize
_pubkey_combine = _lib.secp256k1_ec_pubkey_combine
_pubkey_tweak_mul = _lib.secp256k1_ec_pubkey_tweak_mul
_sign = _lib.secp256k1_ecdsa_sign
_verify = _lib.secp256k1_ecdsa_verify
_parse_compact = _lib.secp256k1_ecdsa_signature_parse_compact
_serialize_compact = _lib.secp256k1_ecdsa_signature_serialize_compact
_ecdh = _lib.secp256k1_ecdh


class ParsedPoint:
    """A valid public key together with the library's form of it. Immutable; equal when the keys are equal."""

    __slots__ = ("_c", "data")

    data: bytes
    """The compressed key, 33 bytes."""

    def __init__(self, data: bytes, c_struct: Any) -> None:
        self.data = data
        self._c = c_struct

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParsedPoint) and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.data)

    def __repr__(self) -> str:
        return f"ParsedPoint({self.data.hex()})"


def _check32(name: str, value: bytes) -> None:
    # The library reads 32 bytes whatever it is given.
    if len(value) != 32:
        raise CryptoError(f"{name} must have 32 bytes, not {len(value)}")


def _wrap(c_struct: Any) -> ParsedPoint:
    out = _new(_Bytes33)
    _pubkey_serialize(_ctx, out, _new(_Size, 33), c_struct, _COMPRESSED)
    return ParsedPoint(_view(out)[:], c_struct)


# --- points


def parse_point_uncached(data: bytes) -> ParsedPoint:
    """Parse a compressed key that will not be seen again; ``CryptoError`` if it is not a valid point."""
    if len(data) != 33:
        raise CryptoError(f"a public key has 33 bytes, not {len(data)}")
    point = _new(_Pubkey)
    if not _pubkey_parse(_ctx, point, data, 33):
        raise CryptoError("not a valid public key")
    return ParsedPoint(data, point)


parse_point: Callable[[bytes], ParsedPoint] = lru_cache(maxsize=_PARSED_KEYS)(parse_point_uncached)
"""Parse a compressed key, remembering the 4096 used last; ``CryptoError`` if it is not a valid point."""


def is_valid_point(data: bytes) -> bool:
    """True for the 33 bytes of a compressed point on the curve (BOLT 1, type ``point``; C-136)."""
    try:
        parse_point(data)
    except CryptoError:
        return False
    return True


def is_valid_secret(secret: bytes) -> bool:
    """True for 32 bytes that, read big-endian, lie in ``1..ORDER-1``."""
    return len(secret) == 32 and bool(_lib.secp256k1_ec_seckey_verify(_ctx, secret))


def pubkey_create_parsed(secret: bytes) -> ParsedPoint:
    """``secret * G``; ``CryptoError`` if the secret is not a valid one."""
    _check32("secret", secret)
    point = _new(_Pubkey)
    if not _pubkey_create(_ctx, point, secret):
        raise CryptoError("not a valid secret key")
    return _wrap(point)


def pubkey_create(secret: bytes) -> bytes:
    """``secret * G``, compressed; ``CryptoError`` if the secret is not a valid one."""
    _check32("secret", secret)
    point = _new(_Pubkey)
    if not _pubkey_create(_ctx, point, secret):
        raise CryptoError("not a valid secret key")
    out = _new(_Bytes33)
    _pubkey_serialize(_ctx, out, _new(_Size, 33), point, _COMPRESSED)
    return _view(out)[:]  # type: ignore[no-any-return]


def point_add_parsed(left: ParsedPoint, right: ParsedPoint) -> ParsedPoint:
    """The sum of two points; ``CryptoError`` if it is the point at infinity."""
    total = _new(_Pubkey)
    if not _pubkey_combine(_ctx, total, _new(_Pointers2, (left._c, right._c)), 2):
        raise CryptoError("points cancel out")
    return _wrap(total)


def point_add(*points: bytes) -> bytes:
    """The sum of one or more compressed points; ``CryptoError`` if one is invalid or the sum is at infinity."""
    if not points:
        raise CryptoError("nothing to add")
    parsed = [parse_point(p) for p in points]  # keeps the structs alive during the call
    total = _new(_Pubkey)
    if not _pubkey_combine(_ctx, total, _new(_Pointers, [p._c for p in parsed]), len(parsed)):
        raise CryptoError("points cancel out")
    return _wrap(total).data


def point_tweak_add_parsed(point: ParsedPoint, tweak: bytes) -> ParsedPoint:
    """``point + tweak * G``; ``CryptoError`` for a tweak of ORDER or more, or a sum at infinity."""
    _check32("tweak", tweak)
    if not any(tweak):
        return point
    # One multiplication of the generator plus an addition is faster than the library's own tweak_add.
    part = _new(_Pubkey)
    if not _pubkey_create(_ctx, part, tweak):
        raise CryptoError("tweak out of range")
    total = _new(_Pubkey)
    if not _pubkey_combine(_ctx, total, _new(_Pointers2, (point._c, part)), 2):
        raise CryptoError("points cancel out")
    return _wrap(total)


def point_tweak_add(pubkey: bytes, tweak: bytes) -> bytes:
    """``pubkey + tweak * G``, compressed; errors as in ``point_tweak_add_parsed``."""
    return point_tweak_add_parsed(parse_point(pubkey), tweak).data


def point_tweak_mul_parsed(point: ParsedPoint, tweak: bytes) -> ParsedPoint:
    """``tweak * point``; ``CryptoError`` for a tweak of zero or of ORDER or more. Not constant time: public tweaks."""
    _check32("tweak", tweak)
    product = _new(_Pubkey, point._c[0])
    if not _pubkey_tweak_mul(_ctx, product, tweak):
        raise CryptoError("tweak out of range")
    return _wrap(product)


def point_tweak_mul(pubkey: bytes, tweak: bytes) -> bytes:
    """``tweak * pubkey``, compressed; errors as in ``point_tweak_mul_parsed``."""
    return point_tweak_mul_parsed(parse_point(pubkey), tweak).data


# --- secrets


def secret_add(secret: bytes, tweak: bytes) -> bytes:
    """``secret + tweak`` modulo ORDER; ``CryptoError`` if an argument is out of range or the sum is zero."""
    _check32("secret", secret)
    _check32("tweak", tweak)
    out = _new(_Bytes32, secret)
    if not _lib.secp256k1_ec_seckey_tweak_add(_ctx, out, tweak):
        raise CryptoError("secret or tweak out of range")
    return _view(out)[:]  # type: ignore[no-any-return]


def secret_mul(secret: bytes, tweak: bytes) -> bytes:
    """``secret * tweak`` modulo ORDER; ``CryptoError`` if an argument is zero or out of range."""
    _check32("secret", secret)
    _check32("tweak", tweak)
    out = _new(_Bytes32, secret)
    if not _lib.secp256k1_ec_seckey_tweak_mul(_ctx, out, tweak):
        raise CryptoError("secret or tweak out of range")
    return _view(out)[:]  # type: ignore[no-any-return]


def secret_negate(secret: bytes) -> bytes:
    """``ORDER - secret``; ``CryptoError`` if it is not a valid secret."""
    _check32("secret", secret)
    out = _new(_Bytes32, secret)
    if not _lib.secp256k1_ec_seckey_negate(_ctx, out):
        raise CryptoError("not a valid secret key")
    return _view(out)[:]  # type: ignore[no-any-return]


def ecdh_parsed(secret: bytes, point: ParsedPoint) -> bytes:
    """SHA-256 of the compressed ``secret * point``, 32 bytes (BOLT 4 and 8); ``CryptoError`` on a bad secret."""
    _check32("secret", secret)
    out = _new(_Bytes32)
    if not _ecdh(_ctx, out, point._c, secret, _NULL, _NULL):
        raise CryptoError("not a valid secret key")
    return _view(out)[:]  # type: ignore[no-any-return]


def ecdh(secret: bytes, pubkey: bytes) -> bytes:
    """SHA-256 of the compressed ``secret * pubkey``, 32 bytes (BOLT 4 and 8); ``CryptoError`` on bad keys."""
    return ecdh_parsed(secret, parse_point(pubkey))


# --- ECDSA


def ecdsa_sign(secret: bytes, digest: bytes) -> bytes:
    """A 64-byte compact low-S signature, nonce by plain RFC 6979, no low-R grinding; ``CryptoError`` on a bad secret.

    The same key and digest give the same bytes in every implementation that does the same, hardware included.
    """
    if len(secret) != 32 or len(digest) != 32:
        raise CryptoError("secret and digest must have 32 bytes each")
    signature = _new(_Signature)
    if not _sign(_ctx, signature, digest, secret, _NULL, _NULL):
        raise CryptoError("not a valid secret key")
    out = _new(_Bytes64)
    _serialize_compact(_ctx, out, signature)
    return _view(out)[:]  # type: ignore[no-any-return]


def ecdsa_verify_parsed(point: ParsedPoint, digest: bytes, signature: bytes) -> bool:
    """Whether the 64-byte ``signature`` is valid; False for high S, values out of range and wrong lengths.

    ``CryptoError`` only for a digest that has not 32 bytes, which is a mistake of the caller.
    """
    if len(digest) != 32:
        raise CryptoError(f"digest must have 32 bytes, not {len(digest)}")
    if len(signature) != 64:
        return False
    parsed = _new(_Signature)
    return bool(_parse_compact(_ctx, parsed, signature) and _verify(_ctx, parsed, digest, point._c))


def ecdsa_verify(pubkey: bytes, digest: bytes, signature: bytes) -> bool:
    """As ``ecdsa_verify_parsed``, with the compressed key; ``CryptoError`` if that is not a valid point."""
    return ecdsa_verify_parsed(parse_point(pubkey), digest, signature)


verify_parsed = ecdsa_verify_parsed


def ecdsa_sign_recoverable(secret: bytes, digest: bytes) -> tuple[bytes, int]:
    """The signature of ``ecdsa_sign`` and its recovery id 0..3 (BOLT 11)."""
    if len(secret) != 32 or len(digest) != 32:
        raise CryptoError("secret and digest must have 32 bytes each")
    signature = _new(_RecoverableSignature)
    if not _lib.secp256k1_ecdsa_sign_recoverable(_ctx, signature, digest, secret, _NULL, _NULL):
        raise CryptoError("not a valid secret key")
    out, recovery_id = _new(_Bytes64), _new(_Int)
    _lib.secp256k1_ecdsa_recoverable_signature_serialize_compact(_ctx, out, recovery_id, signature)
    return _view(out)[:], recovery_id[0]


def ecdsa_recover(digest: bytes, signature: bytes, recovery_id: int) -> bytes:
    """The compressed key that made ``signature``; ``CryptoError`` if there is none. Accepts high S."""
    _check32("digest", digest)
    if len(signature) != 64 or not 0 <= recovery_id <= 3:
        raise CryptoError("not a recoverable signature")
    parsed = _new(_RecoverableSignature)
    if not _lib.secp256k1_ecdsa_recoverable_signature_parse_compact(_ctx, parsed, signature, recovery_id):
        raise CryptoError("not a recoverable signature")
    point = _new(_Pubkey)
    if not _lib.secp256k1_ecdsa_recover(_ctx, point, parsed, digest):
        raise CryptoError("no public key matches this signature")
    return _wrap(point).data


def is_low_s(signature: bytes) -> bool:
    """Whether the S of a 64-byte signature is at most half the order; False for a wrong length."""
    return len(signature) == 64 and signature[32:] <= _HALF_ORDER


def normalize_s(signature: bytes) -> bytes:
    """The equivalent signature with low S; ``CryptoError`` if R or S is out of range."""
    parsed = _parse_signature(signature)
    _lib.secp256k1_ecdsa_signature_normalize(_ctx, parsed, parsed)
    out = _new(_Bytes64)
    _serialize_compact(_ctx, out, parsed)
    return _view(out)[:]  # type: ignore[no-any-return]


def _parse_signature(signature: bytes) -> Any:
    if len(signature) != 64:
        raise CryptoError(f"a compact signature has 64 bytes, not {len(signature)}")
    parsed = _new(_Signature)
    if not _parse_compact(_ctx, parsed, signature):
        raise CryptoError("signature out of range")
    return parsed


def sig_to_der(signature: bytes) -> bytes:
    """The DER form that Bitcoin scripts want, 8 to 72 bytes, without sighash byte; ``CryptoError`` if out of range."""
    out, size = _new(_Bytes72), _new(_Size, 72)
    _lib.secp256k1_ecdsa_signature_serialize_der(_ctx, out, size, _parse_signature(signature))
    return _view(out, size[0])[:]  # type: ignore[no-any-return]


def der_to_sig(der: bytes) -> bytes:
    """The 64-byte form of a strict DER signature (BIP 66, no sighash byte); ``CryptoError`` for anything else."""
    parsed = _new(_Signature)
    if not _lib.secp256k1_ecdsa_signature_parse_der(_ctx, parsed, der, len(der)):
        raise CryptoError("not a DER signature")
    out = _new(_Bytes64)
    _serialize_compact(_ctx, out, parsed)
    signature: bytes = _view(out)[:]
    # The library reads out-of-range numbers as zero: only the exact encoding of what it read is the one and only form.
    if sig_to_der(signature) != der:
        raise CryptoError("not a strict DER signature")
    return signature
