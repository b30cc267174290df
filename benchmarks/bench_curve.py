"""The curve: sign, verify, ECDH, keys through leyden.crypto, against raw cffi calls and coincurve's objects.

Raw calls reuse their buffers and check nothing. Targets: 1.05 of raw for each operation; the key set of a commitment
1.15 of the raw operations it consists of.
"""

import coincurve
from leyden.commitment import CommitmentKeys, KnownSecrets
from leyden.crypto import (
    ecdh,
    ecdsa_sign,
    parse_point,
    parse_point_uncached,
    point_tweak_add_parsed,
    pubkey_create,
    sha256,
    sig_to_der,
    verify_parsed,
)

from benchmarks import raw_curve as raw
from benchmarks.commitment_channel import COMMITMENT_SECRET, KNOWN_TO_OTHER, KNOWN_TO_OWNER, OTHER, OWNER, POINT
from benchmarks.harness import Bench, Contender, timer

SECRET = OTHER.secrets["htlc"]
DIGEST = sha256(b"benchmark digest")
RAW, OBJECTS = "raw cffi", "coincurve objects"


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-core", "coincurve", "cffi")
    key, peer_key = pubkey_create(SECRET), OWNER.keys.htlc_basepoint
    parsed, raw_key, raw_peer = parse_point(key), raw.parse(key), raw.parse(peer_key)
    parsed_peer = parse_point(peer_key)
    signature = ecdsa_sign(SECRET, DIGEST)
    der = sig_to_der(signature)
    private, public = coincurve.PrivateKey(SECRET), coincurve.PublicKey(key)
    peer_public = coincurve.PublicKey(peer_key)

    bench.same("signature", signature, raw.sign(SECRET, DIGEST))
    bench.same("DER signature", der, private.sign(DIGEST, hasher=None))
    bench.same("verdict", True, raw.verify(raw_key, DIGEST, signature) and public.verify(der, DIGEST, hasher=None))
    bench.same("shared secret", ecdh(SECRET, peer_key), raw.ecdh(SECRET, raw_peer))
    bench.same("shared secret of the object", ecdh(SECRET, peer_key), private.ecdh(peer_key))
    bench.same("public key", key, raw.create(SECRET))
    tweaked = point_tweak_add_parsed(parsed_peer, DIGEST).data
    bench.same("tweaked key", tweaked, raw.create_and_add(DIGEST, raw_peer))
    bench.same("tweaked key of the object", tweaked, peer_public.add(DIGEST).format())

    def row(label: str, ours: Contender, bare: Contender, objects: Contender) -> None:
        bench.compare(label, ours, {RAW: bare, OBJECTS: objects}, targets={RAW: 1.05})

    row(
        "sign",
        timer(lambda: ecdsa_sign(SECRET, DIGEST)),
        timer(lambda: raw.sign(SECRET, DIGEST)),
        timer(lambda: private.sign(DIGEST, hasher=None)),
    )
    row(
        "verify, key parsed",
        timer(lambda: verify_parsed(parsed, DIGEST, signature)),
        timer(lambda: raw.verify(raw_key, DIGEST, signature)),
        timer(lambda: public.verify(der, DIGEST, hasher=None)),
    )
    row(
        "ECDH",
        timer(lambda: ecdh(SECRET, peer_key)),
        timer(lambda: raw.ecdh(SECRET, raw_peer)),
        timer(lambda: private.ecdh(peer_key)),
    )
    row(
        "create public key",
        timer(lambda: pubkey_create(SECRET)),
        timer(lambda: raw.create(SECRET)),
        timer(lambda: coincurve.PublicKey.from_secret(SECRET).format()),
    )
    bench.compare(
        "tweak-add public key",
        timer(lambda: point_tweak_add_parsed(parsed_peer, DIGEST).data),
        {
            RAW: timer(lambda: raw.create_and_add(DIGEST, raw_peer)),
            OBJECTS: timer(lambda: peer_public.add(DIGEST).format()),
        },
    )
    bench.compare(
        "parse public key",
        timer(lambda: parse_point_uncached(peer_key)),
        {RAW: timer(lambda: raw.parse(peer_key)), OBJECTS: timer(lambda: coincurve.PublicKey(peer_key))},
    )
    _key_sets(bench)


def _key_sets(bench: Bench) -> None:
    """The four keys of a commitment with HTLCs, from what each role knows."""
    raw_point, raw_revocation = raw.parse(POINT), raw.parse(OTHER.keys.revocation_basepoint)
    raw_delayed = raw.parse(OWNER.keys.delayed_payment_basepoint)
    raw_owner_htlc, raw_other_htlc = raw.parse(OWNER.keys.htlc_basepoint), raw.parse(OTHER.keys.htlc_basepoint)

    def derive(known: KnownSecrets | None) -> CommitmentKeys:
        keys = CommitmentKeys(OWNER.keys, OTHER.keys, POINT)
        keys.prepare(known)
        return keys

    def peers_commitment() -> None:
        raw.parse(POINT)
        raw.create_and_add_multiple(SECRET, raw_point, DIGEST)
        raw.create_and_add(SECRET, raw_delayed)
        raw.create_and_add(SECRET, raw_owner_htlc)
        raw.create(SECRET)

    def own_commitment() -> None:
        raw.parse(POINT)
        raw.create_and_add_multiple(COMMITMENT_SECRET, raw_revocation, DIGEST)
        raw.create(SECRET)
        raw.create(SECRET)
        raw.create_and_add(SECRET, raw_other_htlc)

    by_name = {name: derive(known) for name, known in (("p", KNOWN_TO_OTHER), ("o", KNOWN_TO_OWNER), ("n", None))}
    for name in "op":
        for field in ("revocation_pubkey", "owner_delayed_pubkey", "owner_htlc_pubkey", "other_htlc_pubkey"):
            bench.same(field, getattr(by_name["n"], field), getattr(by_name[name], field))
    bench.compare(
        "key set, peer's commitment",
        timer(lambda: derive(KNOWN_TO_OTHER)),
        {"sum of raw calls": timer(peers_commitment)},
        targets={"sum of raw calls": 1.15},
    )
    bench.compare(
        "key set, own commitment",
        timer(lambda: derive(KNOWN_TO_OWNER)),
        {"sum of raw calls": timer(own_commitment)},
        targets={"sum of raw calls": 1.15},
    )
    bench.compare("key set from public keys only", timer(lambda: derive(None)), {})
