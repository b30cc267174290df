"""Features and channel types against the table of BOLT 9."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.wire.features import (
    FEATURES,
    Context,
    Feature,
    Features,
    channel_type_name,
    is_defined_channel_type,
)

DATA = json.loads((Path(__file__).parent / "data" / "features.json").read_text())
LETTERS = {
    "I": Context.INIT,
    "N": Context.NODE_ANNOUNCEMENT,
    "9": Context.INVOICE,
    "T": Context.CHANNEL_TYPE,
}


@pytest.mark.parametrize(("bit", "name", "letters", "needs", "assumed"), DATA["features"] + DATA["later"])
def test_feature(bit: int, name: str, letters: str, needs: list[str], assumed: bool) -> None:
    feature = Feature(bit)
    info = FEATURES[feature]
    assert feature.name.lower() == name
    assert info.contexts == Context(sum(LETTERS[letter].value for letter in letters))
    assert [needed.name.lower() for needed in info.needs] == needs
    assert info.assumed is assumed


@pytest.mark.parametrize("row", DATA["blips"])
def test_blip(row: list[Any]) -> None:
    feature = Feature(row[0])
    assert feature.name.lower() == row[1]
    assert FEATURES[feature].contexts == Context(sum(LETTERS[letter].value for letter in str(row[2])))


def test_table_is_complete() -> None:
    assert len(DATA["features"]) == 23
    known = {row[0] for part in ("features", "later", "blips") for row in DATA[part]}
    assert {int(f) for f in Feature} - known == {Feature.TRAMPOLINE_ROUTING}  # not merged anywhere yet
    assert set(FEATURES) == set(Feature)


@pytest.mark.parametrize(("name", "bits", "wire"), DATA["channel_types"])
def test_channel_type(name: str, bits: list[int], wire: str) -> None:
    channel_type = Features.of(*bits)
    assert channel_type.to_bytes().hex() == wire
    assert Features.from_bytes(bytes.fromhex(wire)) == channel_type
    assert list(channel_type) == bits
    assert is_defined_channel_type(channel_type)
    assert channel_type_name(channel_type) == name
