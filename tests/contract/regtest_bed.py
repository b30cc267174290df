"""Test beds on the embedded chain: in process, and over the socket of a server that can be taken away."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from leyden.bitcoin import Transaction, parse_transaction
from leyden.testing.chain import BackendSwitch
from leyden.types import BlockHash, BlockHeight, Sat
from leyden_regtest import protocol as p
from leyden_regtest.chain import EmbeddedChain
from leyden_regtest.client import call


class DirectControl:
    """The chain is in this process; only the source under test differs."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self.chain = chain

    async def tip(self) -> tuple[BlockHeight, BlockHash]:
        return self.chain.height, self.chain.tip_hash

    async def mine(self, blocks: int) -> None:
        self.chain.mine(blocks)

    async def reorg(self, depth: int, blocks: int) -> None:
        self.chain.reorg(depth, blocks, forget=True)

    async def pay(self, script: bytes, value: Sat) -> Transaction:
        return self.chain.faucet(script, value)

    async def submit(self, tx: Transaction) -> None:
        self.chain.submit([tx])


class ServerProcess:
    """``leyden-regtest serve`` as a process: it can be killed, and frozen."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s"
        self._folder = folder / "c"
        self._process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        command = [sys.executable, "-m", "leyden_regtest", "serve", "--dir", str(self._folder)]
        self._process = subprocess.Popen([*command, "--socket", str(self.socket)], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("leyden-regtest ready"), line

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    @property
    def power(self) -> BackendSwitch:
        return BackendSwitch(off=self.kill, on=self.start)

    @property
    def freeze(self) -> BackendSwitch:
        async def off() -> None:
            self.send_signal(signal.SIGSTOP)

        async def on() -> None:
            self.send_signal(signal.SIGCONT)

        return BackendSwitch(off=off, on=on)


@asynccontextmanager
async def server_process(folder: Path) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(folder)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


class SocketControl:
    """Moves the chain of a server process through its own verbs."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def tip(self) -> tuple[BlockHeight, BlockHash]:
        info = await call(self.path, p.GetInfo(), p.ChainInfo)
        return BlockHeight(info.height), BlockHash(bytes.fromhex(info.hash)[::-1])

    async def mine(self, blocks: int) -> None:
        await call(self.path, p.Mine(blocks=blocks), list[str])

    async def reorg(self, depth: int, blocks: int) -> None:
        await call(self.path, p.Reorg(depth=depth, extra=blocks - depth, forget=True), object)

    async def pay(self, script: bytes, value: Sat) -> Transaction:
        paid = await call(self.path, p.FaucetPay(sat=value, script=script.hex()), p.TransactionResult)
        return parse_transaction(bytes.fromhex(paid.transaction))

    async def submit(self, tx: Transaction) -> None:
        outcome = await call(self.path, p.Broadcast(package=[tx.serialize().hex()]), p.BroadcastOutcome)
        assert outcome.accepted, outcome.reason
