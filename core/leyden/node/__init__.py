"""The imperative shell: turn loop, managers of peers, channels, payments and chain, and the ``Node`` API."""

from leyden.node.core import MainnetRefused, NodeConfig, NodeCore, Questions, Services
from leyden.node.node import Hooks, Node, SpendRefused, UnknownChannel
from leyden.node.payments import PaymentError
from leyden.node.peers import ConnectFailed

__all__ = [
    "ConnectFailed",
    "Hooks",
    "MainnetRefused",
    "Node",
    "NodeConfig",
    "NodeCore",
    "PaymentError",
    "Questions",
    "Services",
    "SpendRefused",
    "UnknownChannel",
]
