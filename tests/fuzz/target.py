"""What a target is."""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Target(NamedTuple):
    """``check`` takes any bytes and may raise ``expected``; whatever else it raises is a finding."""

    check: Callable[[bytes], object]
    expected: tuple[type[Exception], ...] = ()

    def run(self, data: bytes) -> None:
        try:
            self.check(data)
        except self.expected:
            pass


def each(data: bytes, parsers: Sequence[Callable[[bytes], object]], *expected: type[Exception]) -> None:
    """Small parsers that share their inputs; each may refuse, which does not keep the others from trying."""
    for parse in parsers:
        Target(parse, expected).run(data)


def pieces(data: bytes) -> list[bytes]:
    """Several inputs in one: each piece stands behind its length of one byte."""
    found = []
    while data:
        size = data[0]
        found.append(data[1 : 1 + size])
        data = data[1 + size :]
    return found


def joined(parts: Sequence[bytes]) -> bytes:
    """What ``pieces`` takes apart; no part is longer than 255 bytes."""
    return b"".join(bytes((len(part),)) + part for part in parts)
