"""ChainMonitor: feeds blocks, in the order that ``leyden.chain`` made of them, to tracker, wallet and channels.

It follows one source at a time. Others stand by, each with a follower of its own, and take over where that one stopped;
verifiers are compared with what is followed (``leyden.node.chain_verify``).
"""

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from leyden.bitcoin import Network
from leyden.chain import BlockRescanned, ChainFollower, FollowerOutput, HistoryMissing
from leyden.chain import load as load_follower
from leyden.chain import records as follower_records
from leyden.hooks.services import ChainSource, Wallet
from leyden.hooks.types import (
    Alarm,
    AlarmCleared,
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    ChainEvent,
    NodeEvent,
    SourceSynced,
    SourceWarning,
)
from leyden.node import keyspace
from leyden.node.chain_health import ChainHealth, ChainSettings
from leyden.node.chain_progress import Progress
from leyden.node.chain_runner import SourceRunner
from leyden.node.chain_verify import Told, Verification
from leyden.node.channels import ChannelManager
from leyden.node.host import Caller, Host
from leyden.node.journal import Journal
from leyden.node.txtracker import IRREVOCABLE_DEPTH, TxTracker
from leyden.types import BlockHash, BlockHeight, OutPoint, clean_text

log = structlog.get_logger("leyden.chain")

CHECK_SECONDS = 15.0
"""How often troubles are looked at; more often if the settings ask for less patience than twice that."""
STALL_SECONDS = 120.0
"""How long a source may be behind another one that stands by, or short of its own tip (until it is there no peer is
heard), before that one takes over."""
LOST_BLOCKS = 3
"""A chain that ends so far below what was once validated is not the best one."""
_TIME = slice(68, 72)


class ChainMonitor:
    """Best block and headers are stored once, with the turn that absorbed them."""

    def __init__(
        self,
        *,
        sources: Sequence[tuple[str, ChainSource]],
        verifiers: Sequence[tuple[str, ChainSource]] = (),
        settings: ChainSettings,
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
        standing: Callable[[str], str | None],
    ) -> None:
        self._settings = settings
        self._tip_age = settings.tip_age_seconds(network)
        self._network = network
        self._host = host
        self._post = post
        self._after_commit = after_commit
        self._journal = journal
        self._tracker = tracker
        self._wallet = wallet
        self._channels = channels
        self._publish = publish
        self._standing = standing
        self.health = ChainHealth(publish, host.wall_time, standing)
        self.health.on_change = lambda why: setattr(channels, "chain_trouble", why)

        runner = partial(self._runner, caller)
        self._sources = [runner(name, source) for name, source in sources]
        self._told = Told()
        known = {id(made.source): made for made in self._sources}  # one that stands by may verify as well
        self._verifications = [
            Verification(known.get(id(source)) or runner(name, source), self._told) for name, source in verifiers
        ]
        self._main = self._sources[0]
        self._durable: ChainFollower | None = None
        self._highest = BlockHeight(0)
        """The highest block that any source proved; deadlines count from it."""
        self._wallet_scripts = 0
        self._watched: set[tuple[bytes, OutPoint | None]] = set()
        self._was_synced = False
        self._repeat_due = False
        """Blocks were connected on the way to the tip: what waits is broadcast again there."""
        self._stalled_since = 0.0
        self.on_synced: Callable[[], None] = lambda: None

    def _runner(self, caller: Caller, name: str, source: ChainSource) -> SourceRunner:
        return SourceRunner(
            name,
            source,
            follower=load_follower((), keyspace.CHAIN, self._network, BlockHeight(0)),
            host=self._host,
            caller=caller,
            post=self._post,
            after_commit=self._after_commit,
            on_output=self._on_output,
            on_warning=lambda _runner, text: self._warn(text),
        )

    # -- life --------------------------------------------------------------------------------------------------------

    def load(self, rows: Sequence[tuple[bytes, bytes]], birth_height: BlockHeight) -> None:
        """From rows, with nothing watched: everybody who watches says so again."""
        self._watched.clear()
        self._wallet_scripts = 0
        self.health.forget()
        self._told.clear()
        for verification in self._verifications:
            verification.forget()
        self._durable = load_follower(rows, keyspace.CHAIN, self._network, birth_height)
        for runner in self.runners():
            runner.reset(self._durable, birth_height)
        self._durable = self._main.follower
        self._channels.height = self._tracker.height = self._main.follower.height
        self._raise_highest(self._main.follower.height)

    def runners(self) -> list[SourceRunner]:
        """Every source of the node: those that may be followed in their order, then the verifiers."""
        return list(dict.fromkeys((*self._sources, *(verification.runner for verification in self._verifications))))

    @property
    def follower(self) -> ChainFollower:
        return self._main.follower

    @property
    def height(self) -> BlockHeight:
        return self._main.follower.height

    @property
    def source_name(self) -> str:
        """The source that is followed now."""
        return self._main.name

    @property
    def progress(self) -> Progress:
        return self._main.progress

    @property
    def synced(self) -> bool:
        """At the source's tip: not before it said so, not in the middle of a reorg, not while a gap is closed."""
        return self._durable is not None and self._main.synced

    @property
    def was_synced(self) -> bool:
        """A source's tip was reached in this run."""
        return self._was_synced

    @property
    def is_alone(self) -> bool:
        """Whether no other source stands by."""
        return len(self._sources) == 1

    def set_reader(self, read: Callable[[SourceRunner], None]) -> None:
        """``read`` is told of each source that runs and whose events must be read from now on."""
        for runner in self.runners():
            runner.on_started = read

    async def start_source(self) -> None:
        """Begin (or begin again) where we are. Others follow on their own; only the first one's error is raised."""
        await self._main.start()
        self._post(self._begin_others)

    def _begin_others(self) -> None:
        self._check_later()
        for runner in self.runners():
            if runner is not self._main and not runner.started:
                runner.restart("starts")

    def restart(self, reason: str) -> None:
        """The stream is not to be trusted any more (it ended, or events were lost): take it up again from our tip."""
        self._main.restart(reason)

    def restart_all(self, reason: str) -> None:
        """Every source begins again from where its follower is."""
        for runner in self.runners():
            if runner.wanted:
                runner.restart(reason)

    def on_stream_ended(self, runner: SourceRunner, reason: str) -> None:
        """Its events ended or failed, which they must not; the shell reads them again in a while."""
        if runner is self._main and not runner.trouble:
            self._warn(f"the chain source {runner.name} failed: {reason}")
        runner.in_trouble(reason)
        self._check()

    def watch(self, script: bytes, outpoint: OutPoint | None) -> None:
        """From the best block on; asking twice is harmless."""
        if (script, outpoint) in self._watched:
            return
        self._watched.add((script, outpoint))
        for runner in self.runners():
            runner.watch(script, outpoint)

    def watch_wallet(self) -> None:
        """Scripts that the wallet derived ahead since the last call."""
        scripts = self._wallet.scripts()
        if len(scripts) != self._wallet_scripts:
            self._wallet_scripts = len(scripts)
            for script in scripts:
                self.watch(script, None)

    def watch_coins(self) -> None:
        """Every coin of the wallet: its spending may not show the script, and no proof covers a witness that does."""
        for coin in self._wallet.coins():
            self.watch(coin.script, coin.outpoint)

    def watch_spent_coins(self) -> None:
        """Those that our own transactions spend: watched as coins while the node ran, and again after a start."""
        for outpoint, script in self._wallet.spent_coins():
            self.watch(script, outpoint)

    def _warn(self, reason: str) -> None:
        self._publish(Alarm(subject="source_warning", text=clean_text(reason)))

    # -- events ------------------------------------------------------------------------------------------------------

    def on_event(self, event: ChainEvent, runner: SourceRunner | None = None) -> None:
        """What a source sent, in whatever order; without ``runner`` the one that is followed."""
        (runner or self._main).on_event(event)

    def _on_output(self, runner: SourceRunner, output: FollowerOutput) -> None:
        if isinstance(output, SourceWarning):
            log.warning("chain_source_warns", source=runner.name, text=clean_text(output.text))
            self._warn(f"{runner.name}: {output.text}")
        elif isinstance(output, BlockConnected) and output.height > self._highest:
            self._raise_highest(output.height)
        if runner is self._main:
            self._on_main(output)
            return
        for verification in self._verifications:
            if verification.runner is runner and isinstance(output, BlockConnected | BlockRescanned):
                now, main = self._host.wall_time(), self._main
                found = verification.on_found(main, output.height, output.block_hash, output.transactions, now)
                self._take(output.height, output.block_hash, found)

    def _on_main(self, output: FollowerOutput) -> None:
        match output:
            case BlockConnected():
                self._on_connected(output)
            case BlocksDisconnected():
                self._on_disconnected(output)
            case SourceSynced():
                if self._repeat_due:
                    self._repeat_due = False
                    self._tracker.repeat()
                self._was_synced = True
                self._check()
                self._after_commit(self.on_synced)
            case BlockRescanned():
                self._on_rescanned(output)
            case HistoryMissing(from_height=height):
                text = f"blocks before {height} cannot be looked at again"
                self._publish(Alarm(subject="chain_history", text=text))
            case _:
                pass

    def _on_connected(self, block: BlockConnected) -> None:
        self._tracker.on_transactions([entry.tx for entry in block.transactions], block.height)
        self._journal.merge(self._wallet.on_block_connected(block))
        self._channels.on_block(block)
        self._tracker.on_block(block.height, at_tip=self.synced)
        self._repeat_due = self._repeat_due or not self.synced
        self.watch_wallet()
        if block.transactions:
            self.watch_coins()
        if self._verifications:
            self._told.add(block.height, block.block_hash, block.transactions)
            for verification in self._verifications:
                now = self._host.wall_time()
                found = verification.on_followed(self._main, block.height, block.block_hash, now)
                self._take(block.height, block.block_hash, found)

    def _on_rescanned(self, found: BlockRescanned) -> None:
        """Matches of a late watch in a block already told; the wallet takes blocks below its tip."""
        if self._verifications:
            self._told.add(found.height, found.block_hash, found.transactions)
            for verification in self._verifications:
                verification.on_told(found.transactions)
        self._tracker.on_transactions([entry.tx for entry in found.transactions], found.height)
        block = BlockConnected(
            height=found.height, block_hash=found.block_hash, header=b"", transactions=found.transactions, full=False
        )
        self._journal.merge(self._wallet.on_block_connected(block))
        self._channels.on_rescanned(found.height, found.transactions)
        self.watch_wallet()
        self.watch_coins()

    def _take(self, height: BlockHeight, block_hash: BlockHash, found: tuple[BlockTransaction, ...]) -> None:
        """A verifier proved these in a block of ours: true is true, whoever says it."""
        if not found:
            return
        log.warning("verifier_found", height=height, transactions=[entry.tx.txid[::-1].hex() for entry in found])
        self._tracker.on_transactions([entry.tx for entry in found], height)
        block = BlockConnected(height=height, block_hash=block_hash, header=b"", transactions=found, full=False)
        self._journal.merge(self._wallet.on_block_connected(block))
        self._channels.on_rescanned(height, found)

    def _on_disconnected(self, event: BlocksDisconnected) -> None:
        depth = self._channels.height - event.fork_height
        log.warning("blocks_disconnected", fork_height=event.fork_height, depth=depth)
        if depth >= IRREVOCABLE_DEPTH:
            text = (
                f"{depth} blocks were replaced above {event.fork_height}, more than the {IRREVOCABLE_DEPTH - 1} that "
            )
            self._publish(Alarm(subject="deep_reorg", text=f"{text}are expected: what counted as final may not be"))
        self._told.forget_above(event.fork_height)
        self._tracker.on_disconnected(event.fork_height)
        self._journal.merge(self._wallet.on_blocks_disconnected(event))
        self._channels.on_disconnected(event.fork_height)

    def _raise_highest(self, height: BlockHeight) -> None:
        self._highest = BlockHeight(max(self._highest, height))
        self._channels.deadline_height = self._highest

    # -- health and fail-over ----------------------------------------------------------------------------------------

    def _check_later(self) -> None:
        patience = min(self._settings.trouble_seconds, self._settings.failover_seconds)
        self._host.call_later(min(CHECK_SECONDS, max(1.0, patience / 2)), lambda: self._post(self._check_again))

    def _check_again(self) -> None:
        self._check()
        self._check_later()

    def _check(self) -> None:
        """Whether the chain can be trusted, and whether another source should be followed."""
        now, main, health, grace = self._host.wall_time(), self._main, self.health, self._settings.trouble_seconds
        health.note("source", f"{main.name}: {main.trouble}" if main.trouble else "", grace)
        if self._was_synced:
            behind = "" if main.synced else f"{main.name} is not at its tip: block {self.height}"
            health.note("behind", behind, grace)
            health.note("tip_age", self._old_tip(now))
            lost = self._highest - self.height
            text = f"{main.name} ends at block {self.height}, but block {self._highest} was seen"
            health.note("lost_blocks", text if lost >= LOST_BLOCKS else "", grace)
            if lost > 1:
                self._channels.on_deadline_height()
            for verification in self._verifications:
                found = verification.findings(main, now)  # none of itself, while it is followed
                for word, (reason, patience) in found.items():
                    health.note(word, reason, patience)
            health.settle()
        if len(self._sources) > 1:
            self._choose_source(now)
        if self._was_synced and self._main is self._sources[0] and self._standing("chain_source") is not None:
            text = f"the chain is followed over {self._main.name} again"
            self._publish(AlarmCleared(subject="chain_source", text=text))

    def _old_tip(self, now: float) -> str:
        chain = self.follower.chain
        if not self._tip_age or not self.synced or chain.tip_height <= chain.base_height:
            return ""
        age = now - int.from_bytes(chain.header_at(chain.tip_height)[_TIME], "little")
        if age <= self._tip_age:
            return ""
        return f"the newest block of {self._main.name}, {self.height}, is {int(age // 60)} minutes old"

    def _choose_source(self, now: float) -> None:
        main = self._main
        others = [runner for runner in self._sources if runner is not main and runner.well]
        ahead = any(runner.follower.height > self.height for runner in others)
        if not others or (main.synced and not ahead):
            self._stalled_since = 0.0
        elif not self._stalled_since:
            self._stalled_since = now
        why = ""
        if main.trouble and now - main.trouble_since >= self._settings.failover_seconds:
            why = main.trouble
        elif self._stalled_since and now - self._stalled_since >= STALL_SECONDS:
            least = self.height + 1 if ahead else self.height
            why = f"it is stuck at block {self.height}" if ahead else f"it does not end at block {self.height}"
            others = [runner for runner in others if runner.follower.height >= least]
        if why:
            if others:
                self._switch(others[0], now, why)
            return
        for runner in self._sources[: self._sources.index(main)]:
            rested = now - runner.healthy_since >= self._settings.return_seconds
            if runner.well and rested and runner.follower.height >= self.height:
                self._switch(runner, now, "")
                return

    def _switch(self, runner: SourceRunner, now: float, why: str) -> None:
        """Follow another source from our tip on: what comes next is in order, for the follower sees to it."""
        old, self._main = self._main, runner
        self._stalled_since = 0.0
        if why:
            old.healthy_since = now
            log.warning("chain_source_switched", old=old.name, new=runner.name, reason=why)
            text = f"{old.name} fails ({why}): the chain is followed over {runner.name} now"
            self._publish(Alarm(subject="chain_source", text=clean_text(text)))
        else:
            log.warning("chain_source_back", old=old.name, new=runner.name)
        runner.take_over(old.follower, may_owe=not old.source.info.full_blocks)

    # -- turn --------------------------------------------------------------------------------------------------------

    def end_turn(self) -> bool:
        return False

    def write(self, journal: Journal) -> None:
        if self._durable is not None and self.follower is not self._durable:
            journal.merge(follower_records(self._durable, self.follower, keyspace.CHAIN))

    def commit(self) -> None:
        if self._durable is not None:
            self._durable = self.follower

    def rollback(self) -> None:
        """Back to the durable tip. The source moved on without us: ``load`` and ``restart`` put that right."""
        if self._durable is not None:
            self._main.follower = self._durable
            self._channels.height = self._tracker.height = self._durable.height
