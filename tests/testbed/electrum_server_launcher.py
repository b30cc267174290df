# mypy: ignore-errors
"""Runs with the Electrum server's own interpreter: its program with the changes that a test bed on one machine needs.

It pads small answers and holds them back for up to a second, so that an eavesdropper learns less; here that only makes
every test slow (``LEYDEN_TESTBED_PADDED`` leaves that as it is). Regtest has no fee estimates: it gets a constant one.
Version 2 demands a newer bitcoind than the test bed has, with an index of spenders; without that index it knows the
spenders of the mempool only.
"""

import os
import sys

from electrumx.cli.electrumx_server import main
from electrumx.lib import coins
from electrumx.server.daemon import Daemon
from electrumx.server.transport import PaddedRSTransport

FEERATE_BTC_PER_KVB = 0.00005


async def estimatefee(self, block_count, *args):
    return FEERATE_BTC_PER_KVB


async def gettxspendingprevout(self, txid, vout):
    (found,) = await self._send_single("gettxspendingprevout", ([{"txid": txid, "vout": vout}],))
    return found


if "LEYDEN_TESTBED_PADDED" not in os.environ:
    PaddedRSTransport.WAIT_FOR_BUFFER_GROWTH_SECONDS = 0.0
Daemon.estimatefee = estimatefee
if hasattr(Daemon, "gettxspendingprevout"):
    Daemon.gettxspendingprevout = gettxspendingprevout
    coins.Bitcoin.MIN_REQUIRED_DAEMON_VERSION = None
    coins.Bitcoin.REQUIRED_DAEMON_INDEXES = ("txindex",)
sys.argv[:] = ["electrumx_server"]
main()
