"""Output scripts: making them, telling them apart, and the smallest amount worth holding (BOLT 3, dust limits)."""

from leyden.bitcoin import opcodes as op
from leyden.bitcoin.encoding import write_varint
from leyden.bitcoin.errors import BitcoinError
from leyden.crypto import hash160, sha256
from leyden.types import Sat
from leyden.types.rules import C_111

P2A_SCRIPT = bytes.fromhex("51024e73")
"""Pay-to-anchor: anyone can spend it."""

_MAX_PUSH = 520
_DUST_FEERATE = 3  # sat per virtual byte: the relay policy from which the thresholds of BOLT 3 follow
_SPEND_LEGACY = 148  # bytes of an input that spends P2PKH
_SPEND_SEGWIT = 67  # virtual bytes of an input that spends P2WPKH
_DUST_UNKNOWN_SEGWIT = Sat(354)


# --- making scripts


def push_data(data: bytes) -> bytes:
    """The shortest operation that pushes ``data`` (at most 520 bytes, else ``BitcoinError``)."""
    size = len(data)
    if size == 1 and (1 <= data[0] <= 16 or data[0] == 0x81):
        return bytes((op.OP_1NEGATE if data[0] == 0x81 else op.OP_1 - 1 + data[0],))
    if size < op.OP_PUSHDATA1:
        return bytes((size,)) + data
    if size <= 0xFF:
        return bytes((op.OP_PUSHDATA1, size)) + data
    if size <= _MAX_PUSH:
        return bytes((op.OP_PUSHDATA2,)) + size.to_bytes(2, "little") + data
    raise BitcoinError(f"a script cannot push {size} bytes, 520 at most")


def push_int(value: int) -> bytes:
    """The shortest operation that pushes a number of at most five bytes (a locktime), else ``BitcoinError``."""
    if abs(value) >= 1 << 39:
        raise BitcoinError(f"{value} is no script number")
    if value == 0:
        return b"\x00"
    size = abs(value).bit_length() // 8 + 1  # one bit more than the magnitude, for the sign
    encoded = abs(value).to_bytes(size, "little")
    return push_data(encoded if value > 0 else encoded[:-1] + bytes((encoded[-1] | 0x80,)))


def p2wsh(script: bytes) -> bytes:
    """34 bytes that pay to the hash of ``script``."""
    return b"\x00\x20" + sha256(script)


def p2wpkh(key: bytes) -> bytes:
    """22 bytes that pay to a compressed key (33 bytes) or to its hash (20 bytes); else ``BitcoinError``."""
    return b"\x00\x14" + _key_hash(key)


def p2pkh(key: bytes) -> bytes:
    """25 bytes that pay to a compressed key (33 bytes) or to its hash (20 bytes); else ``BitcoinError``."""
    return b"\x76\xa9\x14" + _key_hash(key) + b"\x88\xac"


def p2sh(script_or_hash: bytes) -> bytes:
    """23 bytes that pay to a script hash: 20 bytes are taken for the hash itself, anything else is hashed."""
    return b"\xa9\x14" + (script_or_hash if len(script_or_hash) == 20 else hash160(script_or_hash)) + b"\x87"


def p2tr(output_key: bytes) -> bytes:
    """34 bytes that pay to a tweaked x-only key (32 bytes, else ``BitcoinError``)."""
    if len(output_key) != 32:
        raise BitcoinError(f"a taproot output key has 32 bytes, not {len(output_key)}")
    return b"\x51\x20" + output_key


def op_return(data: bytes) -> bytes:
    """An unspendable output script that carries ``data``."""
    return bytes((op.OP_RETURN,)) + push_data(data)


def _key_hash(key: bytes) -> bytes:
    if len(key) == 20:
        return key
    if len(key) != 33:
        raise BitcoinError(f"expected a compressed key or its 20-byte hash, got {len(key)} bytes")
    return hash160(key)


def funding_script(key1: bytes, key2: bytes) -> bytes:
    """The 2-of-2 of a channel, 71 bytes: keys sorted bytewise whatever the order given (BOLT 3, funding output)."""
    if len(key1) != 33 or len(key2) != 33:
        raise BitcoinError("a funding script takes two compressed keys")
    low, high = (key1, key2) if key1 < key2 else (key2, key1)
    return b"\x52\x21" + low + b"\x21" + high + b"\x52\xae"


# --- telling scripts apart


def segwit_program(script: bytes) -> tuple[int, bytes] | None:
    """Version 0..16 and program (2 to 40 bytes) of a native segwit script, or None (BIP 141)."""
    if not 4 <= len(script) <= 42 or script[1] != len(script) - 2:
        return None
    first = script[0]
    if first == op.OP_0:
        return 0, script[2:]
    if op.OP_1 <= first <= op.OP_16:
        return first - op.OP_1 + 1, script[2:]
    return None


def is_p2wpkh(script: bytes) -> bool:
    return len(script) == 22 and script.startswith(b"\x00\x14")


def is_p2wsh(script: bytes) -> bool:
    return len(script) == 34 and script.startswith(b"\x00\x20")


def is_p2tr(script: bytes) -> bool:
    return len(script) == 34 and script.startswith(b"\x51\x20")


def is_p2a(script: bytes) -> bool:
    return script == P2A_SCRIPT


def is_p2pkh(script: bytes) -> bool:
    return len(script) == 25 and script.startswith(b"\x76\xa9\x14") and script.endswith(b"\x88\xac")


def is_p2sh(script: bytes) -> bool:
    return len(script) == 23 and script.startswith(b"\xa9\x14") and script.endswith(b"\x87")


def is_op_return(script: bytes) -> bool:
    return script.startswith(b"\x6a")


def dust_limit(script: bytes) -> Sat:
    """The smallest amount that an output with this script may hold and still be relayed (BOLT 3, dust limits; C-111).

    P2PKH 546, P2SH 540, P2WPKH 294, P2WSH and P2TR 330, P2A 240, other segwit versions and lengths 354, OP_RETURN 0.
    Any other script is priced by its length, as nodes do.
    """
    if not C_111.enabled or is_op_return(script):
        return Sat(0)
    size = 8 + len(write_varint(len(script))) + len(script)
    if segwit_program(script) is None:
        return Sat(_DUST_FEERATE * (size + _SPEND_LEGACY))
    if is_p2wpkh(script) or is_p2wsh(script) or is_p2tr(script) or is_p2a(script):
        return Sat(_DUST_FEERATE * (size + _SPEND_SEGWIT))
    return _DUST_UNKNOWN_SEGWIT
