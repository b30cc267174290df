"""The imperative shell: turn loop, managers of peers, channels, payments and chain, and the ``Node`` API."""

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
