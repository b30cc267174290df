"""Whole nodes without asyncio: one clock, one scheduler, an embedded chain with real consensus, and crashes on demand.

Everything that a node does is a function of the seed. A ``Crash`` may be raised at any commit, write or signer reply;
the node is then thrown away and a new one starts from what its disk holds.
"""

import heapq
import importlib
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from leyden.bitcoin import Network, Transaction
from leyden.channel import ChannelPolicy
from leyden.crypto import sha256
from leyden.hooks.types import (
    BlockConnected,
    BroadcastKind,
    BroadcastResult,
    FeeTarget,
    SourceInfo,
    UtxoAnswer,
    Watch,
)
from leyden.node.chain_runner import SourceRunner
from leyden.node.core import NodeConfig, NodeCore, Questions, Services
from leyden.node.host import run_inline
from leyden.node.peer import Peer
from leyden.node.reserve import NO_RESERVE
from leyden.testing.guard_ledger import GuardLedger
from leyden.testing.memory_store import CommitMoment, MemoryDisk, MemoryStore
from leyden.testing.signer import GuardingSigner
from leyden.testing.sim_device import DeviceMemory, SimDevice
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, NodeId, OutPoint

T = TypeVar("T")
START_TIME = 1_700_000_000
FEERATE = FeeRatePerKw(1_000)
MAX_STEPS = 200_000


class Crash(BaseException):
    """The process dies here. Not an ``Exception``: nothing in a node may catch it."""


class Timer:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Simulation:
    """The world: time, order of events, the chain, and the nodes in it."""

    def __init__(self, seed: int, folder: Path, *, blocks: int = 110) -> None:
        self.random = random.Random(seed)
        self.now = float(START_TIME)
        self.nodes: dict[str, SimNode] = {}
        self.make_chain: Callable[[Simulation, SimNode], SimChain] = SimChain
        """Makes the chain source of each life of a node; see ``leyden.testing.connect_styles``."""
        self._sequence = 0
        self._timers: list[tuple[float, int, SimNode, int, Timer]] = []
        self._ready: deque[tuple[SimNode, int, Callable[[], None]]] = deque()
        try:
            self.chain: Any = importlib.import_module("leyden_regtest.chain").EmbeddedChain(folder, blocks=blocks)
            self._cursor: Any = importlib.import_module("leyden_regtest.cursor").Cursor
            self._keys: Any = importlib.import_module("leyden_inmemory").InMemoryKeyManager
            self._wallet: Any = importlib.import_module("leyden_wallet.wallet").OnchainWallet
        except ImportError as error:
            raise RuntimeError(f"the simulation needs the regtest, inmemory and wallet plugins: {error}") from error

    def close(self) -> None:
        self.chain.close()

    def add_node(self, name: str, policy: ChannelPolicy | None = None, device: DeviceMemory | None = None) -> "SimNode":
        node = SimNode(self, name, sha256(f"seed of {name}".encode()), policy or ChannelPolicy(minimum_depth=3))
        node.device = device
        self.nodes[name] = node
        node.start()
        return node

    # -- scheduling ------------------------------------------------------------------------------------------------

    def soon(self, node: "SimNode", work: Callable[[], None]) -> None:
        self._ready.append((node, node.life, work))

    def later(self, node: "SimNode", seconds: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self._sequence += 1
        heapq.heappush(self._timers, (self.now + seconds, self._sequence, node, node.life, timer))
        return timer

    def step(self) -> bool:
        """Run one piece of work; False when nobody has any."""
        while self._ready:
            node, life, work = self._ready.popleft()
            if life == node.life:
                node.guard(work)
                return True
        return False

    def settle(self) -> None:
        """Run until nobody has work without waiting."""
        for _ in range(MAX_STEPS):
            if not self.step():
                return
        raise RuntimeError("the simulation does not settle")

    def advance(self, seconds: float) -> None:
        """Let time pass, timers in order."""
        end = self.now + seconds
        self.settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, node, life, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if life == node.life and not timer.cancelled:
                node.guard(timer.callback)
                self.settle()
        self.now = end

    def mine(self, count: int = 1) -> None:
        self.chain.mine(count)
        for node in list(self.nodes.values()):
            node.poll_chain()
        self.settle()

    def reorg(self, depth: int) -> None:
        self.chain.reorg(depth)
        for node in list(self.nodes.values()):
            node.poll_chain()
        self.settle()

    def connect(self, first: "SimNode", second: "SimNode") -> None:
        """A TCP connection from ``first`` to ``second``."""
        near, far = SimWire(self, first), SimWire(self, second)
        near.other, far.other = far, near
        near.open(second.node_id)
        far.open(None)
        self.settle()

    def cut(self, first: "SimNode", second: "SimNode") -> None:
        """Every connection between the two breaks; what was on its way is lost."""
        for wire in list(first.wires):
            if wire.other is not None and wire.other.node is second:
                wire.break_off()
        self.settle()

    def make_services(self, node: "SimNode") -> Services:
        source = self.make_chain(self, node)
        keys = self._keys(node.seed, Network.REGTEST)
        signer = node.wrap_signer(node.guarded(keys.channel_signer))
        services = Services(
            store=node.store,
            chain_source=source,
            broadcasters=[source],
            fee_estimators=[source],
            wallet=self._wallet(),
            node_identity=keys,
            channel_signer=SimDevice(node, signer) if node.device is not None else SimSigner(node, signer),
            onchain_signer=keys,
            destinations=keys,
            payment_approval=keys,
        )
        return node.adapt(services)

    def cursor(self, locator: Sequence[BlockHash], birth: BlockHeight) -> Any:
        return self._cursor(self.chain, locator, birth)


class SimNode:
    """A node that can be started, killed and started again from its disk."""

    def __init__(self, simulation: Simulation, name: str, seed: bytes, policy: ChannelPolicy) -> None:
        self.simulation = simulation
        self.name = name
        self.seed = seed
        self.disk = MemoryDisk()
        self.life = 0
        self.wires: list[SimWire] = []
        self.crashes = 0
        self.points: list[str] = []
        """Names of the crash points passed, in order, in all lives."""
        self.on_point: Callable[[str], None] = lambda _name: None
        self.wrap_signer: Callable[[Any], Any] = lambda signer: signer
        self.ledger = GuardLedger()
        """What a guard around the signer remembers; see ``guarded``."""
        self.device: DeviceMemory | None = None
        """Set before ``start`` for a signer that keeps state, takes its time and is sometimes away."""
        self.holding = False
        """Payments to this node wait, their HTLCs in flight, until ``release_payments``."""
        self.feerate = FEERATE
        self.on_store: Callable[[MemoryStore], None] = lambda _store: None
        """Sees the store of each life before it is opened."""
        self.adapt: Callable[[Services], Services] = lambda services: services
        """May exchange services of each life, set before ``start``."""
        self.sealed = ""
        """Why nothing may leave now; a write is noted in ``leaks``."""
        self.leaks: list[str] = []
        self._held: list[Callable[[bool], None]] = []
        self._works: set[Coroutine[Any, Any, Any]] = set()
        self.config = NodeConfig(network=Network.REGTEST, policy=policy, anchor_reserve=NO_RESERVE)
        self._core: NodeCore | None = None
        self._pending = False

    @property
    def core(self) -> NodeCore:
        if self._core is None:
            raise RuntimeError(f"{self.name} is down")
        return self._core

    @property
    def alive(self) -> bool:
        return self._core is not None

    @property
    def node_id(self) -> NodeId:
        return self.core.node_id

    def start(self) -> None:
        """From whatever the disk holds."""
        self.life += 1
        self._pending = False
        self.sealed = ""
        self.store = MemoryStore(self.disk)
        services = self.simulation.make_services(self)
        self.on_store(self.store)
        self.store.hooks.append(self._on_commit)  # after the guard's own
        self._core = run_inline(NodeCore.load(self.config, services, self, self._questions()))
        self.guard(self.turn)
        if self._core is not None:
            self._core.channels.height = self._core.chain.height
            run_inline(self._core.chain.start_source())
            self.poll_chain()
            self.simulation.settle()

    def kill(self) -> None:
        """The process is gone; its sockets break, its disk stays."""
        self.life += 1
        self._core = None
        self.crashes += 1
        self._held.clear()
        works, self._works = self._works, set()
        for work in works:
            work.close()
        for wire in list(self.wires):
            wire.die()

    def guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Crash:
            self.kill()

    def point(self, name: str) -> None:
        """A place where the process may die."""
        self.points.append(name)
        self.on_point(name)

    def _on_commit(self, moment: CommitMoment, _number: int) -> None:
        if self.store.failing:
            self.sealed = "a commit failed"
            return
        if moment is CommitMoment.AFTER:
            self.sealed = ""
        self.point(f"commit:{moment.value}")

    def guarded(self, signer: Any) -> Any:
        """The signer behind a ``GuardingSigner`` whose memory outlives the process.

        A device remembers all it was asked. A signer without state is asked inside the turn: what was asked in a turn
        that never became durable has never left the node, so the memory follows the commits.
        """
        if self.device is None:
            self.ledger = self.ledger.durable_image()
            self.ledger.follow(self.store)
        return GuardingSigner(signer, self.ledger)

    def _questions(self) -> Questions:
        return Questions(accept_payment=lambda _payment, answer: self._decide(answer))

    def _decide(self, answer: Callable[[bool], None]) -> None:
        if self.holding:
            self._held.append(answer)
        else:
            answer(True)

    @property
    def held(self) -> int:
        """How many payments wait."""
        return len(self._held)

    def release_payments(self) -> None:
        """Accept everything that was held; nothing is held from now on."""
        self.holding = False
        held, self._held = self._held, []
        for answer in held:
            self.core.engine.post(partial(answer, True))

    def turn(self) -> None:
        self._pending = False
        if self._core is not None:
            run_inline(self._core.engine.turn())

    def poll_chain(self) -> None:
        """Read everything that the chain sources have to tell."""
        if self._core is None:
            return
        for runner in self._core.chain.runners():
            if isinstance(runner.source, SimChain):
                self._poll(runner, runner.source)

    def _poll(self, runner: SourceRunner, source: "SimChain") -> None:
        while self._core is not None and (event := source.poll()) is not None:
            chain = self._core.chain
            self._core.engine.post(partial(chain.on_event, event, runner))
            self.guard(self.turn)

    # -- leyden.node.host.Host ---------------------------------------------------------------------------------------

    def wall_time(self) -> float:
        return self.simulation.now

    def entropy(self, length: int) -> bytes:
        return self.simulation.random.randbytes(length)

    def wake(self) -> None:
        if not self._pending:
            self._pending = True
            self.simulation.soon(self, self.turn)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self.simulation.later(self, seconds, callback)

    def spawn(
        self, work: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None], name: str
    ) -> None:
        """The answer comes in a later turn; ``work`` may await ``Pause``."""
        self._works.add(work)
        self.simulation.soon(self, lambda: self._advance(work, done))

    def _advance(self, work: Coroutine[Any, Any, T], done: Callable[[T | None, BaseException | None], None]) -> None:
        if work not in self._works:
            return
        try:
            seconds = work.send(None)
        except StopIteration as stop:
            self._works.discard(work)
            done(stop.value, None)
        except Exception as error:
            self._works.discard(work)
            done(None, error)
        else:
            self.simulation.later(self, float(seconds), lambda: self._advance(work, done))


class SimWire:
    """One end of a connection."""

    def __init__(self, simulation: Simulation, node: SimNode) -> None:
        self.simulation = simulation
        self.node = node
        self.other: SimWire | None = None
        self.peer: Peer | None = None
        self.closed = False
        node.wires.append(self)

    def open(self, remote: NodeId | None) -> None:
        core = self.node.core

        def begin() -> None:
            self.peer = core.peers.new_connection(self, f"sim:{self.node.name}", remote)

        core.engine.post(begin)

    def write(self, data: bytes) -> None:
        if self.node.sealed:
            self.node.leaks.append(f"{len(data)} bytes left though {self.node.sealed}")
        self.node.point("write:before")
        other = self.other
        if other is not None and not other.closed:
            self.simulation.soon(other.node, lambda: other.receive(data))
        self.node.point("write:after")

    def receive(self, data: bytes) -> None:
        if self.closed or not self.node.alive:
            return
        core = self.node.core

        def deliver() -> None:
            if self.peer is not None:
                core.receive(self.peer, data)

        core.engine.post(deliver)

    def close(self) -> None:
        """Orderly: what was written still arrives."""
        if self.closed:
            return
        self.closed = True
        self._forget()
        other = self.other
        if other is not None:
            self.simulation.soon(other.node, other.lost)

    def lost(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._forget()
        if self.node.alive:
            peer = self.peer
            self.node.core.engine.post(lambda: peer.on_socket_closed() if peer is not None else None)

    def break_off(self) -> None:
        """Both ends are gone at once and nothing more arrives."""
        other, self.other = self.other, None
        self.lost()
        if other is not None:
            other.other = None
            other.lost()

    def die(self) -> None:
        """The process is gone: what it wrote is with the kernel and still arrives, then comes the end."""
        self.closed = True
        self._forget()
        other = self.other
        if other is not None:
            self.simulation.soon(other.node, other.lost)

    def _forget(self) -> None:
        if self in self.node.wires:
            self.node.wires.remove(self)


class SimChain:
    """ChainSource, Broadcaster and FeeEstimator on the simulation's chain."""

    inline = True

    def __init__(self, simulation: Simulation, node: SimNode) -> None:
        self._simulation = simulation
        self._node = node
        self._cursor: Any = None

    @property
    def info(self) -> SourceInfo:
        return SourceInfo(name="simulation", full_blocks=True)

    async def start(self, locator: Sequence[tuple[BlockHeight, BlockHash]], birth_height: BlockHeight) -> None:
        self._cursor = self._simulation.cursor([block_hash for _, block_hash in locator], birth_height)
        self._simulation.soon(self._node, self._node.poll_chain)

    def poll(self) -> Any:
        return None if self._cursor is None else self._cursor.advance()

    def events(self) -> Any:
        raise RuntimeError("the simulation polls")

    async def watch(self, watches: Sequence[Watch]) -> BlockHeight:
        return BlockHeight(self._simulation.chain.height + 1)

    async def get_block(self, block_hash: BlockHash) -> BlockConnected:
        chain = self._simulation.chain
        stored = chain.block(block_hash)
        block: BlockConnected = importlib.import_module("leyden_regtest.protocol").connected_block(
            stored.height, stored.raw
        )
        return block

    async def find_utxo(self, outpoint: OutPoint) -> UtxoAnswer:
        answer: UtxoAnswer = self._simulation.chain.find_utxo(outpoint)
        return answer

    async def stop(self) -> None:
        self._cursor = None

    async def broadcast(self, package: Sequence[Transaction], kind: BroadcastKind) -> BroadcastResult:
        try:
            self._simulation.chain.submit(package)
        except Exception as error:  # the mempool's refusal is an answer
            return BroadcastResult(accepted=False, reason=str(error))
        return BroadcastResult(accepted=True)

    async def estimate(self, target: FeeTarget) -> FeeRatePerKw | None:
        return self._node.feerate


class SimSigner:
    """Passes every request on; the process may die before the question is asked or before the answer is used."""

    stateless = True

    def __init__(self, node: SimNode, signer: Any) -> None:
        self._node = node
        self._signer = signer

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._signer, name)

        async def ask(*arguments: Any) -> Any:
            self._node.point("signer:before")
            answer = await method(*arguments)
            self._node.point("signer:after")
            return answer

        return ask
