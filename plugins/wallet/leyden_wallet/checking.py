"""What rows of the wallet say about each other, for ``leyden db check``."""

from collections.abc import Iterable, Iterator

from leyden.bitcoin import Transaction
from leyden.types import RecordError, Txid
from leyden.wire.stored import DAMAGES

from leyden_wallet.rows import PURPOSES, KnownTransaction, StoredWallet, read_row


def check_rows(prefix: bytes, rows: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    """One line for everything that is wrong."""
    found = StoredWallet()
    for key, value in rows:
        try:
            read_row(found, key[len(prefix) :], value)
        except RecordError as error:
            yield f"{key.hex()}: {error.problem}"
        except DAMAGES as error:
            yield f"{key.hex()}: the row makes no sense ({error})"
    for purpose in PURPOSES:
        indexes = [index for of, index, _ in found.destinations if of is purpose]
        if indexes != list(range(len(indexes))):
            yield f"{purpose.value} scripts are missing: rows {indexes}"
    for txid, tx in found.raw.items():
        if tx.txid != txid:
            yield f"transaction {txid[::-1].hex()} is another one in its row"
    for txid, known in found.transactions:
        yield from _check_transaction(txid, known, found.raw.get(txid))
    for claim_id, claim in found.claims.items():
        inputs = {txin.prevout for txin in claim.transaction().inputs}
        if any(coin.outpoint not in inputs for coin in claim.coins):
            yield f"claim {claim_id!r} locks coins that its transaction does not spend"


def _check_transaction(txid: Txid, known: KnownTransaction, raw: Transaction | None) -> Iterator[str]:
    name = txid[::-1].hex()
    if any(coin.outpoint.txid != txid for coin in known.coins):
        yield f"transaction {name} has coins of another one"
    elif raw is not None and raw.txid == txid:
        for coin in known.coins:
            index = coin.outpoint.vout
            if index >= len(raw.outputs) or raw.outputs[index] != coin.output:
                yield f"coin {name}:{index} is not what its transaction pays"
