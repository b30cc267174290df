"""Checks of what reads bytes of peers, of people and of the chain: bitcoin, wire, transport, invoice."""

import unicodedata
from functools import partial

from leyden.bitcoin import (
    Network,
    base58check_decode,
    base58check_encode,
    bech32_decode_any,
    bech32_encode,
    check_block,
    check_proof_of_work,
    decode_address,
    encode_address,
    from_base32,
    merkle_root,
    parse_block,
    parse_header,
    parse_psbt,
    parse_transaction,
    segwit_program,
    signed_weight,
    to_base32,
    unsigned_inputs,
)
from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.psbt_roles import finalize_psbt, psbt_digest
from leyden.bitcoin.script import dust_limit
from leyden.invoice import Invoice, parse_invoice, require_description, require_unexpired
from leyden.invoice.bolt12 import (
    Bolt12Invoice,
    InvoiceRequest,
    Offer,
    decode_bolt12_invoice,
    decode_offer,
    decode_request,
    encode_bolt12_invoice,
    encode_offer,
    encode_request,
    parse_bolt12_invoice,
    parse_offer,
    parse_request,
    usable_fallbacks,
    usable_paths,
)
from leyden.invoice.errors import InvoiceError
from leyden.invoice.text import encode_text
from leyden.transport import InitiatorHandshake, ResponderHandshake, Session, TransportError
from leyden.types import LeydenError, clean_text, format_short_channel_id, parse_short_channel_id
from leyden.wire import (
    ChannelAnnouncement,
    ChannelUpdate,
    EncodeError,
    Message,
    NodeAnnouncement,
    QueryChannelRange,
    QueryShortChannelIds,
    ReplyChannelRange,
    UnknownMessage,
    check_may_send,
    decode,
    encode,
    failures,
)
from leyden.wire.codec import decode_struct, encode_struct, read_bigsize, split_records, write_bigsize
from leyden.wire.dns_seed import node_label, parse_node_label, parse_query_name
from leyden.wire.errors import WireError
from leyden.wire.features import Features, check_init_features
from leyden.wire.gossip_queries import (
    asked_for,
    decode_short_ids,
    make_ids_answer,
    make_range_replies,
    summaries_of,
    update_checksum,
)
from leyden.wire.gossip_signatures import (
    check_channel_announcement,
    check_channel_update,
    check_node_announcement,
)
from leyden.wire.node_addresses import decode_addresses, decode_alias, encode_addresses
from leyden.wire.onion_payload import EncryptedData

from tests.fuzz.target import Target, each

KEY = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")


def text_of(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# -- bitcoin -----------------------------------------------------------------------------------------------------------


def transaction(data: bytes) -> None:
    tx = parse_transaction(data)
    assert tx.serialize() == data
    again = parse_transaction(tx.serialize())
    assert (again, again.txid, again.weight) == (tx, tx.txid, tx.weight)


def header(data: bytes) -> None:
    parsed = parse_header(data[:80])
    assert parsed.serialize() == data[:80]
    check_proof_of_work(parsed, Network.REGTEST)


def block(data: bytes) -> None:
    Target(header, (BitcoinError,)).run(data)
    parsed = parse_block(data)
    assert parsed.serialize() == data
    merkle_root([tx.txid for tx in parsed.transactions])
    check_block(parsed, Network.REGTEST)


def psbt(data: bytes) -> None:
    parsed = parse_psbt(data)
    again = parsed.serialize()
    assert parse_psbt(again) == parsed
    assert parse_psbt(again).serialize() == again
    use = [lambda _: signed_weight(parsed), lambda _: unsigned_inputs(parsed), lambda _: finalize_psbt(parsed)]
    use += [partial(lambda index, _: psbt_digest(parsed, index), index) for index in range(len(parsed.inputs))]
    each(data, use, BitcoinError)


def script(data: bytes) -> None:
    segwit_program(data)
    assert dust_limit(data) >= 0
    for network in Network:
        text = encode_address(data, network)
        assert decode_address(text, network) == data


def _address(data: bytes) -> None:
    found = decode_address(text_of(data), Network.REGTEST)
    assert decode_address(encode_address(found, Network.REGTEST), Network.REGTEST) == found


def _base58(data: bytes) -> None:
    assert base58check_decode(base58check_encode(data[:64])) == data[:64]
    base58check_decode(text_of(data))


def _bech32(data: bytes) -> None:
    assert from_base32(to_base32(data)) == data
    hrp, data5, encoding = bech32_decode_any(text_of(data), max_length=200)
    assert bech32_encode(hrp, data5, encoding) == text_of(data).lower()
    from_base32(data5)


# -- small texts -------------------------------------------------------------------------------------------------------


def _clean(data: bytes) -> None:
    clean = clean_text(data)
    assert len(clean) <= 512
    assert clean_text(clean) == clean
    assert not [c for c in clean if unicodedata.category(c)[0] == "C"]


def _dns_name(data: bytes) -> None:
    parse_query_name(text_of(data), "seed.example")


def _dns_label(data: bytes) -> None:
    assert node_label(parse_node_label(text_of(data))) == text_of(data).lower()


def _short_id(data: bytes) -> None:
    found = parse_short_channel_id(text_of(data))
    assert parse_short_channel_id(format_short_channel_id(found)) == found


def _alias(data: bytes) -> None:
    decode_alias(data[:32].ljust(32, b"\0"))


def text(data: bytes) -> None:
    each(data, (_clean, _alias))
    each(data, (_address, _base58, _bech32, script), BitcoinError)
    each(data, (_dns_name, _dns_label, _short_id), LeydenError)


# -- wire --------------------------------------------------------------------------------------------------------------


def _bigsize(data: bytes) -> None:
    value, used = read_bigsize(data, 0, len(data))
    assert write_bigsize(value) == data[:used]


def _features(data: bytes) -> None:
    features = Features.from_bytes(data)
    assert Features.from_bytes(features.to_bytes()) == features
    str(features)
    check_init_features(Features.of(1, 9), features)


def _short_ids(data: bytes) -> None:
    decode_short_ids(data)


def _addresses(data: bytes) -> None:
    found = decode_addresses(data)
    list(map(str, found.addresses))
    try:
        again = encode_addresses(found.addresses)
    except EncodeError:  # a name that is not ASCII: read, never written
        return
    assert sorted(map(str, decode_addresses(again).addresses)) == sorted(map(str, found.addresses))


def _encrypted_data(data: bytes) -> None:
    parsed = decode_struct(EncryptedData, data)
    assert decode_struct(EncryptedData, encode_struct(parsed)) == parsed


def _failure(data: bytes) -> None:
    found = failures.decode_failure(data)
    assert failures.decode_failure(failures.encode_failure(found)) == found


def fields(data: bytes) -> None:
    """Parts of messages, without the rest of the message."""
    each(data, (_bigsize, split_records, _features, _short_ids, _addresses, _encrypted_data, _failure), WireError)


def message(data: bytes) -> None:
    found = decode(data)
    if isinstance(found, UnknownMessage):
        return
    again = encode(found)
    assert decode(again) == found
    assert encode(decode(again)) == again
    each(data, (lambda _: check_may_send(found, Features(), Features()), lambda _: _use(found)), WireError)


def _use(found: Message) -> None:
    """What is done with gossip before it is believed."""
    match found:
        case ChannelAnnouncement():
            check_channel_announcement(found)
        case ChannelUpdate():
            update_checksum(found)
            check_channel_update(found, KEY, KEY)
        case NodeAnnouncement():
            decode_alias(found.alias)
            decode_addresses(found.addresses)
            check_node_announcement(found)
        case QueryShortChannelIds():
            asked_for(found)
            make_ids_answer(found, {})
        case QueryChannelRange():
            make_range_replies(found, [])
        case ReplyChannelRange():
            summaries_of(found)
        case _:
            pass


# -- transport ---------------------------------------------------------------------------------------------------------


def _responder(data: bytes) -> None:
    handshake = ResponderHandshake(KEY, b"\x22" * 32)
    handshake.on_act_one(data[:50])
    handshake.act_two(b"\x33" * 32)
    handshake.on_act_three(data[50:116])


def _initiator(data: bytes) -> None:
    handshake = InitiatorHandshake(KEY, KEY, b"\x22" * 32)
    handshake.act_one()
    handshake.on_act_two(data)


def handshake(data: bytes) -> None:
    each(data, (_responder, _initiator), TransportError)


def _session() -> Session:
    return Session(send_key=b"\x01" * 32, receive_key=b"\x01" * 32, chaining_key=b"\x03" * 32)


def _received(stream: bytes, sizes: list[int]) -> tuple[list[bytes], str]:
    """What a session makes of a stream that arrives in pieces of these sizes, over and over."""
    session = _session()
    messages: list[bytes] = []
    at = turn = 0
    try:
        while at < len(stream):
            size = sizes[turn % len(sizes)]
            messages += session.feed(stream[at : at + size])
            at += size
            turn += 1
    except TransportError as caught:
        return [*messages, *caught.messages], str(caught)
    return messages, ""


def session(data: bytes) -> None:
    """Whatever the pieces in which bytes arrive: the same messages, then the same error."""
    whole = _received(data, [max(1, len(data))])
    assert _received(data, [1]) == whole
    # Honest frames (an encrypted stream of random bytes is never one), then the bytes as they are.
    sizes = [1 + size for size in data[:4]] or [1]
    sent = [data[start : start + 300] for start in range(0, min(len(data) - 1, 3000), 300)]
    sender = _session()
    stream = b"".join(map(sender.encrypt, sent))
    assert _received(stream, sizes) == (sent, "")
    messages, error = _received(stream + data[:64].ljust(64, b"\0"), sizes)
    assert messages == sent
    assert error


# -- invoices ----------------------------------------------------------------------------------------------------------


def _use_invoice(invoice: Invoice) -> None:
    each(b"", (lambda _: require_description(invoice, "x"),), InvoiceError)
    each(b"", (lambda _: require_unexpired(invoice, 1_700_000_000),), InvoiceError)


def bolt11(data: bytes) -> None:
    _use_invoice(parse_invoice(text_of(data)))


def bolt11_symbols(data: bytes) -> None:
    """Behind the checksum: the bytes are symbols, the human-readable part stands before the first byte above 0x80."""
    hrp, _, symbols = data.partition(b"\x80")
    name = "lnbcrt" + "".join(chr(97 + c % 26) if c >= 36 else chr(48 + c % 10) for c in hrp[:12])
    _use_invoice(parse_invoice(encode_text(name, bytes(c & 31 for c in symbols[:4000]))))


def _offer(offer: Offer) -> None:
    assert parse_offer(encode_offer(offer)) == offer


def _request(request: InvoiceRequest) -> None:
    assert parse_request(encode_request(request)) == request


def _invoice12(invoice: Bolt12Invoice) -> None:
    assert parse_bolt12_invoice(encode_bolt12_invoice(invoice)) == invoice
    usable_paths(invoice)
    usable_fallbacks(invoice)


def bolt12(data: bytes) -> None:
    parsers = (
        lambda raw: _offer(decode_offer(raw)),
        lambda raw: _request(decode_request(raw)),
        lambda raw: _invoice12(decode_bolt12_invoice(raw)),
    )
    each(data, parsers, InvoiceError)


def bolt12_text(data: bytes) -> None:
    parsers = (
        lambda raw: _offer(parse_offer(text_of(raw))),
        lambda raw: _request(parse_request(text_of(raw))),
        lambda raw: _invoice12(parse_bolt12_invoice(text_of(raw))),
    )
    each(data, parsers, InvoiceError)
