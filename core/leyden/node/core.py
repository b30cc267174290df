"""A whole node without asyncio: every part constructed, wired together and loaded from its rows.

``Node`` drives it with sockets and timers, ``leyden.testing.simulation`` with none of them.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
import structlog

from leyden.bitcoin import Network
from leyden.channel import ChannelPolicy
from leyden.channel.effects import Watch
from leyden.hooks.services import (
    Broadcaster,
    ChainSource,
    ChannelSigner,
    Destinations,
    FeeEstimator,
    NodeIdentity,
    OnchainSigner,
    PaymentApproval,
    Store,
    StoreError,
    StorePeek,
    StoreRefused,
    Wallet,
)
from leyden.hooks.types import (
    AcceptTerms,
    Alarm,
    AlarmCleared,
    IncomingPayment,
    NodeEvent,
    OpenRequest,
    PeerInfo,
    Refusal,
)
from leyden.node import keyspace
from leyden.node.chain_health import ChainSettings
from leyden.node.chainmonitor import ChainMonitor
from leyden.node.channels import ChannelActor, ChannelManager
from leyden.node.engine import Engine
from leyden.node.eventlog import EventLog
from leyden.node.fees import FeeCache
from leyden.node.host import Caller, Host
from leyden.node.journal import Journal
from leyden.node.opening import Opener
from leyden.node.payments import PaymentManager
from leyden.node.peer import Peer
from leyden.node.peers import PeerManager
from leyden.node.reserve import AnchorReserve, ReserveKeeper
from leyden.node.rows import NODE_ID, SCHEMA, SCHEMA_VERSION, check_schema
from leyden.node.txtracker import TxTracker
from leyden.types import BlockHeight, LeydenError, NodeId, RecordError, clean_text
from leyden.wire.features import Context, Feature, make_features

log = structlog.get_logger("leyden.node")

T = TypeVar("T")
REPEAT_SECONDS = 30.0
"""Transactions that are not in a block yet are broadcast again after at most so long, besides on every block."""
MAX_UNHEARD_BYTES = 16 * 1024 * 1024
COPIED = (
    "database was copied or moved: if this is not its newest copy, stop now, for old channel states cost money; "
    "if it is, tell the store so"
)

LOCAL_FEATURES = make_features(
    Context.INIT,
    required=(Feature.VAR_ONION_OPTIN, Feature.PAYMENT_SECRET, Feature.OPTION_STATIC_REMOTEKEY),
    optional=(
        Feature.OPTION_DATA_LOSS_PROTECT,
        Feature.OPTION_UPFRONT_SHUTDOWN_SCRIPT,
        Feature.OPTION_SUPPORT_LARGE_CHANNEL,
        Feature.OPTION_ANCHORS,
        Feature.OPTION_SHUTDOWN_ANYSEGWIT,
        Feature.OPTION_CHANNEL_TYPE,
        Feature.OPTION_SCID_ALIAS,
        Feature.OPTION_ZEROCONF,
        Feature.OPTION_SIMPLE_CLOSE,
    ),
)


class MainnetRefused(LeydenError):
    """On-chain enforcement is not complete: real money is refused."""

    def __init__(self) -> None:
        super().__init__("mainnet is refused until on-chain enforcement is complete: use regtest, signet or testnet4")


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """One object per service and capability, chosen by the config before the node is made."""

    store: Store
    chain_source: ChainSource
    """The one that is followed; ``chain_fallbacks`` take over in their order while it cannot be."""
    broadcasters: Sequence[Broadcaster]
    fee_estimators: Sequence[FeeEstimator]
    wallet: Wallet
    node_identity: NodeIdentity
    channel_signer: ChannelSigner
    onchain_signer: OnchainSigner
    destinations: Destinations
    payment_approval: PaymentApproval
    chain_fallbacks: Sequence[ChainSource] = ()
    chain_verifiers: Sequence[ChainSource] = ()
    """Sources whose view is compared with what is followed."""
    names: Mapping[str, Sequence[str]] = msgspec.field(default_factory=dict)
    """By kind (``broadcaster``, ``chain_source``, …) the names under which the config chose these, in their order."""

    def named(self, kind: str, services: Sequence[T]) -> list[tuple[str, T]]:
        """``services`` of one kind with the names that people know them by."""
        known = [*self.names.get(kind, ())]
        found = []
        for index, service in enumerate(services):
            info = getattr(service, "info", None)
            own = getattr(info, "name", None) or type(service).__name__
            found.append((known[index] if index < len(known) else str(own), service))
        return found


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the core needs of a config. ``listen`` is host and port, ``None`` to listen nowhere."""

    network: Network
    listen: tuple[str, int] | None = None
    policy: ChannelPolicy = ChannelPolicy()
    anchor_reserve: AnchorReserve = AnchorReserve()
    chain: ChainSettings = ChainSettings()
    birth_height: BlockHeight = BlockHeight(0)
    connect: tuple[tuple[NodeId, str, int], ...] = ()


class Questions(msgspec.Struct, kw_only=True):
    """What plugins are asked; each calls back with the answer, at once or in a later turn.

    Looked up at every question: whoever owns the record may fill it in after ``NodeCore.load``.
    """

    accept_peer: Callable[[PeerInfo, Callable[[str | None], None]], None] = lambda _info, answer: answer(None)
    accept_channel: Callable[[OpenRequest, Callable[[AcceptTerms | Refusal | None], None]], None] = (
        lambda _request, answer: answer(None)
    )
    accept_payment: Callable[[IncomingPayment, Callable[[bool], None]], None] = lambda _payment, answer: answer(True)


class NodeCore:
    """Construct with ``await NodeCore.load(...)``; then post mail to ``engine`` and run turns."""

    def __init__(
        self,
        config: NodeConfig,
        services: Services,
        host: Host,
        questions: Questions,
        epoch: int,
        node_id: NodeId,
    ) -> None:
        self.config = config
        self.services = services
        self.host = host
        self.node_id = node_id
        self.engine = Engine(services.store, host, epoch)
        self.events = EventLog(services.store, self.engine.journal)
        self.on_published: Callable[[], None] = lambda: None
        self.on_synced: Callable[[], None] = lambda: None
        """The chain was followed to the source's tip (again, after each restart of the source)."""
        self.on_reloaded: Callable[[], None] = lambda: None
        """Memory was read back from the store: what waited for a turn that was dropped may have happened."""
        self._caller = Caller(host, self.engine.post)
        self._unheard: deque[tuple[Peer, bytes]] = deque()
        self._unheard_bytes = 0
        self._degraded_because = ""
        # Each of these may need those above it.
        self.fees = FeeCache(services.named("fee_estimator", services.fee_estimators), host, self._caller)
        self.tracker = TxTracker(
            services.named("broadcaster", services.broadcasters), self._caller, self.publish, host.wall_time
        )
        self.channels = self._make_channels()
        self.reserve = ReserveKeeper(config.anchor_reserve, self.channels, services.wallet, services.onchain_signer)
        self.opener = self._make_opener(questions)
        self.payments = self._make_payments(questions)
        self.chain = self._make_chain()
        self.peers = self._make_peers(questions)
        self._connect()

    def _make_channels(self) -> ChannelManager:
        return ChannelManager(
            host=self.host,
            caller=self._caller,
            post=self.engine.post,
            after_commit=self.engine.after_commit,
            journal=self.engine.journal,
            signer=self.services.channel_signer,
            identity=self.services.node_identity,
            node_id=self.node_id,
            wallet=self.services.wallet,
            fees=self.fees,
            tracker=self.tracker,
            policy=self.config.policy,
            chain_hash=self.config.network.chain_hash,
            local_features=LOCAL_FEATURES,
            publish=self.publish,
        )

    def _make_opener(self, questions: Questions) -> Opener:
        return Opener(
            host=self.host,
            caller=self._caller,
            journal=self.engine.journal,
            channels=self.channels,
            signer=self.services.channel_signer,
            onchain_signer=self.services.onchain_signer,
            wallet=self.services.wallet,
            fees=self.fees,
            reserve=self.reserve,
            ask_accept=lambda request, answer: questions.accept_channel(request, answer),
        )

    def _make_payments(self, questions: Questions) -> PaymentManager:
        return PaymentManager(
            host=self.host,
            caller=self._caller,
            journal=self.engine.journal,
            channels=self.channels,
            identity=self.services.node_identity,
            publish=self.publish,
            ask_payment=lambda payment, answer: questions.accept_payment(payment, answer),
        )

    def _make_chain(self) -> ChainMonitor:
        services = self.services
        return ChainMonitor(
            sources=services.named("chain_source", [services.chain_source, *services.chain_fallbacks]),
            verifiers=services.named("chain_verifier", services.chain_verifiers),
            settings=self.config.chain,
            network=self.config.network,
            host=self.host,
            caller=self._caller,
            post=self.engine.post,
            after_commit=self.engine.after_commit,
            journal=self.engine.journal,
            tracker=self.tracker,
            wallet=services.wallet,
            channels=self.channels,
            publish=self.publish,
            standing=self.events.standing,
        )

    def _make_peers(self, questions: Questions) -> PeerManager:
        return PeerManager(
            host=self.host,
            caller=self._caller,
            post=self.engine.post,
            identity=self.services.node_identity,
            local_node_id=self.node_id,
            features=LOCAL_FEATURES,
            chain_hash=self.config.network.chain_hash,
            channels=self.channels,
            opener=self.opener,
            ask_peer=lambda info, answer: questions.accept_peer(info, answer),
        )

    def _connect(self) -> None:
        """Who takes part in a turn, in which order, and who hears of what from parts that do not know each other."""
        self.engine.set_participants(
            (
                _Waiting(self.opener),
                self.channels,
                self.payments,
                self.chain,
                _EventPart(self.events, lambda: self.on_published()),
                self.tracker,
                self.peers,
            )
        )
        self.engine.on_degraded = self._on_degraded
        self.engine.reload = self._reload
        self.fees.on_refreshed = lambda: self.engine.post(self.channels.on_feerates)
        self.channels.on_watch = self._on_watch
        self.tracker.on_ruled_out = self.channels.on_ruled_out
        self.chain.on_synced = self._chain_synced

    @classmethod
    async def load(
        cls, config: NodeConfig, services: Services, host: Host, questions: Questions | None = None
    ) -> "NodeCore":
        """Open the store, check that it is ours, load every part. Nothing is sent yet: run a turn next.

        ``LeydenError`` says in one line why the node cannot start; the store is closed then and nothing was written.
        """
        if config.network is Network.MAINNET:
            raise MainnetRefused
        node_id = await services.node_identity.node_id()
        try:
            return await cls._load(config, services, host, questions or Questions(), node_id)
        except BaseException:
            await services.store.close()
            raise

    @classmethod
    async def _load(
        cls, config: NodeConfig, services: Services, host: Host, questions: Questions, node_id: NodeId
    ) -> "NodeCore":
        store = services.store
        if isinstance(store, StorePeek):  # the epoch that ``open`` takes would stop a node that runs on it
            peeked = store.peek(config.network, keyspace.NODE_ID)
            check_schema(store.peek(config.network, keyspace.SCHEMA), is_new=peeked is None)
            _check_owner(peeked, node_id)
        epoch = await store.open(config.network)
        found = await store.get(keyspace.NODE_ID)
        is_old = check_schema(await store.get(keyspace.SCHEMA), is_new=found is None)
        owner = _check_owner(found, node_id)
        core = cls(config, services, host, questions, epoch, node_id)
        if owner is None:
            core.engine.journal.put(keyspace.NODE_ID, NODE_ID.encode(node_id))
        if is_old:
            core.engine.journal.put(keyspace.SCHEMA, SCHEMA.encode(SCHEMA_VERSION))
        try:
            await core._load_rows()
        except (StoreError, RecordError):
            raise
        except Exception as error:  # whatever a damaged or newer row provokes
            raise StoreRefused(
                f"the database cannot be read ({clean_text(f'{type(error).__name__}: {error}', 200)}): "
                "it is damaged or was written by a newer Leyden"
            ) from error
        core._resume()
        if getattr(store, "identity_changed", False):
            log.warning("database_copied_or_moved")
            core.engine.post(lambda: core.publish(Alarm(subject="store", text=COPIED)))
        elif core.events.standing("store") is not None:
            told = AlarmCleared(subject="store", text="the database is where the store was told that it is")
            core.engine.post(lambda: core.publish(told))
        return core

    async def _load_rows(self) -> None:
        store = self.services.store
        await self.events.load()
        await self.services.wallet.load(keyspace.WALLET, await store.scan(keyspace.WALLET), self.services.destinations)
        await self.services.wallet.top_up()
        self.chain.load(await store.scan(keyspace.CHAIN), self.config.birth_height)
        self.tracker.load(await store.scan(keyspace.TRANSACTION))
        self.peers.load(await store.scan(keyspace.PEER))
        self.payments.load(
            await store.scan(keyspace.INVOICE),
            await store.scan(keyspace.PAYMENT),
            await store.scan(keyspace.MAILBOX),
        )
        by_channel: dict[bytes, list[tuple[bytes, bytes]]] = {}
        for area in keyspace.CHANNEL_AREAS:
            for key, value in await store.scan(area):
                by_channel.setdefault(key[1:33], []).append((key, value))
        self.channels.restore(list(by_channel.values()))

    def _resume(self) -> None:
        self.engine.post(self.chain.watch_wallet)
        self.engine.post(self.chain.watch_coins)
        self.engine.post(self.chain.watch_spent_coins)
        self.engine.post(self.channels.resume)
        self.engine.post(self.payments.resume)
        self.engine.post(self.fees.refresh)
        self._repeat_later()

    async def _reload(self) -> None:
        """A commit failed, and whether its rows are on disk only the disk knows: memory becomes what is there.

        Every connection has ended by then, so this is a restart in all but name; callers keep waiting.
        """
        self.engine.journal.clear()
        await self._load_rows()
        # At once, not as mail: the mail that waited (blocks above all) must find every channel watching.
        self.chain.watch_wallet()
        self.chain.watch_coins()
        self.chain.watch_spent_coins()
        self.channels.resume("open:")
        self.payments.resume()
        self.chain.restart_all("the store was read back")
        self.on_reloaded()

    # -- peers are heard only at the tip of the chain ------------------------------------------------------------------

    def receive(self, peer: Peer, data: bytes) -> None:
        """Bytes of a peer. Before the chain has reached the source's tip they wait, in order and within a bound."""
        if self.chain.synced and not self._unheard:
            self.peers.receive(peer, data)
            return
        if self._unheard_bytes + len(data) > MAX_UNHEARD_BYTES:
            peer.fail("not at the tip of the chain", warn=False)
            return
        self._unheard_bytes += len(data)
        self._unheard.append((peer, data))

    def _chain_synced(self) -> None:
        self.on_synced()
        if self._unheard:
            self.engine.post(self._hear)

    def _hear(self) -> None:
        while self._unheard and self.chain.synced:
            peer, data = self._unheard.popleft()
            self._unheard_bytes -= len(data)
            self.peers.receive(peer, data)

    def on_suspended(self) -> None:
        """Time passed in which we saw nothing: every connection ends, the chain is followed to its tip, and only then
        peers are heard again."""
        self.chain.restart_all("the machine was suspended")
        self.peers.drop_all("suspended")
        self.tracker.repeat()

    def _repeat_later(self) -> None:
        """A quarter of the time is chance, so that nobody knows a node by its rhythm."""
        jitter = 0.75 + self.host.entropy(1)[0] / 1024
        self.host.call_later(REPEAT_SECONDS * jitter, self._repeat)

    def _repeat(self) -> None:
        self.engine.post(self.tracker.repeat_hopeful)
        self._repeat_later()

    def publish(self, event: NodeEvent) -> None:
        self.events.append(int(self.host.wall_time()), event)  # type: ignore[arg-type]

    def _on_watch(self, _actor: ChannelActor, watch: Watch) -> None:
        self.chain.watch(watch.script, watch.outpoint)

    def _on_degraded(self, reason: str) -> None:
        """One line when it begins; when it is over, an event, which could not be stored before."""
        if reason:
            log.error("storage_degraded", reason=reason)
            self._degraded_because = reason
        else:
            self.publish(Alarm(subject="storage", text=f"storage works again after: {self._degraded_because}"))


def _check_owner(row: bytes | None, node_id: NodeId) -> NodeId | None:
    """Whose the database is, ``None`` if it is new. ``LeydenError`` if it is another node's."""
    owner = None if row is None else NodeId(NODE_ID.decode(row))
    if owner is not None and owner != node_id:
        raise LeydenError(
            f"the database belongs to node {owner.hex()}, the keys to {node_id.hex()}: "
            "point data_dir at the folder of these keys"
        )
    return owner


class _Waiting:
    """Answers the callers of ``open`` at the end of a turn."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def end_turn(self) -> bool:
        return self._opener.check_batches()

    def write(self, journal: Journal) -> None:
        pass

    def commit(self) -> None:
        self._opener.check_waiting()

    def rollback(self) -> None:
        """Nothing is certain now; the next commit answers."""


class _EventPart:
    def __init__(self, events: EventLog, published: Callable[[], None]) -> None:
        self._events = events
        self._published = published

    def end_turn(self) -> bool:
        return False

    def write(self, journal: Journal) -> None:
        pass

    def commit(self) -> None:
        if self._events.commit():
            self._published()

    def rollback(self) -> None:
        self._events.rollback()
