"""BOLT 3, appendix G: a funding transaction that both sides pay for, from what they added to its last signature."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import (
    Network,
    base58check_decode,
    encode_address,
    funding_script,
    p2pkh,
    p2wsh,
    parse_transaction,
    serialize_witness,
    sighash_segwit_v0,
)
from leyden.commitment import (
    CommitmentError,
    InteractiveInput,
    InteractiveOutput,
    InteractiveTx,
    Witness,
    contribution_fee,
    contribution_weight,
    make_interactive_tx,
    p2wpkh_witness,
)
from leyden.crypto import ecdsa_sign, pubkey_create
from leyden.types import FeeRatePerKw, LeydenError, OutPoint, Sat, Side

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bolt03_dual_funding.json").read_text())
PARENT = parse_transaction(bytes.fromhex(DATA["parent_tx"]))
SIDES = {"opener": Side.LOCAL, "accepter": Side.REMOTE}
FUNDING = p2wsh(funding_script(*(bytes.fromhex(key) for key in DATA["funding_pubkeys"])))
OPENER_WITNESS: Witness = tuple(bytes.fromhex(item) for item in DATA["opener_witness"])


def added_inputs() -> list[InteractiveInput]:
    return [
        InteractiveInput(
            side=SIDES[i["side"]],
            serial_id=i["serial_id"],
            prevout=OutPoint(PARENT.txid, i["vout"]),
            spent=PARENT.outputs[i["vout"]],
            sequence=i["sequence"],
        )
        for i in DATA["inputs"]
    ]


def added_outputs() -> list[InteractiveOutput]:
    return [
        InteractiveOutput(
            side=SIDES[o["side"]], serial_id=o["serial_id"], value=Sat(o["sat"]), script=bytes.fromhex(o["script"])
        )
        for o in DATA["outputs"]
    ]


def build() -> InteractiveTx:
    return make_interactive_tx(inputs=added_inputs(), outputs=added_outputs(), locktime=DATA["locktime"])


def accepter_witness(built: InteractiveTx) -> Witness:
    secret = base58check_decode(DATA["accepter_key_wif"])[1:33]
    key = pubkey_create(secret)
    assert key.hex() == DATA["accepter_pubkey"]
    (index,) = built.indexes_of(Side.REMOTE)
    spent = built.spent[index]
    return p2wpkh_witness(ecdsa_sign(secret, sighash_segwit_v0(built.tx, index, p2pkh(key), spent.value)), key)


@pytest.mark.proves("C-012")
def test_both_sides_parts_in_the_order_of_their_serial_ids() -> None:
    built = build()
    assert built.tx.serialize().hex() == DATA["unsigned_tx"]
    assert built.tx.txid[::-1].hex() == DATA["txid"]
    assert built.output_index(44) == 2
    assert built.tx.outputs[2].script == FUNDING
    assert built.tx.outputs[2].value == sum(DATA["funding_sat"].values())
    assert (built.indexes_of(Side.LOCAL), built.indexes_of(Side.REMOTE)) == ((1,), (0,))


@pytest.mark.proves("C-012")
def test_the_order_of_adding_does_not_matter() -> None:
    for inputs in permutations(added_inputs()):
        for outputs in permutations(added_outputs()):
            built = make_interactive_tx(inputs=inputs, outputs=outputs, locktime=DATA["locktime"])
            assert built == build()


def test_weights_fees_and_change() -> None:
    for name, side in SIDES.items():
        scripts = [output.script for output in added_outputs() if output.side is side]
        weight = contribution_weight(
            inputs=1,
            output_scripts=scripts,
            witness_weight=DATA["weights"][f"{name}_witness"],
            is_initiator=side is Side.LOCAL,
        )
        assert weight == DATA["weights"][name]
        fee = contribution_fee(weight, FeeRatePerKw(DATA["feerate"]))
        assert fee == DATA["fees"][name]
        paid_in = sum(i.spent.value for i in added_inputs() if i.side is side)
        (change,) = (o.value for o in added_outputs() if o.side is side and o.script != FUNDING)
        assert change == paid_in - DATA["funding_sat"][name] - fee


def test_a_longer_witness_is_paid_for() -> None:
    def weigh(witness: int) -> int:
        return contribution_weight(inputs=2, output_scripts=(), witness_weight=witness, is_initiator=False)

    assert weigh(0) == weigh(214) == 2 * 164 + 214
    assert weigh(215) == 2 * 164 + 215


def test_addresses() -> None:
    network = Network.REGTEST
    for i in DATA["inputs"]:
        assert encode_address(PARENT.outputs[i["vout"]].script, network) == i["address"]
    changes = {o.side: o.script for o in added_outputs() if o.script != FUNDING}
    for name, side in SIDES.items():
        assert encode_address(changes[side], network) == DATA["addresses"][name]
    assert encode_address(FUNDING, network) == DATA["addresses"]["funding"]


@pytest.mark.proves("C-012")
def test_signatures() -> None:
    built = build()
    theirs = accepter_witness(built)
    assert [serialize_witness(OPENER_WITNESS).hex()] == DATA["witnesses"]["opener"]
    assert [serialize_witness(theirs).hex()] == DATA["witnesses"]["accepter"]
    tx = built.finish([OPENER_WITNESS], [theirs])
    assert tx.serialize().hex() == DATA["signed_tx"]


def test_what_cannot_be_built_is_refused() -> None:
    built = build()
    with pytest.raises(CommitmentError, match="0 witnesses for 1 local inputs"):
        built.finish([], [OPENER_WITNESS])
    with pytest.raises(LeydenError, match="not signed"):
        built.finish([OPENER_WITNESS], [()])
    with pytest.raises(CommitmentError, match="serial_id 45"):
        built.output_index(45)
    inputs, outputs = added_inputs(), added_outputs()
    for more in ({"inputs": inputs + inputs[:1]}, {"outputs": outputs + outputs[:1]}):
        parts: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "locktime": 0} | more
        with pytest.raises(CommitmentError, match="occurs twice"):
            make_interactive_tx(**parts)
