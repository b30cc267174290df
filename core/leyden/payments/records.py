"""What is stored of a payment: one row per invoice we issued, one per payment we send, one per HTLC that waits for a
decision, one per preimage learnt. Amounts in msat. Only this module imports the versions of the rows."""

from leyden.payments.stored.v1 import Attempt, InvoiceRecord, InvoiceStatus, MailRow, PaymentRecord, PaymentStatus
from leyden.wire.stored import bytes_kind, struct_kind

__all__ = [
    "INVOICE",
    "MAILBOX",
    "PAYMENT",
    "PREIMAGE",
    "Attempt",
    "InvoiceRecord",
    "InvoiceStatus",
    "MailRow",
    "PaymentRecord",
    "PaymentStatus",
    "decode_invoice_record",
    "decode_payment_record",
    "encode_invoice_record",
    "encode_payment_record",
]

INVOICE = struct_kind("INVOICE", InvoiceRecord, lambda record: InvoiceStatus(record.status))
PAYMENT = struct_kind("PAYMENT", PaymentRecord, lambda record: PaymentStatus(record.status))
MAILBOX = struct_kind("MAILBOX", MailRow)
PREIMAGE = bytes_kind("PREIMAGE", 32)


def encode_invoice_record(record: InvoiceRecord) -> bytes:
    return INVOICE.encode(record)


def decode_invoice_record(row: bytes) -> InvoiceRecord:
    """``RecordError`` for a row of a newer program or a damaged one."""
    return INVOICE.decode(row)


def encode_payment_record(record: PaymentRecord) -> bytes:
    return PAYMENT.encode(record)


def decode_payment_record(row: bytes) -> PaymentRecord:
    """``RecordError`` for a row of a newer program or a damaged one."""
    return PAYMENT.decode(row)
