"""Rows of a channel, version 1.

A released layout never changes. Until the first release, and after it for what older programs may skip, a record of an
odd type with a default may be added; everything else needs a version 2 beside this one.
"""

from typing import Annotated

from msgspec import Struct

from leyden.wire.codec import (
    bytes_n,
    channel_id,
    flag,
    list_of,
    nested,
    rest,
    sha256,
    signature,
    tlv,
    tlv_struct,
    trusted_point,
    tu16,
    tu32,
    tu64,
    u8,
    u16,
    u32,
    u64,
    utf8,
    wire_struct,
)


@wire_struct
class StoredKeys(Struct, frozen=True, kw_only=True):
    funding_pubkey: Annotated[bytes, trusted_point]
    revocation_basepoint: Annotated[bytes, trusted_point]
    payment_basepoint: Annotated[bytes, trusted_point]
    delayed_payment_basepoint: Annotated[bytes, trusted_point]
    htlc_basepoint: Annotated[bytes, trusted_point]


@wire_struct
class StoredTerms(Struct, frozen=True, kw_only=True):
    dust_limit: Annotated[int, u64]
    reserve: Annotated[int, u64]
    htlc_minimum_msat: Annotated[int, u64]
    max_in_flight_msat: Annotated[int, u64]
    max_accepted_htlcs: Annotated[int, u16]
    to_self_delay: Annotated[int, u16]
    shutdown_script: Annotated[bytes, rest]


@wire_struct
class StoredOutpoint(Struct, frozen=True, kw_only=True):
    txid: Annotated[bytes, sha256]
    vout: Annotated[int, u16]


@tlv_struct
class ConfigRow(Struct, frozen=True, kw_only=True):
    """What never changes: written once. A second funding (splice) will be a row of its own."""

    temporary_channel_id: Annotated[bytes, tlv(2, channel_id)]
    peer: Annotated[bytes, tlv(4, trusted_point)]
    keys_id: Annotated[bytes, tlv(6, bytes_n(32))]
    channel_type: Annotated[bytes, tlv(8, rest)]
    funding_satoshis: Annotated[int, tlv(10, tu64)]
    push_msat: Annotated[int, tlv(12, tu64)]
    initial_feerate: Annotated[int, tlv(14, tu32)]
    local: Annotated[StoredTerms, tlv(16, nested(StoredTerms))]
    remote: Annotated[StoredTerms, tlv(18, nested(StoredTerms))]
    local_keys: Annotated[StoredKeys, tlv(20, nested(StoredKeys))]
    remote_keys: Annotated[StoredKeys, tlv(22, nested(StoredKeys))]
    minimum_depth: Annotated[int, tlv(24, tu32)]
    opened_height: Annotated[int, tlv(26, tu32)]
    funding_outpoint: Annotated[StoredOutpoint, tlv(28, nested(StoredOutpoint))]
    local_is_funder: Annotated[bool, tlv(30, flag)] = False
    announce: Annotated[bool, tlv(32, flag)] = False
    claim_id: Annotated[str, tlv(33, utf8)] = ""


@wire_struct
class StoredDance(Struct, frozen=True, kw_only=True):
    """The part that changes with every commitment, in one fixed block."""

    lifecycle: Annotated[int, u8]
    flags: Annotated[int, u8]
    local_number: Annotated[int, u64]
    local_revoked: Annotated[int, u64]
    remote_number: Annotated[int, u64]
    remote_revoked: Annotated[int, u64]
    revocation_noted: Annotated[int, u64]
    remote_point: Annotated[bytes, trusted_point]
    local_point: Annotated[bytes, trusted_point]
    local_next_point: Annotated[bytes, trusted_point]
    local_settled: Annotated[int, u64]
    remote_settled: Annotated[int, u64]
    next_local_id: Annotated[int, u64]
    next_remote_id: Annotated[int, u64]
    feerate: Annotated[int, u32]
    next_order: Annotated[int, u64]


FLAG_LOCAL_READY = 1
FLAG_REMOTE_READY = 2
FLAG_COMMITMENT_LAST = 4
FLAG_SHUTDOWN_WANTED = 8
FLAG_SHUTDOWN_SENT = 16
FLAG_REMOTE_INITIATED = 32
FLAG_SWEPT = 64


@wire_struct
class StoredFee(Struct, frozen=True, kw_only=True):
    feerate: Annotated[int, u32]
    stage: Annotated[int, u8]
    order: Annotated[int, u64]


@wire_struct
class StoredConfirmation(Struct, frozen=True, kw_only=True):
    height: Annotated[int, u32]
    tx_index: Annotated[int, u32]


@wire_struct
class StoredSpend(Struct, frozen=True, kw_only=True):
    kind: Annotated[int, u8]
    height: Annotated[int, u32]
    number: Annotated[int, u64]
    sweep_height: Annotated[int, u32]
    tx: Annotated[bytes, rest]


@wire_struct
class StoredAnnouncement(Struct, frozen=True, kw_only=True):
    """One side's two signatures of the ``channel_announcement`` under this short channel id."""

    short_channel_id: Annotated[int, u64]
    node_signature: Annotated[bytes, signature]
    bitcoin_signature: Annotated[bytes, signature]


@tlv_struct
class DynamicRow(Struct, frozen=True, kw_only=True):
    dance: Annotated[StoredDance, tlv(2, nested(StoredDance))]
    remote_next_point: Annotated[bytes | None, tlv(4, trusted_point)] = None
    fee_updates: Annotated[tuple[StoredFee, ...], tlv(6, list_of(StoredFee))] = ()
    confirmation: Annotated[StoredConfirmation | None, tlv(8, nested(StoredConfirmation))] = None
    local_alias: Annotated[int | None, tlv(10, u64)] = None
    remote_alias: Annotated[int | None, tlv(12, u64)] = None
    local_script: Annotated[bytes, tlv(14, rest)] = b""
    remote_script: Annotated[bytes, tlv(16, rest)] = b""
    close_feerate: Annotated[int, tlv(18, tu32)] = 0
    close_max_fee: Annotated[int, tlv(20, tu64)] = 0
    close_agreed_fee: Annotated[int | None, tlv(22, tu64)] = None
    closing_tx: Annotated[bytes, tlv(24, rest)] = b""
    spend: Annotated[StoredSpend | None, tlv(26, nested(StoredSpend))] = None
    spend_point: Annotated[bytes | None, tlv(28, trusted_point)] = None
    sweep_vout: Annotated[int | None, tlv(30, u16)] = None
    sweep: Annotated[bytes, tlv(32, rest)] = b""
    failure: Annotated[str, tlv(33, utf8)] = ""
    refused: Annotated[str, tlv(35, utf8)] = ""
    local_announcement: Annotated[StoredAnnouncement | None, tlv(37, nested(StoredAnnouncement))] = None
    remote_announcement: Annotated[StoredAnnouncement | None, tlv(39, nested(StoredAnnouncement))] = None


@tlv_struct
class SignaturesRow(Struct, frozen=True, kw_only=True):
    """The peer's signatures on our newest commitment."""

    number: Annotated[int, tlv(2, tu64)]
    signature: Annotated[bytes, tlv(4, signature)]
    htlc_signatures: Annotated[tuple[bytes, ...], tlv(6, list_of(signature))] = ()


@wire_struct
class StoredHtlc(Struct, frozen=True, kw_only=True):
    amount_msat: Annotated[int, u64]
    payment_hash: Annotated[bytes, sha256]
    cltv_expiry: Annotated[int, u32]
    stage: Annotated[int, u8]
    order: Annotated[int, u64]


@tlv_struct
class HtlcRow(Struct, frozen=True, kw_only=True):
    htlc: Annotated[StoredHtlc, tlv(2, nested(StoredHtlc))]
    onion_routing_packet: Annotated[bytes, tlv(4, rest)] = b""
    path_key: Annotated[bytes | None, tlv(6, trusted_point)] = None
    preimage: Annotated[bytes | None, tlv(8, bytes_n(32))] = None
    reason: Annotated[bytes | None, tlv(10, rest)] = None
    sha256_of_onion: Annotated[bytes | None, tlv(12, sha256)] = None
    failure_code: Annotated[int | None, tlv(14, tu16)] = None
    must_fail: Annotated[bool, tlv(16, flag)] = False


@tlv_struct
class SecretRow(Struct, frozen=True, kw_only=True):
    secret: Annotated[bytes, tlv(2, bytes_n(32))]
