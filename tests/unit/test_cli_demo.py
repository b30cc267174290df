"""The demo's accounts and its plugin."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from leyden.hooks.types import IncomingPayment, Refusal
from leyden.types import Msat, PaymentHash
from leyden_cli.demo import plugin
from leyden_cli.demo.books import Books, Side
from leyden_cli.demo.errors import DemoFailed
from leyden_cli.main import run

ALICE = Side(name="alice", before=1000, after=1000 - 300 - 70 + 40 - 5 - 3, sent=70, received=40)
BOB = Side(name="bob", before=100, after=100 + 300 + 70 - 40, sent=40, received=70)
GOOD = Books(funder=ALICE, fundee=BOB, pushed=300, funding_fee=5, closing_fee=3, on_chain=1092)


def test_good_books() -> None:
    GOOD.check()
    assert GOOD.summary().startswith("1100 sat before = 662 alice + 430 bob + 5 funding fee + 3 closing fee")
    assert GOOD.rows()[0] == ("before", "1,000", "100", "1,100")
    assert ("after", "662", "430", "1,092") in GOOD.rows()


def test_rows_add_up() -> None:
    rows = GOOD.rows()
    for column in (1, 2):
        *moves, after = [int(row[column].replace(",", "")) for row in rows if row[column]]
        assert sum(moves) == after


@pytest.mark.parametrize(
    "change",
    [
        {"pushed": 301},
        {"funding_fee": 6},
        {"funding_fee": 0, "closing_fee": 8},
        {"closing_fee": 2},
        {"on_chain": 1091},
        {"funder": msgspec.structs.replace(ALICE, after=ALICE.after - 1)},
        {"fundee": msgspec.structs.replace(BOB, after=BOB.after + 1)},
        {"fundee": msgspec.structs.replace(BOB, received=71, after=BOB.after + 1), "on_chain": 1093},
    ],
)
def test_one_satoshi_is_noticed(change: dict[str, object]) -> None:
    with pytest.raises(DemoFailed):
        msgspec.structs.replace(GOOD, **change).check()


def payment(label: str) -> IncomingPayment:
    return IncomingPayment(payment_hash=PaymentHash(bytes(32)), amount_msat=Msat(1), invoice_msat=Msat(1), label=label)


async def test_plugin_refuses_and_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(await plugin.leyden_accept_payment(payment(plugin.UNWANTED)), Refusal)
    assert await plugin.leyden_accept_payment(payment("")) is True
    assert await plugin.leyden_accept_payment(payment(plugin.HELD)) is True
    hold = tmp_path / "hold"
    hold.touch()
    monkeypatch.setenv(plugin.HOLD_VARIABLE, str(hold))
    held = asyncio.ensure_future(plugin.leyden_accept_payment(payment(plugin.HELD)))
    await asyncio.sleep(0.05)
    assert not held.done()
    hold.unlink()
    assert await held is True


def test_keep_needs_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert run(["demo", "--keep", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
