"""Every key capability of a Leyden node, kept in memory and derived from one BIP 39 seed."""

from leyden_inmemory.channel import InMemoryChannelKeys
from leyden_inmemory.manager import InMemoryKeyManager
from leyden_inmemory.seed import (
    SeedError,
    create_seed_file,
    generate_mnemonic,
    load_seed_file,
    mnemonic_from_entropy,
    seed_from_mnemonic,
)

__all__ = [
    "InMemoryChannelKeys",
    "InMemoryKeyManager",
    "SeedError",
    "create_seed_file",
    "generate_mnemonic",
    "load_seed_file",
    "mnemonic_from_entropy",
    "seed_from_mnemonic",
]
