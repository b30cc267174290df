"""What is fuzzed: one name per family of decoders. ``tests/fuzz/corpus/NAME`` holds its seeds."""

from leyden.bitcoin import BitcoinError
from leyden.chain import ChainSourceError
from leyden.invoice import InvoiceError
from leyden.onion import OnionError
from leyden.types import RecordError
from leyden.wire import WireError

from tests.fuzz import channels, decoders, onions, stored_rows
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    "blinded_payment": Target(onions.blinded_payment, (OnionError,)),
    "block": Target(decoders.block, (BitcoinError,)),
    "bolt11": Target(decoders.bolt11, (InvoiceError,)),
    "bolt11_symbols": Target(decoders.bolt11_symbols, (InvoiceError,)),
    "bolt12": Target(decoders.bolt12),
    "bolt12_text": Target(decoders.bolt12_text),
    "channel_messages": Target(channels.channel_messages),
    "channel_rows": Target(stored_rows.channel, (RecordError,)),
    "fields": Target(decoders.fields),
    "handshake": Target(decoders.handshake),
    "header_rows": Target(stored_rows.headers, (RecordError, ChainSourceError)),
    "message": Target(decoders.message, (WireError,)),
    "onion": Target(onions.onion),
    "onion_message": Target(onions.onion_message, (OnionError,)),
    "onion_payload": Target(onions.onion_payload, (OnionError,)),
    "psbt": Target(decoders.psbt, (BitcoinError,)),
    "recipient_data": Target(onions.recipient_data, (OnionError,)),
    "returned": Target(onions.returned),
    "rows": Target(stored_rows.rows, (RecordError,)),
    "session": Target(decoders.session),
    "text": Target(decoders.text),
    "transaction": Target(decoders.transaction, (BitcoinError,)),
}
