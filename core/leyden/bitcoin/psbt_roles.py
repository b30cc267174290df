"""What signers and finalisers of a PSBT share: the digest of an input, and the signed transaction (BIP 174, roles).

Inputs are P2WPKH and taproot key path; others must come with their final witness.
"""

import msgspec

from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.finalize import finalize_transaction
from leyden.bitcoin.psbt import Psbt, PsbtError, PsbtInput
from leyden.bitcoin.script import is_p2tr, is_p2wpkh, p2wpkh
from leyden.bitcoin.sighash import SIGHASH_ALL, sighash_segwit_v0
from leyden.bitcoin.taproot import SIGHASH_DEFAULT, sighash_taproot
from leyden.bitcoin.transaction import Transaction, TxIn, TxOut
from leyden.crypto import CryptoError, der_to_sig, ecdsa_verify, hash160, is_low_s, schnorr_verify

_ALL = bytes((SIGHASH_ALL,))


def p2wpkh_script_code(pubkey: bytes) -> bytes:
    """What BIP 143 signs in place of the script of a P2WPKH output of this compressed key."""
    return b"\x76\xa9\x14" + hash160(pubkey) + b"\x88\xac"


def psbt_digest(psbt: Psbt, index: int) -> bytes:
    """The 32 bytes that the key of input ``index`` signs, for SIGHASH_ALL (P2WPKH) or SIGHASH_DEFAULT (taproot).

    ``PsbtError`` when the input spends anything else, asks for another sighash type, or does not say what it spends.
    A version 0 input must bring its previous transaction: its signature does not commit to the amounts of the others,
    so a lie about one amount could turn it into a fee.
    """
    entry, spent = psbt.inputs[index], psbt.spent_output(index)
    if is_p2wpkh(spent.script):
        if entry.non_witness_utxo is None:
            raise PsbtError(f"input {index} comes without the transaction that it spends")
        if entry.sighash_type not in (None, SIGHASH_ALL):
            raise PsbtError(f"input {index} asks for sighash type {entry.sighash_type}: only ALL is signed")
        script_code = b"\x76\xa9\x14" + spent.script[2:] + b"\x88\xac"
        return sighash_segwit_v0(psbt.tx, index, script_code, spent.value)
    if is_p2tr(spent.script):
        if entry.sighash_type not in (None, SIGHASH_DEFAULT):
            raise PsbtError(f"input {index} asks for sighash type {entry.sighash_type}: only DEFAULT is signed")
        return sighash_taproot(psbt.tx, index, psbt.spent_outputs())
    raise PsbtError(f"input {index} spends neither P2WPKH nor a taproot key")


def unsigned_inputs(psbt: Psbt) -> tuple[int, ...]:
    """The inputs that have no signature yet."""
    return tuple(
        index
        for index, entry in enumerate(psbt.inputs)
        if entry.final_script_witness is None and entry.tap_key_sig is None and not entry.partial_sigs
    )


def take_signatures(ours: Psbt, signed: Psbt) -> Psbt:
    """``ours`` with the signatures of ``signed`` and nothing else of it (BIP 174, combiner).

    ``PsbtError`` if that is about another transaction.
    """
    if signed.tx != ours.tx:
        raise PsbtError("the PSBT came back with another transaction")
    inputs = tuple(
        msgspec.structs.replace(
            entry,
            partial_sigs=answer.partial_sigs or entry.partial_sigs,
            tap_key_sig=answer.tap_key_sig or entry.tap_key_sig,
            final_script_witness=answer.final_script_witness or entry.final_script_witness,
        )
        for entry, answer in zip(ours.inputs, signed.inputs, strict=True)
    )
    return msgspec.structs.replace(ours, inputs=inputs)


def finalize_psbt(psbt: Psbt) -> Transaction:
    """The signed transaction, each signature verified. ``PsbtError`` names an input that is not signed, or wrongly."""
    spent = psbt.spent_outputs()
    inputs = tuple(
        TxIn(prevout=tx_in.prevout, sequence=tx_in.sequence, witness=_witness(psbt, index, spent[index]))
        for index, tx_in in enumerate(psbt.tx.inputs)
    )
    tx = Transaction(version=psbt.tx.version, inputs=inputs, outputs=psbt.tx.outputs, locktime=psbt.tx.locktime)
    return finalize_transaction(tx, spent)


def _witness(psbt: Psbt, index: int, spent: TxOut) -> tuple[bytes, ...]:
    entry = psbt.inputs[index]
    if entry.final_script_sig:
        raise PsbtError(f"input {index} is no native segwit input")
    try:
        if entry.final_script_witness:
            return _checked_final(psbt, index, spent)
        if is_p2tr(spent.script) and entry.tap_key_sig is not None:
            return _taproot_witness(psbt, index, entry.tap_key_sig, spent)
        if is_p2wpkh(spent.script):
            return _p2wpkh_witness(psbt, index, entry, spent)
    except CryptoError as error:
        raise PsbtError(f"input {index}: {error}") from None
    raise PsbtError(f"input {index} is not signed")


def _checked_final(psbt: Psbt, index: int, spent: TxOut) -> tuple[bytes, ...]:
    """A witness that another finaliser made: verified where we know how."""
    witness = psbt.inputs[index].final_script_witness or ()
    if is_p2wpkh(spent.script):
        if len(witness) != 2:
            raise PsbtError(f"input {index}: the witness of P2WPKH is a signature and a key")
        _check_p2wpkh(psbt, index, witness[1], witness[0], spent)
    elif is_p2tr(spent.script) and len(witness) == 1:
        return _taproot_witness(psbt, index, witness[0], spent)
    return witness


def _taproot_witness(psbt: Psbt, index: int, signature: bytes, spent: TxOut) -> tuple[bytes, ...]:
    if len(signature) != 64 or not schnorr_verify(spent.script[2:], psbt_digest(psbt, index), signature):
        raise PsbtError(f"the signature of input {index} is wrong")
    return (signature,)


def _p2wpkh_witness(psbt: Psbt, index: int, entry: PsbtInput, spent: TxOut) -> tuple[bytes, ...]:
    for sig in entry.partial_sigs:
        if p2wpkh(hash160(sig.pubkey)) == spent.script:
            _check_p2wpkh(psbt, index, sig.pubkey, sig.signature, spent)
            return sig.signature, sig.pubkey
    raise PsbtError(f"input {index} is not signed")


def _check_p2wpkh(psbt: Psbt, index: int, pubkey: bytes, signature: bytes, spent: TxOut) -> None:
    compact = der_to_sig(signature[:-1]) if signature.endswith(_ALL) else b""
    good = (
        p2wpkh(hash160(pubkey)) == spent.script
        and len(pubkey) == 33
        and len(compact) == 64
        and is_low_s(compact)
        and ecdsa_verify(pubkey, psbt_digest(psbt, index), compact)
    )
    if not good:
        raise PsbtError(f"the signature of input {index} is wrong")


def signed_weight(psbt: Psbt) -> int:
    """Weight of the transaction once every P2WPKH and taproot input is signed, never too low."""
    witnesses = 0
    for spent in psbt.spent_outputs():
        if is_p2wpkh(spent.script):
            witnesses += 1 + 1 + 72 + 1 + 33
        elif is_p2tr(spent.script):
            witnesses += 1 + 1 + 64
        else:
            raise BitcoinError("only P2WPKH and taproot key inputs have a known weight")
    return 4 * len(psbt.tx.serialize_legacy()) + 2 + witnesses
