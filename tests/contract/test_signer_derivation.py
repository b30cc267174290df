"""The key tree of leyden-inmemory against BIP 32, BIP 39 and BIP 84, and against its own published vectors."""

import json
import re
from pathlib import Path

import leyden_inmemory
import pytest
from leyden.bitcoin import DescriptorError, Network, check_descriptor, encode_address
from leyden.crypto import FIRST_INDEX, commitment_secret, ecdh, ecdsa_recover, pubkey_create, sha256
from leyden.hooks.types import DestinationPurpose
from leyden.types import KeysId, LeydenError
from leyden_inmemory import InMemoryKeyManager, SeedError, mnemonic_from_entropy, seed_from_mnemonic
from leyden_inmemory.bip32 import HARDENED, ExtendedSecret, format_path
from leyden_inmemory.derivation import KeyTree, payment_index

ABANDON = "abandon " * 11 + "about"
README = Path(leyden_inmemory.__file__).parents[1] / "README.md"


def test_bip32_vector_1() -> None:
    root = ExtendedSecret.from_seed(bytes(range(16)))
    assert root.secret.hex() == "e8f32e723decf4051aefac8e2c93c9c5b214313817cdb01a1494b917c8436b35"
    assert root.chain_code.hex() == "873dff81c02f525623fd1fe5167eac3a55a049de3d314bb42ee227ffed37d508"
    expected = {
        (HARDENED,): "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea",
        (HARDENED, 1): "3c6cb8d0f6a264c91ea8b5030fadaa8e538b020f0a387421a12de9319dc93368",
        (HARDENED, 1, HARDENED + 2): "cbce0d719ecf7431d88e6a89fa1483e02e35092af60c042b1df2ff59fa424dca",
        (HARDENED, 1, HARDENED + 2, 2): "0f479245fb19a38a1954c5c7c0ebab2f9bdfd96a17563ef28a6a4b1a2a764ef4",
    }
    for path, secret in expected.items():
        assert root.descend(path).secret.hex() == secret, format_path(path)
    assert root.fingerprint().hex() == "3442193e"


def test_bip39_vector() -> None:
    assert mnemonic_from_entropy(bytes(16)) == ABANDON
    assert seed_from_mnemonic(ABANDON, "TREZOR").hex() == (
        "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531"
        "f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04"
    )
    assert seed_from_mnemonic("  Abandon\n" + ABANDON.removeprefix("abandon")) == seed_from_mnemonic(ABANDON)


@pytest.mark.parametrize("words", ["", "abandon " * 12, ABANDON.replace("about", "abut"), "about " + ABANDON])
def test_wrong_words_are_refused(words: str) -> None:
    with pytest.raises(SeedError, match="checksum"):
        seed_from_mnemonic(words)


async def test_bip84_vector() -> None:
    keys = InMemoryKeyManager(seed_from_mnemonic(ABANDON), Network.MAINNET)
    expected = {
        (DestinationPurpose.RECEIVE, 0): "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
        (DestinationPurpose.RECEIVE, 1): "bc1qnjg0jd8228aq7egyzacy8cys3knf9xvrerkf9g",
        (DestinationPurpose.CHANGE, 0): "bc1q8c6fshw2dlwun7ekn9qwf37cu2rn755upcp6el",
    }
    for (purpose, index), address in expected.items():
        destination = await keys.destination(purpose, index)
        assert encode_address(destination.script, Network.MAINNET) == address


async def test_bip86_vector() -> None:
    keys = InMemoryKeyManager(seed_from_mnemonic(ABANDON), Network.MAINNET)
    expected = (
        (
            "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115",
            "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
        ),
        (
            "83dfe85a3151d2517290da461fe2815591ef69f2b18a2ce63f01697a8b313145",
            "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh",
        ),
    )
    for index, (internal_key, address) in enumerate(expected):
        destination = await keys.destination(DestinationPurpose.RECEIVE_TAPROOT, index)
        assert destination.pubkey[1:].hex() == internal_key
        assert encode_address(destination.script, Network.MAINNET) == address
    (taproot,) = [text for text in await keys.descriptors() if text.startswith("tr(")]
    assert check_descriptor(taproot) == (
        "tr([73c5da0a/86h/0h/0h]xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VC"
        "ECoY49yfdDEHGCtMMj92pReUsQ/0/*)"
    )
    mistyped = taproot.replace("xpub6B", "xpub6C")
    with pytest.raises(DescriptorError):
        check_descriptor(mistyped)


async def test_destinations_never_collide() -> None:
    keys = InMemoryKeyManager(bytes(32), Network.REGTEST)
    found = [await keys.destination(purpose, index) for purpose in DestinationPurpose for index in range(5)]
    assert len({d.script for d in found}) == len(found)
    assert len({d.path for d in found}) == len(found)
    assert format_path(found[0].path) == "m/84'/1'/0'/0/0"
    with pytest.raises(LeydenError, match="index"):
        await keys.destination(DestinationPurpose.RECEIVE, 1 << 31)
    with pytest.raises(LeydenError, match="index"):
        await keys.destination(DestinationPurpose.RECEIVE, -1)


def test_payment_key_comes_from_one_of_a_thousand() -> None:
    tree = KeyTree(bytes(32), Network.REGTEST)
    for n in range(20):
        keys_id = KeysId(sha256(bytes([n])))
        channel = tree.channel(keys_id)
        index = payment_index(keys_id)
        assert 0 <= index < 1000
        assert channel.payment == tree.payment_secret(index)
        assert channel.public.payment_basepoint == pubkey_create(tree.payment_secret(index))


def test_every_channel_key_is_different() -> None:
    tree = KeyTree(bytes(32), Network.REGTEST)
    seen: set[bytes] = set()
    for n in range(10):
        channel = tree.channel(KeysId(bytes([n]) * 32))
        secrets = (
            channel.funding,
            channel.revocation,
            channel.payment,
            channel.delayed_payment,
            channel.htlc,
            channel.commitment_seed,
        )
        seen.update(secrets)
    assert len(seen) == 60


@pytest.mark.parametrize("length", [0, 31, 33])
def test_keys_id_has_32_bytes(length: int) -> None:
    with pytest.raises(LeydenError, match="keys_id"):
        KeyTree(bytes(32), Network.REGTEST).channel(KeysId(bytes(length)))


@pytest.mark.parametrize("length", [0, 16, 33, 63, 65])
def test_seed_length(length: int) -> None:
    with pytest.raises(LeydenError, match="seed"):
        InMemoryKeyManager(bytes(length), Network.REGTEST)


async def test_node_identity() -> None:
    keys = InMemoryKeyManager(bytes(range(32)), Network.REGTEST)
    node_id = await keys.node_id()
    other = bytes(31) + b"\x07"
    assert await keys.ecdh(pubkey_create(other)) == ecdh(other, node_id)
    signature, recovery_id = await keys.sign_bolt11("lnbcrt", [1, 2, 31])
    digest = sha256(b"lnbcrt" + bytes([0b00001000, 0b10111110]))
    assert ecdsa_recover(digest, signature, recovery_id) == node_id
    assert await keys.host_secret("a") != await keys.host_secret("b")
    assert len(await keys.host_secret("a")) == 32


async def test_networks_share_no_keys_with_mainnet() -> None:
    main, test = (InMemoryKeyManager(bytes(32), n) for n in (Network.MAINNET, Network.REGTEST))
    assert await main.node_id() != await test.node_id()
    keys_id = KeysId(bytes(32))
    assert (await main.new_channel(keys_id)).keys != (await test.new_channel(keys_id)).keys


def test_no_secret_in_reprs() -> None:
    seed = bytes(range(64))
    manager = InMemoryKeyManager(seed, Network.REGTEST)
    tree = KeyTree(seed, Network.REGTEST)
    channel = tree.channel(KeysId(bytes(32)))
    texts = " ".join(map(repr, (manager, manager.channel_signer, tree, channel, ExtendedSecret.from_seed(seed))))
    for secret in (seed, tree.node_secret, channel.funding, channel.commitment_seed):
        assert secret.hex() not in texts
        assert repr(secret) not in texts


async def test_published_vectors() -> None:
    """The README's vectors pin derivation version 1 for ever."""
    block = re.search(r"```json\n(.*?)```", README.read_text(), re.S)
    assert block is not None
    vectors = json.loads(block.group(1))
    assert len(vectors) >= 2
    for vector in vectors:
        network = Network.from_name(vector["network"])
        seed = seed_from_mnemonic(vector["mnemonic"])
        keys = InMemoryKeyManager(seed, network)
        keys_id = KeysId(bytes.fromhex(vector["keys_id"]))
        new = await keys.new_channel(keys_id)
        assert (await keys.node_id()).hex() == vector["node_id"]
        assert (await keys.host_secret(vector["host_secret_label"])).hex() == vector["host_secret"]
        assert payment_index(keys_id) == vector["payment_index"]
        for name, value in vector["channel_keys"].items():
            assert getattr(new.keys, name).hex() == value, name
        assert [new.first_point.hex(), new.second_point.hex()] == vector["points_0_and_1"]
        seed_of_commitments = KeyTree(seed, network).channel(keys_id).commitment_seed
        assert commitment_secret(seed_of_commitments, FIRST_INDEX).hex() == vector["secret_0"]
        for purpose, address in vector["addresses_0"].items():
            destination = await keys.destination(DestinationPurpose(purpose), 0)
            assert encode_address(destination.script, network) == address
