"""BOLT 11: encoding with signature, decoding with recovery; an invoice of 387 characters with a route hint.

Peers: pyln-proto, the package bolt11 and Electrum, each in its own environment.
"""

from functools import partial

from leyden.bitcoin import Network
from leyden.crypto import ecdsa_sign_recoverable, pubkey_create, sha256
from leyden.invoice import (
    HopHint,
    Invoice,
    UnsignedInvoice,
    attach_signature,
    encode_invoice,
    parse_invoice,
    signing_digest,
)
from leyden.types import CltvDelta, Msat, NodeId, PaymentHash, PaymentSecret, ShortChannelId
from leyden.wire.features import Context, Feature, make_features

from benchmarks.harness import Bench, Contender, timer
from benchmarks.peer import Peer, started

SECRET = b"\xe1" * 32
PEERS = {"pyln": "pyln_proto.py", "bolt11": "bolt11_package.py"}
TARGETS = {"pyln": 0.06, "bolt11": 0.06, "electrum": 0.3}
HINT = HopHint(
    node_id=NodeId(pubkey_create(b"\x31" * 32)),
    short_channel_id=ShortChannelId(700_000 << 40 | 1 << 16),
    fee_base_msat=1000,
    fee_proportional_millionths=100,
    cltv_expiry_delta=CltvDelta(80),
)


def unsigned(hints: int = 1) -> UnsignedInvoice:
    return UnsignedInvoice(
        network=Network.MAINNET,
        amount_msat=Msat(25_000_000),
        timestamp=1_700_000_000,
        payment_hash=PaymentHash(sha256(b"benchmark")),
        payment_secret=PaymentSecret(b"\x11" * 32),
        description="coffee beans, two bags, roasted",
        expiry=3600,
        min_final_cltv_expiry_delta=CltvDelta(42),
        features=make_features(Context.INVOICE, required=(Feature.VAR_ONION_OPTIN, Feature.PAYMENT_SECRET)),
        route_hints=((HINT,),) * hints,
        payee=NodeId(pubkey_create(SECRET)),
    )


def encode(invoice: UnsignedInvoice) -> Invoice:
    hrp, data = encode_invoice(invoice)
    signature, recovery_id = ecdsa_sign_recoverable(SECRET, signing_digest(hrp, data))
    return attach_signature(invoice, hrp, data, signature, recovery_id)


def run(bench: Bench) -> None:
    bench.pin()
    bench.uses("leyden-core", "coincurve")
    invoice = unsigned()
    text = encode(invoice).text
    bench.note(f"the invoice has {len(text)} characters")
    wanted = {"payment_hash": invoice.payment_hash.hex(), "payee": invoice.payee.hex()}
    found = {name: Peer.find(name, script) for name, script in PEERS.items()}
    with started(bench, found | {"electrum": Peer.find_electrum("electrum_functions.py")}) as peers:
        for name, peer in peers.items():
            if peer is not None:
                bench.same(f"decoded by {name}", wanted, peer.ask("decode_invoice", text=text))
        encoders: dict[str, Contender | None] = {
            name: peer.contender("time_encode_invoice", text=text, secret=SECRET.hex(), repeat=3) if peer else None
            for name, peer in peers.items()
        }
        bench.compare("encode and sign", timer(lambda: encode(invoice)), encoders, targets=TARGETS)
        decoders: dict[str, Contender | None] = {
            name: peer.contender("time_decode_invoice", text=text, repeat=3) if peer else None
            for name, peer in peers.items()
        }
        bench.compare("decode and check", timer(lambda: parse_invoice(text)), decoders, targets=TARGETS)
    for hints in (0, 5, 10):
        long = encode(unsigned(hints)).text
        bench.compare(f"decode with {hints} hints", timer(partial(parse_invoice, long)), {})
