"""What the invoice reader refuses, skips and takes for granted, rule by rule."""

import pytest
from leyden.bitcoin import Network
from leyden.crypto import ORDER, ecdsa_sign_recoverable, pubkey_create, sha256
from leyden.invoice import InvoiceError, parse_invoice, require_description, require_unexpired, signing_digest
from leyden.invoice.fields import TAG_OF
from leyden.invoice.symbols import bytes_to_symbols, int_to_symbols
from leyden.invoice.text import encode_text
from leyden.types import Rule
from leyden.types.rules import C_241, C_242, C_243, C_244, C_245, C_247, C_248, C_249, C_251

KEY = bytes.fromhex("e126f68f7eafcc8b74f54d269fe206be715000f94dac067d1c04a8ca3b2db734")
PAYEE = pubkey_create(KEY)
HASH = bytes(range(32))
SECRET = b"\x11" * 32

Field = tuple[str | int, bytes]
"""Letter (or number) of the field and its symbols."""


def bits(*positions: int) -> bytes:
    """Feature symbols with these bits set."""
    bitmap = sum(1 << position for position in positions)
    return int_to_symbols(bitmap, -(-bitmap.bit_length() // 5))


P: Field = ("p", bytes_to_symbols(HASH))
S: Field = ("s", bytes_to_symbols(SECRET))
D: Field = ("d", bytes_to_symbols(b"tea"))
F: Field = ("9", bits(8, 14))
GOOD = (P, S, D, F)


def raw_invoice(
    *fields: Field,
    hrp: str = "lnbcrt20m",
    timestamp: int = 1_700_000_000,
    high_s: bool = False,
    recovery_id: int | None = None,
    tail: bytes = b"",
) -> str:
    """Signed by ``KEY``; ``tail`` are symbols behind the last field."""
    parts = [int_to_symbols(timestamp, 7)]
    for tag, data in fields:
        parts.append(bytes((tag if isinstance(tag, int) else TAG_OF[tag], len(data) >> 5, len(data) & 31)) + data)
    signed = b"".join(parts) + tail
    signature, recid = ecdsa_sign_recoverable(KEY, signing_digest(hrp, signed))
    if high_s:
        s = ORDER - int.from_bytes(signature[32:], "big")
        signature, recid = signature[:32] + s.to_bytes(32, "big"), recid ^ 1
    recid = recid if recovery_id is None else recovery_id
    return encode_text(hrp, signed + bytes_to_symbols(signature + bytes((recid,))))


HEAD = bytes_to_symbols(b"\x22" * 32)


def refused(text: str, rule: Rule, network: Network | None = None) -> None:
    with pytest.raises(InvoiceError) as caught:
        parse_invoice(text, network)
    assert caught.value.rule is rule


# -- encoding ------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-241")
def test_every_single_mistyped_character_is_noticed() -> None:
    text = raw_invoice(*GOOD)
    for place in range(text.rindex("1") + 1, len(text), 7):
        other = "q" if text[place] != "q" else "p"
        refused(text[:place] + other + text[place + 1 :], C_241)


@pytest.mark.proves("C-241")
def test_mixed_case() -> None:
    text = raw_invoice(*GOOD)
    assert parse_invoice(text.upper()) == parse_invoice(text)
    refused(text[:20].upper() + text[20:], C_241)


@pytest.mark.parametrize(
    "text", ["", "1", "lnbc", "lnbc1", "lnbc1qqq", "1qqqqqqqqqqqq", "lnbc1bbbbbbbbbbb", "lnbc1é" * 3]
)
def test_garbage(text: str) -> None:
    refused(text, C_241)


def test_too_long() -> None:
    refused("lnbc1" + "q" * 7090, C_241)


def test_longer_than_one_block_of_masks() -> None:
    """Several descriptions' worth of metadata: the checksum and the conversions work in blocks of 512 symbols."""
    metadata = (bytes(range(256)) * 3)[:630]
    text = raw_invoice(*GOOD, ("m", bytes_to_symbols(metadata)))
    assert len(text) > 1100
    assert parse_invoice(text).metadata == metadata


def test_cut_fields() -> None:
    refused(raw_invoice(*GOOD, tail=b"\x01"), C_241)
    refused(raw_invoice(*GOOD, tail=b"\x01\x01\x02\x03"), C_241)


def test_scheme_and_space_around() -> None:
    text = raw_invoice(*GOOD)
    assert parse_invoice(f" LIGHTNING:{text.upper()}\n") == parse_invoice(text)


# -- prefix and amount ---------------------------------------------------------------------------------------------


@pytest.mark.proves("C-242")
@pytest.mark.parametrize("hrp", ["lnxx20m", "ln20m", "lnbcx", "lnb", "lntbss"])
def test_unknown_network(hrp: str) -> None:
    refused(raw_invoice(*GOOD, hrp=hrp), C_242)


def test_no_lightning_prefix() -> None:
    refused(raw_invoice(*GOOD, hrp="bcrt"), C_242)


@pytest.mark.proves("C-242")
def test_other_network() -> None:
    text = raw_invoice(*GOOD, hrp="lnbcrt20m")
    assert parse_invoice(text, Network.REGTEST).network is Network.REGTEST
    refused(text, C_242, Network.MAINNET)
    refused(raw_invoice(*GOOD, hrp="lntbs"), C_242, Network.TESTNET4)
    assert parse_invoice(raw_invoice(*GOOD, hrp="lntbs")).network is Network.SIGNET


@pytest.mark.parametrize(
    ("amount", "msat"),
    [
        ("", None),
        ("1", 10**11),
        ("20m", 2 * 10**9),
        ("2500u", 250_000_000),
        ("1n", 100),
        ("10p", 1),
        ("21000000", 21 * 10**17),
    ],
)
def test_amounts(amount: str, msat: int | None) -> None:
    assert parse_invoice(raw_invoice(*GOOD, hrp="lnbcrt" + amount)).amount_msat == msat


@pytest.mark.proves("C-243")
@pytest.mark.parametrize("amount", ["0", "0m", "01m", "15p", "21000001", "21000000001m"])
def test_bad_amounts(amount: str) -> None:
    refused(raw_invoice(*GOOD, hrp="lnbcrt" + amount), C_243)


@pytest.mark.parametrize("amount", ["1k", "1mm", "1 m", "1.5m", "1-", "9" * 21 + "p", "9" * 5000 + "p"])
def test_not_amounts(amount: str) -> None:
    refused(raw_invoice(*GOOD, hrp="lnbcrt" + amount), C_243)


# -- signature -----------------------------------------------------------------------------------------------------


def test_high_s_is_fine_when_recovered() -> None:
    assert parse_invoice(raw_invoice(*GOOD, high_s=True)).payee == PAYEE


@pytest.mark.proves("C-244")
def test_high_s_is_refused_with_a_named_key() -> None:
    named: Field = ("n", bytes_to_symbols(PAYEE))
    assert parse_invoice(raw_invoice(*GOOD, named)).names_payee
    refused(raw_invoice(*GOOD, named, high_s=True), C_244)


@pytest.mark.proves("C-244")
def test_signature_of_another_key() -> None:
    other = pubkey_create(sha256(KEY))
    refused(raw_invoice(*GOOD, ("n", bytes_to_symbols(other))), C_244)
    refused(raw_invoice(*GOOD, ("n", bytes_to_symbols(b"\x05" * 33))), C_244)


@pytest.mark.proves("C-244")
@pytest.mark.parametrize("recovery_id", [4, 27, 255])
def test_recovery_id_out_of_range(recovery_id: int) -> None:
    named: Field = ("n", bytes_to_symbols(PAYEE))
    refused(raw_invoice(*GOOD, named, recovery_id=recovery_id), C_244)


# -- fields --------------------------------------------------------------------------------------------------------


@pytest.mark.proves("C-245")
@pytest.mark.parametrize("extra", [P, S, ("p", HEAD), ("s", HEAD)])
def test_two_hashes_or_secrets(extra: Field) -> None:
    refused(raw_invoice(*GOOD, extra), C_245)


@pytest.mark.proves("C-245")
def test_two_payees() -> None:
    named: Field = ("n", bytes_to_symbols(PAYEE))
    refused(raw_invoice(*GOOD, named, named), C_245)


@pytest.mark.parametrize("left", [(S, D, F), (P, D, F)])
def test_missing_hash_or_secret(left: tuple[Field, ...]) -> None:
    refused(raw_invoice(*left), C_245)


@pytest.mark.proves("C-246")
@pytest.mark.parametrize("letter", ["p", "s", "h", "n"])
@pytest.mark.parametrize("size", [0, 51, 54])
def test_wrong_length_is_skipped(letter: str, size: int) -> None:
    odd: Field = (letter, bytes(size))
    assert parse_invoice(raw_invoice(odd, *GOOD)).payment_hash == HASH
    assert parse_invoice(raw_invoice(*GOOD, odd)).description_hash is None


def test_only_wrong_lengths_are_not_enough() -> None:
    refused(raw_invoice(("p", bytes(51)), S, D, F), C_245)
    refused(raw_invoice(P, ("s", bytes(53)), D, F), C_245)


@pytest.mark.proves("C-247")
@pytest.mark.parametrize(
    "fields", [(P, S, F), (P, S, D, F, ("h", HEAD)), (P, S, D, D, F), (P, S, ("h", HEAD), ("h", HEAD))]
)
def test_one_description(fields: tuple[Field, ...]) -> None:
    refused(raw_invoice(*fields), C_247)


@pytest.mark.proves("C-247")
def test_description_is_utf8() -> None:
    refused(raw_invoice(P, S, ("d", bytes_to_symbols(b"caf\xe9 au lait")), F), C_247)
    assert parse_invoice(raw_invoice(P, S, ("d", b""), F)).description == ""


@pytest.mark.proves("C-247")
def test_hashed_description_must_match() -> None:
    invoice = parse_invoice(raw_invoice(P, S, ("h", bytes_to_symbols(sha256(b"a long list"))), F))
    require_description(invoice, "a long list")
    with pytest.raises(InvoiceError):
        require_description(invoice, "another list")
    with pytest.raises(InvoiceError):
        require_description(parse_invoice(raw_invoice(*GOOD)), "coffee")


@pytest.mark.proves("C-248")
@pytest.mark.parametrize("bit", [100, 4, 22, 300])
def test_unknown_required_feature(bit: int) -> None:
    refused(raw_invoice(P, S, D, ("9", bits(8, 14, bit))), C_248)


@pytest.mark.parametrize("bit", [99, 101, 301])
def test_unknown_optional_feature(bit: int) -> None:
    assert parse_invoice(raw_invoice(P, S, D, ("9", bits(8, 14, bit)))).features.bits >> bit & 1


@pytest.mark.proves("C-248")
@pytest.mark.parametrize("field", [("x", b"\0\x01"), ("c", b"\0\x12"), ("9", b"\0" + bits(8, 14))])
def test_leading_zero_element(field: Field) -> None:
    fields = (P, S, D) if field[0] == "9" else GOOD
    refused(raw_invoice(*fields, field), C_248)


def test_absurd_numbers() -> None:
    refused(raw_invoice(*GOOD, ("x", b"\1" * 13)), C_248)
    assert parse_invoice(raw_invoice(*GOOD, ("x", b"\0"), ("c", b""))).expiry == 0


@pytest.mark.proves("C-249")
def test_unknown_fields_are_skipped() -> None:
    assert parse_invoice(raw_invoice((2, b"\1\2\3"), *GOOD, (31, bytes(40)))).payment_hash == HASH


@pytest.mark.proves("C-249")
@pytest.mark.parametrize("version", [19, 31])
def test_unknown_fallbacks_are_skipped(version: int) -> None:
    unknown: Field = ("f", bytes((version,)) + bytes_to_symbols(b"\x01" * 20))
    known: Field = ("f", b"\0" + bytes_to_symbols(b"\x02" * 20))
    invoice = parse_invoice(raw_invoice(*GOOD, unknown, known, ("f", b"\x01" + bytes_to_symbols(b"\x03" * 32))))
    assert [(f.version, f.program[0]) for f in invoice.fallbacks] == [(0, 2), (1, 3)]


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0" + bytes_to_symbols(bytes(21)), b"\x11" + bytes_to_symbols(bytes(19))]
)
def test_impossible_fallbacks_are_skipped(data: bytes) -> None:
    assert parse_invoice(raw_invoice(*GOOD, ("f", data))).fallbacks == ()


def hop(number: int, key: bytes = PAYEE) -> bytes:
    return key + number.to_bytes(8, "big") + bytes(10)


def test_route_hints_keep_their_order() -> None:
    first: Field = ("r", bytes_to_symbols(hop(1) + hop(2)))
    invoice = parse_invoice(raw_invoice(*GOOD, first, ("r", bytes_to_symbols(hop(3)))))
    assert [[h.short_channel_id for h in hint] for hint in invoice.route_hints] == [[1, 2], [3]]


@pytest.mark.parametrize("raw", [b"", hop(1)[:-1], hop(1) + hop(2)[:20]])
def test_cut_route_hint(raw: bytes) -> None:
    refused(raw_invoice(*GOOD, ("r", bytes_to_symbols(raw))), C_249)


@pytest.mark.proves("C-249")
def test_route_hint_with_an_invalid_key() -> None:
    refused(raw_invoice(*GOOD, ("r", bytes_to_symbols(hop(1, b"\x07" * 33)))), C_249)


@pytest.mark.proves("C-250")
def test_defaults() -> None:
    invoice = parse_invoice(raw_invoice(*GOOD))
    assert (invoice.min_final_cltv_expiry_delta, invoice.expiry) == (18, 3600)
    invoice = parse_invoice(raw_invoice(*GOOD, ("c", int_to_symbols(144, 2)), ("x", int_to_symbols(60, 2))))
    assert (invoice.min_final_cltv_expiry_delta, invoice.expiry) == (144, 60)


@pytest.mark.proves("C-251")
def test_expiry() -> None:
    invoice = parse_invoice(raw_invoice(*GOOD, ("x", int_to_symbols(60, 2)), timestamp=1000))
    require_unexpired(invoice, 1060)
    with pytest.raises(InvoiceError) as caught:
        require_unexpired(invoice, 1061)
    assert caught.value.rule is C_251
