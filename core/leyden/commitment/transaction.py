"""The commitment transaction and what its counterparty signs (BOLT 3). Pure; the hottest code of a node.

Bytes are laid out by hand and hashed once: per HTLC one RIPEMD, one script hash and the digests of its second stage.
Full ``Transaction`` values are made only when somebody asks for them.
"""

from collections.abc import Iterable
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

import msgspec

from leyden.bitcoin import P2A_SCRIPT, Transaction, TxIn, TxOut, p2wsh
from leyden.commitment.htlc_tx import HTLC_SEQUENCE_ANCHORS, ZERO_FEE_VERSION, SecondStage
from leyden.commitment.keys import CommitmentKeys
from leyden.commitment.params import (
    MAX_COMMITMENT_NUMBER,
    CommitmentError,
    CommitmentParams,
    Htlc,
    Statics,
    derive_keys,
    pack_i64,
    pack_u32,
    statics,
)
from leyden.commitment.scripts import HtlcScripts, push_number, to_local_script
from leyden.commitment.weights import (
    ANCHOR_VALUE,
    SHARED_ANCHOR_MAX,
    anchors_cost,
    commitment_fee,
    htlc_tx_fee,
    trim_threshold,
)
from leyden.crypto import ripemd160
from leyden.types import FeeRatePerKw, Msat, Sat, Txid
from leyden.types.rules import C_087, C_101, C_102, C_104, C_107, C_112

_VERSION_2 = b"\x02\x00\x00\x00"
_VERSION_3 = b"\x03\x00\x00\x00"
_SIGHASH_ALL_U32 = b"\x01\x00\x00\x00"
_SINGLE_ANYONECANPAY_U32 = b"\x83\x00\x00\x00"
_ZEROES_64 = bytes(64)
_LENGTH = [bytes((n,)) for n in range(0xFD)]


class CommitmentOutput(NamedTuple):
    """An output, ordered by its first three fields (BOLT 3); ``id`` makes the order total."""

    value: int
    script: bytes
    cltv_expiry: int
    id: int
    htlc: Htlc | None
    witness_script: bytes


_TO_LOCAL, _TO_REMOTE, _OWNER_ANCHOR, _OTHER_ANCHOR = -4, -3, -2, -1
_SHARED_ANCHOR = -5


class CommitmentHtlc(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An untrimmed HTLC on a commitment."""

    htlc: Htlc
    output_index: int
    value: Sat
    """Value of the commitment's output, in satoshi."""
    script: bytes
    """Witness script of the commitment's output."""
    sighash: bytes
    """What the counterparty signs: SIGHASH_ALL, with anchors or zero fees SINGLE|ANYONECANPAY."""
    second_stage: SecondStage

    @property
    def tx(self) -> Transaction:
        """The unsigned HTLC-timeout (offered) or HTLC-success (received) transaction."""
        return self.second_stage.make_tx(self.htlc, self.output_index)


class Commitment(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One commitment transaction, unsigned, and everything needed to sign, verify and spend it.

    ``number`` counts up from 0. ``htlcs`` are the untrimmed ones in output order, which is the order of
    ``htlc_signature`` in ``commitment_signed``; ``trimmed`` the others.
    """

    params: CommitmentParams
    number: int
    keys: CommitmentKeys
    feerate: FeeRatePerKw
    txid: Txid
    sighash: bytes
    """SIGHASH_ALL digest of the funding input: what both funding keys sign."""
    htlcs: tuple[CommitmentHtlc, ...]
    trimmed: tuple[Htlc, ...]
    outputs: tuple[CommitmentOutput, ...]
    sequence: int
    locktime: int
    fee: Sat
    """What the transaction really pays: base fee, trimmed outputs and rounding."""

    @cached_property
    def tx(self) -> Transaction:
        """The unsigned transaction."""
        return Transaction(
            version=ZERO_FEE_VERSION if self.params.zero_fee and C_112.enabled else 2,
            inputs=(TxIn(prevout=self.params.funding_outpoint, sequence=self.sequence),),
            outputs=tuple(TxOut(value=Sat(o.value), script=o.script) for o in self.outputs),
            locktime=self.locktime,
        )

    @property
    def to_local(self) -> int | None:
        """Index of the owner's balance, or None if there is no such output."""
        return self._place(_TO_LOCAL)

    @property
    def to_remote(self) -> int | None:
        """Index of the other side's balance, or None."""
        return self._place(_TO_REMOTE)

    @property
    def owner_anchor(self) -> int | None:
        """Index of the owner's anchor, or None."""
        return self._place(_OWNER_ANCHOR)

    @property
    def other_anchor(self) -> int | None:
        """Index of the other side's anchor, or None."""
        return self._place(_OTHER_ANCHOR)

    @property
    def shared_anchor(self) -> int | None:
        """Index of the anchor that anybody may spend, which every zero-fee commitment has; else None."""
        return self._place(_SHARED_ANCHOR)

    def _place(self, id: int) -> int | None:
        return next((index for index, output in enumerate(self.outputs) if output.id == id), None)

    @property
    def funding_script(self) -> bytes:
        """Witness script of the funding output."""
        return statics(self.params).funding_script

    @property
    def to_local_script(self) -> bytes:
        """Witness script of ``to_local`` and of every HTLC transaction's output."""
        return to_local_script(self.keys.revocation_pubkey, self.params.to_self_delay, self.keys.owner_delayed_pubkey)


def _outputs_of_sides(
    params: CommitmentParams, facts: Statics, to_local_spk: bytes, to_local_sat: int, to_remote_sat: int, htlcs: bool
) -> list[CommitmentOutput]:
    """Balances at or above the owner's dust limit, and the anchors that belong to them (BOLT 3, outputs)."""
    outputs: list[CommitmentOutput] = []
    has_local = to_local_sat >= params.owner_dust_limit
    has_remote = to_remote_sat >= params.owner_dust_limit
    if has_local:
        outputs.append(CommitmentOutput(to_local_sat, to_local_spk, 0, _TO_LOCAL, None, b""))
    if has_remote:
        outputs.append(CommitmentOutput(to_remote_sat, facts.to_remote, 0, _TO_REMOTE, None, b""))
    if params.anchors and C_104.enabled:
        if has_local or htlcs:
            outputs.append(CommitmentOutput(ANCHOR_VALUE, facts.owner_anchor, 0, _OWNER_ANCHOR, None, b""))
        if has_remote or htlcs:
            outputs.append(CommitmentOutput(ANCHOR_VALUE, facts.other_anchor, 0, _OTHER_ANCHOR, None, b""))
    return outputs


def _outputs_of_htlcs(
    params: CommitmentParams, keys: CommitmentKeys, feerate: FeeRatePerKw, htlcs: Iterable[Htlc]
) -> tuple[list[CommitmentOutput], list[Htlc]]:
    """Outputs of the untrimmed HTLCs, and the trimmed HTLCs."""
    anchors, dust_limit, zero_fee = params.anchors, params.owner_dust_limit, params.zero_fee
    offered_from = trim_threshold(anchors, dust_limit, feerate, True, zero_fee=zero_fee)
    received_from = trim_threshold(anchors, dust_limit, feerate, False, zero_fee=zero_fee)
    outputs: list[CommitmentOutput] = []
    trimmed: list[Htlc] = []
    scripts: HtlcScripts | None = None
    for htlc in htlcs:
        value = htlc.amount_msat // 1000
        offered = htlc.offered_by_owner
        if value < (offered_from if offered else received_from):
            trimmed.append(htlc)
            continue
        if scripts is None:
            scripts = HtlcScripts(keys.revocation_pubkey, keys.owner_htlc_pubkey, keys.other_htlc_pubkey, anchors)
            offered_prefix, offered_suffix = scripts.offered_prefix, scripts.offered_suffix
            received_prefix, received_middle = scripts.received_prefix, scripts.received_middle
            received_suffix = scripts.received_suffix
        expiry = htlc.cltv_expiry
        hashed = ripemd160(htlc.payment_hash)
        if offered:
            script = offered_prefix + hashed + offered_suffix
        else:
            script = b"".join((received_prefix, hashed, received_middle, push_number(expiry), received_suffix))
        outputs.append(CommitmentOutput(value, b"\x00\x20" + sha256(script).digest(), expiry, htlc.id, htlc, script))
    return outputs, trimmed


def _second_stage_digests(facts: SecondStage, outputs: list[CommitmentOutput]) -> tuple[CommitmentHtlc, ...]:
    """What the counterparty signs for each HTLC, in output order (BIP 143 laid out by hand)."""
    txid = facts.commitment_txid
    output_tail = _LENGTH[len(facts.output_script)] + facts.output_script
    locktime_success = bytes(4)
    anchors, zero_fee = facts.anchors and C_107.enabled, facts.zero_fee and C_112.enabled
    one_input = anchors or zero_fee
    if one_input:
        prefix = (_VERSION_3 if zero_fee else _VERSION_2) + _ZEROES_64 + txid
        sequence, hashtype = pack_u32(HTLC_SEQUENCE_ANCHORS if anchors else 0), _SINGLE_ANYONECANPAY_U32
    else:
        sequence, hashtype = bytes(4), _SIGHASH_ALL_U32
        hash_sequence = sha256(sha256(sequence).digest()).digest()
    timeout_fee, success_fee = facts.timeout_fee, facts.success_fee
    found: list[CommitmentHtlc] = []
    for index, output in enumerate(outputs):
        htlc = output.htlc
        if htlc is None:
            continue
        value, script = output.value, output.witness_script
        if htlc.offered_by_owner:
            out_value, locktime = value - timeout_fee, pack_u32(output.cltv_expiry)
        else:
            out_value, locktime = value - success_fee, locktime_success
        hash_outputs = sha256(sha256(pack_i64(out_value) + output_tail).digest()).digest()
        vout = pack_u32(index)
        if not one_input:
            hash_prevouts = sha256(sha256(txid + vout).digest()).digest()
            prefix = b"".join((_VERSION_2, hash_prevouts, hash_sequence, txid))
        preimage = b"".join(
            (prefix, vout, _LENGTH[len(script)], script, pack_i64(value), sequence, hash_outputs, locktime, hashtype)
        )
        digest = sha256(sha256(preimage).digest()).digest()
        found.append(
            CommitmentHtlc(
                htlc=htlc, output_index=index, value=Sat(value), script=script, sighash=digest, second_stage=facts
            )
        )
    if not C_087.enabled:
        found.sort(key=lambda entry: entry.htlc.id)
    return tuple(found)


def _hash_twice(*parts: bytes) -> bytes:
    return sha256(sha256(b"".join(parts)).digest()).digest()


def _txid_and_sighash(
    facts: Statics, version: bytes, outputs: list[CommitmentOutput], sequence: int, locktime: int
) -> tuple[bytes, bytes]:
    """The transaction id and the SIGHASH_ALL digest of the funding input (BIP 143)."""
    sequence_bytes, locktime_bytes = pack_u32(sequence), pack_u32(locktime)
    count = len(outputs)
    output_count = bytes((count,)) if count < 0xFD else b"\xfd" + count.to_bytes(2, "little")
    output_bytes = b"".join([part for o in outputs for part in (pack_i64(o[0]), _LENGTH[len(o[1])], o[1])])
    txid = _hash_twice(
        version + b"\x01", facts.outpoint, b"\x00", sequence_bytes, output_count, output_bytes, locktime_bytes
    )
    sighash = _hash_twice(
        version,
        facts.hash_prevouts,
        _hash_twice(sequence_bytes),
        facts.outpoint,
        facts.funding_script_code,
        sequence_bytes,
        _hash_twice(output_bytes),
        locktime_bytes,
        _SIGHASH_ALL_U32,
    )
    return txid, sighash


def _all_outputs(
    params: CommitmentParams,
    keys: CommitmentKeys,
    number: int,
    feerate: FeeRatePerKw,
    owner_msat: Msat,
    other_msat: Msat,
    htlcs: Iterable[Htlc],
) -> tuple[list[CommitmentOutput], list[Htlc], bytes, int]:
    """Every output in its place, the HTLCs that have none, the delayed script where one is needed, and the fee."""
    zero_fee = params.zero_fee and C_112.enabled
    outputs, trimmed = _outputs_of_htlcs(params, keys, feerate, htlcs)
    untrimmed = len(outputs)
    cost = commitment_fee(params.anchors, feerate, untrimmed, zero_fee=zero_fee) + anchors_cost(params.anchors)
    local_sat, remote_sat = owner_msat // 1000, other_msat // 1000
    if params.owner_is_funder:
        local_sat = max(0, local_sat - cost)
    else:
        remote_sat = max(0, remote_sat - cost)
    delayed_script = b""
    if untrimmed or local_sat >= params.owner_dust_limit:  # otherwise its keys need not be derived
        delayed_script = p2wsh(to_local_script(keys.revocation_pubkey, params.to_self_delay, keys.owner_delayed_pubkey))
    outputs += _outputs_of_sides(params, statics(params), delayed_script, local_sat, remote_sat, untrimmed > 0)
    fee = params.funding_value - sum([output[0] for output in outputs])
    if fee < 0:
        raise CommitmentError(f"commitment {number} would spend {-fee} sat more than the funding output holds")
    if zero_fee:
        shared = min(SHARED_ANCHOR_MAX, fee)
        fee -= shared
        outputs.append(CommitmentOutput(shared, P2A_SCRIPT, 0, _SHARED_ANCHOR, None, b""))
    if C_101.enabled:
        outputs.sort()
    return outputs, trimmed, delayed_script, fee


def make_commitment(
    params: CommitmentParams,
    number: int,
    per_commitment_point: bytes,
    owner_msat: Msat,
    other_msat: Msat,
    htlcs: Iterable[Htlc],
    feerate: FeeRatePerKw,
) -> Commitment:
    """Build commitment ``number`` (from 0 upwards) of the owner, with the digests its counterparty signs.

    ``owner_msat`` and ``other_msat`` are the balances without HTLCs and before fees and anchors, which the funder's
    balance pays as far as it reaches. Amounts round down to satoshi; what is trimmed goes to fees. Zero-fee commitments
    have no fee whatever the ``feerate``, and what is trimmed or rounded off goes to their shared anchor first.
    ``CommitmentError`` if the number is out of range or the outputs exceed the funding; with balances that add up, that
    is only possible when the funder has less than its two anchors cost, which the channel must not let happen.
    """
    if not 0 <= number <= MAX_COMMITMENT_NUMBER:
        raise CommitmentError(f"commitment number {number} is outside 0..2^48-1")
    if owner_msat < 0 or other_msat < 0:
        raise CommitmentError(f"commitment {number} has a negative balance")
    facts, zero_fee = statics(params), params.zero_fee and C_112.enabled
    keys = derive_keys(params, per_commitment_point)
    outputs, trimmed, delayed_script, fee = _all_outputs(params, keys, number, feerate, owner_msat, other_msat, htlcs)
    obscured = number ^ facts.obscure_factor if C_102.enabled else number
    sequence, locktime = 0x80 << 24 | obscured >> 24, 0x20 << 24 | obscured & 0xFFFFFF
    version = _VERSION_3 if zero_fee else _VERSION_2
    txid, sighash = _txid_and_sighash(facts, version, outputs, sequence, locktime)
    signed: tuple[CommitmentHtlc, ...] = ()
    if any(output.htlc is not None for output in outputs):
        second_stage = SecondStage(
            commitment_txid=Txid(txid),
            anchors=params.anchors,
            timeout_fee=htlc_tx_fee(params.anchors, feerate, True, zero_fee=zero_fee),
            success_fee=htlc_tx_fee(params.anchors, feerate, False, zero_fee=zero_fee),
            output_script=delayed_script,
            zero_fee=params.zero_fee,
        )
        signed = _second_stage_digests(second_stage, outputs)
    return Commitment(
        params=params,
        number=number,
        keys=keys,
        feerate=feerate,
        txid=Txid(txid),
        sighash=sighash,
        htlcs=signed,
        trimmed=tuple(trimmed),
        outputs=tuple(outputs),
        sequence=sequence,
        locktime=locktime,
        fee=Sat(fee),
    )
