"""Payment payloads: what the writers put in, what the reader refuses and how it names the culprit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leyden.onion import (
    HopPayload,
    OnionError,
    final_cltv_expiry,
    make_final_payload,
    make_forward_payload,
    parse_payload,
)
from leyden.types import BlockHeight, CltvDelta, Msat, PaymentSecret, ShortChannelId
from leyden.wire.codec import UnknownRecord
from leyden.wire.failures import FailureCode, InvalidOnionPayload

SECRET = PaymentSecret(b"\x24" * 32)


def test_forward_payload() -> None:
    data = make_forward_payload(
        amount_msat=Msat(15_000), cltv_expiry=BlockHeight(1500), short_channel_id=ShortChannelId(1)
    )
    assert data.hex() == "02023a98040205dc06080000000000000001"  # first hop of the BOLT 4 packet vector
    parsed = parse_payload(data)
    assert parsed == HopPayload(amt_to_forward=15_000, outgoing_cltv_value=1500, short_channel_id=1)


@pytest.mark.proves("C-173")
def test_final_payload() -> None:
    data = make_final_payload(Msat(10_000), BlockHeight(1000), SECRET, Msat(25_000), b"meta")
    parsed = parse_payload(data)
    assert (parsed.amt_to_forward, parsed.outgoing_cltv_value) == (10_000, 1000)
    assert parsed.payment_data is not None
    assert (parsed.payment_data.payment_secret, parsed.payment_data.total_msat) == (SECRET, 25_000)
    assert parsed.payment_metadata == b"meta"
    assert parsed.short_channel_id is None
    other_part = parse_payload(make_final_payload(Msat(15_000), BlockHeight(1000), SECRET, Msat(25_000), b"meta"))
    assert (other_part.payment_data, other_part.payment_metadata) == (parsed.payment_data, b"meta")
    assert parse_payload(make_final_payload(Msat(1), BlockHeight(1), SECRET, Msat(1))).payment_metadata is None
    assert parse_payload(make_final_payload(Msat(1), BlockHeight(1), SECRET, Msat(1), b"")).payment_metadata == b""


@pytest.mark.proves("C-173")
def test_a_part_is_no_larger_than_the_total() -> None:
    with pytest.raises(OnionError) as caught:
        make_final_payload(Msat(2), BlockHeight(1000), SECRET, Msat(1))
    assert caught.value.rule.id == "C-173"
    assert caught.value.failure_code is None


@pytest.mark.proves("C-173")
def test_final_expiry_is_absolute() -> None:
    assert final_cltv_expiry(BlockHeight(800_000), CltvDelta(18), CltvDelta(40)) == 800_058


@pytest.mark.proves("C-162")
@pytest.mark.parametrize(
    ("payload", "tlv_type", "offset"),
    [
        ("0401ff", 2, 0),  # no amount
        ("0201ff", 4, 0),  # no expiry
        ("", 2, 0),
        ("02010104010114", 0, 7),  # a type without a length: the reader stops there
        ("0201010401011400", 0x14, 6),  # unknown even record
        ("040101020101", 2, 3),  # wrong order
        ("020101020101", 2, 3),  # twice
        ("02010104020001", 4, 3),  # not minimal
        ("0201010609000000000000000001", 6, 3),  # scid of nine bytes
        ("020101040101081f" + "00" * 31, 8, 6),  # payment secret cut short
        ("02ff", 0, 1),  # length cut short
    ],
)
def test_broken_payloads(payload: str, tlv_type: int, offset: int) -> None:
    with pytest.raises(OnionError) as caught:
        parse_payload(bytes.fromhex(payload))
    error = caught.value
    assert error.rule.id == "C-162"
    assert error.failure == InvalidOnionPayload(type=tlv_type, offset=offset)


def test_unknown_odd_records_are_kept_aside() -> None:
    parsed = parse_payload(bytes.fromhex("0201010401021500"))
    assert parsed == HopPayload(amt_to_forward=1, outgoing_cltv_value=2, unknown=(UnknownRecord(0x15, b""),))


def test_blinded_hops_compute_their_amounts() -> None:
    assert parse_payload(bytes.fromhex("0a03010203")) == HopPayload(encrypted_recipient_data=b"\1\2\3")


@given(st.binary(max_size=120))
def test_garbage_raises_onion_error_only(payload: bytes) -> None:
    try:
        parse_payload(payload)
    except OnionError as error:
        assert error.failure_code is FailureCode.INVALID_ONION_PAYLOAD  # noqa: PT017
