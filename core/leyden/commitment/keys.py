"""Keys of one commitment: derivation from basepoints and the per-commitment point (BOLT 3, key derivation)."""

from functools import lru_cache

import msgspec

from leyden.crypto import (
    ParsedPoint,
    parse_point,
    parse_point_uncached,
    point_add_parsed,
    point_tweak_add_parsed,
    point_tweak_mul_parsed,
    pubkey_create,
    pubkey_create_parsed,
    secret_add,
    secret_mul,
    sha256,
)
from leyden.types.rules import C_109


class ChannelKeys(msgspec.Struct, frozen=True, kw_only=True, gc=False, cache_hash=True):
    """The public keys that one side contributes to a channel; 33 bytes each."""

    funding_pubkey: bytes
    revocation_basepoint: bytes
    payment_basepoint: bytes
    delayed_payment_basepoint: bytes
    htlc_basepoint: bytes


class KnownSecrets(msgspec.Struct, frozen=True, kw_only=True, gc=False, repr_omit_defaults=True):
    """Secrets that a signer holds and that make derivation cheaper; the keys are the same without them.

    On our own commitment we know ``per_commitment_secret`` and our delayed and HTLC base secrets; on the peer's we know
    our revocation and HTLC base secrets.
    """

    per_commitment_secret: bytes | None = None
    owner_delayed_base_secret: bytes | None = None
    owner_htlc_base_secret: bytes | None = None
    other_revocation_base_secret: bytes | None = None
    other_htlc_base_secret: bytes | None = None

    def __repr__(self) -> str:
        return "KnownSecrets(...)"


def _tweak(point: bytes, basepoint: bytes) -> bytes:
    return sha256(point + basepoint) if C_109.enabled else sha256(basepoint)


def _public_key(basepoint: ParsedPoint, point: ParsedPoint) -> ParsedPoint:
    return point_tweak_add_parsed(basepoint, _tweak(point.data, basepoint.data))


def _own_public_key(base_secret: bytes, basepoint: bytes, point: ParsedPoint) -> ParsedPoint:
    return pubkey_create_parsed(secret_add(base_secret, _tweak(point.data, basepoint)))


def _revocation_key(basepoint: ParsedPoint, point: ParsedPoint, known: KnownSecrets | None = None) -> ParsedPoint:
    base_tweak, point_tweak = _tweak(basepoint.data, point.data), _tweak(point.data, basepoint.data)
    if known is not None and known.other_revocation_base_secret is not None:
        base_term = pubkey_create_parsed(secret_mul(known.other_revocation_base_secret, base_tweak))
    else:
        base_term = point_tweak_mul_parsed(basepoint, base_tweak)
    if known is not None and known.per_commitment_secret is not None:
        point_term = pubkey_create_parsed(secret_mul(known.per_commitment_secret, point_tweak))
    else:
        point_term = point_tweak_mul_parsed(point, point_tweak)
    return point_add_parsed(base_term, point_term)


def derive_public_key(basepoint: bytes, per_commitment_point: bytes) -> bytes:
    """basepoint + sha256(point || basepoint) * G: the HTLC and delayed keys of a commitment."""
    return _public_key(parse_point(basepoint), parse_point(per_commitment_point)).data


def derive_private_key(base_secret: bytes, per_commitment_point: bytes, *, basepoint: bytes | None = None) -> bytes:
    """The secret of ``derive_public_key``; pass ``basepoint`` when it is known, which saves computing it."""
    return secret_add(base_secret, _tweak(per_commitment_point, basepoint or pubkey_create(base_secret)))


def derive_revocation_public_key(revocation_basepoint: bytes, per_commitment_point: bytes) -> bytes:
    """The penalty key: nobody knows its secret until the per-commitment secret is released."""
    return _revocation_key(parse_point(revocation_basepoint), parse_point(per_commitment_point)).data


def derive_revocation_private_key(
    revocation_base_secret: bytes,
    per_commitment_secret: bytes,
    *,
    revocation_basepoint: bytes | None = None,
    per_commitment_point: bytes | None = None,
) -> bytes:
    """The secret of ``derive_revocation_public_key``, from both base secret and released per-commitment secret."""
    basepoint = revocation_basepoint or pubkey_create(revocation_base_secret)
    point = per_commitment_point or pubkey_create(per_commitment_secret)
    return secret_add(
        secret_mul(revocation_base_secret, _tweak(basepoint, point)),
        secret_mul(per_commitment_secret, _tweak(point, basepoint)),
    )


class CommitmentKeys:
    """The keys of one commitment, derived when first asked for (HTLC keys only if there is an HTLC output).

    Public keys only, a pure function of its three arguments: a cache and not a value of the state.
    """

    __slots__ = ("_delayed", "_other_htlc", "_owner_htlc", "_point", "_revocation", "other_keys", "owner_keys", "point")

    def __init__(self, owner_keys: ChannelKeys, other_keys: ChannelKeys, point: bytes) -> None:
        self.owner_keys = owner_keys
        self.other_keys = other_keys
        self.point = point
        self._point = parse_point_uncached(point)
        self._revocation: ParsedPoint | None = None
        self._delayed: ParsedPoint | None = None
        self._owner_htlc: ParsedPoint | None = None
        self._other_htlc: ParsedPoint | None = None

    @property
    def revocation_pubkey(self) -> bytes:
        """Penalises the owner once this commitment is revoked."""
        if self._revocation is None:
            self._revocation = _revocation_key(parse_point(self.other_keys.revocation_basepoint), self._point)
        return self._revocation.data

    @property
    def owner_delayed_pubkey(self) -> bytes:
        if self._delayed is None:
            self._delayed = _public_key(parse_point(self.owner_keys.delayed_payment_basepoint), self._point)
        return self._delayed.data

    @property
    def owner_htlc_pubkey(self) -> bytes:
        if self._owner_htlc is None:
            self._owner_htlc = _public_key(parse_point(self.owner_keys.htlc_basepoint), self._point)
        return self._owner_htlc.data

    @property
    def other_htlc_pubkey(self) -> bytes:
        return self.other_htlc_point.data

    @property
    def other_htlc_point(self) -> ParsedPoint:
        """``other_htlc_pubkey`` ready for verifying the counterparty's HTLC signatures."""
        if self._other_htlc is None:
            self._other_htlc = _public_key(parse_point(self.other_keys.htlc_basepoint), self._point)
        return self._other_htlc

    def prepare(self, known: KnownSecrets | None = None, *, with_htlcs: bool = True) -> None:
        """Derive now, the cheap way where a secret is known. The secrets are not kept."""
        known = known or _NOTHING
        owner, other, point = self.owner_keys, self.other_keys, self._point
        if self._revocation is None:
            self._revocation = _revocation_key(parse_point(other.revocation_basepoint), point, known)
        if self._delayed is None:
            self._delayed = _key(known.owner_delayed_base_secret, owner.delayed_payment_basepoint, point)
        if with_htlcs and self._owner_htlc is None:
            self._owner_htlc = _key(known.owner_htlc_base_secret, owner.htlc_basepoint, point)
        if with_htlcs and self._other_htlc is None:
            self._other_htlc = _key(known.other_htlc_base_secret, other.htlc_basepoint, point)


_NOTHING = KnownSecrets()


def _key(base_secret: bytes | None, basepoint: bytes, point: ParsedPoint) -> ParsedPoint:
    if base_secret is None:
        return _public_key(parse_point(basepoint), point)
    return _own_public_key(base_secret, basepoint, point)


@lru_cache(maxsize=1024)
def commitment_keys(owner_keys: ChannelKeys, other_keys: ChannelKeys, point: bytes) -> CommitmentKeys:
    """The shared, bounded cache of key sets: the channel machine and a signer in the same process derive once."""
    return CommitmentKeys(owner_keys, other_keys, point)
