"""The command ``leyden`` with one difference: what is paid to it waits for a decision that never comes."""

from typing import Any

from leyden.node import core
from leyden.node.payments import PaymentManager
from leyden_cli.main import main


class Undecided(PaymentManager):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**(arguments | {"ask_payment": lambda _payment, _answer: None}))


if __name__ == "__main__":
    core.PaymentManager = Undecided
    main()
