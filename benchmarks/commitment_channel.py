"""The channel that the benchmarks of commitments build: fixed secrets, anchors, HTLCs both ways."""

from hashlib import sha256

from leyden.commitment import ChannelKeys, Commitment, CommitmentParams, Htlc, KnownSecrets, make_commitment
from leyden.commitment.keys import commitment_keys
from leyden.crypto import FIRST_INDEX, commitment_secret, ecdsa_sign, pubkey_create
from leyden.types import BlockHeight, CltvDelta, FeeRatePerKw, Msat, OutPoint, Sat, Txid

NUMBER = 7
DELAY = 144
DUST_LIMIT = 354
FUNDING_SAT = 100_000_000
# HTLC transactions are free with zero-fee anchors; at this rate they are in the older anchors format too, which
# lnprototest builds, and everything has to come out the same.
FEERATE = 0
TXID = sha256(b"benchmark funding").digest()


class Side:
    """One side's secrets and keys."""

    def __init__(self, name: str) -> None:
        self.secrets = {
            key: sha256(f"{name} {key}".encode()).digest()
            for key in ("funding", "revocation", "payment", "delayed", "htlc", "seed")
        }
        public = {key: pubkey_create(secret) for key, secret in self.secrets.items()}
        self.keys = ChannelKeys(
            funding_pubkey=public["funding"],
            revocation_basepoint=public["revocation"],
            payment_basepoint=public["payment"],
            delayed_payment_basepoint=public["delayed"],
            htlc_basepoint=public["htlc"],
        )

    def hex(self) -> dict[str, str]:
        return {key: secret.hex() for key, secret in self.secrets.items()}


OWNER, OTHER = Side("owner"), Side("other")
COMMITMENT_SECRET = commitment_secret(OWNER.secrets["seed"], FIRST_INDEX - NUMBER)
POINT = pubkey_create(COMMITMENT_SECRET)
PARAMS = CommitmentParams(
    anchors=True,
    funding_outpoint=OutPoint(Txid(TXID), 0),
    funding_value=Sat(FUNDING_SAT),
    owner_keys=OWNER.keys,
    other_keys=OTHER.keys,
    owner_is_funder=True,
    to_self_delay=CltvDelta(DELAY),
    owner_dust_limit=Sat(DUST_LIMIT),
)
BALANCES = Msat(20_000_000_000), Msat(10_000_000_000)
KNOWN_TO_OTHER = KnownSecrets(
    other_revocation_base_secret=OTHER.secrets["revocation"], other_htlc_base_secret=OTHER.secrets["htlc"]
)
"""What the counterparty, who signs the owner's commitment, contributes to its derivation."""
KNOWN_TO_OWNER = KnownSecrets(
    per_commitment_secret=COMMITMENT_SECRET,
    owner_delayed_base_secret=OWNER.secrets["delayed"],
    owner_htlc_base_secret=OWNER.secrets["htlc"],
)


def preimage(id: int) -> bytes:
    return sha256(b"benchmark preimage %d" % id).digest()


def make_htlcs(count: int) -> tuple[Htlc, ...]:
    """Half of them offered; no two alike."""
    return tuple(
        Htlc(
            offered_by_owner=id % 2 == 0,
            amount_msat=Msat(1_000_000 + id * 7_919),
            payment_hash=sha256(preimage(id)).digest(),
            cltv_expiry=BlockHeight(700_000 + id % 144),
            id=id,
        )
        for id in range(count)
    )


def build(htlcs: tuple[Htlc, ...], known: KnownSecrets | None = None, feerate: int = FEERATE) -> Commitment:
    """Derive the keys anew and build."""
    commitment_keys.cache_clear()
    keys = commitment_keys(PARAMS.owner_keys, PARAMS.other_keys, POINT)
    if known is not None:
        keys.prepare(known, with_htlcs=bool(htlcs))
    return make_commitment(PARAMS, NUMBER, POINT, *BALANCES, htlcs, FeeRatePerKw(feerate))


def sign(commitment: Commitment, htlc_secret: bytes) -> tuple[bytes, list[bytes]]:
    """What the counterparty's signer does with a commitment."""
    return (
        ecdsa_sign(OTHER.secrets["funding"], commitment.sighash),
        [ecdsa_sign(htlc_secret, entry.sighash) for entry in commitment.htlcs],
    )
