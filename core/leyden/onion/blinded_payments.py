"""Payments into blinded paths (BOLT 4, "Payload format", "Route Blinding").

The recipient makes a path and its price (``make_payment_path``), the payer appends it to a route of its own
(``make_blinded_hops``). A hop that got an HTLC goes through these steps; (E) marks an ECDH of the node key:

1. with a path key in ``update_add_htlc``: (E) path secret, then ``blinded_ephemeral_key``; else ``onion_ephemeral_key``
2. (E) onion secret, ``peel_payment``
3. ``path_key_of`` the payload; None: no blinded path. At the introduction node now: (E) path secret
4. ``read_blinded_payment`` says what to forward, or what was received

An error carries the failure to return. With a path key in ``update_add_htlc`` that is ``invalid_onion_blinding`` in
``update_fail_malformed_htlc``; the introduction node returns the same failure in ``update_fail_htlc``, after a delay.
"""

from collections.abc import Sequence

import msgspec

from leyden.crypto import constant_time_equal, sha256
from leyden.onion.blinding import hidden_in_path, make_blinded_path, open_recipient_data, pad_to_equal_length
from leyden.onion.errors import OnionError
from leyden.onion.packet import peel_onion
from leyden.onion.payload import HopPayload, parse_payload
from leyden.types import MAX_MONEY_MSAT, BlockHeight, CltvDelta, Msat, ShortChannelId
from leyden.types.rules import C_182, C_183, C_184, C_185, C_187, C_188, C_189, C_190, C_191
from leyden.wire.bolt12 import BlindedPayinfo
from leyden.wire.codec import encode_struct
from leyden.wire.failures import (
    Failure,
    IncorrectOrUnknownPaymentDetails,
    InvalidOnionBlinding,
    InvalidOnionPayload,
)
from leyden.wire.onion_message import BlindedPath
from leyden.wire.onion_payload import EncryptedData, PaymentConstraints, PaymentRelay

_MILLION = 1_000_000
_BLOB_RECORD = 10
_PATH_KEY_RECORD = 12


# --- the recipient ----------------------------------------------------------------------------------------------------


class PaymentPathHop(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A hop before the recipient, and the channel that leads on from it (None: whichever leads to the next node).

    ``relay``: its terms for that channel; the limits are in millisatoshi, of the HTLC that leaves the hop.
    """

    node_id: bytes
    short_channel_id: ShortChannelId | None
    relay: PaymentRelay
    htlc_minimum_msat: Msat
    htlc_maximum_msat: Msat


def make_payment_path(
    session_key: bytes,
    hops: Sequence[PaymentPathHop],
    recipient: bytes,
    *,
    path_id: bytes,
    max_cltv_expiry: BlockHeight,
    min_final_cltv_expiry_delta: CltvDelta,
) -> tuple[BlindedPath, BlindedPayinfo]:
    """A path to ``recipient`` (ourselves) and what it costs as a whole, for an invoice.

    ``session_key``: 32 fresh random bytes. ``path_id``: what we recognise the payment by; nobody else may know it.
    ``max_cltv_expiry``: the height at which the invoice ends. No hop forwards an HTLC that ends later than that plus
    the deltas from it on.

    Raises:
        OnionError: C-183, the sum of fees or deltas does not fit an invoice.
        CryptoError: the session key is no valid secret, or a node id no point.
    """
    payinfo = aggregate_payinfo(hops, min_final_cltv_expiry_delta)
    minimum = payinfo.htlc_minimum_msat
    expiry = max_cltv_expiry + min_final_cltv_expiry_delta
    following = recipient
    data = [EncryptedData(path_id=path_id, payment_constraints=_constraints(expiry, minimum))]
    for hop in reversed(hops):
        expiry += hop.relay.cltv_expiry_delta if C_182.enabled else 0
        data.append(
            EncryptedData(
                short_channel_id=hop.short_channel_id,
                next_node_id=following if hop.short_channel_id is None else None,
                payment_relay=hop.relay,
                payment_constraints=_constraints(expiry, minimum),
            )
        )
        following = hop.node_id
    data.reverse()
    padded = pad_to_equal_length(data) if C_182.enabled else data
    nodes = [*(hop.node_id for hop in hops), recipient]
    return make_blinded_path(session_key, list(zip(nodes, padded, strict=True))), payinfo


def _constraints(max_cltv_expiry: int, htlc_minimum_msat: int) -> PaymentConstraints:
    return PaymentConstraints(max_cltv_expiry=max_cltv_expiry, htlc_minimum_msat=htlc_minimum_msat)


def aggregate_payinfo(hops: Sequence[PaymentPathHop], min_final_cltv_expiry_delta: CltvDelta) -> BlindedPayinfo:
    """Price and limits of a path as a whole: who pays ``blinded_path_fee`` on top pays every hop at least its due.

    The limits hold for the amount that the recipient gets.

    Raises:
        OnionError: C-183, a sum does not fit its field.
    """
    base = proportional = 0
    delta = int(min_final_cltv_expiry_delta) if C_183.enabled else 0
    round_up = _MILLION - 1 if C_183.enabled else 0
    for hop in reversed(hops):
        fee = hop.relay
        millionths = fee.fee_proportional_millionths
        base = (fee.fee_base_msat * _MILLION + base * (_MILLION + millionths) + round_up) // _MILLION
        proportional = ((proportional + millionths) * _MILLION + proportional * millionths + round_up) // _MILLION
        delta += fee.cltv_expiry_delta
    if C_183.enabled and (max(base, proportional) > 0xFFFF_FFFF or delta > 0xFFFF):
        raise OnionError(
            C_183, "the path costs more than an invoice can say", base=base, proportional=proportional, delta=delta
        )
    payinfo = BlindedPayinfo(
        fee_base_msat=base,
        fee_proportional_millionths=proportional,
        cltv_expiry_delta=delta,
        htlc_minimum_msat=max((hop.htlc_minimum_msat for hop in hops), default=0),
        htlc_maximum_msat=int(MAX_MONEY_MSAT),
        features=b"",
    )
    return msgspec.structs.replace(payinfo, htlc_maximum_msat=_largest_receipt(hops, payinfo))


def _largest_receipt(hops: Sequence[PaymentPathHop], payinfo: BlindedPayinfo) -> int:
    """What can arrive without that any HTLC on the way exceeds its channel's limit; 0 when the fees alone do."""
    largest: int = min((hop.htlc_maximum_msat for hop in hops), default=MAX_MONEY_MSAT)
    excess = 1
    while largest > 0 and excess > 0:
        amount: int = largest + blinded_path_fee(Msat(largest), payinfo)
        excess = 0
        for hop in hops:
            amount = _after_fee(amount, hop.relay)
            excess = max(excess, amount - hop.htlc_maximum_msat)
        # Less by the excess after fees: a part of the excess may itself be fees.
        largest -= excess * _MILLION // (_MILLION + payinfo.fee_proportional_millionths) + 1 if excess > 0 else 0
    return max(largest, 0)


def check_path_id(received: bytes | None, made: bytes | None, htlc: "BlindedHtlc", height: BlockHeight) -> None:
    """The payment must come by the path that was ``made`` for its invoice (None: an invoice without blinded paths).

    Raises:
        OnionError: C-191, with the failure of an unknown payment hash (hidden inside a path).
    """
    if C_191.enabled and (
        (received is None) != (made is None) or not constant_time_equal(received or b"", made or b"")
    ):
        unknown = IncorrectOrUnknownPaymentDetails(htlc_msat=htlc.amount_msat, height=height)
        failure: Failure = unknown if htlc.path_key is None else _blinding_failure(htlc)
        raise OnionError(C_191, "the payment did not come by the path of its invoice", failure=failure)


# --- the payer --------------------------------------------------------------------------------------------------------


def blinded_path_fee(amount_msat: Msat, payinfo: BlindedPayinfo) -> Msat:
    """What the path takes from a payment of which ``amount_msat`` shall arrive."""
    return Msat(payinfo.fee_base_msat + amount_msat * payinfo.fee_proportional_millionths // _MILLION)


def make_blinded_hops(
    path: BlindedPath, introduction: bytes, *, amount_msat: Msat, cltv_expiry: BlockHeight, total_msat: Msat
) -> list[tuple[bytes, bytes]]:
    """Keys and payloads for ``build_onion`` from the introduction node on.

    ``introduction``: its node id (``path.first_node_id``, or the node of the channel that this names). ``amount_msat``:
    what shall arrive by this part, ``total_msat`` by all parts. ``cltv_expiry``: height plus a random offset, without
    the delta of the path, which the introduction node's HTLC has on top.

    Raises:
        OnionError: C-184, a path without hops.
    """
    if not path.path:
        raise OnionError(C_184, "a blinded path has at least one hop")
    hops = []
    last = len(path.path) - 1
    for position, hop in enumerate(path.path):
        final = position == last
        payload = HopPayload(
            encrypted_recipient_data=hop.encrypted_recipient_data,
            current_path_key=path.first_path_key if position == 0 else None,
            amt_to_forward=amount_msat if final or not C_184.enabled else None,
            outgoing_cltv_value=cltv_expiry if final or not C_184.enabled else None,
            total_amount_msat=total_msat if final else None,
        )
        hops.append((introduction if position == 0 else hop.blinded_node_id, encode_struct(payload)))
    return hops


# --- the hops ---------------------------------------------------------------------------------------------------------


class BlindedHtlc(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An incoming HTLC; ``path_key``: as in ``update_add_htlc.blinded_path``."""

    packet: bytes
    amount_msat: Msat
    cltv_expiry: BlockHeight
    path_key: bytes | None = None


class PeeledPayment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Our payload, and the packet for the next hop (None: we are the last)."""

    payload: HopPayload
    next_packet: bytes | None


class BlindedForward(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The HTLC to offer, ``path_key`` in its ``update_add_htlc``; exactly one of channel and node is given.

    The recipient wrote the fee down: whether it still is what this node asks is for the caller to check.
    """

    short_channel_id: ShortChannelId | None
    next_node_id: bytes | None
    amount_msat: Msat
    cltv_expiry: BlockHeight
    path_key: bytes


class BlindedReceipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A payment for us: this part, all parts, and how the payer knew us (see ``check_path_id``)."""

    amount_msat: Msat
    total_msat: Msat
    cltv_expiry: BlockHeight
    path_id: bytes | None


def peel_payment(htlc: BlindedHtlc, payment_hash: bytes, onion_secret: bytes) -> PeeledPayment:
    """``peel_onion`` and ``parse_payload``; inside a path every failure is hidden.

    Raises:
        OnionError: as those two.
    """
    try:
        peeled = peel_onion(htlc.packet, payment_hash, onion_secret)
        return PeeledPayment(payload=parse_payload(peeled.payload), next_packet=peeled.next_packet)
    except OnionError as error:
        if htlc.path_key is None:
            raise
        raise hidden_in_path(error, htlc.packet) from error


def path_key_of(peeled: PeeledPayment, htlc: BlindedHtlc) -> bytes | None:
    """The key to open the recipient's data with; None: the payment is not in a blinded path here.

    Raises:
        OnionError: C-185, path keys in both places or in none, or one without data.
    """
    payload = peeled.payload
    offered = [key for key in (htlc.path_key, payload.current_path_key) if key is not None]
    wanted = 0 if payload.encrypted_recipient_data is None else 1
    if C_185.enabled and len(offered) != wanted:
        inside = htlc.path_key is not None or (payload.current_path_key is not None and peeled.next_packet is not None)
        failure = _blinding_failure(htlc) if inside else InvalidOnionPayload(type=_PATH_KEY_RECORD, offset=0)
        raise OnionError(C_185, "path keys do not fit the payload", failure=failure, offered=len(offered))
    return offered[0] if offered else None


def read_blinded_payment(
    peeled: PeeledPayment, htlc: BlindedHtlc, path_key: bytes, path_secret: bytes
) -> BlindedForward | BlindedReceipt:
    """What a hop of a blinded path is to do. ``path_key`` from ``path_key_of``, ``path_secret`` its ECDH.

    Raises:
        OnionError: C-186 (data), C-187 (limits), C-188 (forwarding), C-189 (amounts), C-190 (receiving).
    """
    try:
        opened = open_recipient_data(path_key, path_secret, peeled.payload.encrypted_recipient_data or b"")
        data = opened.data
        _check_constraints(data, htlc)
        if peeled.next_packet is None:
            return _receipt(peeled.payload, htlc, data)
        _check_forward(peeled.payload, data)
        relay = data.payment_relay or PaymentRelay(cltv_expiry_delta=0, fee_proportional_millionths=0, fee_base_msat=0)
        amount_msat, cltv_expiry = relayed(htlc.amount_msat, htlc.cltv_expiry, relay)
    except OnionError as error:
        if htlc.path_key is None and peeled.next_packet is None:
            # Recipient and introduction node in one: there is nobody to hide.
            error.failure = InvalidOnionPayload(type=_BLOB_RECORD, offset=0)
            raise
        raise hidden_in_path(error, htlc.packet) from error
    return BlindedForward(
        short_channel_id=None if data.short_channel_id is None else ShortChannelId(data.short_channel_id),
        next_node_id=data.next_node_id,
        amount_msat=amount_msat,
        cltv_expiry=cltv_expiry,
        path_key=opened.next_path_key,
    )


def relayed(amount_msat: Msat, cltv_expiry: BlockHeight, relay: PaymentRelay) -> tuple[Msat, BlockHeight]:
    """Amount and expiry of the outgoing HTLC; the hop keeps at most ``base + outgoing * millionths / 1000000``.

    Raises:
        OnionError: C-189, the amount is below the base fee or the expiry below the delta.
    """
    if C_189.enabled:
        if amount_msat < relay.fee_base_msat:
            raise OnionError(C_189, "less than the base fee", offered=amount_msat, needed=relay.fee_base_msat)
        if cltv_expiry < relay.cltv_expiry_delta:
            raise OnionError(C_189, "expiry below the delta", offered=cltv_expiry, needed=relay.cltv_expiry_delta)
    return Msat(_after_fee(amount_msat, relay)), BlockHeight(cltv_expiry - relay.cltv_expiry_delta)


def _after_fee(amount_msat: int, relay: PaymentRelay) -> int:
    """Rounded up: in doubt for the payer, whose sum of fees is rounded once while each hop rounds."""
    divisor = _MILLION + relay.fee_proportional_millionths
    round_up = divisor - 1 if C_189.enabled else 0
    return ((amount_msat - relay.fee_base_msat) * _MILLION + round_up) // divisor


def _check_constraints(data: EncryptedData, htlc: BlindedHtlc) -> None:
    limits = data.payment_constraints
    if limits is None or not C_187.enabled:
        return
    if htlc.cltv_expiry > limits.max_cltv_expiry:
        raise OnionError(C_187, "the path is closed", offered=htlc.cltv_expiry, allowed=limits.max_cltv_expiry)
    if htlc.amount_msat < limits.htlc_minimum_msat:
        raise OnionError(C_187, "too small for the path", offered=htlc.amount_msat, allowed=limits.htlc_minimum_msat)


def _check_forward(payload: HopPayload, data: EncryptedData) -> None:
    if not C_188.enabled:
        return
    plain = HopPayload(
        encrypted_recipient_data=payload.encrypted_recipient_data, current_path_key=payload.current_path_key
    )
    if payload != plain:
        raise OnionError(C_188, "the payload of a blinded hop says more than it may")
    if data.payment_relay is None:
        raise OnionError(C_188, "no terms for relaying")
    if (data.short_channel_id is None) == (data.next_node_id is None):
        raise OnionError(C_188, "not exactly one of channel and node to forward to")


def _receipt(payload: HopPayload, htlc: BlindedHtlc, data: EncryptedData) -> BlindedReceipt:
    amount, expiry, total = payload.amt_to_forward, payload.outgoing_cltv_value, payload.total_amount_msat
    if C_190.enabled:
        plain = HopPayload(
            encrypted_recipient_data=payload.encrypted_recipient_data,
            current_path_key=payload.current_path_key,
            amt_to_forward=amount,
            outgoing_cltv_value=expiry,
            total_amount_msat=total,
        )
        if payload != plain:
            raise OnionError(C_190, "the payload of a blinded recipient says more than it may")
        if amount is None or expiry is None or total is None:
            raise OnionError(C_190, "amount, expiry or total is missing")
        if htlc.amount_msat < amount:
            raise OnionError(C_190, "less arrived than was sent", offered=htlc.amount_msat, needed=amount)
        if htlc.cltv_expiry < expiry:
            raise OnionError(C_190, "it ends sooner than was sent", offered=htlc.cltv_expiry, needed=expiry)
    return BlindedReceipt(
        amount_msat=Msat(amount or 0),
        total_msat=Msat(total or 0),
        cltv_expiry=BlockHeight(expiry or 0),
        path_id=data.path_id,
    )


def _blinding_failure(htlc: BlindedHtlc) -> InvalidOnionBlinding:
    return InvalidOnionBlinding(sha256_of_onion=sha256(htlc.packet))
