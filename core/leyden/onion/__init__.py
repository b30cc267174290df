"""BOLT 4 onions: build, peel, return failures, read and write payment payloads. Pure; shared secrets are arguments.

A hop's shared secret is the ECDH of its node key with the packet's ephemeral key (``onion_ephemeral_key``): the shell
asks ``NodeIdentity`` and gives the answer to ``peel_onion``, ``make_failure`` and ``wrap_failure``. The sender keeps
the secrets that ``build_onion`` returns with its attempt and passes them to ``decode_failure``.
"""

from leyden.onion.attribution import HOLD_TIME_UNIT_MS, MAX_ATTRIBUTED_HOPS
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
    "MAX_ATTRIBUTED_HOPS",
    "MAX_HOP_PAYLOADS_SIZE",
    "MAX_RETURN_SIZE",
    "PAYMENT_PACKET_SIZE",
    "Fulfilment",
    "HopPayload",
    "OnionError",
    "Peeled",
    "ReturnedFailure",
    "ReturnedFulfilment",
    "build_onion",
    "decode_attributed_failure",
    "decode_failure",
    "decode_fulfilment",
    "derive_session_secrets",
    "final_cltv_expiry",
    "make_attributed_failure",
    "make_failure",
    "make_final_payload",
    "make_forward_payload",
    "make_fulfilment",
    "onion_ephemeral_key",
    "parse_payload",
    "peel_onion",
    "wrap_attributed_failure",
    "wrap_failure",
    "wrap_fulfilment",
]
