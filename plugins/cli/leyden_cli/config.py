"""The config file: TOML into frozen records. Every mistake is one line that names the file and what to change."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from leyden.bitcoin import BitcoinError, Network
from leyden.channel import ChannelPolicy, policy_mistake
from leyden.hooks.discovery import installed_plugins
from leyden.hooks.errors import SettingsError
from leyden.hooks.registry import KEY_CAPABILITIES
from leyden.hooks.settings import nearest, read_settings
from leyden.node import AnchorReserve, ChainSettings, NodeConfig
from leyden.types import BlockHeight

from leyden_cli.addresses import parse_host_port, parse_peer
from leyden_cli.errors import ConfigError
from leyden_cli.folder import SOCKET_NAME, config_path

__all__ = ["Config", "LogSettings", "Settings", "config_path", "load_config", "read_config", "reserved_names"]

LOG_LEVELS = ("debug", "info", "warning", "error")
Table = Mapping[str, object]
Names = str | tuple[str, ...]


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Table ``[log]``. ``file`` is relative to the data folder; without it the log goes to stderr."""

    level: str = "info"
    file: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a config that stand outside tables, as they are written."""

    network: str
    data_dir: str | None = None
    listen: str = "127.0.0.1:9735"
    connect: tuple[str, ...] = ()
    birth_height: int = 0
    plugins: tuple[str, ...] = ()
    chain_source: Names | None = None
    chain_verifier: Names | None = None
    broadcaster: Names | None = None
    fee_estimator: Names | None = None
    store: str = "sqlite"
    wallet: str = "wallet"
    keys: str = "inmemory"
    node_identity: str | None = None
    channel_signer: str | None = None
    onchain_signer: str | None = None
    destinations: str | None = None
    payment_approval: str | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A checked config. ``services`` maps each kind to the names chosen for it, ``tables`` holds their settings."""

    path: Path
    network: Network
    data_dir: Path
    plugins: tuple[str, ...]
    services: Mapping[str, tuple[str | None, ...]]
    tables: Mapping[str, Table]
    log: LogSettings
    node: NodeConfig

    @property
    def socket(self) -> Path:
        return self.data_dir / SOCKET_NAME


_OWN_TABLES = ("anchor_reserve", "chain", "channel", "log")
_KEYS = tuple(field.encode_name for field in msgspec.structs.fields(Settings))


def reserved_names() -> frozenset[str]:
    """Names that mean something by themselves in a config: no plugin can have one."""
    return frozenset((*_OWN_TABLES, *_KEYS))


def load_config(path: Path) -> Config:
    """Read and check the config at ``path``. ``ConfigError`` in one line."""
    return read_config(_read_toml(path), path)


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no config at {path}: run `leyden init --dir {path.parent}` to make one") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def read_config(data: Table, path: Path) -> Config:
    """Check the parsed file ``data``; ``path`` is for messages and for relative paths."""
    try:
        return _read(data, path)
    except (SettingsError, BitcoinError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(data: Table, path: Path) -> Config:
    settings = _settings(data)
    network = _network(settings.network)
    services = _services(settings)
    chosen = {name for names in services.values() for name in names if name is not None}
    policy = read_settings(_table(data, "channel"), ChannelPolicy, "channel")
    if mistake := policy_mistake(policy):
        raise ConfigError(f"[channel] {mistake}")
    reserve = read_settings(_table(data, "anchor_reserve"), AnchorReserve, "anchor_reserve")
    if reserve.per_channel < 0 or reserve.most < 0:
        raise ConfigError("[anchor_reserve] per_channel and most must not be negative")
    chain = read_settings(_table(data, "chain"), ChainSettings, "chain")
    if mistake := chain.mistake():
        raise ConfigError(f"[chain] {mistake}")
    log = read_settings(_table(data, "log"), LogSettings, "log")
    if log.level not in LOG_LEVELS:
        raise ConfigError(f"[log] level must be one of {', '.join(LOG_LEVELS)}, not {log.level!r}")
    if settings.birth_height < 0:
        raise ConfigError("birth_height must not be negative")
    folder = path.parent.absolute()
    return Config(
        path=path,
        network=network,
        data_dir=folder if settings.data_dir is None else folder / Path(settings.data_dir).expanduser(),
        plugins=settings.plugins,
        services=services,
        tables=_service_tables(data, chosen),
        log=log,
        node=NodeConfig(
            network=network,
            listen=parse_host_port(settings.listen, "listen") if settings.listen else None,
            policy=policy,
            anchor_reserve=reserve,
            chain=chain,
            birth_height=BlockHeight(settings.birth_height),
            connect=tuple(parse_peer(text) for text in settings.connect),
        ),
    )


def _settings(data: Table) -> Settings:
    plain = {key: value for key, value in data.items() if key not in _OWN_TABLES and not isinstance(value, dict)}
    for key in plain:
        if key not in _KEYS:
            raise ConfigError(f"there is no key {key!r}{nearest(key, (*_KEYS, *_OWN_TABLES))}")
    if "network" not in plain:
        raise ConfigError('the key network is missing: write, for example, network = "regtest"')
    try:
        return msgspec.convert(plain, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(_place(str(error))) from None


def _place(text: str) -> str:
    """``Expected `int`, got `str` - at `$.birth_height``` with the key in front."""
    message, found, place = text.partition(" - at `$.")
    return f"{place.rstrip('`')}: {message}" if found else text


def _network(name: str) -> Network:
    try:
        return Network.from_name(name)
    except BitcoinError as error:
        hint = nearest(name, [network.label for network in Network])
        raise ConfigError(f"network: {error}{hint}") from None


def _services(settings: Settings) -> dict[str, tuple[str | None, ...]]:
    """The names chosen for every kind of service. A chain source that is named also broadcasts and estimates."""
    sources: tuple[str | None, ...] = _names(settings.chain_source) or (None,)
    services: dict[str, tuple[str | None, ...]] = {
        "store": (settings.store,),
        "chain_source": sources,
        "chain_verifier": _names(settings.chain_verifier),
        "broadcaster": _names(settings.broadcaster) or sources,
        "fee_estimator": _names(settings.fee_estimator) or sources,
        "wallet": (settings.wallet,),
    }
    for kind, names in services.items():
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"{kind} names {name!r} twice")
    if sources[0] in services["chain_verifier"]:
        raise ConfigError(f"chain_verifier: {sources[0]!r} is the chain source that is followed, name another one")
    own: dict[str, str | None] = msgspec.structs.asdict(settings)
    return services | {kind: (own[kind] or settings.keys,) for kind in KEY_CAPABILITIES}


def _names(value: Names | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value or ()


def _table(data: Table, name: str) -> Table:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{name} is a table: write [{name}] and its settings below")
    return table


def _service_tables(data: Table, chosen: Iterable[str]) -> dict[str, Table]:
    known = {*chosen, *(plugin.name for plugin in installed_plugins())}
    tables: dict[str, Table] = {}
    for name, value in data.items():
        if not isinstance(value, dict) or name in _OWN_TABLES:
            continue
        if name in _KEYS:
            raise ConfigError(f"{name} is a plain key, not a table")
        if name not in known:
            hint = nearest(name, (*known, *_OWN_TABLES))
            raise ConfigError(f"[{name}] belongs to no plugin that is installed or chosen{hint}")
        tables[name] = value
    return tables
