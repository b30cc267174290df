"""What the chain itself knows about the demo's money: fees of transactions, and outputs that are still unspent."""

import msgspec
from leyden.bitcoin import Transaction

from leyden_cli.demo.errors import DemoFailed
from leyden_cli.demo.processes import DemoChain


class Coins(msgspec.Struct, frozen=True, kw_only=True):
    """In satoshi. ``unspent``: every output of the nodes that the chain still has, the faucet's own left out."""

    funding_fee: int
    closing_fee: int
    unspent: int
    closing_txid: str


async def count_coins(chain: DemoChain, faucet_txids: list[str], funding_txid: str, funding_vout: int) -> Coins:
    """Ask the chain for the transactions of the demo and for each of their outputs."""
    spender = await chain.find_spender(funding_txid, funding_vout)
    if spender is None or not spender.confirmed:
        raise DemoFailed("the closing transaction is not in the chain")
    unspent = 0
    for txid in (*faucet_txids, funding_txid, spender.txid):
        tx = await _transaction(chain, txid)
        for vout, output in enumerate(tx.outputs):
            if not await chain.is_its_own(output.script):
                unspent += await chain.value_if_unspent(txid, vout)
    return Coins(
        funding_fee=await _fee(chain, funding_txid),
        closing_fee=await _fee(chain, spender.txid),
        unspent=unspent,
        closing_txid=spender.txid,
    )


async def _transaction(chain: DemoChain, txid: str) -> Transaction:
    found = await chain.transaction(txid)
    if found is None:
        raise DemoFailed(f"the chain does not know transaction {txid}")
    return found


async def _fee(chain: DemoChain, txid: str) -> int:
    """What the inputs of a transaction are worth more than its outputs."""
    tx = await _transaction(chain, txid)
    spent = 0
    for entry in tx.inputs:
        earlier = await _transaction(chain, entry.prevout.txid[::-1].hex())
        spent += earlier.outputs[entry.prevout.vout].value
    return spent - sum(output.value for output in tx.outputs)
