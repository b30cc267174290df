"""ChainMonitor: feeds blocks, in the order that ``leyden.chain`` made of them, to tracker, wallet and channels."""

from collections.abc import Callable, Sequence

import structlog

from leyden.bitcoin import Network
from leyden.chain import (
    BlockFetched,
    BlockRescanned,
    ChainFollower,
    FetchBlock,
    FollowerInput,
    HistoryMissing,
    RestartSource,
    SourceFault,
    WatchesAdded,
)
from leyden.chain import load as load_follower
from leyden.chain import records as follower_records
from leyden.chain import step as follower_step
from leyden.hooks.services import ChainSource, Wallet
from leyden.hooks.types import (
    Alarm,
    BlockConnected,
    BlocksDisconnected,
    ChainEvent,
    NodeEvent,
    SourceSynced,
    Watch,
)
from leyden.node import keyspace
from leyden.node.channels import ChannelManager
from leyden.node.host import Caller, Host
from leyden.node.journal import Journal
from leyden.node.txtracker import TxTracker
from leyden.types import BlockHeight, OutPoint, clean_text

log = structlog.get_logger("leyden.chain")

FETCH_RETRY_SECONDS = 2.0
ALARM_RESTARTS = 10


class ChainMonitor:
    """One follower; best block and headers are stored once, with the turn that absorbed them."""

    def __init__(
        self,
        *,
        source: ChainSource,
        network: Network,
        host: Host,
        caller: Caller,
        post: Callable[[Callable[[], None]], None],
        after_commit: Callable[[Callable[[], None]], None],
        journal: Journal,
        tracker: TxTracker,
        wallet: Wallet,
        channels: ChannelManager,
        publish: Callable[[NodeEvent], None],
    ) -> None:
        self._source = source
        self._network = network
        self._host = host
        self._caller = caller
        self._post = post
        self._after_commit = after_commit
        self._journal = journal
        self._tracker = tracker
        self._wallet = wallet
        self._channels = channels
        self._publish = publish
        self._follower: ChainFollower | None = None
        self._durable: ChainFollower | None = None
        self._watched: set[tuple[bytes, OutPoint | None]] = set()
        self._birth = BlockHeight(0)
        self._restarts = 0
        self._restarting = False
        self._behind = False
        self.on_synced: Callable[[], None] = lambda: None

    # -- life --------------------------------------------------------------------------------------------------------

    def load(self, rows: Sequence[tuple[bytes, bytes]], birth_height: BlockHeight) -> None:
        """From rows, with nothing watched: everybody who watches says so again."""
        self._birth = birth_height
        self._watched.clear()
        self._restarting = False
        self._follower = self._durable = load_follower(rows, keyspace.CHAIN, self._network, birth_height)
        self._channels.height = self._follower.height

    @property
    def follower(self) -> ChainFollower:
        if self._follower is None:
            raise RuntimeError("the chain monitor was not loaded")
        return self._follower

    @property
    def height(self) -> BlockHeight:
        return self.follower.height

    @property
    def synced(self) -> bool:
        """At the source's tip: not before it said so, not in the middle of a reorg, not while a gap is closed."""
        return self._follower is not None and self._follower.synced and not self._behind

    async def start_source(self) -> None:
        """Begin (or begin again) where we are."""
        await self._source.start(self.follower.locator, self._birth)

    def restart(self, reason: str) -> None:
        """The stream is not to be trusted any more (it ended, or events were lost): take it up again from our tip."""
        self._restart_later(reason)

    def watch(self, script: bytes, outpoint: OutPoint | None) -> None:
        """From the best block on; asking twice is harmless."""
        if (script, outpoint) in self._watched:
            return
        self._watched.add((script, outpoint))
        watch = Watch(script=script, outpoint=outpoint, since_height=self.follower.height)
        self._absorb(WatchesAdded(watches=(watch,), active_from=None))
        self._after_commit(lambda: self._caller.call(self._source, self._source.watch([watch]), _note_watch, "watch"))

    def watch_wallet(self) -> None:
        """Scripts that the wallet derived ahead since the last call."""
        for script in self._wallet.scripts():
            self.watch(script, None)

    def alarm(self, reason: str) -> None:
        self._publish(Alarm(subject="chain_source", text=clean_text(reason)))

    # -- events ------------------------------------------------------------------------------------------------------

    def on_event(self, event: ChainEvent) -> None:
        """What the source sent, in whatever order."""
        self._absorb(event)

    def _absorb(self, happened: FollowerInput) -> None:
        self._follower, outputs = follower_step(self.follower, happened)
        for output in outputs:
            match output:
                case BlockConnected():
                    self._on_connected(output)
                case BlocksDisconnected():
                    self._on_disconnected(output)
                case SourceSynced():
                    self._restarts = 0
                    self._behind = False
                    self._after_commit(self.on_synced)
                case BlockRescanned():
                    self._on_rescanned(output)
                case FetchBlock():
                    self._after_commit(lambda ask=output: self._fetch(ask))  # type: ignore[misc]
                case RestartSource(reason=reason):
                    self._restart_later(reason)
                case SourceFault(reason=reason):
                    log.warning("chain_source_fault", reason=reason)
                    self.alarm(reason)
                case HistoryMissing(from_height=height):
                    self._publish(
                        Alarm(subject="chain_history", text=f"blocks before {height} cannot be looked at again")
                    )

    def _on_connected(self, block: BlockConnected) -> None:
        self._tracker.on_transactions([entry.tx for entry in block.transactions], block.height)
        self._journal.merge(self._wallet.on_block_connected(block))
        self._channels.on_block(block)
        self._tracker.on_block(block.height)
        self.watch_wallet()

    def _on_rescanned(self, found: BlockRescanned) -> None:
        """Matches of a late watch in a block already told; the wallet takes blocks below its tip."""
        self._tracker.on_transactions([entry.tx for entry in found.transactions], found.height)
        block = BlockConnected(
            height=found.height, block_hash=found.block_hash, header=b"", transactions=found.transactions, full=False
        )
        self._journal.merge(self._wallet.on_block_connected(block))
        self._channels.on_rescanned(found.height, found.transactions)

    def _on_disconnected(self, event: BlocksDisconnected) -> None:
        log.warning("blocks_disconnected", fork_height=event.fork_height)
        self._tracker.on_disconnected(event.fork_height)
        self._journal.merge(self._wallet.on_blocks_disconnected(event))
        self._channels.on_disconnected(event.fork_height)

    def _fetch(self, ask: FetchBlock) -> None:
        def done(block: BlockConnected | None, error: BaseException | None) -> None:
            if block is not None:
                self._absorb(BlockFetched(block=block))
            else:
                log.warning("block_not_fetched", height=ask.height, reason=str(error))
                self._host.call_later(FETCH_RETRY_SECONDS, lambda: self._post(lambda: self._fetch(ask)))

        self._caller.call(self._source, self._source.get_block(ask.block_hash), done, "fetch block")

    def _restart_later(self, reason: str) -> None:
        """A gap in the stream: begin again from our locator, more slowly the more often that did not help."""
        self._behind = True
        if self._restarting:
            return
        log.info("chain_source_restarts", reason=reason, times=self._restarts)
        self._restarting = True
        delay = min(0.05 * 2**self._restarts, 30.0) if self._restarts else 0.0
        self._restarts = min(self._restarts + 1, 20)
        if self._restarts == ALARM_RESTARTS:
            self._publish(Alarm(subject="chain_source", text=f"the chain source does not close a gap: {reason}"))
        if delay:
            self._host.call_later(delay, lambda: self._post(self._restart))
        else:
            self._after_commit(self._restart)

    def _restart(self) -> None:
        self._restarting = False

        def done(_: None, error: BaseException | None) -> None:
            if error is not None:
                log.warning("chain_source_not_started", reason=str(error))
                self._host.call_later(FETCH_RETRY_SECONDS, lambda: self._post(self._restart))

        self._caller.call(self._source, self.start_source(), done, "restart chain source")

    # -- turn --------------------------------------------------------------------------------------------------------

    def end_turn(self) -> bool:
        return False

    def write(self, journal: Journal) -> None:
        if self._follower is not None and self._follower is not self._durable:
            journal.merge(follower_records(self._durable, self._follower, keyspace.CHAIN))

    def commit(self) -> None:
        self._durable = self._follower

    def rollback(self) -> None:
        """Back to the durable tip. The source moved on without us: ``load`` and ``restart`` put that right."""
        if self._durable is not None:
            self._follower = self._durable
            self._channels.height = self._follower.height


def _note_watch(active_from: BlockHeight | None, error: BaseException | None) -> None:
    if error is not None:
        log.warning("watch_not_acknowledged", reason=str(error))
