"""BOLT 4: building onions of 1, 5 and 20 hops, peeling one, failures there and back; against pyln-proto and Electrum.

Payloads have equal sizes, since pyln-proto builds wrong packets from unequal ones. It decodes no failures.
"""

from collections.abc import Callable, Mapping

from leyden.crypto import ecdh, parse_point, pubkey_create
from leyden.onion import (
    build_onion,
    decode_failure,
    make_failure,
    onion_ephemeral_key,
    peel_onion,
    wrap_failure,
)

from benchmarks import raw_curve as raw
from benchmarks.harness import Bench, Contender, timer
from benchmarks.peer import Peer, started

SESSION = b"\x41" * 32
SECRETS = [bytes([0x42 + hop]) * 32 for hop in range(20)]
KEYS = [pubkey_create(secret) for secret in SECRETS]
ASSOCIATED = b"\x42" * 32
PAYLOAD = bytes.fromhex("02020100040403000000")
"""Amount and expiry, as every hop's payload has them."""
BUILD = {"pyln": 0.25, "electrum": 0.35}
FAILURE = {1: 0.45, 5: 0.25, 20: 0.1}
"""By hops, to Electrum, which derives the secrets again."""
PEEL_TARGET = 0.5


def build(hops: int) -> tuple[bytes, tuple[bytes, ...]]:
    return build_onion(SESSION, [(key, PAYLOAD) for key in KEYS[:hops]], ASSOCIATED)


def peel(packet: bytes) -> bytes:
    return peel_onion(packet, ASSOCIATED, ecdh(SECRETS[0], onion_ephemeral_key(packet))).payload


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-core", "coincurve", "cryptography")
    found = {"pyln": Peer.find("pyln", "pyln_proto.py"), "electrum": Peer.find_electrum("electrum_functions.py")}
    with started(bench, found) as peers:
        for hops in (1, 5, 20):
            _build(bench, peers, hops)
        for name, hops in (("final", 1), ("forward", 5)):
            packet, _ = build(hops)
            theirs = {
                other: peer.contender("time_peel", packet=packet.hex(), repeat=10) if peer else None
                for other, peer in peers.items()
            }
            bench.compare(f"peel, {name}", timer(_fresh(packet)), theirs, targets=dict.fromkeys(peers, PEEL_TARGET))
        for hops in (1, 5, 20):
            _failure(bench, peers["electrum"], hops)


def _build(bench: Bench, peers: Mapping[str, Peer | None], hops: int) -> None:
    theirs: dict[str, Contender | None] = {}
    for name, peer in peers.items():
        if name == "pyln" and hops == 20:  # it refuses that many payloads
            continue
        theirs[name] = None
        if peer is not None:
            packet = peer.ask("packet", hops=hops, payload=PAYLOAD.hex())
            bench.same(f"packet of {hops} hops", build(hops)[0].hex(), packet)
            repeat = max(1, 10 // hops)
            theirs[name] = peer.contender("time_build", hops=hops, payload=PAYLOAD.hex(), repeat=repeat)
    bench.compare(f"build {hops} hops", timer(lambda: build(hops)), {**theirs, "raw curve": _raw(hops)}, targets=BUILD)


def _fresh(packet: bytes) -> Callable[[], bytes]:
    """As on arrival: the packet's key was never seen before."""

    def work() -> bytes:
        parse_point.cache_clear()  # type: ignore[attr-defined]  # its declared type does not show the cache
        return peel(packet)

    return work


def _raw(hops: int) -> Contender:
    """The curve operations alone that a packet of so many hops needs."""
    parsed = [raw.parse(key) for key in KEYS[:hops]]

    def work() -> None:
        for key in parsed:
            raw.create(SESSION)
            raw.ecdh(SESSION, key)

    return timer(work)


def _failure(bench: Bench, electrum: Peer | None, hops: int) -> None:
    """The erring hop is the last of ``hops``; the origin decodes in 27 rounds whatever the length."""
    _, secrets = build(hops)
    packet = make_failure(secrets[-1], b"\x20\x02")
    for secret in reversed(secrets[:-1]):
        packet = wrap_failure(secret, packet)
    bench.same("failure", (hops - 1, b"\x20\x02"), decode_failure(secrets, packet))
    theirs = None
    if electrum is not None:
        bench.same("failure", [hops - 1, "2002"], electrum.ask("failure", packet=packet.hex(), hops=hops))
        theirs = electrum.contender("time_failure", packet=packet.hex(), hops=hops, repeat=3)
    bench.compare(
        f"decode a failure over {hops} hops",
        timer(lambda: decode_failure(secrets, packet)),
        {"electrum": theirs},
        targets={"electrum": FAILURE[hops]},
    )
