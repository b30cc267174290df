"""How headers look in the store. Only this module imports the versions of these rows."""

from leyden.chain.stored.v1 import BaseRow, HeaderRow
from leyden.wire.stored import struct_kind

__all__ = ["BASE", "HEADER", "BaseRow", "HeaderRow"]

HEADER = struct_kind("CHAIN", HeaderRow)
BASE = struct_kind("CHAIN", BaseRow)
