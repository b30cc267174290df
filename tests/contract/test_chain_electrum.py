"""The Electrum plugin against real servers: the conformance kit on every way to reach one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.bitcoin import Network
from leyden.hooks.registry import ServiceContext
from leyden.testing.chain import ChainBed, ChainSourceSuite
from leyden_electrum import ElectrumNode
from leyden_electrum.plugin import ElectrumSettings, make_node

from tests.testbed import start_or_skip
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.electrum_control import ElectrumControl
from tests.testbed.electrum_server import ElectrumServer

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bitcoind]:
    bitcoind = start_or_skip(lambda: Bitcoind(tmp_path_factory.mktemp("bitcoind")).start())
    bitcoind.make_wallet()
    yield bitcoind
    bitcoind.stop()


@pytest.fixture(scope="module")
def server(daemon: Bitcoind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElectrumServer]:
    started = start_or_skip(lambda: ElectrumServer(tmp_path_factory.mktemp("electrum"), daemon).start())
    yield started
    started.stop()


def node(folder: Path, *servers: str, network: Network = Network.REGTEST, **settings: object) -> ElectrumNode:
    return make_node(ElectrumSettings(servers=servers, **settings), ServiceContext(folder=folder, network=network))


class TestOverTcp(ChainSourceSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind, server: ElectrumServer, tmp_path: Path) -> ChainBed:
        return ChainBed(
            make_source=lambda: node(tmp_path, f"127.0.0.1:{server.port}:t"),
            control=ElectrumControl(daemon, [server]),
        )
