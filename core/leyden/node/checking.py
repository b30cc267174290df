"""``check_rows``: every row of a database read, and what the rows say about each other.

Needs no keys, no chain and no running node, and changes nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from leyden.bitcoin import Network, parse_transaction
from leyden.chain import load as load_follower
from leyden.channel import Channel, load
from leyden.channel.checking import check_channel
from leyden.crypto import is_valid_point, sha256
from leyden.node import keyspace
from leyden.node.rows import CURSOR, EVENT, EVENT_COUNT, NODE_ID, PEER, SCHEMA, TRANSACTION, check_schema
from leyden.payments.records import INVOICE, MAILBOX, PAYMENT, PREIMAGE, MailRow
from leyden.types import BlockHeight, RecordError
from leyden.wire.stored import DAMAGES, RowKind, exactly

Row = tuple[bytes, bytes]
CheckWallet = Callable[[bytes, Iterable[Row]], Iterable[str]]

_META: dict[bytes, RowKind[Any]] = {
    keyspace.NODE_ID: NODE_ID,
    keyspace.EVENT_COUNT: EVENT_COUNT,
    keyspace.SCHEMA: SCHEMA,
}


def check_rows(rows: Iterable[Row], network: Network, check_wallet: CheckWallet | None = None) -> Iterator[str]:
    """One line for everything that is wrong: the area, the key in hex, the problem. ``rows`` come in order of key.

    ``check_wallet`` gets the rows of the wallet, which alone understands them; without it they are left out.
    """
    check = _Check(network)
    for key, value in rows:
        try:
            check.row(key, value)
        except RecordError as error:
            check.say(key, error.problem)
        except DAMAGES as error:
            check.say(key, f"the row makes no sense ({error})")
        yield from check.take()
    check.together(check_wallet)
    yield from check.take()


class _Check:
    """What must be remembered of the rows seen so far."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._lines: list[str] = []
        self._meta: dict[bytes, Any] = {}
        self._by_channel: dict[bytes, list[Row]] = {}
        self._chain: list[Row] = []
        self._wallet: list[Row] = []
        self._mailbox: list[tuple[bytes, MailRow]] = []
        self._cursors: list[tuple[bytes, int]] = []
        self._event = 0
        self._any = False
        self._readers: dict[bytes, Callable[[bytes, bytes], None]] = {
            keyspace.META: self._on_meta,
            keyspace.CHAIN: lambda key, value: self._chain.append((key, value)),
            keyspace.WALLET: lambda key, value: self._wallet.append((key, value)),
            keyspace.TRANSACTION: self._on_transaction,
            keyspace.EVENT: self._on_event,
            keyspace.CURSOR: self._on_cursor,
            keyspace.PAYMENT: self._on_payment,
            keyspace.INVOICE: self._on_invoice,
            keyspace.PREIMAGE: self._on_preimage,
            keyspace.MAILBOX: self._on_mail,
            keyspace.PEER: self._on_peer,
            **dict.fromkeys(keyspace.CHANNEL_AREAS, self._on_channel),
        }

    def say(self, key: bytes, problem: str) -> None:
        area = keyspace.NAMES.get(key[:1], "?")
        self._lines.append(f"{area} {key[1:].hex()}: {problem}")

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    # -- row by row ------------------------------------------------------------------------------------------------

    def row(self, key: bytes, value: bytes) -> None:
        self._any = True
        reader = self._readers.get(key[:1])
        if reader is None:
            self.say(key, "no area of this version")
        else:
            reader(key, value)

    def _on_meta(self, key: bytes, value: bytes) -> None:
        if key == keyspace.PROBE:
            return
        kind = _META.get(key)
        if kind is None:
            self.say(key, "no name of this version")
        else:
            self._meta[key] = kind.decode(value)
        if key == keyspace.SCHEMA:
            check_schema(value, is_new=False)

    def _on_channel(self, key: bytes, value: bytes) -> None:
        self._by_channel.setdefault(key[1:33], []).append((key, value))

    def _on_transaction(self, key: bytes, value: bytes) -> None:
        if parse_transaction(TRANSACTION.decode(value).raw).txid != key[1:]:
            self.say(key, "another transaction is stored here")

    def _on_event(self, key: bytes, value: bytes) -> None:
        index, expected = int.from_bytes(exactly(key[1:], 8), "big"), self._event + 1
        self._event = index
        if index != expected:
            self.say(key, f"event {expected} is missing")
        EVENT.decode(value)

    def _on_cursor(self, key: bytes, value: bytes) -> None:
        key[1:].decode()
        self._cursors.append((key, CURSOR.decode(value)))

    def _on_payment(self, key: bytes, value: bytes) -> None:
        record = PAYMENT.decode(value)
        if record.payment_hash != key[1:]:
            self.say(key, "the payment of another hash is stored here")
        if record.preimage and sha256(record.preimage) != record.payment_hash:
            self.say(key, "the preimage is not that of the payment hash")

    def _on_invoice(self, key: bytes, value: bytes) -> None:
        record = INVOICE.decode(value)
        if record.payment_hash != key[1:]:
            self.say(key, "the invoice of another hash is stored here")
        if sha256(record.preimage) != record.payment_hash:
            self.say(key, "the preimage is not that of the payment hash")

    def _on_preimage(self, key: bytes, value: bytes) -> None:
        if sha256(PREIMAGE.decode(value)) != key[1:]:
            self.say(key, "the preimage is not that of the payment hash")

    def _on_mail(self, key: bytes, value: bytes) -> None:
        exactly(key, 41)
        mail = MAILBOX.decode(value)
        self._mailbox.append((key, mail))
        if mail.id != int.from_bytes(key[33:], "big"):
            self.say(key, f"HTLC {mail.id} is stored here")

    def _on_peer(self, key: bytes, value: bytes) -> None:
        if not is_valid_point(key[1:]):
            self.say(key, "this is no node id")
        PEER.decode(value)

    # -- what belongs together -------------------------------------------------------------------------------------

    def together(self, check_wallet: CheckWallet | None) -> None:
        for key in (keyspace.SCHEMA, keyspace.NODE_ID):
            if self._any and key not in self._meta:
                self.say(key, "missing or unreadable")
        last = self._meta.get(keyspace.EVENT_COUNT, 0)
        if last != self._event:
            self.say(keyspace.EVENT_COUNT, f"the newest event is {self._event}, not {last}")
        for key, index in self._cursors:
            if index > self._event:
                self.say(key, f"event {index} was handled, but the newest is {self._event}")
        self._check_mail(self._check_channels())
        try:
            load_follower(self._chain, keyspace.CHAIN, self._network, BlockHeight(0))
        except RecordError as error:
            self.say(keyspace.CHAIN, error.problem)
        if check_wallet is not None:
            self._lines += [f"WALLET {problem}" for problem in check_wallet(keyspace.WALLET, self._wallet)]

    def _check_channels(self) -> dict[bytes, Channel | None]:
        """Every channel; ``None`` for one that cannot be read."""
        channels: dict[bytes, Channel | None] = {}
        for id, rows in self._by_channel.items():
            channels[id] = None
            if not any(key[:1] == keyspace.CHANNEL_CONFIG for key, _ in rows):
                for key, _ in rows:
                    self.say(key, "belongs to no channel")
                continue
            try:
                channels[id] = channel = load(rows)
            except RecordError as error:
                self._lines.append(f"{error.area} {id.hex()}: {error.problem}")
                continue
            self._lines += [f"CHANNEL {id.hex()}: {problem}" for problem in check_channel(channel)]
            if not is_valid_point(channel.config.peer):
                self._lines.append(f"CHANNEL {id.hex()}: its peer is no node id")
        return channels

    def _check_mail(self, channels: dict[bytes, Channel | None]) -> None:
        for key, mail in self._mailbox:
            if key[1:33] not in channels:
                self.say(key, "belongs to no channel")
                continue
            channel = channels[key[1:33]]
            htlc = None if channel is None else channel.remote_htlcs.get(mail.id)
            if channel is None:
                continue
            if htlc is None:
                self.say(key, f"the channel has no HTLC {mail.id}")
            elif (htlc.amount_msat, htlc.payment_hash, htlc.cltv_expiry) != (
                mail.amount_msat,
                mail.payment_hash,
                mail.cltv_expiry,
            ):
                self.say(key, f"HTLC {mail.id} of the channel is another one")
