"""The blocks that the kernel accepted, in the order of acceptance: the one truth on disk.

The kernel makes nothing durable before a clean close, so a killed process would lose its chain. Replaying these
blocks gives the same chain again (the first of two branches with equal work wins). A cut-off last record is dropped.
"""

import os
import struct
from pathlib import Path

from leyden.crypto import sha256d

from leyden_regtest.errors import ChainError

_MAGIC = b"leyden-regtest-blocks-1\n"
_HEAD = struct.Struct("<I4s")  # length, first bytes of the hash of the record


class Journal:
    """Append-only file of serialized blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "a+b", buffering=0, opener=lambda p, flags: os.open(p, flags, 0o600))  # noqa: SIM115

    def read(self) -> list[bytes]:
        """All blocks; also cuts off a torn tail and writes the head of a new file."""
        self._file.seek(0)
        data = self._file.read()
        if not data:
            self._file.write(_MAGIC)
            return []
        if not data.startswith(_MAGIC):
            raise ChainError(f"{self._path} is no block journal of leyden-regtest: use another folder")
        blocks, at = [], len(_MAGIC)
        while at + _HEAD.size <= len(data):
            length, check = _HEAD.unpack_from(data, at)
            block = data[at + _HEAD.size : at + _HEAD.size + length]
            if len(block) < length or sha256d(block)[:4] != check:
                break
            blocks.append(block)
            at += _HEAD.size + length
        self._file.truncate(at)
        return blocks

    def append(self, block: bytes) -> None:
        self._file.write(_HEAD.pack(len(block), sha256d(block)[:4]) + block)

    def close(self) -> None:
        self._file.close()
