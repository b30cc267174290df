"""Counterparts for as long as a fixture or a test needs them: stopped at its end, whatever happens."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.testbed import start_or_skip
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.electrum_server import ElectrumServer


@contextmanager
def bitcoind(folder: Path) -> Iterator[Bitcoind]:
    """One with a wallet and coins in it."""
    daemon = Bitcoind(folder)
    start_or_skip(daemon.start)
    try:
        daemon.make_wallet()
        yield daemon
    finally:
        daemon.stop()


@contextmanager
def electrum_server(folder: Path, daemon: Bitcoind, **kinds: Any) -> Iterator[ElectrumServer]:
    """On top of ``daemon``; ``kinds`` as of ``ElectrumServer``."""
    server = ElectrumServer(folder, daemon, **kinds)
    start_or_skip(server.start)
    try:
        yield server
    finally:
        server.stop()
