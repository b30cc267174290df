# mypy: ignore-errors
"""Runs with the Electrum server's own interpreter: its program with two changes that a test bed on one machine needs.

It pads small answers and holds them back for up to a second, so that an eavesdropper learns less; here that only makes
every test slow. And regtest has no fee estimates: it gets a constant one.
"""

import sys

from electrumx.cli.electrumx_server import main
from electrumx.server.daemon import Daemon
from electrumx.server.transport import PaddedRSTransport

FEERATE_BTC_PER_KVB = 0.00005


async def estimatefee(self, block_count, *args):
    return FEERATE_BTC_PER_KVB


PaddedRSTransport.WAIT_FOR_BUFFER_GROWTH_SECONDS = 0.0
Daemon.estimatefee = estimatefee
sys.argv[:] = ["electrumx_server"]
main()
