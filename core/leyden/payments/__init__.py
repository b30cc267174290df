"""Sending to and receiving from a direct channel peer, as pure functions over records; the shell drives them."""

from leyden.payments.receive import PaymentRefused, judge_final_htlc
from leyden.payments.records import (
    Attempt,
    InvoiceRecord,
    InvoiceStatus,
    PaymentRecord,
    PaymentStatus,
)
from leyden.payments.send import FailureReport, OutgoingHtlc, explain_failure, make_direct_htlc

__all__ = [
    "Attempt",
    "FailureReport",
    "InvoiceRecord",
    "InvoiceStatus",
    "OutgoingHtlc",
    "PaymentRecord",
    "PaymentRefused",
    "PaymentStatus",
    "explain_failure",
    "judge_final_htlc",
    "make_direct_htlc",
]
