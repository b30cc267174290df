# mypy: ignore-errors
"""Electrum: the handshake, the framing, onions and invoices."""

import asyncio

from electrum import crypto, lnonion
from electrum.bolt11 import BOLT11Addr, decode_bolt11_invoice, encode_bolt11_invoice
from electrum.lnonion import OnionHopsDataSingle, OnionPacket, new_onion_packet, process_onion_packet
from electrum.lntransport import LNPeerAddr, LNResponderTransport, LNTransport
from electrum.version import ELECTRUM_VERSION
from electrum_ecc import ECPrivkey
from serve import serve, timed, versions_of

# It would take pycryptodomex, if that were here, and be several times slower on the wire.
assert crypto.HAS_CRYPTOGRAPHY
assert not crypto.HAS_CRYPTODOME

LOCAL, REMOTE = b"\x11" * 32, b"\x21" * 32
LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)


class Writer:
    """Gives everything to the reader at the other end."""

    def __init__(self, reader):
        self._reader = reader

    def write(self, data):
        self._reader.feed_data(data)


class Pipe:
    """Instead of a proxy: what ``LNTransport`` opens its connection with."""

    def __init__(self):
        self.near, self.far = asyncio.StreamReader(), asyncio.StreamReader()

    async def open_connection(self, _host, _port):
        return self.near, Writer(self.far)


async def _handshake():
    pipe = Pipe()
    remote = ECPrivkey(REMOTE).get_public_key_bytes()
    initiator = LNTransport(LOCAL, LNPeerAddr("127.0.0.1", 9735, remote), e_proxy=pipe)
    responder = LNResponderTransport(REMOTE, pipe.far, Writer(pipe.near))
    await asyncio.gather(initiator.handshake(), responder.handshake())
    return initiator, responder


def handshake():
    return LOOP.run_until_complete(_handshake())


def messages(size, count, repeat):
    """Send and receive ``count`` messages of ``size`` bytes, both ends."""
    initiator, responder = handshake()
    received = responder.read_messages()
    body = bytes(size)

    async def exchange():
        for _ in range(count):
            initiator.send_bytes(body)
            assert len(await received.__anext__()) == size

    cpu, wall = timed(lambda: LOOP.run_until_complete(exchange()), repeat)
    return [cpu / count, wall / count]


SESSION = b"\x41" * 32
SECRETS = [bytes([0x42 + hop]) * 32 for hop in range(20)]
KEYS = [ECPrivkey(secret).get_public_key_bytes() for secret in SECRETS]
ASSOCIATED = b"\x42" * 32


def build(hops, payload):
    hop = OnionHopsDataSingle(_raw_bytes_payload=bytes([len(payload)]) + payload)
    return new_onion_packet(KEYS[:hops], SESSION, [hop] * hops, associated_data=ASSOCIATED)


def time_build(hops, payload, repeat):
    payload = bytes.fromhex(payload)
    return timed(lambda: build(hops, payload).to_bytes(), repeat)


def _peel(data):
    return process_onion_packet(OnionPacket.from_bytes(data), SECRETS[0], associated_data=ASSOCIATED)


def time_peel(packet, repeat):
    data = bytes.fromhex(packet)
    return timed(lambda: _peel(data), repeat)


def _decode_failure(packet, hops):
    return lnonion.decode_onion_error(packet, KEYS[:hops], SESSION)


def failure(packet, hops):
    message, hop = _decode_failure(bytes.fromhex(packet), hops)
    return [hop, message.to_bytes().hex()]


def time_failure(packet, hops, repeat):
    data = bytes.fromhex(packet)
    return timed(lambda: _decode_failure(data, hops), repeat)


def decode_invoice(text):
    invoice = decode_bolt11_invoice(text)
    return {"payment_hash": invoice.paymenthash.hex(), "payee": invoice.pubkey.serialize().hex()}


def time_encode_invoice(text, secret, repeat):
    source, key = decode_bolt11_invoice(text), bytes.fromhex(secret)

    def work():
        invoice = BOLT11Addr(
            paymenthash=source.paymenthash,
            amount=source.amount,
            tags=[(k, v) for k, v in source.tags if k not in "ps"],
            date=source.date,
            payment_secret=source.payment_secret,
        )
        return encode_bolt11_invoice(invoice, key)

    assert decode_bolt11_invoice(work()).paymenthash == source.paymenthash
    return timed(work, repeat)


serve(
    {
        "versions": lambda: {**versions_of("electrum-ecc", "cryptography"), "electrum": ELECTRUM_VERSION},
        "time_handshake": lambda repeat: timed(handshake, repeat),
        "time_messages": messages,
        "packet": lambda hops, payload: build(hops, bytes.fromhex(payload)).to_bytes().hex(),
        "time_build": time_build,
        "time_peel": time_peel,
        "failure": failure,
        "time_failure": time_failure,
        "decode_invoice": decode_invoice,
        "time_decode_invoice": lambda text, repeat: timed(lambda: decode_bolt11_invoice(text), repeat),
        "time_encode_invoice": time_encode_invoice,
    }
)
