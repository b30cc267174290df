"""Sources composed by a config, over the real servers: fail-over and back, a verifier, fan-out of broadcasts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from leyden.node import NO_RESERVE, Node
from leyden.types import Sat
from leyden_cli.config import Config, read_config
from leyden_cli.services import initialize_services, load_registry, make_services

from tests.scenario.conftest import until
from tests.testbed import running
from tests.testbed.bitcoind import Bitcoind
from tests.testbed.electrum_server import ElectrumServer

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


@pytest.fixture
def server(daemon: Bitcoind, tmp_path: Path) -> Iterator[ElectrumServer]:
    with running.electrum_server(tmp_path / "electrum", daemon) as server:
        yield server


def compose(folder: Path, daemon: Bitcoind, server: ElectrumServer, **choices: object) -> Config:
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "password").write_text(daemon.password)
    data: dict[str, object] = {
        "network": "regtest",
        "listen": "",
        "broadcaster": ["bitcoind", "electrum"],
        "fee_estimator": "bitcoind",
        "chain": {"failover_seconds": 1, "return_seconds": 1, "trouble_seconds": 5},
        "anchor_reserve": {"per_channel": NO_RESERVE.per_channel, "most": NO_RESERVE.most},
        "bitcoind": {"url": daemon.url, "user": daemon.user, "password_file": "password", "poll_seconds": 0.2},
        "electrum": {"servers": [f"127.0.0.1:{server.port}:t"], "timeout_seconds": 5.0},
    }
    return read_config(data | choices, folder / "leyden.toml")


async def start(config: Config) -> Node:
    registry = load_registry(config)
    if not (config.data_dir / "node.sqlite").exists():
        initialize_services(config, registry, None)
    return await Node.start(config.node, make_services(config, load_registry(config)))


async def test_fail_over_to_bitcoind_and_back_to_electrum(
    daemon: Bitcoind, server: ElectrumServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Coins that come and go meanwhile are seen once, whichever source tells of them."""
    monkeypatch.setattr("leyden.node.chainmonitor.CHECK_SECONDS", 0.2)
    config = compose(tmp_path / "node", daemon, server, chain_source=["electrum", "bitcoind"])
    node = await start(config)
    try:
        assert node.info().chain_source == "electrum"

        async def receive(amount: int) -> None:
            before = node.wallet_balance().confirmed
            daemon.rpc("sendtoaddress", await node.new_address(), amount / 100_000_000)
            daemon.mine()
            await until(lambda: node.wallet_balance().confirmed == before + amount, 30)

        await receive(1_000_000)
        server.kill()
        await until(lambda: node.info().chain_source == "bitcoind", 30)
        await receive(2_000_000)
        daemon.rpc("invalidateblock", daemon.rpc("getbestblockhash"))
        daemon.mine(2)
        await until(lambda: node.info().height == daemon.rpc("getblockcount") and node.info().synced, 30)
        server.start()
        await until(lambda: node.info().chain_source == "electrum", 60)
        await receive(500_000)
        assert node.wallet_balance().confirmed == 3_500_000
        await node.send_coins(daemon.rpc("getnewaddress"), Sat(100_000))
        await until(lambda: node.transactions()[0]["accepted_by"] == "bitcoind, electrum", 30)
        daemon.mine()
        await until(lambda: node.wallet_balance().confirmed < 3_400_000, 30)
        await until(lambda: not node.info().chain_degraded, 30)  # a busy machine may have been behind for a moment
    finally:
        await node.stop()


async def test_a_verifier_over_the_real_servers_agrees(
    daemon: Bitcoind, server: ElectrumServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leyden.node.chainmonitor.CHECK_SECONDS", 0.2)
    monkeypatch.setattr("leyden.node.chain_verify.HIDDEN_SECONDS", 5.0)  # the verifier is believed after twice that
    config = compose(tmp_path / "node", daemon, server, chain_source="electrum", chain_verifier="bitcoind")
    node = await start(config)
    try:
        followed, verifier = node.core.chain.runners()
        for _ in range(3):
            daemon.rpc("sendtoaddress", await node.new_address(), 0.01)
            daemon.mine()
        await until(lambda: node.wallet_balance().confirmed == 3_000_000, 30)
        await until(lambda: followed.follower.best_hash == verifier.follower.best_hash, 30)
        await until(lambda: not node.info().chain_degraded, 30)  # a busy machine may have been behind for a moment
        server.freeze()
        daemon.mine(4)
        await until(lambda: "bitcoind is at block" in node.core.chain.health.why, 90)
        server.thaw()
        await until(lambda: not node.core.chain.health.why, 60)
    finally:
        await node.stop()
