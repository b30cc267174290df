"""The plugin ``bitcoind``: one bitcoind as chain source, broadcaster and fee estimator."""

from pathlib import Path

import msgspec
from leyden.hooks import hookimpl
from leyden.hooks.errors import PluginError
from leyden.hooks.registry import PluginServices, ServiceContext

from leyden_bitcoind.client import Credentials, RpcClient
from leyden_bitcoind.news import News
from leyden_bitcoind.node import BitcoindNode


class BitcoindSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Table ``[bitcoind]``; see the README."""

    url: str
    cookie_file: str | None = None
    user: str = ""
    password_file: str | None = None
    zmq: tuple[str, ...] = ()
    poll_seconds: float = 2.0
    timeout_seconds: float = 30.0


def make_node(settings: BitcoindSettings, context: ServiceContext) -> BitcoindNode:
    """Relative paths are taken from the node's data folder. ``PluginError`` for settings that cannot work."""
    if settings.poll_seconds <= 0 or settings.timeout_seconds <= 0:
        raise PluginError("bitcoind: poll_seconds and timeout_seconds must be above 0")
    for address in settings.zmq:
        if not address.startswith(("tcp://", "ipc://")):
            raise PluginError(f"bitcoind: a zmq address begins with tcp:// or ipc://, not {address!r}")
    client = RpcClient(settings.url, _credentials(settings, context), timeout_seconds=settings.timeout_seconds)
    return BitcoindNode(client, context.network, News(settings.zmq), poll_seconds=settings.poll_seconds)


def _credentials(settings: BitcoindSettings, context: ServiceContext) -> Credentials:
    if settings.cookie_file is not None:
        return Credentials(cookie_file=context.folder / Path(settings.cookie_file).expanduser())
    if not settings.user or settings.password_file is None:
        raise PluginError("bitcoind needs cookie_file, or user and password_file")
    path = context.folder / Path(settings.password_file).expanduser()
    try:
        password = path.read_text().strip()
    except OSError as error:
        raise PluginError(f"bitcoind's password_file {path}: {error.strerror}") from error
    return Credentials(user=settings.user, password=password)


@hookimpl
def leyden_register_services(registry: PluginServices) -> None:
    for kind in ("chain_source", "broadcaster", "fee_estimator"):
        registry.add(kind, "bitcoind", make_node, BitcoindSettings)
