"""Two channels joined without a node: every effect of one is done at once or kept for the test to look at.

``ChannelPair`` drives any ``ChannelSigner`` inline, moves messages through real bytes in order, keeps the rows that
``records`` asks for and can restart either side from them, cut the connection at any point, and confirm transactions.
It knows no plugin: the signers are given to it.
"""

from collections import deque
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from leyden.bitcoin import Network, Transaction, TxIn, TxOut, p2wpkh
from leyden.channel import (
    Channel,
    ChannelPolicy,
    Env,
    FeeRates,
    Lifecycle,
    OpenParams,
    load,
    open_channel,
    receive_open_channel,
    records,
    step,
)
from leyden.channel import effects as fx
from leyden.channel import events as ev
from leyden.crypto import sha256
from leyden.hooks.services import ChannelSigner, NodeIdentity
from leyden.hooks.signing import (
    SIGNER_METHODS,
    AnySignerAnswer,
    AnySignerRequest,
    NewChannelKeys,
    Signature,
    SignerRefused,
    SignGossip,
)
from leyden.hooks.types import NodeEvent
from leyden.node.host import run_inline
from leyden.types import (
    BlockHeight,
    FeeRatePerKw,
    KeysId,
    LeydenError,
    Msat,
    NodeId,
    OutPoint,
    PaymentHash,
    Sat,
    Side,
    Txid,
)
from leyden.wire import Message, OpenChannel, UnknownMessage, decode, encode
from leyden.wire.features import Feature, Features

PAIR_FEATURES = Features.of(
    Feature.OPTION_STATIC_REMOTEKEY,
    Feature.OPTION_ANCHORS,
    Feature.OPTION_SHUTDOWN_ANYSEGWIT,
    Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT,
    Feature.OPTION_CHANNEL_TYPE,
)


class Deaf(LeydenError):
    """A test asked something of a side that has no channel yet."""


class ChannelEnd:
    """One side: its channel, its rows, its signer, and what it has said and done so far.

    ``hold_signer`` keeps questions back until ``answer_signer``; ``sent`` are messages the other side has not got yet.
    """

    def __init__(self, name: str, signer: ChannelSigner, policy: ChannelPolicy, features: Features) -> None:
        self.name = name
        self.signer = signer
        self.features = features
        self.identity: NodeIdentity | None = None
        """Signs gossip where a test of public channels gives one."""
        self.keys_id = KeysId(sha256(b"keys of " + name.encode()))
        self.channel_or_none: Channel | None = None
        self.sent: deque[bytes] = deque()
        self.questions: deque[AnySignerRequest] = deque()
        self.hold_signer = False
        self.rows: dict[bytes, bytes] = {}
        self.deliveries: list[fx.Delivery] = []
        self.events: list[NodeEvent] = []
        self.broadcasts: list[fx.Broadcast] = []
        self.watches: list[fx.Watch] = []
        self.timers: dict[str, int] = {}
        self.log: list[fx.Effect] = []
        self.disconnects: list[str] = []
        self._stored: Channel | None = None
        self._turns = 0
        self.env = Env(
            now=1_700_000_000,
            height=BlockHeight(100),
            feerates=FeeRates(),
            policy=policy,
            entropy=bytes(32),
            chain_hash=Network.REGTEST.chain_hash,
            features=features,
            peer=NodeId(b"\x02" + sha256(b"peer of " + name.encode())),
            shutdown_script=p2wpkh(sha256(b"shutdown " + name.encode())[:20]),
            sweep_script=p2wpkh(sha256(b"sweep " + name.encode())[:20]),
        )

    @property
    def channel(self) -> Channel:
        if self.channel_or_none is None:
            raise Deaf(f"{self.name} has no channel")
        return self.channel_or_none

    def fresh_env(self) -> Env:
        self._turns += 1
        return replace(self.env, entropy=sha256(self.name.encode() + self._turns.to_bytes(8, "big")))

    # -- stepping ------------------------------------------------------------------------------------------------------

    def take(self, channel: Channel, effects: Iterable[fx.Effect]) -> None:
        """Adopt a state and do its effects; signer questions are answered at once unless they are held."""
        self.channel_or_none = channel
        for effect in effects:
            self.log.append(effect)
            match effect:
                case fx.Send(message=message):
                    self.sent.append(encode(message))
                case fx.Sign(request=request):
                    self.questions.append(request)
                case fx.Deliver(delivery=delivery):
                    self.deliveries.append(delivery)
                case fx.Publish(event=event):
                    self.events.append(event)
                case fx.Broadcast():
                    self.broadcasts.append(effect)
                case fx.Watch():
                    self.watches.append(effect)
                case fx.SetTimer(name=name, seconds=seconds):
                    self.timers[name] = seconds
                case fx.Disconnect(reason=reason):
                    self.disconnects.append(reason)
                case _:
                    pass
        if not self.hold_signer:
            self.answer_signer()

    def do(self, event: ev.AnyInput) -> tuple[fx.Effect, ...]:
        """One step; ``ChannelError`` passes through. Returns its own effects (not those of signer answers)."""
        channel, effects = step(self.channel, event, self.fresh_env())
        self.take(channel, effects)
        return effects

    def answer_signer(self, limit: int = 1_000_000) -> int:
        """Answer held questions in order; returns how many."""
        answered = 0
        while self.questions and answered < limit:
            request = self.questions.popleft()
            answered += 1
            event: ev.SignerAnswered | ev.SignerFailed
            try:
                event = ev.SignerAnswered(request_id=request.request_id, answer=self._answer(request))
            except SignerRefused as refusal:
                event = ev.SignerFailed(request_id=request.request_id, refused=True, text=str(refusal))
            channel, effects = step(self.channel, event, self.fresh_env())
            self.take(channel, effects)
        return answered

    def _answer(self, request: AnySignerRequest) -> AnySignerAnswer:
        if isinstance(request, SignGossip):
            if self.identity is None:
                raise SignerRefused("gossip", "no identity was given")
            return Signature(signature=run_inline(self.identity.sign_gossip(request.announcement)))
        method = getattr(self.signer, SIGNER_METHODS[type(request)])
        answer: AnySignerAnswer = run_inline(method(request))
        return answer

    def new_keys(self) -> NewChannelKeys:
        return run_inline(self.signer.new_channel(self.keys_id))

    # -- the store -----------------------------------------------------------------------------------------------------

    def commit(self) -> int:
        """Write the rows of everything since the last commit; returns how many rows changed."""
        changes = records(self._stored, self.channel_or_none)
        for key in changes.deletes:
            del self.rows[key]
        self.rows.update(changes.puts)
        self._stored = self.channel_or_none
        return len(changes.puts) + len(changes.deletes)

    def restart(self) -> None:
        """Forget everything but the rows, as a killed process does."""
        self.sent.clear()
        self.questions.clear()
        if not self.rows:
            self.channel_or_none = self._stored = None
            return
        self.channel_or_none = self._stored = load(self.rows.items())
        self.do(ev.Restarted())

    def take_deliveries(self) -> list[fx.Delivery]:
        found, self.deliveries = self.deliveries, []
        return found


class ChannelPair:
    """``a`` opens to ``b``. Every turn ends with ``TurnEnded`` and a commit of rows before messages move on."""

    def __init__(
        self,
        signer_a: ChannelSigner,
        signer_b: ChannelSigner,
        *,
        policy_a: ChannelPolicy | None = None,
        policy_b: ChannelPolicy | None = None,
        features: Features = PAIR_FEATURES,
    ) -> None:
        default = ChannelPolicy(minimum_depth=1)
        self.a = ChannelEnd("a", signer_a, policy_a or default, features)
        self.b = ChannelEnd("b", signer_b, policy_b or default, features)
        self.funding_tx: Transaction | None = None
        self.codec = True
        """Messages pass through their bytes; off for benchmarks of the state machine alone."""

    @property
    def ends(self) -> tuple[ChannelEnd, ChannelEnd]:
        return self.a, self.b

    def other(self, end: ChannelEnd) -> ChannelEnd:
        return self.b if end is self.a else self.a

    # -- opening -------------------------------------------------------------------------------------------------------

    def propose(self, funding: int = 1_000_000, push_msat: int = 0, **params: Any) -> OpenChannel:
        """``a`` proposes; returns the message, which waits in ``a.sent``."""
        wanted = OpenParams(
            keys_id=self.a.keys_id,
            claim_id="claim",
            funding_satoshis=Sat(funding),
            push_msat=Msat(push_msat),
            **params,
        )
        self.a.take(*open_channel(wanted, self.a.new_keys(), self.a.fresh_env()))
        message = decode(self.a.sent[-1])
        if not isinstance(message, OpenChannel):
            raise Deaf("no open_channel was sent")
        return message

    def accept(self, message: OpenChannel | None = None) -> None:
        """``b`` answers the proposal."""
        sent = decode(self.a.sent.popleft())
        proposal = message or sent
        if not isinstance(proposal, OpenChannel):
            raise Deaf("no open_channel is waiting")
        env = self.b.fresh_env()
        self.b.take(*receive_open_channel(proposal, self.b.new_keys(), env, keys_id=self.b.keys_id))

    def provide_funding(self) -> Transaction:
        """Answer ``FundingNeeded`` with a transaction whose input is no real coin."""
        needed = next(d for d in self.a.take_deliveries() if isinstance(d, fx.FundingNeeded))
        coin = OutPoint(Txid(sha256(b"coin")), 0)
        self.funding_tx = Transaction(
            version=2,
            inputs=(TxIn(prevout=coin, sequence=0, witness=(bytes(71), bytes(33))),),
            outputs=(
                TxOut(value=Sat(5_000), script=p2wpkh(bytes(20))),
                TxOut(value=needed.amount, script=needed.script),
            ),
            locktime=0,
        )
        self.a.do(ev.ProvideFunding(tx=self.funding_tx, vout=1))
        return self.funding_tx

    def open(self, funding: int = 1_000_000, push_msat: int = 0, **params: Any) -> None:
        """The whole opening up to NORMAL on both sides."""
        self.propose(funding, push_msat, **params)
        self.accept()
        self.settle()
        self.provide_funding()
        self.settle()
        self.confirm_funding()
        self.settle()
        for end in self.ends:
            if end.channel.lifecycle is not Lifecycle.NORMAL:
                raise LeydenError(f"{end.name} is {end.channel.lifecycle} after opening")

    def confirm_funding(self, blocks: int = 1) -> None:
        """Put the funding transaction into a block and build ``blocks - 1`` more on it."""
        if self.funding_tx is None:
            raise Deaf("no funding transaction")
        height = BlockHeight(self.a.env.height + 1)
        output = self.funding_tx.outputs[1]
        for end in self.ends:
            end.env = replace(end.env, height=height)
            end.do(ev.FundingConfirmed(height=height, tx_index=1, output=output))
        self.mine(blocks, first=False)

    def mine(self, blocks: int, *, first: bool = True) -> None:
        """``blocks`` more blocks for both."""
        for index in range(blocks):
            for end in self.ends:
                if first or index:
                    end.env = replace(end.env, height=BlockHeight(end.env.height + 1))
                end.do(ev.BlockConnected(height=end.env.height))
                end.commit()

    # -- messages ------------------------------------------------------------------------------------------------------

    def end_turn(self, end: ChannelEnd) -> None:
        if end.channel_or_none is not None:
            end.do(ev.TurnEnded())
        end.commit()

    def deliver(self, source: ChannelEnd, limit: int = 1_000_000) -> int:
        """Hand over up to ``limit`` of ``source``'s waiting messages; the receiver's turn is not ended."""
        target = self.other(source)
        count = 0
        while source.sent and count < limit:
            data = source.sent.popleft()
            count += 1
            if target.channel_or_none is not None:
                message = decode(data)
                if not isinstance(message, UnknownMessage):
                    target.do(ev.MessageReceived(message=message))
        return count

    def settle(self, rounds: int = 200) -> None:
        """Turns until nobody has anything to say."""
        for end in self.ends:
            self.end_turn(end)
        for _ in range(rounds):
            moved = 0
            for end in self.ends:
                moved += self.deliver(end)
                self.end_turn(self.other(end))
            if not moved and not any(end.sent for end in self.ends):
                return
        raise LeydenError("the pair does not come to rest")

    def disconnect(self) -> None:
        """Cut the connection: everything on the way is lost."""
        for end in self.ends:
            end.sent.clear()
            if end.channel_or_none is not None:
                end.do(ev.PeerDisconnected())
            end.commit()

    def connect(self) -> None:
        for end in self.ends:
            if end.channel_or_none is not None:
                end.do(ev.PeerConnected(features=end.features))

    def reconnect(self) -> None:
        self.disconnect()
        self.connect()
        self.settle()

    # -- chain ---------------------------------------------------------------------------------------------------------

    def confirm_spend(self, tx: Transaction) -> None:
        """Put a transaction that spends a watched output into the next block, for both."""
        for end in self.ends:
            end.env = replace(end.env, height=BlockHeight(end.env.height + 1))
            end.do(ev.FundingSpent(tx=tx, height=end.env.height))
            end.do(ev.BlockConnected(height=end.env.height))
            end.commit()

    # -- short cuts ----------------------------------------------------------------------------------------------------

    def add(self, end: ChannelEnd, amount: int, preimage: bytes = b"", *, expiry: int = 500) -> int:
        """Offer an HTLC; returns its id. The preimage defaults to one made from the amount."""
        secret = preimage or sha256(b"preimage" + amount.to_bytes(8, "big"))
        effects = end.do(
            ev.AddHtlc(
                amount_msat=Msat(amount),
                payment_hash=PaymentHash(sha256(secret)),
                cltv_expiry=BlockHeight(expiry),
                onion_routing_packet=bytes(1366),
            )
        )
        return next(e.id for e in effects if isinstance(e, fx.HtlcAdded))

    def set_feerate(self, feerate: int) -> None:
        """Both see another feerate for commitments."""
        for end in self.ends:
            rates = replace(
                end.env.feerates, anchor_channel=FeeRatePerKw(feerate), non_anchor_channel=FeeRatePerKw(feerate)
            )
            end.env = replace(end.env, feerates=rates)

    def total_msat(self) -> int:
        """Settled balances of both views must both equal the capacity."""
        sums = {int(end.channel.local_settled + end.channel.remote_settled) for end in self.ends}
        if len(sums) != 1:
            raise LeydenError(f"the sides disagree about the sum: {sums}")
        return sums.pop()


def sent_messages(effects: Iterable[fx.Effect]) -> list[Message]:
    """The messages among effects, in order."""
    return [effect.message for effect in effects if isinstance(effect, fx.Send)]


def names(effects: Iterable[fx.Effect]) -> list[str]:
    """Effects as words: ``send update_add_htlc``, ``sign ReleaseSecret``, ``publish Alarm``; for reading in a test."""
    words: list[str] = []
    for effect in effects:
        match effect:
            case fx.Send(message=message):
                words.append(f"send {message.NAME}")
            case fx.Sign(request=request):
                words.append(f"sign {type(request).__name__}")
            case fx.Deliver(delivery=delivery):
                words.append(f"deliver {type(delivery).__name__}")
            case fx.Publish(event=event):
                words.append(f"publish {type(event).__name__}")
            case fx.Broadcast(kind=kind):
                words.append(f"broadcast {kind.value}")
            case _:
                words.append(type(effect).__name__.lower())
    return words


__all__ = ["PAIR_FEATURES", "ChannelEnd", "ChannelPair", "Side", "names", "sent_messages"]
