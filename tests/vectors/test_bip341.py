"""Taproot: output keys, script trees, digests and signatures (BIP 341, wallet test vectors)."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from leyden.bitcoin import (
    BitcoinError,
    Network,
    TapLeaf,
    TapTree,
    TxOut,
    decode_address,
    encode_address,
    finalize_transaction,
    parse_transaction,
    sighash_taproot,
    tap_tree,
    taproot_message,
    taproot_output_key,
    taproot_output_script,
    taproot_output_secret,
    taproot_signature,
    taproot_tweak,
)
from leyden.crypto import NO_AUX, schnorr_sign, schnorr_verify, xonly_create
from leyden.types import Sat

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bip341.json").read_text())
SPEND: dict[str, Any] = DATA["spend"]
TX = parse_transaction(bytes.fromhex(SPEND["tx"]))
SPENT = [TxOut(value=Sat(value), script=bytes.fromhex(script)) for value, script in SPEND["spent"]]

every_input = pytest.mark.parametrize("case", SPEND["inputs"], ids=lambda case: f"type {case['hashtype']:#04x}")


def make_tree(data: Any, leaves: dict[int, TapLeaf]) -> TapTree:
    if isinstance(data, list):
        return make_tree(data[0], leaves), make_tree(data[1], leaves)
    leaf = leaves[data["id"]] = TapLeaf(script=bytes.fromhex(data["script"]), version=data["version"])
    return leaf


@pytest.mark.parametrize("case", DATA["outputs"], ids=lambda case: case["address"][4:12])
def test_outputs(case: dict[str, Any]) -> None:
    internal_key, root = bytes.fromhex(case["internal_key"]), b""
    if case["tree"] is not None:
        leaves: dict[int, TapLeaf] = {}
        root, paths = tap_tree(make_tree(case["tree"], leaves))
        assert [leaves[id].hash.hex() for id in sorted(leaves)] == case["leaf_hashes"]
        assert [p.leaf for p in paths] == [leaves[id] for id in sorted(leaves)]
        assert [p.control_block(internal_key, root).hex() for p in paths] == case["control_blocks"]
    assert root.hex() == case["merkle_root"]
    assert taproot_tweak(internal_key, root).hex() == case["tweak"]
    assert taproot_output_key(internal_key, root)[0].hex() == case["output_key"]
    script = taproot_output_script(internal_key, root)
    assert script.hex() == case["script"]
    assert encode_address(script, Network.MAINNET) == case["address"]
    assert decode_address(case["address"], Network.MAINNET) == script


@every_input
def test_key_path_digest_and_signature(case: dict[str, Any]) -> None:
    secret, root = bytes.fromhex(case["secret"]), bytes.fromhex(case["merkle_root"])
    index, hashtype = case["index"], case["hashtype"]
    assert xonly_create(secret).hex() == case["internal_key"]
    tweaked = taproot_output_secret(secret, root)
    assert tweaked.hex() == case["tweaked_secret"]
    assert "00" + taproot_message(TX, index, SPENT, hashtype).hex() == case["message"]
    digest = sighash_taproot(TX, index, SPENT, hashtype)
    assert digest.hex() == case["digest"]
    signature = schnorr_sign(tweaked, digest, NO_AUX)
    assert [taproot_signature(signature, hashtype).hex()] == case["witness"]
    assert schnorr_verify(SPENT[index].script[2:], digest, signature)


def test_the_whole_transaction_is_accepted_by_the_kernel() -> None:
    signed = parse_transaction(bytes.fromhex(SPEND["signed_tx"]))
    inputs = list(signed.inputs)
    for case in SPEND["inputs"]:
        secret = taproot_output_secret(bytes.fromhex(case["secret"]), bytes.fromhex(case["merkle_root"]))
        digest = sighash_taproot(TX, case["index"], SPENT, case["hashtype"])
        witness = (taproot_signature(schnorr_sign(secret, digest, NO_AUX), case["hashtype"]),)
        inputs[case["index"]] = msgspec.structs.replace(inputs[case["index"]], witness=witness)
    ours = msgspec.structs.replace(signed, inputs=tuple(inputs))
    assert finalize_transaction(ours, SPENT).serialize().hex() == SPEND["signed_tx"]


@pytest.mark.parametrize("hashtype", [0x04, 0x10, 0x80, 0x84, 0x100, -1])
def test_unknown_types_are_refused(hashtype: int) -> None:
    with pytest.raises(BitcoinError, match="sighash type"):
        sighash_taproot(TX, 0, SPENT, hashtype)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(BitcoinError, match="no input 9"):
        sighash_taproot(TX, 9, SPENT)
    with pytest.raises(BitcoinError, match="outputs spent"):
        sighash_taproot(TX, 0, SPENT[:-1])
    with pytest.raises(BitcoinError, match="needs an output 2"):
        sighash_taproot(TX, 2, SPENT, 0x83)
    with pytest.raises(BitcoinError, match="leaf hash"):
        sighash_taproot(TX, 0, SPENT, leaf_hash=b"short")
    with pytest.raises(BitcoinError, match="leaf version"):
        _ = TapLeaf(script=b"", version=0xC1).hash
    with pytest.raises(BitcoinError, match="32 bytes"):
        taproot_tweak(b"\x02" * 33)
    tree: TapTree = TapLeaf(script=b"")
    for _ in range(129):
        tree = (tree, TapLeaf(script=b""))
    with pytest.raises(BitcoinError, match="128 deep"):
        tap_tree(tree)
