"""The faucet's keys and coins: one P2WPKH script that mines and pays. Its secret is public by design."""

from leyden.bitcoin import (
    SEQUENCE_RBF,
    SIGHASH_ALL,
    Transaction,
    TxIn,
    TxOut,
    dust_limit,
    finalize_transaction,
    p2pkh,
    p2wpkh,
    sighash_segwit_v0,
)
from leyden.crypto import ecdsa_sign, pubkey_create, sha256, sig_to_der
from leyden.types import BlockHeight, OutPoint, Sat

from leyden_regtest.coins import COINBASE_MATURITY, Coin, CoinIndex
from leyden_regtest.errors import ChainError
from leyden_regtest.mempool import Mempool

_SECRET = sha256(b"leyden regtest faucet")
_FEERATE = 2  # sat per virtual byte
_OVERHEAD_VSIZE = 11
_INPUT_VSIZE = 69
_OUTPUT_OVERHEAD = 9


class Faucet:
    """Builds payments from coins of its own script, confirmed ones first, then its own unconfirmed change."""

    def __init__(self) -> None:
        self._public = pubkey_create(_SECRET)
        self.script = p2wpkh(self._public)

    def make_payment(
        self, script: bytes, value: Sat, coins: CoinIndex, mempool: Mempool, next_height: BlockHeight
    ) -> Transaction:
        """A signed transaction that pays ``value`` satoshi to ``script``; ``ChainError`` if dust or too much."""
        if value < dust_limit(script):
            raise ChainError(f"{value} sat is dust: at least {dust_limit(script)} for this script")
        chosen: list[tuple[OutPoint, Coin]] = []
        total = 0
        vsize = _OVERHEAD_VSIZE + 2 * _OUTPUT_OVERHEAD + len(script) + len(self.script)
        for outpoint, coin in self._spendable(coins, mempool, next_height):
            chosen.append((outpoint, coin))
            total += coin.output.value
            vsize += _INPUT_VSIZE
            if total >= value + vsize * _FEERATE:
                return self._sign(chosen, script, value, Sat(total - value - vsize * _FEERATE))
        raise ChainError(f"the faucet has {total} sat at hand: mine more blocks to it")

    def _spendable(self, coins: CoinIndex, mempool: Mempool, next_height: BlockHeight) -> list[tuple[OutPoint, Coin]]:
        found = [
            (outpoint, coin)
            for outpoint, coin in coins.unspent.items()
            if coin.output.script == self.script
            and outpoint not in mempool.spends
            and (not coin.coinbase or next_height - coin.height >= COINBASE_MATURITY)
        ]
        found.sort(key=lambda item: (item[1].height, item[0]))
        for txid, entry in mempool.entries.items():
            for vout, output in enumerate(entry.tx.outputs):
                outpoint = OutPoint(txid, vout)
                if output.script == self.script and outpoint not in mempool.spends:
                    found.append((outpoint, Coin(output, next_height, False)))
        return found

    def _sign(self, chosen: list[tuple[OutPoint, Coin]], script: bytes, value: Sat, change: Sat) -> Transaction:
        outputs = [TxOut(value=value, script=script)]
        if change >= dust_limit(self.script):
            outputs.append(TxOut(value=change, script=self.script))
        inputs = tuple(TxIn(prevout=outpoint, sequence=SEQUENCE_RBF) for outpoint, _ in chosen)
        unsigned = Transaction(version=2, inputs=inputs, outputs=tuple(outputs), locktime=0)
        prevouts = [coin.output for _, coin in chosen]
        code = p2pkh(self._public)
        signed = []
        for index, (txin, spent) in enumerate(zip(inputs, prevouts, strict=True)):
            digest = sighash_segwit_v0(unsigned, index, code, spent.value)
            signature = sig_to_der(ecdsa_sign(_SECRET, digest)) + bytes([SIGHASH_ALL])
            signed.append(TxIn(prevout=txin.prevout, sequence=SEQUENCE_RBF, witness=(signature, self._public)))
        tx = Transaction(version=2, inputs=tuple(signed), outputs=tuple(outputs), locktime=0)
        return finalize_transaction(tx, prevouts)
