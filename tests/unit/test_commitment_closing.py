"""The legacy closing transaction."""

import pytest
from leyden.bitcoin import p2tr, p2wpkh
from leyden.commitment import CommitmentError, closing_weight, make_closing_tx
from leyden.crypto import sha256
from leyden.types import Msat, OutPoint, Sat, Txid

LOCAL, REMOTE = p2wpkh(b"\x02" * 20), p2tr(b"\x01" * 32)


def close(
    local_msat: int, remote_msat: int, *, fee: int = 1000, local_is_funder: bool = True, dust: int = 354
) -> list[tuple[int, bytes]]:
    tx = make_closing_tx(
        funding_outpoint=OutPoint(Txid(sha256(b"funding")), 1),
        local_script=LOCAL,
        remote_script=REMOTE,
        local_msat=Msat(local_msat),
        remote_msat=Msat(remote_msat),
        fee=Sat(fee),
        local_is_funder=local_is_funder,
        dust_limit=Sat(dust),
    )
    assert (tx.version, tx.locktime, tx.inputs[0].sequence) == (2, 0, 0xFFFFFFFF)
    return [(output.value, output.script) for output in tx.outputs]


def test_fee_from_the_funder_amounts_rounded_down_outputs_in_order() -> None:
    assert close(5_000_999, 9_000_001) == [(4_000, LOCAL), (9_000, REMOTE)]
    assert close(5_000_999, 9_000_001, local_is_funder=False) == [(5_000, LOCAL), (8_000, REMOTE)]
    assert close(10_000_000, 9_000_000) == [(9_000, LOCAL), (9_000, REMOTE)]  # equal values: by script
    assert close(11_000_000, 9_000_000) == [(9_000, REMOTE), (10_000, LOCAL)]


@pytest.mark.proves("C-108")
def test_outputs_below_the_dust_limit_vanish() -> None:
    assert close(1_354_000, 9_000_000) == [(354, LOCAL), (9_000, REMOTE)]
    assert close(1_353_999, 9_000_000) == [(9_000, REMOTE)]
    assert close(9_000_000, 353_999) == [(8_000, LOCAL)]


def test_impossible_closes_are_refused() -> None:
    with pytest.raises(CommitmentError, match="more than the funder has"):
        close(999_999, 9_000_000)
    with pytest.raises(CommitmentError, match="both balances are dust"):
        close(1_100_000, 200_000)


def test_weight_covers_the_transaction() -> None:
    tx = make_closing_tx(
        funding_outpoint=OutPoint(Txid(sha256(b"funding")), 1),
        local_script=LOCAL,
        remote_script=REMOTE,
        local_msat=Msat(5_000_000),
        remote_msat=Msat(5_000_000),
        fee=Sat(1000),
        local_is_funder=True,
        dust_limit=Sat(354),
    )
    # marker, flag; four items: empty, two signatures of 73 bytes, the script
    witness = 2 + 1 + 1 + 2 * (1 + 73) + 1 + 71
    assert closing_weight(LOCAL, REMOTE) == tx.weight + witness
