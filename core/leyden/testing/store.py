"""Testing stores: ``MemoryStore`` for tests of a node, ``StoreConformance`` for authors of stores."""

from leyden.testing.memory_store import CommitHook, CommitMoment, MemoryDisk, MemoryStore, memory_store_at
from leyden.testing.store_conformance import DurableStoreConformance, StoreConformance

__all__ = [
    "CommitHook",
    "CommitMoment",
    "DurableStoreConformance",
    "MemoryDisk",
    "MemoryStore",
    "StoreConformance",
    "memory_store_at",
]
