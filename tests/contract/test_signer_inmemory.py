"""``InMemoryChannelKeys`` under the conformance suite, bare and behind the guard."""

import asyncio
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import (
    KeyInfo,
    KeyOrigin,
    Network,
    PartialSig,
    Psbt,
    PsbtError,
    PsbtInput,
    PsbtOutput,
    TaprootKeyInfo,
    Transaction,
    TxIn,
    TxOut,
    finalize_psbt,
    is_p2tr,
    p2wpkh,
    parse_psbt,
    take_signatures,
    unsigned_inputs,
)
from leyden.hooks.services import (
    ChannelSigner,
    Destinations,
    NodeIdentity,
    OnchainSigner,
    PaymentApproval,
)
from leyden.hooks.signing import SignerRefused, SignPsbt, SpendPurpose
from leyden.hooks.types import Destination, DestinationPurpose
from leyden.testing.signer import ChannelSignerConformance, GuardingSigner
from leyden.testing.signer_conformance import KEYS_ID, Dance
from leyden.types import KeysId, LeydenError, Msat, OutPoint, Sat, Txid
from leyden_inmemory import (
    InMemoryKeyManager,
    SeedError,
    create_seed_file,
    generate_mnemonic,
    load_seed_file,
    seed_from_mnemonic,
)

REGTEST = Network.REGTEST


def make_manager() -> InMemoryKeyManager:
    return InMemoryKeyManager(bytes(range(32)), REGTEST)


class TestInMemory(ChannelSignerConformance):
    def make_signer(self) -> ChannelSigner:
        return make_manager().channel_signer


class TestWholeManager(ChannelSignerConformance):
    def make_signer(self) -> ChannelSigner:
        return make_manager()


class TestGuarded(ChannelSignerConformance):
    """The guard lets everything pass that is in order."""

    def make_signer(self) -> ChannelSigner:
        return GuardingSigner(make_manager())


async def test_one_manager_is_every_capability() -> None:
    manager = make_manager()
    identity: NodeIdentity = manager
    signer: ChannelSigner = manager
    onchain: OnchainSigner = manager
    destinations: Destinations = manager
    approval: PaymentApproval = manager
    assert len(await identity.node_id()) == 33
    assert signer.stateless
    assert onchain.unattended
    assert (await destinations.destination(DestinationPurpose.SWEEP, 0)).purpose is DestinationPurpose.SWEEP
    assert await approval.approve_bolt11("lnbcrt1...", Msat(1))


def test_no_method_suspends() -> None:
    """The core takes the answers of a stateless signer inside its turn: one ``send`` must finish them."""
    work = Dance.begin(make_manager())
    with pytest.raises(StopIteration):
        work.send(None)


async def test_consecutive_secrets_are_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hash or two for each, where one from scratch takes as many as its index has bits."""
    dance = await Dance.begin(make_manager())
    channel = make_manager().channel_signer._find(KEYS_ID)
    secrets = [channel.secret(number) for number in range(2000)]
    hashes = 0

    def counted(data: bytes) -> Any:
        nonlocal hashes
        hashes += 1
        return hashlib.sha256(data)

    monkeypatch.setattr("leyden.crypto.shachain.sha256", counted)
    for number in range(2000, 4000):
        channel.secret(number)
    assert 0 < hashes <= 2 * 2000
    assert len(set(secrets)) == 2000
    assert (await dance.release(0)).secret == secrets[0]


async def test_numbers_outside_the_chain_are_refused() -> None:
    dance = await Dance.begin(make_manager())
    for number in (-1, (1 << 48) - 2):
        with pytest.raises(SignerRefused, match="number"):
            await dance.release(number)


async def test_wallet_inputs_are_signed() -> None:
    manager = make_manager()
    psbt = await make_spend(manager)
    signed = parse_psbt(await sign(manager, psbt))
    assert not unsigned_inputs(signed)
    assert finalize_psbt(signed) == finalize_psbt(take_signatures(psbt, signed))
    assert await sign(manager, signed) == signed.serialize()


async def sign(manager: InMemoryKeyManager, psbt: Psbt) -> bytes:
    request = SignPsbt(request_id="test", psbt=psbt.serialize(), purpose=SpendPurpose.WITHDRAWAL)
    return await manager.sign_psbt(request)


async def make_spend(manager: InMemoryKeyManager) -> Psbt:
    """One input of every purpose, all paid by one transaction."""
    found = [await manager.destination(purpose, 5) for purpose in DestinationPurpose]
    previous = Transaction(
        version=2,
        inputs=(TxIn(prevout=OutPoint(Txid(bytes(32)), 0), sequence=0),),
        outputs=tuple(TxOut(value=Sat(10_000), script=entry.script) for entry in found),
        locktime=0,
    )
    tx = Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=OutPoint(previous.txid, n), sequence=0xFFFFFFFD) for n in range(len(found))),
        outputs=(TxOut(value=Sat(30_000), script=p2wpkh(bytes(20))),),
        locktime=7,
    )
    inputs = tuple(make_input(previous, n, entry) for n, entry in enumerate(found))
    return Psbt(tx=tx, inputs=inputs, outputs=(PsbtOutput(),))


def make_input(previous: Transaction, index: int, entry: Destination) -> PsbtInput:
    origin = KeyOrigin(fingerprint=entry.fingerprint, path=entry.path)
    if is_p2tr(entry.script):
        return PsbtInput(
            witness_utxo=previous.outputs[index],
            tap_internal_key=entry.pubkey[1:],
            taproot_keys=(TaprootKeyInfo(xonly=entry.pubkey[1:], origin=origin),),
        )
    return PsbtInput(
        non_witness_utxo=previous,
        witness_utxo=previous.outputs[index],
        keys=(KeyInfo(pubkey=entry.pubkey, origin=origin),),
    )


def change_input(psbt: Psbt, **changes: object) -> Psbt:
    first = msgspec.structs.replace(psbt.inputs[0], **changes)
    return msgspec.structs.replace(psbt, inputs=(first, *psbt.inputs[1:]))


def with_path(psbt: Psbt, path: tuple[int, ...]) -> Psbt:
    key = psbt.inputs[0].keys[0]
    origin = KeyOrigin(fingerprint=key.origin.fingerprint, path=path)
    return change_input(psbt, keys=(KeyInfo(pubkey=key.pubkey, origin=origin),))


async def test_wallet_signing_refuses_what_is_not_ours() -> None:
    manager = make_manager()
    psbt = await make_spend(manager)
    other, node_path = psbt.inputs[1].keys[0], (0x80000000 + 9735, 0x80000001, 0x80000001, 0x80000000)
    for wrong in (
        with_path(psbt, other.origin.path),
        with_path(psbt, node_path),
        with_path(psbt, (*node_path, 0)),
        with_path(psbt, ()),
        change_input(psbt, keys=(other,)),
        change_input(psbt, sighash_type=0x81),
        change_input(psbt, non_witness_utxo=None),
        change_input(psbt, non_witness_utxo=None, witness_utxo=None),
    ):
        with pytest.raises(SignerRefused):
            await sign(manager, wrong)
    with pytest.raises(SignerRefused):
        await manager.sign_psbt(SignPsbt(request_id="test", psbt=b"psbt\xff", purpose=SpendPurpose.WITHDRAWAL))


async def test_taproot_signing_refuses_what_is_not_ours() -> None:
    manager = make_manager()
    psbt = await make_spend(manager)
    psbt = msgspec.structs.replace(psbt, inputs=psbt.inputs[::-1], tx=backwards(psbt.tx))
    key = psbt.inputs[0].taproot_keys[0]
    elsewhere = KeyOrigin(fingerprint=key.origin.fingerprint, path=(*key.origin.path[:4], 6))
    assert not unsigned_inputs(parse_psbt(await sign(manager, psbt)))
    for wrong in (
        change_input(psbt, taproot_keys=(TaprootKeyInfo(xonly=key.xonly, origin=elsewhere),)),
        change_input(psbt, witness_utxo=None),
        change_input(psbt, sighash_type=1),
        change_input(psbt, witness_utxo=TxOut(value=Sat(10_000), script=psbt.spent_output(1).script)),
    ):
        with pytest.raises(SignerRefused):
            await sign(manager, wrong)
    signed = parse_psbt(await sign(manager, psbt))
    assert signed.inputs[0].tap_key_sig is not None
    for bad in (bytes(64), signed.inputs[0].tap_key_sig + b"\x01"):
        with pytest.raises(PsbtError, match="input 0 is wrong"):
            finalize_psbt(change_input(signed, tap_key_sig=bad))


def backwards(tx: Transaction) -> Transaction:
    return Transaction(version=tx.version, inputs=tx.inputs[::-1], outputs=tx.outputs, locktime=tx.locktime)


async def test_inputs_of_others_are_left_alone() -> None:
    """A foreign fingerprint, or none: somebody else signs those."""
    manager = make_manager()
    psbt = await make_spend(manager)
    key = psbt.inputs[0].keys[0]
    foreign = KeyInfo(pubkey=key.pubkey, origin=KeyOrigin(fingerprint=bytes(4), path=key.origin.path))
    for left in (change_input(psbt, keys=(foreign,)), change_input(psbt, keys=(), non_witness_utxo=None)):
        signed = parse_psbt(await sign(manager, left))
        assert unsigned_inputs(signed) == (0,)
        assert signed.inputs[0] == left.inputs[0]
        with pytest.raises(PsbtError, match="input 0 is not signed"):
            finalize_psbt(signed)


async def test_a_wrong_signature_is_not_broadcast() -> None:
    manager = make_manager()
    psbt = await make_spend(manager)
    signed = parse_psbt(await sign(manager, psbt))
    moved = change_input(signed, partial_sigs=signed.inputs[1].partial_sigs)
    with pytest.raises(PsbtError):
        finalize_psbt(moved)
    mine = signed.inputs[0].partial_sigs[0]
    for bad in (mine.signature[:-1] + b"\x02", mine.signature[:-2] + b"\x00\x01", b"\x01"):
        sig = PartialSig(pubkey=mine.pubkey, signature=bad)
        with pytest.raises(PsbtError):
            finalize_psbt(change_input(signed, partial_sigs=(sig,)))
    other = msgspec.structs.replace(psbt.tx, locktime=8)
    with pytest.raises(PsbtError, match="another transaction"):
        take_signatures(psbt, msgspec.structs.replace(signed, tx=other))


async def test_close_that_pays_too_much_is_refused() -> None:
    dance = await Dance.begin(make_manager())
    with pytest.raises(SignerRefused, match="close_value"):
        await dance.close(600_001, 400_000)


# -- the seed file -------------------------------------------------------------------------------------------------


def test_seed_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "seed.json"
    words = create_seed_file(path, REGTEST)
    assert len(words.split()) == 24
    assert load_seed_file(path, REGTEST) == seed_from_mnemonic(words)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["seed.json"]
    assert generate_mnemonic() != generate_mnemonic()


def refusal(path: Path, network: Network = REGTEST) -> str:
    with pytest.raises(SeedError) as caught:
        load_seed_file(path, network)
    assert isinstance(caught.value, LeydenError)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_seed_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    create_seed_file(path, REGTEST)
    before = path.read_bytes()
    with pytest.raises(SeedError, match="never overwritten"):
        create_seed_file(path, REGTEST)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["seed.json"]


def test_wrong_words_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(SeedError, match="checksum"):
        create_seed_file(tmp_path / "seed.json", REGTEST, "one two three")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_looser_rights_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "seed.json"
    create_seed_file(path, REGTEST)
    path.chmod(mode)
    assert refusal(path) == f"{path} can be read by others: run `chmod 600 {path}`"


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    create_seed_file(path, REGTEST)
    tmp_path.chmod(0o770)
    assert refusal(path) == f"{tmp_path} can be written by others: run `chmod 700 {tmp_path}`"


def test_a_umask_does_not_loosen_the_file(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        create_seed_file(tmp_path / "x" / "seed.json", REGTEST)
    finally:
        os.umask(old)
    load_seed_file(tmp_path / "x" / "seed.json", REGTEST)


def test_unusable_seed_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "seed.json"
    assert refusal(path) == f"no seed at {path}: run `leyden init` to make one"
    words = create_seed_file(path, REGTEST)
    assert "belongs to regtest, this node runs on mainnet" in refusal(path, Network.MAINNET)
    content = json.loads(path.read_text())
    for change in ({"derivation": 2}, {"derivation": 0}, {"format": "x"}, {"mnemonic": "abandon"}, {"extra": 1}):
        path.write_text(json.dumps({**content, **change}))
        text = refusal(path)
        assert not any(word in text.split() for word in words.split()[:3]), "the words are secret"
    path.write_text("{")
    assert "is no seed file" in refusal(path)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert "cannot read" in refusal(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        assert "no regular file" in refusal(tmp_path / "pipe")
    finally:
        os.close(writer)


def test_keys_id_of_a_wrong_length() -> None:
    with pytest.raises(LeydenError, match="keys_id"):
        asyncio.run(make_manager().new_channel(KeysId(bytes(31))))
