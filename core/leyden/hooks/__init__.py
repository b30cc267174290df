"""The extension surface: service protocols, hook specifications, records and the registry.

A plugin is a module named by an entry point of group ``leyden``. It marks functions with ``hookimpl``; the hooks and
their contracts are in ``leyden.hooks.hookspecs``, the services it may offer in ``leyden.hooks.services``.
"""

from leyden.hooks.contract import hookimpl
from leyden.hooks.errors import PluginError, SettingsError, WouldDeadlock

__all__ = ["PluginError", "SettingsError", "WouldDeadlock", "hookimpl"]
