"""The one gate for transactions that are ready to be broadcast."""

from collections.abc import Callable, Sequence

from leyden.bitcoin.errors import BitcoinError
from leyden.bitcoin.script import is_p2a, segwit_program
from leyden.bitcoin.transaction import Transaction, TxOut

finalize_hooks: list[Callable[[Transaction, tuple[TxOut, ...]], None]] = []
"""Called with each finalised transaction and the outputs it spends. For tests: the kernel judges every one there."""


def finalize_transaction(tx: Transaction, prevouts: Sequence[TxOut]) -> Transaction:
    """``tx`` itself after a last look. Every transaction that Leyden has fully signed passes through here.

    ``prevouts`` are the outputs its inputs spend, in the order of the inputs. ``BitcoinError`` if their number differs,
    if an input is spent twice or lacks its witness, if nothing is paid, or if more is paid out than comes in.
    """
    if not tx.outputs:
        raise BitcoinError("a transaction without outputs cannot be broadcast")
    if len(prevouts) != len(tx.inputs):
        raise BitcoinError(f"{len(tx.inputs)} inputs but {len(prevouts)} previous outputs")
    if len({txin.prevout for txin in tx.inputs}) != len(tx.inputs):
        raise BitcoinError("the transaction spends an output twice")
    for txin, prevout in zip(tx.inputs, prevouts, strict=True):
        if segwit_program(prevout.script) is not None:
            if not txin.witness and not is_p2a(prevout.script):
                raise BitcoinError(f"input {txin.prevout} is not signed")
            if txin.script_sig:
                raise BitcoinError(f"input {txin.prevout} has a script although it spends a segwit output")
    if sum(o.value for o in tx.outputs) > sum(p.value for p in prevouts):
        raise BitcoinError("the transaction pays out more than it spends")
    spent = tuple(prevouts)
    for hook in finalize_hooks:
        hook(tx, spent)
    return tx
