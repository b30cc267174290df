"""The config file: what is read, and that every mistake is one line that names it."""

import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from leyden.bitcoin import Network
from leyden.hooks.registry import KEY_CAPABILITIES
from leyden.node import ChainSettings
from leyden_cli.config import load_config, read_config
from leyden_cli.errors import CliError, ConfigError
from leyden_cli.folder import FolderLock, check_private_folder
from leyden_cli.initialize import initialize_node
from leyden_cli.main import cli, run
from leyden_cli.template import parse_assignment, write_config
from logging_kit import logging_undone

NODE = "02" + "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"
GOOD = 'network = "regtest"\nchain_source = "regtest"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "leyden.toml"
    path.write_text(text)
    return path


def test_minimal_config_has_defaults(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.network is Network.REGTEST
    assert config.data_dir == tmp_path
    assert config.node.listen == ("127.0.0.1", 9735)
    assert config.services["broadcaster"] == config.services["fee_estimator"] == ("regtest",)
    assert all(config.services[kind] == ("inmemory",) for kind in KEY_CAPABILITIES)


def test_every_key_is_read(tmp_path: Path) -> None:
    text = f"""
        network = "signet"
        data_dir = "data"
        listen = "[::1]:10000"
        connect = ["{NODE}@localhost:9735"]
        birth_height = 700
        plugins = ["cli"]
        chain_source = "one"
        broadcaster = ["one", "two"]
        fee_estimator = "two"
        store = "three"
        wallet = "four"
        keys = "five"
        onchain_signer = "six"
        [channel]
        minimum_depth = 9
        [log]
        level = "debug"
        [two]
        anything = 1
    """
    config = load_config(write(tmp_path, text))
    assert config.data_dir == tmp_path / "data"
    assert config.socket == tmp_path / "data" / "leyden.sock"
    assert config.node.listen == ("::1", 10_000)
    assert config.node.connect == ((bytes.fromhex(NODE), "localhost", 9735),)
    assert config.node.birth_height == 700
    assert config.node.policy.minimum_depth == 9
    assert config.services["broadcaster"] == ("one", "two")
    assert config.services["fee_estimator"] == ("two",)
    assert config.services["node_identity"] == ("five",)
    assert config.services["onchain_signer"] == ("six",)
    assert config.tables["two"] == {"anything": 1}
    assert config.log.level == "debug"


def test_several_chain_sources_and_verifiers(tmp_path: Path) -> None:
    text = """
        network = "regtest"
        chain_source = ["one", "two"]
        chain_verifier = "two"
        [chain]
        max_tip_age_minutes = 30
    """
    config = load_config(write(tmp_path, text))
    assert config.services["chain_source"] == ("one", "two")
    assert config.services["chain_verifier"] == ("two",)
    assert config.services["broadcaster"] == config.services["fee_estimator"] == ("one", "two")
    assert config.node.chain.max_tip_age_minutes == 30


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('chain_source = ["one", "one"]', "chain_source names 'one' twice"),
        ('chain_source = "one"\nchain_verifier = "one"', "chain_verifier: 'one' is the chain source that is followed"),
        ('chain_source = "one"\n[chain]\nmax_tip_age_minutes = 5', "max_tip_age_minutes below 20"),
        ('chain_source = "one"\n[chain]\nmax_tip_age_minutes = 20000', "max_tip_age_minutes must be between"),
        ('chain_source = "one"\n[chain]\nfailover_seconds = -1', "failover_seconds must be between"),
        ('chain_source = "one"\n[chain]\nmax_tip_age = 5', "max_tip_age"),
    ],
)
def test_mistakes_about_the_chain_are_one_line(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        load_config(write(tmp_path, f'network = "regtest"\n{text}'))


def test_the_default_age_of_the_tip_depends_on_the_network() -> None:
    ages = {network: ChainSettings().tip_age_seconds(network) for network in (Network.REGTEST, Network.SIGNET)}
    assert ages == {Network.REGTEST: 0, Network.SIGNET: 5400}
    assert ChainSettings(max_tip_age_minutes=90).tip_age_seconds(Network.REGTEST) == 5400


def test_empty_listen_means_nowhere(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, GOOD + 'listen = ""')).node.listen is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('netwrok = "regtest"', "no key 'netwrok' (did you mean 'network'?)"),
        (GOOD + 'lissten = "x"', "did you mean 'listen'?"),
        ("", "the key network is missing"),
        ('network = "bitcoin"', "unknown network 'bitcoin': use one of"),
        ('network = "regtset"', "did you mean 'regtest'?"),
        ("network = 3", "network: Expected `str`, got `int`"),
        (GOOD + "birth_height = -1", "birth_height must not be negative"),
        (GOOD + 'birth_height = "x"', "birth_height: Expected `int`"),
        (GOOD + 'listen = "9735"', "listen must be HOST:PORT"),
        (GOOD + 'listen = "::1:9735"', "listen must be HOST:PORT"),
        (GOOD + 'listen = "localhost:70000"', "there is no port 70000"),
        (GOOD + 'connect = ["localhost:9735"]', "a peer is written NODE_ID@HOST:PORT"),
        (GOOD + f'connect = ["{"05" * 33}@localhost:9735"]', "is no node id"),
        (
            GOOD + "[channel]\nminimum_dept = 3",
            "[channel] has no setting 'minimum_dept' (did you mean 'minimum_depth'?)",
        ),
        (GOOD + '[channel]\nminimum_depth = "3"', "[channel] is wrong: Expected `int`"),
        (GOOD + "[channel]\nminimum_depth = -3", "[channel] minimum_depth must not be negative"),
        (GOOD + "[chanel]\nminimum_depth = 3", "[chanel] belongs to no plugin"),
        (GOOD + '[regtset]\nsocket = "x"', "did you mean 'regtest'?"),
        (GOOD + '[log]\nlevel = "loud"', "[log] level must be one of debug, info, warning, error"),
        (GOOD + "[store]\nx = 1", "store is a plain key"),
        ("channel = 3\n" + GOOD, "channel is a table"),
        ("network = ", "is not TOML"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_config_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "leyden.toml"
    with pytest.raises(ConfigError, match="run `leyden init"):
        load_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path)


def test_template_reads_back(tmp_path: Path) -> None:
    tables = {"regtest": {"socket": '/a "b"\\c', "feerate_per_kw": 300}}
    text = write_config(
        network="regtest", listen="", chain_source="regtest", keys="inmemory", plugins=["cli"], tables=tables
    )
    config = read_config(tomllib.loads(text), tmp_path / "leyden.toml")
    assert config.tables == tables
    assert config.plugins == ("cli",)
    assert config.node.listen is None


def test_commented_defaults_of_the_template_are_the_defaults(tmp_path: Path) -> None:
    """A reader may remove any comment sign and change nothing."""
    text = write_config(network="regtest", listen="", chain_source="x", keys="inmemory", plugins=[], tables={})
    plain = read_config(tomllib.loads(text), tmp_path / "leyden.toml")
    lines = [
        line for line in text.splitlines() if "..." not in line and "data_dir" not in line and "file =" not in line
    ]
    bare = "\n".join(line.removeprefix("# ") for line in lines if " = " in line or line.startswith("# ["))
    opened = read_config(tomllib.loads(bare), tmp_path / "leyden.toml")
    assert opened == plain


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.b=3", 3), ("a.b=true", True), ("a.b=/run/x.sock", "/run/x.sock"), ("a.b='x=y'", "x=y"), ("a.b=", "")],
)
def test_assignments(text: str, value: object) -> None:
    assert parse_assignment(text) == ("a", "b", value)


@pytest.mark.parametrize("text", ["", "a=3", "a.b", "a b.c=3", ".b=3"])
def test_bad_assignments(text: str) -> None:
    with pytest.raises(ConfigError, match=r"TABLE\.KEY=VALUE"):
        parse_assignment(text)


def test_init_writes_private_files_and_overwrites_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "node"
    tables = {"regtest": {"socket": "chain.sock"}}
    path, lines = initialize_node(folder, chain_source="regtest", tables=tables)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    assert len(lines[-1].split()) == 24
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert path.name in before
    with pytest.raises(CliError, match="exists already"):
        initialize_node(folder, chain_source="regtest", tables=tables)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_init_restores_keys(tmp_path: Path) -> None:
    _, lines = initialize_node(tmp_path / "one")
    _, none = initialize_node(tmp_path / "two", restore=lines[-1])
    assert none == []
    assert (tmp_path / "one/seed.json").read_text() == (tmp_path / "two/seed.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--network", "mainnet"], "mainnet is refused"),
        (["--chain-source", "electron"], "chain_source = 'electron' needs a plugin that provides it"),
        (["--keys", "wallet"], "needs a plugin that provides it"),
        (["--plugin", "regtset"], "plugin 'regtset' is not installed (did you mean 'regtest'?)"),
        (
            ["--chain-source", "regtest", "--set", "regtest.sokcet=x"],
            "has no setting 'sokcet' (did you mean 'socket'?)",
        ),
        (["--chain-source", "regtest", "--network", "signet", "--set", "regtest.socket=x"], 'set network = "regtest"'),
    ],
)
def test_init_that_cannot_work_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    folder = tmp_path / "node"
    assert run(["init", "--dir", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not folder.exists()


def test_mainnet_refuses_to_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 'network = "mainnet"')
    with logging_undone():
        assert run(["start", "--dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("leyden: mainnet is refused")


def test_open_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(ConfigError, match="chmod 700"):
        check_private_folder(tmp_path)


def test_one_node_per_folder(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(CliError, match="is running on"), FolderLock(tmp_path):
        pass
    with FolderLock(tmp_path):
        pass


def test_plugins_imports_nothing_that_is_not_enabled(tmp_path: Path) -> None:
    code = (
        "import sys; from leyden_cli.main import run; "
        f"code = run(['plugins', '--json', '--dir', {str(tmp_path)!r}]); "
        "strangers = ('leyden_regtest', 'leyden_sqlite', 'leyden_inmemory', 'leyden_wallet'); "
        "print([name for name in sys.modules if name.startswith(strangers)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert '"plugin": "sqlite"' in done.stdout


def test_a_command_that_asks_a_node_imports_none(tmp_path: Path) -> None:
    """Scripts call it again and again, and most of its time would be spent on imports."""
    code = (
        "import sys; from leyden_cli.main import run; "
        f"code = run(['info', '--dir', {str(tmp_path)!r}]); "
        "print(code, [name for name in ('leyden.node.core', 'leyden.channel', 'leyden.wire', 'rich', 'structlog') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "3 []\n"


def test_every_command_is_found_under_its_name() -> None:
    context = click.Context(cli)
    names = cli.list_commands(context)
    assert len(names) > 25
    for name in names:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_plugins_shows_what_is_enabled_and_provided(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, GOOD)
    assert run(["plugins", "--dir", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "broadcaster, chain_source, fee_estimator" in lines["regtest"]
    assert lines["cli"].split()[3] == "no"
    assert lines["sqlite"].split()[3:] == ["yes", "store"]


def test_errors_of_usage_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pay"]) == 2
    error = capsys.readouterr().err
    assert "Missing argument" in error
    assert error.count("\n") == 1
