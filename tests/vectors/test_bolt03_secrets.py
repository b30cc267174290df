"""Per-commitment secrets: making them and storing those of the peer (BOLT 3, appendix D)."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.crypto import FIRST_INDEX, CryptoError, SecretGenerator, ShachainStore, commitment_secret
from leyden.types import RuleViolation
from leyden.types.rules import C_089

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt03_secrets.json").read_text())


@pytest.mark.parametrize(("name", "seed", "index", "secret"), DATA["generate"])
def test_generate(name: str, seed: str, index: int, secret: str) -> None:
    assert commitment_secret(bytes.fromhex(seed), index).hex() == secret, name
    assert SecretGenerator(bytes.fromhex(seed)).secret(index).hex() == secret, name


@pytest.mark.proves("C-110", "C-089")
@pytest.mark.parametrize("case", DATA["insert"], ids=[c["name"] for c in DATA["insert"]])
def test_insert(case: dict[str, Any]) -> None:
    assert DATA["first_index"] == FIRST_INDEX
    store = ShachainStore()
    *good, last = map(bytes.fromhex, case["secrets"])
    for i, secret in enumerate(good):
        store = store.insert(FIRST_INDEX - i, secret)
    index = FIRST_INDEX - len(good)
    if not case["last_is_accepted"]:
        with pytest.raises(RuleViolation) as caught:
            store.insert(index, last)
        assert caught.value.rule is C_089
        assert store.next_index == index, "a refused secret leaves the store as it was"
        return
    store = store.insert(index, last)
    assert [store.lookup(FIRST_INDEX - i).hex() for i in range(len(case["secrets"]))] == case["secrets"]


def test_accepted_case_is_there() -> None:
    assert sum(c["last_is_accepted"] for c in DATA["insert"]) == 1


def test_out_of_turn() -> None:
    with pytest.raises(CryptoError, match="in order"):
        ShachainStore().insert(FIRST_INDEX - 1, bytes(32))
