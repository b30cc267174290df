"""Per-commitment secrets (BOLT 3): a chain of hashes that its maker walks down and its receiver stores in 49 slots.

Index ``FIRST_INDEX`` is used for commitment 0, and every later commitment counts down by one (C-110).
"""

from hashlib import sha256

import msgspec

from leyden.crypto.errors import CryptoError
from leyden.types import require
from leyden.types.rules import C_089, C_110

INDEX_BITS = 48
FIRST_INDEX = 2**INDEX_BITS - 1
SLOTS = INDEX_BITS + 1


def derive_secret(base: bytes, bits: int, index: int) -> bytes:
    """The secret of ``index`` from the secret of an index that has the same high bits and ``bits`` zeros below them."""
    value = base
    for bit in range(bits - 1, -1, -1):
        if index >> bit & 1:
            flipped = bytearray(value)
            flipped[bit >> 3] ^= 1 << (bit & 7)
            value = sha256(flipped).digest()
    return value


def commitment_secret(seed: bytes, index: int) -> bytes:
    """The 32-byte secret of ``index`` (0 to FIRST_INDEX) from a 32-byte seed; ``CryptoError`` otherwise.

    25 us; a ``SecretGenerator`` gives neighbouring secrets in 1 us.
    """
    _check(seed, index)
    return derive_secret(seed, INDEX_BITS, index)


def _check(secret: bytes, index: int) -> None:
    if len(secret) != 32:
        raise CryptoError(f"a per-commitment seed or secret has 32 bytes, not {len(secret)}")
    if not 0 <= index <= FIRST_INDEX:
        raise CryptoError(f"per-commitment index {index} is not in 0..2^48-1")


def _trailing_zeros(index: int) -> int:
    return (index & -index).bit_length() - 1 if index else INDEX_BITS


class SecretGenerator:
    """Makes the secrets of one seed and keeps the hashes on the way to the last one: neighbours cost one hash or two.

    Holds the seed; not a value and not for more than one thread.
    """

    __slots__ = ("_index", "_path", "_seed")

    def __init__(self, seed: bytes) -> None:
        _check(seed, 0)
        self._seed = seed
        self._index = 0
        self._path: list[tuple[int, bytes]] = []  # (bit, hash after that bit), from high bits to low

    def __repr__(self) -> str:
        return "SecretGenerator(<secret>)"

    def secret(self, index: int) -> bytes:
        """The secret of ``index``; ``CryptoError`` if it is not in 0..FIRST_INDEX."""
        _check(self._seed, index)
        path = self._path
        changed = (self._index ^ index).bit_length()
        while path and path[-1][0] < changed:
            path.pop()
        value = path[-1][1] if path else self._seed
        for bit in range(changed - 1, -1, -1):
            if index >> bit & 1:
                flipped = bytearray(value)
                flipped[bit >> 3] ^= 1 << (bit & 7)
                value = sha256(flipped).digest()
                path.append((bit, value))
        self._index = index
        return value


class ShachainStore(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The secrets received from a peer, from which every earlier one can be derived: at most 49 of 32 bytes.

    Slot ``i`` holds the newest secret whose index ends in exactly ``i`` zero bits (slot 48: index 0). Secrets arrive in
    strict order, so the index of a slot follows from ``next_index`` and needs no storing.
    """

    next_index: int = FIRST_INDEX
    """The index of the secret to come; -1 when all are here."""
    secrets: tuple[bytes, ...] = ()

    def insert(self, index: int, secret: bytes) -> "ShachainStore":
        """The store with one more secret.

        ``RuleViolation`` C-089 if earlier secrets do not follow from this one; ``CryptoError`` if it is not the turn
        of ``index`` (our own mistake: the index is never on the wire).
        """
        _check(secret, index)
        if index != self.next_index:
            raise CryptoError(f"per-commitment secrets come in order: expected index {self.next_index}, got {index}")
        slot = _trailing_zeros(index)
        if C_110.enabled:
            for lower in range(slot):
                known = derive_secret(secret, slot, index + (1 << lower))
                require(known == self.secrets[lower], C_089, "secret does not fit the earlier ones", index=index)
        return ShachainStore(next_index=index - 1, secrets=(*self.secrets[:slot], secret, *self.secrets[slot + 1 :]))

    def lookup(self, index: int) -> bytes:
        """The secret of an index received before; ``CryptoError`` if it was not."""
        if not self.next_index < index <= FIRST_INDEX:
            raise CryptoError(f"per-commitment secret {index} was not received yet")
        newest = self.next_index + 1
        for slot, secret in enumerate(self.secrets):
            start = index >> slot << slot
            if _trailing_zeros(start) == slot and 0 <= start - newest < 2 << slot:  # the one index this slot holds
                return derive_secret(secret, slot, index)
        raise CryptoError(f"no stored secret leads to index {index}")
