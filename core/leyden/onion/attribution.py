"""Attribution data (BOLT 4, "Returning Errors"): who held an HTLC for how long, so that tampering names a pair of hops.

920 bytes: 20 hold times, then 210 HMACs cut to 4 bytes, in rows. Row x belongs to the hop x steps downstream and has
one HMAC for each number y of hops that may follow it, largest y first: 20 in row 0, one in row 19. Only the origin
knows which y is true; a step upstream makes the largest y of every row impossible, and the size stays the same.
"""

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from leyden.crypto import HmacKey, chacha20_xor, constant_time_equal, sha256
from leyden.onion import keys
from leyden.types.rules import C_198, C_199
from leyden.wire.codec import codec_of
from leyden.wire.htlc import AttributionData

MAX_ATTRIBUTED_HOPS = 20
"""Hops of a route whose times can be attributed; longer routes are not built."""
HOLD_TIME_UNIT_MS = 100

_CUT = 4
_TIMES_SIZE = 4 * MAX_ATTRIBUTED_HOPS
_ROW_SIZES = tuple(_CUT * length for length in range(MAX_ATTRIBUTED_HOPS, 0, -1))
_HMACS_SIZE = sum(_ROW_SIZES)
_ROW_STARTS = tuple(sum(_ROW_SIZES[:row]) for row in range(MAX_ATTRIBUTED_HOPS))
_EMPTY = bytes(_TIMES_SIZE + _HMACS_SIZE)
_LONGEST_HOLD = 0xFFFF_FFFF

_CODEC = codec_of(AttributionData)
_split = struct.Struct(f"{_CUT}s" * (_HMACS_SIZE // _CUT)).unpack


class HeldTimes(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the origin learnt.

    ``hold_times_ms``: of the hops from the first on, as far as their HMACs verify; milliseconds in steps of 100, 0 from
    a hop that does not measure. ``suspect``: index of the first hop whose HMAC does not verify; it or the hop before it
    changed something (or, where it does not offer the feature, passed nothing on). None: all verified, or no data.
    """

    hold_times_ms: tuple[int, ...] = ()
    suspect: int | None = None


class _StartedMac(HmacKey):
    """HMAC under ``key`` of messages that all begin with ``prefix``, which is hashed only once."""

    __slots__ = ()

    def __init__(self, key: bytes, prefix: bytes) -> None:
        super().__init__(key)
        self._inner.update(prefix)


def add_attribution(
    shared_secret: bytes, covered: bytes, hold_time_ms: int, downstream: AttributionData | None
) -> AttributionData:
    """This hop's hold time and HMACs in front of what came from ``downstream`` (None: nothing came), hidden once more.

    ``covered``: what the HMACs protect besides, in the form before this hop hides it: the return packet of a failure,
    the fulfilment payload, or nothing. ``hold_time_ms`` counts from ``update_add_htlc`` to now.
    """
    old = _EMPTY if downstream is None or not C_198.enabled else _CODEC.write(downstream)
    units = min(max(hold_time_ms, 0) // HOLD_TIME_UNIT_MS, _LONGEST_HOLD)
    times = units.to_bytes(4, "big") + old[: _TIMES_SIZE - 4]
    below = old[_TIMES_SIZE:]
    cells = _split(below)
    mac = _StartedMac(keys.um(shared_secret), covered).digest
    parts = [times]
    parts += [mac(times[:end] + b"".join(pick(cells)))[:_CUT] for end, pick in _WRITES]
    parts += [below[start:stop] for start, stop in _KEPT]
    return _CODEC.decode(chacha20_xor(keys.ammagext(shared_secret), b"".join(parts)))


def read_attribution(
    shared_secrets: Sequence[bytes], covered: Sequence[bytes], received: AttributionData | None
) -> HeldTimes:
    """At the origin: the hold times and who broke them. Never raises, whatever was received.

    ``shared_secrets``: of all hops. ``covered``: for each hop what its HMACs protect besides; entries beyond the hops
    make as many dummy rounds, so that the time taken does not tell how long the route was.
    """
    hops = len(shared_secrets)
    if received is None or hops > MAX_ATTRIBUTED_HOPS:
        return HeldTimes()
    data = _CODEC.write(received)
    times = []
    suspect: int | None = None
    secret = bytes(32)
    for hop, hidden in enumerate(covered[:MAX_ATTRIBUTED_HOPS]):
        real = hop < hops
        secret = shared_secrets[hop] if real else sha256(secret)
        data = chacha20_xor(keys.ammagext(secret), data)
        hmacs = data[_TIMES_SIZE:]
        follow = hops - 1 - hop if real else hop  # all lengths occur once, whatever the number of hops
        end, own, pick = _READS[follow]
        cells = _split(hmacs)
        expected = _StartedMac(keys.um(secret), hidden).digest(data[:end] + b"".join(pick(cells)))
        verified = constant_time_equal(expected[:_CUT], cells[own]) or not C_199.enabled
        if real and suspect is None:
            if verified:
                times.append(int.from_bytes(data[:4], "big") * HOLD_TIME_UNIT_MS)
            else:
                suspect = hop
        data = _without_first(data[:_TIMES_SIZE], hmacs)
    return HeldTimes(hold_times_ms=tuple(times), suspect=suspect)


def _without_first(times: bytes, hmacs: bytes) -> bytes:
    """What the first hop received; zeros stand where its HMACs pushed others out, which no true position needs."""
    parts = [times[4:], bytes(4)]
    for start, stop in _ROWS_BELOW:
        parts += (bytes(_CUT), hmacs[start:stop])
    parts.append(bytes(_CUT))
    return b"".join(parts)


# --- where things are, worked out once --------------------------------------------------------------------------------


def _cell(row: int, follow: int) -> int:
    """Index, in units of one HMAC, of row ``row`` when ``follow`` hops come after it."""
    return _ROW_STARTS[row] // _CUT + MAX_ATTRIBUTED_HOPS - 1 - row - follow


def _picker(cells: list[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """``itemgetter`` that always gives a tuple."""
    if len(cells) > 1:
        return itemgetter(*cells)
    return (lambda values: (values[cells[0]],)) if cells else (lambda values: ())


_ROWS_BELOW = tuple((_ROW_STARTS[row], _ROW_STARTS[row] + _ROW_SIZES[row]) for row in range(1, MAX_ATTRIBUTED_HOPS))
_KEPT = tuple((_ROW_STARTS[row] + _CUT, _ROW_STARTS[row] + _ROW_SIZES[row]) for row in range(MAX_ATTRIBUTED_HOPS - 1))
"""Bytes of each row that survive a step upstream: all but the first HMAC."""
_WRITES = tuple(
    # Row k of the new data is row k - 1 of the old.
    (4 * (follow + 1), _picker([_cell(row - 1, follow - row) for row in range(1, follow + 1)]))
    for follow in range(MAX_ATTRIBUTED_HOPS - 1, -1, -1)
)
"""For each own HMAC in order: how many bytes of the times it covers, and which HMACs that came from downstream."""
_READS = tuple(
    (4 * (follow + 1), _cell(0, follow), _picker([_cell(row, follow - row) for row in range(1, follow + 1)]))
    for follow in range(MAX_ATTRIBUTED_HOPS)
)
"""By number of hops that follow: bytes of the times, the HMAC itself, the HMACs it covers."""
