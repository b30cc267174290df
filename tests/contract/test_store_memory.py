"""``MemoryStore`` under the conformance suite, and its own powers."""

from collections.abc import Callable

import pytest
from leyden.bitcoin import Network
from leyden.hooks.services import Store, StoreError
from leyden.testing.store import CommitMoment, MemoryStore, StoreConformance


class TestMemoryStore(StoreConformance):
    factory = "leyden.testing.store:memory_store_at"

    def break_store(self, store: Store) -> Callable[[], None]:
        assert isinstance(store, MemoryStore)
        store.fail_next()
        return lambda: None


async def test_the_image_is_what_was_durable() -> None:
    store = MemoryStore()
    epoch = await store.open(Network.REGTEST)
    await store.commit(((b"a", b"1"),), (), epoch)
    image = store.synced_image()
    await store.commit(((b"a", b"2"),), (), epoch)
    restarted = MemoryStore(image)
    assert await restarted.open(Network.REGTEST) == epoch + 1
    assert await restarted.get(b"a") == b"1"
    assert await store.get(b"a") == b"2"


async def test_hooks_strike_on_both_sides_of_a_commit() -> None:
    store = MemoryStore()
    epoch = await store.open(Network.REGTEST)
    seen: list[tuple[CommitMoment, int, dict[bytes, bytes]]] = []
    store.hooks.append(lambda moment, number: seen.append((moment, number, store.synced_image().rows)))
    await store.commit(((b"a", b"1"),), (), epoch)
    assert seen == [(CommitMoment.BEFORE, 1, {}), (CommitMoment.AFTER, 1, {b"a": b"1"})]

    class Crash(BaseException):
        pass

    def crash(moment: CommitMoment, number: int) -> None:
        if moment is CommitMoment.BEFORE:
            raise Crash

    store.hooks[:] = [crash]
    with pytest.raises(Crash):
        await store.commit(((b"a", b"2"),), (), epoch)
    assert store.synced_image().rows == {b"a": b"1"}


async def test_a_failure_may_come_after_the_disk_has_it() -> None:
    store = MemoryStore()
    epoch = await store.open(Network.REGTEST)
    store.fail_next(durable=True)
    with pytest.raises(StoreError):
        await store.commit(((b"a", b"1"),), (), epoch)
    await store.reopen()
    assert await store.get(b"a") == b"1"
