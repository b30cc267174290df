"""secp256k1: against OpenSSL where it can do the same, and by the laws of the group."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import (
    GENERATOR,
    ORDER,
    CryptoError,
    der_to_sig,
    ecdh,
    ecdh_parsed,
    ecdsa_recover,
    ecdsa_sign,
    ecdsa_sign_recoverable,
    ecdsa_verify,
    is_low_s,
    is_valid_point,
    is_valid_secret,
    normalize_s,
    parse_point,
    parse_point_uncached,
    point_add,
    point_add_parsed,
    point_tweak_add,
    point_tweak_add_parsed,
    point_tweak_mul,
    point_tweak_mul_parsed,
    pubkey_create,
    pubkey_create_parsed,
    secret_add,
    secret_mul,
    secret_negate,
    sha256,
    sig_to_der,
    verify_parsed,
)

SECRET = bytes(range(1, 33))
PUBKEY = pubkey_create(SECRET)
DIGEST = sha256(b"digest")
ZERO = bytes(32)
TOO_BIG = ORDER.to_bytes(32, "big")
# x = 5 is not on the curve.
NOT_ON_CURVE = b"\x02" + (5).to_bytes(32, "big")

secrets = st.integers(1, ORDER - 1).map(lambda n: n.to_bytes(32, "big"))
digests = st.binary(min_size=32, max_size=32)


def _openssl_key(secret: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1())


def _s(signature: bytes) -> int:
    return int.from_bytes(signature[32:], "big")


@settings(deadline=None, max_examples=25)
@given(secrets, digests)
def test_against_openssl(secret: bytes, digest: bytes) -> None:
    key = _openssl_key(secret)
    pubkey = pubkey_create(secret)
    assert pubkey == key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    signature = ecdsa_sign(secret, digest)
    plain = ec.ECDSA(Prehashed(hashes.SHA256()))
    key.public_key().verify(sig_to_der(signature), digest, plain)
    r, s = decode_dss_signature(key.sign(digest, plain))
    theirs = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert ecdsa_verify(pubkey, digest, normalize_s(theirs))
    assert ecdsa_verify(pubkey, digest, theirs) == is_low_s(theirs)


@settings(deadline=None, max_examples=25)
@given(secrets, digests)
def test_nonce_is_plain_rfc_6979(secret: bytes, digest: bytes) -> None:
    rule = ec.ECDSA(Prehashed(hashes.SHA256()), deterministic_signing=True)
    r, s = decode_dss_signature(_openssl_key(secret).sign(digest, rule))
    assert ecdsa_sign(secret, digest) == r.to_bytes(32, "big") + min(s, ORDER - s).to_bytes(32, "big")


@settings(deadline=None, max_examples=25)
@given(secrets, secrets)
def test_group_laws(a: bytes, b: bytes) -> None:
    pub_a, pub_b = pubkey_create(a), pubkey_create(b)
    assert point_tweak_mul(pub_a, b) == point_tweak_mul(pub_b, a) == pubkey_create(secret_mul(a, b))
    assert ecdh(a, pub_b) == ecdh(b, pub_a) == hashlib.sha256(point_tweak_mul(pub_a, b)).digest()
    if a != secret_negate(b):
        assert point_add(pub_a, pub_b) == point_tweak_add(pub_a, b) == pubkey_create(secret_add(a, b))
    assert secret_negate(secret_negate(a)) == a
    assert point_add(pub_a, pub_b, pubkey_create(secret_negate(b))) == pub_a


def test_parsed_variants_agree() -> None:
    point, other = parse_point(PUBKEY), pubkey_create_parsed(DIGEST)
    assert point == parse_point_uncached(PUBKEY)
    assert hash(point) == hash(parse_point_uncached(PUBKEY))
    assert point != other
    assert point.data == PUBKEY
    assert repr(point) == f"ParsedPoint({PUBKEY.hex()})"
    assert other.data == pubkey_create(DIGEST)
    assert point_add_parsed(point, other).data == point_add(PUBKEY, other.data)
    assert point_tweak_add_parsed(point, DIGEST).data == point_tweak_add(PUBKEY, DIGEST)
    assert point_tweak_mul_parsed(point, DIGEST).data == point_tweak_mul(PUBKEY, DIGEST)
    assert point.data == parse_point(PUBKEY).data == PUBKEY, "a multiplication leaves its operand alone"
    assert ecdh_parsed(SECRET, other) == ecdh(SECRET, other.data)
    assert verify_parsed(point, DIGEST, ecdsa_sign(SECRET, DIGEST))


def test_generator_and_neutral_tweak() -> None:
    assert pubkey_create((1).to_bytes(32, "big")) == GENERATOR
    assert point_tweak_add(PUBKEY, ZERO) == PUBKEY


def test_verify_refuses() -> None:
    signature = ecdsa_sign(SECRET, DIGEST)
    assert is_low_s(signature)
    assert ecdsa_verify(PUBKEY, DIGEST, signature)
    assert not ecdsa_verify(PUBKEY, sha256(DIGEST), signature)
    assert not ecdsa_verify(pubkey_create(DIGEST), DIGEST, signature)
    high = signature[:32] + (ORDER - _s(signature)).to_bytes(32, "big")
    assert not is_low_s(high)
    assert not ecdsa_verify(PUBKEY, DIGEST, high)
    assert normalize_s(high) == normalize_s(signature) == signature
    for bad in (b"", signature[:-1], signature + b"\0", bytes(64), TOO_BIG + signature[32:], signature[:32] + TOO_BIG):
        assert not ecdsa_verify(PUBKEY, DIGEST, bad)
    assert not is_low_s(signature[:-1])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PUBKEY[:-1],
        PUBKEY + b"\0",
        b"\x04" + PUBKEY[1:],
        b"\x00" + PUBKEY[1:],
        NOT_ON_CURVE,
        b"\x02" + b"\xff" * 32,
        _openssl_key(SECRET).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
    ],
)
def test_invalid_points(data: bytes) -> None:
    assert not is_valid_point(data)
    calls: list[Callable[[], object]] = [
        lambda: parse_point(data),
        lambda: ecdsa_verify(data, DIGEST, bytes(64)),
        lambda: ecdh(SECRET, data),
        lambda: point_add(PUBKEY, data),
        lambda: point_tweak_add(data, DIGEST),
        lambda: point_tweak_mul(data, DIGEST),
    ]
    for call in calls:
        with pytest.raises(CryptoError):
            call()


def test_valid_point() -> None:
    assert is_valid_point(PUBKEY)
    assert is_valid_point(bytes((5 - PUBKEY[0],)) + PUBKEY[1:]), "the other square root is a point too"


@pytest.mark.parametrize("bad", [b"", SECRET[:-1], SECRET + b"\0", ZERO, TOO_BIG, b"\xff" * 32])
def test_invalid_secrets(bad: bytes) -> None:
    assert not is_valid_secret(bad)
    calls: list[Callable[[], object]] = [
        lambda: pubkey_create(bad),
        lambda: pubkey_create_parsed(bad),
        lambda: ecdsa_sign(bad, DIGEST),
        lambda: ecdsa_sign_recoverable(bad, DIGEST),
        lambda: ecdh(bad, PUBKEY),
        lambda: secret_add(bad, SECRET),
        lambda: secret_mul(SECRET, bad),
        lambda: secret_mul(bad, SECRET),
        lambda: secret_negate(bad),
        lambda: point_tweak_mul(PUBKEY, bad),
    ]
    for call in calls:
        with pytest.raises(CryptoError) as caught:
            call()
        assert not bad or bad.hex() not in str(caught.value)


def test_wrong_digests_and_tweaks() -> None:
    signature = ecdsa_sign(SECRET, DIGEST)
    calls: list[Callable[[], object]] = [
        lambda: ecdsa_sign(SECRET, DIGEST[:-1]),
        lambda: ecdsa_sign_recoverable(SECRET, DIGEST[:-1]),
        lambda: ecdsa_verify(PUBKEY, DIGEST[:-1], signature),
        lambda: ecdsa_recover(DIGEST[:-1], signature, 0),
        lambda: secret_add(SECRET, TOO_BIG),
        lambda: secret_add(SECRET, SECRET[:-1]),
        lambda: point_tweak_add(PUBKEY, TOO_BIG),
        lambda: point_tweak_add(PUBKEY, DIGEST[:-1]),
    ]
    for call in calls:
        with pytest.raises(CryptoError):
            call()


def test_infinity() -> None:
    opposite = secret_negate(SECRET)
    calls: list[Callable[[], object]] = [
        lambda: point_add(),
        lambda: point_add(PUBKEY, pubkey_create(opposite)),
        lambda: point_add_parsed(parse_point(PUBKEY), pubkey_create_parsed(opposite)),
        lambda: point_tweak_add(PUBKEY, opposite),
        lambda: secret_add(SECRET, opposite),
    ]
    for call in calls:
        with pytest.raises(CryptoError):
            call()


@settings(deadline=None, max_examples=25)
@given(secrets, digests)
def test_recovery(secret: bytes, digest: bytes) -> None:
    signature, recovery_id = ecdsa_sign_recoverable(secret, digest)
    assert signature == ecdsa_sign(secret, digest)
    assert ecdsa_recover(digest, signature, recovery_id) == pubkey_create(secret)
    assert ecdsa_recover(digest, signature, recovery_id ^ 1) != pubkey_create(secret)


def test_recovery_refuses() -> None:
    signature, _ = ecdsa_sign_recoverable(SECRET, DIGEST)
    for bad, recovery_id in ((signature[:-1], 0), (signature, 4), (signature, -1), (bytes(64), 0), (b"\xff" * 64, 0)):
        with pytest.raises(CryptoError):
            ecdsa_recover(DIGEST, bad, recovery_id)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, ORDER - 1), st.integers(1, ORDER - 1))
def test_der(r: int, s: int) -> None:
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    der = sig_to_der(signature)
    assert der == encode_dss_signature(r, s)
    assert der_to_sig(der) == signature
    for bad in (der[:-1], der + b"\0", b"\x31" + der[1:], der[:4] + b"\0" + der[4:]):
        with pytest.raises(CryptoError):
            der_to_sig(bad)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_der_garbage(data: bytes) -> None:
    try:
        signature = der_to_sig(data)
    except CryptoError:
        return
    assert sig_to_der(signature) == data


def test_der_out_of_range() -> None:
    with pytest.raises(CryptoError):
        der_to_sig(encode_dss_signature(ORDER, 1))
    with pytest.raises(CryptoError):
        der_to_sig(encode_dss_signature(1, 2**256))
    for bad in (b"", bytes(63), TOO_BIG + ZERO):
        with pytest.raises(CryptoError):
            sig_to_der(bad)
        with pytest.raises(CryptoError):
            normalize_s(bad)


def test_threads_do_not_share_buffers() -> None:
    keys = [sha256(bytes((i,))) for i in range(64)]

    def work(_: int) -> list[object]:
        return [(pubkey_create(k), ecdsa_sign(k, DIGEST), ecdh(k, PUBKEY), point_tweak_mul(PUBKEY, k)) for k in keys]

    expected = work(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(result == expected for result in pool.map(work, range(8)))
