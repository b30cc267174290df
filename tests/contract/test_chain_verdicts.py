"""The pytest plugin: every finalised transaction gets a verdict of the kernel, and a refused one fails its test."""

import subprocess
import sys
from pathlib import Path

import pytest

CASES = """
import pytest
from leyden.bitcoin import Transaction, TxIn, TxOut, finalize_transaction, p2wsh
from leyden.types import OutPoint, Sat, Txid

def make(script, paid_to):
    txin = TxIn(prevout=OutPoint(Txid(bytes([7]) * 32), 0), sequence=0, witness=(script,))
    tx = Transaction(version=2, inputs=(txin,), outputs=(TxOut(value=Sat(900), script=script),), locktime=0)
    return finalize_transaction(tx, [TxOut(value=Sat(1000), script=p2wsh(paid_to))])

def test_good():
    make(bytes([0x51]), bytes([0x51]))
    make(bytes([0x51]), bytes([0x51]))

def test_bad():
    make(bytes([0x51]), bytes([0x52]))

@pytest.mark.no_kernel_verdict("made to be invalid")
def test_expected():
    make(bytes([0x51]), bytes([0x52]))

def test_nothing():
    pass
"""


def run(folder: Path, *options: str, prelude: str = "") -> tuple[int, str]:
    (folder / "test_cases.py").write_text(prelude + CASES)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p leyden.testing.pytest_plugin --strict-markers\n")
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=60)
    return done.returncode, done.stdout


def test_a_refused_transaction_fails_its_test(tmp_path: Path) -> None:
    code, out = run(tmp_path)
    assert code == 1
    assert "kernel verdicts: 2 transactions, 1 refused" in out
    assert "input 0 is refused by the kernel" in out
    assert "ERROR test_cases.py::test_bad" in out
    assert "4 passed, 1 error" in out


def test_workers_report_to_their_controller(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    code, out = run(tmp_path, "-n", "1")
    assert code == 1
    assert "kernel verdicts: 2 transactions, 1 refused" in out


def test_a_session_without_verdicts_can_be_made_to_fail(tmp_path: Path) -> None:
    code, out = run(tmp_path, "-k", "nothing", "--require-kernel-verdicts")
    assert code == 1
    assert "kernel verdicts: 0 transactions" in out


def test_a_missing_kernel_is_an_error_and_not_silence(tmp_path: Path) -> None:
    code, out = run(tmp_path, "-k", "good", prelude="import sys\nsys.modules['pbk'] = None\n")
    assert code == 1
    assert "py-bitcoinkernel is missing (pip install leyden-regtest)" in out
