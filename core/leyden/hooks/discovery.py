"""What is installed, from package metadata only: no code of a plugin runs before the config names it."""

from collections.abc import Iterable
from importlib import metadata

import msgspec

from leyden.hooks.errors import PluginError
from leyden.hooks.settings import nearest

ENTRY_POINT_GROUP = "leyden"


class InstalledPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """An entry point of group ``leyden``: the ``name`` used in configs, its distribution and the module it names."""

    name: str
    distribution: str
    version: str
    module: str


def installed_plugins() -> tuple[InstalledPlugin, ...]:
    """Every installed plugin, by name. Reads metadata and imports nothing."""
    found = {
        InstalledPlugin(
            name=entry.name,
            distribution=entry.dist.name if entry.dist is not None else "?",
            version=entry.dist.version if entry.dist is not None else "?",
            module=entry.value,
        )
        for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)
    }
    return tuple(sorted(found, key=lambda plugin: (plugin.name, plugin.distribution)))


def find_plugin(name: str, installed: Iterable[InstalledPlugin]) -> InstalledPlugin:
    """The one installed plugin called ``name``; ``PluginError`` if there is none or more than one."""
    everything = tuple(installed)
    found = [plugin for plugin in everything if plugin.name == name]
    if not found:
        hint = nearest(name, [plugin.name for plugin in everything]) or f": pip install leyden-{name}"
        raise PluginError(f"plugin {name!r} is not installed{hint}")
    if len(found) > 1:
        owners = " and ".join(plugin.distribution for plugin in found)
        raise PluginError(f"plugin {name!r} is provided by {owners}: uninstall one of them")
    return found[0]
