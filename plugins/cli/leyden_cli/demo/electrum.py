"""The demo over an Electrum server: a bitcoind nobody but the server talks to, and nodes that know only the server."""

from collections.abc import Mapping
from pathlib import Path

from leyden.bitcoin import Network, Transaction
from leyden.types import LeydenError
from leyden_electrum import parse_address
from leyden_electrum.dial import Dialer
from leyden_electrum.pins import Pins
from leyden_electrum.server import Server

from leyden_cli.demo.bitcoind import BitcoindChain
from leyden_cli.demo.errors import expect
from leyden_cli.demo.ports import free_port
from leyden_cli.demo.processes import Child, Spender, find_program, wait_until

COMMAND_VARIABLE = "LEYDEN_ELECTRUM_SERVER"
"""How to run an Electrum server of the ElectrumX family, if it is not on PATH as ``electrumx_server``."""


def server_settings(folder: Path, bitcoind_url: str, services: str) -> dict[str, str]:
    """The environment in which a server of the ElectrumX family follows a regtest bitcoind closely, and nobody else.

    ``bitcoind_url`` with user and password; ``services`` as the server writes them, such as ``tcp://127.0.0.1:50001``.
    """
    return {
        "COIN": "Bitcoin",
        "NET": "regtest",
        "DB_ENGINE": "leveldb",
        "DB_DIRECTORY": str(folder),
        "DAEMON_URL": bitcoind_url,
        "SERVICES": services,
        "REPORT_SERVICES": "",
        "PEER_DISCOVERY": "off",
        "PEER_ANNOUNCE": "",
        "ALLOW_ROOT": "1",
        "CACHE_MB": "50",
        "COST_SOFT_LIMIT": "0",
        "COST_HARD_LIMIT": "0",
        "DAEMON_POLL_INTERVAL_BLOCKS": "100",
        "DAEMON_POLL_INTERVAL_MEMPOOL": "100",
    }


class ElectrumChain:
    """A bitcoind and an Electrum server of the demo's own; nodes follow the server."""

    service = "electrum"

    def __init__(self, folder: Path) -> None:
        self._bitcoind = BitcoindChain(folder)
        self.child = self._bitcoind.child
        self.server = Child("the Electrum server", folder / "electrum-server.log")
        self._folder = folder / "electrum-server"
        self._address = f"127.0.0.1:{free_port()}:t"

    def settings(self) -> Mapping[str, object]:
        return {"servers": [self._address]}

    async def start(self) -> None:
        command = find_program("electrumx_server", COMMAND_VARIABLE)
        await self._bitcoind.start()
        database = self._folder / "db"
        database.mkdir(mode=0o700, parents=True)
        services = f"tcp://{self._address.removesuffix(':t')}"
        await self.server.run(command, server_settings(database, self._bitcoind.url_with_password, services))
        wanted = await self.height()
        await wait_until("the Electrum server has bitcoind's blocks", lambda: self._has(wanted))

    async def _has(self, height: int) -> bool:
        dialer = Dialer(Pins(self._folder))
        try:
            server = await Server.connect(dialer, parse_address(self._address), Network.REGTEST, lambda: None)
        except LeydenError:
            expect(self.server.is_running, f"the Electrum server did not start: {self.server.last_words()}")
            return False
        try:
            return (await server.follow_tip()).height >= height
        except LeydenError:
            return False
        finally:
            await server.close()

    async def close(self) -> None:
        await self.server.kill()
        await self._bitcoind.close()

    async def mine(self, blocks: int) -> None:
        await self._bitcoind.mine(blocks)

    async def height(self) -> int:
        return await self._bitcoind.height()

    async def faucet(self, address: str, sat: int) -> str:
        return await self._bitcoind.faucet(address, sat)

    async def transaction(self, txid: str) -> Transaction | None:
        return await self._bitcoind.transaction(txid)

    async def find_spender(self, txid: str, vout: int) -> Spender | None:
        return await self._bitcoind.find_spender(txid, vout)

    async def value_if_unspent(self, txid: str, vout: int) -> int:
        return await self._bitcoind.value_if_unspent(txid, vout)

    async def is_its_own(self, script: bytes) -> bool:
        return await self._bitcoind.is_its_own(script)
