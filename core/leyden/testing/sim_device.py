"""A signing device in the simulation: it keeps state, takes its time, is sometimes away, and checks what reaches it."""

import random
from collections.abc import Generator
from typing import Any, Protocol

from leyden.channel import Lifecycle
from leyden.channel import load as load_channel
from leyden.channel.views import signed_view
from leyden.hooks.signing import (
    ReleaseSecret,
    SignCounterpartyCommitment,
    SignerUnavailable,
    SignHolderCommitment,
    ValidateCounterpartyRevocation,
    ValidateHolderCommitment,
)
from leyden.node import keyspace
from leyden.testing.memory_store import MemoryDisk
from leyden.types import Side


class Clock(Protocol):
    now: float


class DeviceHost(Protocol):
    """What the device knows of the node that asks it (``SimNode``)."""

    disk: MemoryDisk
    device: "DeviceMemory | None"

    @property
    def simulation(self) -> Clock: ...

    def point(self, name: str) -> None: ...


class Pause:
    """``await Pause(seconds)`` inside work that a simulated node spawned."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self._seconds


class DeviceMemory:
    """What a signing device keeps while its node is down: how each request was worded, and its moods."""

    def __init__(self, seed: int, *, absences: float = 0.04, slowest: float = 2.0) -> None:
        self.random = random.Random(seed)
        self.absences = absences
        self.slowest = slowest
        self.asked: dict[str, object] = {}
        self.repeated = 0
        self.refusals = 0
        self.away_until = 0.0
        self.faults: list[str] = []

    def check(self, node: DeviceHost, name: str, request: Any) -> None:
        """Called as the request leaves the node: it must be durable, and worded as the first time."""
        where = f"{name} {request.request_id}"
        if not is_recorded(node.disk, request):
            self.faults.append(f"{where} left before the commit that records it")
        if name == "check_future_secret":
            return  # worded by the peer
        content = tuple(getattr(request, field) for field in request.__struct_fields__ if field != "setup")
        self.repeated += request.request_id in self.asked
        if self.asked.setdefault(request.request_id, content) != content and name != "validate_holder_commitment":
            self.faults.append(f"{where} was repeated with other content")


def is_recorded(disk: MemoryDisk, request: Any) -> bool:
    """Whether the rows on disk show the state that this request about a funded channel belongs to."""
    channel_id = bytes.fromhex(request.request_id[:64])
    rows = [
        (key, row) for key, row in disk.rows.items() if key[:1] in keyspace.CHANNEL_AREAS and key[1:33] == channel_id
    ]
    match request:
        case SignCounterpartyCommitment(view=view):
            if view.number == 0:
                return True  # nothing is at stake before the funding is broadcast
            channel = load_channel(rows)
            return channel.remote_number == view.number and signed_view(channel, Side.REMOTE) == view
        case ValidateHolderCommitment(view=view):
            if view.number == 0:
                return True
            channel = load_channel(rows)
            return channel.local_number == view.number and signed_view(channel, Side.LOCAL) == view
        case ReleaseSecret(number=number):
            return load_channel(rows).local_number > number
        case ValidateCounterpartyRevocation(number=number):
            return load_channel(rows).remote_revoked > number
        case SignHolderCommitment():
            return load_channel(rows).lifecycle is Lifecycle.FORCE_CLOSING
        case _:
            return True


class SimDevice:
    """A signer with state: its answers come in later turns, sometimes after seconds, sometimes it is away."""

    stateless = inline = False

    def __init__(self, node: DeviceHost, signer: Any) -> None:
        self._node = node
        self._signer = signer

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._signer, name)

        def ask(*arguments: Any) -> Any:
            memory = self._node.device
            if memory is not None and name != "new_channel":
                memory.check(self._node, name, arguments[0])
            return self._answer(method, arguments)

        return ask

    async def _answer(self, method: Any, arguments: tuple[Any, ...]) -> Any:
        memory, node = self._node.device, self._node
        if memory is None:
            raise RuntimeError("the device was taken away")
        node.point("signer:before")
        await self._take_time(memory)
        if node.simulation.now >= memory.away_until and memory.random.random() < memory.absences:
            memory.away_until = node.simulation.now + memory.random.uniform(1.0, 12.0)
        if node.simulation.now < memory.away_until:
            memory.refusals += 1
            raise SignerUnavailable("the device is away")
        answer = await method(*arguments)
        node.point("signer:after")
        await self._take_time(memory)
        return answer

    @staticmethod
    async def _take_time(memory: DeviceMemory) -> None:
        if memory.slowest and memory.random.random() < 0.3:
            await Pause(memory.random.uniform(0.0, memory.slowest))
