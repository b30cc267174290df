"""Receiving at the final hop: judge one HTLC against the invoice it claims to pay (BOLT 4)."""

from leyden.onion import HopPayload
from leyden.payments.records import InvoiceRecord, InvoiceStatus
from leyden.types import BlockHeight, LeydenError, Msat, Rule
from leyden.types.rules import C_163, C_170, C_171, C_172, C_176, C_251
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
    forwarding = payload.short_channel_id is not None or payload.encrypted_recipient_data is not None
    _refuse_if(forwarding, C_163, UnknownNextPeer(), "asks to be forwarded")
    told, expiry = payload.amt_to_forward or 0, payload.outgoing_cltv_value or 0
    _refuse_if(
        payload.amt_to_forward is None or amount_msat < told,
        C_170,
        FinalIncorrectHtlcAmount(incoming_htlc_amt=amount_msat),
        f"HTLC carries {amount_msat} msat, less than told",
    )
    _refuse_if(
        payload.outgoing_cltv_value is None or cltv_expiry < expiry,
        C_170,
        FinalIncorrectCltvExpiry(cltv_expiry=cltv_expiry),
        f"HTLC expires at {cltv_expiry}",
    )

    unknown = IncorrectOrUnknownPaymentDetails(htlc_msat=amount_msat, height=height)
    if invoice is None or invoice.status != InvoiceStatus.UNPAID:
        raise PaymentRefused(unknown, "no unpaid invoice with this payment hash")
    data = payload.payment_data
    wrong = data is None or data.payment_secret != invoice.payment_secret
    _refuse_if(wrong, C_171, unknown, "wrong payment secret")
    _refuse_if(payload.payment_metadata is not None, C_171, unknown, "metadata that the invoice does not have")
    # Our invoices do not offer basic_mpp, so one HTLC is the whole payment.
    part = data is not None and data.total_msat != told
    _refuse_if(part, C_176, unknown, "a part of a multi-part payment")
    asked = invoice.amount_msat
    why = f"{amount_msat} msat for an invoice of {asked} msat"
    _refuse_if(amount_msat < asked, C_171, unknown, why)
    _refuse_if(0 < asked * MAX_OVERPAYMENT < amount_msat, C_172, unknown, why)
    early = cltv_expiry < height + invoice.min_final_cltv
    _refuse_if(early, C_171, unknown, f"expires at {cltv_expiry}, too close to block {height}")
    _refuse_if(now > invoice.expires_at(), C_251, unknown, "the invoice has expired")
    return invoice


def _refuse_if(condition: bool, rule: Rule, failure: Failure, why: str) -> None:
    """``PaymentRefused`` with ``failure`` when ``rule`` is broken."""
    if condition and rule.enabled:
        raise PaymentRefused(failure, why)
