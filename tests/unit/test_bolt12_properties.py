"""BOLT 12 documents under Hypothesis: what is written is read, and garbage raises the declared error only."""

import contextlib

import pytest
from bolt12_kit import ALICE, BOB, OFFER, invoice_for, request_for, resigned, resigned_invoice
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.invoice import InvoiceError
from leyden.invoice.bolt12 import (
    check_offer,
    decode_bolt12_invoice,
    decode_offer,
    decode_request,
    encode_offer,
    merkle_root,
    parse_bolt12_invoice,
    parse_offer,
    parse_request,
)
from leyden.invoice.bolt12.signature import is_signed_by
from leyden.invoice.bolt12.text import decode_text, encode_text
from leyden.testing.wire_strategies import structs
from leyden.wire.bolt12 import Bolt12Invoice, InvoiceRequest, Offer
from leyden.wire.codec import encode_struct
from msgspec.structs import replace

QUICK = settings(deadline=None, max_examples=60)
DECODERS = (decode_offer, decode_request, decode_bolt12_invoice)
PARSERS = (parse_offer, parse_request, parse_bolt12_invoice)
SAMPLES = (encode_struct(OFFER), encode_struct(request_for()), encode_struct(invoice_for(request_for())))
texts = st.text("lnori1+ \nqpzry9x8gf2tvdw0s3jn54khce6mua7lQPZ\u00e9", max_size=60)


@QUICK
@given(st.binary(max_size=300), st.sampled_from(["lno", "lnr", "lni"]), st.booleans())
def test_text_carries_any_bytes(data: bytes, prefix: str, upper: bool) -> None:
    text = encode_text(prefix, data, upper=upper)
    assert decode_text(text, prefix) == data


@QUICK
@given(st.one_of(texts, texts.map(lambda tail: "lno1" + tail), texts.map(lambda tail: "lni1" + tail)))
def test_garbage_text(text: str) -> None:
    for parse in PARSERS:
        with contextlib.suppress(InvoiceError):
            parse(text)


@QUICK
@given(st.sampled_from(SAMPLES), st.data())
def test_damaged_documents(sample: bytes, data: st.DataObject) -> None:
    """One byte changed, dropped or put in: read as something valid, or refused."""
    place = data.draw(st.integers(0, len(sample) - 1))
    piece = data.draw(st.binary(max_size=2))
    damaged = sample[:place] + piece + sample[place + 1 :]
    for decode in DECODERS:
        try:
            document = decode(damaged)
        except InvoiceError:
            continue
        assert encode_struct(document) == damaged, "nothing is lost by reading"


@QUICK
@given(structs(Offer))
def test_offers(offer: Offer) -> None:
    try:
        check_offer(offer)
    except InvoiceError:
        with pytest.raises(InvoiceError):
            decode_offer(encode_struct(offer))
        return
    assert parse_offer(encode_offer(offer)) == offer


@QUICK
@given(structs(InvoiceRequest))
def test_requests(request: InvoiceRequest) -> None:
    signed = resigned(request, BOB, invreq_metadata=b"x")
    read(decode_request, signed)


@QUICK
@given(structs(Bolt12Invoice))
def test_invoices(invoice: Bolt12Invoice) -> None:
    signed = resigned_invoice(invoice, ALICE, invreq_metadata=b"x")
    read(decode_bolt12_invoice, signed)


def read(decode: object, document: InvoiceRequest) -> None:
    assert callable(decode)
    with contextlib.suppress(InvoiceError):
        assert decode(encode_struct(document)) == document


@QUICK
@given(structs(Bolt12Invoice))
def test_signature_records_are_outside_the_tree(invoice: Bolt12Invoice) -> None:
    bare = replace(invoice, signature=None)
    if encode_struct(bare):
        assert merkle_root(encode_struct(bare)) == merkle_root(encode_struct(replace(bare, signature=b"\1" * 64)))
    assert not is_signed_by(bare, "invoice", b"")
