"""Every way to spend an output of a commitment: built here, judged by the kernel through ``finalize_transaction``."""

import msgspec
import pytest
from commitment_kit import OTHER, OWNER, POINT, make_htlc, make_params, preimage
from leyden.bitcoin import Transaction, TxIn, TxOut, finalize_transaction, p2wpkh, p2wsh, sighash_segwit_v0
from leyden.commitment import (
    SHARED_ANCHOR_WITNESS,
    Commitment,
    CommitmentHtlc,
    Witness,
    anchor_anyone_witness,
    anchor_script,
    anchor_witness,
    derive_private_key,
    derive_revocation_private_key,
    funding_output,
    funding_witness,
    htlc_penalty_witness,
    htlc_preimage_claim_witness,
    htlc_success_witness,
    htlc_timeout_claim_witness,
    htlc_timeout_witness,
    make_closing_tx,
    make_commitment,
    p2wpkh_witness,
    to_local_delayed_witness,
    to_local_penalty_witness,
    to_remote_anchors_witness,
    to_remote_script,
)
from leyden.crypto import ecdsa_sign, pubkey_create
from leyden.types import FeeRatePerKw, Msat, OutPoint, Sat

every_type = pytest.mark.parametrize(
    ("anchors", "zero_fee"),
    [(False, False), (True, False), (False, True)],
    ids=["static_remotekey", "anchors", "zero_fee"],
)
DELAY = 144
REVOCATION_SECRET = derive_revocation_private_key(OTHER.revocation, OWNER.commitment)
DELAYED_SECRET = derive_private_key(OWNER.delayed, POINT)


def build(anchors: bool, zero_fee: bool = False) -> Commitment:
    htlcs = (make_htlc(0, offered=True), make_htlc(1, offered=False))
    balances = Msat(5_000_000_000), Msat(4_900_000_000)
    return make_commitment(
        make_params(anchors=anchors, zero_fee=zero_fee), 7, POINT, *balances, htlcs, FeeRatePerKw(2500)
    )


def output_of(commitment: Commitment, index: int | None) -> tuple[OutPoint, TxOut]:
    assert index is not None
    return OutPoint(commitment.txid, index), commitment.tx.outputs[index]


def spend(place: tuple[OutPoint, TxOut], *, sequence: int = 0, locktime: int = 0) -> Transaction:
    outpoint, output = place
    return Transaction(
        version=2,
        inputs=(TxIn(prevout=outpoint, sequence=sequence),),
        outputs=(TxOut(value=Sat(output.value - 200 if output.value > 600 else 0), script=p2wpkh(bytes(20))),),
        locktime=locktime,
    )


def sign(tx: Transaction, secret: bytes, script: bytes, output: TxOut) -> bytes:
    return ecdsa_sign(secret, sighash_segwit_v0(tx, 0, script, output.value))


def finish(tx: Transaction, witness: Witness, output: TxOut) -> Transaction:
    signed = (msgspec.structs.replace(tx.inputs[0], witness=witness),)
    return finalize_transaction(msgspec.structs.replace(tx, inputs=signed), [output])


@every_type
def test_funding_output(anchors: bool, zero_fee: bool) -> None:
    commitment = build(anchors, zero_fee)
    witness = funding_witness(
        OTHER.keys.funding_pubkey,
        ecdsa_sign(OTHER.funding, commitment.sighash),
        OWNER.keys.funding_pubkey,
        ecdsa_sign(OWNER.funding, commitment.sighash),
        commitment.funding_script,
    )
    finish(commitment.tx, witness, funding_output(commitment.params))


@every_type
def test_to_local_by_its_owner_and_as_penalty(anchors: bool, zero_fee: bool) -> None:
    commitment = build(anchors, zero_fee)
    place, script = output_of(commitment, commitment.to_local), commitment.to_local_script
    tx = spend(place, sequence=DELAY)
    finish(tx, to_local_delayed_witness(sign(tx, DELAYED_SECRET, script, place[1]), script), place[1])
    tx = spend(place)
    finish(tx, to_local_penalty_witness(sign(tx, REVOCATION_SECRET, script, place[1]), script), place[1])


@pytest.mark.proves("C-103")
def test_to_remote() -> None:
    commitment = build(True)
    place = output_of(commitment, commitment.to_remote)
    script = to_remote_script(OTHER.keys.payment_basepoint)
    assert place[1].script == p2wsh(script)
    tx = spend(place, sequence=1)
    finish(tx, to_remote_anchors_witness(sign(tx, OTHER.payment, script, place[1]), script), place[1])

    for zero_fee in (False, True):
        commitment = build(False, zero_fee)
        place = output_of(commitment, commitment.to_remote)
        key = OTHER.keys.payment_basepoint
        assert place[1].script == p2wpkh(key)
        tx = spend(place)
        code = b"\x76\xa9" + place[1].script[1:] + b"\x88\xac"
        finish(tx, p2wpkh_witness(sign(tx, OTHER.payment, code, place[1]), key), place[1])


def second_stage(commitment: Commitment, entry: CommitmentHtlc) -> Transaction:
    anchors, zero_fee = commitment.params.anchors, commitment.params.zero_fee
    output = commitment.tx.outputs[entry.output_index]
    own = sign(entry.tx, OWNER.htlc_at(POINT), entry.script, output)
    peer = ecdsa_sign(OTHER.htlc_at(POINT), entry.sighash)
    if entry.htlc.offered_by_owner:
        witness = htlc_timeout_witness(peer, own, entry.script, anchors=anchors, zero_fee=zero_fee)
    else:
        known = preimage(entry.htlc.id)
        witness = htlc_success_witness(peer, own, known, entry.script, anchors=anchors, zero_fee=zero_fee)
    return finish(entry.tx, witness, output)


@pytest.mark.proves("C-107")
@every_type
def test_second_stage_and_its_output(anchors: bool, zero_fee: bool) -> None:
    commitment = build(anchors, zero_fee)
    for entry in commitment.htlcs:
        claimed = second_stage(commitment, entry)
        assert claimed.inputs[0].sequence == (1 if anchors else 0)
        assert claimed.locktime == (entry.htlc.cltv_expiry if entry.htlc.offered_by_owner else 0)
        if anchors or zero_fee:
            assert claimed.outputs[0].value == entry.value
        place, script = (OutPoint(claimed.txid, 0), claimed.outputs[0]), commitment.to_local_script
        tx = spend(place, sequence=DELAY)
        finish(tx, to_local_delayed_witness(sign(tx, DELAYED_SECRET, script, place[1]), script), place[1])
        tx = spend(place)
        finish(tx, to_local_penalty_witness(sign(tx, REVOCATION_SECRET, script, place[1]), script), place[1])


@pytest.mark.parametrize(("anchors", "zero_fee"), [(True, False), (False, True)], ids=["anchors", "zero_fee"])
def test_second_stage_takes_another_input_for_its_fee(anchors: bool, zero_fee: bool) -> None:
    commitment = build(anchors, zero_fee)
    for entry in commitment.htlcs:
        coin = TxOut(value=Sat(20_000), script=p2wpkh(OWNER.keys.payment_basepoint))
        extra = TxIn(prevout=OutPoint(commitment.txid, 900), sequence=0xFFFFFFFD)
        change = TxOut(value=Sat(15_000), script=p2wpkh(OWNER.keys.payment_basepoint))
        tx = msgspec.structs.replace(entry.tx, inputs=(*entry.tx.inputs, extra), outputs=(*entry.tx.outputs, change))
        output = commitment.tx.outputs[entry.output_index]
        own = sign(tx, OWNER.htlc_at(POINT), entry.script, output)
        peer = ecdsa_sign(OTHER.htlc_at(POINT), entry.sighash)
        if entry.htlc.offered_by_owner:
            witness = htlc_timeout_witness(peer, own, entry.script, anchors=anchors, zero_fee=zero_fee)
        else:
            known = preimage(entry.htlc.id)
            witness = htlc_success_witness(peer, own, known, entry.script, anchors=anchors, zero_fee=zero_fee)
        code = b"\x76\xa9" + coin.script[1:] + b"\x88\xac"
        fee_signature = ecdsa_sign(OWNER.payment, sighash_segwit_v0(tx, 1, code, coin.value))
        inputs = (
            msgspec.structs.replace(tx.inputs[0], witness=witness),
            msgspec.structs.replace(extra, witness=p2wpkh_witness(fee_signature, OWNER.keys.payment_basepoint)),
        )
        finalize_transaction(msgspec.structs.replace(tx, inputs=inputs), [output, coin])


@every_type
def test_claims_on_the_others_commitment(anchors: bool, zero_fee: bool) -> None:
    commitment = build(anchors, zero_fee)
    sequence = 1 if anchors else 0
    for entry in commitment.htlcs:
        place = OutPoint(commitment.txid, entry.output_index), commitment.tx.outputs[entry.output_index]
        secret = OTHER.htlc_at(POINT)
        if entry.htlc.offered_by_owner:
            tx = spend(place, sequence=sequence)
            signature = sign(tx, secret, entry.script, place[1])
            finish(tx, htlc_preimage_claim_witness(signature, preimage(entry.htlc.id), entry.script), place[1])
        else:
            tx = spend(place, sequence=sequence, locktime=entry.htlc.cltv_expiry)
            signature = sign(tx, secret, entry.script, place[1])
            finish(tx, htlc_timeout_claim_witness(signature, entry.script), place[1])
        # A penalty need not wait for a confirmation, with anchors neither.
        tx = spend(place)
        key = commitment.keys.revocation_pubkey
        assert key == pubkey_create(REVOCATION_SECRET)
        signature = sign(tx, REVOCATION_SECRET, entry.script, place[1])
        finish(tx, htlc_penalty_witness(signature, key, entry.script), place[1])


@pytest.mark.proves("C-104")
def test_anchors_by_owner_and_by_anybody() -> None:
    commitment = build(True)
    for index, side in ((commitment.owner_anchor, OWNER), (commitment.other_anchor, OTHER)):
        place, script = output_of(commitment, index), anchor_script(side.keys.funding_pubkey)
        tx = spend(place)
        finish(tx, anchor_witness(sign(tx, side.funding, script, place[1]), script), place[1])
        finish(spend(place, sequence=16), anchor_anyone_witness(script), place[1])


@pytest.mark.proves("C-112")
def test_shared_anchor_by_anybody() -> None:
    place = output_of(commitment := build(False, True), commitment.shared_anchor)
    tx = spend(place)
    finish(msgspec.structs.replace(tx, version=3), SHARED_ANCHOR_WITNESS, place[1])


def test_mutual_close() -> None:
    params = make_params()
    tx = make_closing_tx(
        funding_outpoint=params.funding_outpoint,
        local_script=p2wpkh(bytes(20)),
        remote_script=p2wpkh(b"\x01" * 20),
        local_msat=Msat(6_000_000_000),
        remote_msat=Msat(4_000_000_000),
        fee=Sat(700),
        local_is_funder=True,
        dust_limit=Sat(354),
    )
    funding = funding_output(params)
    script = build(True).funding_script
    witness = funding_witness(
        OWNER.keys.funding_pubkey,
        sign(tx, OWNER.funding, script, funding),
        OTHER.keys.funding_pubkey,
        sign(tx, OTHER.funding, script, funding),
        script,
    )
    finish(tx, witness, funding)
