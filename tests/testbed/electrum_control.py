"""A bitcoind with Electrum servers on top, moved together: every change has reached all servers when it returns."""

from collections.abc import Sequence

from leyden.bitcoin import Transaction, parse_transaction
from leyden.types import BlockHash, BlockHeight, Sat

from tests.testbed.bitcoind import Bitcoind, RpcError
from tests.testbed.electrum_server import ElectrumServer


class ElectrumControl:
    """The ``ChainControl`` of the conformance kit."""

    def __init__(self, bitcoind: Bitcoind, servers: Sequence[ElectrumServer]) -> None:
        self.bitcoind = bitcoind
        self.servers = tuple(servers)

    async def tip(self) -> tuple[BlockHeight, BlockHash]:
        info = self.bitcoind.rpc("getblockchaininfo")
        return BlockHeight(info["blocks"]), BlockHash(bytes.fromhex(info["bestblockhash"])[::-1])

    async def mine(self, blocks: int) -> None:
        self.bitcoind.mine(blocks)
        self._wait()

    async def reorg(self, depth: int, blocks: int) -> None:
        """Transactions of the lost blocks are forgotten: the new branch is mined without them."""
        height = self.bitcoind.rpc("getblockcount")
        self.bitcoind.rpc("invalidateblock", self.bitcoind.rpc("getblockhash", height - depth + 1))
        for _ in range(blocks):
            self.bitcoind.rpc("generateblock", self.bitcoind.rpc("getnewaddress"), [])
        self._wait()

    async def pay(self, script: bytes, value: Sat) -> Transaction:
        address = self.bitcoind.rpc("decodescript", script.hex())["address"]
        txid = self.bitcoind.rpc("sendtoaddress", address, f"{value / 100_000_000:.8f}")
        return parse_transaction(bytes.fromhex(self.bitcoind.rpc("getrawtransaction", txid)))

    async def submit(self, tx: Transaction) -> None:
        try:
            self.bitcoind.rpc("sendrawtransaction", tx.serialize().hex())
        except RpcError as error:
            if "already in" not in str(error):
                raise

    def _wait(self) -> None:
        for server in self.servers:
            server.wait_for_tip()
