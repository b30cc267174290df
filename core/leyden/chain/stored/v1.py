"""Rows of the chain, version 1. A released layout never changes; see ``docs/keyspace.md``."""

from typing import Annotated

from msgspec import Struct

from leyden.wire.codec import bytes_n, s32, u8, wire_struct


@wire_struct
class HeaderRow(Struct, frozen=True, kw_only=True):
    header: Annotated[bytes, bytes_n(80)]


@wire_struct
class BaseRow(Struct, frozen=True, kw_only=True):
    """The block below the first header. ``pruned`` 1: headers below it were dropped."""

    pruned: Annotated[int, u8]
    height: Annotated[int, s32]
    hash: Annotated[bytes, bytes_n(32)]
