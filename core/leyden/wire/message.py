"""Messages: two bytes of type, fields, TLV records (BOLT 1); the registry of all, ``encode`` and ``decode``."""

from collections.abc import Callable, Collection
from typing import Any, ClassVar, TypeVar

import msgspec

from leyden.types.rules import C_127, C_128, C_129
from leyden.wire.errors import Malformed, refuse
from leyden.wire.features import Feature, Features, negotiated
from leyden.wire.fields import RestBytes
from leyden.wire.layout import StructCodec, register
from leyden.wire.tlv import TlvCodec

MAX_MESSAGE = 65535
"""Bytes of a whole message, its type included (BOLT 8 frames carry no more)."""
FIRST_CUSTOM_MESSAGE = 32768
"""Message types from here on belong to plugins (BOLT 1)."""


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message that BOLTs define. Lengths that BOLT tables list as fields are implied by the bytes they measure.

    Amounts are satoshi or millisatoshi as the field's name says; ids, keys, hashes and signatures are bytes. An
    attribute that is a TLV record is None (flags: False) when the record is absent.
    """

    TYPE: ClassVar[int] = -1
    NAME: ClassVar[str] = ""
    """The BOLT's name, ``update_add_htlc``."""
    NEEDS: ClassVar[tuple[Feature, ...]] = ()
    """One of these must be negotiated before the message is sent."""
    UNLESS: ClassVar[Feature | None] = None
    """Once this is negotiated another message takes its place."""


class UnknownMessage(msgspec.Struct, frozen=True):
    """A message of a type that Leyden does not declare: odd, or of a plugin."""

    type: int
    payload: bytes


M = TypeVar("M", bound=Message)

MESSAGES: dict[int, type[Message]] = {}
"""Every declared message by type."""

_ENCODERS: dict[type, Callable[[Any], bytes]] = {}
_DECODERS: dict[int, Callable[[bytes], Message]] = {}
_CODECS: dict[type, StructCodec[Any]] = {}


def message(
    number: int, name: str, *, needs: tuple[Feature, ...] = (), unless: Feature | None = None
) -> Callable[[type[M]], type[M]]:
    """Class decorator: declare a message of type ``number`` and compile its codec."""

    def declare(cls: type[M]) -> type[M]:
        if number in MESSAGES:
            raise TypeError(f"message type {number} is declared twice: {MESSAGES[number].__name__} and {cls.__name__}")
        cls.TYPE, cls.NAME, cls.NEEDS, cls.UNLESS = number, name, needs, unless
        codec = register(cls)
        MESSAGES[number] = cls
        _CODECS[cls] = codec
        _ENCODERS[cls] = _make_encoder(number, codec)
        _DECODERS[number] = _make_decoder(codec)
        return cls

    return declare


def encode(message: Message) -> bytes:
    """Type and content of ``message``, ready for the transport.

    ``WireError``: C-129 (longer than 65535 bytes), C-135 (an amount above the money supply). ``EncodeError``: a value
    does not fit its field.
    """
    return _ENCODERS[type(message)](message)


def decode(data: bytes, custom_types: Collection[int] = ()) -> Message | UnknownMessage:
    """The message in ``data``; ``WireError`` and nothing else when it must not be accepted.

    Unknown odd types, and ``custom_types`` (of plugins), come back as ``UnknownMessage``. Unknown even types (C-127),
    missing bytes (C-127), invalid extensions (C-128, C-130 to C-134), amounts (C-135) and keys (C-136) are refused.
    """
    kind = int.from_bytes(data[:2], "big")
    decoder = _DECODERS.get(kind)
    if decoder is not None and len(data) >= 2:
        return decoder(data)
    if len(data) < 2:
        refuse(C_127, "message without a type", length=len(data))
    if not kind & 1 and kind not in custom_types:
        refuse(C_127, "unknown even message type", offered=kind)
    return UnknownMessage(kind, data[2:])


def encode_custom(number: int, payload: bytes) -> bytes:
    """A message of a plugin's own (32768 to 65535); ``WireError`` (C-129) for other types and too long ones."""
    if not FIRST_CUSTOM_MESSAGE <= number <= 0xFFFF:
        refuse(C_129, "custom message types start at 32768", offered=number)
    return _checked_length(number.to_bytes(2, "big") + payload)


def check_may_send(message: Message, ours: Features, theirs: Features) -> None:
    """``WireError`` (C-129) when ``message``, or a record in it, belongs to a feature that was not negotiated."""
    if message.NEEDS and not any(negotiated(ours, theirs, feature) for feature in message.NEEDS):
        refuse(C_129, f"{message.NAME} was not negotiated", needs=message.NEEDS[0].name.lower())
    if message.UNLESS is not None and negotiated(ours, theirs, message.UNLESS):
        refuse(C_129, f"{message.NAME} has been replaced", by=message.UNLESS.name.lower())
    for record in _CODECS[type(message)].records:
        if (
            record.needs is not None
            and getattr(message, record.name) != record.default
            and not negotiated(ours, theirs, record.needs)
        ):
            refuse(C_129, f"{message.NAME}.{record.name} was not negotiated", needs=record.needs.name.lower())


def _checked_length(data: bytes) -> bytes:
    if len(data) > MAX_MESSAGE:
        refuse(C_129, "message is too long", offered=len(data), allowed=MAX_MESSAGE)
    return data


def _make_encoder(number: int, codec: StructCodec[Any]) -> Callable[[Any], bytes]:
    prefix = number.to_bytes(2, "big")
    write = codec.write

    def encoder(message: Any) -> bytes:
        data = prefix + write(message)
        return data if len(data) <= MAX_MESSAGE else _checked_length(data)

    return encoder


def _make_decoder(codec: StructCodec[Any]) -> Callable[[bytes], Any]:
    cls, takers = codec.cls, codec.takers
    # A message without records of its own may still carry an extension, unless its last field takes all there is.
    swallows = bool(codec.fields) and isinstance(codec.fields[-1][1], RestBytes)
    extension = None if swallows else codec.tlv or TlvCodec(cls.__name__, [], None)

    def decoder(data: bytes) -> Any:
        values: dict[str, Any] = {}
        offset, end = 2, len(data)
        try:
            for take in takers:
                offset = take(data, offset, end, values)
        except Malformed as error:
            refuse(C_127, f"{cls.NAME}: {error}", length=end)
            raise
        if offset < end and extension is not None and C_128.enabled:
            extension.read(data, offset, end, values)
        return cls(**values)

    return decoder
