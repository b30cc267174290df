"""What a commitment is made of: the facts that never change, and the HTLCs that do."""

from functools import lru_cache
from struct import Struct as Packer

import msgspec

from leyden.bitcoin import TxOut, funding_script, p2wsh
from leyden.commitment.keys import ChannelKeys, CommitmentKeys, KnownSecrets, commitment_keys
from leyden.commitment.scripts import anchor_script, to_remote_output_script
from leyden.crypto import sha256, sha256d
from leyden.types import BlockHeight, CltvDelta, LeydenError, Msat, OutPoint, Sat
from leyden.types.rules import C_103

MAX_COMMITMENT_NUMBER = (1 << 48) - 1

pack_u32 = Packer("<I").pack
pack_i64 = Packer("<q").pack


class CommitmentError(LeydenError):
    """A transaction was asked for that cannot exist: our own mistake, never a peer's."""


class Htlc(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An HTLC seen from the owner of the commitment it stands in."""

    offered_by_owner: bool
    amount_msat: Msat
    payment_hash: bytes
    cltv_expiry: BlockHeight
    id: int


class CommitmentParams(msgspec.Struct, frozen=True, kw_only=True, cache_hash=True):
    """The static facts of the commitments of one owner of one funding.

    A channel has two for each funding: the owner is us in one and the peer in the other. ``owner_is_funder`` tells who
    opened the channel and so pays fees. ``to_self_delay`` is what the other side imposes on the owner and
    ``owner_dust_limit`` is the owner's.

    The channel type decides the format: ``anchors`` for two keyed anchors, ``zero_fee`` for zero-fee commitments with
    one shared anchor, neither for static_remotekey. ``CommitmentError`` if both are set.
    """

    anchors: bool
    funding_outpoint: OutPoint
    funding_value: Sat
    owner_keys: ChannelKeys
    other_keys: ChannelKeys
    owner_is_funder: bool
    to_self_delay: CltvDelta
    owner_dust_limit: Sat
    zero_fee: bool = False

    def __post_init__(self) -> None:
        if self.anchors and self.zero_fee:
            raise CommitmentError("zero-fee commitments have no keyed anchors")


class Statics:
    """Bytes that every commitment of a ``CommitmentParams`` shares; a cache outside the value."""

    __slots__ = (
        "funding_script",
        "funding_script_code",
        "hash_prevouts",
        "obscure_factor",
        "other_anchor",
        "outpoint",
        "owner_anchor",
        "to_remote",
    )

    def __init__(self, params: CommitmentParams) -> None:
        owner, other = params.owner_keys, params.other_keys
        self.obscure_factor = obscure_factor(params)
        self.outpoint = params.funding_outpoint.txid + pack_u32(params.funding_outpoint.vout)
        self.hash_prevouts = sha256d(self.outpoint)
        script = funding_script(owner.funding_pubkey, other.funding_pubkey)
        self.funding_script = script
        self.funding_script_code = bytes((len(script),)) + script + pack_i64(params.funding_value)
        self.to_remote = to_remote_output_script(other.payment_basepoint, params.anchors and C_103.enabled)
        self.owner_anchor = p2wsh(anchor_script(owner.funding_pubkey))
        self.other_anchor = p2wsh(anchor_script(other.funding_pubkey))


@lru_cache(maxsize=2048)
def statics(params: CommitmentParams) -> Statics:
    """Cached per channel, owner and funding."""
    return Statics(params)


def obscure_factor(params: CommitmentParams) -> int:
    """The 48-bit mask of the commitment number: opener's payment basepoint, then accepter's (BOLT 3)."""
    opener, accepter = params.owner_keys, params.other_keys
    if not params.owner_is_funder:
        opener, accepter = accepter, opener
    return int.from_bytes(sha256(opener.payment_basepoint + accepter.payment_basepoint)[26:], "big")


def funding_output(params: CommitmentParams) -> TxOut:
    """The output that every commitment and close spends."""
    return TxOut(value=params.funding_value, script=p2wsh(statics(params).funding_script))


def commitment_number(params: CommitmentParams, sequence: int, locktime: int) -> int:
    """Read the number (counting up from 0) back from a commitment transaction's input sequence and locktime."""
    return ((sequence & 0xFFFFFF) << 24 | locktime & 0xFFFFFF) ^ statics(params).obscure_factor


def derive_keys(
    params: CommitmentParams, per_commitment_point: bytes, known: KnownSecrets | None = None, *, with_htlcs: bool = True
) -> CommitmentKeys:
    """The key set of the owner's commitment at a point, from a bounded cache.

    With ``known`` secrets (a signer has some) the keys are derived at once and cheaper; otherwise when first used.
    Call it ahead of time for the next point to take derivation out of the critical path.
    """
    keys = commitment_keys(params.owner_keys, params.other_keys, per_commitment_point)
    if known is not None:
        keys.prepare(known, with_htlcs=with_htlcs)
    return keys
