"""What differs between channel types in what ``InMemoryChannelKeys`` signs: HTLC signatures and our balance."""

import msgspec
import pytest
from leyden.bitcoin import (
    SIGHASH_ALL,
    SIGHASH_SINGLE_ANYONECANPAY,
    Network,
    Transaction,
    TxIn,
    TxOut,
    finalize_transaction,
    is_p2wpkh,
    is_p2wsh,
    p2pkh,
    p2wpkh,
    sighash_segwit_v0,
)
from leyden.commitment import (
    Commitment,
    htlc_success_witness,
    htlc_timeout_witness,
    p2wpkh_witness,
    to_remote_anchors_witness,
    to_remote_script,
)
from leyden.crypto import ecdsa_verify
from leyden.hooks.signing import ChannelSetup, SignerRefused, SignSweep, SweepKind
from leyden.testing.signer_conformance import Dance, build
from leyden.types import OutPoint, Sat, Side
from leyden_inmemory import InMemoryKeyManager

both_types = pytest.mark.parametrize("anchors", [False, True], ids=["static_remotekey", "anchors"])
NUMBER = 3  # a state of the dance with an HTLC in each direction


async def remote_commitment(anchors: bool) -> tuple[Dance, Commitment]:
    dance = await Dance.begin(InMemoryKeyManager(bytes(range(32)), Network.REGTEST), anchors=anchors)
    for number in range(1, NUMBER + 1):
        await dance.step(number)
    return dance, build(dance.setup, Side.REMOTE, dance.view(Side.REMOTE, NUMBER))


@pytest.mark.proves("C-107")
@both_types
async def test_htlc_signatures_carry_the_type_of_the_channel(anchors: bool) -> None:
    dance, commitment = await remote_commitment(anchors)
    signed = await dance.sign_counterparty(NUMBER)
    assert {entry.htlc.offered_by_owner for entry in commitment.htlcs} == {False, True}
    wanted, other = SIGHASH_ALL, SIGHASH_SINGLE_ANYONECANPAY
    if anchors:
        wanted, other = other, wanted
    key = commitment.keys.other_htlc_pubkey
    for entry, signature in zip(commitment.htlcs, signed.htlc_signatures, strict=True):
        for hashtype in (wanted, other):
            digest = sighash_segwit_v0(entry.tx, 0, entry.script, entry.value, hashtype)
            assert ecdsa_verify(key, digest, signature) is (hashtype == wanted)
        if entry.htlc.offered_by_owner:
            witness = htlc_timeout_witness(signature, signature, entry.script, anchors=anchors)
        else:
            witness = htlc_success_witness(signature, signature, bytes(32), entry.script, anchors=anchors)
        assert witness[1][-1] == wanted
        assert witness[2][-1] == SIGHASH_ALL, "the owner's own signature binds everything"


def sweep_of(setup: ChannelSetup, commitment: Commitment, sequence: int) -> SignSweep:
    index = commitment.to_remote
    assert index is not None
    spent = commitment.tx.outputs[index]
    tx = Transaction(
        version=2,
        inputs=(TxIn(prevout=OutPoint(commitment.txid, index), sequence=sequence),),
        outputs=(TxOut(value=Sat(spent.value - 500), script=p2wpkh(bytes(20))),),
        locktime=0,
    )
    return SignSweep(
        request_id="sweep", setup=setup, kind=SweepKind.TO_REMOTE, number=NUMBER, tx=tx, index=0, spent=(spent,)
    )


@pytest.mark.proves("C-103")
@both_types
async def test_our_balance_on_the_peers_commitment(anchors: bool) -> None:
    dance, commitment = await remote_commitment(anchors)
    request = sweep_of(dance.setup, commitment, 1 if anchors else 0xFFFFFFFD)
    signature = (await dance.signer.sign_sweep(request)).signature
    key, (spent,) = dance.setup.local_keys.payment_basepoint, request.spent
    if anchors:
        assert is_p2wsh(spent.script)
        code, witness = to_remote_script(key), to_remote_anchors_witness(signature, to_remote_script(key))
    else:
        assert is_p2wpkh(spent.script), "the payment basepoint itself, at once"
        assert spent.script == p2wpkh(key)
        code, witness = p2pkh(key), p2wpkh_witness(signature, key)
    assert ecdsa_verify(key, sighash_segwit_v0(request.tx, 0, code, spent.value), signature)
    signed = msgspec.structs.replace(request.tx.inputs[0], witness=witness)
    finalize_transaction(msgspec.structs.replace(request.tx, inputs=(signed,)), request.spent)


async def test_the_other_types_script_is_not_ours_to_sweep() -> None:
    dance, _ = await remote_commitment(False)
    _, commitment = await remote_commitment(True)
    with pytest.raises(SignerRefused, match="sweep_script"):
        await dance.signer.sign_sweep(sweep_of(dance.setup, commitment, 1))
