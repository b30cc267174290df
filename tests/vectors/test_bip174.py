"""Partially signed transactions: the cases of BIP 174 and BIP 371."""

import json
from pathlib import Path
from typing import Any

import pytest
from leyden.bitcoin import PsbtError, parse_psbt

DATA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "bip174.json").read_text())
CASES: list[dict[str, Any]] = DATA["bip174"] + DATA["bip371"]
VALID = [case for case in CASES if case["valid"] and "0 inputs" not in case["case"]]
NO_INPUTS = [case for case in CASES if case["valid"] and "0 inputs" in case["case"]]


def _name(case: dict[str, Any]) -> str:
    return str(case["case"])


@pytest.mark.parametrize("case", VALID, ids=_name)
def test_valid(case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["hex"])
    psbt = parse_psbt(data)
    again = psbt.serialize()
    assert parse_psbt(again) == psbt
    assert len(again) == len(data)
    assert psbt.tx.inputs


@pytest.mark.parametrize("case", [case for case in CASES if not case["valid"]], ids=_name)
def test_invalid(case: dict[str, Any]) -> None:
    with pytest.raises(PsbtError):
        parse_psbt(bytes.fromhex(case["hex"]))


@pytest.mark.parametrize("case", NO_INPUTS, ids=_name)
def test_without_inputs_there_is_nothing_to_sign(case: dict[str, Any]) -> None:
    """Valid for a creator, but of no use at our border: a transaction of ours has inputs."""
    with pytest.raises(PsbtError, match="no inputs"):
        parse_psbt(bytes.fromhex(case["hex"]))


def test_all_cases_are_here() -> None:
    assert (len(DATA["bip174"]), len(DATA["bip371"])) == (30, 17)
    assert len(VALID) == 14
    assert len(NO_INPUTS) == 2
