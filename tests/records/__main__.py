"""Adds samples of stored rows that none exists of, and freezes what was added to their layouts.

``python -m tests.records`` after a new version, area, kind of event or optional record. Nothing that exists is ever
overwritten or removed: the samples are what databases in the world look like.
"""

import json
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog
from leyden.types import RecordError

from tests.records.kinds import KINDS, name_of, plain
from tests.records.layouts import changes, layouts
from tests.records.samples import LAYOUTS, SAMPLES, read_index, read_layouts

MOST = 60
"""Samples of one kind and version."""


def shape(name: str, value: Any) -> str:
    """Rows of one shape teach the same: which attributes are there, and the words among the numbers."""
    if isinstance(value, tuple):  # an event
        value = value[1]
    found = plain(value)
    if not isinstance(found, dict):
        return name
    words = {
        key: item
        for key, item in found.items()
        if key in ("type", "status", "kind", "must_fail", "flags", "local_is_funder") and isinstance(item, int | str)
    }
    for part, keys in (("dance", ("lifecycle",)), ("htlc", ("stage",)), ("spend", ("kind",))):
        words |= {f"{part}.{key}": found[part].get(key, 0) for key in keys if part in found}
    return json.dumps([name, sorted(found), words], sort_keys=True)


def _drop(_logger: object, _method: str, _event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    raise structlog.DropEvent


def main() -> int:
    structlog.configure(processors=[_drop])
    frozen, found = read_layouts(), layouts()
    if frozen is not None:
        if broken := changes(frozen, found):
            print("a released layout changed, give the rows a new version:", *broken, sep="\n  ")
            return 1
        history = frozen["history"]
        if found["history"][0] != history[-1]:
            if found["history"][0]["schema"] <= history[-1]["schema"]:
                print(
                    "a row has a new version, or there is a new kind of row: raise SCHEMA_VERSION in leyden.node.rows"
                )
                return 1
            history = [*history, *found["history"]]
        found["history"] = history
        found["structs"] = frozen["structs"] | found["structs"]
    added = add_samples()
    LAYOUTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(f"{added} samples added")
    return 0


def add_samples() -> int:
    from tests.records.story import tell_all

    index = read_index()
    known = set()
    counts: dict[str, int] = {}
    for file, sample in index.items():
        row = (SAMPLES / file).read_bytes()
        known.add(shape(sample["kind"], KINDS[sample["kind"]].decode(row)))
        group = file.rpartition("-")[0]
        counts[group] = counts.get(group, 0) + 1
    before = len(index)

    def note(key: bytes, row: bytes) -> None:
        try:
            name = name_of(key)
            value = KINDS[name].decode(row)
        except (LookupError, RecordError) as error:
            raise SystemExit(f"row {key.hex()} has no kind: {error}") from error
        group = f"{name}-v{KINDS[name].version}"
        if shape(name, value) in known or counts.get(group, 0) >= MOST:
            return
        known.add(shape(name, value))
        counts[group] = counts.get(group, 0) + 1
        file = f"{group}-{counts[group]:02}.bin"
        (SAMPLES / file).write_bytes(row)
        index[file] = {"kind": name, "version": row[0], "key": key.hex(), "means": plain(value)}

    tell_all(note)
    (SAMPLES / "index.json").write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")
    return len(index) - before


if __name__ == "__main__":
    sys.exit(main())
