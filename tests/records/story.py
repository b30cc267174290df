"""Where the samples come from: rows that nodes and channels wrote while something happened to them."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leyden.bitcoin import Network
from leyden.channel import ChannelPolicy
from leyden.channel import events as ev
from leyden.crypto import sha256
from leyden.hooks.types import Alarm, AlarmCleared, OpenFailed
from leyden.testing.channel_pair import ChannelEnd, ChannelPair
from leyden.testing.memory_store import CommitMoment, MemoryStore
from leyden.testing.simulation import SimNode, Simulation
from leyden.testing.story import Plan, Story
from leyden.types import BlockHeight, ChannelId, FeeRatePerKw, Msat, NodeId, PaymentHash, Preimage, Sat
from leyden_inmemory.manager import InMemoryKeyManager

from tests.scenario.send_kit import broadcast_payment, sign_payment
from tests.scenario.sim_kit import CAPACITY, PUSH, fund, start_opening

Note = Callable[[bytes, bytes], None]


def tell_all(note: Note) -> None:
    """``note`` gets every row that is written, in order."""
    with tempfile.TemporaryDirectory(prefix="leyden-records-") as folder:
        for number, tell in enumerate((_whole_story, _force_close, _payment)):
            tell(note, Path(folder) / str(number))
    with _noting_pairs(note):
        _too_much_dust()
        _removals()
        _closings()
        _old_states()


# -- whole nodes -------------------------------------------------------------------------------------------------------


def _watch(node: SimNode, note: Note) -> Callable[[MemoryStore], None]:
    seen: dict[bytes, bytes] = {}

    def on_commit(moment: CommitMoment, _number: int) -> None:
        if moment is CommitMoment.AFTER:
            for key, value in node.disk.rows.items():
                if seen.get(key) != value:
                    seen[key] = value
                    note(key, value)

    return lambda store: store.hooks.append(on_commit)


def _whole_story(note: Note, folder: Path) -> None:
    """Fund, open, pay, fail, lose blocks, change the fee, close."""
    story = Story(1, folder, Plan())
    for node in story.nodes:
        _watch(node, note)(node.store)
    failing = story._failing

    def watching(node: SimNode) -> Callable[[MemoryStore], None]:
        fail, watch = failing(node), _watch(node, note)
        return lambda store: (fail(store), watch(store))[0]

    story._failing = watching  # type: ignore[method-assign]  # where a story gets its stores
    story.tell()


def _add_small_things(node: SimNode, friend: NodeId) -> None:
    core = node.core

    def work() -> None:
        core.peers.connect(friend, "127.0.0.1", 9735, lambda _error: None)
        core.events.set_cursor("accounting", 1)
        core.publish(Alarm(subject="store", text="copied"))
        core.publish(AlarmCleared(subject="chain_degraded", text="over"))
        core.publish(OpenFailed(channel_id=ChannelId(bytes(32)), node_id=friend, reason="no coins"))

    core.engine.post(work)
    node.simulation.settle()


def _force_close(note: Note, folder: Path) -> None:
    """Alice's commitment goes on chain: swept by both; a reorg takes it back for a while."""
    simulation = Simulation(2, folder)
    try:
        alice, bob = simulation.add_node("alice"), simulation.add_node("bob")
        for node in (alice, bob):
            _watch(node, note)(node.store)
            fund(simulation, node)
        _add_small_things(alice, bob.node_id)
        simulation.connect(alice, bob)
        core = alice.core
        (channel_id,) = start_opening(alice, bob.node_id)
        simulation.mine(6)

        def close() -> None:
            actor = core.channels.get(channel_id)
            if actor is None:
                raise AssertionError("no channel")
            core.channels.apply(actor, ev.ForceClose(reason="asked for"))

        core.engine.post(close)
        simulation.settle()
        simulation.mine(1)
        simulation.reorg(1)
        for _ in range(200):
            simulation.mine(1)
    finally:
        simulation.close()


def _payment(note: Note, folder: Path) -> None:
    """On chain: waits, has a block, loses it."""
    simulation = Simulation(3, folder)
    try:
        alice = simulation.add_node("alice")
        _watch(alice, note)(alice.store)
        fund(simulation, alice)
        claim = "send:00112233445566778899aabbccddeeff"
        broadcast_payment(alice, sign_payment(alice, claim, Sat(100_000)), claim)
        simulation.mine(2)
        simulation.reorg(2)
    finally:
        simulation.close()


# -- channels alone ----------------------------------------------------------------------------------------------------


@contextmanager
def _noting_pairs(note: Note) -> Iterator[None]:
    commit = ChannelEnd.commit
    seen: dict[tuple[str, bytes], bytes] = {}

    def noting(self: ChannelEnd) -> int:
        written = commit(self)
        for key, value in self.rows.items():
            if seen.get((self.name, key)) != value:
                seen[self.name, key] = value
                note(key, value)
        return written

    ChannelEnd.commit = noting  # type: ignore[method-assign]  # a pair has no hook for its commits
    try:
        yield
    finally:
        ChannelEnd.commit = commit  # type: ignore[method-assign]  # as it was


def _pair() -> ChannelPair:
    signers = [InMemoryKeyManager(bytes([n]) * 32, Network.REGTEST).channel_signer for n in (1, 2)]
    pair = ChannelPair(signers[0], signers[1])
    pair.open(CAPACITY, PUSH)
    return pair


def _removals() -> None:
    """An HTLC fulfilled, one failed and one malformed, each way, step by step; a change of the fee between them."""
    pair = _pair()
    for source, target in ((pair.a, pair.b), (pair.b, pair.a)):
        ids = [pair.add(source, 5_000_000 + n) for n in range(3)]
        pair.settle()
        preimage = Preimage(sha256(b"preimage" + (5_000_000).to_bytes(8, "big")))
        target.do(ev.FulfillHtlc(id=ids[0], preimage=preimage))
        target.do(ev.FailHtlc(id=ids[1], reason=bytes(292)))
        target.do(ev.FailMalformedHtlc(id=ids[2], sha256_of_onion=bytes(32), failure_code=0xC005))
        if source is pair.a:
            pair.a.do(ev.UpdateFee(feerate=FeeRatePerKw(600)))
        pair.settle()


def _too_much_dust() -> None:
    """HTLCs that the peer trims until there are too many, which go back; an HTLC on a blinded path."""
    signers = [InMemoryKeyManager(bytes([n]) * 32, Network.REGTEST).channel_signer for n in (1, 2)]
    trimmer = ChannelPolicy(minimum_depth=1, dust_limit=Sat(9_999), max_dust_exposure_msat=Msat(10**12))
    pair = ChannelPair(signers[0], signers[1], policy_a=trimmer, policy_b=ChannelPolicy(minimum_depth=1))
    pair.open(CAPACITY)
    for index in range(40):
        pair.add(pair.a, 4_900_000 + index)
    pair.settle()
    pair = _pair()
    add = ev.AddHtlc(
        amount_msat=Msat(5_000_000),
        payment_hash=PaymentHash(bytes(32)),
        cltv_expiry=BlockHeight(500),
        onion_routing_packet=bytes(1366),
        path_key=pair.a.channel.local_point,
    )
    pair.a.do(add)
    pair.settle()


def _closings() -> None:
    """Mutual, asked for by the fundee, with wishes for the fee by the funder; and by force with an HTLC in flight."""
    pair = _pair()
    pair.b.do(ev.Shutdown())
    pair.settle()
    pair = _pair()
    pair.add(pair.a, 6_000_000)
    pair.settle()
    pair.a.do(ev.Shutdown(feerate=FeeRatePerKw(800), max_fee=Sat(5_000)))
    pair.settle()
    pair.b.do(ev.FailHtlc(id=0, reason=bytes(292)))
    pair.settle()
    pair.confirm_spend(pair.a.broadcasts[-1].tx)
    pair.mine(3)
    pair = _pair()
    pair.add(pair.a, 6_000_000)
    pair.settle()
    pair.a.do(ev.ForceClose(reason="asked for"))
    pair.confirm_spend(pair.a.broadcasts[-1].tx)
    pair.mine(3)


def _old_states() -> None:
    """A side that lost its memory and waits for the peer's commitment; a revoked commitment on chain."""
    pair = _pair()
    _pay(pair, 5_000_000)
    old_rows, old_channel = dict(pair.b.rows), pair.b.channel
    _pay(pair, 6_000_000)
    pair.disconnect()
    pair.b.rows = old_rows
    pair.b.restart()
    pair.connect()
    pair.settle()
    pair.confirm_spend(pair.a.broadcasts[-1].tx)
    pair.mine(2)
    cheat, pair = _pair(), _pair()
    cheat.b.take(old_channel, ())
    cheat.b.do(ev.ForceClose(reason="cheat"))
    _pay(pair, 5_000_000)
    _pay(pair, 6_000_000)
    pair.a.do(ev.FundingSpent(tx=cheat.b.broadcasts[-1].tx, height=pair.a.env.height))
    pair.mine(2)


def _pay(pair: ChannelPair, amount: int) -> None:
    id = pair.add(pair.a, amount)
    pair.settle()
    pair.b.do(ev.FulfillHtlc(id=id, preimage=Preimage(sha256(b"preimage" + amount.to_bytes(8, "big")))))
    pair.settle()
