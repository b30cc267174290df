"""The funding transaction of BOLT 3, appendix B: blocks, scripts, our signature, bytes and ids."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import (
    Network,
    Transaction,
    TxIn,
    TxOut,
    check_block,
    decode_address,
    encode_address,
    finalize_transaction,
    funding_script,
    p2pkh,
    p2wpkh,
    p2wsh,
    parse_block,
    parse_transaction,
    push_data,
)
from leyden.crypto import ecdsa_sign, pubkey_create, sha256d, sig_to_der
from leyden.types import OutPoint, Sat, Txid

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt03_funding.json").read_text())
FUNDING: dict[str, Any] = DATA["funding"]
COIN: dict[str, Any] = DATA["coin"]
KEYS = tuple(map(bytes.fromhex, FUNDING["keys"]))
SECRET = bytes.fromhex(COIN["secret"])
COIN_SCRIPT = p2pkh(pubkey_create(SECRET))


def test_funding_script_sorts_its_keys() -> None:
    assert funding_script(*KEYS).hex() == FUNDING["script"]
    assert funding_script(*reversed(KEYS)).hex() == FUNDING["script"]


def test_blocks() -> None:
    genesis = parse_block(bytes.fromhex(DATA["genesis_block"]))
    check_block(genesis, Network.REGTEST)
    assert genesis.header.hash == Network.REGTEST.chain_hash
    block = parse_block(bytes.fromhex(DATA["coin_block"]))
    check_block(block, Network.REGTEST)
    assert block.serialize().hex() == DATA["coin_block"]
    assert block.header.prev_hash == genesis.hash
    (coinbase,) = block.transactions
    assert coinbase.is_coinbase
    assert coinbase.txid[::-1].hex() == COIN["txid"]
    assert coinbase.outputs == (TxOut(value=Sat(COIN["value"]), script=COIN_SCRIPT),)
    assert encode_address(COIN_SCRIPT, Network.REGTEST) == COIN["address"]
    assert decode_address(COIN["address"], Network.REGTEST) == COIN_SCRIPT


def _sign_legacy(tx: Transaction, script: bytes, secret: bytes) -> Transaction:
    """SIGHASH_ALL of a P2PKH input as before segwit: Leyden itself signs no such thing."""
    (txin,) = tx.inputs

    def with_script(script_sig: bytes) -> Transaction:
        signed = TxIn(prevout=txin.prevout, sequence=txin.sequence, script_sig=script_sig)
        return Transaction(version=tx.version, inputs=(signed,), outputs=tx.outputs, locktime=tx.locktime)

    digest = sha256d(with_script(script).serialize() + (1).to_bytes(4, "little"))
    signature = sig_to_der(ecdsa_sign(secret, digest)) + b"\x01"
    return with_script(push_data(signature) + push_data(pubkey_create(secret)))


@pytest.mark.no_kernel_verdict("spends a coinbase of a chain of its own")
def test_funding_transaction() -> None:
    prevout = OutPoint(Txid(bytes.fromhex(COIN["txid"])[::-1]), COIN["vout"])
    unsigned = Transaction(
        version=2,
        inputs=(TxIn(prevout=prevout, sequence=0xFFFFFFFF),),
        outputs=(
            TxOut(value=Sat(FUNDING["value"]), script=p2wsh(funding_script(*KEYS))),
            TxOut(value=Sat(FUNDING["change"]), script=p2wpkh(pubkey_create(SECRET))),
        ),
        locktime=0,
    )
    signed = _sign_legacy(unsigned, COIN_SCRIPT, SECRET)
    assert signed.serialize().hex() == FUNDING["tx"]
    assert signed.txid[::-1].hex() == FUNDING["txid"]
    assert parse_transaction(bytes.fromhex(FUNDING["tx"])) == signed
    assert not signed.has_witness
    assert finalize_transaction(signed, [TxOut(value=Sat(COIN["value"]), script=COIN_SCRIPT)]) is signed
