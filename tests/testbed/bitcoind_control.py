"""What the conformance kits ask of a chain, done to a real bitcoind."""

import asyncio
import signal

from leyden.bitcoin import Transaction, parse_transaction
from leyden.testing.chain import BackendSwitch
from leyden.types import BlockHash, BlockHeight, Sat

from tests.testbed.bitcoind import Bitcoind


class BitcoindControl:
    """Moves the daemon's chain as a kit asks."""

    def __init__(self, daemon: Bitcoind) -> None:
        self.daemon = daemon

    async def tip(self) -> tuple[BlockHeight, BlockHash]:
        info = self.daemon.rpc("getblockchaininfo")
        return BlockHeight(info["blocks"]), BlockHash(bytes.fromhex(info["bestblockhash"])[::-1])

    async def mine(self, blocks: int) -> None:
        self.daemon.mine(blocks)

    async def reorg(self, depth: int, blocks: int) -> None:
        """Transactions of the lost blocks are forgotten: the new branch is mined without them."""
        height = self.daemon.rpc("getblockcount")
        self.daemon.rpc("invalidateblock", self.daemon.rpc("getblockhash", height - depth + 1))
        for _ in range(blocks):
            self.daemon.rpc("generateblock", self.daemon.rpc("getnewaddress"), [])

    async def pay(self, script: bytes, value: Sat) -> Transaction:
        address = self.daemon.rpc("decodescript", script.hex())["address"]
        txid = self.daemon.rpc("sendtoaddress", address, value / 100_000_000)
        return parse_transaction(bytes.fromhex(self.daemon.rpc("gettransaction", txid)["hex"]))

    async def submit(self, tx: Transaction) -> None:
        self.daemon.rpc("sendrawtransaction", tx.serialize().hex())

    @property
    def power(self) -> BackendSwitch:
        """Nothing is lost: its chain is on disk when it dies."""

        async def off() -> None:
            await asyncio.to_thread(self.daemon.flush)
            self.daemon.kill()

        async def on() -> None:
            await asyncio.to_thread(self.daemon.start)

        return BackendSwitch(off=off, on=on)

    @property
    def freeze(self) -> BackendSwitch:
        async def off() -> None:
            self.daemon.send_signal(signal.SIGSTOP)

        async def on() -> None:
            self.daemon.send_signal(signal.SIGCONT)

        return BackendSwitch(off=off, on=on)
