"""The demo on a real bitcoind: started on regtest in the demo's folder, mined and paid from by its own wallet."""

import asyncio
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyden.bitcoin import Transaction, parse_transaction
from leyden_bitcoind import Credentials, RpcClient, RpcRefused, RpcUnavailable

from leyden_cli.demo.errors import expect
from leyden_cli.demo.ports import free_port
from leyden_cli.demo.processes import Child, Spender, find_program, wait_until

COMMAND_VARIABLE = "LEYDEN_BITCOIND"
"""How to run bitcoind, if it is not on PATH; several words are split as a shell does."""
_WALLET = "demo"
_BLOCKS = 110


class BitcoindChain:
    """A bitcoind of the demo's own; nodes follow it over JSON-RPC and ZMQ."""

    service = "bitcoind"

    def __init__(self, folder: Path) -> None:
        self.child = Child("bitcoind", folder / "bitcoind.log")
        self._folder = folder / "bitcoind"
        self._port = free_port()
        self._password = secrets.token_hex(16)
        self._zmq = f"ipc://{folder}/zmq"
        credentials = Credentials(user="demo", password=self._password)
        self._node = RpcClient(self._url, credentials)
        self._wallet = RpcClient(f"{self._url}/wallet/{_WALLET}", credentials)

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def url_with_password(self) -> str:
        """For programs that take one text."""
        return f"http://demo:{self._password}@127.0.0.1:{self._port}/"

    def settings(self) -> Mapping[str, object]:
        return {
            "url": self._url,
            "user": "demo",
            "password_file": str(self._folder / "password"),
            "zmq": [self._zmq],
        }

    async def start(self) -> None:
        command = find_program("bitcoind", COMMAND_VARIABLE)
        self._folder.mkdir(mode=0o700)
        (self._folder / "password").write_text(self._password)
        (self._folder / "bitcoin.conf").write_text(f"rpcuser=demo\nrpcpassword={self._password}\n")
        flags = [
            *("-regtest", f"-datadir={self._folder}", "-server", "-txindex=1", "-dbcache=20", "-addresstype=bech32"),
            *("-fallbackfee=0.00001", f"-rpcport={self._port}", "-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1"),
            *("-listen=0", "-dnsseed=0", "-fixedseeds=0", "-discover=0"),
            *(f"-zmqpubsequence={self._zmq}", f"-zmqpubrawblock={self._zmq}"),
        ]
        version = await asyncio.to_thread(subprocess.run, [*command, "-version"], capture_output=True, text=True)
        if "knots" in version.stdout.lower():
            flags.append("-corepolicy=1")
        await self.child.run([*command, *flags])
        await wait_until("bitcoind answers", self._answers)
        await self._node.call("createwallet", _WALLET, False, False, "", False, True, True)
        await self.mine(_BLOCKS)

    async def _answers(self) -> bool:
        try:
            await self._node.call("getblockchaininfo")
        except RpcUnavailable:
            expect(self.child.is_running, f"bitcoind did not start: {self.child.last_words()}")
            return False
        return True

    async def close(self) -> None:
        await self._node.close()
        await self._wallet.close()

    async def mine(self, blocks: int) -> None:
        await self._node.call("generatetoaddress", blocks, await self._wallet.call("getnewaddress"))

    async def height(self) -> int:
        return int(await self._node.call("getblockcount"))

    async def faucet(self, address: str, sat: int) -> str:
        return str(await self._wallet.call("sendtoaddress", address, f"{sat / 100_000_000:.8f}"))

    async def transaction(self, txid: str) -> Transaction | None:
        try:
            return parse_transaction(bytes.fromhex(await self._node.call("getrawtransaction", txid)))
        except RpcRefused:
            return None

    async def find_spender(self, txid: str, vout: int) -> Spender | None:
        """The mempool's answer, else a look through the newest blocks."""
        (answer,) = await self._node.call("gettxspendingprevout", [{"txid": txid, "vout": vout}])
        if "spendingtxid" in answer:
            return Spender(txid=answer["spendingtxid"], confirmed=False)
        height = await self.height()
        for one in range(height, max(0, height - 50), -1):
            block = await self._node.call("getblock", await self._node.call("getblockhash", one), 2)
            for tx in block["tx"]:
                if any(_spends(entry, txid, vout) for entry in tx["vin"]):
                    return Spender(txid=tx["txid"], confirmed=True)
        return None

    async def value_if_unspent(self, txid: str, vout: int) -> int:
        found = await self._node.call("gettxout", txid, vout, False)
        return 0 if found is None else round(found["value"] * 100_000_000)

    async def is_its_own(self, script: bytes) -> bool:
        decoded = await self._node.call("decodescript", script.hex())
        if "address" not in decoded:
            return False
        info = await self._wallet.call("getaddressinfo", decoded["address"])
        return bool(info["ismine"])


def _spends(entry: dict[str, Any], txid: str, vout: int) -> bool:
    return entry.get("txid") == txid and entry.get("vout") == vout
