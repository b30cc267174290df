"""The plugin ``electrum``: Electrum servers as chain source, broadcaster and fee estimator."""

from pathlib import Path

import msgspec
from leyden.hooks import hookimpl
from leyden.hooks.errors import PluginError
from leyden.hooks.registry import PluginServices, ServiceContext

from leyden_electrum.address import parse_addresses
from leyden_electrum.dial import Dialer
from leyden_electrum.node import ElectrumNode
from leyden_electrum.pins import Pins
from leyden_electrum.pool import ServerPool


class ElectrumSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Table ``[electrum]``; see the README."""

    servers: tuple[str, ...]
    proxy: str | None = None
    ca_file: str | None = None
    timeout_seconds: float = 30.0
    compare_seconds: float = 600.0


def make_node(settings: ElectrumSettings, context: ServiceContext) -> ElectrumNode:
    """Relative paths are taken from the node's data folder. ``PluginError`` for settings that cannot work."""
    addresses = parse_addresses(settings.servers)
    if settings.timeout_seconds <= 0 or settings.compare_seconds <= 0:
        raise PluginError("[electrum] timeout_seconds and compare_seconds must be above 0")
    for address in addresses:
        if address.is_onion and settings.proxy is None:
            raise PluginError(f'[electrum] {address} needs a proxy: set proxy = "socks5://127.0.0.1:9050" for Tor')
    ca_file = None
    if settings.ca_file is not None:
        ca_file = context.folder / Path(settings.ca_file).expanduser()
        if not ca_file.is_file():
            raise PluginError(f"[electrum] ca_file {ca_file} does not exist")
    dialer = Dialer(Pins(context.folder), proxy=settings.proxy, ca_file=ca_file)
    pool = ServerPool(addresses, dialer, context.network, timeout_seconds=settings.timeout_seconds)
    return ElectrumNode(pool, context.network, compare_seconds=settings.compare_seconds)


@hookimpl
def leyden_register_services(registry: PluginServices) -> None:
    for kind in ("chain_source", "broadcaster", "fee_estimator"):
        registry.add(kind, "electrum", make_node, ElectrumSettings)
