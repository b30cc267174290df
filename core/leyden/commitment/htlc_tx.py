"""HTLC-timeout and HTLC-success transactions (BOLT 3)."""

import msgspec

from leyden.bitcoin import SIGHASH_ALL, SIGHASH_SINGLE_ANYONECANPAY, Transaction, TxIn, TxOut
from leyden.commitment.params import Htlc
from leyden.types import OutPoint, Sat, Txid
from leyden.types.rules import C_107, C_112

ZERO_FEE_VERSION = 3
"""Commitments and HTLC transactions of the zero-fee type: a parent without a fee is relayed with its child only."""
HTLC_SEQUENCE_ANCHORS = 1


def counterparty_sighash_type(anchors: bool, *, zero_fee: bool = False) -> int:
    """Hash type of the counterparty's signature on an HTLC transaction; ours is always SIGHASH_ALL.

    Where the HTLC transaction has no fee (anchors or ``zero_fee``) its owner may add inputs and a change output for it.
    """
    if (anchors and C_107.enabled) or (zero_fee and C_112.enabled):
        return SIGHASH_SINGLE_ANYONECANPAY
    return SIGHASH_ALL


class SecondStage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the HTLC transactions of one commitment share: fees in satoshi, and the P2WSH of ``to_local``."""

    commitment_txid: Txid
    anchors: bool
    timeout_fee: Sat
    success_fee: Sat
    output_script: bytes
    zero_fee: bool = False

    def make_tx(self, htlc: Htlc, output_index: int) -> Transaction:
        """HTLC-timeout for an offered HTLC, HTLC-success for a received one; unsigned."""
        make = self.make_htlc_timeout if htlc.offered_by_owner else self.make_htlc_success
        return make(htlc, output_index)

    def make_htlc_timeout(self, htlc: Htlc, output_index: int) -> Transaction:
        """The owner takes back an HTLC it offered, from height ``cltv_expiry`` on."""
        return self._make(htlc.amount_msat // 1000 - self.timeout_fee, output_index, locktime=htlc.cltv_expiry)

    def make_htlc_success(self, htlc: Htlc, output_index: int) -> Transaction:
        """The owner claims an HTLC it received, with the preimage in the witness."""
        return self._make(htlc.amount_msat // 1000 - self.success_fee, output_index, locktime=0)

    def _make(self, value: int, output_index: int, *, locktime: int) -> Transaction:
        return Transaction(
            version=ZERO_FEE_VERSION if self.zero_fee and C_112.enabled else 2,
            inputs=(
                TxIn(
                    prevout=OutPoint(self.commitment_txid, output_index),
                    sequence=HTLC_SEQUENCE_ANCHORS if self.anchors and C_107.enabled else 0,
                ),
            ),
            outputs=(TxOut(value=Sat(value), script=self.output_script),),
            locktime=locktime,
        )
