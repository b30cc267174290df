"""A node and a peer that means harm: payments that lie, openings that take another channel's place, games on chain."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import Network, Transaction, TxIn, TxOut, funding_script, p2wsh
from leyden.channel import AnyInput, Channel, ChannelPolicy, Lifecycle, OpenParams, open_channel, opening
from leyden.channel import events as ev
from leyden.channel.turn import Turn
from leyden.crypto import sha256
from leyden.hooks.types import BlockTransaction, DestinationPurpose
from leyden.node import keyspace
from leyden.node.channels import ChannelActor
from leyden.onion import build_onion
from leyden.payments import InvoiceRecord, InvoiceStatus
from leyden.payments.records import decode_invoice_record
from leyden.testing.channel_pair import ChannelEnd
from leyden.testing.scripted_peer import ScriptedPeer
from leyden.testing.simulation import SimNode, Simulation
from leyden.types import (
    BlockHeight,
    FeeRatePerKw,
    Msat,
    OutPoint,
    PaymentHash,
    PaymentSecret,
    Preimage,
    Sat,
    ShortChannelId,
    Txid,
)
from leyden.wire import ErrorMessage, Message, OpenChannel
from leyden.wire.codec import encode_struct
from leyden.wire.features import Feature, Features
from leyden.wire.onion_payload import OnionPayload, PaymentData
from leyden_inmemory import InMemoryKeyManager
from msgspec.structs import replace

CAPACITY = Sat(1_000_000)
PUSH = Msat(400_000_000)
AMOUNT = Msat(20_000_000)
DELTA = 42
FEATURES = Features.of(
    Feature.OPTION_STATIC_REMOTEKEY,
    Feature.OPTION_ANCHORS,
    Feature.OPTION_SHUTDOWN_ANYSEGWIT,
    Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT,
    Feature.OPTION_CHANNEL_TYPE,
)


class World:
    """``alice`` (attacked) has funded a channel to ``mallory``, a real node with no scruples and 400,000 sat in it."""

    def __init__(self, folder: Path, seed: int = 7) -> None:
        self.simulation = Simulation(seed, folder / "chain")
        self.alice = self.simulation.add_node("alice")
        greedy = ChannelPolicy(minimum_depth=3, max_dust_exposure_msat=Msat(10**12))
        self.mallory = self.simulation.add_node("mallory", greedy)
        self.simulation.connect(self.alice, self.mallory)
        self.alice.core.engine.post(self._faucet)
        self.simulation.settle()
        self.simulation.mine(1)
        answers: list[object] = []
        self.alice.core.engine.post(partial(self._open, answers))
        self.simulation.settle()
        self.simulation.mine(4)
        if not answers or not isinstance(answers[0], bytes):
            raise AssertionError(f"the channel did not open: {answers}")

    def _faucet(self) -> None:
        core = self.alice.core
        for _ in range(2):
            destination, changes = core.services.wallet.next_destination(DestinationPurpose.RECEIVE)
            core.engine.journal.merge(changes)
            self.simulation.chain.faucet(destination.script, Sat(2_500_000))

    def _open(self, answers: list[object]) -> None:
        core = self.alice.core
        peer = core.peers.get(self.mallory.node_id)
        if peer is None:
            raise AssertionError("not connected")
        core.opener.open(peer, CAPACITY, PUSH, False, None, answers.append, answers.append)

    def actor(self, node: SimNode) -> ChannelActor:
        channels = node.core.channels
        found = [a for a in (channels.get(c.channel_id) for c in channels.channels()) if a and a.channel.fundings]
        return found[0]

    @property
    def channel(self) -> Channel:
        return self.actor(self.alice).channel

    def invoice(self, number: int = 0, amount: Msat = AMOUNT, expiry: int = 3600) -> InvoiceRecord:
        preimage = Preimage(sha256(b"preimage %d" % number))
        record = InvoiceRecord(
            payment_hash=PaymentHash(sha256(preimage)),
            preimage=preimage,
            payment_secret=PaymentSecret(sha256(b"secret %d" % number)),
            amount_msat=amount,
            bolt11="",
            created=int(self.alice.wall_time()),
            expiry=expiry,
            min_final_cltv=DELTA,
        )
        self.alice.core.engine.post(lambda: self.alice.core.payments.add_invoice(record))
        self.simulation.settle()
        return record

    def status(self, invoice: InvoiceRecord) -> int:
        row = self.alice.disk.rows[keyspace.invoice_key(invoice.payment_hash)]
        return decode_invoice_record(row).status

    def onion(self, invoice: InvoiceRecord, payload: bytes) -> bytes:
        return build_onion(bytes([5]) * 32, [(self.alice.node_id, payload)], invoice.payment_hash)[0]

    def attack(self, *htlcs: ev.AddHtlc) -> None:
        """Mallory offers these, in one turn."""
        core, actor = self.mallory.core, self.actor(self.mallory)

        def go() -> None:
            for htlc in htlcs:
                core.channels.apply(actor, htlc)

        core.engine.post(go)
        self.simulation.settle()

    def tell(self, node: SimNode, event: AnyInput) -> None:
        core, actor = node.core, self.actor(node)

        def go() -> None:
            core.channels.apply(actor, event)

        core.engine.post(go)
        self.simulation.settle()

    @property
    def expiry(self) -> BlockHeight:
        return BlockHeight(self.simulation.chain.height + DELTA)

    def htlc(self, invoice: InvoiceRecord, amount: Msat | None = None, **changes: object) -> ev.AddHtlc:
        """An honest HTLC, or one whose payload differs."""
        return ev.AddHtlc(
            amount_msat=amount or invoice.amount_msat,
            payment_hash=invoice.payment_hash,
            cltv_expiry=self.expiry,
            onion_routing_packet=self.onion(invoice, encode_struct(self.payload(invoice, **changes))),
        )

    def payload(self, invoice: InvoiceRecord, **changes: object) -> OnionPayload:
        amount = invoice.amount_msat
        honest = OnionPayload(
            amt_to_forward=amount,
            outgoing_cltv_value=self.expiry,
            payment_data=PaymentData(payment_secret=invoice.payment_secret, total_msat=amount),
        )
        return replace(honest, **changes)

    def check(self) -> None:
        """The channel works on both sides, nothing is stuck in it, the node is well."""
        for node in (self.alice, self.mallory):
            channel = self.actor(node).channel
            assert channel.is_usable, (channel.lifecycle, channel.link, channel.failure)
            assert not {**channel.local_htlcs, **channel.remote_htlcs}
            assert not node.core.engine.degraded
        assert not list(self.alice.core.payments._mailbox)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.simulation.close()


# -- payments ----------------------------------------------------------------------------------------------------------


def data(invoice: InvoiceRecord, **changes: object) -> PaymentData:
    honest = PaymentData(payment_secret=invoice.payment_secret, total_msat=invoice.amount_msat)
    return replace(honest, **changes)


Lie = Callable[[World, InvoiceRecord], ev.AddHtlc]
LIES: dict[str, Lie] = {
    "wrong secret": lambda w, i: w.htlc(i, payment_data=data(i, payment_secret=bytes(32))),
    "no payment data": lambda w, i: w.htlc(i, payment_data=None),
    "one msat too little": lambda w, i: w.htlc(i, Msat(AMOUNT - 1), amt_to_forward=Msat(AMOUNT - 1)),
    "one msat kept by the last hop": lambda w, i: w.htlc(i, Msat(AMOUNT - 1)),
    "little, and a total that lies": lambda w, i: w.htlc(i, Msat(1000), amt_to_forward=Msat(1000)),
    "little of a total of little": lambda w, i: w.htlc(
        i, Msat(1000), amt_to_forward=Msat(1000), payment_data=data(i, total_msat=Msat(1000))
    ),
    "total above": lambda w, i: w.htlc(i, payment_data=data(i, total_msat=Msat(AMOUNT + 1))),
    "total of 2^64-1": lambda w, i: replace(
        w.htlc(i),
        onion_routing_packet=w.onion(
            i, encode_struct(w.payload(i, payment_data=None)) + b"\x08\x28" + i.payment_secret + b"\xff" * 8
        ),
    ),
    "more than twice": lambda w, i: w.htlc(
        i, Msat(2 * AMOUNT + 1), amt_to_forward=AMOUNT, payment_data=data(i, total_msat=AMOUNT)
    ),
    "told another expiry": lambda w, i: w.htlc(i, outgoing_cltv_value=BlockHeight(w.expiry + 1)),
    "expires too soon": lambda w, i: replace(
        w.htlc(i, outgoing_cltv_value=BlockHeight(w.expiry - 1)), cltv_expiry=BlockHeight(w.expiry - 1)
    ),
    "expired": lambda w, i: replace(w.htlc(i, outgoing_cltv_value=BlockHeight(1)), cltv_expiry=BlockHeight(1)),
    "to be forwarded": lambda w, i: w.htlc(i, short_channel_id=ShortChannelId(1)),
    "metadata": lambda w, i: w.htlc(i, payment_metadata=b"x"),
    "blinded": lambda w, i: w.htlc(i, encrypted_recipient_data=b"x"),
    "blinded, nothing else": lambda w, i: replace(
        w.htlc(i), onion_routing_packet=w.onion(i, encode_struct(OnionPayload(encrypted_recipient_data=b"x")))
    ),
    "path key": lambda w, i: replace(w.htlc(i), path_key=w.alice.node_id),
    "empty payload": lambda w, i: replace(w.htlc(i), onion_routing_packet=w.onion(i, b"\x02\x00")),
    "unknown even record": lambda w, i: replace(
        w.htlc(i), onion_routing_packet=w.onion(i, b"\xfe\x00\x01\x00\x00\x00")
    ),
    "cut record": lambda w, i: replace(w.htlc(i), onion_routing_packet=w.onion(i, b"\x02\x08\x01")),
    "onion of another hash": lambda w, i: replace(
        w.htlc(i), onion_routing_packet=w.htlc(w.invoice(9)).onion_routing_packet
    ),
    "zeros": lambda w, i: replace(w.htlc(i), onion_routing_packet=bytes(1366)),
    "no point": lambda w, i: replace(w.htlc(i), onion_routing_packet=b"\0\2" + b"\xff" * 1364),
    "version 1": lambda w, i: replace(w.htlc(i), onion_routing_packet=b"\1" + w.htlc(i).onion_routing_packet[1:]),
    "bad MAC": lambda w, i: replace(w.htlc(i), onion_routing_packet=w.htlc(i).onion_routing_packet[:-1] + b"\0"),
}


@pytest.fixture(scope="module")
def lied_to(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("lies"))
    yield made
    made.simulation.close()


@pytest.mark.parametrize("lie", LIES)
def test_an_htlc_that_lies_is_failed_and_the_invoice_stays_open(lied_to: World, lie: str) -> None:
    world = lied_to
    invoice = world.invoice(100 + list(LIES).index(lie))
    before = world.channel.local_settled
    world.attack(LIES[lie](world, invoice))
    assert world.channel.local_settled == before
    assert world.status(invoice) == InvoiceStatus.UNPAID
    world.check()


def test_after_the_lies_an_honest_payment_arrives(world: World) -> None:
    """The same invoice: lied about, paid, paid again with the same onion, paid again with another."""
    invoice = world.invoice()
    before = world.channel.local_settled
    world.attack(LIES["one msat too little"](world, invoice))
    honest = world.htlc(invoice)
    world.attack(honest)
    assert world.status(invoice) == InvoiceStatus.PAID
    world.attack(honest)
    world.attack(world.htlc(invoice, Msat(AMOUNT + 5)))
    assert world.channel.local_settled == before + AMOUNT
    world.check()


def test_one_invoice_paid_by_three_htlcs_at_once(world: World) -> None:
    invoice = world.invoice()
    before = world.channel.local_settled
    world.attack(*[world.htlc(invoice)] * 3)
    assert world.channel.local_settled == before + AMOUNT
    world.check()


def test_a_payment_after_the_invoice_expired(world: World) -> None:
    invoice = world.invoice(expiry=30)
    world.simulation.advance(31)
    world.attack(world.htlc(invoice))
    assert world.status(invoice) == InvoiceStatus.UNPAID
    world.check()


def test_dust_above_the_limit_is_failed_not_kept(world: World) -> None:
    """Forty payments without outputs in one commitment: what is over the limit goes back, nothing hangs."""
    invoices = [world.invoice(n, Msat(353_000)) for n in range(40)]
    before = world.channel.local_settled
    world.attack(*[world.htlc(invoice) for invoice in invoices])
    paid = sum(world.status(invoice) == InvoiceStatus.PAID for invoice in invoices)
    assert 0 < paid < 40
    assert world.channel.local_settled == before + paid * 353_000
    world.check()


def test_dust_above_the_limit_is_failed_after_a_restart_too(world: World) -> None:
    """The verdict of the channel is part of the waiting row."""
    asked: list[object] = []
    caller = world.alice.core.payments._caller
    call = caller.call

    def slow(provider: object, work: Any, done: Any, name: str) -> None:
        if name == "onion ecdh":
            work.close()
            asked.append(done)
        else:
            call(provider, work, done, name)

    caller.call = slow  # type: ignore[method-assign]  # the signer that takes its time
    invoices = [world.invoice(n, Msat(353_000)) for n in range(20)]
    world.attack(*[world.htlc(invoice) for invoice in invoices])
    assert len(asked) == 20
    world.alice.kill()
    world.alice.start()
    world.simulation.connect(world.alice, world.mallory)
    world.simulation.settle()
    paid = sum(world.status(invoice) == InvoiceStatus.PAID for invoice in invoices)
    assert 0 < paid < 20
    world.check()


def test_a_signer_of_the_node_id_that_fails_once(world: World) -> None:
    """The question is asked again: an HTLC is never left to its deadline because of one bad answer."""
    caller = world.alice.core.payments._caller
    call = caller.call
    failures: list[str] = []

    def flaky(provider: object, work: Any, done: Any, name: str) -> None:
        if name == "onion ecdh" and not failures:
            failures.append(name)
            work.close()
            done(None, RuntimeError("the device is away"))
        else:
            call(provider, work, done, name)

    caller.call = flaky  # type: ignore[method-assign]  # the signer that fails at times
    invoice = world.invoice()
    world.attack(world.htlc(invoice))
    assert failures
    world.simulation.advance(60)
    assert world.status(invoice) == InvoiceStatus.PAID
    world.check()


def test_no_payment_is_taken_while_the_funding_is_out_of_the_chain(world: World) -> None:
    """A reorg made the channel's money uncertain: its HTLCs are failed until the funding is back."""
    invoice = world.invoice()
    world.tell(world.alice, ev.FundingUnconfirmed())
    before = world.channel.local_settled
    world.attack(world.htlc(invoice))
    assert world.channel.local_settled == before
    assert world.status(invoice) == InvoiceStatus.UNPAID
    world.check()


# -- openings ----------------------------------------------------------------------------------------------------------


class Robber:
    """A scripted peer whose channels really work, with a funding outpoint of its choice."""

    def __init__(self, world: World, name: str = "robber") -> None:
        self.world = world
        self.peer = ScriptedPeer(world.simulation, world.alice, name).connect()
        self.name = name
        self.errors: list[str] = []

    def end(self, label: str = "") -> ChannelEnd:
        signer = InMemoryKeyManager(sha256(self.name.encode()), Network.REGTEST).channel_signer
        end = ChannelEnd(self.name + label, signer, ChannelPolicy(minimum_depth=3), FEATURES)
        end.env = replace(end.env, height=BlockHeight(self.world.simulation.chain.height))
        return end

    def pump(self, *ends: ChannelEnd) -> None:
        """Carry messages until both are silent."""
        for _ in range(50):
            said = False
            for end in ends:
                while end.sent:
                    self.peer.send(end.sent.popleft())
                    said = True
            while self.peer._messages:
                message = self.peer._messages.popleft()
                said = True
                if isinstance(message, ErrorMessage):
                    self.errors.append(message.data.decode())
                for end in ends:
                    self._tell(end, message)
            if not said:
                return

    @staticmethod
    def _tell(end: ChannelEnd, message: Message) -> None:
        named = getattr(message, "channel_id", None) or getattr(message, "temporary_channel_id", None)
        ours = end.channel_or_none
        if ours is not None and named in (ours.channel_id, ours.config.temporary_channel_id):
            end.do(ev.MessageReceived(message=message))

    def propose(self, end: ChannelEnd, funding: int = 100_000, push: int = 0) -> None:
        wanted = OpenParams(
            keys_id=end.keys_id,
            claim_id="",
            funding_satoshis=Sat(funding),
            push_msat=Msat(push),
            feerate=FeeRatePerKw(1_000),
        )
        end.take(*open_channel(wanted, end.new_keys(), end.fresh_env()))
        self.pump(end)

    def claim_funding(self, end: ChannelEnd, outpoint: OutPoint) -> None:
        """Pretend that ``outpoint`` funds the channel and sign for it."""
        channel = end.channel
        keys, local = channel.remote_keys, channel.local_keys
        if keys is None or local is None:
            raise AssertionError(f"not accepted: {self.errors}")
        turn = Turn(channel, end.fresh_env())
        script = p2wsh(funding_script(local.keys.funding_pubkey, keys.funding_pubkey))
        opening._fund(turn, outpoint, script, keys)
        turn.set(lifecycle=Lifecycle.FUNDER_SIGNING)
        turn.ask(opening.first_signature_request(turn))
        end.take(turn.channel, turn.effects)
        self.pump(end)


def test_a_stranger_cannot_take_the_place_of_a_channel(world: World) -> None:
    """The funding outpoint of our channel with somebody else, claimed for a channel with the attacker."""
    ours = world.channel
    robber = Robber(world)
    end = robber.end()
    robber.propose(end)
    robber.claim_funding(end, ours.setup.funding_outpoint)
    actor = world.alice.core.channels.get(ours.channel_id)
    assert actor is not None
    assert actor.peer_id == world.mallory.node_id
    world.check()
    world.alice.kill()
    world.alice.start()
    assert world.channel.config.peer == world.mallory.node_id


def test_openings_that_are_never_funded_do_not_pile_up(world: World) -> None:
    """Invented outpoints cost nothing: the limit of unfunded channels holds until the funding is in a block."""
    robber = Robber(world)
    for number in range(12):
        end = robber.end(str(number))
        robber.propose(end)
        if end.channel.lifecycle is Lifecycle.ABANDONED:
            continue
        robber.claim_funding(end, OutPoint(Txid(sha256(b"%d" % number)), 0))
    assert sum(c.config.peer == robber.peer.node_id for c in world.alice.core.channels.channels()) <= 4


def test_two_channels_funded_by_one_transaction(world: World) -> None:
    """A batch: both channels see their output confirmed."""
    robber = Robber(world)
    ends = [robber.end("left"), robber.end("right")]
    for end in ends:
        robber.propose(end)
    scripts = []
    for end in ends:
        keys, local = end.channel.remote_keys, end.channel.local_keys
        assert keys is not None
        assert local is not None
        scripts.append(p2wsh(funding_script(local.keys.funding_pubkey, keys.funding_pubkey)))
    coin = OutPoint(Txid(sha256(b"coin")), 0)
    tx = Transaction(
        version=2,
        inputs=(TxIn(prevout=coin, sequence=0, witness=(bytes(71), bytes(33))),),
        outputs=tuple(TxOut(value=Sat(100_000), script=script) for script in scripts),
        locktime=0,
    )
    for vout, end in enumerate(ends):
        robber.claim_funding(end, OutPoint(tx.txid, vout))
    channels = world.alice.core.channels
    mine = [c.channel_id for c in channels.channels() if c.config.peer == robber.peer.node_id]
    assert len(mine) == 2

    def confirmed() -> None:
        found = BlockTransaction(position=1, tx=tx)
        channels.on_rescanned(BlockHeight(world.simulation.chain.height), [found])

    world.alice.core.engine.post(confirmed)
    world.simulation.settle()
    for channel_id in mine:
        actor = channels.get(channel_id)
        assert actor is not None
        assert actor.channel.funding.confirmation is not None


def test_the_temporary_id_of_our_own_opening(world: World) -> None:
    """The peer that we open to proposes a channel under the same id: ours goes on."""
    robber = Robber(world)
    answers: list[object] = []
    core = world.alice.core

    def begin() -> None:
        peer = core.peers.get(robber.peer.node_id)
        assert peer is not None
        core.opener.open(peer, Sat(200_000), Msat(0), False, None, answers.append, answers.append)

    core.engine.post(begin)
    proposal = robber.peer.expect(OpenChannel)
    robber.peer.send(replace(proposal, funding_satoshis=150_000))
    robber.pump()
    actor = core.channels.get(proposal.temporary_channel_id)
    assert actor is not None
    assert actor.channel.config.local_is_funder
    assert actor.channel.lifecycle is Lifecycle.AWAIT_ACCEPT
    assert not answers


# -- chain -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closer", ["alice", "mallory"])
def test_a_closed_channel_is_remembered_until_its_sweep_is_deep(world: World, closer: str) -> None:
    """Through the confirmation of the close, of the sweep, and a reorg of both."""
    node = getattr(world, closer)
    world.tell(node, ev.ForceClose(reason="x"))
    blocks = 1 if closer == "mallory" else 146
    world.simulation.mine(blocks)
    channel = world.channel
    assert channel.spend is not None
    assert channel.spend.sweep is not None
    world.simulation.mine(1)
    world.simulation.reorg(2)
    world.simulation.mine(1)
    assert world.channel.lifecycle in (Lifecycle.FORCE_CLOSING, Lifecycle.REMOTE_CLOSED)
    world.simulation.mine(7)
    assert not world.alice.core.channels.channels()
    assert world.alice.core.services.wallet.balance().confirmed > 4_500_000
