"""BOLT 8: the handshake, and messages through the framing of both ends, key rotation included; against two peers."""

import tracemalloc
from collections.abc import Callable
from functools import partial

from leyden.crypto import ecdh, pubkey_create
from leyden.transport import InitiatorHandshake, ResponderHandshake, Session

from benchmarks.harness import Bench, Contender, timed, timer
from benchmarks.peer import Peer, started

LOCAL, REMOTE = b"\x11" * 32, b"\x21" * 32
EPHEMERAL, OTHER_EPHEMERAL = b"\x12" * 32, b"\x22" * 32
SIZES = {18: (0.7, 0.5), 1_400: (0.7, 0.5), 65_000: (0.95, 0.5)}
"""Bytes of a message, and the largest ratios to the times of pyln-proto and Electrum."""
COUNT = 500


def handshake() -> tuple[Session, Session]:
    local, remote = pubkey_create(LOCAL), pubkey_create(REMOTE)
    dialler, listener = InitiatorHandshake(local, remote, EPHEMERAL), ResponderHandshake(remote, OTHER_EPHEMERAL)
    point = listener.on_act_one(dialler.act_one())
    point = dialler.on_act_two(listener.act_two(ecdh(REMOTE, point)))
    listener.on_act_three(dialler.act_three(ecdh(LOCAL, point)))
    return dialler.session(), listener.session()


def exchange(size: int) -> Callable[[], None]:
    """``COUNT`` messages there; each is received as it was sent."""
    sender, receiver = handshake()
    body = bytes(size)

    def work() -> None:
        for _ in range(COUNT):
            receiver.feed(sender.encrypt(body))

    return work


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-core", "cryptography", "coincurve")
    sender, receiver = handshake()
    bench.same("message", [b"hello there"], receiver.feed(sender.encrypt(b"hello there")))
    found = {"pyln": Peer.find("pyln", "pyln_proto.py"), "electrum": Peer.find_electrum("electrum_functions.py")}
    with started(bench, found) as peers:
        theirs: dict[str, Contender | None] = {
            name: peer.contender("time_handshake", repeat=3) if peer else None for name, peer in peers.items()
        }
        bench.compare("handshake, both ends", timer(handshake), theirs, targets={"pyln": 0.6, "electrum": 0.7})
        for size, targets in SIZES.items():
            theirs = {
                name: peer.contender("time_messages", size=size, count=COUNT, repeat=1) if peer else None
                for name, peer in peers.items()
            }
            work = exchange(size)
            bench.compare(
                f"send and receive {size} bytes",
                partial(timed, work, COUNT),
                theirs,
                targets=dict(zip(peers, targets, strict=True)),
                rounds=5 if bench.quick else 15,
            )
    bench.limit("growth per message", "bytes", _growth(), 1.0, exact=True)


def _growth() -> float:
    """Memory that a session keeps per message, over many key rotations."""
    work = exchange(18)
    work()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    for _ in range(10):
        work()
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()
    package = [tracemalloc.Filter(True, "*/leyden/*")]
    statistics = after.filter_traces(package).compare_to(before.filter_traces(package), "lineno")
    return max(0.0, sum(entry.size_diff for entry in statistics) / (10 * COUNT))
