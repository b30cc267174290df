"""What the wallet tells a signer about a transaction: a PSBT with everything that a careful signer checks."""

from collections.abc import Mapping, Sequence

from leyden.bitcoin import (
    KeyInfo,
    KeyOrigin,
    Psbt,
    PsbtInput,
    PsbtOutput,
    TaprootKeyInfo,
    Transaction,
    is_p2tr,
)
from leyden.hooks.types import Destination
from leyden.types import Txid

from leyden_wallet.destinations import DestinationBook
from leyden_wallet.errors import WalletError
from leyden_wallet.rows import Coin


def make_psbt(
    tx: Transaction, coins: Sequence[Coin], previous: Mapping[Txid, Transaction], book: DestinationBook
) -> bytes:
    """``tx`` with the coins that its inputs spend, the transactions that made them, and the origins of our keys.

    A version 0 signature commits to the amount of its own input only, so each input then brings the whole transaction
    that it spends; taproot signatures commit to all amounts, and bring their output alone.
    """
    by_outpoint = {coin.outpoint: coin for coin in coins}
    spent = [by_outpoint[tx_input.prevout] for tx_input in tx.inputs]
    whole = not all(is_p2tr(coin.script) for coin in spent)
    psbt = Psbt(
        tx=tx,
        inputs=tuple(_make_input(coin, _find(coin, previous) if whole else None, book) for coin in spent),
        outputs=tuple(_make_output(book.get(output.script)) for output in tx.outputs),
    )
    return psbt.serialize()


def _find(coin: Coin, previous: Mapping[Txid, Transaction]) -> Transaction:
    found = previous.get(coin.outpoint.txid)
    if found is None:
        raise WalletError(
            "the wallet does not have the transaction behind one of its coins: rows of an early version; "
            "restore the wallet from its seed"
        )
    return found


def _make_input(coin: Coin, previous: Transaction | None, book: DestinationBook) -> PsbtInput:
    destination = book.get(coin.script)
    if destination is None:
        raise WalletError(f"the wallet has no key for script {coin.script.hex()}")
    if is_p2tr(coin.script):
        return PsbtInput(
            non_witness_utxo=previous,
            witness_utxo=coin.output,
            tap_internal_key=destination.pubkey[1:],
            taproot_keys=(_taproot_key(destination),),
        )
    return PsbtInput(non_witness_utxo=previous, witness_utxo=coin.output, keys=(_key(destination),))


def _make_output(destination: Destination | None) -> PsbtOutput:
    if destination is None:
        return PsbtOutput()
    if is_p2tr(destination.script):
        return PsbtOutput(tap_internal_key=destination.pubkey[1:], taproot_keys=(_taproot_key(destination),))
    return PsbtOutput(keys=(_key(destination),))


def _key(destination: Destination) -> KeyInfo:
    return KeyInfo(pubkey=destination.pubkey, origin=_origin(destination))


def _taproot_key(destination: Destination) -> TaprootKeyInfo:
    return TaprootKeyInfo(xonly=destination.pubkey[1:], origin=_origin(destination))


def _origin(destination: Destination) -> KeyOrigin:
    return KeyOrigin(fingerprint=destination.fingerprint, path=destination.path)
