"""bitcoind as chain source, broadcaster and fee estimator."""

from leyden_bitcoind.client import Credentials, RpcClient, RpcDenied, RpcMixedUp, RpcRefused, RpcUnavailable
from leyden_bitcoind.node import BitcoindNode

__all__ = ["BitcoindNode", "Credentials", "RpcClient", "RpcDenied", "RpcMixedUp", "RpcRefused", "RpcUnavailable"]
