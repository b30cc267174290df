"""``leyden start``: one node and its socket, from start to an orderly stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import structlog
from leyden.bitcoin import Network
from leyden.node import MainnetRefused, Node
from leyden.node.dispatcher import HookDispatcher

from leyden_cli.config import Config
from leyden_cli.errors import CliError, ConfigError
from leyden_cli.folder import FolderLock, check_private_folder
from leyden_cli.rpc.methods import NodeMethods
from leyden_cli.rpc.server import RpcServer
from leyden_cli.services import load_registry, make_services

log = structlog.get_logger("leyden.run")

T = TypeVar("T")
_LOOKING = frozenset(
    {"info", "stop", "events", "peers", "channels", "balance", "coins", "transactions", "payments", "invoices"}
    | {"payment", "plugins"}
)
"""What the socket answers while the node still follows the chain."""
_PATIENCE = 5.0
"""Seconds after which a start that waits for the chain is mentioned in the log."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What ``leyden start`` says once the node takes calls. ``address``: where peers connect, if it listens."""

    node_id: str
    address: str | None
    socket: str


def run_node(config: Config, ready: Callable[[Ready], None]) -> None:
    """Run until SIGTERM, SIGINT or the method ``stop``. A ``LeydenError`` says in one line why it cannot go on."""
    if config.network is Network.MAINNET:
        raise ConfigError(str(MainnetRefused()))
    check_private_folder(config.data_dir)
    with FolderLock(config.data_dir):
        asyncio.run(_run(config, ready))


async def _run(config: Config, ready: Callable[[Ready], None]) -> None:
    registry = load_registry(config)
    services = make_services(config, registry)
    dispatcher = HookDispatcher(registry.manager, registry.failures)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    patience = loop.call_later(
        _PATIENCE, lambda: log.warning("still_starting", chain=config.services["chain_source"][0])
    )
    socket = _Socket(config, dispatcher, stopping.set)
    try:
        node = await _unless(stopping, Node.start(config.node, services, dispatcher, loaded=socket.open))
        patience.cancel()
        if node is None:
            log.info("stopped_before_ready")
            return
        try:
            await _serve(config, node, socket, stopping, ready)
        finally:
            await node.stop()
    except OSError as error:
        raise CliError(f"the system refused: {error.strerror or error}") from error
    finally:
        patience.cancel()
        await socket.close()
        await dispatcher.close()


class _Socket:
    """The node's socket: open as soon as there is something to look at, before the chain was followed to its tip."""

    def __init__(self, config: Config, dispatcher: HookDispatcher, stop: Callable[[], None]) -> None:
        self._path = config.socket
        self._dispatcher = dispatcher
        self._stop = stop
        self._server: RpcServer | None = None
        self.ready = False

    async def open(self, node: Node) -> None:
        methods = NodeMethods(node, self._dispatcher, self._stop).table
        self._server = RpcServer(self._path, methods, lambda method: self._why_not(node, method))
        await self._server.start()

    def _why_not(self, node: Node, method: str) -> str:
        if self.ready or method in _LOOKING:
            return ""
        info = node.info()
        of_how_many = f" of {info.chain_tip}" if info.chain_tip > info.height else ""
        return f"the node is still following the chain (block {info.height}{of_how_many}): try again when it is there"

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()
            self._server = None


async def _serve(
    config: Config, node: Node, socket: _Socket, stopping: asyncio.Event, ready: Callable[[Ready], None]
) -> None:
    socket.ready = True
    try:
        info = node.info()
        ready(Ready(node_id=info.node_id, address=info.address, socket=str(config.socket)))
        failure = await _unless(stopping, node.failed())
    finally:
        await socket.close()
    if failure is not None:
        raise CliError(f"the node had to stop: {failure}") from failure


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """What ``work`` returns; ``None`` if ``stopping`` was set first, and ``work`` is cancelled then."""
    loop = asyncio.get_running_loop()
    task, waiter = loop.create_task(work), loop.create_task(stopping.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        task.cancel()
        await asyncio.gather(task, waiter, return_exceptions=True)
    return None if task.cancelled() else task.result()
