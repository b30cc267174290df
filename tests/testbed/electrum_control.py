"""A bitcoind with Electrum servers on top, moved together: every change has reached all servers when it returns."""

from collections.abc import Sequence

from tests.testbed.bitcoind import Bitcoind
from tests.testbed.bitcoind_control import BitcoindControl
from tests.testbed.electrum_server import ElectrumServer


class ElectrumControl(BitcoindControl):
    """The ``ChainControl`` of the conformance kit."""

    def __init__(self, daemon: Bitcoind, servers: Sequence[ElectrumServer]) -> None:
        super().__init__(daemon)
        self._servers = tuple(servers)

    async def mine(self, blocks: int) -> None:
        await super().mine(blocks)
        self._wait()

    async def reorg(self, depth: int, blocks: int) -> None:
        await super().reorg(depth, blocks)
        self._wait()

    def _wait(self) -> None:
        for server in self._servers:
            server.wait_for_tip()
