"""Hashes, HMAC, HKDF, ChaCha20 and its AEAD: published vectors, and each fast form against the plain one."""

import hmac
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import (
    Aead,
    CryptoError,
    HmacKey,
    aead_decrypt,
    aead_encrypt,
    chacha20_stream,
    chacha20_xor,
    constant_time_equal,
    hash160,
    hkdf,
    hkdf_two,
    hmac_sha256,
    ripemd160,
    sha256,
    sha256d,
    tagged_hash,
    xor,
)
from leyden.crypto import hashes as hashes_module
from leyden.crypto.ripemd160 import ripemd160_python

KEY = bytes(range(0x80, 0xA0))

# The authors' own examples.
RIPEMD160 = [
    (b"", "9c1185a5c5e9fc54612808977ee8f548b2258d31"),
    (b"a", "0bdc9d2d256b3ee9daae347be6f4dc835a467ffe"),
    (b"abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
    (b"message digest", "5d0689ef49d2fae572b881b123a85ffa21595f36"),
    (b"abcdefghijklmnopqrstuvwxyz", "f71c27109c692c1b56bbdceb5b9d2865b3708dbc"),
    (b"1234567890" * 8, "9b752e45573d4b39f4dbd3323cab82bf63326bfb"),
]


@pytest.mark.parametrize(("data", "digest"), RIPEMD160)
def test_ripemd160(data: bytes, digest: str) -> None:
    assert ripemd160(data).hex() == digest
    assert ripemd160_python(data).hex() == digest


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300))
def test_ripemd160_in_python_is_the_same(data: bytes) -> None:
    assert ripemd160_python(data) == ripemd160(data)


def test_ripemd160_without_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **options: object) -> object:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr("hashlib.new", refuse)
    assert hashes_module._find_ripemd160() is ripemd160_python


def test_bitcoin_hashes() -> None:
    assert sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256d(b"hello").hex() == "9595c9df90075148eb06860365df33584b75bff782a510c6cd4883a419833d50"
    assert hash160(b"hello").hex() == "b6a9c8c230722b7c748331a8b450f05566dc7d0f"


def test_tagged_hash() -> None:
    tag = sha256(b"BIP0340/challenge")
    assert tagged_hash(b"BIP0340/challenge", b"data") == sha256(tag + tag + b"data")
    assert tagged_hash(b"a", b"data") != tagged_hash(b"b", b"data")


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_hmac(key: bytes, data: bytes) -> None:
    expected = hmac.new(key, data, "sha256").digest()
    assert hmac_sha256(key, data) == expected
    kept = HmacKey(key)
    assert kept.digest(data) == expected
    assert kept.digest(data) == expected, "using a key does not change it"


def test_hkdf() -> None:
    # RFC 5869, cases 1 and 3.
    ikm = b"\x0b" * 22
    assert hkdf(bytes(range(13)), ikm, bytes(range(0xF0, 0xFA)), 42).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert hkdf(b"", ikm, b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
    assert b"".join(hkdf_two(KEY, ikm)) == hkdf(KEY, ikm, b"", 64)
    assert hkdf(KEY, ikm, b"", 0) == b""
    for length in (-1, 255 * 32 + 1):
        with pytest.raises(CryptoError):
            hkdf(KEY, ikm, b"", length)


def test_constant_time_equal() -> None:
    assert constant_time_equal(b"ab", b"ab")
    assert not constant_time_equal(b"ab", b"ac")


# RFC 8439, section 2.8.2.
SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
SUNSCREEN_NONCE = bytes.fromhex("070000004041424344454647")
SUNSCREEN_AD = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
SUNSCREEN_CIPHER = bytes.fromhex(
    "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b1a71de0a9e060b29"
    "05d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b"
    "61161ae10b594f09e26a7e902ecbd0600691"
)


def test_aead() -> None:
    assert aead_encrypt(KEY, SUNSCREEN_NONCE, SUNSCREEN_AD, SUNSCREEN) == SUNSCREEN_CIPHER
    assert aead_decrypt(KEY, SUNSCREEN_NONCE, SUNSCREEN_AD, SUNSCREEN_CIPHER) == SUNSCREEN


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**64 - 1), st.binary(max_size=40), st.binary(max_size=200))
def test_aead_object(counter: int, ad: bytes, data: bytes) -> None:
    nonce = bytes(4) + struct.pack("<Q", counter)
    cipher = Aead(KEY).encrypt(counter, ad, data)
    assert cipher == aead_encrypt(KEY, nonce, ad, data)
    assert Aead(KEY).decrypt(counter, ad, cipher) == data
    for bad_counter, bad_ad, bad in (
        (counter ^ 1, ad, cipher),
        (counter, ad + b"x", cipher),
        (counter, ad, cipher[:-1] + bytes((cipher[-1] ^ 1,))),
        (counter, ad, cipher[:15]),
        (counter, ad, b""),
    ):
        with pytest.raises(CryptoError, match="authenticate"):
            Aead(KEY).decrypt(bad_counter, bad_ad, bad)


def test_aead_refuses() -> None:
    with pytest.raises(CryptoError, match="authenticate"):
        aead_decrypt(KEY, SUNSCREEN_NONCE, b"", SUNSCREEN_CIPHER)
    for key, nonce in ((KEY[1:], SUNSCREEN_NONCE), (KEY, SUNSCREEN_NONCE[1:])):
        with pytest.raises(CryptoError):
            aead_encrypt(key, nonce, b"", b"")
        with pytest.raises(CryptoError):
            aead_decrypt(key, nonce, b"", bytes(16))
    with pytest.raises(CryptoError):
        Aead(KEY[1:])


def test_chacha20() -> None:
    # RFC 8439, appendix A.1, test vector 1.
    assert chacha20_stream(bytes(32), 64).hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    stream = chacha20_stream(KEY, 1300)
    assert stream[:100] == chacha20_stream(KEY, 100)
    data = bytes(i & 255 for i in range(1300))
    assert chacha20_xor(KEY, data) == xor(stream, data)
    with pytest.raises(CryptoError):
        chacha20_stream(KEY[1:], 1)


@settings(deadline=None)
@given(st.binary(max_size=100).flatmap(lambda a: st.tuples(st.just(a), st.binary(min_size=len(a), max_size=len(a)))))
def test_xor(pair: tuple[bytes, bytes]) -> None:
    left, right = pair
    assert xor(left, right) == bytes(a ^ b for a, b in zip(left, right, strict=True))


def test_xor_needs_equal_lengths() -> None:
    with pytest.raises(CryptoError):
        xor(b"ab", b"abc")
