"""Errors of the extension surface."""

from leyden.types import LeydenError


class PluginError(LeydenError):
    """A plugin is missing, clashes with another, failed to load or is configured wrongly; one line says what to do."""


class SettingsError(PluginError):
    """A table of the config has an unknown key or a value of the wrong kind."""


class WouldDeadlock(LeydenError):
    """A hook called the node about the very thing it is being asked about: answer first, call later."""
