"""What makes offers, requests and invoices of BOLT 12 valid, rule by rule."""

from collections.abc import Callable
from typing import Any

import pytest
from bolt12_kit import (
    ALICE_ID,
    BOB_ID,
    CAROL,
    CAROL_ID,
    FAR_RECORD,
    HASH,
    METADATA,
    NO_HOPS,
    NOW,
    ODD_RECORD,
    OFFER,
    PATH,
    PAYABLE,
    PRICE,
    TIP_JAR,
    invoice_for,
    request_for,
    resigned,
    resigned_invoice,
)
from leyden.bitcoin import Network
from leyden.invoice import InvoiceError
from leyden.invoice.bolt12 import (
    BITCOIN,
    Bip353Name,
    Bolt12Invoice,
    FallbackAddress,
    InvoiceRequest,
    Offer,
    PayablePath,
    attach_invoice_signature,
    attach_request_signature,
    check_bolt12_invoice,
    check_offer,
    check_request,
    decode_bolt12_invoice,
    decode_offer,
    decode_request,
    encode_bolt12_invoice,
    encode_offer,
    encode_request,
    invoice_expires_at,
    make_bolt12_invoice,
    make_payout,
    make_request,
    merkle_root,
    parse_bolt12_invoice,
    parse_offer,
    parse_request,
    require_answers,
    require_matches_offer,
    require_order,
    require_usable_invoice,
    require_usable_offer,
    require_usable_request,
    usable_fallbacks,
    usable_paths,
)
from leyden.types import Rule
from leyden.types.rules import (
    C_253,
    C_254,
    C_255,
    C_256,
    C_259,
    C_260,
    C_261,
    C_262,
    C_263,
    C_266,
    C_267,
    C_268,
    C_269,
    C_270,
    C_271,
    C_273,
)
from leyden.wire.codec import UnknownRecord, encode_struct
from leyden.wire.features import Feature, Features
from msgspec.structs import replace

REGTEST = Network.REGTEST.chain_hash
CHAINS = (BITCOIN,)
EVEN = Features.of(122).to_bytes()
ODD = Features.of(123).to_bytes()


def refused(rule: Rule, call: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    with pytest.raises(InvoiceError) as caught:
        call(*args, **kwargs)
    assert caught.value.rule is rule


# --- texts ------------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-253")
@pytest.mark.parametrize("joint", ["+", "+\n", "+ \t\r\n "])
def test_text_may_be_broken_anywhere(joint: str) -> None:
    text = encode_offer(OFFER)
    assert parse_offer(joint.join(text)) == OFFER
    refused(C_253, parse_offer, joint.join(text).replace("p", "P"))


@pytest.mark.parametrize("text", ["", "lno", "lno1b", "lnr1qqqq", "lno 1qq", "lno1q+ +q", "lno1qq +q", "lno1ÄÖ", "+"])
def test_no_text(text: str) -> None:
    refused(C_253, parse_offer, text)


def test_text_too_long() -> None:
    refused(C_253, parse_offer, "lno1" + "q" * 104_857)
    refused(C_253, parse_offer, "lno1q" + "+ q" * 104_000)


def test_kinds_of_text_are_not_mixed_up() -> None:
    request = request_for()
    assert parse_request(encode_request(request)) == request
    assert parse_bolt12_invoice(encode_bolt12_invoice(invoice_for(request))) == invoice_for(request)
    refused(C_253, parse_offer, encode_request(request))
    refused(C_253, parse_request, encode_offer(OFFER))
    refused(C_253, parse_bolt12_invoice, encode_request(request))


# --- offers -----------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-255")
@pytest.mark.parametrize("kind", [79, 80, 81, 999_999_999, 1_000_000_001, 1_999_999_999, 2_000_000_001, 78])
def test_record_ranges_of_offers(kind: int) -> None:
    offer = replace(OFFER, unknown=(UnknownRecord(kind, b""),))
    if kind in (79, 1_000_000_001, 1_999_999_999):
        assert decode_offer(encode_struct(offer)) == offer
    else:
        refused(C_255, decode_offer, encode_struct(offer))


@pytest.mark.proves("C-255")
def test_features_of_offers() -> None:
    refused(C_255, check_offer, replace(OFFER, offer_features=EVEN))
    check_offer(replace(OFFER, offer_features=ODD))
    check_offer(replace(OFFER, offer_features=EVEN), known=Features.of(123))


@pytest.mark.proves("C-256")
@pytest.mark.parametrize(
    "changes",
    [
        {"offer_amount": 0},
        {"offer_description": None},
        {"offer_amount": None, "offer_currency": "USD"},
        {"offer_issuer_id": None},
        {"offer_issuer_id": None, "offer_paths": ()},
        {"offer_paths": (PATH, NO_HOPS)},
        {"offer_chains": ()},
    ],
)
def test_offers_that_nobody_answers(changes: dict[str, Any]) -> None:
    check_offer(OFFER)
    offer = replace(OFFER, **changes)
    refused(C_256, check_offer, offer)
    refused(C_256, decode_offer, encode_struct(offer))
    refused(C_256, encode_offer, offer)


@pytest.mark.proves("C-256")
def test_offers_for_others_and_of_the_past() -> None:
    require_usable_offer(OFFER, now=NOW, chains=CHAINS)
    refused(C_256, require_usable_offer, OFFER, now=NOW, chains=(REGTEST,))
    both = replace(OFFER, offer_chains=(REGTEST, BITCOIN))
    require_usable_offer(both, now=NOW, chains=CHAINS)
    refused(C_256, require_usable_offer, replace(OFFER, offer_chains=(REGTEST,)), now=NOW, chains=CHAINS)
    expiring = replace(OFFER, offer_absolute_expiry=NOW)
    require_usable_offer(expiring, now=NOW, chains=CHAINS)
    refused(C_256, require_usable_offer, expiring, now=NOW + 1, chains=CHAINS)


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-259")
def test_request_repeats_the_offer() -> None:
    request = request_for()
    assert request.unknown == (ODD_RECORD, FAR_RECORD)
    for name in Offer.__struct_fields__:
        assert getattr(request, name) == getattr(OFFER, name)
    require_matches_offer(decode_request(encode_struct(request)), OFFER)
    refused(C_259, make_request, OFFER, metadata=b"", payer_id=BOB_ID, quantity=1)


def test_request_names_the_chain_unless_it_is_bitcoin() -> None:
    offer = replace(TIP_JAR, offer_chains=(BITCOIN, REGTEST))
    there = make_request(offer, metadata=METADATA, payer_id=BOB_ID, chain=REGTEST, amount_msat=1)
    assert there.invreq_chain == REGTEST
    here = make_request(offer, metadata=METADATA, payer_id=BOB_ID, amount_msat=1)
    assert here.invreq_chain is None
    refused(C_256, make_request, TIP_JAR, metadata=METADATA, payer_id=BOB_ID, chain=REGTEST, amount_msat=1)


ORDERS = [
    pytest.param(OFFER, None, None, id="quantity missing"),
    pytest.param(OFFER, 0, None, id="quantity zero"),
    pytest.param(OFFER, 6, None, id="quantity above the limit"),
    pytest.param(OFFER, 3, 2999, id="amount below the price"),
    pytest.param(replace(OFFER, offer_quantity_max=None), 1, None, id="quantity not allowed"),
    pytest.param(replace(OFFER, offer_quantity_max=0), 0, None, id="zero of unlimited"),
    pytest.param(TIP_JAR, None, None, id="no amount anywhere"),
    pytest.param(TIP_JAR, None, 0, id="an amount of zero"),
    pytest.param(replace(OFFER, offer_quantity_max=0), 2**63, None, id="more than all the money"),
]


@pytest.mark.proves("C-260")
@pytest.mark.parametrize(("offer", "quantity", "amount"), ORDERS)
def test_orders_we_do_not_make(offer: Offer, quantity: int | None, amount: int | None) -> None:
    refused(C_260, make_request, offer, metadata=METADATA, payer_id=BOB_ID, quantity=quantity, amount_msat=amount)


@pytest.mark.proves("C-263")
@pytest.mark.parametrize(("offer", "quantity", "amount"), ORDERS)
def test_orders_we_refuse(offer: Offer, quantity: int | None, amount: int | None) -> None:
    good = request_for(replace(offer, offer_quantity_max=0), quantity=1, amount_msat=10**6)
    request = resigned(
        good, offer_quantity_max=offer.offer_quantity_max, invreq_quantity=quantity, invreq_amount=amount
    )
    check_request(request)
    refused(C_263, require_order, request)


def test_expected_amount() -> None:
    assert require_order(request_for(quantity=5)) == 5000
    assert require_order(request_for(quantity=2, amount_msat=2001)) == 2001
    assert require_order(request_for(replace(OFFER, offer_quantity_max=0), quantity=10**6)) == 10**9
    assert require_order(request_for(TIP_JAR, quantity=None, amount_msat=7)) == 7
    dollars = replace(OFFER, offer_currency="USD", offer_amount=10)
    request = signed = make_request(dollars, metadata=METADATA, payer_id=BOB_ID, quantity=3, item_msat=50_000)
    assert require_order(signed, item_msat=49_000) == 147_000
    with pytest.raises(InvoiceError, match="conversion"):
        require_order(request)


@pytest.mark.proves("C-261")
@pytest.mark.parametrize(
    "changes",
    [
        {"invreq_payer_id": None},
        {"invreq_metadata": None},
        {"invreq_features": EVEN},
        {"invreq_paths": (PATH, NO_HOPS)},
        {"unknown": (UnknownRecord(161, b""),)},
        {"unknown": (UnknownRecord(3_000_000_001, b""),)},
        {"unknown": (UnknownRecord(158, b""),)},
        {"invreq_bip_353_name": Bip353Name(name=b"tea", domain=b"ex ample.org")},
        {"invreq_bip_353_name": Bip353Name(name=b"t\xc3\xa9", domain=b"example.org")},
    ],
)
def test_requests_that_nobody_answers(changes: dict[str, Any]) -> None:
    request = resigned(request_for(), **changes)
    refused(C_261, decode_request, encode_struct(request))


@pytest.mark.proves("C-261")
def test_signature_of_requests() -> None:
    request = request_for()
    refused(C_261, decode_request, encode_struct(replace(request, signature=None)))
    refused(C_261, decode_request, encode_struct(replace(request, invreq_quantity=3)))
    refused(C_261, decode_request, encode_struct(resigned(request, CAROL)))
    refused(C_261, attach_request_signature, request, bytes(64))


@pytest.mark.proves("C-261")
def test_chain_of_requests() -> None:
    request = request_for()
    require_usable_request(request, now=NOW, chains=CHAINS)
    refused(C_261, require_usable_request, request, now=NOW, chains=(REGTEST,))
    refused(C_261, require_usable_request, replace(request, invreq_chain=REGTEST), now=NOW, chains=CHAINS)


def test_records_that_requests_may_have() -> None:
    names = Bip353Name(name=b"Tea-1_", domain=b"example.org")
    unknown = (UnknownRecord(159, b""), UnknownRecord(241, b"sig"), UnknownRecord(2_999_999_999, b""))
    request = resigned(request_for(), invreq_bip_353_name=names, unknown=unknown, invreq_features=ODD)
    assert decode_request(encode_struct(request)) == request


@pytest.mark.proves("C-262")
@pytest.mark.parametrize(
    "changes",
    [
        {"offer_amount": 1},
        {"offer_metadata": b""},
        {"offer_description": "teas"},
        {"offer_absolute_expiry": NOW},
        {"unknown": (ODD_RECORD,)},
        {"unknown": (ODD_RECORD, UnknownRecord(1_000_000_001, b"experimenT"))},
    ],
)
def test_requests_for_other_offers(changes: dict[str, Any]) -> None:
    request = request_for()
    require_matches_offer(request, OFFER)
    refused(C_262, require_matches_offer, resigned(request, **changes), OFFER)
    refused(C_262, require_matches_offer, request, replace(OFFER, **changes))


@pytest.mark.proves("C-262")
def test_request_for_an_expired_offer() -> None:
    request = request_for(replace(OFFER, offer_absolute_expiry=NOW))
    require_usable_request(request, now=NOW, chains=CHAINS)
    refused(C_262, require_usable_request, request, now=NOW + 1, chains=CHAINS)


def payout() -> InvoiceRequest:
    return make_payout(description="refund", amount_msat=5000, metadata=METADATA, payer_id=BOB_ID)


@pytest.mark.proves("C-266")
@pytest.mark.parametrize(
    "changes",
    [
        {"invreq_amount": None},
        {"invreq_amount": 0},
        {"offer_chains": (BITCOIN,)},
        {"offer_metadata": b"x"},
        {"offer_currency": "USD"},
        {"offer_amount": 1},
        {"offer_features": b""},
        {"offer_quantity_max": 0},
    ],
)
def test_requests_without_an_offer(changes: dict[str, Any]) -> None:
    request = payout()
    assert request.signature is None, "published unsigned"
    assert decode_request(encode_struct(request)) == request
    refused(C_266, decode_request, encode_struct(replace(request, **changes)))


@pytest.mark.proves("C-261", "C-266")
def test_payouts_may_be_signed_and_expire() -> None:
    check_request(resigned(payout()))
    refused(C_261, check_request, resigned(payout(), CAROL))
    expiring = replace(payout(), offer_absolute_expiry=NOW)
    require_usable_request(expiring, now=NOW, chains=CHAINS)
    refused(C_266, require_usable_request, expiring, now=NOW + 1, chains=CHAINS)


# --- invoices ---------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-267")
def test_invoice_repeats_the_request() -> None:
    signed = UnknownRecord(241, b"another signature")
    request = resigned(request_for(), unknown=(ODD_RECORD, signed, FAR_RECORD))
    invoice = make_bolt12_invoice(
        request, payment_hash=HASH, paths=[PAYABLE], created_at=NOW, node_id=CAROL_ID, relative_expiry=7200
    )
    for name in set(InvoiceRequest.__struct_fields__) - {"signature", "unknown"}:
        assert getattr(invoice, name) == getattr(request, name)
    assert invoice.signature is None
    assert invoice.unknown == (ODD_RECORD, FAR_RECORD)
    assert invoice.invoice_node_id == ALICE_ID, "the issuer's id goes before any other"
    assert (invoice.invoice_amount, invoice.invoice_relative_expiry) == (2000, None)
    assert (invoice.invoice_features, invoice.invoice_fallbacks) == (None, None)
    require_answers(invoice_for(request), request)


@pytest.mark.proves("C-267")
def test_invoice_without_a_key() -> None:
    refused(C_267, make_bolt12_invoice, payout(), payment_hash=HASH, paths=[PAYABLE], created_at=NOW)


@pytest.mark.proves("C-268")
@pytest.mark.parametrize(
    "paths",
    [
        [],
        [PAYABLE, PayablePath(path=NO_HOPS, payinfo=PRICE)],
        [PayablePath(path=PATH, payinfo=PRICE, allowed_features=ODD)],
        [PayablePath(path=PATH, payinfo=replace(PRICE, features=ODD))],
    ],
)
def test_invoice_with_impossible_paths(paths: list[PayablePath]) -> None:
    refused(C_268, make_bolt12_invoice, request_for(), payment_hash=HASH, paths=paths, created_at=NOW)


@pytest.mark.proves("C-269")
@pytest.mark.parametrize(
    "changes",
    [
        {"invoice_amount": None},
        {"invoice_created_at": None},
        {"invoice_payment_hash": None},
        {"invoice_node_id": None},
        {"invoice_paths": None},
        {"invoice_paths": (), "invoice_blindedpay": ()},
        {"invoice_paths": (NO_HOPS,)},
        {"invoice_blindedpay": None},
        {"invoice_blindedpay": (PRICE, PRICE)},
        {"invoice_features": EVEN},
        {"unknown": (UnknownRecord(178, b""),)},
    ],
)
def test_invoices_that_nobody_pays(changes: dict[str, Any]) -> None:
    invoice = invoice_for(request_for())
    check_bolt12_invoice(invoice)
    refused(C_269, decode_bolt12_invoice, encode_struct(resigned_invoice(invoice, **changes)))


@pytest.mark.proves("C-269")
def test_expiry_and_chain_of_invoices() -> None:
    invoice = invoice_for(request_for())
    assert invoice_expires_at(invoice) == NOW + 7200
    require_usable_invoice(invoice, now=NOW + 7200, chains=CHAINS)
    refused(C_269, require_usable_invoice, invoice, now=NOW + 7201, chains=CHAINS)
    refused(C_269, require_usable_invoice, invoice, now=NOW, chains=(REGTEST,))
    short = replace(invoice, invoice_relative_expiry=60)
    require_usable_invoice(short, now=NOW + 60, chains=CHAINS)
    refused(C_269, require_usable_invoice, short, now=NOW + 61, chains=CHAINS)


@pytest.mark.proves("C-270")
def test_signature_of_invoices() -> None:
    invoice = invoice_for(request_for())
    assert invoice.signature is not None
    refused(C_270, decode_bolt12_invoice, encode_struct(replace(invoice, signature=None)))
    refused(C_270, decode_bolt12_invoice, encode_struct(replace(invoice, invoice_amount=1)))
    refused(C_270, decode_bolt12_invoice, encode_struct(resigned_invoice(invoice, CAROL)))
    refused(C_270, attach_invoice_signature, invoice, bytes(64))


@pytest.mark.proves("C-270")
@pytest.mark.parametrize(
    "changes",
    [
        {"invreq_metadata": b"other"},
        {"invreq_payer_id": CAROL_ID},
        {"invreq_quantity": 1},
        {"offer_description": "coffee"},
        {"invreq_payer_note": ""},
        {"unknown": ()},
        {"unknown": (ODD_RECORD, UnknownRecord(159, b""), FAR_RECORD)},
        {"unknown": (ODD_RECORD, FAR_RECORD, UnknownRecord(2_999_999_999, b""))},
        {"invoice_node_id": CAROL_ID},
    ],
)
def test_invoices_for_other_requests(changes: dict[str, Any]) -> None:
    request = request_for()
    invoice = invoice_for(request)
    require_answers(invoice, request)
    secret = CAROL if "invoice_node_id" in changes else b"\x41" * 32
    refused(C_270, require_answers, resigned_invoice(invoice, secret, **changes), request)


def test_records_of_its_own_do_not_make_an_invoice_differ() -> None:
    request = request_for()
    own = (ODD_RECORD, UnknownRecord(161, b"own"), FAR_RECORD, UnknownRecord(3_000_000_001, b"own"))
    invoice = resigned_invoice(invoice_for(request), unknown=own)
    require_answers(decode_bolt12_invoice(encode_struct(invoice)), request)


@pytest.mark.proves("C-270")
def test_node_id_of_an_offer_with_paths_only() -> None:
    request = request_for(replace(OFFER, offer_issuer_id=None, offer_paths=(PATH,)))
    unsigned = make_bolt12_invoice(
        request, payment_hash=HASH, paths=[PAYABLE], created_at=NOW, node_id=PATH.path[-1].blinded_node_id
    )
    invoice = resigned_invoice(unsigned, CAROL)
    check_bolt12_invoice(invoice)
    require_answers(invoice, request, asked=CAROL_ID)
    refused(C_270, require_answers, invoice, request, asked=BOB_ID)
    refused(C_270, require_answers, invoice, request)


@pytest.mark.proves("C-271")
def test_invoice_over_another_amount() -> None:
    request = request_for(amount_msat=2500)
    invoice = invoice_for(request)
    assert invoice.invoice_amount == 2500
    refused(C_271, require_answers, resigned_invoice(invoice, invoice_amount=2501), request)


@pytest.mark.proves("C-273")
def test_paths_with_unknown_features_are_not_used() -> None:
    def with_prices(*features: bytes) -> Bolt12Invoice:
        prices = tuple(replace(PRICE, features=bits) for bits in features)
        return replace(invoice_for(request_for()), invoice_paths=(PATH,) * len(prices), invoice_blindedpay=prices)

    assert [path.payinfo.features for path in usable_paths(with_prices(ODD, EVEN, b""))] == [ODD, b""]
    assert len(usable_paths(with_prices(EVEN), known=Features.of(123))) == 1
    refused(C_273, usable_paths, with_prices(EVEN, EVEN))


@pytest.mark.proves("C-274")
def test_fallbacks_that_make_no_sense_are_skipped() -> None:
    shapes = [(0, 20), (0, 32), (0, 21), (1, 32), (1, 1), (16, 40), (16, 41), (17, 32), (1, 2)]
    fallbacks = tuple(FallbackAddress(version=version, address=bytes(size)) for version, size in shapes)
    invoice = replace(invoice_for(request_for()), invoice_fallbacks=fallbacks)
    found = [(fallback.version, len(fallback.address)) for fallback in usable_fallbacks(invoice)]
    assert found == [(0, 20), (0, 32), (1, 32), (16, 40), (1, 2)]
    assert usable_fallbacks(replace(invoice, invreq_chain=REGTEST)) == ()


def test_features_and_fallbacks_are_written() -> None:
    fallback = FallbackAddress(version=1, address=bytes(32))
    invoice = make_bolt12_invoice(
        request_for(),
        payment_hash=HASH,
        paths=[PAYABLE],
        created_at=NOW,
        relative_expiry=60,
        features=Features.of(Feature.BASIC_MPP + 1),
        fallbacks=(fallback,),
    )
    again = decode_bolt12_invoice(encode_struct(resigned_invoice(invoice)))
    assert again.invoice_features == b"\x02\x00\x00"
    assert (again.invoice_fallbacks, again.invoice_relative_expiry) == ((fallback,), 60)


def test_nothing_to_sign() -> None:
    refused(C_254, merkle_root, b"")
