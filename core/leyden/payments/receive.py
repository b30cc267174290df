"""Receiving at the final hop: judge one HTLC against the invoice it claims to pay (BOLT 4)."""

from leyden.onion import HopPayload
from leyden.payments.records import InvoiceRecord, InvoiceStatus
from leyden.types import BlockHeight, LeydenError, Msat
from leyden.wire.failures import (
    Failure,
    FinalIncorrectCltvExpiry,
    FinalIncorrectHtlcAmount,
    IncorrectOrUnknownPaymentDetails,
    UnknownNextPeer,
)

MAX_OVERPAYMENT = 2
"""An HTLC above this multiple of the invoice's amount is failed (C-172)."""


class PaymentRefused(LeydenError):
    """The HTLC is failed back with ``failure``."""

    def __init__(self, failure: Failure, why: str) -> None:
        self.failure = failure
        super().__init__(why)


def judge_final_htlc(
    payload: HopPayload,
    amount_msat: Msat,
    cltv_expiry: BlockHeight,
    invoice: InvoiceRecord | None,
    height: BlockHeight,
    now: int,
) -> InvoiceRecord:
    """The invoice that this HTLC pays in full; ``PaymentRefused`` with the failure to return otherwise.

    ``amount_msat`` and ``cltv_expiry`` are the HTLC's; ``now`` is unix seconds, ``height`` the best block. Everything
    that could tell a prober more than "no" gets the same failure (C-171).
    """
    if payload.short_channel_id is not None or payload.encrypted_recipient_data is not None:
        raise PaymentRefused(UnknownNextPeer(), "asks to be forwarded")
    if payload.amt_to_forward is None or amount_msat < payload.amt_to_forward:
        raise PaymentRefused(
            FinalIncorrectHtlcAmount(incoming_htlc_amt=amount_msat), f"HTLC carries {amount_msat} msat, less than told"
        )
    if payload.outgoing_cltv_value is None or cltv_expiry < payload.outgoing_cltv_value:
        raise PaymentRefused(FinalIncorrectCltvExpiry(cltv_expiry=cltv_expiry), f"HTLC expires at {cltv_expiry}")

    unknown = IncorrectOrUnknownPaymentDetails(htlc_msat=amount_msat, height=height)
    if invoice is None or invoice.status != InvoiceStatus.UNPAID:
        raise PaymentRefused(unknown, "no unpaid invoice with this payment hash")
    data = payload.payment_data
    if data is None or data.payment_secret != invoice.payment_secret:
        raise PaymentRefused(unknown, "wrong payment secret")
    if payload.payment_metadata is not None:
        raise PaymentRefused(unknown, "metadata that the invoice does not have")
    if data.total_msat != payload.amt_to_forward:
        # Our invoices do not offer basic_mpp, so one HTLC is the whole payment (C-176).
        raise PaymentRefused(unknown, "a part of a multi-part payment")
    if invoice.amount_msat and not invoice.amount_msat <= amount_msat <= invoice.amount_msat * MAX_OVERPAYMENT:
        raise PaymentRefused(unknown, f"{amount_msat} msat for an invoice of {invoice.amount_msat} msat")
    if cltv_expiry < height + invoice.min_final_cltv:
        raise PaymentRefused(unknown, f"expires at {cltv_expiry}, too close to block {height}")
    if now > invoice.expires_at():
        raise PaymentRefused(unknown, "the invoice has expired")
    return invoice
