"""Areas of the store: the first byte of every key (``docs/keyspace.md``). Big-endian ids keep ranges ordered."""

from leyden.types import PaymentHash

META = b"m"
CHANNEL_CONFIG = b"c"
CHANNEL_STATE = b"d"
CHANNEL_HTLC = b"h"
CHANNEL_SIGNATURES = b"g"
CHANNEL_SECRET = b"s"
CHANNEL_AREAS = (CHANNEL_CONFIG, CHANNEL_STATE, CHANNEL_HTLC, CHANNEL_SIGNATURES, CHANNEL_SECRET)
CHAIN = b"b"
WALLET = b"w"
TRANSACTION = b"t"
EVENT = b"e"
CURSOR = b"u"
PAYMENT = b"p"
INVOICE = b"i"
PREIMAGE = b"x"
MAILBOX = b"q"
PEER = b"n"

NAMES = {
    value: name
    for name, value in list(globals().items())
    if name.isupper() and isinstance(value, bytes) and len(value) == 1
}
"""What each area is called."""

SCHEMA = META + b"schema"
NODE_ID = META + b"node_id"
EVENT_COUNT = META + b"events"
PROBE = META + b"probe"


def event_key(index: int) -> bytes:
    return EVENT + index.to_bytes(8, "big")


def payment_key(payment_hash: PaymentHash) -> bytes:
    return PAYMENT + payment_hash


def invoice_key(payment_hash: PaymentHash) -> bytes:
    return INVOICE + payment_hash


def preimage_key(payment_hash: PaymentHash) -> bytes:
    return PREIMAGE + payment_hash
