"""Every type of message that a peer may send, gone wrong in every way that its declaration allows for.

Cut short, followed by a stream that is invalid, with keys that are none and amounts that do not exist, before ``init``,
about a channel that nobody has, and in a channel where nobody waits for it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from leyden.wire import MESSAGES, Message, Ping, encode
from leyden.wire import fields as f
from leyden.wire.features import Feature
from leyden.wire.layout import ListOf, Nested, codec_of

from tests.scenario.negative.connections import before_init, connected
from tests.scenario.negative.kit import NO_POINT, POINT, UNKNOWN, O, Outcome, Scene, Violation, say
from tests.scenario.negative.updates import opened

TOO_MUCH = 21_000_000 * 10**11 + 1
"""Millisatoshi (and far too many satoshi) that do not exist."""
NEVER_OFFERED = frozenset(
    {
        Feature.OPTION_QUIESCE,
        Feature.OPTION_SPLICE,
        Feature.OPTION_DUAL_FUND,
        Feature.OPTION_PROVIDE_STORAGE,
        Feature.OPTION_ONION_MESSAGES,
    }
)


def sample(kind: type[msgspec.Struct], channel_id: bytes = UNKNOWN) -> Any:
    """Some value of a declared class, without its optional records; every number is 1."""
    codec = codec_of(kind)
    values = {
        name: channel_id if name.endswith("channel_id") and _is_id(field) else value(field)
        for name, field in codec.fields
    }
    for record in codec.records:
        if record.default is msgspec.NODEFAULT:
            values[record.name] = value(record.field)
    return kind(**values)


def _is_id(field: f.Field[Any]) -> bool:
    return isinstance(field, f.Bytes) and field.size == 32


def value(field: f.Field[Any]) -> Any:
    match field:
        case f.Int() | f.TruncatedInt() | f.BigSize():
            return 1
        case f.Bytes():
            return POINT if field.name == "point" else bytes([1]) * (field.size or 0)
        case f.VarBytes() | f.RestBytes():
            return b""
        case Nested():
            return sample(field.codec.cls)
        case ListOf():
            return tuple(value(field.item) for _ in range(field.count or 0))
        case _:
            raise TypeError(f"no sample of {field!r}")


def named(kind: type[Message]) -> bool:
    """Whether the message is about a channel."""
    return any(name in ("channel_id", "temporary_channel_id") for name, _ in codec_of(kind).fields)


def swallows(kind: type[Message]) -> bool:
    """Whether its last field takes whatever follows."""
    fields = codec_of(kind).fields
    return bool(fields) and isinstance(fields[-1][1], f.RestBytes)


def negotiated(kind: type[Message]) -> bool:
    return not kind.NEEDS or not set(kind.NEEDS) <= NEVER_OFFERED


# -- by the bytes ------------------------------------------------------------------------------------------------------


def cut(kind: type[Message]) -> Iterator[Violation]:
    data = encode(sample(kind))
    least = 2 + sum(field.size or (0 if isinstance(field, f.RestBytes) else 1) for _, field in codec_of(kind).fields)
    for size in sorted({2, (2 + least) // 2, least - 1}):
        if size < least:
            yield Violation("C-127", f"{kind.NAME} of {size} bytes", connected, say(data[:size]), O.CLOSED, "C-127")


def extended(kind: type[Message]) -> Iterator[Violation]:
    if swallows(kind):
        return
    data = encode(sample(kind))
    for rule, name, stream in (
        ("C-133", "an unknown even record", b"\xfe\x00\x01\x00\x00\x00"),
        ("C-130", "records out of order", b"\xfd\xff\x01\x00\xfd\xff\x01\x00"),
        ("C-131", "a record beyond the end", b"\xfd\xff\x01\x05four"),
    ):
        yield Violation(rule, f"{kind.NAME} with {name}", connected, say(data + stream), O.CLOSED, rule)


def spoiled(kind: type[Message]) -> Iterator[Violation]:
    """Keys that are none, amounts that do not exist."""
    for name, field in codec_of(kind).fields:
        if isinstance(field, f.Bytes) and field.name == "point":
            data = in_place(kind, name, NO_POINT)
            yield Violation("C-136", f"{kind.NAME}.{name} is no key", connected, say(data), O.CLOSED, "C-136")
        elif isinstance(field, f.Int) and field.limit is not None and not field.signed and field.size == 8:
            data = in_place(kind, name, TOO_MUCH.to_bytes(8, "big"))
            yield Violation("C-135", f"{kind.NAME}.{name} beyond all money", connected, say(data), O.CLOSED, "C-135")


def in_place(kind: type[Message], name: str, content: bytes) -> bytes:
    """The sample with the bytes of one field replaced."""
    message, offset = sample(kind), 2
    for each, field in codec_of(kind).fields:
        if each == name:
            break
        offset += len(field.write(getattr(message, each)))
    data = encode(message)
    return data[:offset] + content + data[offset + len(content) :]


def early(kind: type[Message]) -> Iterator[Violation]:
    if kind.NAME != "init":
        yield Violation("C-137", f"{kind.NAME} before init", before_init, say(sample(kind)), O.CLOSED)


# -- by their place ----------------------------------------------------------------------------------------------------


def strange(kind: type[Message]) -> Iterator[Violation]:
    """About a channel that nobody has."""
    if not named(kind) or kind.NAME in ("error", "warning", "open_channel"):
        return
    rule, outcome, says = "C-144", O.ANSWERED, "no such channel"
    if not negotiated(kind):
        rule, outcome, says = ("", O.IGNORED, "") if kind.TYPE & 1 else ("C-127", O.CLOSED, "was not negotiated")
    yield Violation(rule, f"{kind.NAME} about nothing", connected, say(sample(kind)), outcome, says)


WC = O.WARNED_AND_CLOSED
OUT_OF_PLACE: dict[str, tuple[Outcome, str]] = {
    "warning": (O.IGNORED, ""),
    "init": (O.IGNORED, ""),
    "error": (O.QUIETLY_FAILED, ""),
    "pong": (O.CLOSED, "C-146"),
    "open_channel": (O.ANSWERED, "temporary_channel_id is in use"),
    "accept_channel": (WC, "not expected"),
    "funding_created": (WC, "not expected"),
    "funding_signed": (WC, "not expected"),
    "channel_ready": (O.IGNORED, ""),
    "shutdown": (O.CLOSED, ""),
    "closing_signed": (WC, "option_simple_close"),
    "closing_complete": (WC, "before the channel is shut down"),
    "closing_sig": (WC, "before the channel is shut down"),
    "update_add_htlc": (WC, "wrong HTLC id"),
    "update_fulfill_htlc": (WC, "no such HTLC"),
    "update_fail_htlc": (WC, "no such HTLC"),
    "update_fail_malformed_htlc": (WC, "BADONION"),
    "commitment_signed": (WC, "bad commitment signature"),
    "revoke_and_ack": (WC, "revoke_and_ack without"),
    "update_fee": (WC, "feerate too low"),
    "channel_reestablish": (O.IGNORED, ""),
    "announcement_signatures": (WC, "not public"),
}
"""What a sample costs in an open channel that waits for nothing; types that are not listed are ignored."""
GOSSIP = frozenset(range(256, 270)) - {259}
"""Types of gossip; ``announcement_signatures`` belongs to its channel."""


def misplaced(kind: type[Message]) -> Iterator[Violation]:
    if kind is Ping:
        return
    outcome, says = OUT_OF_PLACE.get(kind.NAME, (O.IGNORED, ""))
    if not negotiated(kind) and not kind.TYPE & 1:
        outcome, says = O.CLOSED, "was not negotiated"
    assert kind.NAME in OUT_OF_PLACE or not negotiated(kind) or kind.TYPE in GOSSIP, kind.NAME

    def deed(scene: Scene) -> None:
        scene.peer.send(sample(kind, scene.id))

    yield Violation("", f"{kind.NAME} in an open channel", opened(), deed, outcome, says)


WAYS: tuple[Callable[[type[Message]], Iterator[Violation]], ...] = (cut, extended, spoiled, early, strange, misplaced)
TYPES: tuple[Violation, ...] = tuple(
    msgspec.structs.replace(violation, about=kind.TYPE)
    for kind in MESSAGES.values()
    for way in WAYS
    for violation in way(kind)
)
