"""Finishing a transaction that spends the funding output with both signatures."""

from msgspec.structs import replace

from leyden.bitcoin import Transaction, TxOut, finalize_transaction, funding_script
from leyden.channel.state import Channel
from leyden.commitment import funding_witness


def close_witness(
    channel: Channel, tx: Transaction, local_signature: bytes, remote_signature: bytes
) -> tuple[Transaction, tuple[TxOut, ...]]:
    """``tx`` (one input: the funding output) with its witness, and the output it spends."""
    setup = channel.setup
    ours, theirs = setup.local_keys.funding_pubkey, setup.remote_keys.funding_pubkey
    witness = funding_witness(ours, local_signature, theirs, remote_signature, funding_script(ours, theirs))
    signed = replace(tx, inputs=(replace(tx.inputs[0], witness=witness),))
    spent = (TxOut(value=setup.funding_satoshis, script=channel.funding.script),)
    return finalize_transaction(signed, spent), spent
