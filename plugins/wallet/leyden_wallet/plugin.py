"""Entry point: ``wallet = "wallet"`` in the config chooses this service."""

from leyden.hooks import hookimpl
from leyden.hooks.registry import PluginServices, ServiceContext
from leyden.hooks.settings import NoSettings

from leyden_wallet.wallet import OnchainWallet


def _make(settings: NoSettings, context: ServiceContext) -> OnchainWallet:
    return OnchainWallet()


@hookimpl
def leyden_register_services(registry: PluginServices) -> None:
    registry.add("wallet", "wallet", _make)
