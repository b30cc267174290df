"""ChannelManager: one actor per channel, the peer's messages in, the channel's effects out."""

from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

import structlog

from leyden.bitcoin import Transaction
from leyden.channel import (
    AnyInput,
    Channel,
    ChannelPolicy,
    Effect,
    Env,
    Lifecycle,
    Link,
    has_anchors,
    load,
    records,
    step,
)
from leyden.channel.effects import (
    Broadcast,
    Deliver,
    Disconnect,
    FundingAbandoned,
    FundingNeeded,
    HtlcAdded,
    HtlcFailed,
    HtlcFulfilled,
    HtlcReceived,
    Publish,
    Send,
    SetTimer,
    Sign,
    Watch,
)
from leyden.channel.events import (
    BlockConnected,
    FailChannel,
    FeerateChanged,
    FundingConfirmed,
    FundingRuledOut,
    FundingSpent,
    FundingUnconfirmed,
    FundingUnspent,
    MessageReceived,
    PeerConnected,
    PeerDisconnected,
    Restarted,
    SignerAnswered,
    SignerFailed,
    TimerFired,
    TurnEnded,
)
from leyden.channel.opening import channel_id_of
from leyden.hooks.services import ChannelSigner, NodeIdentity, Wallet
from leyden.hooks.signing import (
    SIGNER_METHODS,
    AnySignerAnswer,
    AnySignerRequest,
    Signature,
    SignerRefused,
    SignGossip,
)
from leyden.hooks.types import BlockConnected as Block
from leyden.hooks.types import BlockTransaction, BroadcastKind, DestinationPurpose, NodeEvent, OpenFailed
from leyden.node.fees import FeeCache
from leyden.node.host import Caller, Host, TimerHandle, answers_inline
from leyden.node.journal import Journal
from leyden.node.peer import Peer, PeerState
from leyden.node.silence import Silence
from leyden.node.txtracker import TxTracker
from leyden.types import BlockHeight, ChannelId, FeeRatePerKw, NodeId, OutPoint, Txid
from leyden.types.rules import C_144
from leyden.wire import ErrorMessage, FundingCreated, FundingSigned, Message, WarningMessage
from leyden.wire.features import Feature, Features, negotiated

log = structlog.get_logger("leyden.channels")

PaymentDelivery = HtlcReceived | HtlcFulfilled | HtlcFailed


@lru_cache(maxsize=1024)
def common_features(ours: Features, theirs: Features) -> Features:
    """The even bit of every feature that both nodes have (BOLT 9)."""
    return Features.of(*(feature for feature in Feature if negotiated(ours, theirs, feature)))


class ChannelActor:
    """A channel's value, the value that is durable, and what its effects asked for."""

    __slots__ = ("channel", "durable", "peer_id", "pending_signatures", "silent", "timers", "told_feerate")

    def __init__(self, channel: Channel, peer_id: NodeId, durable: Channel | None) -> None:
        self.channel = channel
        self.durable = durable
        self.peer_id = peer_id
        self.timers: dict[str, TimerHandle] = {}
        self.pending_signatures: set[str] = set()
        self.silent = False
        """An alarm has told that the peer is there and says nothing about this channel."""
        self.told_feerate: FeeRatePerKw | None = None
        """The estimate that this channel heard of since its peer is connected."""


class ChannelManager:
    """Owns every channel of the node. Peers, payments and the chain talk to channels only through it."""

    def __init__(
        self,
        *,
        host: Host,
        caller: Caller,
        post: Callable[[Callable[[], None]], None],
        after_commit: Callable[[Callable[[], None]], None],
        journal: Journal,
        signer: ChannelSigner,
        identity: NodeIdentity,
        node_id: NodeId,
        wallet: Wallet,
        fees: FeeCache,
        tracker: TxTracker,
        policy: ChannelPolicy,
        chain_hash: bytes,
        local_features: Features,
        publish: Callable[[NodeEvent], None],
    ) -> None:
        self.height = BlockHeight(0)
        self.deadline_height = BlockHeight(0)
        """The highest block that any chain source proved, whichever is followed: deadlines count from it."""
        self.chain_trouble = ""
        """Why the chain is not to be trusted now: no channel is opened or accepted then, no HTLC is offered."""
        self.policy = policy
        self._host = host
        self._caller = caller
        self._post = post
        self._after_commit = after_commit
        self._journal = journal
        self._signer = signer
        self._inline = answers_inline(signer)
        self._identity = identity
        self._node_id = node_id
        self._wallet = wallet
        self._fees = fees
        self._tracker = tracker
        self._chain_hash = chain_hash
        self._local_features = local_features
        self._publish = publish
        self._actors: dict[ChannelId, ChannelActor] = {}
        self._by_peer: dict[NodeId, dict[ChannelId, None]] = {}
        self._by_funding: dict[OutPoint, ChannelId] = {}
        self._touched: dict[ChannelId, None] = {}
        self._changed: dict[ChannelId, ChannelActor] = {}
        self._peers: dict[NodeId, Peer] = {}
        self._silence = Silence(host, post, publish, self.of_peer)
        self._scripts: dict[DestinationPurpose, bytes] = {}
        self._open_failures: dict[ChannelId, str] = {}
        self._dropped: list[tuple[ChannelId, ChannelActor]] = []
        self.on_payment: Callable[[ChannelActor, PaymentDelivery], None] = lambda _actor, _delivery: None
        self.on_funding: Callable[[ChannelActor, FundingNeeded | FundingAbandoned], None] = lambda _a, _d: None
        self.on_funding_signed: Callable[[ChannelActor, FundingSigned], bool] = lambda _actor, _message: False
        """True: the message is kept for later (a batch waits for all of them)."""
        self.on_funding_broadcast: Callable[[ChannelActor, Transaction], bool] = lambda _actor, _tx: False
        """True: somebody else broadcasts it."""
        self.on_watch: Callable[[ChannelActor, Watch], None] = lambda _actor, _watch: None

    # -- looking -----------------------------------------------------------------------------------------------------

    def channels(self) -> list[Channel]:
        return [actor.channel for actor in self._actors.values()]

    def get(self, channel_id: ChannelId) -> ChannelActor | None:
        return self._actors.get(channel_id)

    def of_peer(self, node_id: NodeId) -> list[ChannelActor]:
        return [self._actors[c] for c in self._by_peer.get(node_id, ())]

    def peer_nodes(self) -> list[NodeId]:
        """Every node that we share a channel with."""
        return [node for node, channels in self._by_peer.items() if channels]

    def why_gone(self, temporary: ChannelId) -> str:
        """Why the opening that began under this id ended without a channel (told once)."""
        return self._open_failures.pop(temporary, "the channel was abandoned before it was funded")

    # -- life --------------------------------------------------------------------------------------------------------

    def restore(self, rows: Sequence[Sequence[tuple[bytes, bytes]]]) -> None:
        """Forget what memory holds and load every channel from its rows; ``resume`` follows in a turn.

        ``RecordError`` if rows cannot be read: a node that forgot a channel would tell its peer to close it.
        """
        for actor in self._actors.values():
            self._cancel_timers(actor)
        for known in (self._actors, self._by_peer, self._by_funding, self._touched, self._changed, self._scripts):
            known.clear()
        self._dropped = []
        for channel_rows in rows:
            channel = load(channel_rows)
            self._insert(ChannelActor(channel, channel.config.peer, channel))

    def resume(self, claims: str = "") -> None:
        """Let every channel issue its watches, timers and open requests again, each on its own.

        Coins are freed that are locked for nobody any more under a claim that begins with ``claims``.
        """
        self._release_claims(claims)
        for actor in list(self._actors.values()):
            try:
                self.apply(actor, Restarted())
            except Exception:  # a bug that one channel shows must not keep the others from their watches
                log.exception("channel_not_resumed", channel=actor.channel.channel_id.hex())

    def _release_claims(self, prefix: str) -> None:
        """Coins locked for an opening or a payment that a crash forgot are free again."""
        held = {actor.channel.config.claim_id for actor in self._actors.values()} | self._tracker.claims()
        for claim_id in self._wallet.claims():
            if claim_id.startswith(prefix) and claim_id not in held:
                self._journal.merge(self._wallet.release(claim_id))

    def add(self, channel: Channel, effects: Sequence[Effect], peer_id: NodeId) -> ChannelActor:
        """A channel that was just made by ``open_channel`` or ``receive_open_channel``."""
        actor = ChannelActor(channel, peer_id, None)
        self._insert(actor)
        self._scripts.pop(DestinationPurpose.SHUTDOWN, None)
        self._changed[channel.channel_id] = actor
        self._touched[channel.channel_id] = None
        self._perform_all(actor, effects)
        if self.peer_of(actor) is None and not actor.channel.is_terminal:
            self.apply(actor, PeerDisconnected())  # the peer left while keys were made: nobody else would say so
        return actor

    def _insert(self, actor: ChannelActor) -> None:
        channel_id = actor.channel.channel_id
        self._actors[channel_id] = actor
        self._by_peer.setdefault(actor.peer_id, {})[channel_id] = None

    def _rekey(self, old: ChannelId, actor: ChannelActor) -> None:
        """The temporary id became the real one."""
        del self._actors[old]
        self._by_peer[actor.peer_id].pop(old, None)
        self._touched.pop(old, None)
        self._changed.pop(old, None)
        self._insert(actor)

    def _remove(self, actor: ChannelActor) -> None:
        channel_id = actor.channel.channel_id
        for funding in actor.channel.fundings:
            if funding.confirmation is None:
                self._tracker.abandon(funding.outpoint)  # nothing can spend what was never there
        self._actors.pop(channel_id, None)
        self._by_peer.get(actor.peer_id, {}).pop(channel_id, None)
        self._cancel_timers(actor)
        self._dropped.append((channel_id, actor))

    @staticmethod
    def _cancel_timers(actor: ChannelActor) -> None:
        for timer in actor.timers.values():
            timer.cancel()
        actor.timers.clear()

    # -- peers -------------------------------------------------------------------------------------------------------

    def on_peer_ready(self, peer: Peer) -> None:
        if peer.node_id is None:
            return
        self._peers[peer.node_id] = peer
        features = self.negotiated(peer)
        for actor in self.of_peer(peer.node_id):
            actor.told_feerate = None
            self.apply(actor, PeerConnected(features=features))
        self._silence.on_ready(peer.node_id)

    def on_peer_gone(self, peer: Peer) -> None:
        if peer.node_id is None or self._peers.get(peer.node_id) is not peer:
            return
        del self._peers[peer.node_id]
        self._silence.on_gone(peer.node_id)
        for actor in self.of_peer(peer.node_id):
            self.apply(actor, PeerDisconnected())

    def peer_of(self, actor: ChannelActor) -> Peer | None:
        peer = self._peers.get(actor.peer_id)
        return peer if peer is not None and peer.state is PeerState.READY else None

    def negotiated(self, peer: Peer | None) -> Features:
        """What both offered; with nobody there, nothing."""
        return Features() if peer is None else common_features(self._local_features, peer.features)

    def on_message(self, peer: Peer, channel_id: ChannelId, message: Message) -> None:
        """A message about a channel of this peer. Unknown channels are answered with ``error`` (C-144)."""
        if isinstance(message, ErrorMessage | WarningMessage) and not any(channel_id):
            for actor in self.of_peer(peer.node_id or NodeId(b"")):
                self.apply(actor, MessageReceived(message=message))
            return
        known = self._actors.get(channel_id)
        if known is None or known.peer_id != peer.node_id:
            if C_144.enabled and not isinstance(message, ErrorMessage | WarningMessage):
                peer.send_error(channel_id, "no such channel")
            return
        if isinstance(message, FundingCreated):
            named = channel_id_of(OutPoint(Txid(message.funding_txid), message.funding_output_index))
            if named in self._actors:  # one outpoint, one channel: nobody takes the place of another
                self.apply(known, FailChannel(text="that funding output belongs to another channel"))
                return
        if isinstance(message, FundingSigned) and self.on_funding_signed(known, message):
            return
        self.apply(known, MessageReceived(message=message))

    # -- steps -------------------------------------------------------------------------------------------------------

    def env(self, peer_id: NodeId) -> Env:
        return Env(
            now=int(self._host.wall_time()),
            height=self.height,
            deadline_height=self.deadline_height,
            feerates=self._fees.rates,
            policy=self.policy,
            entropy=self._host.entropy(32),
            chain_hash=self._chain_hash,
            features=self.negotiated(self._peers.get(peer_id)),
            peer=peer_id,
            shutdown_script=self._script(DestinationPurpose.SHUTDOWN),
            sweep_script=self._script(DestinationPurpose.SWEEP),
            node_id=self._node_id,
        )

    def _script(self, purpose: DestinationPurpose) -> bytes:
        """A script of ours that no channel has used yet."""
        script = self._scripts.get(purpose)
        if script is None:
            destination, changes = self._wallet.next_destination(purpose)
            self._journal.merge(changes)
            script = self._scripts[purpose] = destination.script
        return script

    def apply(self, actor: ChannelActor, event: AnyInput) -> list[int]:
        """Step the channel and perform its effects; returns the ids of HTLCs that were added.

        ``ChannelError`` of a local command passes through with the state unchanged.
        """
        before = actor.channel
        after, effects = step(before, event, self.env(actor.peer_id))
        if after is not before:
            actor.channel = after
            if after.channel_id != before.channel_id:
                self._rekey(before.channel_id, actor)
            self._changed[after.channel_id] = actor
        if not isinstance(event, TurnEnded):
            self._touched[after.channel_id] = None
        added = self._perform_all(actor, effects)
        if actor.channel.is_terminal:
            self._remove(actor)
        return added

    def _perform_all(self, actor: ChannelActor, effects: Sequence[Effect]) -> list[int]:
        """Effects in order; answers of an inline signer are stepped after the effects that came with the question."""
        added: list[int] = []
        answers: deque[SignerAnswered | SignerFailed] = deque()
        for effect in effects:
            self._perform(actor, effect, answers, added)
        while answers:
            added += self.apply(actor, answers.popleft())
        return added

    def _perform(
        self, actor: ChannelActor, effect: Effect, answers: "deque[SignerAnswered | SignerFailed]", added: list[int]
    ) -> None:
        match effect:
            case Send(message=message):
                peer = self.peer_of(actor)
                if peer is not None:
                    peer.send(message)
            case Sign(request=request):
                self._sign(actor, request, answers)
            case Deliver(delivery=delivery):
                if isinstance(delivery, FundingNeeded | FundingAbandoned):
                    self.on_funding(actor, delivery)
                else:
                    self.on_payment(actor, delivery)
            case HtlcAdded(id=htlc_id):
                added.append(htlc_id)
            case Broadcast(tx=tx, kind=BroadcastKind.FUNDING):
                if not self.on_funding_broadcast(actor, tx):
                    self.broadcast_funding(tx)
            case Broadcast(tx=tx, kind=kind):
                self._tracker.track(tx, kind)
                if kind is BroadcastKind.SWEEP:
                    self._scripts.pop(DestinationPurpose.SWEEP, None)
            case Watch(outpoint=outpoint):
                if outpoint is not None:
                    self._by_funding[outpoint] = actor.channel.channel_id
                self.on_watch(actor, effect)
            case SetTimer(name=name, seconds=seconds):
                self._set_timer(actor, name, seconds)
            case Publish(event=event):
                if isinstance(event, OpenFailed):
                    self._open_failures[actor.channel.config.temporary_channel_id] = event.reason
                self._publish(event)
            case Disconnect(reason=reason):
                peer = self.peer_of(actor)
                if peer is not None:
                    peer.closed_because = reason
                    self._post(peer.close)

    def broadcast_funding(self, tx: Transaction) -> None:
        self._tracker.track(tx, BroadcastKind.FUNDING)
        self._journal.merge(self._wallet.on_unconfirmed(tx))

    # -- signer ------------------------------------------------------------------------------------------------------

    def _sign(
        self, actor: ChannelActor, request: AnySignerRequest, answers: "deque[SignerAnswered | SignerFailed]"
    ) -> None:
        """A stateless signer answers inside the turn; others are asked after the commit that records the request."""
        if request.request_id in actor.pending_signatures:
            return
        actor.pending_signatures.add(request.request_id)
        inline = answers_inline(self._identity) if isinstance(request, SignGossip) else self._inline

        def ask() -> None:
            if isinstance(request, SignGossip):
                self._caller.call(self._identity, self._sign_gossip(request), done, request.request_id)
                return
            method = getattr(self._signer, SIGNER_METHODS[type(request)])
            self._caller.call(self._signer, method(request), done, request.request_id)

        def done(answer: AnySignerAnswer | None, error: BaseException | None) -> None:
            actor.pending_signatures.discard(request.request_id)
            event: SignerAnswered | SignerFailed
            if answer is not None:
                event = SignerAnswered(request_id=request.request_id, answer=answer)
            else:
                log.warning("signer_failed", request=request.request_id, reason=str(error))
                event = SignerFailed(
                    request_id=request.request_id, refused=isinstance(error, SignerRefused), text=str(error)
                )
            if inline:
                answers.append(event)
            elif self._actors.get(actor.channel.channel_id) is actor:
                self.apply(actor, event)

        if inline:
            ask()
        else:
            self._after_commit(ask)

    async def _sign_gossip(self, request: SignGossip) -> Signature:
        return Signature(signature=await self._identity.sign_gossip(request.announcement))

    def _set_timer(self, actor: ChannelActor, name: str, seconds: int) -> None:
        running = actor.timers.pop(name, None)
        if running is not None:
            running.cancel()
        if seconds:
            actor.timers[name] = self._host.call_later(seconds, lambda: self._on_timer(actor, name))

    def _on_timer(self, actor: ChannelActor, name: str) -> None:
        def fire() -> None:
            if self._actors.get(actor.channel.channel_id) is actor:
                self.apply(actor, TimerFired(name=name))

        actor.timers.pop(name, None)
        self._post(fire)

    # -- feerates ----------------------------------------------------------------------------------------------------

    def set_policy(self, policy: ChannelPolicy) -> None:
        """From now on; terms of channels that exist stay as they were agreed."""
        if policy.commitment_feerate != self.policy.commitment_feerate:
            for actor in self._actors.values():
                actor.told_feerate = None
        self.policy = policy
        self.on_feerates()

    def on_feerates(self) -> None:
        """Fresh estimates: each channel whose feerate we set hears of a new one once, as soon as its link is up."""
        for actor in list(self._actors.values()):
            channel = actor.channel
            target = self.policy.commitment_feerate or self._fees.rates.commitment(has_anchors(channel))
            if channel.lifecycle is not Lifecycle.NORMAL or channel.link is not Link.UP or target == actor.told_feerate:
                continue
            actor.told_feerate = target
            if channel.config.local_is_funder:
                self.apply(actor, FeerateChanged())

    # -- chain -------------------------------------------------------------------------------------------------------

    def on_block(self, block: Block) -> None:
        """Transactions of the block first, then its height, for every channel."""
        self.height = block.height
        wanted = self._wanted()
        for entry in block.transactions:
            self._on_confirmed(block.height, entry.position, entry.tx.txid, entry.tx, wanted)
        for channel_id in list(self._actors):
            actor = self._actors.get(channel_id)
            if actor is not None:
                self.apply(actor, BlockConnected(height=block.height))

    def _wanted(self) -> dict[Txid, list[OutPoint]]:
        """Watched outpoints by transaction: a batch funds several channels, and sweeps are watched here too."""
        found: dict[Txid, list[OutPoint]] = {}
        for outpoint in self._by_funding:
            found.setdefault(outpoint.txid, []).append(outpoint)
        return found

    def _on_confirmed(
        self, height: BlockHeight, position: int, txid: Txid, tx: Transaction, wanted: dict[Txid, list[OutPoint]]
    ) -> None:
        for outpoint in wanted.get(txid, ()):
            actor = self._actors.get(self._by_funding[outpoint])
            if actor is not None and actor.channel.funding_outpoint == outpoint and outpoint.vout < len(tx.outputs):
                self.apply(actor, FundingConfirmed(height=height, tx_index=position, output=tx.outputs[outpoint.vout]))
        for spent in tx.inputs:
            channel_id = self._by_funding.get(spent.prevout)
            actor = None if channel_id is None else self._actors.get(channel_id)
            if actor is not None:
                self.apply(actor, FundingSpent(tx=tx, height=height))

    def on_ruled_out(self, txid: Txid, claim: str) -> None:
        """This transaction of ours can never confirm: neither can a channel that it was to fund. Its coins that are
        left are free again, in the same commit as it is forgotten."""
        if claim:
            self._journal.merge(self._wallet.release(claim))
        for actor in list(self._actors.values()):
            outpoint = actor.channel.funding_outpoint
            if outpoint is not None and outpoint.txid == txid:
                self.apply(actor, FundingRuledOut())

    def on_deadline_height(self) -> None:
        """The chain that is followed lags behind one that was proved: deadlines may have passed all the same."""
        for actor in list(self._actors.values()):
            self.apply(actor, BlockConnected(height=self.height))

    def on_rescanned(self, height: BlockHeight, transactions: Sequence[BlockTransaction]) -> None:
        """Transactions of a block that was already told, found by a watch added since."""
        wanted = self._wanted()
        for entry in transactions:
            self._on_confirmed(height, entry.position, entry.tx.txid, entry.tx, wanted)

    def on_disconnected(self, fork_height: BlockHeight) -> None:
        """Blocks above ``fork_height`` are gone: undo what was concluded from them."""
        self.height = fork_height
        for actor in list(self._actors.values()):
            spend = actor.channel.spend
            if spend is not None and spend.height > fork_height:
                self.apply(actor, FundingUnspent())
            elif spend is not None and spend.swept and spend.sweep_height > fork_height:
                self.apply(actor, FundingUnspent(sweep_only=True))
            fundings = actor.channel.fundings
            if fundings and (where := fundings[0].confirmation) is not None and where.height > fork_height:
                self.apply(actor, FundingUnconfirmed())

    # -- turn --------------------------------------------------------------------------------------------------------

    def end_turn(self) -> bool:
        touched, self._touched = self._touched, {}
        for channel_id in touched:
            actor = self._actors.get(channel_id)
            if actor is not None:
                self.apply(actor, TurnEnded())
        return bool(touched)

    def write(self, journal: Journal) -> None:
        for actor in self._changed.values():
            after = None if actor.channel.is_terminal else actor.channel
            journal.merge(records(actor.durable, after))

    def commit(self) -> None:
        for actor in self._changed.values():
            actor.durable = actor.channel
        self._changed = {}
        self._dropped = []

    def rollback(self) -> None:
        """Back to the values before the turn. Whether its rows reached the disk only ``restore`` can tell."""
        for channel_id, actor in self._dropped:
            if actor.durable is not None:
                self._actors[channel_id] = actor
        for actor in self._changed.values():
            self._actors.pop(actor.channel.channel_id, None)
            self._by_peer.get(actor.peer_id, {}).pop(actor.channel.channel_id, None)
            if actor.durable is not None:
                actor.channel = actor.durable
                self._insert(actor)
        self._changed = {}
        self._touched = {}
        self._dropped = []
        self._scripts = {}
