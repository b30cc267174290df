"""Commitments: derive keys, build and sign, then verify; 0 to 966 HTLCs, anchors; against lnprototest and Electrum.

``sum of raw calls`` is the same number of secp256k1 operations straight through cffi and nothing else: no transaction,
no script, no hash. Electrum does more than is asked of it: it looks for signatures with a low R, checks each, and
derives its own point when it verifies. Targets: a tenth of lnprototest; of Electrum 0.15 of an empty commitment down to
0.04 at 100 HTLCs and more; at most a quarter of the signing time for everything that is not the curve, linear growth of
at most 33 us per HTLC, 2 KiB per live HTLC.
"""

import gc
import tracemalloc
from typing import Any

from leyden.commitment import (
    Commitment,
    Htlc,
    KnownSecrets,
    derive_private_key,
    make_commitment,
    verify_commitment_signatures,
)
from leyden.types import FeeRatePerKw

from benchmarks import raw_curve as raw
from benchmarks.commitment_channel import (
    BALANCES,
    DELAY,
    DUST_LIMIT,
    FEERATE,
    FUNDING_SAT,
    KNOWN_TO_OTHER,
    KNOWN_TO_OWNER,
    NUMBER,
    OTHER,
    OWNER,
    PARAMS,
    POINT,
    TXID,
    build,
    make_htlcs,
    preimage,
    sign,
)
from benchmarks.harness import Bench, Contender, timer
from benchmarks.peer import Peer, started

PEER = "lnprototest"
ELECTRUM = "electrum"
ELECTRUM_TARGETS = {0: 0.15, 1: 0.1, 10: 0.05, 100: 0.04, 483: 0.04}
ELECTRUM_FEERATE = 253
"""Without a fee it takes the other side for the funder."""
RAW = "sum of raw calls"
HTLC_SECRET = derive_private_key(OTHER.secrets["htlc"], POINT)
PEER_MAX_HTLCS = 100


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-core", "coincurve", "msgspec")
    counts = (0, 1, 10, 100, 483) if bench.quick else (0, 1, 10, 100, 483, 966)
    signing: dict[int, float] = {}
    found = {PEER: Peer.find(PEER, "lnprototest_commitment.py"), ELECTRUM: Peer.find_electrum("electrum_channel.py")}
    with started(bench, found) as peers:
        for count in counts:
            signing[count] = _signing(bench, peers[PEER], count)
            _verifying(bench, count)
            if count in ELECTRUM_TARGETS:
                _against_electrum(bench, peers[ELECTRUM], count)
    for count in (100, 483):
        _bytes_and_hashes(bench, count)
    most = counts[-1]
    for low, high in ((0, 483), (483, most)):
        if high > low:
            slope = (signing[high] - signing[low]) / (high - low)
            bench.limit(f"sign: growth from {low} to {high} HTLCs", "us per HTLC", slope, 33)
    bench.limit("memory of a built commitment", "KiB per HTLC", _memory(483), 2, exact=True)


def _signing(bench: Bench, peer: Peer | None, count: int) -> float:
    htlcs = make_htlcs(count)
    rounds = max(5, bench.rounds if count <= 10 else bench.rounds // 3)
    peers: dict[str, Contender | None] = {RAW: _raw_signing(count)}
    if count <= PEER_MAX_HTLCS:
        peers[PEER] = None
        if peer is not None:
            _same_output(bench, peer, htlcs)
            peers[PEER] = peer.contender("time", repeat=max(1, 20 // (1 + count)))

    def ours() -> None:
        sign(build(htlcs, KNOWN_TO_OTHER), HTLC_SECRET)

    targets = {PEER: 0.1} | ({RAW: 1.4} if count >= 10 else {})
    return bench.compare(f"sign {count}", timer(ours), peers, targets=targets, rounds=rounds)["leyden"]


def _against_electrum(bench: Bench, electrum: Peer | None, count: int) -> None:
    """Few rounds: it takes the better part of a second at 483."""
    htlcs = make_htlcs(count)
    signing: Contender | None = None
    verifying: Contender | None = None

    def commitment(known: KnownSecrets) -> Commitment:
        return build(htlcs, known, ELECTRUM_FEERATE)

    signed = sign(commitment(KNOWN_TO_OTHER), HTLC_SECRET)
    if electrum is not None:
        _same_for_electrum(bench, electrum, htlcs, commitment(KNOWN_TO_OWNER), signed)
        repeat = max(1, 5 // (1 + count))
        signing = electrum.contender("time", repeat=repeat)
        verifying = electrum.contender("time_verify", repeat=repeat)
    rounds = 3 if count > 100 or bench.quick else 11
    targets = {ELECTRUM: ELECTRUM_TARGETS[count]}
    bench.compare(
        f"sign {count}",
        timer(lambda: sign(commitment(KNOWN_TO_OTHER), HTLC_SECRET)),
        {ELECTRUM: signing},
        targets=targets,
        rounds=rounds,
    )
    bench.compare(
        f"verify {count}",
        timer(lambda: verify_commitment_signatures(PARAMS, commitment(KNOWN_TO_OWNER), *signed)),
        {ELECTRUM: verifying},
        targets=targets,
        rounds=rounds,
    )


def _same_for_electrum(
    bench: Bench, electrum: Peer, htlcs: tuple[Htlc, ...], commitment: Commitment, signed: tuple[bytes, list[bytes]]
) -> None:
    """One txid, and each accepts what the other signed: signatures differ, for Electrum looks for a low R."""
    electrum.ask("load", point=POINT.hex(), **as_peers_take_it(htlcs, TXID[::-1].hex(), ELECTRUM_FEERATE))
    output = electrum.ask("output")
    bench.same("txid", commitment.txid[::-1].hex(), output["txid"])
    theirs = [bytes.fromhex(entry) for entry in output["htlc_signatures"]]
    verify_commitment_signatures(PARAMS, commitment, bytes.fromhex(output["signature"]), theirs)
    signature, htlc_signatures = signed
    accepted = electrum.ask("accepts", signature=signature.hex(), htlc_signatures=[s.hex() for s in htlc_signatures])
    bench.same("Electrum's verdict of our signatures", True, accepted)


def as_peers_take_it(htlcs: tuple[Htlc, ...], txid: str, feerate: int) -> dict[str, Any]:
    return {
        "owner": OWNER.hex(),
        "other": OTHER.hex(),
        "funding": {"txid": txid, "vout": 0, "sat": FUNDING_SAT},
        "balances": BALANCES,
        "feerate": feerate,
        "number": NUMBER,
        "delay": DELAY,
        "dust_limit": DUST_LIMIT,
        "htlcs": [(h.offered_by_owner, h.amount_msat, preimage(h.id).hex(), h.cltv_expiry) for h in htlcs],
    }


def _same_output(bench: Bench, peer: Peer, htlcs: tuple[Htlc, ...]) -> None:
    peer.ask("load", **as_peers_take_it(htlcs, TXID.hex(), FEERATE))
    output = peer.ask("output")
    commitment = build(htlcs, KNOWN_TO_OTHER)
    signature, htlc_signatures = sign(commitment, HTLC_SECRET)
    bench.same("txid", commitment.txid.hex(), output["txid"])
    bench.same("commitment signature", signature.hex(), output["signature"])
    bench.same("HTLC signatures", [s.hex() for s in htlc_signatures], output["htlc_signatures"])


def _verifying(bench: Bench, count: int) -> None:
    htlcs = make_htlcs(count)
    signatures = sign(build(htlcs), HTLC_SECRET)

    def ours() -> None:
        verify_commitment_signatures(PARAMS, build(htlcs, KNOWN_TO_OWNER), *signatures)

    rounds = max(5, bench.rounds if count <= 10 else bench.rounds // 3)
    targets = {RAW: 1.4} if count >= 10 else {}
    bench.compare(f"verify {count}", timer(ours), {RAW: _raw_verifying(count)}, targets=targets, rounds=rounds)


def _bytes_and_hashes(bench: Bench, count: int) -> None:
    """Everything but the curve, as a share of the time to sign."""
    htlcs = make_htlcs(count)
    commitment = build(htlcs)

    def only_build() -> None:  # the keys are in the cache
        make_commitment(PARAMS, NUMBER, POINT, *BALANCES, htlcs, FeeRatePerKw(FEERATE))

    def only_sign() -> None:
        sign(commitment, HTLC_SECRET)

    bench.compare(
        f"bytes and hashes {count}",
        timer(only_build),
        {"signing": timer(only_sign)},
        targets={"signing": 0.25},
        rounds=max(5, bench.rounds // 2),
    )


def _raw_signing(count: int) -> Contender:
    point = raw.parse(POINT)
    delayed, htlc = raw.parse(OWNER.keys.delayed_payment_basepoint), raw.parse(OWNER.keys.htlc_basepoint)
    secret = OTHER.secrets["htlc"]

    def work() -> None:
        raw.parse(POINT)
        raw.create_and_add_multiple(secret, point, secret)  # revocation key
        raw.create_and_add(secret, delayed)
        if count:
            raw.create_and_add(secret, htlc)
            raw.create(secret)
        for _ in range(1 + count):
            raw.sign(secret, TXID)

    return timer(work)


def _raw_verifying(count: int) -> Contender:
    basepoint, htlc = raw.parse(OTHER.keys.revocation_basepoint), raw.parse(OTHER.keys.htlc_basepoint)
    secret = OTHER.secrets["htlc"]
    key, signature = raw.parse(raw.create(secret)), raw.sign(secret, TXID)

    def work() -> None:
        raw.parse(POINT)
        raw.create_and_add_multiple(secret, basepoint, secret)  # revocation key
        raw.create(secret)  # delayed
        if count:
            raw.create(secret)
            raw.create_and_add(secret, htlc)
        for _ in range(1 + count):
            raw.verify(key, TXID, signature)

    return timer(work)


def _memory(count: int) -> float:
    htlcs = make_htlcs(count)
    build(htlcs)
    gc.collect()
    tracemalloc.start()
    kept = build(htlcs)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / 1024 / len(kept.htlcs)
