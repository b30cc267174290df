"""Which servers there are, which of them were left and why, and connecting to the next good one."""

import time
from collections.abc import Callable, Iterable, Sequence

import structlog
from leyden.bitcoin import Network
from leyden.types import LeydenError

from leyden_electrum.address import ServerAddress
from leyden_electrum.dial import Dialer
from leyden_electrum.errors import ServerFault, ServerUnavailable, ServerUnusable
from leyden_electrum.server import Server

log = structlog.get_logger("leyden.electrum")

FAULT_SECONDS = 3600.0
"""A server that said something false is not asked again for so long, as long as there is another one."""
AWAY_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
ONLY_SECONDS = 10.0
"""When all were left for what they said, the first is tried again after this: everything is checked anyway."""


class NoServer(LeydenError):
    """None of the servers can be used now; ``wait`` is how many seconds until one may be tried again."""

    def __init__(self, reasons: Sequence[str], wait: float, unusable: bool) -> None:
        self.wait = wait
        self.unusable = unusable
        """Whether all of them are configured wrongly: none will ever do."""
        super().__init__("no Electrum server can be used: " + "; ".join(reasons))


class _State:
    __slots__ = ("failures", "fault", "reason", "until")

    def __init__(self) -> None:
        self.until = 0.0
        self.reason = ""
        self.fault: LeydenError | None = None
        self.failures = 0


class ServerPool:
    """Servers in the order of preference."""

    def __init__(
        self, addresses: Sequence[ServerAddress], dialer: Dialer, network: Network, *, timeout_seconds: float
    ) -> None:
        self.addresses = tuple(addresses)
        self._dialer = dialer
        self._network = network
        self._timeout = timeout_seconds
        self._states = {address: _State() for address in addresses}
        self.on_fault: Callable[[ServerAddress, str], None] = lambda _address, _reason: None
        """Told once per server and reason that a server was left for what it is or says."""

    async def connect(self, on_change: Callable[[], None], besides: Iterable[ServerAddress] = ()) -> Server:
        """To the first that answers and is not left, none of ``besides``; else ``NoServer``.

        Servers that cannot be used are left on the way.
        """
        usable = [address for address in self.addresses if address not in set(besides)]
        now = time.monotonic()
        for address in usable:
            if self._states[address].until <= now:
                try:
                    return await self._open(address, on_change)
                except (ServerFault, ServerUnavailable) as error:
                    self.leave(address, error)
        raise self._none(usable)

    async def connect_once(self) -> Server:
        """For one question, to the first that answers. Who was only away is tried now, and nothing is held against
        anybody; errors as of ``connect``."""
        reasons = []
        for address in self.addresses:
            state = self._states[address]
            if isinstance(state.fault, ServerFault) and state.until > time.monotonic():
                reasons.append(f"{address}: {state.reason}")
                continue
            try:
                return await self._open(address, lambda: None)
            except (ServerFault, ServerUnavailable) as error:
                reasons.append(f"{address}: {error}")
        raise NoServer(reasons, 0.0, False)

    async def _open(self, address: ServerAddress, on_change: Callable[[], None]) -> Server:
        return await Server.connect(self._dialer, address, self._network, on_change, timeout_seconds=self._timeout)

    def _none(self, usable: Sequence[ServerAddress]) -> NoServer:
        now = time.monotonic()
        states = [self._states[address] for address in usable]
        for state in states:
            if len(usable) == len(self.addresses):
                state.until = min(state.until, now + ONLY_SECONDS)  # rather than nobody
        reasons = [f"{address}: {self._states[address].reason}" for address in usable]
        wait = max(0.05, min((state.until for state in states), default=now + FAULT_SECONDS) - now)
        return NoServer(reasons, wait, bool(states) and all(isinstance(s.fault, ServerUnusable) for s in states))

    def leave(self, address: ServerAddress, error: LeydenError) -> None:
        """``address`` is not used for now."""
        state = self._states[address]
        news = str(error) != state.reason
        state.reason, state.fault = str(error), error
        if isinstance(error, ServerFault):
            seconds = FAULT_SECONDS
        else:
            seconds = AWAY_SECONDS[min(state.failures, len(AWAY_SECONDS) - 1)]
            state.failures += 1
        state.until = time.monotonic() + seconds
        if news:
            log.warning("electrum_server_left", server=str(address), reason=state.reason, again_in=seconds)
            if isinstance(error, ServerFault):
                self.on_fault(address, state.reason)

    def proved_good(self, address: ServerAddress) -> None:
        """It was followed to its tip: what was held against it is forgotten."""
        state = self._states[address]
        state.failures, state.reason, state.fault = 0, "", None
