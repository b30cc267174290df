"""Scripts, dust limits, addresses and the two text encodings."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import (
    P2A_SCRIPT,
    AddressError,
    Bech32Error,
    BitcoinError,
    Encoding,
    Network,
    base58check_decode,
    base58check_encode,
    bech32_decode,
    bech32_decode_any,
    bech32_encode,
    convertbits,
    decode_address,
    dust_limit,
    encode_address,
    from_base32,
    funding_script,
    is_op_return,
    is_p2a,
    is_p2pkh,
    is_p2sh,
    is_p2tr,
    is_p2wpkh,
    is_p2wsh,
    op_return,
    p2pkh,
    p2sh,
    p2tr,
    p2wpkh,
    p2wsh,
    push_data,
    push_int,
    segwit_program,
    to_base32,
)
from leyden.crypto import GENERATOR, hash160, sha256
from leyden.types import Sat

HASH20 = bytes(range(20))
HASH32 = bytes(range(32))
UNKNOWN_SEGWIT = [b"\x52\x02\x01\x01", b"\x51\x14" + HASH20, b"\x52\x20" + HASH32, b"\x60\x28" + bytes(40)]


# --- pushes


@pytest.mark.parametrize(
    ("data", "script"),
    [
        (b"", "00"),
        (b"\x00", "0100"),
        (b"\x01", "51"),
        (b"\x10", "60"),
        (b"\x11", "0111"),
        (b"\x81", "4f"),
        (bytes(75), "4b" + "00" * 75),
        (bytes(76), "4c4c" + "00" * 76),
        (bytes(255), "4cff" + "00" * 255),
        (bytes(256), "4d0001" + "00" * 256),
        (bytes(520), "4d0802" + "00" * 520),
    ],
)
def test_push_data(data: bytes, script: str) -> None:
    assert push_data(data).hex() == script


def test_push_data_limit() -> None:
    with pytest.raises(BitcoinError):
        push_data(bytes(521))


@pytest.mark.parametrize(
    ("number", "script"),
    [
        (0, "00"),
        (1, "51"),
        (16, "60"),
        (17, "0111"),
        (-1, "4f"),
        (-2, "0182"),
        (127, "017f"),
        (128, "028000"),
        (-128, "028080"),
        (144, "029000"),
        (500, "02f401"),
        (32768, "03008000"),
        (2**31, "050000008000"),
        (2**32 - 1, "05ffffffff00"),
    ],
)
def test_push_int(number: int, script: str) -> None:
    assert push_int(number).hex() == script


def test_push_int_limit() -> None:
    for number in (2**39, -(2**39)):
        with pytest.raises(BitcoinError):
            push_int(number)


# --- kinds of scripts


def test_each_kind_is_itself_only() -> None:
    recognisers = (is_p2pkh, is_p2sh, is_p2wpkh, is_p2wsh, is_p2tr, is_p2a, is_op_return)
    scripts = (p2pkh(HASH20), p2sh(HASH20), p2wpkh(HASH20), p2wsh(b""), p2tr(HASH32), P2A_SCRIPT, op_return(b"hello"))
    for i, script in enumerate(scripts):
        assert [recognise(script) for recognise in recognisers] == [i == j for j in range(len(recognisers))]
        assert not any(recognise(script + b"\0") for recognise in recognisers[:-1])
    for script in (b"", *UNKNOWN_SEGWIT):
        assert not any(recognise(script) for recognise in recognisers)


def test_hashing_builders() -> None:
    assert p2wpkh(GENERATOR) == p2wpkh(hash160(GENERATOR))
    assert p2pkh(GENERATOR) == p2pkh(hash160(GENERATOR))
    assert p2wsh(b"script")[2:] == sha256(b"script")
    assert p2sh(b"script") == p2sh(hash160(b"script"))
    for build, bad in ((p2wpkh, HASH32), (p2pkh, b""), (p2tr, HASH20)):
        with pytest.raises(BitcoinError):
            build(bad)
    with pytest.raises(BitcoinError):
        funding_script(GENERATOR, HASH32)


def test_segwit_program() -> None:
    assert segwit_program(p2wpkh(HASH20)) == (0, HASH20)
    assert segwit_program(p2tr(HASH32)) == (1, HASH32)
    assert segwit_program(P2A_SCRIPT) == (1, b"\x4e\x73")
    assert segwit_program(b"\x60\x28" + bytes(40)) == (16, bytes(40))
    for script in (b"", b"\x51", b"\x51\x01\x00", b"\x51\x29" + bytes(41), b"\x50\x02ab", b"\x61\x02ab", b"\x51\x03ab"):
        assert segwit_program(script) is None
    assert segwit_program(p2pkh(HASH20)) is None


@pytest.mark.proves("C-111")
@pytest.mark.parametrize(
    ("script", "limit"),
    [
        (p2pkh(HASH20), 546),
        (p2sh(HASH20), 540),
        (p2wpkh(HASH20), 294),
        (p2wsh(b""), 330),
        (p2tr(HASH32), 330),
        (P2A_SCRIPT, 240),
        *((script, 354) for script in UNKNOWN_SEGWIT),
        (b"\x21" + GENERATOR + b"\xac", 576),  # P2PK: 44 bytes of output and 148 of input at 3 sat
    ],
)
def test_dust_limit(script: bytes, limit: int) -> None:
    assert dust_limit(script) == Sat(limit)


def test_data_outputs_have_no_dust_limit() -> None:
    assert dust_limit(op_return(bytes(80))) == 0


# --- addresses


SCRIPTS = [p2pkh(HASH20), p2sh(HASH20), p2wpkh(HASH20), p2wsh(b""), p2tr(HASH32), P2A_SCRIPT, *UNKNOWN_SEGWIT]


@pytest.mark.parametrize("network", Network)
@pytest.mark.parametrize("script", SCRIPTS)
def test_address_round_trip(script: bytes, network: Network) -> None:
    text = encode_address(script, network)
    assert decode_address(text, network) == script
    other = Network.REGTEST if network is Network.MAINNET else Network.MAINNET
    with pytest.raises(AddressError, match=f"not for {other.label}"):
        decode_address(text, other)


def test_known_addresses() -> None:
    # The key 1 and the pay-to-anchor address are known to everybody.
    assert encode_address(p2pkh(GENERATOR), Network.MAINNET) == "1BgGZ9tcN4rm9KBzDn7KprQz87SZ26SAMH"
    assert encode_address(p2wpkh(GENERATOR), Network.MAINNET) == "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    assert encode_address(P2A_SCRIPT, Network.MAINNET) == "bc1pfeessrawgf"


@pytest.mark.parametrize("script", [b"", op_return(b"x"), b"\x00\x02ab", b"\x51"])
def test_no_address(script: bytes) -> None:
    with pytest.raises(AddressError):
        encode_address(script, Network.REGTEST)


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=100) | st.text(max_size=60).map(lambda t: "bcrt1" + t), st.sampled_from(Network))
def test_address_garbage(text: str, network: Network) -> None:
    try:
        script = decode_address(text, network)
    except AddressError:
        return
    assert encode_address(script, network) in (text, text.lower())


def test_base58_of_another_size() -> None:
    with pytest.raises(AddressError, match="neither"):
        decode_address(base58check_encode(bytes(22)), Network.MAINNET)
    with pytest.raises(AddressError, match="too many"):
        decode_address("2" * 113, Network.MAINNET)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_base58(payload: bytes) -> None:
    text = base58check_encode(payload)
    assert base58check_decode(text) == payload
    with pytest.raises(AddressError):
        base58check_decode(text[:-1] + ("2" if text[-1] != "2" else "3"))


# --- bech32

data5s = st.lists(st.integers(0, 31), max_size=500).map(bytes)


@settings(deadline=None)
@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20), data5s, st.sampled_from(Encoding))
def test_bech32_round_trip(hrp: str, data5: bytes, encoding: Encoding) -> None:
    text = bech32_encode(hrp, data5, encoding)
    assert bech32_decode(text, max_length=1000, encoding=encoding) == (hrp, data5)
    assert bech32_decode(text.upper(), max_length=1000, encoding=encoding) == (hrp, data5)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_base32(data: bytes) -> None:
    data5 = to_base32(data)
    assert len(data5) == -(-len(data) * 8 // 5)
    assert from_base32(data5) == data
    assert convertbits(data, 8, 5, pad=True) == data5
    assert convertbits(data5, 5, 8, pad=False) == data


@settings(deadline=None)
@given(data5s)
def test_base32_padded(data5: bytes) -> None:
    bits = "".join(f"{value:05b}" for value in data5)
    bits += "0" * (-len(bits) % 8)
    assert from_base32(data5, pad=True) == bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def test_bech32_refuses_to_write() -> None:
    for hrp, data5 in (("", b""), ("a" * 84, b""), ("A", b""), ("a b", b""), ("ä", b""), ("a", b"\x20")):
        with pytest.raises(Bech32Error):
            bech32_encode(hrp, data5)
    with pytest.raises(Bech32Error):
        from_base32(b"\x20")
    for sizes in ((8, 5, False), (5, 5, True)):
        with pytest.raises(Bech32Error):
            convertbits(b"", sizes[0], sizes[1], pad=sizes[2])


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=100) | st.text("1qpzry9x8gf2tvdw0s3jn54khce6mua7lAB", max_size=95))
def test_bech32_garbage(text: str) -> None:
    try:
        hrp, data5, encoding = bech32_decode_any(text)
    except Bech32Error:
        return
    assert bech32_encode(hrp, data5, encoding) == text.lower()
