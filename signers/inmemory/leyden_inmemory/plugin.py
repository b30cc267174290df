"""Entry point: offers every key capability under the name ``inmemory``."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from leyden.hooks import hookimpl
from leyden.hooks.registry import KEY_CAPABILITIES, PluginServices, ServiceContext

from leyden_inmemory.manager import InMemoryKeyManager
from leyden_inmemory.seed import create_seed_file, load_seed_file

NAME = "inmemory"


class InMemorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Config table ``[inmemory]``. ``seed_file`` is relative to the data folder."""

    seed_file: Path = Path("seed.json")


def make_key_manager(settings: InMemorySettings, context: ServiceContext) -> InMemoryKeyManager:
    """The key manager of the seed on disk; ``SeedError`` says why there is none."""
    return InMemoryKeyManager(load_seed_file(context.folder / settings.seed_file, context.network), context.network)


def make_seed(settings: InMemorySettings, context: ServiceContext, restore: str | None) -> Sequence[str]:
    """``leyden init``: a new seed file, from the words in ``restore`` or new ones, which are then shown once."""
    words = create_seed_file(context.folder / settings.seed_file, context.network, restore)
    if restore is not None:
        return ()
    return ("Write these words down; they restore your keys:", words)


@hookimpl
def leyden_register_services(registry: PluginServices) -> None:
    for capability in KEY_CAPABILITIES:
        registry.add(capability, NAME, make_key_manager, InMemorySettings)
    registry.add_initializer(NAME, make_seed, InMemorySettings)
