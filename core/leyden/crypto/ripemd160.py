"""RIPEMD-160 in plain Python, for systems whose OpenSSL has dropped it (OpenSSL 3 without its legacy provider).

Tens of microseconds per short message: enough for a node, which needs one such hash per HTLC output and key.
``leyden.crypto.hashes`` prefers OpenSSL where it can.
"""

import struct
from collections.abc import Callable

# Per round of 16 steps: the order in which message words are taken, for the left and for the right line.
_ORDER_LEFT = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
    (7, 4, 13, 1, 10, 6, 15, 3, 12, 0, 9, 5, 2, 14, 11, 8),
    (3, 10, 14, 4, 9, 15, 8, 1, 2, 7, 0, 6, 13, 11, 5, 12),
    (1, 9, 11, 10, 0, 8, 12, 4, 13, 3, 7, 15, 14, 5, 6, 2),
    (4, 0, 5, 9, 7, 12, 2, 10, 14, 1, 3, 8, 11, 6, 15, 13),
)
_ORDER_RIGHT = (
    (5, 14, 7, 0, 9, 2, 11, 4, 13, 6, 15, 8, 1, 10, 3, 12),
    (6, 11, 3, 7, 0, 13, 5, 10, 14, 15, 8, 12, 4, 9, 1, 2),
    (15, 5, 1, 3, 7, 14, 6, 9, 11, 8, 12, 2, 10, 0, 4, 13),
    (8, 6, 4, 1, 3, 11, 15, 0, 5, 12, 2, 13, 9, 7, 10, 14),
    (12, 15, 10, 4, 1, 5, 8, 7, 6, 2, 13, 14, 0, 3, 9, 11),
)
# Rotation of each step.
_SHIFT_LEFT = (
    (11, 14, 15, 12, 5, 8, 7, 9, 11, 13, 14, 15, 6, 7, 9, 8),
    (7, 6, 8, 13, 11, 9, 7, 15, 7, 12, 15, 9, 11, 7, 13, 12),
    (11, 13, 6, 7, 14, 9, 13, 15, 14, 8, 13, 6, 5, 12, 7, 5),
    (11, 12, 14, 15, 14, 15, 9, 8, 9, 14, 5, 6, 8, 6, 5, 12),
    (9, 15, 5, 11, 6, 8, 13, 12, 5, 12, 13, 14, 11, 8, 5, 6),
)
_SHIFT_RIGHT = (
    (8, 9, 9, 11, 13, 15, 15, 5, 7, 7, 8, 11, 14, 14, 12, 6),
    (9, 13, 15, 7, 12, 8, 9, 11, 7, 7, 12, 7, 6, 15, 13, 11),
    (9, 7, 15, 11, 8, 6, 6, 14, 12, 13, 5, 14, 13, 13, 7, 5),
    (15, 5, 8, 11, 14, 14, 6, 14, 6, 9, 12, 9, 12, 5, 15, 8),
    (8, 5, 12, 9, 12, 5, 14, 6, 8, 13, 6, 5, 15, 13, 11, 11),
)
_CONSTANT_LEFT = (0, 0x5A827999, 0x6ED9EBA1, 0x8F1BBCDC, 0xA953FD4E)
_CONSTANT_RIGHT = (0x50A28BE6, 0x5C4DD124, 0x6D703EF3, 0x7A6D76E9, 0)
_MIX: tuple[Callable[[int, int, int], int], ...] = (
    lambda x, y, z: x ^ y ^ z,
    lambda x, y, z: (x & y) | (~x & z),
    lambda x, y, z: (x | ~y) ^ z,
    lambda x, y, z: (x & z) | (y & ~z),
    lambda x, y, z: x ^ (y | ~z),
)
_INITIAL = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)
_WORD = 0xFFFFFFFF

_State = tuple[int, int, int, int, int]


def _line(
    state: _State,
    words: tuple[int, ...],
    mixers: tuple[Callable[[int, int, int], int], ...],
    orders: tuple[tuple[int, ...], ...],
    shifts: tuple[tuple[int, ...], ...],
    constants: tuple[int, ...],
) -> _State:
    a, b, c, d, e = state
    for mix, order, shift, constant in zip(mixers, orders, shifts, constants, strict=True):
        for index, turn in zip(order, shift, strict=True):
            t = (a + mix(b, c, d) + words[index] + constant) & _WORD
            t = ((t << turn | t >> (32 - turn)) + e) & _WORD
            a, b, c, d, e = e, t, b, (c << 10 | c >> 22) & _WORD, d
    return a, b, c, d, e


def ripemd160_python(data: bytes) -> bytes:
    """The 20-byte RIPEMD-160 hash of ``data``."""
    padded = data + b"\x80" + bytes((55 - len(data)) % 64) + struct.pack("<Q", len(data) * 8)
    h = _INITIAL
    for words in struct.iter_unpack("<16I", padded):
        a, b, c, d, e = _line(h, words, _MIX, _ORDER_LEFT, _SHIFT_LEFT, _CONSTANT_LEFT)
        v, w, x, y, z = _line(h, words, _MIX[::-1], _ORDER_RIGHT, _SHIFT_RIGHT, _CONSTANT_RIGHT)
        h = (
            (h[1] + c + y) & _WORD,
            (h[2] + d + z) & _WORD,
            (h[3] + e + v) & _WORD,
            (h[4] + a + w) & _WORD,
            (h[0] + b + x) & _WORD,
        )
    return struct.pack("<5I", *h)
