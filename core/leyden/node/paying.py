"""``Node``'s hand in the payments: invoices that are made, payments that are begun once and waited for."""

import asyncio
from collections.abc import Awaitable, Callable

from leyden.crypto import sha256
from leyden.hooks.services import NodeIdentity
from leyden.invoice import DEFAULT_EXPIRY, Invoice, UnsignedInvoice, attach_signature, encode_invoice, parse_invoice
from leyden.node import keyspace
from leyden.node.calls import Calls, finish
from leyden.node.core import NodeCore
from leyden.node.payments import PaymentError
from leyden.node.views import InvoiceView, PaymentView, view_invoice, view_payment
from leyden.payments import InvoiceRecord, PaymentRecord, PaymentStatus
from leyden.payments.records import decode_invoice_record, decode_payment_record
from leyden.types import CltvDelta, LeydenError, Msat, PaymentHash, PaymentSecret, Preimage
from leyden.wire.features import Context, Feature, make_features

MIN_FINAL_CLTV = CltvDelta(42)
INVOICE_FEATURES = make_features(Context.INVOICE, required=(Feature.VAR_ONION_OPTIN, Feature.PAYMENT_SECRET))

Approve = Callable[[str, Msat, Msat, str], Awaitable[None]]
"""Kind, amount, largest fee and destination of a spend; raises ``SpendRefused``."""
NO_FEE = Msat(0)
"""Of a payment to the node at the other end of one of our channels, the only one there is yet."""


class SpendRefused(LeydenError):
    """A plugin or the key manager refused the payment; nothing was offered."""


async def make_invoice(
    core: NodeCore, amount_msat: Msat | None, description: str, expiry: int = DEFAULT_EXPIRY, label: str = ""
) -> tuple[Invoice, InvoiceRecord]:
    """A signed invoice of the node, ``expiry`` in seconds, and its row: payable once that is stored."""
    host = core.host
    preimage = Preimage(host.entropy(32))
    unsigned = UnsignedInvoice(
        network=core.config.network,
        amount_msat=amount_msat,
        timestamp=int(host.wall_time()),
        payment_hash=PaymentHash(sha256(preimage)),
        payment_secret=PaymentSecret(host.entropy(32)),
        description=description,
        expiry=expiry,
        min_final_cltv_expiry_delta=MIN_FINAL_CLTV,
        features=INVOICE_FEATURES,
        payee=core.node_id,
    )
    invoice = await sign_invoice(core.services.node_identity, unsigned)
    record = InvoiceRecord(
        payment_hash=unsigned.payment_hash,
        preimage=preimage,
        payment_secret=unsigned.payment_secret,
        amount_msat=amount_msat or Msat(0),
        bolt11=invoice.text,
        created=unsigned.timestamp,
        expiry=expiry,
        min_final_cltv=MIN_FINAL_CLTV,
        label=label,
    )
    return invoice, record


async def sign_invoice(identity: NodeIdentity, unsigned: UnsignedInvoice) -> Invoice:
    hrp, data = encode_invoice(unsigned)
    signature, recovery_id = await identity.sign_bolt11(hrp, data)
    return attach_signature(unsigned, hrp, data, signature, recovery_id)


class Payer:
    """A payment hash is paid at most once, however many ask for it at the same time."""

    def __init__(self, core: NodeCore, calls: Calls, approve: Approve) -> None:
        self._core = core
        self._calls = calls
        self._approve = approve
        self._paying: set[PaymentHash] = set()
        self._awaited: dict[PaymentHash, list[asyncio.Future[PaymentRecord]]] = {}
        core.on_reloaded = self._on_reloaded

    # -- invoices ----------------------------------------------------------------------------------------------------

    async def create_invoice(self, amount_msat: Msat | None, description: str, expiry: int, label: str) -> InvoiceView:
        """Stored before it is returned."""
        core = self._core
        _, record = await make_invoice(core, amount_msat, description, expiry, label)
        await self._calls.call(lambda: core.payments.add_invoice(record))
        return view_invoice(record)

    async def invoice(self, payment_hash: PaymentHash) -> InvoiceView | None:
        row = await self._core.services.store.get(keyspace.invoice_key(payment_hash))
        return None if row is None else view_invoice(decode_invoice_record(row))

    async def invoices(self) -> list[InvoiceView]:
        rows = await self._core.services.store.scan(keyspace.INVOICE)
        return [view_invoice(decode_invoice_record(row)) for _, row in rows]

    # -- payments ----------------------------------------------------------------------------------------------------

    async def payment(self, payment_hash: PaymentHash) -> PaymentView | None:
        record = await self._payment_record(payment_hash)
        return None if record is None else view_payment(record)

    async def payments(self) -> list[PaymentView]:
        rows = await self._core.services.store.scan(keyspace.PAYMENT)
        return [view_payment(decode_payment_record(row)) for _, row in rows]

    async def pay(self, bolt11: str, amount_msat: Msat | None, key: str, timeout: float | None) -> PaymentView:
        """Begin it, or join the one that was begun under the same ``key``; then wait for its end."""
        invoice = parse_invoice(bolt11, self._core.config.network)
        amount = self._amount(invoice, amount_msat)
        payment_hash = invoice.payment_hash
        if payment_hash in self._paying:
            raise PaymentError("this payment hash is already being paid")
        self._paying.add(payment_hash)  # before the store is read: two callers must never both find nothing
        try:
            earlier = await self._payment_record(payment_hash)
            if earlier is not None and earlier.status == PaymentStatus.SUCCEEDED:
                if key and earlier.key == key:
                    return view_payment(earlier)
                raise PaymentError("this payment hash was already paid")
            in_flight = earlier is not None and earlier.status == PaymentStatus.PENDING
            if not in_flight and not self._core.payments.is_pending(payment_hash):
                waiting = await self._begin_payment(invoice, amount, key)
            elif key and earlier is not None and earlier.key == key:
                waiting = None
            else:
                raise PaymentError("this payment hash is already being paid")
        finally:
            self._paying.discard(payment_hash)
        if waiting is None:
            return view_payment(await self._outcome(payment_hash, timeout))
        async with asyncio.timeout(timeout):
            return view_payment(await waiting)

    async def _begin_payment(self, invoice: Invoice, amount: Msat, key: str) -> "asyncio.Future[PaymentRecord]":
        """Ask whoever may refuse, then offer the HTLC; the future is its end."""
        await self._approve("payment", amount, NO_FEE, invoice.payee.hex())
        if not await self._core.services.payment_approval.approve_bolt11(invoice.text, amount):
            raise SpendRefused("the key manager refused the payment")
        waiting = self._wait_payment(invoice.payment_hash)
        try:
            await self._calls.call(lambda: self._core.payments.send(invoice, amount, key))
        except BaseException:
            waiting.cancel()
            raise
        return waiting

    @staticmethod
    def _amount(invoice: Invoice, asked: Msat | None) -> Msat:
        amount = invoice.amount_msat if asked is None else asked
        if amount is None or amount <= 0:
            raise PaymentError("the invoice names no amount: say how much to pay")
        if invoice.amount_msat is not None and not invoice.amount_msat <= amount <= 2 * invoice.amount_msat:
            raise PaymentError(f"{amount} msat is not between the invoice's {invoice.amount_msat} msat and twice that")
        return amount

    def _wait_payment(self, payment_hash: PaymentHash) -> "asyncio.Future[PaymentRecord]":
        waiting: asyncio.Future[PaymentRecord] = self._calls.future()
        if payment_hash not in self._awaited:
            self._awaited[payment_hash] = []
            self._core.payments.wait(payment_hash, self._on_payment_final)
        self._awaited[payment_hash].append(waiting)
        return waiting

    def _on_payment_final(self, record: PaymentRecord) -> None:
        for waiting in self._awaited.pop(record.payment_hash, ()):
            finish(waiting, record)

    def _on_reloaded(self) -> None:
        self._core.host.spawn(self._look_again(), lambda _value, _error: None, "payments after a read back")

    async def _look_again(self) -> None:
        """Payments whose end was on disk though its commit was reported as failed."""
        for payment_hash in list(self._awaited):
            record = await self._payment_record(payment_hash)
            if record is not None and record.status != PaymentStatus.PENDING:
                for waiting in self._awaited.get(payment_hash, ()):
                    finish(waiting, record)

    async def _outcome(self, payment_hash: PaymentHash, timeout: float | None) -> PaymentRecord:
        waiting = self._wait_payment(payment_hash)
        record = await self._payment_record(payment_hash)
        if record is not None and record.status != PaymentStatus.PENDING:
            return record
        async with asyncio.timeout(timeout):
            return await waiting

    async def _payment_record(self, payment_hash: PaymentHash) -> PaymentRecord | None:
        row = await self._core.services.store.get(keyspace.payment_key(payment_hash))
        return None if row is None else decode_payment_record(row)
