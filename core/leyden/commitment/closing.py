"""The legacy mutual close (BOLT 3, closing transaction; BOLT 2, ``closing_signed``)."""

from leyden.bitcoin import Transaction, TxIn, TxOut, sighash_segwit_v0
from leyden.commitment.params import CommitmentError
from leyden.types import Msat, OutPoint, Sat
from leyden.types.rules import C_108

CLOSING_SEQUENCE = 0xFFFFFFFF


def make_closing_tx(
    *,
    funding_outpoint: OutPoint,
    local_script: bytes,
    remote_script: bytes,
    local_msat: Msat,
    remote_msat: Msat,
    fee: Sat,
    local_is_funder: bool,
    dust_limit: Sat,
) -> Transaction:
    """The closing transaction at ``fee`` satoshi, unsigned: amounts round down, the funder pays, dust is left out.

    ``dust_limit`` is that of the side which proposes. Outputs are ordered by value, then script.
    ``CommitmentError`` if the funder cannot pay the fee or no output would remain.
    """
    local_sat, remote_sat = local_msat // 1000, remote_msat // 1000
    if local_is_funder:
        local_sat -= fee
    else:
        remote_sat -= fee
    if local_sat < 0 or remote_sat < 0:
        raise CommitmentError(f"closing fee of {fee} sat is more than the funder has")
    kept_from = dust_limit if C_108.enabled else 0
    outputs = [
        TxOut(value=Sat(value), script=script)
        for value, script in sorted(((local_sat, local_script), (remote_sat, remote_script)))
        if value >= kept_from
    ]
    if not outputs:
        raise CommitmentError("closing transaction would have no output: both balances are dust")
    return Transaction(
        version=2,
        inputs=(TxIn(prevout=funding_outpoint, sequence=CLOSING_SEQUENCE),),
        outputs=tuple(outputs),
        locktime=0,
    )


def closing_sighash(tx: Transaction, funding_script: bytes, funding_value: Sat) -> bytes:
    """The SIGHASH_ALL digest that both funding keys sign."""
    return sighash_segwit_v0(tx, 0, funding_script, funding_value)


def closing_weight(*output_scripts: bytes) -> int:
    """Weight of a closing transaction with these outputs and a funding witness of two 73-byte signatures."""
    base = 4 + 1 + 41 + 1 + sum(8 + 1 + len(script) for script in output_scripts) + 4
    witness = 2 + 1 + 1 + 2 * 74 + 1 + 71
    return base * 4 + witness
