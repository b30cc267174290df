"""What a signature of a segwit version 0 input commits to (BIP 143)."""

from leyden.bitcoin.encoding import write_varint
from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.transaction import Transaction, pack_u32, serialize_outpoint
from leyden.crypto import sha256d
from leyden.types import MAX_MONEY_SAT, Sat

SIGHASH_ALL = 0x01
SIGHASH_NONE = 0x02
SIGHASH_SINGLE = 0x03
SIGHASH_ANYONECANPAY = 0x80
SIGHASH_SINGLE_ANYONECANPAY = SIGHASH_SINGLE | SIGHASH_ANYONECANPAY
"""The type of the counterparty's HTLC signatures with anchors (BOLT 3)."""

_ZERO = bytes(32)


def sighash_segwit_v0(
    tx: Transaction, index: int, script_code: bytes, value: Sat, hashtype: int = SIGHASH_ALL
) -> bytes:
    """The 32-byte digest to sign for input ``index``, which spends ``value`` satoshi (BIP 143).

    ``script_code`` is the witness script of a P2WSH input, and for P2WPKH the P2PKH script of the same key hash
    (``p2pkh``). ``hashtype`` is one byte. ``BitcoinError`` if the index, the value or the type is out of range.
    """
    if not 0 <= index < len(tx.inputs):
        raise BitcoinError(f"the transaction has no input {index}")
    if not 0 <= value <= MAX_MONEY_SAT:
        raise BitcoinError(f"an output cannot hold {value} sat")
    if not 0 <= hashtype <= 0xFF:
        raise BitcoinError(f"{hashtype} is no sighash type")
    base = hashtype & 0x1F
    one_input = hashtype & SIGHASH_ANYONECANPAY
    if base == SIGHASH_SINGLE:
        outputs_hash = sha256d(tx.outputs[index].serialize()) if index < len(tx.outputs) else _ZERO
    else:
        outputs_hash = _ZERO if base == SIGHASH_NONE else tx.outputs_hash
    txin = tx.inputs[index]
    return sha256d(
        b"".join(
            (
                pack_u32(tx.version),
                _ZERO if one_input else tx.prevouts_hash,
                _ZERO if one_input or base in (SIGHASH_SINGLE, SIGHASH_NONE) else tx.sequences_hash,
                serialize_outpoint(txin.prevout),
                write_varint(len(script_code)),
                script_code,
                value.to_bytes(8, "little"),
                pack_u32(txin.sequence),
                outputs_hash,
                pack_u32(tx.locktime),
                hashtype.to_bytes(4, "little"),
            )
        )
    )
