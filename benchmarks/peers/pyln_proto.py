# mypy: ignore-errors
"""pyln-proto: the handshake, the framing, onions and invoices."""

import struct

from coincurve import PrivateKey as RawPrivateKey
from pyln.proto import onion, wire
from pyln.proto.invoice import Invoice
from pyln.proto.primitives import Secret
from pyln.proto.wire import PrivateKey, PublicKey
from serve import serve, timed, versions_of


class Pipe:
    """A connection that keeps what is sent and gives it back."""

    def __init__(self):
        self.data = bytearray()

    def send(self, data):
        self.data += data
        return len(data)

    sendall = send

    def recv(self, size, *_):
        data, self.data = bytes(self.data[:size]), self.data[size:]
        return data


def _pair():
    local, remote = PrivateKey(b"\x11" * 32), PrivateKey(b"\x21" * 32)
    initiator = wire.LightningConnection(Pipe(), remote.public_key(), local, is_initiator=True)
    responder = wire.LightningConnection(Pipe(), None, remote, is_initiator=False)
    return initiator, responder


def handshake():
    initiator, responder = _pair()
    responder.handshake_act_one_responder(initiator.handshake_act_one_initiator())
    initiator.handshake_act_two_initiator(responder.handshake_act_two_responder())
    responder.handshake_act_three_responder(initiator.handshake_act_three_initiator())
    for end in (initiator, responder):
        end.sck = end.rck = end.chaining_key
    return initiator, responder


def messages(size, count, repeat):
    """Send and receive ``count`` messages of ``size`` bytes, both ends."""
    initiator, responder = handshake()
    responder.connection = initiator.connection
    body = bytes(size)

    def work():
        for _ in range(count):
            initiator.send_message(body)
            responder.read_message()

    cpu, wall = timed(work, repeat)
    return [cpu / count, wall / count]


SESSION = b"\x41" * 32
SECRETS = [bytes([0x42 + hop]) * 32 for hop in range(20)]
KEYS = [PublicKey(RawPrivateKey(secret).public_key.format()) for secret in SECRETS]


def _path(hops, payload):
    # its payloads begin with their own length
    prefixed = bytes([len(payload)]) + payload
    path = [onion.SphinxHop(key, prefixed) for key in KEYS[:hops]]
    return onion.SphinxPath(path, assocdata=b"\x42" * 32, session_key=Secret(SESSION))


def build(hops, payload):
    return _path(hops, bytes.fromhex(payload)).compile()


def packet(hops, payload):
    return build(hops, payload).to_bin().hex()


def time_build(hops, payload, repeat):
    return timed(lambda: build(hops, payload), repeat)


def time_peel(packet, repeat):
    data, secret = bytes.fromhex(packet), PrivateKey(SECRETS[0])
    # parsing is part of the work on both sides
    return timed(lambda: onion.RoutingOnion.from_bin(data).unwrap(secret, b"\x42" * 32), repeat)


def time_decode_invoice(text, repeat):
    return timed(lambda: Invoice.decode(text), repeat)


def decode_invoice(text):
    invoice = Invoice.decode(text)
    return {"payment_hash": invoice.paymenthash.hex(), "payee": invoice.pubkey.format().hex()}


def time_encode_invoice(text, secret, repeat):
    source = Invoice.decode(text)

    def work():
        invoice = Invoice(source.paymenthash, source.amount, source.currency, list(source.tags), source.date)
        invoice.route_hints = source.route_hints
        invoice.encode(secret)

    return timed(work, repeat)


serve(
    {
        "versions": lambda: versions_of("pyln-proto", "cryptography", "coincurve-cp314-fix"),
        "time_handshake": lambda repeat: timed(handshake, repeat),
        "time_messages": messages,
        "packet": packet,
        "time_build": time_build,
        "time_peel": time_peel,
        "decode_invoice": decode_invoice,
        "time_decode_invoice": time_decode_invoice,
        "time_encode_invoice": time_encode_invoice,
        "struct": lambda: struct.calcsize("P"),
    }
)
