"""The plugin ``regtest``: chain source, broadcaster and fee estimator over the socket of ``leyden-regtest serve``.

Importing it does not load the kernel: only the server needs that.
"""

from pathlib import Path

import msgspec
from leyden.bitcoin import Network
from leyden.hooks.contract import hookimpl
from leyden.hooks.errors import PluginError
from leyden.hooks.registry import PluginServices, ServiceContext
from leyden.types import FeeRatePerKw

from leyden_regtest.client import RegtestClient

SERVICE = "regtest"


class RegtestSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Table ``[regtest]``: the server's ``socket``; ``feerate_per_kw`` (sat per 1000 weight) overrides the server's."""

    socket: str
    feerate_per_kw: int | None = None


def make_client(settings: RegtestSettings, context: ServiceContext) -> RegtestClient:
    """One object is all three services. A relative socket path is taken from the node's data folder."""
    if context.network is not Network.REGTEST:
        raise PluginError("the plugin 'regtest' serves regtest only: set network = \"regtest\"")
    feerate = None if settings.feerate_per_kw is None else FeeRatePerKw(settings.feerate_per_kw)
    return RegtestClient(context.folder / Path(settings.socket).expanduser(), feerate)


@hookimpl
def leyden_register_services(registry: PluginServices) -> None:
    for kind in ("chain_source", "broadcaster", "fee_estimator"):
        registry.add(kind, SERVICE, make_client, RegtestSettings)
