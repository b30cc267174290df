"""The processes of the demo: a chain server and nodes, each with its log in the demo's folder."""

import asyncio
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
from leyden.bitcoin import Transaction, parse_transaction
from leyden_regtest import protocol as chain
from leyden_regtest.client import call
from leyden_regtest.errors import ChainError

from leyden_cli.client import Client
from leyden_cli.demo.errors import DemoFailed, expect
from leyden_cli.run import Ready

T = TypeVar("T")
PATIENCE = 120.0
"""Seconds for whatever a program does by itself: a limit for what hangs, never met on a machine that is merely busy."""


class Child:
    """A process of ours, known by its handle, whose first line on standard output says that it is ready."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start any program; all it says goes to the log."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )

    async def spawn(self, arguments: Sequence[str], environment: Mapping[str, str]) -> bytes:
        """Start a Python module; the readiness line. ``DemoFailed`` with the last words of one that ended instead."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
            )
        if self._process.stdout is None:
            raise DemoFailed(f"{self.name} has no standard output")
        try:
            async with asyncio.timeout(PATIENCE):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise DemoFailed(f"{self.name} was not ready after {PATIENCE:g} s") from None
        if not line:
            await self._process.wait()
            raise DemoFailed(f"{self.name} did not start: {self.last_words()}")
        return line

    @property
    def pid(self) -> int:
        return -1 if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def last_words(self) -> str:
        lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][:500] if lines else "it said nothing"

    async def kill(self) -> None:
        """SIGKILL: it learns nothing and writes nothing any more."""
        if self._process is not None and self.is_running:
            self._process.kill()
            await self._process.wait()

    async def terminate(self) -> int:
        """SIGTERM, and its exit code; SIGKILL if that takes too long."""
        if self._process is None:
            return 0
        if self.is_running:
            self._process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise DemoFailed(f"{self.name} did not stop within {PATIENCE:g} s") from None


class Spender(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that spends an output; ``confirmed`` once it is in a block."""

    txid: str
    confirmed: bool


class DemoChain(Protocol):
    """What the demo asks of the chain it runs on."""

    child: "Child"
    service: str
    """Name of the nodes' chain source."""

    async def start(self) -> None: ...

    async def close(self) -> None:
        """Let go of connections and of helpers; the process is ended through ``child``."""
        ...

    def settings(self) -> Mapping[str, object]:
        """The nodes' settings for ``service``."""
        ...

    async def mine(self, blocks: int) -> None: ...

    async def height(self) -> int: ...

    async def faucet(self, address: str, sat: int) -> str:
        """The txid of the payment, which waits for the next block."""
        ...

    async def transaction(self, txid: str) -> Transaction | None:
        """From the mempool or a block."""
        ...

    async def find_spender(self, txid: str, vout: int) -> Spender | None: ...

    async def value_if_unspent(self, txid: str, vout: int) -> int: ...

    async def is_its_own(self, script: bytes) -> bool:
        """Whether an output belongs to the faucet, not to a node."""
        ...


class Chain:
    """``leyden-regtest serve`` and what the demo asks of it."""

    service = "regtest"

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "chain.sock"
        self.child = Child("the chain", folder / "chain.log")
        self._folder = folder / "chain"

    async def start(self) -> None:
        await self.child.spawn(
            ("leyden_regtest", "serve", "--dir", str(self._folder), "--socket", str(self.socket)), {}
        )

    async def close(self) -> None:
        """Requests keep no connection."""

    async def ask(self, request: chain.AnyRequest, result: type[T]) -> T:
        try:
            return await call(self.socket, request, result)
        except ChainError as error:
            raise DemoFailed(f"the chain refuses: {error}") from None

    def settings(self) -> Mapping[str, object]:
        return {"socket": str(self.socket)}

    async def find_spender(self, txid: str, vout: int) -> Spender | None:
        answer = await self.ask(chain.FindSpender(txid=txid, vout=vout), msgspec.Raw)
        found = msgspec.json.decode(answer, type=chain.TransactionResult | None)
        return None if found is None else Spender(txid=found.txid, confirmed=found.height is not None)

    async def transaction(self, txid: str) -> Transaction | None:
        try:
            found = await call(self.socket, chain.FindTransaction(txid=txid), chain.TransactionResult)
        except ChainError:
            return None
        return parse_transaction(bytes.fromhex(found.transaction))

    async def value_if_unspent(self, txid: str, vout: int) -> int:
        found = await self.ask(chain.FindUtxo(txid=txid, vout=vout), chain.UtxoResult)
        return found.sat if found.status == "found" else 0

    async def is_its_own(self, script: bytes) -> bool:
        info = await self.ask(chain.GetInfo(), chain.ChainInfo)
        return script == bytes.fromhex(info.faucet_script)

    async def mine(self, blocks: int) -> None:
        await self.ask(chain.Mine(blocks=blocks), list[str])

    async def height(self) -> int:
        return (await self.ask(chain.GetInfo(), chain.ChainInfo)).height

    async def faucet(self, address: str, sat: int) -> str:
        """The txid of the payment, which waits for the next block."""
        return (await self.ask(chain.FaucetPay(address=address, sat=sat), chain.TransactionResult)).txid


class DemoNode:
    """A Leyden node in a process of its own, and the client of its socket."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.folder = folder / name
        self.child = Child(name, folder / f"{name}.log")
        self.ready = Ready(node_id="", address=None, socket="")
        self._environment = environment
        self._client: Client | None = None

    async def start(self) -> None:
        line = await self.child.spawn(("leyden_cli", "start", "--dir", str(self.folder), "--json"), self._environment)
        self.ready = msgspec.json.decode(line, type=Ready)
        self._client = await Client.connect(Path(self.ready.socket))

    @property
    def client(self) -> Client:
        if self._client is None:
            raise DemoFailed(f"{self.name} is not running")
        return self._client

    @property
    def node_id(self) -> str:
        return self.ready.node_id

    async def kill(self) -> None:
        await self.child.kill()
        await self._hang_up()

    async def stop(self) -> None:
        """An orderly stop; ``DemoFailed`` if the exit code is not 0."""
        await self._hang_up()
        code = await self.child.terminate()
        expect(code == 0, f"{self.name} ended with code {code}: {self.child.last_words()}")

    async def _hang_up(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def wait_until(what: str, check: Callable[[], Awaitable[bool]], seconds: float = PATIENCE) -> None:
    """``DemoFailed`` when ``check`` is not true in time."""
    try:
        async with asyncio.timeout(seconds):
            while not await check():  # noqa: ASYNC110 (what it waits for happens in another process)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise DemoFailed(f"waited {seconds:g} s in vain: {what}") from None


def find_program(name: str, variable: str) -> list[str]:
    """How to run it: the words of the environment ``variable``, else ``name`` on PATH; ``DemoFailed`` without both."""
    words = shlex.split(os.environ.get(variable, ""))
    found = shutil.which(name)
    if not words and found is None:
        raise DemoFailed(f"no {name} on PATH: install one, or set {variable} to how it is run")
    return words or [str(found)]
