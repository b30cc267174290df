"""Bech32, bech32m and segwit addresses (BIP 173, BIP 350)."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import (
    AddressError,
    Bech32Error,
    Encoding,
    Network,
    bech32_decode,
    bech32_decode_any,
    bech32_encode,
    decode_address,
    encode_address,
)

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bip173.json").read_text())
VALID = [(Encoding[kind.upper()], text) for kind in ("bech32", "bech32m") for text in DATA[kind]["valid"]]
INVALID = [(Encoding[kind.upper()], *case) for kind in ("bech32", "bech32m") for case in DATA[kind]["invalid"]]


@pytest.mark.parametrize(("encoding", "text"), VALID)
def test_valid(encoding: Encoding, text: str) -> None:
    hrp, data5 = bech32_decode(text, encoding=encoding)
    assert bech32_encode(hrp, data5, encoding) == text.lower()
    assert bech32_decode_any(text) == (hrp, data5, encoding)
    other = Encoding.BECH32M if encoding is Encoding.BECH32 else Encoding.BECH32
    with pytest.raises(Bech32Error, match="checksum"):
        bech32_decode(text, encoding=other)


@pytest.mark.parametrize(("encoding", "text"), VALID)
def test_one_wrong_character(encoding: Encoding, text: str) -> None:
    changed = text[:-1] + ("q" if text[-1] != "q" else "p")
    with pytest.raises(Bech32Error):
        bech32_decode(changed, encoding=encoding)


@pytest.mark.parametrize(("encoding", "text", "reason"), INVALID)
def test_invalid(encoding: Encoding, text: str, reason: str) -> None:
    with pytest.raises(Bech32Error, match=reason):
        bech32_decode(text, encoding=encoding)


@pytest.mark.parametrize(("text", "script"), DATA["addresses"]["valid"])
def test_address(text: str, script: str) -> None:
    network = Network.MAINNET if text.lower().startswith("bc") else Network.SIGNET
    assert decode_address(text, network).hex() == script
    assert encode_address(bytes.fromhex(script), network) == text.lower()
    with pytest.raises(AddressError, match="not for regtest"):
        decode_address(text, Network.REGTEST)


@pytest.mark.parametrize(("text", "reason"), DATA["addresses"]["invalid"])
def test_invalid_address(text: str, reason: str) -> None:
    network = Network.MAINNET if text.lower().startswith("bc") else Network.TESTNET4
    with pytest.raises(AddressError, match=reason):
        decode_address(text, network)
