"""From a config to the services of a node, through the registry that serves every plugin alike."""

from collections.abc import Sequence
from typing import Any

from leyden.hooks.discovery import InstalledPlugin, installed_plugins
from leyden.hooks.registry import Registry, ServiceContext, load_plugins
from leyden.node import Services

from leyden_cli.config import Config

_SEVERAL = {"broadcaster": "broadcasters", "fee_estimator": "fee_estimators", "chain_verifier": "chain_verifiers"}
"""Kinds of which a node may use several at once, and where they stand in ``Services``."""


def enabled_plugins(config: Config, installed: Sequence[InstalledPlugin]) -> tuple[str, ...]:
    """Plugins that the config lists, then those whose service it chooses under the plugin's own name."""
    names = {plugin.name for plugin in installed}
    chosen = [name for found in config.services.values() for name in found if name is not None and name in names]
    return tuple(dict.fromkeys((*config.plugins, *chosen)))


def load_registry(config: Config) -> Registry:
    """Import the plugins that the config names, nothing else. ``PluginError`` in one line."""
    installed = installed_plugins()
    return load_plugins(enabled_plugins(config, installed), installed)


def service_context(config: Config) -> ServiceContext:
    return ServiceContext(folder=config.data_dir, network=config.network)


def make_services(config: Config, registry: Registry) -> Services:
    """One object per service and capability. ``PluginError``, or the error of the service that cannot be made."""
    context = service_context(config)
    made: dict[str, Any] = {}  # the registry has checked that the methods of each protocol are there
    for kind, names in config.services.items():
        found = [registry.make(registered_kind(kind), name, config.tables, context) for name in names]
        if kind in _SEVERAL:
            made[_SEVERAL[kind]] = found
        else:
            made[kind] = found[0]
        if kind == "chain_source":
            made["chain_fallbacks"] = found[1:]
    called = {kind: [name for name in chosen if name is not None] for kind, chosen in config.services.items()}
    return Services(**made, names=called)


def registered_kind(kind: str) -> str:
    """The kind of service under which a plugin provides what the config calls ``kind``: a verifier is a source too."""
    return "chain_source" if kind == "chain_verifier" else kind


def initialize_services(config: Config, registry: Registry, restore: str | None) -> list[str]:
    """Prepare the data of a new node (keys, above all); the lines are for the operator's eyes only."""
    names = dict.fromkeys(name for found in config.services.values() for name in found if name is not None)
    context = service_context(config)
    lines: list[str] = []
    for name in names:
        lines.extend(registry.initialize(name, config.tables, context, restore))
    return lines
