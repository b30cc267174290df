"""Electrum servers as chain source, broadcaster and fee estimator; every answer is verified."""

from leyden_electrum.address import ServerAddress, parse_address
from leyden_electrum.node import ElectrumNode

__all__ = ["ElectrumNode", "ServerAddress", "parse_address"]
