"""PSBTs and descriptors of ours against another implementation (bdkpython): it reads, repeats, signs and derives."""

import asyncio
import base64
from collections.abc import Sequence

import bdkpython as bdk
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from leyden.bitcoin import (
    KeyInfo,
    KeyOrigin,
    Network,
    Psbt,
    PsbtError,
    PsbtInput,
    PsbtOutput,
    TaprootKeyInfo,
    Transaction,
    TxIn,
    TxOut,
    encode_address,
    finalize_psbt,
    parse_psbt,
    single_key_descriptor,
    take_signatures,
)
from leyden.crypto import pubkey_create, sha256
from leyden.hooks.signing import SignPsbt, SpendPurpose
from leyden.hooks.types import DestinationPurpose
from leyden.testing.wallet import PREFIX, Bench, check_funded, payment, stranger
from leyden.types import FeeRatePerKw, OutPoint, Sat, Txid
from leyden_inmemory import InMemoryKeyManager, seed_from_mnemonic
from leyden_wallet import OnchainWallet

WORDS = "abandon " * 11 + "about"
ELSEWHERE = "zoo " * 11 + "wrong"
TEST = bdk.NetworkKind.TEST


def to_bdk(psbt: bytes) -> bdk.Psbt:
    return bdk.Psbt(base64.b64encode(psbt).decode())


def from_bdk(psbt: bdk.Psbt) -> bytes:
    return base64.b64decode(psbt.serialize())


# -- bytes -----------------------------------------------------------------------------------------------------------

pubkeys = st.integers(1, 50).map(lambda n: pubkey_create(sha256(bytes([n]))))
origins = st.builds(
    KeyOrigin,
    fingerprint=st.binary(min_size=4, max_size=4),
    path=st.lists(st.integers(0, 2**32 - 1), max_size=6).map(tuple),
)
key_infos = st.lists(st.builds(KeyInfo, pubkey=pubkeys, origin=origins), max_size=3, unique_by=lambda key: key.pubkey)
taproot_infos = st.lists(
    st.builds(
        TaprootKeyInfo,
        xonly=pubkeys.map(lambda key: key[1:]),
        origin=origins,
        leaf_hashes=st.lists(st.binary(min_size=32, max_size=32), max_size=2).map(tuple),
    ),
    max_size=2,
    unique_by=lambda key: key.xonly,
)
tx_outs = st.builds(TxOut, value=st.integers(0, 10**14).map(Sat), script=st.binary(max_size=40))


def by_key(keys: Sequence[KeyInfo]) -> tuple[KeyInfo, ...]:
    return tuple(sorted(keys, key=lambda key: key.pubkey))


def by_xonly(keys: Sequence[TaprootKeyInfo]) -> tuple[TaprootKeyInfo, ...]:
    return tuple(sorted(keys, key=lambda key: key.xonly))


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    prevouts = draw(st.lists(st.builds(OutPoint, st.binary(min_size=32, max_size=32).map(Txid), st.integers(0, 3))))
    return Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=o, sequence=draw(st.integers(0, 2**32 - 1))) for o in {*prevouts, OUTSIDE}),
        outputs=tuple(draw(st.lists(tx_outs, min_size=1, max_size=4))),
        locktime=draw(st.integers(0, 2**32 - 1)),
    )


OUTSIDE = OutPoint(Txid(bytes(31) + b"\x01"), 0)


@st.composite
def psbts(draw: st.DrawFn) -> Psbt:
    previous = draw(st.lists(transactions(), min_size=1, max_size=3, unique_by=lambda tx: tx.txid))
    spent = [OutPoint(tx.txid, draw(st.integers(0, len(tx.outputs) - 1))) for tx in previous]
    tx = Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=prevout, sequence=0xFFFFFFFD) for prevout in spent),
        outputs=tuple(draw(st.lists(tx_outs, min_size=1, max_size=3))),
        locktime=draw(st.integers(0, 2**32 - 1)),
    )
    inputs = tuple(
        PsbtInput(
            non_witness_utxo=before if draw(st.booleans()) else None,
            witness_utxo=before.outputs[prevout.vout] if draw(st.booleans()) else None,
            sighash_type=draw(st.sampled_from([None, 0, 1, 0x81])),
            witness_script=draw(st.none() | st.binary(max_size=40)),
            keys=by_key(draw(key_infos)),
            tap_internal_key=draw(st.none() | pubkeys.map(lambda key: key[1:])),
            tap_merkle_root=draw(st.none() | st.binary(min_size=32, max_size=32)),
            taproot_keys=by_xonly(draw(taproot_infos)),
            unknown=((b"\xfa\x01", draw(st.binary(max_size=8))),),
        )
        for before, prevout in zip(previous, spent, strict=True)
    )
    outputs = tuple(
        PsbtOutput(
            witness_script=draw(st.none() | st.binary(max_size=40)),
            keys=by_key(draw(key_infos)),
            taproot_keys=by_xonly(draw(taproot_infos)),
        )
        for _ in tx.outputs
    )
    return Psbt(tx=tx, inputs=inputs, outputs=outputs)


@given(psbts())
@settings(deadline=None, max_examples=150)
def test_the_same_bytes(psbt: Psbt) -> None:
    data = psbt.serialize()
    assert parse_psbt(data) == psbt
    assert from_bdk(to_bdk(data)) == data


@given(psbts(), st.data())
@settings(deadline=None, max_examples=150)
def test_whatever_is_not_refused_reads_the_same(psbt: Psbt, draw: st.DataObject) -> None:
    """A byte changed: refused, or read as something that both implementations write alike."""
    data = bytearray(psbt.serialize())
    data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        read = parse_psbt(bytes(data))
    except PsbtError:
        return
    assert parse_psbt(read.serialize()) == read


# -- signatures and descriptors --------------------------------------------------------------------------------------


def secret_descriptors(kind: bdk.KeychainKind) -> tuple[bdk.Descriptor, bdk.Descriptor]:
    key = bdk.DescriptorSecretKey(TEST, bdk.Mnemonic.from_string(WORDS), None)
    return bdk.Descriptor.new_bip84(key, kind, TEST), bdk.Descriptor.new_bip86(key, kind, TEST)


async def funded_bench(*purposes: DestinationPurpose) -> tuple[Bench, InMemoryKeyManager]:
    keys = InMemoryKeyManager(seed_from_mnemonic(WORDS), Network.REGTEST)
    bench = Bench(OnchainWallet())
    await bench.wallet.load(PREFIX, (), keys)
    bench.connect(payment(1, *((50_000, bench.script(purpose)) for purpose in purposes)))
    return bench, keys


MIXED = (DestinationPurpose.RECEIVE, DestinationPurpose.RECEIVE_TAPROOT)


@pytest.mark.parametrize("purposes", [MIXED[:1] * 2, MIXED[1:] * 2, MIXED], ids=["p2wpkh", "p2tr", "mixed"])
async def test_another_signer_of_the_same_seed(purposes: Sequence[DestinationPurpose]) -> None:
    """It finds its keys by the origins that our wallet gives, and its signatures are good for us."""
    bench, keys = await funded_bench(*purposes)
    outputs = [(80_000, stranger(1))]
    funded = bench.fund("claim", *outputs, feerate=FeeRatePerKw(500))
    check_funded(funded, outputs, FeeRatePerKw(500))
    psbt = to_bdk(funded.psbt)
    options = bdk.SignOptions(
        trust_witness_utxo=False,
        assume_height=None,
        allow_all_sighashes=False,
        try_finalize=False,
        sign_with_tap_internal_key=True,
        allow_grinding=False,
    )
    for kind in (0, 1):
        wallet = bdk.Wallet(
            secret_descriptors(bdk.KeychainKind.EXTERNAL)[kind],
            secret_descriptors(bdk.KeychainKind.INTERNAL)[kind],
            bdk.Network.REGTEST,
            bdk.Persister.new_in_memory(),
        )
        wallet.sign(psbt, options)
    theirs = take_signatures(parse_psbt(funded.psbt), parse_psbt(from_bdk(psbt)))
    tx = finalize_psbt(theirs)
    ours = await keys.sign_psbt(SignPsbt(request_id="a", psbt=funded.psbt, purpose=SpendPurpose.WITHDRAWAL))
    finalized = to_bdk(ours).finalize()
    assert finalized.could_finalize
    assert bytes(finalized.psbt.extract_tx().serialize()) == finalize_psbt(parse_psbt(ours)).serialize()
    assert tx.txid == funded.tx.txid
    assert finalize_psbt(take_signatures(parse_psbt(funded.psbt), parse_psbt(from_bdk(finalized.psbt)))).txid == tx.txid


async def test_a_stranger_signs_nothing() -> None:
    bench, _ = await funded_bench(*MIXED)
    funded = bench.fund("claim", (80_000, stranger(1)))
    other = InMemoryKeyManager(seed_from_mnemonic(ELSEWHERE), Network.REGTEST)
    request = SignPsbt(request_id="a", psbt=funded.psbt, purpose=SpendPurpose.WITHDRAWAL)
    assert await other.sign_psbt(request) == funded.psbt


async def test_descriptors_lead_to_the_same_addresses() -> None:
    keys = InMemoryKeyManager(seed_from_mnemonic(WORDS), Network.REGTEST)
    descriptors = await keys.descriptors()
    assert len(descriptors) == len(DestinationPurpose)
    for purpose, text in zip(DestinationPurpose, descriptors, strict=True):
        read = bdk.Descriptor(text, TEST)
        for index in (0, 1, 7):
            ours = await keys.destination(purpose, index)
            theirs = read.derive_address(index, bdk.Network.REGTEST)
            assert str(theirs) == encode_address(ours.script, Network.REGTEST), text


@given(st.binary(min_size=4, max_size=4), st.lists(st.integers(0, 2**32 - 1), max_size=5), st.lists(st.integers(0, 9)))
@settings(deadline=None, max_examples=50)
def test_checksums(fingerprint: bytes, path: list[int], below: list[int]) -> None:
    text = single_key_descriptor(
        taproot=bool(path),
        origin=KeyOrigin(fingerprint=fingerprint, path=tuple(path)),
        extended_key=TPUB,
        below=below,
    )
    assert bdk.Descriptor(text, TEST).descriptor_id() is not None
    wrong = text[:-1] + ("q" if text[-1] != "q" else "p")
    with pytest.raises(bdk.DescriptorError):
        bdk.Descriptor(wrong, TEST)


TPUB = (
    asyncio.run(InMemoryKeyManager(seed_from_mnemonic(WORDS), Network.REGTEST).descriptors())[0]
    .split("]")[1]
    .split("/")[0]
)


def test_a_psbt_is_a_value() -> None:
    tx = Transaction(version=2, inputs=(TxIn(prevout=OUTSIDE, sequence=0),), outputs=(), locktime=0)
    psbt = Psbt(tx=tx, inputs=(PsbtInput(),), outputs=())
    assert parse_psbt(psbt.serialize()) == psbt
    with pytest.raises(PsbtError):
        msgspec.structs.replace(psbt, inputs=()).serialize()
