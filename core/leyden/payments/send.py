"""Sending over one hop: the onion for a direct peer, and what a returned failure means."""

import msgspec

from leyden.invoice import Invoice
from leyden.onion import build_onion, decode_failure, make_final_payload
from leyden.types import BlockHeight, Msat, PaymentHash
from leyden.wire import failures

FINAL_OFFSET = 3
"""Blocks added to the payee's final delta, so that a block found on the way does not make the HTLC too late."""


class OutgoingHtlc(msgspec.Struct, frozen=True, kw_only=True):
    """What to offer to the peer, and the secret that decodes its failure."""

    amount_msat: Msat
    payment_hash: PaymentHash
    cltv_expiry: BlockHeight
    onion_routing_packet: bytes
    shared_secret: bytes


class FailureReport(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed, for a person; ``retryable`` when another attempt may succeed."""

    text: str
    retryable: bool


def make_direct_htlc(invoice: Invoice, amount_msat: Msat, height: BlockHeight, session_key: bytes) -> OutgoingHtlc:
    """The HTLC that pays ``invoice`` when the payee is our channel peer. ``session_key``: 32 fresh random bytes."""
    expiry = BlockHeight(height + invoice.min_final_cltv_expiry_delta + FINAL_OFFSET)
    payload = make_final_payload(
        amount_msat, expiry, invoice.payment_secret, total_msat=amount_msat, metadata=invoice.metadata
    )
    packet, secrets = build_onion(session_key, [(invoice.payee, payload)], invoice.payment_hash)
    return OutgoingHtlc(
        amount_msat=amount_msat,
        payment_hash=invoice.payment_hash,
        cltv_expiry=expiry,
        onion_routing_packet=packet,
        shared_secret=secrets[0],
    )


def explain_failure(shared_secret: bytes, reason: bytes) -> FailureReport:
    """Decode the failure packet of a one-hop attempt; garbage is an answer too (C-193)."""
    found = decode_failure([shared_secret], reason)
    if found is None:
        return FailureReport(text="the peer returned a failure that nobody can read", retryable=False)
    _, data = found
    if len(data) < 2:
        return FailureReport(text="the payee returned an empty failure", retryable=False)
    failure = failures.decode_failure(data)
    if isinstance(failure, failures.IncorrectOrUnknownPaymentDetails):
        return FailureReport(
            text="incorrect_or_unknown_payment_details: the payee does not know this payment, or the amount, "
            f"the secret or the expiry was wrong (it saw {failure.htlc_msat} msat at block {failure.height})",
            retryable=False,
        )
    if isinstance(failure, failures.UnknownFailure):
        return FailureReport(text=f"unknown failure code {failure.code:#06x}", retryable=not failure.is_permanent)
    return FailureReport(text=failure.NAME, retryable=not failure.is_permanent)


def explain_malformed(failure_code: int) -> FailureReport:
    """The peer could not read our onion."""
    name = failures.FAILURES[failure_code].NAME if failure_code in failures.FAILURES else f"code {failure_code:#06x}"
    return FailureReport(text=f"{name}: the peer could not read our onion", retryable=False)
