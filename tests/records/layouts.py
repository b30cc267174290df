"""What a stored row looks like in bytes, as data: so that a change cannot pass unnoticed."""

from typing import Any, get_args

import msgspec
from leyden.chain.stored import v1 as chain_v1
from leyden.channel.records import LIFECYCLES, SPENDS
from leyden.channel.state import Stage
from leyden.channel.stored import v1 as channel_v1
from leyden.hooks.types import AnyEvent
from leyden.node.rows import BROADCAST_KINDS, SCHEMA_VERSION
from leyden.node.stored import v1 as node_v1
from leyden.payments.stored import v1 as payments_v1
from leyden.wire.codec import codec_of
from leyden_wallet.rows import PURPOSES
from leyden_wallet.stored import v1 as wallet_v1

from tests.records.kinds import KINDS

VERSIONS = (channel_v1, payments_v1, node_v1, chain_v1, wallet_v1)
"""Every module of a version; a new one is added here."""

Layout = dict[str, Any]


def layouts() -> Layout:
    """All that must never change: by struct of a version, by list of numbers, and the version of each kind."""
    structs: Layout = {}
    flags: Layout = {}
    for module in VERSIONS:
        for name, value in vars(module).items():
            if getattr(value, "__module__", None) == module.__name__ and isinstance(value, type):
                if issubclass(value, msgspec.Struct):
                    structs[f"{module.__name__}.{name}"] = describe(value)
            elif name.isupper() and isinstance(value, int):
                flags[f"{module.__name__}.{name}"] = value
    for event in get_args(AnyEvent):
        structs[f"event.{event.__struct_config__.tag}"] = describe(event)
    return {
        "structs": structs,
        "flags": flags,
        "numbers": numbers(),
        "history": [{"schema": SCHEMA_VERSION, "versions": {name: kind.version for name, kind in KINDS.items()}}],
    }


def describe(cls: type[msgspec.Struct]) -> list[list[Any]]:
    """Attribute, TLV number, kind of field, default, in the order of the bytes; of MessagePack only names and types."""
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    try:
        codec = codec_of(cls)
    except TypeError:
        return sorted([name, None, str(field.type), default(field)] for name, field in fields.items())
    found = [[name, None, field.name, default(fields[name])] for name, field in codec.fields]
    records = sorted(codec.records, key=lambda record: record.type)
    return found + [[r.name, r.type, r.field.name, default(fields[r.name])] for r in records]


def default(field: msgspec.structs.FieldInfo) -> str:
    return "required" if field.default is msgspec.NODEFAULT else repr(field.default)


def numbers() -> dict[str, list[str]]:
    """Words that are stored as their position."""
    enums = {
        "stages": [f"{each.name}={each.value}" for each in Stage],
        "invoice status": [each.name for each in payments_v1.InvoiceStatus],
        "payment status": [each.name for each in payments_v1.PaymentStatus],
    }
    lists = {
        "lifecycles": LIFECYCLES,
        "spends": SPENDS,
        "transactions": BROADCAST_KINDS,
        "destinations": PURPOSES,
    }
    return enums | {name: [str(each.value) for each in found] for name, found in lists.items()}


def changes(frozen: Layout, found: Layout) -> list[str]:
    """What of ``frozen`` is not so any more. Optional odd TLV records, MessagePack fields with a default, and words at
    the end of a list may have been added: older programs skip them."""
    lines = []
    for name, was in frozen["structs"].items():
        now = found["structs"].get(name)
        if now is None:
            lines.append(f"{name} is gone: its rows cannot be read any more")
            continue
        lines += [f"{name}: {row} is {_like(row, now)}" for row in was if row not in now]
        lines += [f"{name}: {row} is new" for row in now if row not in was and not _may_be_added(name, row)]
        kept = [row for row in now if row in was]
        if kept != was and sorted(kept, key=str) == sorted(was, key=str):
            lines.append(f"{name}: the order changed")
    lines += [
        f"{name} is {found['flags'].get(name)}" for name, n in frozen["flags"].items() if found["flags"].get(name) != n
    ]
    for name, words in frozen["numbers"].items():
        if found["numbers"].get(name, [])[: len(words)] != words:
            lines.append(f"{name}: {found['numbers'].get(name)} does not begin with {words}")
    return lines


def _like(row: list[Any], now: list[list[Any]]) -> object:
    return next((other for other in now if other[0] == row[0] or (row[1] is not None and other[1] == row[1])), "gone")


def _may_be_added(name: str, row: list[Any]) -> bool:
    is_map = name.startswith("event.") or name.endswith(".PeerAddress")
    return row[3] != "required" and (is_map or (row[1] is not None and row[1] % 2 == 1))
