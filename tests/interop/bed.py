"""What runs while one peer is tested: bitcoind and the peer, with coins of its own."""

import time
from collections.abc import Callable
from pathlib import Path

from leyden.wire.features import Features

from tests.interop.observer import Observer
from tests.interop.peer import LightningPeer
from tests.interop.peers import Entry
from tests.testbed.bitcoind import Bitcoind

BTC = 100_000_000
CAPACITY = 1_000_000
PATIENCE = 120.0
"""Only something that hangs needs so long, whatever else the machine does."""
NO_ESTIMATES = ("-blocksonly=1", "-walletbroadcast=1", "-maxmempool=300")
"""bitcoind tells no feerates then, and we use fixed ones. Otherwise it begins to tell some in the middle of a run:
those of the scenarios before, which may be so low that what a peer pays is too much. The other two put back what the
first one changes beside."""
PEER_COINS = 12
"""Coins that the peer gets, of half a bitcoin each: openings in a row must not wait for change."""


class Bed:
    """bitcoind and one peer with coins; started once for all scenarios of the peer."""

    def __init__(self, entry: Entry, folder: Path) -> None:
        self.entry = entry
        self.folder = folder
        self.bitcoind = Bitcoind(folder / "bitcoind", options=NO_ESTIMATES)
        self.peer: LightningPeer = entry.make(folder / entry.name, self.bitcoind)
        self.version = ""
        self.node_id = ""
        self.features = Features()
        """Of the peer's last ``init``."""
        self.observer: Observer | None = None

    def start(self) -> "Bed":
        try:
            self.bitcoind.start().make_wallet()
            self.peer.start()
            self.version, self.node_id = self.peer.version, self.peer.node_id
            coins = {self.peer.new_address(): 0.5 for _ in range(PEER_COINS)}
            self.bitcoind.rpc("sendmany", "", coins)
            self.bitcoind.mine()
            self.observer = Observer(self.node_id, self.peer.host, self.peer.port).start()
            self.wait(lambda: self.peer.confirmed_sat() >= len(coins) * BTC // 2, "the peer sees its coins")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        if self.observer is not None:
            self.observer.stop()
        close: Callable[[], None] = getattr(self.peer, "close", self.peer.stop)
        close()
        self.bitcoind.stop()

    def wait(self, reached: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.entry.name}: it did not come to this: {what}\n{self.peer.log_tail()}")
            time.sleep(0.05)

    def height(self) -> int:
        return int(self.bitcoind.rpc("getblockcount"))
