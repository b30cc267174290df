"""A channel with known secrets on both sides, for tests of commitments."""

from leyden.commitment import ChannelKeys, CommitmentParams, Htlc, derive_private_key
from leyden.crypto import pubkey_create, sha256
from leyden.types import BlockHeight, CltvDelta, Msat, OutPoint, Sat, Txid

FUNDING_SAT = Sat(10_000_000)


class Secrets:
    """All secrets of one side."""

    def __init__(self, name: str) -> None:
        self.funding, self.revocation, self.payment, self.delayed, self.htlc, self.commitment = (
            sha256(f"{name} {key}".encode())
            for key in ("funding", "revocation", "payment", "delayed", "htlc", "commitment")
        )
        self.keys = ChannelKeys(
            funding_pubkey=pubkey_create(self.funding),
            revocation_basepoint=pubkey_create(self.revocation),
            payment_basepoint=pubkey_create(self.payment),
            delayed_payment_basepoint=pubkey_create(self.delayed),
            htlc_basepoint=pubkey_create(self.htlc),
        )
        self.point = pubkey_create(self.commitment)

    def htlc_at(self, point: bytes) -> bytes:
        return derive_private_key(self.htlc, point)


OWNER, OTHER = Secrets("owner"), Secrets("other")
POINT = OWNER.point


def make_params(
    *,
    anchors: bool = True,
    owner_is_funder: bool = True,
    dust_limit: int = 354,
    delay: int = 144,
    zero_fee: bool = False,
) -> CommitmentParams:
    return CommitmentParams(
        anchors=anchors,
        funding_outpoint=OutPoint(Txid(sha256(b"funding")), 1),
        funding_value=FUNDING_SAT,
        owner_keys=OWNER.keys,
        other_keys=OTHER.keys,
        owner_is_funder=owner_is_funder,
        to_self_delay=CltvDelta(delay),
        owner_dust_limit=Sat(dust_limit),
        zero_fee=zero_fee,
    )


def preimage(id: int) -> bytes:
    return sha256(b"preimage %d" % id)


def make_htlc(id: int, *, offered: bool, amount_msat: int = 50_000_000, expiry: int = 700_000) -> Htlc:
    return Htlc(
        offered_by_owner=offered,
        amount_msat=Msat(amount_msat),
        payment_hash=sha256(preimage(id)),
        cltv_expiry=BlockHeight(expiry),
        id=id,
    )
