"""One payment through two sans-IO channels: add k, commit, fulfil k, commit; both sides, signer inline, no disk.

The time is CPU of both sides together per payment. Row changes are derived for every turn as a node does it, but not
written; messages are handed over as values. ``raw calls`` is what libsecp256k1 alone needs for the same work.
"""

import gc
import statistics
import tracemalloc
from collections import deque
from collections.abc import Coroutine
from functools import partial
from typing import Any

from leyden.bitcoin import Network
from leyden.channel import Channel, ChannelPolicy, Env, load, records, step
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.crypto import sha256
from leyden.node.host import run_inline
from leyden.testing.channel_pair import ChannelEnd, ChannelPair
from leyden.types import BlockHeight, Msat, PaymentHash, Preimage
from leyden_inmemory.manager import InMemoryKeyManager

from benchmarks import raw_curve as raw
from benchmarks.harness import Bench, Contender, timed, timer
from benchmarks.peer import Peer, started

ONION = bytes(1366)
AMOUNT = Msat(1_000_000)
BALANCE_SAT = 16_000_000
COUNTS = (1, 10, 100, 483)
TURN_ENDED = ev.TurnEnded()
RAW = "raw calls"
TARGETS_US = {1: 2_000, 10: 700, 100: 450, 483: 450}
"""Both sides, microseconds per payment."""
MEMORY_KIB = 8
ELECTRUM_TARGETS = {1: 0.15, 10: 0.15, 100: 0.15}
"""By payments in flight; at 483 it needs many seconds for one round."""


class Side:
    """One channel with its signer; ``sent`` waits for the other side."""

    def __init__(self, end: ChannelEnd, other_messages: deque[Any]) -> None:
        self.channel: Channel = end.channel
        self.stored = self.channel
        self.env: Env = end.env
        self.sent: deque[Any] = deque()
        self.incoming = other_messages
        self.delivered: list[fx.Delivery] = []
        signer = end.signer
        self.methods: dict[str, Any] = {
            "SignCounterpartyCommitment": signer.sign_counterparty_commitment,
            "ValidateHolderCommitment": signer.validate_holder_commitment,
            "ReleaseSecret": signer.release_secret,
            "ValidateCounterpartyRevocation": signer.validate_counterparty_revocation,
        }

    def do(self, event: ev.AnyInput) -> None:
        self.channel, effects = step(self.channel, event, self.env)
        for effect in effects:
            if isinstance(effect, fx.Send):
                self.sent.append(effect.message)
            elif isinstance(effect, fx.Sign):
                self.answer(effect.request)
            elif isinstance(effect, fx.Deliver):
                self.delivered.append(effect.delivery)

    def answer(self, request: Any) -> None:
        question: Coroutine[Any, Any, Any] = self.methods[type(request).__name__](request)
        self.do(ev.SignerAnswered(request_id=request.request_id, answer=run_inline(question)))

    def turn(self) -> int:
        """Take everything that arrived, end the turn, derive the rows."""
        count = len(self.incoming)
        while self.incoming:
            self.do(ev.MessageReceived(message=self.incoming.popleft()))
        self.do(TURN_ENDED)
        records(self.stored, self.channel)
        self.stored = self.channel
        return count


class Cycle:
    """Two open channels that pay each other back and forth."""

    def __init__(self) -> None:
        policy = ChannelPolicy(minimum_depth=1, max_accepted_htlcs=483)
        signers = [InMemoryKeyManager(bytes([n]) * 32, Network.REGTEST).channel_signer for n in (1, 2)]
        pair = ChannelPair(signers[0], signers[1], policy_a=policy, policy_b=policy)
        pair.open(BALANCE_SAT, BALANCE_SAT * 500)
        self.a = Side(pair.a, deque())
        self.b = Side(pair.b, self.a.sent)
        self.a.incoming = self.b.sent
        self.number = 0

    def settle(self) -> None:
        self.a.turn()
        while self.b.turn() or self.a.turn():
            pass

    def pay(self, count: int) -> None:
        """``count`` payments from one side to the other, in two rounds of commitments; direction alternates."""
        payer, payee = (self.a, self.b) if self.number % 2 == 0 else (self.b, self.a)
        self.number += 1
        preimages: dict[bytes, Preimage] = {}
        for index in range(count):
            preimage = Preimage(sha256(self.number.to_bytes(8, "big") + index.to_bytes(4, "big")))
            payment_hash = PaymentHash(sha256(preimage))
            preimages[payment_hash] = preimage
            payer.do(
                ev.AddHtlc(
                    amount_msat=AMOUNT,
                    payment_hash=payment_hash,
                    cltv_expiry=BlockHeight(700),
                    onion_routing_packet=ONION,
                )
            )
        self.settle()
        received, payee.delivered = payee.delivered, []
        for delivery in received:
            if isinstance(delivery, fx.HtlcReceived):
                payee.do(ev.FulfillHtlc(id=delivery.id, preimage=preimages[delivery.payment_hash]))
        self.settle()
        fulfilled, payer.delivered = payer.delivered, []
        if len(fulfilled) != count:
            raise SystemExit(f"channel_cycle: {len(fulfilled)} of {count} payments arrived")


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-core", "coincurve", "msgspec")
    for count in COUNTS:
        ours = partial(timed, partial(Cycle().pay, count), count, repeat=max(1, 20 // count))
        rounds = max(5, bench.rounds if count < 100 else bench.rounds // 3)
        label = f"payment, {count} in flight"
        median = bench.compare(label, ours, {RAW: _raw(count)}, rounds=rounds)["leyden"]
        bench.limit(label, "us, both sides", median, TARGETS_US[count])
    _against_electrum(bench)
    _flat(bench)
    bench.limit("memory of an idle channel", "KiB", _memory(), MEMORY_KIB, exact=True)


def _against_electrum(bench: Bench) -> None:
    """Two of its channels in its own process; no wire and no disk there either."""
    with started(bench, {"electrum": Peer.find_electrum("electrum_channel.py")}) as peers:
        peer = peers["electrum"]
        if peer is not None:
            peer.ask("open_pair")
        for count, target in ELECTRUM_TARGETS.items():
            theirs = peer.contender("time_pay", count=count, repeat=max(1, 5 // count)) if peer is not None else None
            ours = timer(partial(Cycle().pay, count), count)
            rounds = 3 if bench.quick else 7
            label = f"payment, {count} in flight"
            bench.compare(label, ours, {"electrum": theirs}, targets={"electrum": target}, rounds=rounds)


def _raw(count: int) -> Contender:
    """The same curve operations and nothing else. Each side, for each batch: signs and checks two commitments and one
    signature per HTLC, derives the keys of four commitments (two with HTLC keys), and revokes and is revoked twice."""
    secret, digest = bytes(31) + b"\7", sha256(b"digest")
    key = raw.create(secret)
    point = raw.parse(key)
    signature = raw.sign(secret, digest)

    def work() -> None:
        for _ in range(2):  # sides
            for _ in range(2 + count):
                raw.sign(secret, digest)
                raw.verify(point, digest, signature)
            for _ in range(4):
                raw.create_and_add_multiple(secret, point, secret)  # revocation key
                raw.create_and_add(secret, point)  # delayed key
            for _ in range(2):
                raw.create(secret)  # our HTLC key
                raw.create_and_add(secret, point)  # theirs
            for _ in range(2):
                raw.create(secret)  # next point
                raw.create(secret)  # is this secret that of the point?
                raw.parse(key)

    return timer(work, count, at_least=0.02)


def _flat(bench: Bench) -> None:
    """The cost of a payment may not depend on how many were made before."""
    cycle, chunk = Cycle(), 250 if bench.quick else 2_000
    for _ in range(50):
        cycle.pay(1)
    yardstick = _raw(1)  # a busy machine slows down both
    ratios: list[float] = []
    for _ in range(8):
        before = yardstick().cpu
        taken = timed(lambda: cycle.pay(1), repeat=chunk).cpu
        ratios.append(2 * taken / (before + yardstick().cpu))
    growth = statistics.median(ratios[4:]) / statistics.median(ratios[:4])
    bench.limit(f"the second {4 * chunk} payments against the first", "ratio", growth, 1.1)


def _memory() -> float:
    """KiB of Python objects that an idle channel keeps alive after a restart, without caches of keys in use."""
    cycle = Cycle()
    cycle.pay(10)
    rows = records(None, cycle.a.channel).puts
    load(rows)
    gc.collect()
    tracemalloc.start()
    kept = [load(rows) for _ in range(200)]
    gc.collect()
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / len(kept) / 1024
