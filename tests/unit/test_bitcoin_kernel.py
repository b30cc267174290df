"""Our signature hashes, scripts and bytes before Bitcoin's own judge: libbitcoinkernel verifies what we sign."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import (
    Transaction,
    TxIn,
    TxOut,
    finalize_transaction,
    funding_script,
    p2pkh,
    p2wpkh,
    p2wsh,
    push_int,
    sighash_segwit_v0,
)
from leyden.bitcoin import opcodes as op
from leyden.crypto import ecdsa_sign, pubkey_create, sig_to_der
from leyden.types import OutPoint, Sat, Txid

pbk = pytest.importorskip("pbk")

SECRETS = [bytes([i]) * 32 for i in (1, 2)]
KEYS = [pubkey_create(secret) for secret in SECRETS]
MULTISIG = funding_script(*KEYS)
BY_KEY = dict(zip(KEYS, SECRETS, strict=True))
HASHTYPES = [base | more for base in (1, 2, 3) for more in (0, 0x80)]
u32 = st.integers(0, 2**32 - 1)


def _accepted(tx: Transaction, index: int, spent: TxOut) -> bool:
    flags = pbk.ScriptVerificationFlags
    wanted = (flags.P2SH | flags.DERSIG | flags.NULLDUMMY | flags.WITNESS) | (
        flags.CHECKLOCKTIMEVERIFY | flags.CHECKSEQUENCEVERIFY
    )
    try:
        script = pbk.ScriptPubkey(spent.script)
        return bool(script.verify(spent.value, pbk.Transaction(tx.serialize()), None, index, wanted))
    except pbk.ScriptVerifyException:
        return False


def _with_witnesses(tx: Transaction, witnesses: list[tuple[bytes, ...]]) -> Transaction:
    inputs = tuple(
        TxIn(prevout=i.prevout, sequence=i.sequence, witness=witness)
        for i, witness in zip(tx.inputs, witnesses, strict=True)
    )
    return Transaction(version=tx.version, inputs=inputs, outputs=tx.outputs, locktime=tx.locktime)


def _signature(secret: bytes, tx: Transaction, index: int, code: bytes, value: Sat, hashtype: int) -> bytes:
    digest = sighash_segwit_v0(tx, index, code, value, hashtype)
    return sig_to_der(ecdsa_sign(secret, digest)) + bytes((hashtype,))


@st.composite
def unsigned(draw: st.DrawFn) -> Transaction:
    """A transaction with two inputs and up to three outputs (so that SINGLE also lacks its output)."""
    inputs = [
        TxIn(prevout=OutPoint(Txid(draw(st.binary(min_size=32, max_size=32))), i), sequence=draw(u32)) for i in range(2)
    ]
    outputs = st.builds(TxOut, value=st.integers(0, 10**6).map(Sat), script=st.binary(max_size=40))
    return Transaction(
        version=draw(u32),
        inputs=tuple(inputs),
        outputs=tuple(draw(st.lists(outputs, min_size=1, max_size=3))),
        locktime=draw(u32),
    )


@pytest.mark.no_kernel_verdict("judged here, input by input")
@settings(deadline=None, max_examples=60)
@given(unsigned(), st.sampled_from(HASHTYPES), st.integers(10**7, 10**12))
def test_kernel_accepts_our_signatures(tx: Transaction, hashtype: int, amount: int) -> None:
    value = Sat(amount)
    spent = [TxOut(value=value, script=p2wpkh(KEYS[0])), TxOut(value=value, script=p2wsh(MULTISIG))]
    single = _signature(SECRETS[0], tx, 0, p2pkh(KEYS[0]), value, hashtype)
    pair = [_signature(BY_KEY[key], tx, 1, MULTISIG, value, hashtype) for key in sorted(KEYS)]
    signed = _with_witnesses(tx, [(single, KEYS[0]), (b"", *pair, MULTISIG)])
    assert finalize_transaction(signed, spent) is signed
    for index in range(2):
        assert _accepted(signed, index, spent[index])
        assert not _accepted(signed, index, TxOut(value=Sat(value + 1), script=spent[index].script))
    swapped = _with_witnesses(tx, [(single, KEYS[0]), (b"", *pair[::-1], MULTISIG)])
    assert not _accepted(swapped, 1, spent[1]), "signatures go in the order of the keys"


@pytest.mark.parametrize("height", [1, 16, 17, 127, 128, 500, 32768, 8_388_608, 499_999_999])
def test_kernel_reads_our_numbers(height: int) -> None:
    script = push_int(height) + bytes((op.OP_CHECKLOCKTIMEVERIFY,))
    for locktime, allowed in ((height, True), (height - 1, False)):
        tx = Transaction(
            version=2,
            inputs=(TxIn(prevout=OutPoint(Txid(bytes(32)), 0), sequence=0, witness=(script,)),),
            outputs=(TxOut(value=Sat(1), script=b""),),
            locktime=locktime,
        )
        assert _accepted(tx, 0, TxOut(value=Sat(1), script=p2wsh(script))) is allowed


def test_kernel_knows_the_same_ids() -> None:
    tx = Transaction(
        version=2,
        inputs=(TxIn(prevout=OutPoint(Txid(bytes(range(32))), 3), sequence=5, witness=(b"a", b"")),),
        outputs=(TxOut(value=Sat(7), script=b"\x51"),),
        locktime=9,
    )
    theirs = pbk.Transaction(tx.serialize())
    assert bytes(theirs.txid) == tx.txid
    assert bytes(theirs) == tx.serialize()
