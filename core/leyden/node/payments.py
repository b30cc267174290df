"""PaymentManager: invoices we issued, payments we send, and the HTLCs of both.

Sending is idempotent by payment hash and by the caller's key: a hash is never paid twice. A received HTLC is a row of
the mailbox from the commit in which it became irrevocable until the commit in which it was decided.
"""

from collections.abc import Callable, Sequence

import msgspec
import structlog

from leyden.channel import ChannelError
from leyden.channel.effects import HtlcFailed, HtlcFulfilled, HtlcReceived
from leyden.channel.events import AddHtlc, FailHtlc, FailMalformedHtlc, FulfillHtlc
from leyden.crypto import CryptoError, sha256
from leyden.hooks.services import NodeIdentity
from leyden.hooks.types import Alarm, IncomingPayment, NodeEvent, PaymentFailed, PaymentReceived, PaymentSent
from leyden.invoice import Invoice
from leyden.node import keyspace
from leyden.node.channels import ChannelActor, ChannelManager, PaymentDelivery
from leyden.node.host import Caller, Host
from leyden.node.journal import Journal, Table
from leyden.onion import OnionError, make_failure, onion_ephemeral_key, parse_payload, peel_onion
from leyden.payments import (
    Attempt,
    FailureReport,
    InvoiceRecord,
    InvoiceStatus,
    PaymentRecord,
    PaymentRefused,
    PaymentStatus,
    explain_failure,
    judge_final_htlc,
    make_direct_htlc,
)
from leyden.payments.records import (
    MAILBOX,
    PREIMAGE,
    MailRow,
    decode_invoice_record,
    decode_payment_record,
    encode_invoice_record,
    encode_payment_record,
)
from leyden.payments.send import explain_malformed
from leyden.types import BlockHeight, ChannelId, LeydenError, Msat, NodeId, PaymentHash, Preimage
from leyden.types.rules import C_075
from leyden.wire.failures import (
    BADONION,
    Failure,
    FailureCode,
    IncorrectOrUnknownPaymentDetails,
    TemporaryChannelFailure,
    encode_failure,
)

log = structlog.get_logger("leyden.payments")

Mail = tuple[ChannelId, int]
AskPayment = Callable[[IncomingPayment, Callable[[bool], None]], None]
RETRY_SECONDS = 5.0
INVALID_ONION_KEY = FailureCode.INVALID_ONION_KEY


class PaymentError(LeydenError):
    """A payment was not started; nothing was offered to anybody."""


class PaymentManager:
    """Decides what happens to HTLCs. Only this part touches invoices and payments."""

    def __init__(
        self,
        *,
        host: Host,
        caller: Caller,
        journal: Journal,
        channels: ChannelManager,
        identity: NodeIdentity,
        publish: Callable[[NodeEvent], None],
        ask_payment: AskPayment,
    ) -> None:
        self._host = host
        self._caller = caller
        self._journal = journal
        self._channels = channels
        self._identity = identity
        self._publish = publish
        self._ask_payment = ask_payment
        self._invoices: Table[PaymentHash, InvoiceRecord] = Table(
            keyspace.INVOICE, lambda k: k, encode_invoice_record, decode_invoice_record
        )
        self._payments: Table[PaymentHash, PaymentRecord] = Table(
            keyspace.PAYMENT, lambda k: k, encode_payment_record, decode_payment_record
        )
        self._mailbox: Table[Mail, HtlcReceived] = Table(
            keyspace.MAILBOX, lambda k: k[0] + k[1].to_bytes(8, "big"), _encode_mail, _decode_mail
        )
        self._by_htlc: dict[Mail, PaymentHash] = {}
        self._deciding: set[Mail] = set()
        self._retrying = False
        self._retry_due = False
        self._settled: list[tuple[PaymentHash, PaymentRecord]] = []
        self._signing: dict[NodeId, ChannelId] = {}
        """By payee: the channel that took the last payment of this turn, and will sign for all that it took at once."""
        self._waiters: dict[PaymentHash, list[Callable[[PaymentRecord], None]]] = {}
        channels.on_payment = self._on_delivery

    def load(
        self,
        invoices: Sequence[tuple[bytes, bytes]],
        payments: Sequence[tuple[bytes, bytes]],
        mailbox: Sequence[tuple[bytes, bytes]],
    ) -> None:
        """Rows of the three areas. Only what is still open stays in memory."""
        now = int(self._host.wall_time())
        known = [decode_invoice_record(row) for _, row in invoices]
        payable = [r for r in known if r.status == InvoiceStatus.UNPAID and r.expires_at() >= now]
        self._invoices.load((invoice.payment_hash, encode_invoice_record(invoice)) for invoice in payable)
        pending = [r for _, v in payments if (r := decode_payment_record(v)).status == PaymentStatus.PENDING]
        self._payments.load((r.payment_hash, encode_payment_record(r)) for r in pending)
        self._index()
        self._mailbox.load(((ChannelId(key[1:33]), int.from_bytes(key[33:], "big")), value) for key, value in mailbox)

    def _index(self) -> None:
        self._by_htlc = {
            (ChannelId(attempt.channel_id), attempt.htlc_id): payment_hash
            for payment_hash, record in self._payments.items()
            for attempt in record.attempts
        }

    def resume(self) -> None:
        """After the channels are restored: decide on what was waiting."""
        for mail in self._mailbox:
            self._decide(mail)

    # -- receiving -------------------------------------------------------------------------------------------------

    def add_invoice(self, record: InvoiceRecord) -> None:
        self._invoices.set(record.payment_hash, record)

    def _on_delivery(self, actor: ChannelActor, delivery: PaymentDelivery) -> None:
        match delivery:
            case HtlcReceived():
                mail = (actor.channel.channel_id, delivery.id)
                self._mailbox.set(mail, delivery)
                self._decide(mail)
            case HtlcFulfilled():
                self._on_fulfilled(actor.channel.channel_id, delivery)
            case HtlcFailed():
                self._on_failed(actor.channel.channel_id, delivery)

    def _decide(self, mail: Mail) -> None:
        """Open the onion; the node identity may take its time, the row waits."""
        htlc = self._mailbox.get(mail)
        if htlc is None or mail in self._deciding:
            return
        if htlc.path_key is not None:  # we offer no blinded paths: nothing more is told (C-084)
            digest = sha256(htlc.onion_routing_packet)
            code = int(FailureCode.INVALID_ONION_BLINDING)
            self._remove(mail, FailMalformedHtlc(id=mail[1], sha256_of_onion=digest, failure_code=code))
            return
        try:
            point = onion_ephemeral_key(htlc.onion_routing_packet)
        except (OnionError, CryptoError) as error:
            self._refuse_onion(mail, htlc, error, None)
            return
        self._deciding.add(mail)

        def opened(shared: bytes | None, error: BaseException | None) -> None:
            self._deciding.discard(mail)
            if shared is not None:
                self._on_opened(mail, htlc, shared)
            else:
                log.warning("onion_not_opened", reason=str(error))
                self._ask_again_later()

        self._caller.call(self._identity, self._identity.ecdh(point), opened, "onion ecdh")

    def _ask_again_later(self) -> None:
        """What waits is decided on once more: an HTLC must not reach its deadline because of one bad answer."""
        if not self._retrying:
            self._retrying = True
            self._host.call_later(RETRY_SECONDS, self._on_retry)

    def _on_retry(self) -> None:
        self._retrying = False
        self._retry_due = True
        self._host.wake()

    def _on_opened(self, mail: Mail, htlc: HtlcReceived, shared: bytes) -> None:
        try:
            peeled = peel_onion(htlc.onion_routing_packet, htlc.payment_hash, shared)
            payload = parse_payload(peeled.payload)
        except OnionError as error:
            self._refuse_onion(mail, htlc, error, shared)
            return
        if obstacle := self._obstacle(mail, htlc):
            self._refuse(mail, shared, TemporaryChannelFailure(), obstacle)
            return
        try:
            invoice = judge_final_htlc(
                payload,
                htlc.amount_msat,
                htlc.cltv_expiry,
                self._invoices.get(htlc.payment_hash),
                self._channels.height,
                int(self._host.wall_time()),
            )
        except PaymentRefused as refused:
            self._refuse(mail, shared, refused.failure, str(refused))
            return
        self._deciding.add(mail)
        question = IncomingPayment(
            payment_hash=htlc.payment_hash,
            amount_msat=htlc.amount_msat,
            invoice_msat=invoice.amount_msat or None,
            label=invoice.label,
        )

        def answered(accepted: bool) -> None:
            self._deciding.discard(mail)
            if mail not in self._mailbox:
                return
            current = self._invoices.get(htlc.payment_hash)
            if not accepted or current is None or current.status != InvoiceStatus.UNPAID:
                failure = IncorrectOrUnknownPaymentDetails(htlc_msat=htlc.amount_msat, height=self._channels.height)
                self._refuse(mail, shared, failure, "refused by a plugin or no longer payable")
                return
            self._claim(mail, htlc, current)

        self._ask_payment(question, answered)

    def _obstacle(self, mail: Mail, htlc: HtlcReceived) -> str:
        """Why nothing may be taken over this channel now, whatever the invoice says; empty if nothing is wrong."""
        if htlc.must_fail:
            return "too much value without outputs"
        actor = self._channels.get(mail[0])
        if actor is not None and actor.channel.config.minimum_depth and actor.channel.funding.confirmation is None:
            return "the funding transaction left the chain"
        return ""

    def _claim(self, mail: Mail, htlc: HtlcReceived, invoice: InvoiceRecord) -> None:
        """Paid: the invoice, the preimage, the event and the claim are durable in one commit."""
        actor = self._channels.get(mail[0])
        if actor is None:
            self._mailbox.delete(mail)
            return
        try:
            self._channels.apply(actor, FulfillHtlc(id=htlc.id, preimage=invoice.preimage))
        except ChannelError as error:
            log.error("claim_refused", channel=mail[0].hex(), htlc=htlc.id, reason=str(error))
            self._mailbox.delete(mail)
            return
        self._mailbox.delete(mail)
        paid = msgspec.structs.replace(invoice, status=int(InvoiceStatus.PAID), received_msat=htlc.amount_msat)
        self._invoices.set(htlc.payment_hash, paid)
        self._invoices.evict(htlc.payment_hash)
        self._journal.put(keyspace.preimage_key(htlc.payment_hash), PREIMAGE.encode(invoice.preimage))
        self._publish(
            PaymentReceived(payment_hash=htlc.payment_hash, amount_msat=htlc.amount_msat, label=invoice.label)
        )

    def _refuse(self, mail: Mail, shared: bytes, failure: Failure, why: str) -> None:
        log.info("htlc_refused", channel=mail[0].hex(), htlc=mail[1], failure=failure.NAME, why=why)
        self._remove(mail, FailHtlc(id=mail[1], reason=make_failure(shared, encode_failure(failure))))

    def _refuse_onion(
        self, mail: Mail, htlc: HtlcReceived, error: OnionError | CryptoError, shared: bytes | None
    ) -> None:
        """An onion nobody can read goes back as malformed (C-159); an unreadable payload as an ordinary failure."""
        if not C_075.enabled:
            return
        failure = error.failure if isinstance(error, OnionError) else None
        if shared is not None and failure is not None and not failure.CODE & BADONION:
            self._refuse(mail, shared, failure, str(error))
            return
        code = INVALID_ONION_KEY if failure is None else failure.CODE
        digest = sha256(htlc.onion_routing_packet)
        self._remove(
            mail,
            FailMalformedHtlc(id=mail[1], sha256_of_onion=digest, failure_code=int(code)),
        )

    def _remove(self, mail: Mail, command: FailHtlc | FailMalformedHtlc) -> None:
        self._mailbox.delete(mail)
        actor = self._channels.get(mail[0])
        if actor is not None:
            try:
                self._channels.apply(actor, command)
            except ChannelError as error:
                log.error("fail_refused", channel=mail[0].hex(), htlc=mail[1], reason=str(error))

    # -- sending ---------------------------------------------------------------------------------------------------

    def pending(self) -> list[PaymentRecord]:
        return self._payments.values()

    def is_pending(self, payment_hash: PaymentHash) -> bool:
        return payment_hash in self._payments

    def wait(self, payment_hash: PaymentHash, done: Callable[[PaymentRecord], None]) -> None:
        """``done`` when the payment is final and durable."""
        self._waiters.setdefault(payment_hash, []).append(done)

    def send(self, invoice: Invoice, amount_msat: Msat, key: str) -> PaymentRecord:
        """Offer an HTLC over a channel with the payee. ``PaymentError`` if none can carry it; nothing was sent then."""
        if invoice.payment_hash in self._payments:
            raise PaymentError("this payment hash is already being paid")
        if self._channels.chain_trouble:
            raise PaymentError(f"no payment is offered while the chain is degraded: {self._channels.chain_trouble}")
        now = int(self._host.wall_time())
        if now > invoice.expires_at:
            raise PaymentError("the invoice has expired")
        record = PaymentRecord(
            payment_hash=invoice.payment_hash, bolt11=invoice.text, amount_msat=amount_msat, created=now, key=key
        )
        record = self._attempt(record, invoice)
        self._payments.set(record.payment_hash, record)
        return record

    def _attempt(self, record: PaymentRecord, invoice: Invoice) -> PaymentRecord:
        reasons = []
        tried = {attempt.channel_id for attempt in record.attempts}
        candidates = [
            actor
            for actor in self._channels.of_peer(invoice.payee)
            if actor.channel.is_usable and actor.channel.channel_id not in tried
        ]
        signing = self._signing.pop(invoice.payee, None)
        # A channel that signs at the end of this turn anyway, then the richest.
        candidates.sort(key=lambda a: (a.channel.channel_id == signing, a.channel.remote_next.local_msat), reverse=True)
        htlc = make_direct_htlc(invoice, record.amount_msat, self._channels.height, self._host.entropy(32))
        for actor in candidates:
            try:
                added = self._channels.apply(
                    actor,
                    AddHtlc(
                        amount_msat=htlc.amount_msat,
                        payment_hash=htlc.payment_hash,
                        cltv_expiry=htlc.cltv_expiry,
                        onion_routing_packet=htlc.onion_routing_packet,
                    ),
                )
            except ChannelError as error:
                reasons.append(str(error))
                continue
            attempt = Attempt(
                channel_id=actor.channel.channel_id,
                htlc_id=added[0],
                amount_msat=htlc.amount_msat,
                cltv_expiry=htlc.cltv_expiry,
                shared_secret=htlc.shared_secret,
            )
            self._by_htlc[actor.channel.channel_id, added[0]] = record.payment_hash
            self._signing[invoice.payee] = actor.channel.channel_id
            return msgspec.structs.replace(record, attempts=(*record.attempts, attempt))
        if not reasons:
            raise PaymentError(f"no usable channel with the payee {invoice.payee.hex()}")
        raise PaymentError(f"no channel with the payee can carry it: {'; '.join(reasons)}")

    def _find(self, channel_id: ChannelId, htlc_id: int) -> tuple[PaymentRecord, Attempt] | None:
        payment_hash = self._by_htlc.get((channel_id, htlc_id))
        record = None if payment_hash is None else self._payments.get(payment_hash)
        if record is None:
            return None
        for attempt in record.attempts:
            if attempt.channel_id == channel_id and attempt.htlc_id == htlc_id:
                return record, attempt
        return None

    def _on_fulfilled(self, channel_id: ChannelId, delivery: HtlcFulfilled) -> None:
        payment_hash = PaymentHash(sha256(delivery.preimage))
        found = self._find(channel_id, delivery.id)
        self._journal.put(keyspace.preimage_key(payment_hash), PREIMAGE.encode(delivery.preimage))
        if found is None:
            return
        record, attempt = found
        fee = Msat(attempt.amount_msat - record.amount_msat)
        self._finish(
            msgspec.structs.replace(
                record, status=int(PaymentStatus.SUCCEEDED), preimage=bytes(delivery.preimage), fee_msat=fee
            )
        )
        self._publish(
            PaymentSent(
                payment_hash=payment_hash,
                preimage=Preimage(delivery.preimage),
                amount_msat=record.amount_msat,
                fee_msat=fee,
            )
        )

    def _on_failed(self, channel_id: ChannelId, delivery: HtlcFailed) -> None:
        found = self._find(channel_id, delivery.id)
        if found is not None:
            self._on_attempt_failed(*found, delivery)
        else:  # fulfilled before: the preimage proves the payment, whatever became of the money
            text = (
                f"a payment of {delivery.amount_msat} msat, hash {delivery.payment_hash.hex()}, counts as made: the "
                f"peer of channel {channel_id.hex()} showed its preimage, and then gave the money back"
            )
            self._publish(Alarm(subject="payment_returned", text=text))

    def _on_attempt_failed(self, record: PaymentRecord, attempt: Attempt, delivery: HtlcFailed) -> None:
        report: FailureReport
        if delivery.failure_code is not None:
            report = explain_malformed(delivery.failure_code)
        else:
            report = explain_failure(attempt.shared_secret, delivery.reason)
        self._finish(msgspec.structs.replace(record, status=int(PaymentStatus.FAILED), failure=report.text))
        self._publish(PaymentFailed(payment_hash=record.payment_hash, reason=report.text))

    def _finish(self, record: PaymentRecord) -> None:
        self._payments.set(record.payment_hash, record)
        self._payments.evict(record.payment_hash)
        for attempt in record.attempts:
            self._by_htlc.pop((ChannelId(attempt.channel_id), attempt.htlc_id), None)
        self._settled.append((record.payment_hash, record))

    # -- turn ------------------------------------------------------------------------------------------------------

    def end_turn(self) -> bool:
        self._signing.clear()
        if not self._retry_due:
            return False
        self._retry_due = False
        self.resume()
        return True

    def write(self, journal: Journal) -> None:
        self._invoices.write(journal)
        self._payments.write(journal)
        self._mailbox.write(journal)

    def commit(self) -> None:
        self._invoices.commit()
        self._payments.commit()
        self._mailbox.commit()
        settled, self._settled = self._settled, []
        for payment_hash, record in settled:
            for done in self._waiters.pop(payment_hash, ()):
                done(record)

    def rollback(self) -> None:
        self._invoices.rollback()
        self._payments.rollback()
        self._mailbox.rollback()
        self._settled = []
        self._deciding.clear()
        self._index()


def _encode_mail(htlc: HtlcReceived) -> bytes:
    return MAILBOX.encode(MailRow(**{name: getattr(htlc, name) for name in MailRow.__struct_fields__}))


def _decode_mail(row: bytes) -> HtlcReceived:
    mail = MAILBOX.decode(row)
    return HtlcReceived(
        id=mail.id,
        amount_msat=Msat(mail.amount_msat),
        payment_hash=PaymentHash(mail.payment_hash),
        cltv_expiry=BlockHeight(mail.cltv_expiry),
        onion_routing_packet=mail.onion_routing_packet,
        path_key=mail.path_key,
        must_fail=mail.must_fail,
    )
