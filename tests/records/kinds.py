"""Every kind of stored row, by name; which kind a key belongs to; and a row as plain JSON."""

import enum
from typing import Any

import msgspec
from leyden.bitcoin import Transaction
from leyden.chain.rows import BASE, HEADER
from leyden.channel import rows as channel_rows
from leyden.node import keyspace
from leyden.node import rows as node_rows
from leyden.payments import records as payment_rows
from leyden.types import OutPoint
from leyden.wire.stored import RowKind
from leyden_wallet import rows as wallet_rows

KINDS: dict[str, RowKind[Any]] = {
    "channel_config": channel_rows.KINDS[channel_rows.ConfigRow],
    "channel_state": channel_rows.KINDS[channel_rows.DynamicRow],
    "channel_htlc": channel_rows.KINDS[channel_rows.HtlcRow],
    "channel_signatures": channel_rows.KINDS[channel_rows.SignaturesRow],
    "channel_secret": channel_rows.KINDS[channel_rows.SecretRow],
    "chain_header": HEADER,
    "chain_base": BASE,
    "transaction": node_rows.TRANSACTION,
    "event": node_rows.EVENT,
    "cursor": node_rows.CURSOR,
    "peer": node_rows.PEER,
    "meta_node_id": node_rows.NODE_ID,
    "meta_events": node_rows.EVENT_COUNT,
    "meta_schema": node_rows.SCHEMA,
    "payment": payment_rows.PAYMENT,
    "invoice": payment_rows.INVOICE,
    "preimage": payment_rows.PREIMAGE,
    "mailbox": payment_rows.MAILBOX,
    "wallet_destination": wallet_rows.KINDS[wallet_rows.DESTINATION],
    "wallet_claim": wallet_rows.KINDS[wallet_rows.CLAIM],
    "wallet_tip": wallet_rows.KINDS[wallet_rows.TIP],
    "wallet_raw": wallet_rows.KINDS[wallet_rows.RAW],
    "wallet_transaction": wallet_rows.KINDS[wallet_rows.TRANSACTION],
}

BY_AREA = {
    keyspace.CHANNEL_CONFIG: "channel_config",
    keyspace.CHANNEL_STATE: "channel_state",
    keyspace.CHANNEL_HTLC: "channel_htlc",
    keyspace.CHANNEL_SIGNATURES: "channel_signatures",
    keyspace.CHANNEL_SECRET: "channel_secret",
    keyspace.CHAIN: "chain_header",
    keyspace.TRANSACTION: "transaction",
    keyspace.EVENT: "event",
    keyspace.CURSOR: "cursor",
    keyspace.PEER: "peer",
    keyspace.PAYMENT: "payment",
    keyspace.INVOICE: "invoice",
    keyspace.PREIMAGE: "preimage",
    keyspace.MAILBOX: "mailbox",
}
BY_START = {
    keyspace.NODE_ID: "meta_node_id",
    keyspace.EVENT_COUNT: "meta_events",
    keyspace.SCHEMA: "meta_schema",
    keyspace.CHAIN + b"\xff\xff\xff\xff": "chain_base",
    keyspace.WALLET + wallet_rows.DESTINATION: "wallet_destination",
    keyspace.WALLET + wallet_rows.CLAIM: "wallet_claim",
    keyspace.WALLET + wallet_rows.TIP: "wallet_tip",
    keyspace.WALLET + wallet_rows.RAW: "wallet_raw",
    keyspace.WALLET + wallet_rows.TRANSACTION: "wallet_transaction",
}


def name_of(key: bytes) -> str:
    """The kind of row under ``key``; ``LookupError`` for a row that no kind is known for."""
    for start, name in BY_START.items():
        if key.startswith(start):
            return name
    return BY_AREA[key[:1]]


def plain(value: Any) -> Any:
    """A row as JSON: bytes in hex, attributes that have their default left out."""
    match value:
        case bytes():
            return value.hex()
        case Transaction():
            return value.serialize().hex()
        case enum.Enum():
            return plain(value.value)
        case OutPoint():
            return f"{value.txid[::-1].hex()}:{value.vout}"
        case msgspec.Struct():
            tag = value.__struct_config__.tag
            found = {} if tag is None else {"type": tag}
            for field in msgspec.structs.fields(type(value)):
                item = getattr(value, field.name)
                if item != field.default:
                    found[field.name] = plain(item)
            return found
        case tuple() | list():
            return [plain(item) for item in value]
        case dict():
            return {str(plain(key)): plain(item) for key, item in value.items()}
    return value
