"""``leyden init``: a config, a private data folder and new keys, or nothing at all."""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from leyden.bitcoin import Network
from leyden.hooks.registry import KEY_CAPABILITIES
from leyden.node import MainnetRefused
from leyden.types import LeydenError

from leyden_cli.config import Config, read_config
from leyden_cli.errors import CliError, ConfigError
from leyden_cli.folder import config_path, make_private_folder
from leyden_cli.services import initialize_services, load_registry, registered_kind, service_context
from leyden_cli.template import write_config


def initialize_node(
    folder: Path,
    *,
    network: str = "regtest",
    listen: str = "127.0.0.1:9735",
    chain_source: str | None = None,
    keys: str = "inmemory",
    plugins: Sequence[str] = (),
    tables: Mapping[str, Mapping[str, object]] | None = None,
    restore: str | None = None,
) -> tuple[Path, list[str]]:
    """The new config's path and lines for the operator's eyes only (the words that restore the keys).

    Nothing is overwritten. ``restore`` are the words of existing keys. A ``LeydenError`` says what is wrong.
    """
    path = config_path(folder)
    text = write_config(
        network=network, listen=listen, chain_source=chain_source, keys=keys, plugins=plugins, tables=tables or {}
    )
    config = read_config(tomllib.loads(text), path)
    if config.network is Network.MAINNET:
        raise ConfigError(str(MainnetRefused()))
    if path.exists():
        raise CliError(f"{path} exists already: choose another folder or move it away first")
    registry = load_registry(config)
    is_new = not folder.exists()
    make_private_folder(folder)
    try:
        _check_choices(config)
        return path, _write_all(path, text, lambda: initialize_services(config, registry, restore))
    except LeydenError:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise


def _write_all(path: Path, text: str, make_keys: Callable[[], list[str]]) -> list[str]:
    """The config appears under its name only when the keys are on disk."""
    draft = path.with_name(path.name + ".new")
    try:
        _write_private(draft, text)
        lines = make_keys()
        os.link(draft, path)  # fails if the name is taken, unlike a rename
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    return lines


def _check_choices(config: Config) -> None:
    """Make what can be made without keys, on a registry of its own: wrong names and settings show now."""
    registry, context = load_registry(config), service_context(config)
    for kind, names in config.services.items():
        for name in names:
            if name is not None and kind not in KEY_CAPABILITIES:
                registry.make(registered_kind(kind), name, config.tables, context)
    offered = {(kind, name) for kind, name, _ in registry.provided()}
    for kind in KEY_CAPABILITIES:
        for name in config.services[kind]:
            if (kind, name) not in offered:
                raise ConfigError(f"{kind} = {name!r} needs a plugin that provides it: see `leyden plugins`")


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
