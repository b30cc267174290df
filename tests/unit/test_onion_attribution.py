"""Attribution data beyond the vectors: any route, any tampering, hops that take no part."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.crypto import chacha20_xor, sha256
from leyden.onion import (
    MAX_ATTRIBUTED_HOPS,
    MAX_RETURN_SIZE,
    Fulfilment,
    OnionError,
    ReturnedFailure,
    attribution,
    decode_attributed_failure,
    decode_fulfilment,
    make_attributed_failure,
    make_failure,
    make_fulfilment,
    wrap_attributed_failure,
    wrap_failure,
    wrap_fulfilment,
)
from leyden.wire import AttributionData, UpdateFailHtlc, encode
from leyden.wire.codec import decode_struct, encode_struct

SECRETS = [sha256(b"secret %d" % i) for i in range(26)]
MESSAGE = b"\x20\x02"
Returned = tuple[bytes, AttributionData | None]


def failed(hops: int, at: int) -> list[Returned]:
    """What each hop from the failing one back to the first sends; hop i held the HTLC for 100 * (i + 1) ms."""
    sent: list[Returned] = [make_attributed_failure(SECRETS[at], MESSAGE, hold_time_ms=100 * (at + 1))]
    for hop in range(at - 1, -1, -1):
        sent.append(wrap_attributed_failure(SECRETS[hop], *sent[-1], hold_time_ms=100 * (hop + 1)))
    return sent


def wrapped(returned: Returned, hop: int) -> Returned:
    """``returned`` on its way from hop ``hop`` on to the origin."""
    for above in range(hop, -1, -1):
        returned = wrap_attributed_failure(SECRETS[above], *returned, hold_time_ms=100 * (above + 1))
    return returned


def times(hops: int) -> tuple[int, ...]:
    return tuple(100 * (hop + 1) for hop in range(hops))


def flipped(data: AttributionData, position: int) -> AttributionData:
    raw = bytearray(encode_struct(data))
    raw[position] ^= 1
    return decode_struct(AttributionData, bytes(raw))


# --- failures ---------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_any_hop_of_any_route(data: st.DataObject) -> None:
    hops = data.draw(st.integers(1, MAX_ATTRIBUTED_HOPS))
    at = data.draw(st.integers(0, hops - 1))
    packet, attributed = failed(hops, at)[-1]
    assert decode_attributed_failure(SECRETS[:hops], packet, attributed) == ReturnedFailure(
        hop=at, message=MESSAGE, hold_times_ms=times(at + 1), suspect=None
    )


@pytest.mark.proves("C-199")
@pytest.mark.parametrize("tamperer", [0, 1, 2, 3])
def test_a_changed_packet_names_the_pair(tamperer: int) -> None:
    """Hop ``tamperer`` changes the packet that came from the next hop: that next hop is the first not to verify."""
    sent = failed(5, 4)
    packet, attributed = sent[3 - tamperer]
    changed = bytes([packet[0] ^ 1]) + packet[1:]
    read = decode_attributed_failure(SECRETS[:5], *wrapped((changed, attributed), tamperer))
    assert read == ReturnedFailure(hop=None, message=b"", hold_times_ms=times(tamperer + 1), suspect=tamperer + 1)


@given(position=st.integers(0, 919), tamperer=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_changed_attribution_never_blames_the_innocent(position: int, tamperer: int) -> None:
    """Bytes that no true position needs may change unseen; what is seen names the tamperer or the hop behind it."""
    packet, attributed = failed(5, 4)[3 - tamperer]
    assert attributed is not None
    read = decode_attributed_failure(SECRETS[:5], *wrapped((packet, flipped(attributed, position)), tamperer))
    assert (read.hop, read.message) == (4, MESSAGE)
    assert read.suspect in (None, tamperer + 1)
    assert read.hold_times_ms == times(5 if read.suspect is None else tamperer + 1)


@pytest.mark.proves("C-199")
def test_a_changed_hold_time_is_seen() -> None:
    packet, attributed = failed(5, 4)[-1]
    assert attributed is not None
    read = decode_attributed_failure(SECRETS[:5], packet, flipped(attributed, 3))
    assert read == ReturnedFailure(hop=4, message=MESSAGE, hold_times_ms=(), suspect=0)


@pytest.mark.proves("C-198")
def test_a_hop_without_the_feature_ends_the_trace() -> None:
    """Hop 2 passes the packet on without data; hop 1 starts from zeros. Hops 0 and 1 still prove their times."""
    returned: Returned = (wrap_failure(SECRETS[2], make_failure(SECRETS[3], MESSAGE)), None)
    read = decode_attributed_failure(SECRETS[:4], *wrapped(returned, 1))
    assert read == ReturnedFailure(hop=3, message=MESSAGE, hold_times_ms=times(2), suspect=2)
    started = wrap_attributed_failure(SECRETS[1], returned[0], None, hold_time_ms=200)
    zeros = decode_struct(AttributionData, bytes(920))
    assert wrap_attributed_failure(SECRETS[1], returned[0], zeros, hold_time_ms=200) == started
    full = failed(4, 3)[1]
    assert (
        wrap_attributed_failure(SECRETS[1], *full, hold_time_ms=0)[1]
        != (wrap_attributed_failure(SECRETS[1], full[0], None, hold_time_ms=0)[1])
    )


@pytest.mark.proves("C-199")
def test_a_packet_that_nobody_can_read_is_the_recipients() -> None:
    garbage = bytes(292)
    attributed = attribution.add_attribution(SECRETS[4], garbage, 500, None)
    returned = wrapped((wrap_failure(SECRETS[4], garbage), attributed), 3)
    read = decode_attributed_failure(SECRETS[:5], *returned)
    assert read == ReturnedFailure(hop=None, message=b"", hold_times_ms=times(5), suspect=4)


@given(packet=st.binary(max_size=400), raw=st.binary(min_size=920, max_size=920), hops=st.integers(0, 26))
@settings(deadline=None, max_examples=40)
def test_garbage_is_nobodys(packet: bytes, raw: bytes, hops: int) -> None:
    read = decode_attributed_failure(SECRETS[:hops], packet, decode_struct(AttributionData, raw))
    assert read.hop is None
    assert read.hold_times_ms == ()
    assert read.suspect == (0 if 0 < hops <= MAX_ATTRIBUTED_HOPS else None)
    assert decode_attributed_failure(SECRETS[:hops], packet, None).suspect is None


def test_hold_times_are_rounded_down_and_bounded() -> None:
    for given_ms, read_ms in ((0, 0), (99, 0), (100, 100), (250, 200), (-5, 0), (10**15, 0xFFFFFFFF * 100)):
        packet, attributed = make_attributed_failure(SECRETS[0], MESSAGE, hold_time_ms=given_ms)
        assert decode_attributed_failure(SECRETS[:1], packet, attributed).hold_times_ms == (read_ms,)


@pytest.mark.proves("C-193")
@pytest.mark.parametrize("hops", [1, 5, 19])
def test_the_work_does_not_depend_on_the_route(hops: int, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = 0
    covered: list[int] = []

    def counting(key: bytes, data: bytes) -> bytes:
        nonlocal streams
        streams += 1
        return chacha20_xor(key, data)

    class Mac(attribution._StartedMac):
        def digest(self, data: bytes) -> bytes:
            covered.append(len(data))
            return super().digest(data)

    packet, attributed = failed(hops, hops - 1)[-1]
    monkeypatch.setattr(attribution, "chacha20_xor", counting)
    monkeypatch.setattr(attribution, "_StartedMac", Mac)
    decode_attributed_failure(SECRETS[:hops], packet, attributed)
    assert streams == MAX_ATTRIBUTED_HOPS
    assert sorted(covered) == [4 + 8 * follow for follow in range(MAX_ATTRIBUTED_HOPS)]


def test_an_oversized_packet_still_fits_the_message_upstream() -> None:
    """A hop downstream may send a reason of nearly 64 KiB: with attribution data it would no longer fit upstream."""
    packet, attributed = wrap_attributed_failure(SECRETS[0], bytes(65_000), None, hold_time_ms=0)
    assert len(packet) == MAX_RETURN_SIZE
    assert len(wrap_failure(SECRETS[0], bytes(65_000))) == MAX_RETURN_SIZE
    message: Any = UpdateFailHtlc(channel_id=bytes(32), id=1, reason=packet, attribution_data=attributed)
    assert len(encode(message)) < 65536
    # The hops from the cut on agree on what they covered.
    read = decode_attributed_failure(SECRETS[:2], packet, attributed)
    assert (read.hold_times_ms, read.suspect) == ((0,), 1)


# --- fulfilments ------------------------------------------------------------------------------------------------------


def fulfilled(hops: int, payload: bytes | None) -> Fulfilment:
    made = make_fulfilment(SECRETS[hops - 1], hold_time_ms=100 * hops, payload=payload)
    for hop in range(hops - 2, -1, -1):
        made = wrap_fulfilment(SECRETS[hop], made.attribution_data, made.payload, hold_time_ms=100 * (hop + 1))
    return made


@given(hops=st.integers(1, 20), payload=st.none() | st.binary(max_size=300))
@settings(deadline=None, max_examples=30)
def test_fulfilments_of_any_route(hops: int, payload: bytes | None) -> None:
    made = fulfilled(hops, payload)
    read = decode_fulfilment(SECRETS[:hops], made.attribution_data, made.payload)
    assert (read.hold_times_ms, read.suspect, read.payload) == (times(hops), None, payload)


@pytest.mark.proves("C-200")
def test_hold_times_of_a_fulfilment() -> None:
    made = fulfilled(5, None)
    assert decode_fulfilment(SECRETS[:5], made.attribution_data, None).hold_times_ms == times(5)
    assert decode_fulfilment(SECRETS[:5], None, None).hold_times_ms == ()
    assert decode_fulfilment([], made.attribution_data, None).hold_times_ms == ()


@pytest.mark.proves("C-199")
@pytest.mark.parametrize("change", ["dropped", "changed"])
def test_a_payload_lost_on_its_way_is_traced(change: str) -> None:
    made = make_fulfilment(SECRETS[2], hold_time_ms=300, payload=b"for the payer")
    assert made.payload is not None
    payload = None if change == "dropped" else made.payload[:-1] + bytes([made.payload[-1] ^ 1])
    made = wrap_fulfilment(SECRETS[1], made.attribution_data, made.payload, hold_time_ms=200)
    # Hop 0 loses what hop 1 sent.
    made = wrap_fulfilment(SECRETS[0], made.attribution_data, payload, hold_time_ms=100)
    read = decode_fulfilment(SECRETS[:3], made.attribution_data, made.payload)
    assert (read.hold_times_ms, read.suspect, read.payload) == (times(1), 1, None)


@pytest.mark.proves("C-201")
def test_payloads_have_at_most_32_kib() -> None:
    longest = MAX_RETURN_SIZE - 16
    made = fulfilled(3, bytes(longest))
    assert decode_fulfilment(SECRETS[:3], made.attribution_data, made.payload).payload == bytes(longest)
    with pytest.raises(OnionError) as caught:
        make_fulfilment(SECRETS[0], hold_time_ms=0, payload=bytes(longest + 1))
    assert caught.value.rule.id == "C-201"
    # A relay that got more than is allowed keeps the preimage moving and leaves the payload behind.
    relayed = wrap_fulfilment(SECRETS[0], made.attribution_data, bytes(MAX_RETURN_SIZE + 1), hold_time_ms=0)
    assert relayed.payload is None
    assert relayed == wrap_fulfilment(SECRETS[0], made.attribution_data, None, hold_time_ms=0)


@given(payload=st.none() | st.binary(max_size=100), raw=st.binary(min_size=920, max_size=920), hops=st.integers(0, 22))
@settings(deadline=None, max_examples=40)
def test_broken_data_never_raise(payload: bytes | None, raw: bytes, hops: int) -> None:
    data = decode_struct(AttributionData, raw)
    read = decode_fulfilment(SECRETS[:hops], data, payload)
    assert (read.hold_times_ms, read.payload) == ((), None)
    wrap_fulfilment(SECRETS[0], data, payload, hold_time_ms=0)
