"""Loading the plugins that a config names, and making the services that it chooses.

``load_plugins`` imports, registers and asks each plugin for its factories; ``Registry.make`` calls a factory once and
checks that what it returns has the methods of its protocol. Every failure is a ``PluginError`` of one line.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pluggy

from leyden.bitcoin import Network
from leyden.hooks import hookspecs, services
from leyden.hooks.contract import PROJECT
from leyden.hooks.discovery import InstalledPlugin, find_plugin, installed_plugins
from leyden.hooks.errors import PluginError
from leyden.hooks.settings import NoSettings, S, nearest, read_settings
from leyden.types import LeydenError

KINDS: dict[str, type] = {
    "store": services.Store,
    "chain_source": services.ChainSource,
    "broadcaster": services.Broadcaster,
    "fee_estimator": services.FeeEstimator,
    "wallet": services.Wallet,
    "node_identity": services.NodeIdentity,
    "channel_signer": services.ChannelSigner,
    "onchain_signer": services.OnchainSigner,
    "destinations": services.Destinations,
    "payment_approval": services.PaymentApproval,
}
"""Service kinds as the config names them, and the protocol of each."""

KEY_CAPABILITIES = ("node_identity", "channel_signer", "onchain_signer", "destinations", "payment_approval")
"""The kinds that make up the key manager: one provider each."""


class ServiceContext(msgspec.Struct, frozen=True, kw_only=True):
    """Where a service works: the node's data folder (exists, 0700) and its network."""

    folder: Path
    network: Network


Factory = Callable[[S, ServiceContext], object]
Initializer = Callable[[S, ServiceContext, str | None], Sequence[str]]


class _Provider(NamedTuple):
    kind: str
    name: str
    plugin: str
    factory: Callable[[Any, ServiceContext], object]
    settings: type[msgspec.Struct]


class _Initializer(NamedTuple):
    name: str
    run: Callable[[Any, ServiceContext, str | None], Sequence[str]]
    settings: type[msgspec.Struct]


class PluginServices:
    """What ``leyden_register_services`` gets: the registry as one plugin sees it."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self._providers: list[_Provider] = []
        self._initializers: list[_Initializer] = []

    def add(self, kind: str, name: str, factory: Factory[S], settings: type[S] | None = None) -> None:
        """Provide service ``kind`` under ``name``.

        ``factory(settings, context)`` is called once when the config chooses it; one factory added for several kinds is
        called once for all of them. ``settings`` is the msgspec type of the config table called ``name``.
        """
        if kind not in KINDS:
            raise PluginError(f"plugin {self.plugin!r} offers an unknown service {kind!r}{nearest(kind, KINDS)}")
        self._providers.append(_Provider(kind, name, self.plugin, factory, settings or NoSettings))

    def add_initializer(self, name: str, run: Initializer[S], settings: type[S] | None = None) -> None:
        """Called once by ``leyden init`` for a new node that uses service ``name``.

        ``run(settings, context, restore)`` prepares the data folder (a new seed, or the words in ``restore``) and
        returns lines for the operator to read, if any; they are shown once and never logged.
        """
        self._initializers.append(_Initializer(name, run, settings or NoSettings))

    def providers(self) -> tuple[_Provider, ...]:
        return tuple(self._providers)

    def initializers(self) -> tuple[_Initializer, ...]:
        return tuple(self._initializers)


class Registry:
    """The enabled plugins (``manager``, for the hook dispatcher) and the factories they brought."""

    def __init__(self, installed: Sequence[InstalledPlugin]) -> None:
        self.installed = tuple(installed)
        self.enabled: tuple[str, ...] = ()
        self.failures: dict[str, str] = {}
        """Why a plugin was quarantined while it registered its services."""
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self._providers: dict[tuple[str, str], list[_Provider]] = {}
        self._initializers: dict[str, _Initializer] = {}
        self._made: dict[tuple[str, int], object] = {}

    def enable(self, name: str, module: object) -> None:
        """Register an imported plugin under its config name and collect its factories."""
        if name in self.enabled:
            return
        try:
            self.manager.register(module, name=name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"plugin {name!r} does not fit this version of Leyden: {_first_line(error)}") from error
        _refuse_strange_hooks(self.manager, name)
        self.enabled = (*self.enabled, name)
        view = PluginServices(name)
        try:
            self._ask_for_services(name, view)
        except Exception as error:
            self.failures[name] = _first_line(error)
            return
        for provider in view.providers():
            self._providers.setdefault((provider.kind, provider.name), []).append(provider)
        for initializer in view.initializers():
            self._initializers[initializer.name] = initializer

    def _ask_for_services(self, name: str, view: PluginServices) -> None:
        for implementation in self.manager.hook.leyden_register_services.get_hookimpls():
            if implementation.plugin_name != name:
                continue
            answer = implementation.function(*((view,) if implementation.argnames else ()))
            if inspect.iscoroutine(answer):
                answer.close()
            if answer is not None:
                raise PluginError("leyden_register_services must be synchronous and return nothing")

    def provided(self) -> tuple[tuple[str, str, str], ...]:
        """(kind, name, plugin) of everything the enabled plugins offer."""
        return tuple(sorted((p.kind, p.name, p.plugin) for found in self._providers.values() for p in found))

    def make(
        self, kind: str, name: str | None, tables: Mapping[str, Mapping[str, object]], context: ServiceContext
    ) -> object:
        """The service ``kind`` of the config's choice ``name``; without a choice, the only one there is.

        ``tables`` are the config's tables by service name. ``PluginError`` when nobody provides it, two do, the
        settings are wrong or the result lacks a method of the protocol.
        """
        provider = self._choose(kind, name)
        key = (provider.name, id(provider.factory))
        if key not in self._made:
            settings = read_settings(tables.get(provider.name, {}), provider.settings, provider.name)
            try:
                self._made[key] = provider.factory(settings, context)
            except LeydenError:
                raise
            except Exception as error:
                raise PluginError(
                    f"plugin {provider.plugin!r} failed to make its {kind} {provider.name!r}: {_first_line(error)}"
                ) from error
        service = self._made[key]
        lacking = [m for m in protocol_members(KINDS[kind]) if inspect.getattr_static(service, m, None) is None]
        if lacking:
            raise PluginError(
                f"{kind} {provider.name!r} of plugin {provider.plugin!r} lacks {', '.join(lacking)}: "
                "it was written for another version of Leyden"
            )
        return service

    def initialize(
        self, name: str, tables: Mapping[str, Mapping[str, object]], context: ServiceContext, restore: str | None = None
    ) -> Sequence[str]:
        """Prepare a new node's data for service ``name``; the lines are for the operator's eyes only."""
        initializer = self._initializers.get(name)
        if initializer is None:
            return ()
        settings = read_settings(tables.get(name, {}), initializer.settings, name)
        return initializer.run(settings, context, restore)

    def _choose(self, kind: str, name: str | None) -> _Provider:
        if kind not in KINDS:
            raise PluginError(f"there is no service {kind!r}{nearest(kind, KINDS)}")
        if name is None:
            names = [found for of_kind, found in self._providers if of_kind == kind]
            if len(names) != 1:
                offered = f"{' and '.join(sorted(names))} provide one" if names else "no enabled plugin provides one"
                raise PluginError(f"the node needs a {kind}, but {offered}: name one in the config ({kind} = ...)")
            name = names[0]
        found = self._providers.get((kind, name), [])
        if len(found) > 1:
            owners = " and ".join(provider.plugin for provider in found)
            raise PluginError(f"{kind} = {name!r} is provided by two plugins, {owners}: disable one of them")
        if not found:
            raise PluginError(self._why_missing(kind, name))
        return found[0]

    def _why_missing(self, kind: str, name: str) -> str:
        head = f"{kind} = {name!r}"
        if name in self.failures:
            return f"{head}: plugin {name!r} failed to register its services: {self.failures[name]}"
        if name in self.enabled:
            offered = ", ".join(of_kind for of_kind, of_name, plugin in self.provided() if plugin == name) or "nothing"
            return f"{head}: plugin {name!r} provides no {kind} (it provides {offered})"
        for plugin in self.installed:
            if plugin.name == name:
                return f"{head}: plugin {name!r} ({plugin.distribution}) is installed but not enabled in the config"
        hint = nearest(name, [of_name for of_kind, of_name in self._providers if of_kind == kind])
        return f"{head} needs a plugin that provides it{hint or f': pip install leyden-{name}'}"


def load_plugins(names: Iterable[str], installed: Sequence[InstalledPlugin] | None = None) -> Registry:
    """Import and register the plugins called ``names``, in that order; nothing else is imported.

    ``PluginError`` names a plugin that is missing, cannot be imported or does not fit.
    """
    known = installed_plugins() if installed is None else tuple(installed)
    registry = Registry(known)
    for name in names:
        plugin = find_plugin(name, known)
        try:
            module = importlib.import_module(plugin.module)
        except Exception as error:
            raise PluginError(
                f"plugin {name!r} ({plugin.distribution} {plugin.version}) cannot be imported: {_first_line(error)}"
            ) from error
        registry.enable(name, module)
    return registry


def protocol_members(protocol: type) -> tuple[str, ...]:
    """Names of the methods and properties that a service protocol declares."""
    return tuple(sorted(name for name in vars(protocol) if not name.startswith("_")))


def _refuse_strange_hooks(manager: pluggy.PluginManager, name: str) -> None:
    """A misspelt hook would never be called, and wrappers do not exist in asynchronous dispatch: say so at start."""
    plugin = manager.get_plugin(name)
    known = {hook for hook in vars(hookspecs) if hook.startswith(f"{PROJECT}_")}
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if options is None:
            continue
        hook = options["specname"] or attribute
        if hook not in known and not options["optionalhook"]:
            raise PluginError(f"plugin {name!r} implements {hook}, which is no hook{nearest(hook, known)}")
        if options["wrapper"] or options["hookwrapper"]:
            raise PluginError(f"plugin {name!r} wraps {hook}: Leyden's hooks have no wrappers")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:200]}" if text else type(error).__name__
