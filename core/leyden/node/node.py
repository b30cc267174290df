"""``Node``: the typed asynchronous API of a running node.

Every method that changes something returns when the change is durable. Amounts are what their names say; ids are bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from leyden.bitcoin import decode_address
from leyden.channel import ChannelError, ChannelPolicy, ErrorCode, policy_mistake
from leyden.channel.events import ForceClose, Shutdown
from leyden.hooks.errors import SettingsError
from leyden.hooks.services import StoreError
from leyden.hooks.settings import read_settings
from leyden.hooks.types import (
    DestinationPurpose,
    LoggedEvent,
    Refusal,
    SpendRequest,
    WalletBalance,
    WalletCoin,
)
from leyden.node.batch import FundingWish
from leyden.node.calls import Calls, finish
from leyden.node.chain_runner import SourceRunner
from leyden.node.channels import ChannelActor
from leyden.node.core import NodeConfig, NodeCore, Questions, Services
from leyden.node.dispatcher import SPENDING, HookDispatcher, refuse_deadlock
from leyden.node.driver import AsyncioHost, Driver
from leyden.node.engine import StorageDegraded
from leyden.node.opening import BatchOpening
from leyden.node.paying import Payer, SpendRefused
from leyden.node.peer import Peer
from leyden.node.spending import Bumped, BumpMethod, Spender
from leyden.node.views import (
    ChannelView,
    InvoiceView,
    NodeInfo,
    PaymentView,
    PeerView,
    view_channel,
    view_peer,
)
from leyden.types import (
    ChannelId,
    FeeRatePerKw,
    LeydenError,
    Msat,
    NodeId,
    OutPoint,
    PaymentHash,
    RecordError,
    Sat,
    Txid,
)

log = structlog.get_logger("leyden.node")

T = TypeVar("T")
NOTHING = Msat(0)


class UnknownChannel(LeydenError):
    pass


class Node:
    """Make one with ``await Node.start(...)``."""

    def __init__(self, core: NodeCore, driver: Driver, host: AsyncioHost, hooks: HookDispatcher | None) -> None:
        self.core = core
        self.address: tuple[str, int] | None = None
        self._driver = driver
        self._host = host
        self._hooks = hooks
        self._published = asyncio.Event()
        self._plugins_started = False
        self._stopped: asyncio.Future[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._calls = Calls(core.engine)
        self._payer = Payer(core, self._calls, self._approve)
        self._spender = Spender(core, self._calls)
        core.on_published = self._published.set

    @classmethod
    async def start(
        cls,
        config: NodeConfig,
        services: Services,
        hooks: HookDispatcher | None = None,
        *,
        loaded: Callable[["Node"], Awaitable[None]] | None = None,
    ) -> "Node":
        """Load, follow the chain to its tip, then listen and dial. Returns when the node is ready for calls.

        ``loaded`` gets the node before it follows the chain, which may take hours: its looking methods work by then.
        """
        host = AsyncioHost()
        driver = Driver(host)
        questions = Questions()
        core = await NodeCore.load(config, services, host, questions)
        driver.attach(core)
        node = cls(core, driver, host, hooks)
        try:
            if loaded is not None:
                await loaded(node)
            await node._begin(services, questions)
        except BaseException:
            await node.stop()
            raise
        log.info("node_started", node_id=core.node_id.hex(), height=core.chain.height, address=node.address)
        return node

    async def _begin(self, services: Services, questions: Questions) -> None:
        core, hooks, config = self.core, self._hooks, self.core.config
        self._ask_plugins(questions)
        synced = self._calls.future()
        core.on_synced = lambda: finish(synced, None)
        await self._calls.call(lambda: None)  # a turn
        core.chain.set_reader(self._read_source)
        await core.chain.start_source()
        await _first(synced, self._driver.fatal, *self._tasks)
        if hooks is not None:
            self._plugins_started = True
            await hooks.start(self)
        if config.listen is not None:
            self.address = await self._driver.listen(config.listen)
        core.engine.post(core.peers.reconnect_all)
        for node_id, host_name, port in config.connect:
            core.engine.post(_connect_quietly(core, node_id, host_name, port))
        for consumer in hooks.event_consumers() if hooks is not None else ():
            self._start_task(self._feed(consumer), f"events for {consumer}")

    def _read_source(self, runner: SourceRunner) -> None:
        self._start_task(self._driver.pump(runner), f"chain over {runner.name}")

    def _start_task(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        """A task of the node ends only with it; anything else is a bug that must not stay unseen."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", task=task.get_name(), reason=f"{type(error).__name__}: {error}")

    async def stop(self) -> None:
        """Finish the turn, close every connection, then the store; callers that still wait get ``NodeStopped``.

        Safe to call twice, also at the same time.
        """
        if self._stopped is not None:
            await asyncio.shield(self._stopped)
            return
        self._stopped = asyncio.get_running_loop().create_future()
        self._calls.refuse()
        try:
            await self._stop()
        finally:
            self._stopped.set_result(None)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._driver.close()
        self._calls.end()
        if self._hooks is not None and self._plugins_started:
            self._plugins_started = False
            await _quietly("stop plugins", self._hooks.stop())
        for runner in self.core.chain.runners():
            await _quietly(f"stop chain source {runner.name}", runner.source.stop())
        await _quietly("close store", self.core.services.store.close())
        log.info("node_stopped", node_id=self.core.node_id.hex())

    async def failed(self) -> BaseException:
        """Waits until the node cannot go on (another process took the store)."""
        return await asyncio.shield(self._driver.fatal)

    # -- looking -----------------------------------------------------------------------------------------------------

    @property
    def node_id(self) -> NodeId:
        return self.core.node_id

    def info(self) -> NodeInfo:
        core = self.core
        return NodeInfo(
            node_id=core.node_id.hex(),
            network=core.config.network.name.lower(),
            address=None if self.address is None else f"{core.node_id.hex()}@{self.address[0]}:{self.address[1]}",
            height=core.chain.height,
            synced=core.chain.synced,
            peers=len(core.peers.connected()),
            channels=len(core.channels.channels()),
            pending_payments=len(core.payments.pending()),
            degraded=core.engine.degraded,
            last_event=core.events.last_index,
            chain_source=core.chain.source_name,
            chain_tip=max(core.chain.progress.target, core.chain.height),
            chain_degraded=core.chain.health.why,
            blocks_done=core.chain.progress.done,
            blocks_total=core.chain.progress.total,
            blocks_per_second=round(core.chain.progress.rate),
        )

    def peers(self) -> list[PeerView]:
        core = self.core
        return [
            view_peer(peer, len(core.channels.of_peer(peer.node_id))) for peer in core.peers.connected() if peer.node_id
        ]

    def channels(self) -> list[ChannelView]:
        return [view_channel(channel) for channel in self.core.channels.channels()]

    def wallet_balance(self) -> WalletBalance:
        return self.core.services.wallet.balance()

    def transactions(self) -> list[dict[str, str | int]]:
        """On-chain transactions of ours that are not irrevocable yet: why broadcasters refused them (``refused``, each
        with its reason), and which have taken them (``accepted_by``)."""
        tracker = self.core.tracker
        refusals = tracker.refusals
        return [
            {
                "txid": txid[::-1].hex(),
                "kind": kind.value,
                "confirmed_height": height,
                "refused": refusals.get(txid, ""),
                "accepted_by": ", ".join(said.broadcaster for said in tracker.reports(txid) if said.accepted),
            }
            for txid, kind, height in tracker.pending()
        ]

    # -- peers and channels --------------------------------------------------------------------------------------------

    async def connect(self, node_id: NodeId, host: str, port: int) -> None:
        """Returns when ``init`` was exchanged and nobody vetoed. ``ConnectFailed`` otherwise.

        If we have a channel with this peer, it is dialled again whenever the connection is lost, until ``disconnect``.
        """
        refuse_deadlock(node_id)
        await self._calls.begin(
            lambda done: self.core.peers.connect(node_id, host, port, lambda error: finish(done, None, error))
        )

    async def disconnect(self, node_id: NodeId) -> bool:
        """End the connection with a peer, and every attempt to reach it: ``connect`` that waits gets ``ConnectFailed``.

        From then on this node does not dial the peer by itself, also if they share a channel, until ``connect`` or the
        next start; the peer may dial in. HTLCs in flight keep their deadlines: a channel whose peer stays away too long
        is force-closed. Returns whether there was anything to end: a connection, an attempt, or attempts to come.
        """
        return await self._calls.call(lambda: self.core.peers.disconnect(node_id))

    async def open_channel(
        self,
        node_id: NodeId,
        funding: Sat,
        *,
        push: Msat = NOTHING,
        announce: bool = False,
        feerate: FeeRatePerKw | None = None,
        funding_feerate: FeeRatePerKw | None = None,
        coins: Sequence[OutPoint] = (),
        zero_conf: bool = False,
    ) -> ChannelId:
        """Returns the channel id once the funding transaction is durable and handed to the broadcasters.

        ``feerate`` is that of the commitments, ``funding_feerate`` that of the funding transaction; ``coins``: exactly
        these fund it. The anchor reserve stays in the wallet (``AnchorReserve``). ``zero_conf``: usable at once, which
        the peer must trust us for.
        """
        asked = FundingWish(feerate=funding_feerate, coins=tuple(coins))
        ((peer,), wish) = await self._approve_openings([(node_id, funding)], asked)
        channel_id: ChannelId = await self._calls.begin(
            lambda done: self.core.opener.open(
                peer,
                funding,
                push,
                announce,
                feerate,
                lambda channel_id: finish(done, channel_id),
                lambda error: finish(done, None, error),
                zero_conf=zero_conf,
                wish=wish,
            )
        )
        return channel_id

    async def open_channels(
        self, openings: Sequence[tuple[NodeId, Sat, Msat]], *, funding_feerate: FeeRatePerKw | None = None
    ) -> list[ChannelId]:
        """Open channels with one funding transaction: (node id, satoshi, pushed msat) each.

        Returns their ids once all are durable and the transaction is handed to the broadcasters. If one opening fails
        before that, all do (``BatchFailed``), nothing was broadcast and the coins are free.
        """
        named = [(node_id, funding) for node_id, funding, _ in openings]
        peers, wish = await self._approve_openings(named, FundingWish(feerate=funding_feerate))
        asked = [
            BatchOpening(peer=peer, funding=funding, push=push)
            for peer, (_, funding, push) in zip(peers, openings, strict=True)
        ]
        ids: list[ChannelId] = await self._calls.begin(
            lambda done: self.core.opener.open_batch(
                asked,
                wish,
                lambda ids: finish(done, ids),
                lambda error: finish(done, None, error),
            )
        )
        return ids

    async def _approve_openings(
        self, openings: Sequence[tuple[NodeId, Sat]], wish: FundingWish
    ) -> tuple[list[Peer], FundingWish]:
        """Ask for each channel, with its share of the fee if they have one transaction; the peers, and the wish with
        the bound that was approved."""
        refuse_deadlock(SPENDING)
        if openings and self._asks_for_approval:
            wish = await self._calls.call(lambda: self.core.opener.priced([funding for _, funding in openings], wish))
        fee = wish.max_fee or 0
        peers = []
        for index, (node_id, funding) in enumerate(openings):
            share = fee // len(openings) + (index < fee % len(openings))
            await self._approve("channel", Msat(funding * 1000), Msat(share * 1000), node_id.hex())
            peer = self.core.peers.get(node_id)
            if peer is None:
                raise LeydenError(f"not connected to {node_id.hex()}: connect first")
            peers.append(peer)
        return peers, wish

    async def close_channel(
        self,
        channel_id: ChannelId,
        *,
        force: bool = False,
        script: bytes = b"",
        feerate: FeeRatePerKw | None = None,
        max_fee: Sat | None = None,
    ) -> None:
        """Begin a cooperative close, or broadcast our commitment (``force``). Returns when that decision is durable.

        ``script`` gets our coins (default: one of the wallet); ``feerate`` is the target for the closing transaction
        and ``max_fee``, satoshi, the most that we pay for it. ``ChannelError`` for a forced close with one of these:
        what it broadcasts was signed before.
        """
        refuse_deadlock(channel_id)
        if force and (script or feerate is not None or max_fee is not None):
            raise ChannelError(ErrorCode.BAD_PARAMETERS, "a forced close takes no script, feerate or max_fee")
        command: ForceClose | Shutdown = ForceClose(reason="asked for")
        if not force:
            command = Shutdown(script=script, feerate=feerate, max_fee=max_fee)
        await self._calls.call(lambda: self.core.channels.apply(self._actor(channel_id), command))

    async def update_channel_policy(self, **changes: object) -> ChannelPolicy:
        """Change fields of ``ChannelPolicy`` for as long as the node runs; returns the policy that now holds.

        Limits and fees bind at once (``commitment_feerate`` by an ``update_fee`` on every channel that we funded);
        terms that stand in opening messages bind channels that are opened from now on. At the next start the config
        decides again. ``SettingsError`` names what is wrong, and nothing has changed then.
        """

        def change() -> ChannelPolicy:
            held = self.core.channels.policy
            policy = read_settings(msgspec.structs.asdict(held) | changes, ChannelPolicy, "channel")
            if mistake := policy_mistake(policy):
                raise SettingsError(f"[channel] {mistake}")
            self.core.channels.set_policy(policy)
            return policy

        return await self._calls.call(change)

    def channel_policy(self) -> ChannelPolicy:
        """Our terms and limits as they hold now."""
        return self.core.channels.policy

    def _actor(self, channel_id: ChannelId) -> ChannelActor:
        actor = self.core.channels.get(channel_id)
        if actor is None:
            raise UnknownChannel(f"no channel {channel_id.hex()}")
        return actor

    # -- payments ------------------------------------------------------------------------------------------------------

    async def create_invoice(
        self, amount_msat: Msat | None, description: str, *, expiry: int = 3600, label: str = ""
    ) -> InvoiceView:
        """A signed BOLT 11 invoice, stored before it is returned. ``amount_msat`` None: the payer chooses."""
        return await self._payer.create_invoice(amount_msat, description, expiry, label)

    async def pay(
        self, bolt11: str, amount_msat: Msat | None = None, *, key: str = "", timeout: float | None = None
    ) -> PaymentView:
        """Pay an invoice and wait for the end. A payment already begun is never begun again: its outcome is returned.

        ``PaymentError`` when it cannot start; ``TimeoutError`` after ``timeout`` seconds (the payment goes on).
        """
        return await self._payer.pay(bolt11, amount_msat, key, timeout)

    async def payment(self, payment_hash: PaymentHash) -> PaymentView | None:
        return await self._payer.payment(payment_hash)

    async def payments(self) -> list[PaymentView]:
        return await self._payer.payments()

    async def invoice(self, payment_hash: PaymentHash) -> InvoiceView | None:
        return await self._payer.invoice(payment_hash)

    async def invoices(self) -> list[InvoiceView]:
        return await self._payer.invoices()

    # -- wallet --------------------------------------------------------------------------------------------------------

    async def new_address(self, *, taproot: bool = False) -> str:
        """An address that was never handed out. ``LeydenError`` if the key manager has no taproot keys."""
        purpose = DestinationPurpose.RECEIVE_TAPROOT if taproot else DestinationPurpose.RECEIVE
        return await self._spender.new_address(purpose)

    async def descriptors(self) -> Sequence[str]:
        """Public descriptors of the wallet's scripts, for another wallet to watch."""
        return await self.core.services.onchain_signer.descriptors()

    def anchor_reserve(self) -> tuple[Sat, Sat]:
        """What anchor channels need in confirmed coins, and what is there for them, satoshi."""
        return self.core.reserve.needed(), self.core.reserve.held

    def coins(self) -> Sequence[WalletCoin]:
        """Every coin of the wallet, and whether it would be spent now."""
        return self.core.services.wallet.coins()

    async def send_coins(
        self, address: str, amount: Sat, *, feerate: FeeRatePerKw | None = None, coins: Sequence[OutPoint] = ()
    ) -> Txid:
        """Pay an address from the wallet. Returns the txid once the transaction is durable and broadcast.

        ``coins``: exactly these are spent. The anchor reserve stays in the wallet (``ReserveNeeded``).
        ``CoinUnavailable`` also if a coin was spent elsewhere while the signer thought: nothing was sent then.
        """
        refuse_deadlock(SPENDING)
        script = decode_address(address, self.core.config.network)

        async def approve(fee: Sat) -> None:
            await self._approve("onchain", Msat(amount * 1000), Msat(fee * 1000), address)

        return (await self._spender.send(script, amount, feerate, coins, approve)).txid

    async def bump(self, txid: Txid, feerate: FeeRatePerKw, method: BumpMethod | None = None) -> Bumped:
        """More fee for an unconfirmed transaction of ours, to ``feerate`` (see ``Spender.bump``; ``CannotBump``)."""
        return await self._spender.bump(txid, feerate, method)

    # -- events --------------------------------------------------------------------------------------------------------

    async def events(self, after: int = 0, limit: int = 100) -> list[LoggedEvent]:
        return await self.core.events.read(after, limit)

    async def follow(self, after: int) -> AsyncIterator[LoggedEvent]:
        """Every event after the cursor ``after``, then each new one as it becomes durable."""
        while True:
            self._published.clear()
            for event in await self.core.events.read(after):
                after = event.index
                yield event
            if after >= self.core.events.last_index:
                await self._published.wait()

    async def _feed(self, consumer: str) -> None:
        """Bring the log to one plugin: at least once, in order, its cursor durable, retried alone."""
        delay, after = 1.0, -1
        while True:
            try:
                after = await self.core.events.cursor(consumer) if after < 0 else after
                batch = await self.core.events.read(after, 20)
                for event in batch:
                    after = await self._deliver(consumer, event)
                if batch:
                    await self._calls.call(partial(self.core.events.set_cursor, consumer, after))
            except (StorageDegraded, StoreError, RecordError) as error:
                log.warning("events_wait_for_storage", consumer=consumer, reason=str(error))
                await asyncio.sleep(delay)
                delay = min(delay * 2, 30.0)
                continue
            delay = 1.0
            if not batch:
                await asyncio.sleep(0.05) if after < self.core.events.last_index else await self._wait_published()

    async def _deliver(self, consumer: str, event: LoggedEvent) -> int:
        delay = 1.0
        while self._hooks is not None and not await self._hooks.deliver_event(consumer, event):
            await asyncio.sleep(delay)
            delay = min(delay * 2, 60.0)
        return event.index

    async def _wait_published(self) -> None:
        last = self.core.events.last_index
        while self.core.events.last_index == last:
            self._published.clear()
            await self._published.wait()

    # -- plumbing ------------------------------------------------------------------------------------------------------

    @property
    def _asks_for_approval(self) -> bool:
        return self._hooks is not None and self._hooks.asks("leyden_approve_spend")

    async def _approve(self, kind: str, amount: Msat, max_fee: Msat, destination: str) -> None:
        refuse_deadlock(SPENDING)
        if self._hooks is None or not self._asks_for_approval:
            return
        request = SpendRequest(kind=kind, amount_msat=amount, max_fee_msat=max_fee, destination=destination)
        refusal = await self._hooks.spend_refusal(request)
        if refusal is not None:
            raise SpendRefused(f"a plugin refused to spend {amount} msat on a {kind}: {refusal}")

    def _ask_plugins(self, questions: Questions) -> None:
        """Questions go to plugins only where one answers them; the answer is mail of a later turn."""
        hooks = self._hooks
        if hooks is None:
            return
        if hooks.asks("leyden_accept_peer"):
            questions.accept_peer = lambda info, answer: self._ask(
                hooks.accept_peer(info), answer, "refused by a plugin", "accept_peer"
            )
        if hooks.asks("leyden_accept_channel"):
            refusal = Refusal(reason="not accepting channels right now")
            questions.accept_channel = lambda request, answer: self._ask(
                hooks.accept_channel(request), answer, refusal, "accept_channel"
            )
        if hooks.asks("leyden_accept_payment"):
            questions.accept_payment = lambda payment, answer: self._ask(
                hooks.accept_payment(payment), answer, False, "accept_payment"
            )

    def _ask(self, work: Coroutine[Any, Any, T], answer: Callable[[T], None], on_error: T, name: str) -> None:
        def done(value: T | None, error: BaseException | None) -> None:
            said = on_error if error is not None else value
            self.core.engine.post(lambda: answer(said))  # type: ignore[arg-type]

        self._host.spawn(work, done, name)


async def _quietly(what: str, work: Coroutine[Any, Any, None]) -> None:
    """A plugin that cannot stop must not keep the others from it."""
    try:
        await work
    except Exception as error:
        log.error("not_stopped_cleanly", what=what, reason=f"{type(error).__name__}: {error}")


async def _first(*futures: "asyncio.Future[Any]") -> None:
    """Until the first of these is done; raises what it raised, or the fatal error it carries."""
    done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future in done:
        result = future.result()
        if isinstance(result, BaseException):
            raise result


def _connect_quietly(core: NodeCore, node_id: NodeId, host: str, port: int) -> Callable[[], None]:
    def note(error: BaseException | None) -> None:
        if error is not None:
            log.warning("not_connected", reason=str(error))

    return lambda: core.peers.connect(node_id, host, port, note)
