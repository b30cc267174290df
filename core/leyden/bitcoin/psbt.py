"""Partially signed transactions, version 0 (BIP 174 with the taproot fields of BIP 371): values and their bytes.

Nothing here signs; ``leyden.bitcoin.psbt_roles`` does what signers and finalisers share.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from leyden.bitcoin.encoding import read_varint, write_varint
from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.transaction import Transaction, TxOut, pack_u32, parse_transaction, read_bytes, serialize_witness
from leyden.crypto import is_valid_point
from leyden.types import Sat

PSBT_MAGIC = b"psbt\xff"
MAX_PSBT = 16 * 1024 * 1024
"""Bytes that are read at most: forty of the largest transactions that a node relays."""
_MAX_PATH = 255

Record = tuple[bytes, bytes]
"""Key (type included) and value as they stand in a map."""


class PsbtError(BitcoinError):
    """Bytes that are no PSBT, or a PSBT that cannot be used; the text says why."""


class KeyOrigin(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a key comes from: 4 bytes that name the root key, and the path down from it (BIP 32)."""

    fingerprint: bytes
    path: tuple[int, ...]


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A compressed key (33 bytes) and its origin."""

    pubkey: bytes
    origin: KeyOrigin


class TaprootKeyInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An x-only key (32 bytes), its origin, and the leaves it signs for (none: it is the internal key)."""

    xonly: bytes
    origin: KeyOrigin
    leaf_hashes: tuple[bytes, ...] = ()


class PartialSig(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A signature as it will stand in the witness (DER and sighash type) by a compressed key."""

    pubkey: bytes
    signature: bytes


class PsbtInput(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one input. ``unknown`` keeps records that we do not read, in the order of their keys."""

    non_witness_utxo: Transaction | None = None
    witness_utxo: TxOut | None = None
    partial_sigs: tuple[PartialSig, ...] = ()
    sighash_type: int | None = None
    redeem_script: bytes | None = None
    witness_script: bytes | None = None
    keys: tuple[KeyInfo, ...] = ()
    final_script_sig: bytes | None = None
    final_script_witness: tuple[bytes, ...] | None = None
    tap_key_sig: bytes | None = None
    taproot_keys: tuple[TaprootKeyInfo, ...] = ()
    tap_internal_key: bytes | None = None
    tap_merkle_root: bytes | None = None
    unknown: tuple[Record, ...] = ()


class PsbtOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one output; an output of ours carries the origin of its key."""

    redeem_script: bytes | None = None
    witness_script: bytes | None = None
    keys: tuple[KeyInfo, ...] = ()
    tap_internal_key: bytes | None = None
    taproot_keys: tuple[TaprootKeyInfo, ...] = ()
    unknown: tuple[Record, ...] = ()


class Psbt(msgspec.Struct, frozen=True, kw_only=True):
    """``tx`` is unsigned; ``inputs`` and ``outputs`` are as many as it has."""

    tx: Transaction
    inputs: tuple[PsbtInput, ...]
    outputs: tuple[PsbtOutput, ...]
    unknown: tuple[Record, ...] = ()

    def serialize(self) -> bytes:
        """The bytes, each map in the order of its keys; ``PsbtError`` for a value that cannot be written."""
        _check_whole(self)
        top: list[Record] = [(b"\x00", self.tx.serialize_legacy()), *self.unknown]
        maps = [_write_map(top)]
        maps += [_write_map(_input_records(entry)) for entry in self.inputs]
        maps += [_write_map(_output_records(entry)) for entry in self.outputs]
        return PSBT_MAGIC + b"".join(maps)

    def spent_outputs(self) -> tuple[TxOut, ...]:
        """The output that each input spends; ``PsbtError`` if the PSBT does not say."""
        return tuple(self.spent_output(index) for index in range(len(self.inputs)))

    def spent_output(self, index: int) -> TxOut:
        """As ``spent_outputs``, for one input. The two ways to say it were compared when the PSBT was read."""
        entry = self.inputs[index]
        if entry.non_witness_utxo is not None:
            return entry.non_witness_utxo.outputs[self.tx.inputs[index].prevout.vout]
        if entry.witness_utxo is None:
            raise PsbtError(f"input {index} does not say what it spends")
        return entry.witness_utxo


def parse_psbt(data: bytes) -> Psbt:
    """The PSBT that ``data`` is, from the first byte to the last; ``PsbtError`` for anything else.

    Refused are also: other versions than 0, a key that comes twice, a transaction that is signed already, a previous
    transaction that is not the one spent, keys that are no points.
    """
    if len(data) > MAX_PSBT:
        raise PsbtError(f"a PSBT of {len(data)} bytes: {MAX_PSBT} at most")
    if not data.startswith(PSBT_MAGIC):
        raise PsbtError("not a PSBT: it begins with other bytes")
    try:
        return _parse(data)
    except PsbtError:
        raise
    except BitcoinError as error:
        raise PsbtError(f"not a PSBT: {error}") from None


def _parse(data: bytes) -> Psbt:
    top, at = _read_map(data, len(PSBT_MAGIC))
    raw_tx = top.pop(b"\x00", None)
    if raw_tx is None:
        raise PsbtError("the PSBT has no unsigned transaction (version 2 is not read)")
    version = top.pop(b"\xfb", b"\x00\x00\x00\x00")
    if version != b"\x00\x00\x00\x00" or any(len(key) == 1 and 2 <= key[0] <= 6 for key in top):
        raise PsbtError("only version 0 of PSBT is read")
    _refuse_known(top, (0x00, 0xFB), "global")
    tx = parse_transaction(raw_tx)
    inputs, outputs = [], []
    for _ in tx.inputs:
        found, at = _read_map(data, at)
        inputs.append(_read_input(found))
    for _ in tx.outputs:
        found, at = _read_map(data, at)
        outputs.append(_read_output(found))
    if at != len(data):
        raise PsbtError(f"{len(data) - at} bytes too many behind the PSBT")
    psbt = Psbt(tx=tx, inputs=tuple(inputs), outputs=tuple(outputs), unknown=_rest(top))
    _check_whole(psbt)
    return psbt


def _check_whole(psbt: Psbt) -> None:
    """What holds over all maps together."""
    if len(psbt.inputs) != len(psbt.tx.inputs) or len(psbt.outputs) != len(psbt.tx.outputs):
        raise PsbtError("a PSBT has a map for each input and each output of its transaction")
    for index, (tx_in, entry) in enumerate(zip(psbt.tx.inputs, psbt.inputs, strict=True)):
        if tx_in.script_sig or tx_in.witness:
            raise PsbtError("the transaction of a PSBT is unsigned: signatures stand beside it")
        previous = entry.non_witness_utxo
        if previous is None:
            continue
        if previous.txid != tx_in.prevout.txid or tx_in.prevout.vout >= len(previous.outputs):
            raise PsbtError(f"input {index} comes with a previous transaction that it does not spend")
        if entry.witness_utxo not in (None, previous.outputs[tx_in.prevout.vout]):
            raise PsbtError(f"input {index} says in two ways what it spends, and they differ")


# -- maps ------------------------------------------------------------------------------------------------------------


def _read_map(data: bytes, at: int) -> tuple[dict[bytes, bytes], int]:
    found: dict[bytes, bytes] = {}
    while True:
        key, at = read_bytes(data, at)
        if not key:
            return found, at
        if key in found:
            raise PsbtError(f"the key {key[:40].hex()} stands twice in a map")
        found[key], at = read_bytes(data, at)


def _write_map(records: Iterable[Record]) -> bytes:
    parts = []
    for key, value in sorted(records):
        parts += [write_varint(len(key)), key, write_varint(len(value)), value]
    return b"".join((*parts, b"\x00"))


def _rest(found: Mapping[bytes, bytes]) -> tuple[Record, ...]:
    return tuple(sorted(found.items()))


def _refuse_known(found: Mapping[bytes, bytes], types: Iterable[int], where: str) -> None:
    """Records of a type that we read, under a key that such a record cannot have."""
    known = frozenset(types)
    for key in found:
        if key[0] in known:
            raise PsbtError(f"a record of type {key[0]:#04x} in the {where} map has a malformed key")


class _Reader:
    """Takes the known records out of a map."""

    def __init__(self, found: dict[bytes, bytes]) -> None:
        self._found = found

    def one(self, kind: int, read: Callable[[bytes], Any]) -> Any:
        """The record whose key is its type alone, or ``None``."""
        value = self._found.pop(bytes((kind,)), None)
        return None if value is None else read(value)

    def many(self, kind: int, size: Sequence[int], read: Callable[[bytes, bytes], Any]) -> tuple[Any, ...]:
        """Records whose key is the type and a public key of one of these sizes, in the order of keys."""
        keys = sorted(key for key in self._found if key[0] == kind and len(key) - 1 in size)
        return tuple(read(key[1:], self._found.pop(key)) for key in keys)

    def rest(self, known: Iterable[int], where: str) -> tuple[Record, ...]:
        _refuse_known(self._found, known, where)
        return _rest(self._found)


# -- inputs and outputs ----------------------------------------------------------------------------------------------


_INPUT_TYPES = (*range(0x09), 0x13, 0x16, 0x17, 0x18)
_NEWER_INPUT_TYPES = frozenset((0x0E, 0x0F, 0x10, 0x11, 0x12))
_OUTPUT_TYPES = (0x00, 0x01, 0x02, 0x05, 0x07)
_NEWER_OUTPUT_TYPES = frozenset((0x03, 0x04))


def _read_input(found: dict[bytes, bytes]) -> PsbtInput:
    if any(len(key) == 1 and key[0] in _NEWER_INPUT_TYPES for key in found):
        raise PsbtError("only version 0 of PSBT is read")
    _check_script_paths(found)
    reader = _Reader(found)
    return PsbtInput(
        non_witness_utxo=reader.one(0x00, parse_transaction),
        witness_utxo=reader.one(0x01, _read_txout),
        partial_sigs=reader.many(0x02, (33, 65), _read_partial_sig),
        sighash_type=reader.one(0x03, _read_u32),
        redeem_script=reader.one(0x04, bytes),
        witness_script=reader.one(0x05, bytes),
        keys=reader.many(0x06, (33, 65), _read_key),
        final_script_sig=reader.one(0x07, bytes),
        final_script_witness=reader.one(0x08, _read_witness),
        tap_key_sig=reader.one(0x13, _read_tap_sig),
        taproot_keys=reader.many(0x16, (32,), _read_taproot_key),
        tap_internal_key=reader.one(0x17, _read_32),
        tap_merkle_root=reader.one(0x18, _read_32),
        unknown=reader.rest(_INPUT_TYPES, "input"),
    )


def _check_script_paths(found: Mapping[bytes, bytes]) -> None:
    """Taproot script path records are passed on unread, but in the right shape (BIP 371)."""
    for key, value in found.items():
        if key[0] == 0x14 and not (len(key) == 65 and len(value) in (64, 65)):
            raise PsbtError("a signature for a taproot leaf is malformed")
        if key[0] == 0x15 and not (34 <= len(key) <= 34 + 32 * 128 and len(key) % 32 == 2 and value):
            raise PsbtError("a taproot leaf has a malformed control block")


def _input_records(entry: PsbtInput) -> list[Record]:
    records: list[Record] = list(entry.unknown)
    if entry.non_witness_utxo is not None:
        records.append((b"\x00", entry.non_witness_utxo.serialize()))
    if entry.witness_utxo is not None:
        records.append((b"\x01", entry.witness_utxo.serialize()))
    records += [(b"\x02" + sig.pubkey, sig.signature) for sig in entry.partial_sigs]
    if entry.sighash_type is not None:
        records.append((b"\x03", pack_u32(entry.sighash_type)))
    if entry.final_script_witness is not None:
        records.append((b"\x08", serialize_witness(entry.final_script_witness)))
    records += _key_records(0x06, entry.keys)
    records += _taproot_key_records(0x16, entry.taproot_keys)
    plain = (
        (0x04, entry.redeem_script),
        (0x05, entry.witness_script),
        (0x07, entry.final_script_sig),
        (0x13, entry.tap_key_sig),
        (0x17, entry.tap_internal_key),
        (0x18, entry.tap_merkle_root),
    )
    return records + [(bytes((kind,)), value) for kind, value in plain if value is not None]


def _read_output(found: dict[bytes, bytes]) -> PsbtOutput:
    if any(len(key) == 1 and key[0] in _NEWER_OUTPUT_TYPES for key in found):
        raise PsbtError("only version 0 of PSBT is read")
    reader = _Reader(found)
    return PsbtOutput(
        redeem_script=reader.one(0x00, bytes),
        witness_script=reader.one(0x01, bytes),
        keys=reader.many(0x02, (33, 65), _read_key),
        tap_internal_key=reader.one(0x05, _read_32),
        taproot_keys=reader.many(0x07, (32,), _read_taproot_key),
        unknown=reader.rest(_OUTPUT_TYPES, "output"),
    )


def _output_records(entry: PsbtOutput) -> list[Record]:
    plain = ((0x00, entry.redeem_script), (0x01, entry.witness_script), (0x05, entry.tap_internal_key))
    return [
        *entry.unknown,
        *((bytes((kind,)), value) for kind, value in plain if value is not None),
        *_key_records(0x02, entry.keys),
        *_taproot_key_records(0x07, entry.taproot_keys),
    ]


def _key_records(kind: int, keys: Iterable[KeyInfo]) -> list[Record]:
    return [(bytes((kind,)) + key.pubkey, _write_origin(key.origin)) for key in keys]


def _taproot_key_records(kind: int, keys: Iterable[TaprootKeyInfo]) -> list[Record]:
    return [
        (
            bytes((kind,)) + key.xonly,
            write_varint(len(key.leaf_hashes)) + b"".join(key.leaf_hashes) + _write_origin(key.origin),
        )
        for key in keys
    ]


# -- values ----------------------------------------------------------------------------------------------------------


def _read_txout(value: bytes) -> TxOut:
    if len(value) < 8:
        raise PsbtError("an output is cut short")
    script, end = read_bytes(value, 8)
    if end != len(value):
        raise PsbtError("an output has bytes behind its script")
    output = TxOut(value=Sat(int.from_bytes(value[:8], "little")), script=script)
    output.serialize()  # refuses what is no amount
    return output


def _read_u32(value: bytes) -> int:
    if len(value) != 4:
        raise PsbtError(f"a sighash type has 4 bytes, not {len(value)}")
    return int.from_bytes(value, "little")


def _read_32(value: bytes) -> bytes:
    if len(value) != 32:
        raise PsbtError(f"an x-only key or a hash has 32 bytes, not {len(value)}")
    return value


def _read_tap_sig(value: bytes) -> bytes:
    if len(value) not in (64, 65):
        raise PsbtError(f"a taproot signature has 64 or 65 bytes, not {len(value)}")
    return value


def _read_partial_sig(pubkey: bytes, signature: bytes) -> PartialSig:
    if not signature:
        raise PsbtError("a signature is empty")
    return PartialSig(pubkey=_checked(pubkey), signature=signature)


def _read_key(pubkey: bytes, value: bytes) -> KeyInfo:
    return KeyInfo(pubkey=_checked(pubkey), origin=_read_origin(value))


def _read_taproot_key(xonly: bytes, value: bytes) -> TaprootKeyInfo:
    if not is_valid_point(b"\x02" + xonly):
        raise PsbtError("an x-only key is not on the curve")
    count, at = read_varint(value)
    if count > len(value) // 32:
        raise PsbtError("the leaves of a taproot key are cut short")
    end = at + 32 * count
    leaves = tuple(value[place : place + 32] for place in range(at, end, 32))
    return TaprootKeyInfo(xonly=xonly, origin=_read_origin(value[end:]), leaf_hashes=leaves)


def _checked(pubkey: bytes) -> bytes:
    """Keys of 65 bytes only occur in inputs older than segwit, of which we sign none: their form is enough."""
    if len(pubkey) == 33 and not is_valid_point(pubkey):
        raise PsbtError("a public key is not on the curve")
    if len(pubkey) == 65 and pubkey[0] != 4:
        raise PsbtError("a public key of 65 bytes begins with 04")
    return pubkey


def _read_origin(value: bytes) -> KeyOrigin:
    if len(value) < 4 or len(value) % 4 or len(value) > 4 + 4 * _MAX_PATH:
        raise PsbtError(f"the origin of a key has 4 bytes and 4 for each step, not {len(value)}")
    path = tuple(int.from_bytes(value[at : at + 4], "little") for at in range(4, len(value), 4))
    return KeyOrigin(fingerprint=value[:4], path=path)


def _write_origin(origin: KeyOrigin) -> bytes:
    if len(origin.fingerprint) != 4:
        raise PsbtError(f"a fingerprint has 4 bytes, not {len(origin.fingerprint)}")
    return origin.fingerprint + b"".join(pack_u32(step) for step in origin.path)


def _read_witness(value: bytes) -> tuple[bytes, ...]:
    count, at = read_varint(value)
    items = []
    for _ in range(count):
        item, at = read_bytes(value, at)
        items.append(item)
    if at != len(value):
        raise PsbtError("a witness has bytes behind its last item")
    return tuple(items)
