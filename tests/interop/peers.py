"""The implementations that Leyden is tested against: a line each."""

import importlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec

from tests.interop.peer import LightningPeer
from tests.testbed.bitcoind import Bitcoind


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """``driver`` is ``module:class``, made with a folder and the bitcoind; imported when it is used."""

    name: str
    driver: str
    what: str
    counterparts: tuple[str, ...] = ()
    """What it is made of in ``python -m tests.testbed``, beside bitcoind; empty: the one with its own name."""
    required: Callable[[], bool] = lambda: True
    """Whether CI fails without it."""

    def make(self, folder: Path, bitcoind: Bitcoind) -> LightningPeer:
        module, _, name = self.driver.partition(":")
        made = getattr(importlib.import_module(module), name)(folder, bitcoind)
        return cast(LightningPeer, made)


PEERS = (
    Entry(
        name="electrum",
        driver="tests.interop.electrum_peer:ElectrumPeer",
        what="Electrum, Python",
        counterparts=("electrum-server", "electrum"),
    ),
    Entry(name="ldk", driver="tests.testbed.ldk:Ldk", what="LDK, Rust as WebAssembly in Node.js"),
    Entry(name="lnd", driver="tests.testbed.lnd:Lnd", what="LND, Go"),
    Entry(
        name="ldk_node",
        driver="tests.testbed.ldk_node:LdkNode",
        what="LDK Node, Rust",
        required=lambda: shutil.which("cargo") is not None,
    ),
)


def find(name: str) -> Entry:
    return next(entry for entry in PEERS if entry.name == name)
