"""The coins of the active chain: what is unspent, what was spent and by whom, and where a transaction confirmed.

The kernel's interface has no look-up of coins, so this index is kept beside it and rebuilt from the blocks at start.
"""

from collections.abc import Sequence
from typing import NamedTuple

from leyden.bitcoin import Transaction, TxOut, is_op_return
from leyden.types import BlockHeight, OutPoint, Txid

COINBASE_MATURITY = 100


class Coin(NamedTuple):
    """An output with what decides when it can be spent."""

    output: TxOut
    height: BlockHeight
    coinbase: bool


class CoinIndex:
    """Follows connected and disconnected blocks in order; spent coins are kept so that blocks can be undone."""

    def __init__(self) -> None:
        self.unspent: dict[OutPoint, Coin] = {}
        self.spent: dict[OutPoint, tuple[Coin, Txid]] = {}
        self.confirmed: dict[Txid, BlockHeight] = {}

    def connect(self, height: BlockHeight, transactions: Sequence[Transaction]) -> None:
        for tx in transactions:
            coinbase = tx.is_coinbase
            if not coinbase:
                for txin in tx.inputs:
                    self.spent[txin.prevout] = (self.unspent.pop(txin.prevout), tx.txid)
            for vout, output in enumerate(tx.outputs):
                if not is_op_return(output.script):
                    self.unspent[OutPoint(tx.txid, vout)] = Coin(output, height, coinbase)
            self.confirmed[tx.txid] = height

    def disconnect(self, transactions: Sequence[Transaction]) -> None:
        """Undo ``connect`` of the newest block."""
        for tx in reversed(transactions):
            for vout in range(len(tx.outputs)):
                self.unspent.pop(OutPoint(tx.txid, vout), None)
            if not tx.is_coinbase:
                for txin in tx.inputs:
                    self.unspent[txin.prevout] = self.spent.pop(txin.prevout)[0]
            del self.confirmed[tx.txid]
