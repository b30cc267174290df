"""Rows of the wallet, version 1. A released layout never changes; see ``docs/keyspace.md``."""

from typing import Annotated

import msgspec
from leyden.bitcoin import Transaction, TxOut, parse_transaction
from leyden.types import OutPoint, Sat, Txid
from leyden.wire.codec import (
    Field,
    list_of,
    rest,
    sat,
    tlv,
    tu32,
    tu64,
    tu64_sat,
    u8,
    u32,
    var_bytes,
    wire_struct,
)


class _OutPointField(Field[OutPoint]):
    """36 bytes: txid in internal order and output index."""

    def __init__(self) -> None:
        super().__init__("outpoint", 36)

    def write(self, value: OutPoint) -> bytes:
        return value.txid + value.vout.to_bytes(4, "big")

    def read(self, data: bytes, offset: int, end: int) -> tuple[OutPoint, int]:
        raw = data[offset : min(offset + 36, end)]
        if len(raw) != 36:
            raise ValueError("an outpoint is cut short")
        return OutPoint(Txid(raw[:32]), int.from_bytes(raw[32:], "big")), offset + 36


outpoint = _OutPointField()


@wire_struct
class Coin(msgspec.Struct, frozen=True, kw_only=True):
    """An output of ours. ``value`` in satoshi."""

    outpoint: Annotated[OutPoint, outpoint]
    value: Annotated[Sat, sat]
    script: Annotated[bytes, var_bytes]

    @property
    def output(self) -> TxOut:
        return TxOut(value=self.value, script=self.script)


@wire_struct
class KnownTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that touches our coins: what it takes from us and gives to us.

    ``height`` 0 means unconfirmed, which only transactions of our own (``flags`` has ``OWN``) can be; ``order`` counts
    those in the order in which we made them. ``spends`` are coins of ours; ``others`` further outputs it spends, kept
    for transactions of our own and for what conflicts with them. ``coins`` are its outputs that are ours.
    """

    height: Annotated[int, tlv(1, tu32)] = 0
    flags: Annotated[int, tlv(3, u8)] = 0
    order: Annotated[int, tlv(5, tu64)] = 0
    spends: Annotated[tuple[OutPoint, ...], tlv(7, list_of(outpoint))] = ()
    others: Annotated[tuple[OutPoint, ...], tlv(9, list_of(outpoint))] = ()
    coins: Annotated[tuple[Coin, ...], tlv(11, list_of(Coin))] = ()

    @property
    def own(self) -> bool:
        return bool(self.flags & OWN)

    @property
    def coinbase(self) -> bool:
        return bool(self.flags & COINBASE)


OWN = 1
COINBASE = 2


@wire_struct
class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Coins that one purpose has locked, and the unsigned transaction that it built of them. ``fee`` in satoshi."""

    raw_tx: Annotated[bytes, tlv(1, rest)]
    fee: Annotated[Sat, tlv(3, tu64_sat)]
    change_index: Annotated[int | None, tlv(5, tu32)] = None
    coins: Annotated[tuple[Coin, ...], tlv(7, list_of(Coin))]

    def transaction(self) -> Transaction:
        return parse_transaction(self.raw_tx)

    def pays(self) -> tuple[TxOut, ...]:
        """What was asked for: every output but the change."""
        return tuple(o for i, o in enumerate(self.transaction().outputs) if i != self.change_index)


@wire_struct
class StoredDestination(msgspec.Struct, frozen=True, kw_only=True):
    """A destination that was handed out: script, derivation path, key and fingerprint of the root key.

    The first rows had no key: it is asked for again.
    """

    script: Annotated[bytes, tlv(1, rest)]
    path: Annotated[tuple[int, ...], tlv(3, list_of(u32))] = ()
    pubkey: Annotated[bytes | None, tlv(5, rest)] = None
    fingerprint: Annotated[bytes | None, tlv(7, rest)] = None
