"""Output descriptors of single keys (BIP 380, 382, 386): the text that makes another wallet watch the same coins."""

from collections.abc import Sequence

from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.psbt import KeyOrigin

_INPUT = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
_VALUES = {char: value for value, char in enumerate(_INPUT)}
_OUTPUT = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)
_HARDENED = 0x80000000


class DescriptorError(BitcoinError):
    """A text that is no descriptor, or one that was mistyped."""


def descriptor_checksum(text: str) -> str:
    """The 8 characters that stand behind ``#``; ``DescriptorError`` for characters that no descriptor has."""
    try:
        values = [_VALUES[char] for char in text]
    except KeyError:
        raise DescriptorError("a descriptor is made of other characters") from None
    state = 1
    for place in range(0, len(values), 3):
        group = values[place : place + 3]
        high = 0
        for value in group:
            state = _mix(state, value & 31)
            high = 3 * high + (value >> 5)
        state = _mix(state, high)
    for _ in range(8):
        state = _mix(state, 0)
    state ^= 1
    return "".join(_OUTPUT[state >> 5 * (7 - place) & 31] for place in range(8))


def _mix(state: int, value: int) -> int:
    top = state >> 35
    state = (state & 0x7FFFFFFFF) << 5 ^ value
    for bit, generator in enumerate(_GENERATOR):
        if top >> bit & 1:
            state ^= generator
    return state


def check_descriptor(text: str) -> str:
    """The descriptor without its checksum, which must be there and right; else ``DescriptorError``."""
    body, mark, checksum = text.rpartition("#")
    if not mark or descriptor_checksum(body) != checksum:
        raise DescriptorError("the checksum of the descriptor is missing or wrong")
    return body


def single_key_descriptor(*, taproot: bool, origin: KeyOrigin, extended_key: str, below: Sequence[int]) -> str:
    """``wpkh([origin]xpub/below/*)`` or ``tr(...)`` with its checksum: every child of one chain of keys.

    ``extended_key`` is public and stands at the end of ``origin``; ``below`` are steps that are not hardened.
    """
    if any(step >= _HARDENED for step in below):
        raise DescriptorError("a public key has no hardened children")
    path = "".join(f"/{step - _HARDENED}h" if step >= _HARDENED else f"/{step}" for step in origin.path)
    steps = "".join(f"/{step}" for step in below)
    body = f"{'tr' if taproot else 'wpkh'}([{origin.fingerprint.hex()}{path}]{extended_key}{steps}/*)"
    return f"{body}#{descriptor_checksum(body)}"
