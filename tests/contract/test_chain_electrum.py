"""The Electrum plugin against real servers: the conformance kits on every way to reach one."""

import datetime
import hashlib
import ipaddress
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from leyden.bitcoin import Network, p2wsh
from leyden.chain.checkpoints import Checkpoint
from leyden.hooks.errors import PluginError
from leyden.hooks.registry import ServiceContext
from leyden.hooks.types import HistoryFound, SourceSynced, SourceTrouble, Watch
from leyden.testing.broadcaster import AbsentBroadcasterSuite, BroadcasterBed, BroadcasterSuite
from leyden.testing.chain import (
    AbsentBackendSuite,
    BackendSwitch,
    ChainBed,
    ChainDriver,
    ChainSourceSuite,
    SlowBackendSuite,
    WatchTests,
    WrongNetworkSuite,
    anyone_script,
    spend_anyone,
)
from leyden.testing.fees import AbsentFeeSuite, FeeBed, FeeEstimatorSuite, SlowFeeSuite
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, Sat
from leyden_electrum import ElectrumNode, branches, stream
from leyden_electrum import server as electrum_protocol
from leyden_electrum.pins import AUTHORITY, FILE_NAME
from leyden_electrum.plugin import ElectrumSettings, make_node

from tests.testbed import running
from tests.testbed.bitcoind import Bitcoind, free_port
from tests.testbed.electrum_control import ElectrumControl
from tests.testbed.electrum_server import ElectrumServer
from tests.testbed.socks import SocksServer

pytestmark = [pytest.mark.slow, pytest.mark.testbed]


def certificate(folder: Path) -> tuple[Path, Path]:
    """Files of a self-signed certificate for 127.0.0.1 and its key."""
    folder.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "leyden test bed")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return paths


@pytest.fixture(scope="module")
def server(daemon: Bitcoind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElectrumServer]:
    folder = tmp_path_factory.mktemp("electrum")
    with running.electrum_server(folder, daemon, tls=certificate(folder / "tls")) as server:
        yield server


@pytest.fixture(scope="module")
def new_server(daemon: Bitcoind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ElectrumServer]:
    with running.electrum_server(tmp_path_factory.mktemp("electrum"), daemon, new=True) as server:
        yield server


def node(folder: Path, *servers: str, network: Network = Network.REGTEST, **settings: object) -> ElectrumNode:
    return make_node(
        ElectrumSettings(servers=servers, **settings),
        ServiceContext(folder=folder, network=network),
    )


def tcp(server: ElectrumServer) -> str:
    return f"127.0.0.1:{server.port}:t"


def tls(server: ElectrumServer) -> str:
    return f"127.0.0.1:{server.tls_port}:s"


def power(server: ElectrumServer) -> BackendSwitch:
    async def off() -> None:
        server.kill()

    async def on() -> None:
        server.start()

    return BackendSwitch(off=off, on=on)


def freeze(server: ElectrumServer) -> BackendSwitch:
    async def off() -> None:
        server.freeze()

    async def on() -> None:
        server.thaw()

    return BackendSwitch(off=off, on=on)


class TestOverTcp(ChainSourceSuite, SlowBackendSuite, WrongNetworkSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind, server: ElectrumServer, tmp_path: Path) -> ChainBed:
        return ChainBed(
            make_source=lambda: node(tmp_path, tcp(server)),
            make_stranger=lambda: node(tmp_path, tcp(server), network=Network.SIGNET),
            control=ElectrumControl(daemon, [server]),
            freeze=freeze(server),
        )


class TestNewProtocol(ChainSourceSuite, SlowBackendSuite):
    """Protocol 1.7: scripts by themselves, outputs followed."""

    @pytest.fixture
    def bed(self, daemon: Bitcoind, new_server: ElectrumServer, tmp_path: Path) -> ChainBed:
        return ChainBed(
            make_source=lambda: node(tmp_path, tcp(new_server)),
            control=ElectrumControl(daemon, [new_server]),
            freeze=freeze(new_server),
        )


class TestOldProtocol(WatchTests):
    """Protocol 1.4: what older servers speak."""

    @pytest.fixture(autouse=True)
    def _old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(electrum_protocol, "NEWEST", "1.4")

    @pytest.fixture
    def bed(self, daemon: Bitcoind, server: ElectrumServer, tmp_path: Path) -> ChainBed:
        return ChainBed(make_source=lambda: node(tmp_path, tcp(server)), control=ElectrumControl(daemon, [server]))


class TestTwoServers(ChainSourceSuite):
    """Compared with each other all the time, one over TLS with a pinned certificate, and of two protocols."""

    @pytest.fixture
    def bed(self, daemon: Bitcoind, server: ElectrumServer, new_server: ElectrumServer, tmp_path: Path) -> ChainBed:
        return ChainBed(
            make_source=lambda: node(tmp_path, tls(server), tcp(new_server), compare_seconds=0.05),
            control=ElectrumControl(daemon, [server, new_server]),
        )


class TestAbsentSource(AbsentBackendSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind, server: ElectrumServer, tmp_path: Path) -> ChainBed:
        return ChainBed(
            make_source=lambda: node(tmp_path, tcp(server)),
            control=ElectrumControl(daemon, [server]),
            power=power(server),
        )


class TestBroadcaster(BroadcasterSuite, AbsentBroadcasterSuite):
    @pytest.fixture
    def bed(self, daemon: Bitcoind, server: ElectrumServer, tmp_path: Path) -> BroadcasterBed:
        return BroadcasterBed(
            make_broadcaster=lambda: node(tmp_path, tcp(server)),
            control=ElectrumControl(daemon, [server]),
            power=power(server),
        )


class TestFees(FeeEstimatorSuite, AbsentFeeSuite, SlowFeeSuite):
    @pytest.fixture
    def bed(self, server: ElectrumServer, tmp_path: Path) -> FeeBed:
        return FeeBed(
            make_estimator=lambda: node(tmp_path, tcp(server)),
            expected=FeeRatePerKw(1250),  # what the test bed's launcher makes the server say
            power=power(server),
            freeze=freeze(server),
        )


# -- ways to reach a server ------------------------------------------------------------------------------------------


async def followed(source: ElectrumNode, daemon: Bitcoind) -> ChainDriver:
    driver = ChainDriver(source, daemon.rpc("getblockcount"))
    await driver.start()
    await driver.run_until_synced()
    return driver


async def test_a_certificate_is_noted_the_first_time_and_refused_when_it_changes(
    daemon: Bitcoind, server: ElectrumServer, tmp_path: Path
) -> None:
    await (await followed(node(tmp_path, tls(server)), daemon)).stop()
    pins = json.loads((tmp_path / FILE_NAME).read_text())
    der = x509.load_pem_x509_certificate((server.folder / "tls" / "certificate.pem").read_bytes()).public_bytes(
        serialization.Encoding.DER
    )
    assert pins == {f"127.0.0.1:{server.tls_port}": hashlib.sha256(der).hexdigest()}
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    await (await followed(node(tmp_path, tls(server)), daemon)).stop()
    (tmp_path / FILE_NAME).write_text(json.dumps(dict.fromkeys(pins, "ab" * 32)))
    stranger = node(tmp_path, tls(server))
    with pytest.raises(PluginError) as refused:
        await stranger.start((), 0)
    place = f"127.0.0.1:{server.tls_port}"
    assert str(refused.value) == (
        f"no Electrum server can be used: {place}: its certificate has changed from abababababababab… to "
        f"{pins[place][:16]}…: somebody may stand between us and {place}; if its operator has renewed it, "
        f"remove {place} from {tmp_path / FILE_NAME}"
    )
    await stranger.stop()


async def test_another_server_is_used_when_a_certificate_has_changed(
    daemon: Bitcoind, server: ElectrumServer, tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps({f"127.0.0.1:{server.tls_port}": "ab" * 32}))
    driver = await followed(node(tmp_path, tls(server), tcp(server)), daemon)
    assert "its certificate has changed" in str(driver.notices[0])
    await driver.stop()


async def test_who_was_vouched_for_once_must_be_so_again(
    daemon: Bitcoind, server: ElectrumServer, tmp_path: Path
) -> None:
    """Nobody may answer for it with a certificate of their own making."""
    (tmp_path / FILE_NAME).write_text(json.dumps({f"127.0.0.1:{server.tls_port}": AUTHORITY}))
    source = node(tmp_path, tls(server))
    with pytest.raises(
        PluginError, match=r"no certificate authority vouches for it any more \(self.signed certificate"
    ):
        await source.start((), 0)
    await source.stop()


async def test_a_certificate_by_its_authority(daemon: Bitcoind, server: ElectrumServer, tmp_path: Path) -> None:
    right = server.folder / "tls" / "certificate.pem"
    await (await followed(node(tmp_path, tls(server), ca_file=str(right)), daemon)).stop()
    assert not (tmp_path / FILE_NAME).exists()
    wrong, _ = certificate(tmp_path / "other")
    source = node(tmp_path, tls(server), ca_file=str(wrong))
    with pytest.raises(PluginError, match="does not vouch for its certificate"):
        await source.start((), 0)
    await source.stop()


async def test_tls_to_a_server_without_it(daemon: Bitcoind, server: ElectrumServer, tmp_path: Path) -> None:
    source = node(tmp_path, f"127.0.0.1:{server.port}:s")
    driver = ChainDriver(source, 1)
    await driver.start()
    await driver.take_event()
    assert "no TLS connection comes about" in str(driver.notices[0])
    await driver.stop()


@pytest.fixture
async def proxy() -> AsyncIterator[SocksServer]:
    started = await SocksServer().start()
    yield started
    await started.stop()


@pytest.mark.parametrize("way", ["tcp", "tls"])
async def test_through_a_proxy_that_resolves_the_names(
    way: str, daemon: Bitcoind, server: ElectrumServer, proxy: SocksServer, tmp_path: Path
) -> None:
    """The name means nothing on this machine: only the proxy knows it."""
    port = server.port if way == "tcp" else server.tls_port
    name = "electrumtestbedelectrumtestbedelectrumtestbedelectrumtes.onion"
    proxy.names[name] = "127.0.0.1"
    source = node(tmp_path, f"{name}:{port}:{'s' if way == 'tls' else 't'}", proxy=proxy.url)
    driver = await followed(source, daemon)
    await driver.stop()
    assert {asked for asked, _ in proxy.asked} == {(name, port)}
    assert all(user for _, user in proxy.asked), "no user, no circuit of its own"


async def test_each_connection_has_a_circuit_of_its_own(
    daemon: Bitcoind, server: ElectrumServer, proxy: SocksServer, tmp_path: Path
) -> None:
    for _ in range(2):
        await (await followed(node(tmp_path, tcp(server), proxy=proxy.url), daemon)).stop()
    users = [user for _, user in proxy.asked]
    assert len(users) == len(set(users)) == 2


async def test_what_the_proxy_says_is_passed_on(proxy: SocksServer, tmp_path: Path) -> None:
    for address, url, words in (
        ("nowhere.invalid:50001:t", proxy.url, "the proxy cannot reach it: Host unreachable"),
        ("nowhere.invalid:50001:t", f"socks5://127.0.0.1:{free_port()}", "the proxy 127.0.0.1:"),
    ):
        driver = ChainDriver(node(tmp_path, address, proxy=url), 1)
        await driver.start()
        await driver.take_event()
        (trouble,) = driver.notices
        assert isinstance(trouble, SourceTrouble)
        assert words in trouble.reason
        await driver.stop()


async def test_a_server_that_does_not_exist_is_named(tmp_path: Path) -> None:
    port = free_port()
    driver = ChainDriver(node(tmp_path, f"127.0.0.1:{port}:t"), 1)
    await driver.start()
    await driver.take_event()
    (trouble,) = driver.notices
    assert isinstance(trouble, SourceTrouble)
    assert trouble.reason.startswith(f"no Electrum server can be used: 127.0.0.1:{port}: it cannot be reached: ")
    await driver.stop()


async def test_the_next_server_takes_over(
    daemon: Bitcoind, server: ElectrumServer, new_server: ElectrumServer, tmp_path: Path
) -> None:
    """The stream goes on where it was, in order."""
    control = ElectrumControl(daemon, [new_server])
    driver = await followed(node(tmp_path, tcp(server), tcp(new_server)), daemon)
    before = driver.follower.height
    server.kill()
    try:
        await control.mine(3)
        height, tip = await control.tip()
        await driver.run_until(height, tip)
        assert driver.connected()[-3:] == [before + 1, before + 2, before + 3]
        assert driver.restarts == 0
        await driver.stop()
    finally:
        server.start()


async def test_a_padded_server_is_not_asked_one_by_one(daemon: Bitcoind, tmp_path: Path) -> None:
    """Public servers hold small answers back for up to a second and fill them with white space: 300 watches in a row
    would take minutes."""
    with running.electrum_server(tmp_path / "padded", daemon, padded=True) as padded:
        source = node(tmp_path, tcp(padded))
        watches = [Watch(script=p2wsh(anyone_script(b"padded %d" % number))) for number in range(300)]
        driver = ChainDriver(source, daemon.rpc("getblockcount"))
        await driver.watch(watches)
        await driver.start()
        await driver.run_until_synced()
        await driver.stop()


async def test_from_a_checkpoint_and_what_is_older(
    daemon: Bitcoind, server: ElectrumServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers in many pieces, begun at a block that is trusted; a late watch looks for something long before it."""
    for module in (stream, branches, electrum_protocol):
        monkeypatch.setattr(module, "HEADERS_AT_ONCE", 16)
    monkeypatch.setattr(stream, "RETARGET_INTERVAL", 20)
    control = ElectrumControl(daemon, [server])
    witness_script = anyone_script(b"long ago")
    paid = await control.pay(p2wsh(witness_script), Sat(50_000))
    await control.mine(60)
    trusted = Checkpoint(height=(await control.tip())[0], hash=(await control.tip())[1])
    spent = spend_anyone(paid, Sat(49_000), witness_script)
    await control.submit(spent)
    await control.mine(90)
    height, tip = await control.tip()
    monkeypatch.setattr(stream, "newest_checkpoint", lambda network, below: trusted)
    source = node(tmp_path, tcp(server))
    driver = ChainDriver(source, trusted.height + 50)
    await driver.start()
    await driver.run_until(height, tip)
    assert source._stream.headers is not None
    assert source._stream.headers.base == trusted.height - trusted.height % 20 - 10
    assert driver.connected() == list(range(trusted.height + 50, height + 1))
    events = []
    await source.watch([Watch(script=p2wsh(witness_script), since_height=BlockHeight(1))])
    async for event in source.events():
        events.append(event)
        if isinstance(event, SourceSynced):
            break
    found = [(one.height, one.transactions[0].tx.txid) for one in events if isinstance(one, HistoryFound)]
    assert found == [(trusted.height - 59, paid.txid), (trusted.height + 1, spent.txid)]
    assert source._stream.headers.base == trusted.height - 59
    await source.stop()
    false = Checkpoint(height=trusted.height, hash=BlockHash(b"\x11" * 32))
    monkeypatch.setattr(stream, "newest_checkpoint", lambda network, below: false)
    astray = ChainDriver(node(tmp_path, tcp(server)), trusted.height + 50)
    await astray.start()
    await astray.take_event()
    assert "its chain is no chain: the headers do not end with block 1111" in str(astray.notices[0])
    await astray.stop()


async def test_a_reorg_below_the_first_header_that_we_have(
    daemon: Bitcoind, server: ElectrumServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found above the fork is found again, in the block that has it now."""
    monkeypatch.setattr(stream, "RETARGET_INTERVAL", 20)
    control = ElectrumControl(daemon, [server])
    await control.mine(60)
    earlier = await followed(node(tmp_path / "earlier", tcp(server)), daemon)
    source = node(tmp_path, tcp(server))
    driver = await earlier.successor(source)
    script = p2wsh(anyone_script(b"below the first header"))
    await driver.watch([Watch(script=script)])
    await driver.start()
    paid = await control.pay(script, Sat(50_000))
    await control.mine(2)
    height, tip = await control.tip()
    await driver.run_until(height, tip)
    assert driver.conclusions.found == {(height - 1, paid.txid)}
    assert source._stream.headers is not None
    fork = source._stream.headers.base - 5
    assert 0 < fork < height - 10
    address = daemon.rpc("getnewaddress")
    daemon.rpc("invalidateblock", daemon.rpc("getblockhash", fork + 1))
    for above in range(fork + 1, height + 2):
        daemon.rpc("generateblock", address, [paid.serialize().hex()] if above == height - 1 else [])
    server.wait_for_tip()
    await driver.run_until(height + 1, (await control.tip())[1])
    assert driver.conclusions.found == {(height - 1, paid.txid)}
    await driver.stop()
