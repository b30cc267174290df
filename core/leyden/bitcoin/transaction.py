"""Transactions: values, their bytes and their ids (BIP 141, BIP 144)."""

import struct
from functools import cached_property

import msgspec

from leyden.bitcoin.encoding import read_varint, write_varint
from leyden.bitcoin.errors import BitcoinError
from leyden.crypto import sha256, sha256d
from leyden.types import MAX_MONEY_SAT, OutPoint, Sat, Txid

SEQUENCE_FINAL = 0xFFFFFFFF
SEQUENCE_RBF = 0xFFFFFFFD
"""Signals replaceability (BIP 125) and leaves the locktime in force."""
WITNESS_SCALE = 4
_COINBASE_PREVOUT = OutPoint(Txid(bytes(32)), 0xFFFFFFFF)

_pack = struct.Struct("<I").pack
_unpack_u32 = struct.Struct("<I").unpack_from
_pack_u64 = struct.Struct("<Q").pack
_unpack_u64 = struct.Struct("<Q").unpack_from


class TxIn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An input. ``witness`` is empty until it is signed."""

    prevout: OutPoint
    script_sig: bytes = b""
    sequence: int
    witness: tuple[bytes, ...] = ()


class TxOut(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An output: ``value`` in satoshi and the output script."""

    value: Sat
    script: bytes

    def serialize(self) -> bytes:
        """Value, script length and script, as in a transaction; ``BitcoinError`` for a value that is no amount."""
        if not 0 <= self.value <= MAX_MONEY_SAT:
            raise BitcoinError(f"an output cannot hold {self.value} sat")
        return _pack_u64(self.value) + write_varint(len(self.script)) + self.script


class Transaction(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A transaction, signed or not. It has at least one input: without, its bytes would be ambiguous (BIP 144).

    Ids and sizes are computed on first use and kept beside the fields; they take no part in comparison.
    """

    version: int
    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]
    locktime: int

    @cached_property
    def txid(self) -> Txid:
        """Hash of the bytes without witnesses, 32 bytes in internal order."""
        return Txid(sha256d(self.serialize_legacy()))

    @cached_property
    def wtxid(self) -> Txid:
        """Hash of the bytes with witnesses, 32 bytes in internal order."""
        return Txid(sha256d(self.serialize()))

    @cached_property
    def weight(self) -> int:
        """Weight units: four per byte outside witnesses, one per byte of witness (BIP 141)."""
        return (WITNESS_SCALE - 1) * len(self.serialize_legacy()) + len(self.serialize())

    @property
    def vsize(self) -> int:
        """Virtual bytes: a quarter of the weight, rounded up."""
        return -(-self.weight // WITNESS_SCALE)

    @property
    def has_witness(self) -> bool:
        return any(i.witness for i in self.inputs)

    @property
    def is_coinbase(self) -> bool:
        return len(self.inputs) == 1 and self.inputs[0].prevout == _COINBASE_PREVOUT

    def serialize_legacy(self) -> bytes:
        """The bytes without witnesses, from which the txid is made; ``BitcoinError`` if a field is out of range."""
        return b"".join((pack_u32(self.version), *self._body(), pack_u32(self.locktime)))

    def serialize(self) -> bytes:
        """The bytes as they go to the network: with witnesses if there are any; errors as ``serialize_legacy``."""
        if not self.has_witness:
            return self.serialize_legacy()
        parts = [pack_u32(self.version), b"\x00\x01", *self._body()]
        parts += [serialize_witness(i.witness) for i in self.inputs]
        parts.append(pack_u32(self.locktime))
        return b"".join(parts)

    def _body(self) -> list[bytes]:
        if not self.inputs:
            raise BitcoinError("a transaction without inputs cannot be serialised")
        parts = [write_varint(len(self.inputs))]
        for i in self.inputs:
            parts += (
                serialize_outpoint(i.prevout),
                write_varint(len(i.script_sig)),
                i.script_sig,
                pack_u32(i.sequence),
            )
        parts.append(write_varint(len(self.outputs)))
        parts += [output.serialize() for output in self.outputs]
        return parts

    # Digests need these once per transaction, not once per input: taproot the single hash, segwit version 0 the double.

    @cached_property
    def prevouts_sha256(self) -> bytes:
        """SHA-256 over all outpoints spent (BIP 341)."""
        return sha256(b"".join([serialize_outpoint(i.prevout) for i in self.inputs]))

    @cached_property
    def sequences_sha256(self) -> bytes:
        """SHA-256 over all input sequences (BIP 341)."""
        return sha256(b"".join([pack_u32(i.sequence) for i in self.inputs]))

    @cached_property
    def outputs_sha256(self) -> bytes:
        """SHA-256 over all outputs (BIP 341)."""
        return sha256(b"".join([output.serialize() for output in self.outputs]))

    @cached_property
    def prevouts_hash(self) -> bytes:
        """Double SHA-256 over all outpoints spent (BIP 143)."""
        return sha256(self.prevouts_sha256)

    @cached_property
    def sequences_hash(self) -> bytes:
        """Double SHA-256 over all input sequences (BIP 143)."""
        return sha256(self.sequences_sha256)

    @cached_property
    def outputs_hash(self) -> bytes:
        """Double SHA-256 over all outputs (BIP 143)."""
        return sha256(self.outputs_sha256)


def pack_u32(value: int) -> bytes:
    """Four bytes, little-endian; ``BitcoinError`` if they do not suffice."""
    try:
        return _pack(value)
    except struct.error:
        raise BitcoinError(f"{value} does not fit 32 bits") from None


def serialize_outpoint(outpoint: OutPoint) -> bytes:
    """36 bytes: txid and output index; ``BitcoinError`` if one of them is malformed."""
    if len(outpoint.txid) != 32:
        raise BitcoinError(f"a txid has 32 bytes, not {len(outpoint.txid)}")
    return outpoint.txid + pack_u32(outpoint.vout)


def serialize_witness(witness: tuple[bytes, ...]) -> bytes:
    """The witness stack of one input with its item count and the length of each item."""
    parts = [write_varint(len(witness))]
    for item in witness:
        parts += (write_varint(len(item)), item)
    return b"".join(parts)


def parse_transaction(data: bytes) -> Transaction:
    """The transaction that ``data`` is, from the first byte to the last; ``BitcoinError`` for anything else.

    Refused are also: no inputs, amounts above 21 million bitcoin, lengths not in shortest form, a set of witnesses that
    are all empty.
    """
    transaction, end = read_transaction(data, 0)
    if end != len(data):
        raise BitcoinError(f"{len(data) - end} bytes too many behind the transaction")
    return transaction


def read_transaction(data: bytes, offset: int) -> tuple[Transaction, int]:
    """The transaction that starts at ``offset`` and the offset behind it; errors as ``parse_transaction``."""
    try:
        return _read_transaction(data, offset)
    except (struct.error, IndexError):
        raise BitcoinError("unexpected end of data") from None


def _read_transaction(data: bytes, at: int) -> tuple[Transaction, int]:
    (version,) = _unpack_u32(data, at)
    at += 4
    segwit = data[at] == 0  # where the number of inputs would be
    if segwit:
        if data[at + 1] != 1:
            raise BitcoinError("no inputs, or an unknown extension of the transaction format")
        at += 2
    count, at = read_varint(data, at)
    if not count:
        raise BitcoinError("a transaction needs an input")
    inputs = []
    for _ in range(count):
        txid = data[at : at + 32]
        (vout,) = _unpack_u32(data, at + 32)
        script_sig, at = read_bytes(data, at + 36)
        (sequence,) = _unpack_u32(data, at)
        at += 4
        inputs.append(TxIn(prevout=OutPoint(Txid(txid), vout), script_sig=script_sig, sequence=sequence))
    outputs, at = _read_outputs(data, at)
    if segwit:
        at = _read_witnesses(data, at, inputs)
    (locktime,) = _unpack_u32(data, at)
    return Transaction(version=version, inputs=tuple(inputs), outputs=outputs, locktime=locktime), at + 4


def _read_outputs(data: bytes, at: int) -> tuple[tuple[TxOut, ...], int]:
    count, at = read_varint(data, at)
    outputs = []
    for _ in range(count):
        (value,) = _unpack_u64(data, at)
        if value > MAX_MONEY_SAT:
            raise BitcoinError(f"an output cannot hold {value} sat")
        script, at = read_bytes(data, at + 8)
        outputs.append(TxOut(value=Sat(value), script=script))
    return tuple(outputs), at


def _read_witnesses(data: bytes, at: int, inputs: list[TxIn]) -> int:
    """Fill in the witness of each input; the offset behind the last one."""
    found = False
    for position, txin in enumerate(inputs):
        count, at = read_varint(data, at)
        if not count:
            continue
        found = True
        items = []
        for _ in range(count):
            item, at = read_bytes(data, at)
            items.append(item)
        inputs[position] = TxIn(
            prevout=txin.prevout, script_sig=txin.script_sig, sequence=txin.sequence, witness=tuple(items)
        )
    if not found:
        raise BitcoinError("witnesses are announced but all are empty")
    return at


def read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """A string with its length in front, and the offset behind it; ``BitcoinError`` if it is cut off."""
    length, at = read_varint(data, at)
    end = at + length
    if end > len(data):
        raise BitcoinError("unexpected end of data")
    return data[at:end], end
