"""Per-commitment secrets beyond the vectors: long runs, jumps, and the ends of the range."""

import hashlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import FIRST_INDEX, CryptoError, SecretGenerator, ShachainStore, commitment_secret
from leyden.types import RuleViolation

SEED = bytes(range(32))
OTHER = bytes(range(1, 33))
indexes = st.integers(0, FIRST_INDEX)


def _filled(count: int, seed: bytes = SEED) -> ShachainStore:
    generator, store = SecretGenerator(seed), ShachainStore()
    for index in range(FIRST_INDEX, FIRST_INDEX - count, -1):
        store = store.insert(index, generator.secret(index))
    return store


@settings(deadline=None, max_examples=50)
@given(st.lists(indexes | st.integers(0, 20).map(lambda n: FIRST_INDEX - n), max_size=20))
def test_generator_in_any_order(order: list[int]) -> None:
    generator = SecretGenerator(SEED)
    for index in order:
        assert generator.secret(index) == commitment_secret(SEED, index)


def test_neighbours_need_few_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, count = SecretGenerator(SEED), 0
    generator.secret(FIRST_INDEX)

    def counting(data: bytes) -> object:
        nonlocal count
        count += 1
        return hashlib.sha256(data)

    monkeypatch.setattr("leyden.crypto.shachain.sha256", counting)
    for index in range(FIRST_INDEX - 1, FIRST_INDEX - 1025, -1):
        generator.secret(index)
    assert count <= 2 * 1024


@pytest.mark.proves("C-110")
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 100, 257, 1000])
def test_all_earlier_secrets_follow(count: int) -> None:
    store = _filled(count)
    assert len(store.secrets) <= 49
    for index in range(FIRST_INDEX, FIRST_INDEX - count, -1):
        assert store.lookup(index) == commitment_secret(SEED, index)
    with pytest.raises(CryptoError, match="not received"):
        store.lookup(FIRST_INDEX - count)
    # Secrets of another seed are found out at the latest when one of them covers a secret of the first.
    wrong = SecretGenerator(OTHER)
    with pytest.raises(RuleViolation):
        for index in range(store.next_index, store.next_index - 2 * count - 2, -1):
            store = store.insert(index, wrong.secret(index))


def test_store_is_a_value() -> None:
    store = _filled(5)
    again = ShachainStore(next_index=store.next_index, secrets=store.secrets)
    assert store == again
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(store), type=ShachainStore) == store
    with pytest.raises(AttributeError):
        store.next_index = 0


def test_down_to_the_last_index() -> None:
    # As if all but four had come before: the slots above are those that a full run would have left.
    start = 3
    # The newest index above ``start`` that ends in exactly ``slot`` zero bits.
    held = [
        next(
            i
            for i in (start >> slot << slot, (start >> slot) + 1 << slot, (start >> slot) + 2 << slot)
            if i > start and i >> slot & 1
        )
        for slot in range(48)
    ]
    secrets = [commitment_secret(SEED, index) for index in held]
    store = ShachainStore(next_index=start, secrets=tuple(secrets))
    for index in range(start, -1, -1):
        store = store.insert(index, commitment_secret(SEED, index))
    assert len(store.secrets) == 49
    assert store.next_index == -1
    for index in (0, 1, 2, 3, 4, 5, 1 << 40, FIRST_INDEX):
        assert store.lookup(index) == commitment_secret(SEED, index)
    with pytest.raises(CryptoError):
        store.insert(-1, bytes(32))


def test_refused_arguments() -> None:
    for seed, index in ((SEED[1:], 0), (SEED, -1), (SEED, FIRST_INDEX + 1)):
        with pytest.raises(CryptoError):
            commitment_secret(seed, index)
    with pytest.raises(CryptoError):
        SecretGenerator(SEED[1:])
    with pytest.raises(CryptoError):
        SecretGenerator(SEED).secret(-1)
    with pytest.raises(CryptoError):
        ShachainStore().insert(FIRST_INDEX, SEED[1:])
    with pytest.raises(CryptoError):
        _filled(3).lookup(FIRST_INDEX + 1)
    with pytest.raises(CryptoError):
        ShachainStore().lookup(FIRST_INDEX)
    assert SEED.hex() not in repr(SecretGenerator(SEED))
