"""``InMemoryChannelKeys`` under the conformance suite, bare and behind the guard."""

import asyncio
import json
import os
import stat
import time
from pathlib import Path

import msgspec
import pytest
from leyden.bitcoin import Network, Transaction, TxIn, TxOut, finalize_transaction, p2wpkh
from leyden.hooks.services import (
    ChannelSigner,
    Destinations,
    NodeIdentity,
    OnchainSigner,
    PaymentApproval,
)
from leyden.hooks.signing import SignerRefused
from leyden.hooks.types import DestinationPurpose, SpendInput
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


async def test_consecutive_secrets_are_cheap() -> None:
    dance = await Dance.begin(make_manager())
    channel = make_manager().channel_signer._find(KEYS_ID)
    secrets = [channel.secret(number) for number in range(2000)]
    started = time.perf_counter()
    for number in range(2000, 4000):
        channel.secret(number)
    each = (time.perf_counter() - started) / 2000
    assert len(set(secrets)) == 2000
    assert (await dance.release(0)).secret == secrets[0]
    assert each < 20e-6, f"{each * 1e6:.1f} us each; from scratch it is about 25"


async def test_numbers_outside_the_chain_are_refused() -> None:
    dance = await Dance.begin(make_manager())
    for number in (-1, (1 << 48) - 2):
        with pytest.raises(SignerRefused, match="number"):
            await dance.release(number)


async def test_wallet_inputs_are_signed() -> None:
    manager = make_manager()
    tx, inputs, spent = await make_spend(manager)
    witnesses = await manager.sign_transaction(tx, inputs, spent)
    signed = msgspec.structs.replace(
        tx,
        inputs=tuple(
            msgspec.structs.replace(entry, witness=witness) for entry, witness in zip(tx.inputs, witnesses, strict=True)
        ),
    )
    finalize_transaction(signed, spent)


async def make_spend(manager: InMemoryKeyManager) -> tuple[Transaction, tuple[SpendInput, ...], tuple[TxOut, ...]]:
    found = [await manager.destination(purpose, 5) for purpose in DestinationPurpose]
    spent = tuple(TxOut(value=Sat(10_000), script=entry.script) for entry in found)
    tx = Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=OutPoint(Txid(bytes([n]) * 32), n), sequence=0xFFFFFFFD) for n in range(len(found))),
        outputs=(TxOut(value=Sat(30_000), script=p2wpkh(bytes(20))),),
        locktime=7,
    )
    inputs = tuple(
        SpendInput(index=n, output=output, path=entry.path)
        for n, (output, entry) in enumerate(zip(spent, found, strict=True))
    )
    return tx, inputs, spent


async def test_wallet_signing_refuses_what_is_not_ours() -> None:
    manager = make_manager()
    tx, inputs, spent = await make_spend(manager)
    first = inputs[0]
    node_path = (0x80000000 + 9735, 0x80000001, 0x80000001, 0x80000000)
    for wrong in (
        SpendInput(index=0, output=first.output, path=inputs[1].path),
        SpendInput(index=0, output=first.output, path=node_path),
        SpendInput(index=0, output=first.output, path=(*node_path, 0)),
        SpendInput(index=1, output=first.output, path=first.path),
        SpendInput(index=9, output=first.output, path=first.path),
    ):
        with pytest.raises(SignerRefused):
            await manager.sign_transaction(tx, (wrong,), spent)
    with pytest.raises(SignerRefused):
        await manager.sign_transaction(tx, (first,), spent[:1])


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
