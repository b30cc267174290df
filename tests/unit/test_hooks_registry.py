"""Discovery from metadata, enabling by name, services by config name; every failure is one line."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import Network
from leyden.hooks import PluginError, SettingsError, hookimpl
from leyden.hooks.discovery import InstalledPlugin, find_plugin, installed_plugins
from leyden.hooks.registry import (
    KEY_CAPABILITIES,
    KINDS,
    PluginServices,
    Registry,
    ServiceContext,
    load_plugins,
    protocol_members,
)
from leyden.hooks.settings import read_settings
from leyden.testing.store import MemoryStore
from leyden.types import LeydenError


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    address: str = "here"
    retries: int = 3


@pytest.fixture
def context(tmp_path: Path) -> ServiceContext:
    return ServiceContext(folder=tmp_path, network=Network.REGTEST)


def providing(*offers: tuple[str, str, Any]) -> SimpleNamespace:
    @hookimpl
    def leyden_register_services(registry: PluginServices) -> None:
        for kind, name, factory in offers:
            registry.add(kind, name, factory, Settings)

    return SimpleNamespace(leyden_register_services=leyden_register_services)


def store_factory(settings: Settings, context: ServiceContext) -> object:
    return MemoryStore()


def make(**plugins: object) -> Registry:
    registry = Registry(
        (InstalledPlugin(name="electrum", distribution="leyden-electrum", version="1.0", module="leyden_electrum"),)
    )
    for name, entry in plugins.items():
        registry.enable(name, entry)
    return registry


def refusal(registry: Registry, context: ServiceContext, kind: str, name: str | None, **tables: Any) -> str:
    with pytest.raises(LeydenError) as caught:
        registry.make(kind, name, tables, context)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_only_provider_needs_no_name(context: ServiceContext) -> None:
    registry = make(mem=providing(("store", "mem", store_factory)))
    store = registry.make("store", None, {}, context)
    assert store is registry.make("store", "mem", {}, context), "made once"
    assert registry.provided() == (("store", "mem", "mem"),)


def test_problems_say_what_to_do(context: ServiceContext) -> None:
    registry = make(a=providing(("store", "a", store_factory)), b=providing(("store", "b", store_factory)))
    assert refusal(registry, context, "store", None) == (
        "the node needs a store, but a and b provide one: name one in the config (store = ...)"
    )
    assert refusal(registry, context, "wallet", None) == (
        "the node needs a wallet, but no enabled plugin provides one: name one in the config (wallet = ...)"
    )
    assert refusal(registry, context, "chain_source", "bitcoind") == (
        "chain_source = 'bitcoind' needs a plugin that provides it: pip install leyden-bitcoind"
    )
    assert refusal(registry, context, "chain_source", "electrum") == (
        "chain_source = 'electrum': plugin 'electrum' (leyden-electrum) is installed but not enabled in the config"
    )
    assert refusal(registry, context, "wallet", "a") == (
        "wallet = 'a': plugin 'a' provides no wallet (it provides store)"
    )
    assert "there is no service 'stor' (did you mean 'store'?)" in refusal(registry, context, "stor", "a")


def test_two_plugins_with_one_service(context: ServiceContext) -> None:
    registry = make(a=providing(("store", "x", store_factory)), b=providing(("store", "x", store_factory)))
    assert refusal(registry, context, "store", "x") == (
        "store = 'x' is provided by two plugins, a and b: disable one of them"
    )


def test_settings_are_checked(context: ServiceContext) -> None:
    seen: list[Settings] = []

    def factory(settings: Settings, context: ServiceContext) -> object:
        seen.append(settings)
        return MemoryStore()

    registry = make(mem=providing(("store", "mem", factory)))
    assert refusal(registry, context, "store", "mem", mem={"adress": "x"}) == (
        "[mem] has no setting 'adress' (did you mean 'address'?)"
    )
    assert "has address, retries" in refusal(registry, context, "store", "mem", mem={"zzz": 1})
    assert refusal(registry, context, "store", "mem", mem={"retries": "many"}).startswith(
        "[mem] is wrong: Expected `int`"
    )
    assert seen == []
    registry.make("store", "mem", {"mem": {"retries": 5}}, context)
    assert seen == [Settings(retries=5)]


def test_nested_and_empty_settings() -> None:
    assert read_settings({}, Settings, "x") == Settings()
    with pytest.raises(SettingsError):
        read_settings({"address": 7}, Settings, "x")


def test_a_service_must_have_its_methods(context: ServiceContext) -> None:
    registry = make(mem=providing(("store", "mem", lambda settings, context: object())))
    assert refusal(registry, context, "store", "mem").startswith(
        "store 'mem' of plugin 'mem' lacks close, commit, get, open, reopen, scan: "
    )
    assert protocol_members(KINDS["chain_source"]) == (
        "events",
        "find_utxo",
        "get_block",
        "info",
        "start",
        "stop",
        "watch",
    )


def test_a_factory_that_fails_is_named(context: ServiceContext) -> None:
    def factory(settings: Settings, context: ServiceContext) -> object:
        raise OSError("no such device\nmore")

    registry = make(mem=providing(("store", "mem", factory)))
    assert refusal(registry, context, "store", "mem") == (
        "plugin 'mem' failed to make its store 'mem': OSError: no such device"
    )


def test_a_plugin_that_fails_to_register_loses_only_its_own_services(context: ServiceContext) -> None:
    @hookimpl
    def leyden_register_services(registry: PluginServices) -> None:
        registry.add("store", "bad", store_factory, Settings)
        raise ValueError("boom")

    async def asynchronous(registry: PluginServices) -> None: ...

    registry = make(
        bad=SimpleNamespace(leyden_register_services=leyden_register_services),
        good=providing(("store", "good", store_factory)),
        later=SimpleNamespace(leyden_register_services=hookimpl(specname="leyden_register_services")(asynchronous)),
    )
    assert registry.failures["bad"] == "ValueError: boom"
    assert "must be synchronous" in registry.failures["later"]
    assert refusal(registry, context, "store", "bad") == (
        "store = 'bad': plugin 'bad' failed to register its services: ValueError: boom"
    )
    assert registry.make("store", None, {}, context)


def test_strange_hooks_are_refused() -> None:
    @hookimpl
    def leyden_accept_pear(peer: object) -> None: ...

    with pytest.raises(PluginError, match=r"leyden_accept_pear, which is no hook .did you mean 'leyden_accept_peer'"):
        make(x=SimpleNamespace(leyden_accept_pear=leyden_accept_pear))

    @hookimpl
    def leyden_accept_peer(pear: object) -> None: ...

    with pytest.raises(PluginError, match="does not fit this version"):
        make(x=SimpleNamespace(leyden_accept_peer=leyden_accept_peer))


def test_an_unknown_service_kind_fails_the_registration() -> None:
    registry = make(x=providing(("stoer", "x", store_factory)))
    assert "unknown service 'stoer' (did you mean 'store'?)" in registry.failures["x"]


def test_one_factory_for_all_key_capabilities_is_called_once(context: ServiceContext) -> None:
    made: list[object] = []

    def factory(settings: Settings, context: ServiceContext) -> object:
        members = {m: lambda: None for kind in KEY_CAPABILITIES for m in protocol_members(KINDS[kind])}
        made.append(SimpleNamespace(**members))
        return made[-1]

    registry = make(keys=providing(*((kind, "keys", factory) for kind in KEY_CAPABILITIES)))
    services = {registry.make(kind, "keys", {}, context).__class__ for kind in KEY_CAPABILITIES}
    assert len(made) == len(services) == 1


def test_initializer_gets_settings_and_words(context: ServiceContext) -> None:
    @hookimpl
    def leyden_register_services(registry: PluginServices) -> None:
        registry.add_initializer("keys", lambda settings, context, restore: (settings.address, str(restore)), Settings)

    registry = make(keys=SimpleNamespace(leyden_register_services=leyden_register_services))
    assert registry.initialize("keys", {"keys": {"address": "there"}}, context, "words") == ("there", "words")
    assert registry.initialize("other", {}, context) == ()


def test_the_real_plugins_resolve(context: ServiceContext) -> None:
    names = [p.name for p in installed_plugins()]
    assert {"sqlite", "inmemory"} <= set(names)
    registry = load_plugins(["sqlite", "inmemory"])
    assert registry.enabled == ("sqlite", "inmemory")
    assert registry.failures == {}
    words = registry.initialize("inmemory", {}, context)
    assert len(words[-1].split()) == 24
    assert registry.make("store", "sqlite", {}, context)
    with pytest.raises(PluginError, match="chain_source"):
        registry.make("chain_source", None, {}, context)


def test_plugins_that_are_not_there() -> None:
    with pytest.raises(PluginError, match=r"^plugin 'bitcoind' is not installed: pip install leyden-bitcoind$"):
        load_plugins(["bitcoind"], installed=())
    with pytest.raises(PluginError, match="did you mean 'inmemory'"):
        load_plugins(["inmemry"])
    twice = [InstalledPlugin(name="x", distribution=owner, version="1", module="x") for owner in ("leyden-x", "evil-x")]
    with pytest.raises(PluginError, match="provided by leyden-x and evil-x"):
        find_plugin("x", twice)
    broken = InstalledPlugin(name="x", distribution="leyden-x", version="1", module="leyden_no_such_module")
    with pytest.raises(PluginError, match=r"plugin 'x' \(leyden-x 1\) cannot be imported: ModuleNotFoundError"):
        load_plugins(["x"], installed=(broken,))


_PROBE = """
import sys
from leyden.hooks.discovery import installed_plugins
from leyden.hooks.registry import load_plugins
names = {p.name: p for p in installed_plugins()}
print(names["trap"].distribution, names["trap"].version)
load_plugins(["inmemory"])
print("trap_plugin" in sys.modules)
load_plugins(["trap"])
"""


def test_code_of_what_is_not_enabled_never_runs(tmp_path: Path) -> None:
    info = tmp_path / "leyden_trap-3.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leyden-trap\nVersion: 3.2\n")
    (info / "entry_points.txt").write_text("[leyden]\ntrap = trap_plugin\n")
    (tmp_path / "trap_plugin.py").write_text("print('trap sprung')\n")
    done = subprocess.run(
        [sys.executable, "-c", _PROBE],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    assert done.stdout.splitlines() == ["leyden-trap 3.2", "False", "trap sprung"]
