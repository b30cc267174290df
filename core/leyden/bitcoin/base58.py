"""Base58 with checksum: addresses from before segwit."""

from leyden.bitcoin.errors import AddressError
from leyden.crypto import sha256d

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {char: value for value, char in enumerate(_ALPHABET)}
_MAX_LENGTH = 112  # an extended key


def base58check_encode(payload: bytes) -> str:
    """Text for ``payload`` and its four checksum bytes."""
    data = payload + sha256d(payload)[:4]
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return _ALPHABET[0] * zeros + "".join(reversed(digits))


def base58check_decode(text: str) -> bytes:
    """The payload; ``AddressError`` for foreign characters or a wrong checksum."""
    if len(text) > _MAX_LENGTH:
        raise AddressError(f"{len(text)} characters are too many for base58")
    number = 0
    for char in text:
        value = _VALUES.get(char)
        if value is None:
            raise AddressError("a character is not in the base58 alphabet")
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip(_ALPHABET[0]))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(data) < 4 or sha256d(data[:-4])[:4] != data[-4:]:
        raise AddressError("checksum does not match")
    return data[:-4]
