"""What the invoice writer guarantees, and that reading undoes writing for every value."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import Network
from leyden.crypto import ORDER, ecdsa_sign_recoverable, pubkey_create, sha256
from leyden.invoice import (
    Fallback,
    HopHint,
    Invoice,
    InvoiceError,
    UnsignedInvoice,
    attach_signature,
    encode_invoice,
    parse_invoice,
    signing_digest,
)
from leyden.invoice.symbols import (
    bytes_to_symbols,
    int_to_symbols,
    symbols_to_bytes,
    symbols_to_int,
    symbols_to_padded_bytes,
)
from leyden.invoice.text import decode_text, encode_text
from leyden.types import MAX_MONEY_MSAT, CltvDelta, Msat, NodeId, PaymentHash, PaymentSecret, ShortChannelId
from leyden.types.rules import C_243, C_252
from leyden.wire.features import Features

KEY = sha256(b"the payee's node key")
PAYEE = pubkey_create(KEY)
HASH = bytes(range(32))
SECRET = b"\x11" * 32

TEA = UnsignedInvoice(
    network=Network.REGTEST,
    amount_msat=Msat(2_500_000),
    timestamp=1_700_000_000,
    payment_hash=PaymentHash(HASH),
    payment_secret=PaymentSecret(SECRET),
    description="tea",
    features=Features.of(8, 14),
    payee=NodeId(PAYEE),
)


def with_terms(**terms: object) -> UnsignedInvoice:
    return UnsignedInvoice(**{name: getattr(TEA, name) for name in TEA.__struct_fields__} | terms)


def signed(invoice: UnsignedInvoice, key: bytes = KEY) -> Invoice:
    hrp, data = encode_invoice(invoice)
    return attach_signature(invoice, hrp, data, *ecdsa_sign_recoverable(key, signing_digest(hrp, data)))


def letters(text: str) -> str:
    """Field letters of an invoice in order."""
    _, data = decode_text(text)
    found, place = "", 7
    while place < len(data) - 104:
        found += "qpzry9x8gf2tvdw0s3jn54khce6mua7l"[data[place]]
        place += 3 + symbols_to_int(data[place + 1 : place + 3])
    return found


keys = st.integers(1, 2**64).map(lambda n: NodeId(pubkey_create(n.to_bytes(32, "big"))))
u32 = st.integers(0, 2**32 - 1)
hops = st.builds(
    HopHint,
    node_id=keys,
    short_channel_id=st.integers(0, 2**64 - 1).map(ShortChannelId),
    fee_base_msat=u32,
    fee_proportional_millionths=u32,
    cltv_expiry_delta=st.integers(0, 65535).map(CltvDelta),
)
fallbacks = st.one_of(
    st.builds(Fallback, version=st.integers(1, 16), program=st.binary(min_size=2, max_size=40)),
    st.builds(Fallback, version=st.sampled_from([0, 17, 18]), program=st.binary(min_size=20, max_size=20)),
)
invoices = st.builds(
    UnsignedInvoice,
    network=st.sampled_from(Network),
    amount_msat=st.none()
    | st.integers(1, MAX_MONEY_MSAT).map(Msat)
    | st.integers(1, 10**6).map(lambda n: Msat(n * 10**5)),
    timestamp=st.integers(0, 2**35 - 1),
    payment_hash=st.binary(min_size=32, max_size=32).map(PaymentHash),
    payment_secret=st.binary(min_size=32, max_size=32).map(PaymentSecret),
    description=st.text(max_size=150),
    expiry=st.integers(0, 2**32),
    min_final_cltv_expiry_delta=st.integers(0, 5000).map(CltvDelta),
    features=st.sets(st.sampled_from([8, 9, 14, 15, 16, 17, 48, 49, 99, 1001])).map(lambda s: Features.of(*s)),
    route_hints=st.lists(st.lists(hops, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple),
    fallbacks=st.lists(fallbacks, max_size=3).map(tuple),
    metadata=st.none() | st.binary(max_size=600),
    payee=st.just(NodeId(PAYEE)),
    names_payee=st.booleans(),
)


@given(invoices)
@settings(deadline=None, max_examples=100)
def test_reading_undoes_writing(invoice: UnsignedInvoice) -> None:
    written = signed(invoice)
    assert parse_invoice(written.text) == written
    assert parse_invoice(written.text.upper(), invoice.network) == written
    for name in invoice.__struct_fields__:
        assert getattr(written, name) == getattr(invoice, name)


@given(st.binary(max_size=1000))
@settings(deadline=None, max_examples=100)
def test_regrouping_bits(data: bytes) -> None:
    symbols = bytes_to_symbols(data)
    assert max(symbols, default=0) < 32
    assert symbols_to_bytes(symbols) == data
    assert int_to_symbols(symbols_to_int(symbols), len(symbols)) == symbols
    assert symbols_to_padded_bytes(symbols)[: len(data)] == data
    assert "".join(format(s, "05b") for s in symbols).startswith("".join(format(b, "08b") for b in data))


def reference_checksum(values: bytes) -> int:
    """BIP 173, symbol by symbol."""
    register = 1
    for value in values:
        top, register = register >> 25, (register & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            register ^= generator if top >> bit & 1 else 0
    return register


@given(st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True), st.binary(max_size=900))
@settings(deadline=None, max_examples=60)
def test_checksum_is_bech32(hrp: str, data: bytes) -> None:
    symbols = bytes_to_symbols(data)
    text = encode_text(hrp, symbols)
    assert decode_text(text) == (hrp, symbols)
    values = bytes("qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(c) for c in text[len(hrp) + 1 :])
    expanded = bytes(ord(c) >> 5 for c in hrp) + b"\0" + bytes(ord(c) & 31 for c in hrp)
    assert reference_checksum(expanded + values) == 1


@pytest.mark.parametrize(
    ("msat", "spelled"),
    [
        (1, "10p"),
        (100, "1n"),
        (101, "1010p"),
        (100_000, "1u"),
        (100_000_000, "1m"),
        (10**11, "1"),
        (MAX_MONEY_MSAT, "21000000"),
    ],
)
def test_shortest_amount(msat: int, spelled: str) -> None:
    assert encode_invoice(with_terms(amount_msat=Msat(msat)))[0] == "lnbcrt" + spelled


@pytest.mark.proves("C-243")
@pytest.mark.parametrize("msat", [0, -1, MAX_MONEY_MSAT + 1])
def test_amount_out_of_range(msat: int) -> None:
    with pytest.raises(InvoiceError) as caught:
        encode_invoice(with_terms(amount_msat=Msat(msat)))
    assert caught.value.rule is C_243


@pytest.mark.proves("C-252")
@pytest.mark.parametrize(
    "terms",
    [
        {"description": None},
        {"description_hash": bytes(32)},
        {"description": None, "description_hash": bytes(31)},
        {"payment_hash": bytes(31)},
        {"payment_secret": bytes(33)},
        {"timestamp": 2**35},
        {"timestamp": -1},
        {"expiry": -1},
        {"description": "x" * 640},
        {"fallbacks": (Fallback(version=0, program=bytes(21)),)},
        {"route_hints": ((),)},
    ],
)
def test_terms_that_no_reader_accepts(terms: dict[str, object]) -> None:
    with pytest.raises(InvoiceError) as caught:
        encode_invoice(with_terms(**terms))
    assert caught.value.rule is C_252


@pytest.mark.proves("C-252")
def test_fields_are_single_and_minimal() -> None:
    invoice = signed(with_terms(expiry=60, min_final_cltv_expiry_delta=CltvDelta(40), names_payee=True))
    found = letters(invoice.text)
    assert sorted(found) == sorted("psdnxc9")
    _, data = decode_text(invoice.text)
    for letter, value in (("x", 60), ("c", 40), ("9", 1 << 8 | 1 << 14)):
        symbols = int_to_symbols(value, -(-value.bit_length() // 5))
        tag = "qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(letter)
        assert bytes((tag, 0, len(symbols))) + symbols in data


def test_no_empty_features_and_no_default_expiry() -> None:
    assert letters(signed(with_terms(features=Features())).text) == "psdc"


@pytest.mark.proves("C-252")
def test_order_that_leaves_something_out() -> None:
    with pytest.raises(InvoiceError):
        encode_invoice(with_terms(expiry=60), "psdc9")
    with pytest.raises(InvoiceError):
        encode_invoice(with_terms(min_final_cltv_expiry_delta=CltvDelta(40)), "psd9")


@pytest.mark.proves("C-252")
def test_signature_of_another_key_is_not_published() -> None:
    with pytest.raises(InvoiceError) as caught:
        signed(TEA, sha256(KEY))
    assert caught.value.rule is C_252


@pytest.mark.proves("C-252")
def test_high_s_is_not_published() -> None:
    hrp, data = encode_invoice(TEA)
    signature, recovery_id = ecdsa_sign_recoverable(KEY, signing_digest(hrp, data))
    high = signature[:32] + (ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
    with pytest.raises(InvoiceError):
        attach_signature(TEA, hrp, data, high, recovery_id ^ 1)
    with pytest.raises(InvoiceError):
        attach_signature(TEA, hrp, data, signature, recovery_id ^ 1)


def test_signing_twice_gives_the_same_text() -> None:
    assert signed(TEA) == signed(TEA)
