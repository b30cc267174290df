"""One chain source and the follower that puts its events in order: started, restarted, told of watches, asked for
blocks. What comes out goes to whoever owns the runner."""

from collections import deque
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from leyden.bitcoin import Network
from leyden.chain import (
    BlockFetched,
    ChainFollower,
    FetchBlock,
    FollowerInput,
    FollowerOutput,
    LookBack,
    RestartSource,
    WatchesAdded,
)
from leyden.chain import SourceFault as Fault
from leyden.chain import step as follower_step
from leyden.hooks.services import ChainSource
from leyden.hooks.types import (
    BlockConnected,
    ChainEvent,
    SourceSynced,
    SourceTip,
    SourceTrouble,
    Watch,
)
from leyden.node.chain_progress import Progress
from leyden.node.host import Caller, Host
from leyden.types import BlockHeight, OutPoint, clean_text

log = structlog.get_logger("leyden.chain")

RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0
MAX_FETCHES = 4
"""Blocks asked for at the same time when watches look back."""
LOOK_BACK = 144
"""Blocks that are looked at again where a source may not have told all of them: one that brings matches tells late
what it finds late, and we or it may have gone meanwhile."""
ALARM_RESTARTS = 10
ALARM_FETCHES = 5


class SourceRunner:
    """Of a source nobody knows yet: ``follower`` stands where it would go on."""

    def __init__(
        self,
        name: str,
        source: ChainSource,
        *,
        follower: ChainFollower,
        host: Host,
        caller: Caller,
        post: Callable[[Callable[[], None]], None],
        after_commit: Callable[[Callable[[], None]], None],
        on_output: Callable[["SourceRunner", FollowerOutput], None],
        on_warning: Callable[["SourceRunner", str], None],
    ) -> None:
        self.name = name
        self.source = source
        self.follower = follower
        self.birth = BlockHeight(0)
        self.progress = Progress()
        self.wanted = False
        """It was told to start, whether that came to anything or not."""
        self.started = False
        """``start`` of the source was called and did not fail."""
        self.trouble = ""
        """Why it cannot work now: what it says itself, an ended stream, a lie."""
        self.trouble_since = 0.0
        self.healthy_since = 0.0
        self._host = host
        self._caller = caller
        self._post = post
        self._after_commit = after_commit
        self._on_output = on_output
        self._on_warning = on_warning
        self._noted: dict[tuple[bytes, OutPoint | None], Watch] = {}
        self._unsent: list[Watch] = []
        self._fetches: deque[FetchBlock] = deque()
        self._fetching = 0
        self._failures = 0
        self._restarts = 0
        self._restarting = False
        self._behind = False
        self.on_started: Callable[[SourceRunner], None] = lambda _runner: None
        """The source runs for the first time: somebody must read its events from now on."""

    # -- life --------------------------------------------------------------------------------------------------------

    @property
    def synced(self) -> bool:
        """At the source's tip: not before it said so, not in the middle of a reorg, not while a gap is closed."""
        return self.follower.synced and not self._behind

    @property
    def well(self) -> bool:
        """It could be followed right now."""
        return self.started and self.synced and not self.trouble

    def reset(self, follower: ChainFollower, birth: BlockHeight) -> None:
        """Memory is what the disk says: nothing is watched, nothing is asked for. ``restart`` follows."""
        self.follower = msgspec.structs.replace(follower, proofs=self._must_prove)
        self.birth = birth
        self._noted.clear()
        self._unsent.clear()
        self._fetches.clear()
        self._restarting = False

    @property
    def _must_prove(self) -> bool:
        """Whether a transaction that does not come in a whole block needs its merkle branch."""
        return self.source.info.proofs or self.source.info.full_blocks

    def _asked(self, watch: Watch) -> Watch:
        """As the source is asked: one that looks back by itself begins some way before."""
        if self.source.info.full_blocks:
            return watch
        since = max(watch.since_height - LOOK_BACK, self.follower.chain.base_height, 0)
        return msgspec.structs.replace(watch, since_height=BlockHeight(min(watch.since_height, since)))

    def take_over(self, follower: ChainFollower, *, may_owe: bool = False) -> None:
        """Go on where another source stopped, at once; blocks that it was asked for are asked for here, if there are
        whole ones here. ``may_owe``: it brought matches, and may not have told all of them.

        This source may be ahead of ``follower``: what it was told to watch from its own tip on counts from ours.
        """
        info = self.source.info
        self.follower = msgspec.structs.replace(follower, newest=None, synced=False, proofs=self._must_prove)
        self._fetches.clear()
        for key, watch in self._noted.items():
            since = BlockHeight(min(watch.since_height, follower.height))
            self._noted[key] = msgspec.structs.replace(watch, since_height=since)
        if info.full_blocks:
            if may_owe:
                self.absorb(LookBack(from_height=BlockHeight(max(follower.height - LOOK_BACK + 1, 0))))
            for rescan in follower.rescans:
                if rescan.found is None:
                    ask = FetchBlock(height=rescan.height, block_hash=rescan.block_hash)
                    self._after_commit(partial(self._fetch_later, ask))
        self._restarting = False
        self._restarts = 0
        self.restart("takes over")

    async def start(self) -> None:
        """Everything that is watched, then the stream from where we are. Raises what the source raises."""
        self.wanted = True
        watches = [self._asked(watch) for watch in self._noted.values()]
        self._unsent.clear()
        if watches:
            await self.source.watch(watches)
        await self.source.start(self.follower.locator, self.birth)
        if not self.started:
            self.started = True
            self.on_started(self)

    def restart(self, reason: str) -> None:
        """A gap in the stream: begin again from our locator, more slowly the more often that did not help."""
        self._behind = self.wanted = True
        if self._restarting:
            return
        log.info("chain_source_restarts", source=self.name, reason=reason, times=self._restarts)
        self._restarting = True
        delay = min(0.05 * 2**self._restarts, 30.0) if self._restarts else 0.0
        self._restarts = min(self._restarts + 1, 20)
        if self._restarts == ALARM_RESTARTS:
            self._on_warning(self, f"the chain source {self.name} does not close a gap: {reason}")
        if delay:
            self._host.call_later(delay, lambda: self._post(self._restart))
        else:
            self._after_commit(self._restart)

    def _restart(self) -> None:
        if not self._restarting:
            return
        self._restarting = False

        def done(_: None, error: BaseException | None) -> None:
            if error is not None:
                self.in_trouble(f"it does not start: {error}")
                log.warning("chain_source_not_started", source=self.name, reason=str(error))
                self._restarting = True
                self._host.call_later(self._pause(), lambda: self._post(self._restart))

        self._caller.call(self.source, self.start(), done, f"start chain source {self.name}")

    def _pause(self) -> float:
        return min(RETRY_SECONDS * (1 << min(self._restarts, 6)), MAX_RETRY_SECONDS)

    def in_trouble(self, reason: str) -> None:
        """It cannot work (or, with an empty ``reason``, can again)."""
        if reason and not self.trouble:
            self.trouble_since = self._host.wall_time()
        elif not reason and self.trouble:
            self.healthy_since = self._host.wall_time()
        self.trouble = clean_text(reason)

    # -- watching ----------------------------------------------------------------------------------------------------

    def watch(self, script: bytes, outpoint: OutPoint | None) -> None:
        """From the best block on, or some way back if the source looks there by itself; asking twice is harmless.
        Watches of one turn reach the source in one call."""
        if (script, outpoint) in self._noted:
            return
        watch = Watch(script=script, outpoint=outpoint, since_height=self.follower.height)
        self._noted[script, outpoint] = watch
        # A source without whole blocks looks back by itself, and delivers ``HistoryFound``.
        active_from = None if self.source.info.full_blocks else BlockHeight(0)
        if not self._unsent:
            self._after_commit(self._send_watches)
        self._unsent.append(watch)
        self.absorb(WatchesAdded(watches=(watch,), active_from=active_from))

    def watches_since(self, height: int) -> list[Watch]:
        """Those that count for the block at ``height``."""
        return [watch for watch in self._noted.values() if watch.since_height <= height]

    def asked_since(self, height: int) -> list[Watch]:
        """Those that the source itself was told to look for in the block at ``height``."""
        return [watch for watch in self._noted.values() if self._asked(watch).since_height <= height]

    def _send_watches(self) -> None:
        watches, self._unsent = self._unsent, []
        if not watches or not self.started:  # ``start`` sends all of them
            return

        def done(_active_from: BlockHeight | None, error: BaseException | None) -> None:
            if error is None:
                return
            log.warning("watch_not_acknowledged", source=self.name, watches=len(watches), reason=str(error))
            self._unsent.extend(watch for watch in watches if (watch.script, watch.outpoint) in self._noted)
            self._host.call_later(self._pause(), lambda: self._post(self._send_watches))

        asked = [self._asked(watch) for watch in watches]
        self._caller.call(self.source, self.source.watch(asked), done, f"watch over {self.name}")

    # -- events ------------------------------------------------------------------------------------------------------

    def on_event(self, event: ChainEvent) -> None:
        """What the source sent, in whatever order."""
        match event:
            case SourceTip(height=height):
                self.progress.on_target(height, self.follower.height, self._host.wall_time())
            case SourceTrouble(reason=reason):
                self.in_trouble(reason)
            case _:
                pass
        self.absorb(event)

    def absorb(self, happened: FollowerInput) -> None:
        # A regtest chain may live in a time of its own.
        regtest = self.follower.chain.network is Network.REGTEST
        now = None if regtest else int(self._host.wall_time())
        self.follower, outputs = follower_step(self.follower, happened, now)
        for output in outputs:
            match output:
                case BlockConnected():
                    self.in_trouble("")
                    if not self.follower.synced or output.height > self.progress.target:
                        self.progress.on_block(output.height, self._host.wall_time())
                case SourceSynced():
                    self.in_trouble("")
                    self._restarts = 0
                    self._behind = False
                    self.progress.on_synced(self.follower.height, self._host.wall_time())
                case FetchBlock():
                    self._after_commit(partial(self._fetch_later, output))
                case RestartSource(reason=reason):
                    self.restart(reason)
                case Fault(reason=reason):
                    self.in_trouble(reason)
                    log.warning("chain_source_fault", source=self.name, reason=reason)
                    self.restart(f"it was at fault: {reason}")
                case _:
                    pass
            self._on_output(self, output)

    # -- looking back ------------------------------------------------------------------------------------------------

    def _fetch_later(self, ask: FetchBlock) -> None:
        self._fetches.append(ask)
        self._fetch_next()

    def _fetch_next(self) -> None:
        while self._fetches and self._fetching < MAX_FETCHES:
            ask = self._fetches.popleft()
            if self._is_missing(ask):
                self._fetching += 1
                self._fetch(ask)

    def _is_missing(self, ask: FetchBlock) -> bool:
        rescans = self.follower.rescans
        return any(rescan.block_hash == ask.block_hash and rescan.found is None for rescan in rescans)

    def _fetch(self, ask: FetchBlock) -> None:
        def done(block: BlockConnected | None, error: BaseException | None) -> None:
            self._fetching -= 1
            reason = str(error)
            if block is not None:
                self.absorb(BlockFetched(block=block))
                reason = self.trouble or "another block came"
            if self._is_missing(ask):
                self._fetch_again(ask, reason)
            else:
                self._failures = 0
            self._fetch_next()

        self._caller.call(self.source, self.source.get_block(ask.block_hash), done, f"fetch block over {self.name}")

    def _fetch_again(self, ask: FetchBlock, reason: str) -> None:
        self._failures += 1
        log.warning("block_not_fetched", source=self.name, height=ask.height, reason=reason)
        if self._failures == ALARM_FETCHES:
            self._on_warning(self, f"block {ask.height} cannot be looked at again over {self.name}: {reason}")
        delay = min(RETRY_SECONDS * (1 << min(self._failures - 1, 5)), MAX_RETRY_SECONDS)
        self._host.call_later(delay, lambda: self._post(lambda: self._fetch_later(ask)))
