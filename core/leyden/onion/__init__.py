"""BOLT 4 onions: packets, returned failures, payloads, blinded paths, onion messages. Pure; secrets are arguments.

A hop's shared secret is the ECDH of its node key with the packet's ephemeral key (``onion_ephemeral_key``): the shell
asks ``NodeIdentity`` and gives the answer to ``peel_onion``, ``make_failure`` and ``wrap_failure``. The sender keeps
the secrets that ``build_onion`` returns with its attempt and passes them to ``decode_failure``. Which points blinded
paths need an ECDH with is told at the head of ``blinded_payments`` and ``messages``.
"""

from leyden.onion.attribution import HOLD_TIME_UNIT_MS, MAX_ATTRIBUTED_HOPS
from leyden.onion.blinded_payments import (
    BlindedForward,
    BlindedHtlc,
    BlindedReceipt,
    PaymentPathHop,
    PeeledPayment,
    aggregate_payinfo,
    blinded_path_fee,
    check_path_id,
    make_blinded_hops,
    make_payment_path,
    path_key_of,
    peel_payment,
    read_blinded_payment,
    relayed,
)
from leyden.onion.blinding import (
    OpenedHop,
    advance_blinded_path,
    blinded_ephemeral_key,
    hidden_in_path,
    make_blinded_path,
    open_recipient_data,
    pad_to_equal_length,
)
from leyden.onion.errors import OnionError
from leyden.onion.failures import (
    FAILURE_ROUNDS,
    MAX_RETURN_SIZE,
    ReturnedFailure,
    decode_attributed_failure,
    decode_failure,
    make_attributed_failure,
    make_failure,
    wrap_attributed_failure,
    wrap_failure,
)
from leyden.onion.fulfilments import (
    Fulfilment,
    ReturnedFulfilment,
    decode_fulfilment,
    make_fulfilment,
    wrap_fulfilment,
)
from leyden.onion.messages import (
    LARGE_PAYLOADS_SIZE,
    ReceivedMessage,
    RelayedMessage,
    extend_message_path,
    make_message_path,
    make_onion_message,
    peel_onion_message,
)
from leyden.onion.packet import (
    MAX_HOP_PAYLOADS_SIZE,
    PAYMENT_PACKET_SIZE,
    Peeled,
    build_onion,
    derive_session_secrets,
    onion_ephemeral_key,
    peel_onion,
)
from leyden.onion.payload import (
    HopPayload,
    final_cltv_expiry,
    make_final_payload,
    make_forward_payload,
    parse_payload,
)

__all__ = [
    "FAILURE_ROUNDS",
    "HOLD_TIME_UNIT_MS",
    "LARGE_PAYLOADS_SIZE",
    "MAX_ATTRIBUTED_HOPS",
    "MAX_HOP_PAYLOADS_SIZE",
    "MAX_RETURN_SIZE",
    "PAYMENT_PACKET_SIZE",
    "BlindedForward",
    "BlindedHtlc",
    "BlindedReceipt",
    "Fulfilment",
    "HopPayload",
    "OnionError",
    "OpenedHop",
    "PaymentPathHop",
    "Peeled",
    "PeeledPayment",
    "ReceivedMessage",
    "RelayedMessage",
    "ReturnedFailure",
    "ReturnedFulfilment",
    "advance_blinded_path",
    "aggregate_payinfo",
    "blinded_ephemeral_key",
    "blinded_path_fee",
    "build_onion",
    "check_path_id",
    "decode_attributed_failure",
    "decode_failure",
    "decode_fulfilment",
    "derive_session_secrets",
    "extend_message_path",
    "final_cltv_expiry",
    "hidden_in_path",
    "make_attributed_failure",
    "make_blinded_hops",
    "make_blinded_path",
    "make_failure",
    "make_final_payload",
    "make_forward_payload",
    "make_fulfilment",
    "make_message_path",
    "make_onion_message",
    "make_payment_path",
    "onion_ephemeral_key",
    "open_recipient_data",
    "pad_to_equal_length",
    "parse_payload",
    "path_key_of",
    "peel_onion",
    "peel_onion_message",
    "peel_payment",
    "read_blinded_payment",
    "relayed",
    "wrap_attributed_failure",
    "wrap_failure",
    "wrap_fulfilment",
]
