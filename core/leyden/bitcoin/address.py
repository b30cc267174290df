"""Addresses: output scripts as text (BIP 173, BIP 350, and base58 for P2PKH and P2SH)."""

from leyden.bitcoin.base58 import base58check_decode, base58check_encode
from leyden.bitcoin.bech32 import Encoding, bech32_decode_any, bech32_encode, from_base32, to_base32
from leyden.bitcoin.errors import AddressError
from leyden.bitcoin.network import Network
from leyden.bitcoin.opcodes import OP_0, OP_1
from leyden.bitcoin.script import is_p2pkh, is_p2sh, p2pkh, p2sh, segwit_program


def encode_address(script: bytes, network: Network) -> str:
    """The address of an output script; ``AddressError`` if it has none."""
    program = segwit_program(script)
    if program is not None:
        version, data = program
        if version == 0 and len(data) not in (20, 32):
            raise AddressError(f"a version 0 program has 20 or 32 bytes, not {len(data)}")
        encoding = Encoding.BECH32M if version else Encoding.BECH32
        return bech32_encode(network.hrp, bytes((version,)) + to_base32(data), encoding)
    if is_p2pkh(script):
        return base58check_encode(bytes((network.p2pkh_prefix,)) + script[3:23])
    if is_p2sh(script):
        return base58check_encode(bytes((network.p2sh_prefix,)) + script[2:22])
    raise AddressError("this script has no address")


def decode_address(text: str, network: Network) -> bytes:
    """The output script of an address; ``AddressError`` if it is malformed or of another network.

    Testnet4 and signet share their prefixes and cannot be told apart.
    """
    if text[: len(network.hrp) + 1].lower() == network.hrp + "1":
        return _decode_segwit(text, network)
    if "1" in text and text.lower().rpartition("1")[0] in {n.hrp for n in Network}:
        raise AddressError(f"this address is not for {network.label}")
    payload = base58check_decode(text)
    if len(payload) != 21:
        raise AddressError("neither a segwit nor a base58 address")
    if payload[0] == network.p2pkh_prefix:
        return p2pkh(payload[1:])
    if payload[0] == network.p2sh_prefix:
        return p2sh(payload[1:])
    raise AddressError(f"this address is not for {network.label}")


def _decode_segwit(text: str, network: Network) -> bytes:
    hrp, data5, encoding = bech32_decode_any(text)
    if hrp != network.hrp:
        raise AddressError(f"this address is not for {network.label}")
    if not data5 or data5[0] > 16:
        raise AddressError("unknown witness version")
    version = data5[0]
    if encoding is not (Encoding.BECH32M if version else Encoding.BECH32):
        raise AddressError(f"wrong checksum variant for witness version {version}")
    program = from_base32(data5[1:])
    if not 2 <= len(program) <= 40 or (version == 0 and len(program) not in (20, 32)):
        raise AddressError(f"a witness program of version {version} cannot have {len(program)} bytes")
    return bytes((OP_1 - 1 + version if version else OP_0, len(program))) + program
