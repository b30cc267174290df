"""Our own node on a real bitcoind, as ``leyden init`` makes it; it runs in this process."""

from pathlib import Path

from leyden.node import Node
from leyden.node.dispatcher import HookDispatcher
from leyden_cli.config import config_path, load_config
from leyden_cli.initialize import initialize_node
from leyden_cli.services import load_registry, make_services

from tests.testbed.bitcoind import Bitcoind

DEPTH = 3
"""Blocks on top of a funding transaction until the channel is used."""


class Leyden:
    """``start`` after ``stop`` is the same node again."""

    def __init__(self, folder: Path, daemon: Bitcoind, *, zmq: bool = True, poll_seconds: float = 0.1) -> None:
        self.folder = folder
        self.name = folder.name
        self._node: Node | None = None
        self._dispatcher: HookDispatcher | None = None
        password_file = folder.with_name(f"{folder.name}.password")
        password_file.write_text(daemon.password)
        settings: dict[str, object] = {
            "url": daemon.url,
            "user": daemon.user,
            "password_file": str(password_file),
            "zmq": [daemon.zmq] if zmq else [],
            "poll_seconds": poll_seconds,
        }
        initialize_node(
            folder,
            network="regtest",
            listen="127.0.0.1:0",
            chain_source="bitcoind",
            keys="inmemory",
            tables={
                "bitcoind": settings,
                "channel": {"minimum_depth": DEPTH},
                "anchor_reserve": {"per_channel": 0, "to_accept": False},
            },
        )
        config = config_path(folder)
        birth = daemon.rpc("getblockcount")
        config.write_text(config.read_text().replace("# birth_height = 0", f"birth_height = {birth}"))

    @property
    def runs(self) -> bool:
        return self._node is not None

    @property
    def node(self) -> Node:
        if self._node is None:
            raise RuntimeError(f"our node in {self.folder} does not run")
        return self._node

    async def start(self) -> Node:
        config = load_config(config_path(self.folder))
        registry = load_registry(config)
        self._dispatcher = HookDispatcher(registry.manager, registry.failures)
        self._node = await Node.start(config.node, make_services(config, registry), self._dispatcher)
        return self._node

    async def stop(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            await node.stop()
        if self._dispatcher is not None:
            await self._dispatcher.close()
            self._dispatcher = None
