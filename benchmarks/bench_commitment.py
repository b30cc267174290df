"""Commitments: derive keys, build and sign, then verify; 0 to 966 HTLCs, anchors; against lnprototest and raw C calls.

``sum of raw calls`` is the same number of secp256k1 operations straight through cffi and nothing else: no transaction,
no script, no hash. Targets: a tenth of lnprototest, at most a quarter of the signing time for everything that is not
the curve, linear growth of at most 33 us per HTLC, 2 KiB per live HTLC.
"""

import gc
import tracemalloc
from contextlib import ExitStack

from leyden.commitment import Htlc, derive_private_key, make_commitment, verify_commitment_signatures
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
from benchmarks.peer import Peer

PEER = "lnprototest"
RAW = "sum of raw calls"
HTLC_SECRET = derive_private_key(OTHER.secrets["htlc"], POINT)
PEER_MAX_HTLCS = 100


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-core", "coincurve", "msgspec")
    counts = (0, 1, 10, 100, 483) if bench.quick else (0, 1, 10, 100, 483, 966)
    signing: dict[int, float] = {}
    with ExitStack() as stack:
        peer = Peer.find(PEER, "lnprototest_commitment.py")
        if peer is not None:
            stack.enter_context(peer)
            bench.versions |= {f"peer {name}": value for name, value in peer.versions().items()}
        for count in counts:
            signing[count] = _signing(bench, peer, count)
    for count in counts:
        _verifying(bench, count)
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


def _same_output(bench: Bench, peer: Peer, htlcs: tuple[Htlc, ...]) -> None:
    peer.ask(
        "load",
        owner=OWNER.hex(),
        other=OTHER.hex(),
        funding={"txid": TXID.hex(), "vout": 0, "sat": FUNDING_SAT},
        balances=BALANCES,
        feerate=FEERATE,
        number=NUMBER,
        delay=DELAY,
        dust_limit=DUST_LIMIT,
        htlcs=[(h.offered_by_owner, h.amount_msat, preimage(h.id).hex(), h.cltv_expiry) for h in htlcs],
    )
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
