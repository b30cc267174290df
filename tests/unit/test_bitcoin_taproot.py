"""Taproot spends of our making before libbitcoinkernel: by key and by script, with every signature type; and P2A."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import (
    P2A_SCRIPT,
    SIGHASH_DEFAULT,
    Network,
    TapLeaf,
    TapTree,
    Transaction,
    TxIn,
    TxOut,
    decode_address,
    dust_limit,
    encode_address,
    finalize_transaction,
    is_p2a,
    is_p2tr,
    p2wpkh,
    sighash_taproot,
    tap_tree,
    taproot_output_script,
    taproot_output_secret,
    taproot_signature,
)
from leyden.bitcoin import opcodes as op
from leyden.crypto import schnorr_sign, sha256, xonly_create
from leyden.testing.kernel import verify_transaction
from leyden.types import OutPoint, Sat, Txid

pytest.importorskip("pbk")

INTERNAL = bytes([1]) * 32
LEAF_SECRETS = [bytes([i]) * 32 for i in (2, 3, 4)]
SCRIPTS = [b"\x20" + xonly_create(secret) + bytes((op.OP_CHECKSIG,)) for secret in LEAF_SECRETS]
OP_CODESEPARATOR = 0xAB
HASHTYPES = [0, 1, 2, 3, 0x81, 0x82, 0x83]
TREES: list[TapTree] = [
    TapLeaf(script=SCRIPTS[0]),
    (TapLeaf(script=SCRIPTS[0]), TapLeaf(script=SCRIPTS[1])),
    (TapLeaf(script=SCRIPTS[0]), (TapLeaf(script=SCRIPTS[1]), TapLeaf(script=SCRIPTS[2]))),
]
u32 = st.integers(0, 2**32 - 1)


@st.composite
def unsigned(draw: st.DrawFn) -> tuple[Transaction, list[TxOut]]:
    """Three inputs, all of the same key, and as many outputs."""
    inputs = [TxIn(prevout=OutPoint(Txid(sha256(bytes((i,)))), draw(u32)), sequence=draw(u32)) for i in range(3)]
    outputs = st.builds(TxOut, value=st.integers(0, 10**6).map(Sat), script=st.binary(max_size=40))
    tx = Transaction(
        version=draw(st.integers(1, 3)),
        inputs=tuple(inputs),
        outputs=tuple(draw(st.lists(outputs, min_size=3, max_size=4))),
        locktime=draw(u32),
    )
    values = draw(st.lists(st.integers(10**7, 10**12).map(Sat), min_size=3, max_size=3))
    root = tap_tree(draw(st.sampled_from(TREES)))[0] if draw(st.booleans()) else b""
    script = taproot_output_script(xonly_create(INTERNAL), root)
    return tx, [TxOut(value=value, script=script) for value in values]


def with_witnesses(tx: Transaction, witnesses: list[tuple[bytes, ...]]) -> Transaction:
    pairs = zip(tx.inputs, witnesses, strict=True)
    return msgspec.structs.replace(
        tx, inputs=tuple(msgspec.structs.replace(txin, witness=witness) for txin, witness in pairs)
    )


@pytest.mark.no_kernel_verdict("judged here, altered and unaltered")
@settings(deadline=None, max_examples=60)
@given(unsigned(), st.lists(st.sampled_from(HASHTYPES), min_size=3, max_size=3), st.sampled_from([None, *TREES]))
def test_key_path(drawn: tuple[Transaction, list[TxOut]], hashtypes: list[int], tree: TapTree | None) -> None:
    tx, spent = drawn
    root = b"" if tree is None else tap_tree(tree)[0]
    script = taproot_output_script(xonly_create(INTERNAL), root)
    assert is_p2tr(script)
    spent = [msgspec.structs.replace(output, script=script) for output in spent]
    secret = taproot_output_secret(INTERNAL, root)
    witnesses: list[tuple[bytes, ...]] = []
    for index, hashtype in enumerate(hashtypes):
        digest = sighash_taproot(tx, index, spent, hashtype)
        witnesses.append((taproot_signature(schnorr_sign(secret, digest, sha256(digest)), hashtype),))
    signed = finalize_transaction(with_witnesses(tx, witnesses), spent)
    assert verify_transaction(signed, spent)
    # The signature binds the amounts of all inputs, or with ANYONECANPAY that of its own.
    dearer = [*spent[:2], msgspec.structs.replace(spent[2], value=Sat(spent[2].value + 1))]
    assert not verify_transaction(signed, dearer)


@pytest.mark.no_kernel_verdict("judged here, altered and unaltered")
@pytest.mark.parametrize("tree", TREES, ids=["one leaf", "two leaves", "three leaves"])
@pytest.mark.parametrize("hashtype", HASHTYPES)
def test_script_path(tree: TapTree, hashtype: int) -> None:
    internal_key = xonly_create(INTERNAL)
    root, paths = tap_tree(tree)
    spent = [TxOut(value=Sat(50_000), script=taproot_output_script(internal_key, root))]
    tx = Transaction(
        version=2,
        inputs=(TxIn(prevout=OutPoint(Txid(bytes(32)), 7), sequence=1),),
        outputs=(TxOut(value=Sat(40_000), script=p2wpkh(bytes(20))),),
        locktime=9,
    )
    for path, secret in zip(paths, LEAF_SECRETS, strict=False):
        digest = sighash_taproot(tx, 0, spent, hashtype, leaf_hash=path.leaf.hash)
        signature = taproot_signature(schnorr_sign(secret, digest, bytes(32)), hashtype)
        control = path.control_block(internal_key, root)
        signed = with_witnesses(tx, [(signature, path.leaf.script, control)])
        assert verify_transaction(finalize_transaction(signed, spent), spent)
        other = sighash_taproot(tx, 0, spent, hashtype)
        wrong = taproot_signature(schnorr_sign(secret, other, bytes(32)), hashtype)
        assert not verify_transaction(with_witnesses(tx, [(wrong, path.leaf.script, control)]), spent)


def test_codeseparator_is_part_of_the_digest() -> None:
    script = bytes((op.OP_1, op.OP_DROP, OP_CODESEPARATOR)) + SCRIPTS[0]
    leaf = TapLeaf(script=script)
    root, (path,) = tap_tree(leaf)
    internal_key = xonly_create(INTERNAL)
    spent = [TxOut(value=Sat(50_000), script=taproot_output_script(internal_key, root))]
    tx = Transaction(
        version=2,
        inputs=(TxIn(prevout=OutPoint(Txid(bytes(32)), 0), sequence=0),),
        outputs=(TxOut(value=Sat(40_000), script=p2wpkh(bytes(20))),),
        locktime=0,
    )
    digest = sighash_taproot(tx, 0, spent, SIGHASH_DEFAULT, leaf_hash=leaf.hash, codeseparator=2)
    witness = (schnorr_sign(LEAF_SECRETS[0], digest, bytes(32)), script, path.control_block(internal_key, root))
    finalize_transaction(with_witnesses(tx, [witness]), spent)


def test_pay_to_anchor() -> None:
    assert is_p2a(P2A_SCRIPT)
    assert dust_limit(P2A_SCRIPT) == 240
    address = encode_address(P2A_SCRIPT, Network.MAINNET)
    assert address == "bc1pfeessrawgf"
    assert decode_address(address, Network.MAINNET) == P2A_SCRIPT
    # Anybody spends it, without a witness.
    tx = Transaction(
        version=3,
        inputs=(TxIn(prevout=OutPoint(Txid(bytes(32)), 0), sequence=0),),
        outputs=(TxOut(value=Sat(0), script=b"\x6a"),),
        locktime=0,
    )
    finalize_transaction(tx, [TxOut(value=Sat(240), script=P2A_SCRIPT)])
