"""The imperative shell: turn loop, managers of peers, channels, payments and chain, and the ``Node`` API.

A name is imported when it is asked for: a program that only speaks to a node (``leyden.node.views``) needs no node.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyden.node.calls import NodeStopped
    from leyden.node.chain_health import ChainSettings
    from leyden.node.checking import check_rows
    from leyden.node.core import MainnetRefused, NodeConfig, NodeCore, Questions, Services
    from leyden.node.dispatcher import HookDispatcher
    from leyden.node.node import Node, UnknownChannel
    from leyden.node.paying import SpendRefused
    from leyden.node.payments import PaymentError
    from leyden.node.peers import ConnectFailed
    from leyden.node.reserve import NO_RESERVE, AnchorReserve
    from leyden.node.spending import Bumped, BumpMethod

_MODULES = {
    "calls": ("NodeStopped",),
    "chain_health": ("ChainSettings",),
    "checking": ("check_rows",),
    "core": ("MainnetRefused", "NodeConfig", "NodeCore", "Questions", "Services"),
    "dispatcher": ("HookDispatcher",),
    "node": ("Node", "UnknownChannel"),
    "paying": ("SpendRefused",),
    "payments": ("PaymentError",),
    "peers": ("ConnectFailed",),
    "reserve": ("NO_RESERVE", "AnchorReserve"),
    "spending": ("BumpMethod", "Bumped"),
}

__all__ = [
    "NO_RESERVE",
    "AnchorReserve",
    "BumpMethod",
    "Bumped",
    "ChainSettings",
    "ConnectFailed",
    "HookDispatcher",
    "MainnetRefused",
    "Node",
    "NodeConfig",
    "NodeCore",
    "NodeStopped",
    "PaymentError",
    "Questions",
    "Services",
    "SpendRefused",
    "UnknownChannel",
    "check_rows",
]


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
