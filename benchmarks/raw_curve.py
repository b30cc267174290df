"""secp256k1 straight through cffi with reused buffers: the floor that ``leyden.crypto`` is measured against.

Nothing is checked and nothing is copied that the call does not need; this is no code to use elsewhere.
"""

from typing import Any

from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

_ctx = GLOBAL_CONTEXT.ctx
_NULL = ffi.NULL
_signature = ffi.new("secp256k1_ecdsa_signature *")
_pubkey = ffi.new("secp256k1_pubkey *")
_second = ffi.new("secp256k1_pubkey *")
_pair = ffi.new("secp256k1_pubkey *[2]", [_pubkey, _second])
_out32 = ffi.new("unsigned char[32]")
_out33 = ffi.new("unsigned char[33]")
_out64 = ffi.new("unsigned char[64]")
_length = ffi.new("size_t *", 33)
_COMPRESSED = lib.SECP256K1_EC_COMPRESSED


def parse(key: bytes) -> Any:
    """A parsed key of its own."""
    point = ffi.new("secp256k1_pubkey *")
    lib.secp256k1_ec_pubkey_parse(_ctx, point, key, 33)
    return point


def _serialized(point: Any) -> bytes:
    _length[0] = 33
    lib.secp256k1_ec_pubkey_serialize(_ctx, _out33, _length, point, _COMPRESSED)
    found: bytes = ffi.buffer(_out33)[:]
    return found


def sign(secret: bytes, digest: bytes) -> bytes:
    lib.secp256k1_ecdsa_sign(_ctx, _signature, digest, secret, _NULL, _NULL)
    lib.secp256k1_ecdsa_signature_serialize_compact(_ctx, _out64, _signature)
    found: bytes = ffi.buffer(_out64)[:]
    return found


def verify(point: Any, digest: bytes, signature: bytes) -> bool:
    lib.secp256k1_ecdsa_signature_parse_compact(_ctx, _signature, signature)
    return bool(lib.secp256k1_ecdsa_verify(_ctx, _signature, digest, point))


def ecdh(secret: bytes, point: Any) -> bytes:
    lib.secp256k1_ecdh(_ctx, _out32, point, secret, _NULL, _NULL)
    found: bytes = ffi.buffer(_out32)[:]
    return found


def create(secret: bytes) -> bytes:
    lib.secp256k1_ec_pubkey_create(_ctx, _pubkey, secret)
    return _serialized(_pubkey)


def create_and_add(secret: bytes, point: Any) -> bytes:
    """point + secret * G."""
    lib.secp256k1_ec_pubkey_create(_ctx, _second, secret)
    _pair[0] = point
    lib.secp256k1_ec_pubkey_combine(_ctx, _pubkey, _pair, 2)
    return _serialized(_pubkey)


def create_and_add_multiple(secret: bytes, point: Any, factor: bytes) -> bytes:
    """factor * point + secret * G."""
    lib.secp256k1_ec_pubkey_create(_ctx, _second, secret)
    product = ffi.new("secp256k1_pubkey *", point[0])
    lib.secp256k1_ec_pubkey_tweak_mul(_ctx, product, factor)
    _pair[0] = product
    lib.secp256k1_ec_pubkey_combine(_ctx, _pubkey, _pair, 2)
    return _serialized(_pubkey)
