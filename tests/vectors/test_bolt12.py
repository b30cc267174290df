"""BOLT 12: format-string-test, offers-test and signature-test, every case."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.crypto import NO_AUX, pubkey_create, schnorr_sign, tagged_hash
from leyden.invoice.bolt12 import (
    BITCOIN,
    InvoiceError,
    attach_request_signature,
    encode_offer,
    encode_request,
    make_request,
    merkle_root,
    parse_offer,
    parse_request,
    request_digest,
    require_usable_offer,
)
from leyden.invoice.bolt12.text import OFFER_PREFIX, REQUEST_PREFIX, decode_text, encode_text
from leyden.types.rules import C_253, C_255, C_256
from leyden.wire.codec import encode_struct, split_records

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt12.json").read_text("utf-8"))
BEFORE_THE_EXPIRY = 2_000_000_000
TESTNET3 = bytes.fromhex("43497fd7f826957108f4a30fd9cec3aeba79972084e90ead01ea330900000000")
VALID = [case for case in DATA["offers"] if case["valid"]]
INVALID = [case for case in DATA["offers"] if not case["valid"]]
ALICE, BOB = b"\x41" * 32, b"\x42" * 32


def title(case: dict[str, Any]) -> str:
    return str(case["title"])[:60]


def stream_of(case: dict[str, Any]) -> bytes:
    return b"".join(bytes.fromhex(leaf["record"]) for leaf in case["leaves"])


@pytest.mark.parametrize("case", DATA["strings"], ids=title)
@pytest.mark.proves("C-253")
def test_strings(case: dict[str, Any]) -> None:
    if case["readable"]:
        offer = parse_offer(case["text"])
        assert encode_offer(offer) == DATA["strings"][0]["text"]
        assert encode_offer(offer, upper=True) == DATA["strings"][1]["text"]
        return
    with pytest.raises(InvoiceError) as caught:
        parse_offer(case["text"])
    assert caught.value.rule is C_253


@pytest.mark.parametrize("case", VALID, ids=title)
def test_valid_offers(case: dict[str, Any]) -> None:
    offer = parse_offer(case["text"])
    stream = encode_struct(offer)
    found = [[kind, stream[start:end].hex()] for kind, _, start, end in split_records(stream)]
    assert found == case["records"]
    assert encode_offer(offer) == case["text"], "written as it was read"
    require_usable_offer(offer, now=BEFORE_THE_EXPIRY, chains=(BITCOIN, TESTNET3))


@pytest.mark.parametrize("case", INVALID, ids=title)
@pytest.mark.proves("C-253", "C-255", "C-256")
def test_invalid_offers(case: dict[str, Any]) -> None:
    with pytest.raises(InvoiceError) as caught:
        parse_offer(case["text"])
    assert caught.value.rule in (C_253, C_255, C_256)
    if "records" in case:
        stream = decode_text(case["text"], OFFER_PREFIX)
        found = [[kind, stream[start:end].hex()] for kind, _, start, end in split_records(stream)]
        assert found == case["records"]


@pytest.mark.parametrize("case", DATA["signatures"], ids=title)
@pytest.mark.proves("C-254")
def test_merkle_root(case: dict[str, Any]) -> None:
    stream = stream_of(case)
    assert merkle_root(stream).hex() == case["root"]
    signature = b"\xf0\x40" + bytes(64)
    assert merkle_root(stream + signature).hex() == case["root"], "signatures are not signed"


@pytest.mark.parametrize("case", DATA["signatures"], ids=title)
def test_leaves_and_branches(case: dict[str, Any]) -> None:
    """The intermediate figures, from the definition."""
    first = bytes.fromhex(case["first_record"])
    nodes = []
    for leaf in case["leaves"]:
        record = bytes.fromhex(leaf["record"])
        kind, *_ = split_records(record)[0]
        header = 1 if kind < 0xFD else 3
        left, right = tagged_hash(b"LnLeaf", record), tagged_hash(b"LnNonce" + first, record[:header])
        assert (left.hex(), right.hex()) == (leaf["leaf"], leaf["nonce"])
        assert tagged_hash(b"LnBranch", min(left, right) + max(left, right)).hex() == leaf["pair"]
        nodes.append(leaf["pair"])
    for branch in case["branches"]:
        children = branch["children"]
        assert children[:64] in nodes
        assert children[64:] in nodes
        nodes.append(tagged_hash(b"LnBranch", bytes.fromhex(children)).hex())
        assert nodes[-1] == branch["branch"]
    assert nodes[-1] == case["root"]


@pytest.mark.proves("C-254")
def test_signed_request() -> None:
    """The request of the signature test, read and made anew from the keys that it names."""
    case = DATA["signatures"][-1]
    request = parse_request(case["text"])
    assert case["tag"] == "lightninginvoice_requestsignature"
    assert request_digest(request).hex() == case["digest"]
    assert request.signature is not None
    assert request.signature.hex() == case["signature"]
    assert decode_text(case["text"], REQUEST_PREFIX)[: len(stream_of(case))] == stream_of(case)

    ours = make_request(
        parse_offer(
            encode_text(OFFER_PREFIX, stream_of({"leaves": case["leaves"][1:5]})),
        ),
        metadata=bytes(8),
        payer_id=pubkey_create(BOB),
        item_msat=1000,
    )
    assert ours.offer_issuer_id == pubkey_create(ALICE)
    assert encode_struct(ours) == stream_of(case)
    signature = schnorr_sign(BOB, request_digest(ours), NO_AUX)
    signed = attach_request_signature(ours, signature)
    assert encode_request(signed) == case["text"], "byte for byte"
