"""BOLT 4: building onions of 1, 5 and 20 hops, peeling one, failures there and back; against pyln-proto.

Payloads have equal sizes, since pyln-proto builds wrong packets from unequal ones. It decodes no failures.
"""

from collections.abc import Callable
from contextlib import ExitStack

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
from benchmarks.peer import Peer

SESSION = b"\x41" * 32
SECRETS = [bytes([0x42 + hop]) * 32 for hop in range(20)]
KEYS = [pubkey_create(secret) for secret in SECRETS]
ASSOCIATED = b"\x42" * 32
PAYLOAD = bytes.fromhex("02020100040403000000")
"""Amount and expiry, as every hop's payload has them."""
BUILD_TARGET = 0.25
PEEL_TARGET = 0.5


def build(hops: int) -> tuple[bytes, tuple[bytes, ...]]:
    return build_onion(SESSION, [(key, PAYLOAD) for key in KEYS[:hops]], ASSOCIATED)


def peel(packet: bytes) -> bytes:
    return peel_onion(packet, ASSOCIATED, ecdh(SECRETS[0], onion_ephemeral_key(packet))).payload


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-core", "coincurve", "cryptography")
    with ExitStack() as stack:
        peer = Peer.find("pyln", "pyln_proto.py")
        if peer is not None:
            stack.enter_context(peer)
            bench.versions |= {f"peer {name}": value for name, value in peer.versions().items()}
        for hops in (1, 5, 20):
            _build(bench, peer, hops)
        for name, hops in (("final", 1), ("forward", 5)):
            packet, _ = build(hops)
            theirs = peer.contender("time_peel", packet=packet.hex(), repeat=10) if peer else None
            bench.compare(f"peel, {name}", timer(_fresh(packet)), {"pyln": theirs}, targets={"pyln": PEEL_TARGET})
    for hops in (1, 5, 20):
        _failure(bench, hops)


def _build(bench: Bench, peer: Peer | None, hops: int) -> None:
    theirs: Contender | None = None
    if peer is not None and hops < 20:  # pyln-proto refuses that many payloads
        bench.same(f"packet of {hops} hops", build(hops)[0].hex(), peer.ask("packet", hops=hops, payload=PAYLOAD.hex()))
        theirs = peer.contender("time_build", hops=hops, payload=PAYLOAD.hex(), repeat=max(1, 10 // hops))
    peers: dict[str, Contender | None] = {"pyln": theirs} if hops < 20 else {}
    bench.compare(
        f"build {hops} hops",
        timer(lambda: build(hops)),
        {**peers, "raw curve": _raw(hops)},
        targets={"pyln": BUILD_TARGET},
    )


def _fresh(packet: bytes) -> Callable[[], bytes]:
    """As on arrival: the packet's key was never seen before."""

    def work() -> bytes:
        parse_point.cache_clear()  # type: ignore[attr-defined]
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


def _failure(bench: Bench, hops: int) -> None:
    """The erring hop is the last of ``hops``; the origin decodes in 27 rounds whatever the length."""
    _, secrets = build(hops)
    packet = make_failure(secrets[-1], b"\x20\x02")
    for secret in reversed(secrets[:-1]):
        packet = wrap_failure(secret, packet)
    bench.same("failure", (hops - 1, b"\x20\x02"), decode_failure(secrets, packet))
    bench.compare(f"decode a failure over {hops} hops", timer(lambda: decode_failure(secrets, packet)), {})
