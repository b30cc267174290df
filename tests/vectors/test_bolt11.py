"""BOLT 11, Examples and Examples of Invalid Invoices: every figure that is printed there, both ways."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import encode_address
from leyden.crypto import ecdsa_sign_recoverable, is_low_s, pubkey_create
from leyden.invoice import (
    Invoice,
    InvoiceError,
    attach_signature,
    encode_invoice,
    parse_invoice,
    require_description,
    signing_digest,
)
from leyden.types import format_short_channel_id, rule
from leyden.types.errors import Reaction

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt11_invoices.json").read_text("utf-8"))
KEY = bytes.fromhex(DATA["signing_key"])
READABLE = DATA["readable"]
LEGACY_SCRIPTS = {17: "76a914{}88ac", 18: "a914{}87"}


def names(case: dict[str, Any]) -> str:
    return str(case["title"])[:40]


def hexes(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


@pytest.mark.parametrize("case", READABLE, ids=names)
@pytest.mark.proves("C-246", "C-249", "C-250")
def test_reads(case: dict[str, Any]) -> None:
    means = case["means"]
    invoice = parse_invoice(case["text"])
    assert invoice.network.name.lower() == means["network"]
    assert invoice.amount_msat == means.get("amount_msat")
    assert invoice.timestamp == means["timestamp"]
    assert invoice.payment_hash.hex() == means["payment_hash"]
    assert invoice.payment_secret.hex() == means["payment_secret"]
    assert invoice.description == means.get("description")
    assert hexes(invoice.description_hash) == means.get("description_hash")
    assert invoice.expiry == means.get("expiry", 3600)
    assert invoice.min_final_cltv_expiry_delta == means.get("min_final_cltv_expiry_delta", 18)
    assert invoice.features.bits == sum(1 << bit for bit in means["features"])
    assert hexes(invoice.metadata) == means.get("metadata")
    assert invoice.payee.hex() == means["payee"]
    assert (invoice.signature.hex(), invoice.recovery_id) == (means["signature"], means["recovery_id"])
    assert invoice.text == case["text"].lower()


@pytest.mark.parametrize("case", READABLE, ids=names)
def test_reads_route_hints_and_fallbacks(case: dict[str, Any]) -> None:
    means = case["means"]
    invoice = parse_invoice(case["text"])
    hints = [
        [
            [
                hop.node_id.hex(),
                format_short_channel_id(hop.short_channel_id),
                hop.fee_base_msat,
                hop.fee_proportional_millionths,
                hop.cltv_expiry_delta,
            ]
            for hop in hint
        ]
        for hint in invoice.route_hints
    ]
    assert hints == means.get("route_hints", [])
    expected = means.get("fallbacks", [])
    assert [[f.version, f.program.hex()] for f in invoice.fallbacks] == [f[:2] for f in expected]
    for fallback, (version, program, address) in zip(invoice.fallbacks, expected, strict=True):
        if version in LEGACY_SCRIPTS:
            assert fallback.script().hex() == LEGACY_SCRIPTS[version].format(program)
        else:
            assert encode_address(fallback.script(), invoice.network) == address


@pytest.mark.proves("C-252")
@pytest.mark.parametrize("case", [c for c in READABLE if "2" not in c["fields"] and c["means"]["low_s"]], ids=names)
def test_writes_the_same_text(case: dict[str, Any]) -> None:
    """From the values alone, with the field order of the example and the published key."""
    parsed = parse_invoice(case["text"])
    assert written(parsed, case["fields"]).text == case["text"].lower()
    assert written(parsed, case["fields"]) == parsed
    hrp, data = encode_invoice(parsed, case["fields"])
    assert signing_digest(hrp, data).hex() == case["means"]["digest"]


def written(invoice: Invoice, order: str) -> Invoice:
    hrp, data = encode_invoice(invoice, order)
    assert pubkey_create(KEY) == invoice.payee
    signature, recovery_id = ecdsa_sign_recoverable(KEY, signing_digest(hrp, data))
    return attach_signature(invoice, hrp, data, signature, recovery_id)


def test_hashed_description() -> None:
    for case in READABLE:
        invoice = parse_invoice(case["text"])
        if invoice.description_hash is not None:
            require_description(invoice, DATA["hashed_description"])


@pytest.mark.parametrize("case", DATA["refused"], ids=names)
@pytest.mark.proves("C-241", "C-243", "C-244", "C-248")
def test_refuses(case: dict[str, Any]) -> None:
    with pytest.raises(InvoiceError) as caught:
        parse_invoice(case["text"])
    assert caught.value.rule is rule(case["rule"], Reaction.REFUSE)


def test_low_s_as_stated() -> None:
    for case in READABLE:
        assert is_low_s(parse_invoice(case["text"]).signature) is case["means"]["low_s"]
