"""What the chain itself knows about the demo's money: fees of transactions, and outputs that are still unspent."""

import msgspec
from leyden.bitcoin import Transaction, parse_transaction
from leyden_regtest import protocol as chain

from leyden_cli.demo.errors import DemoFailed
from leyden_cli.demo.processes import Chain


class Coins(msgspec.Struct, frozen=True, kw_only=True):
    """In satoshi. ``unspent``: every output of the nodes that the chain still has, the faucet's own left out."""

    funding_fee: int
    closing_fee: int
    unspent: int
    closing_txid: str


async def count_coins(server: Chain, faucet_txids: list[str], funding_txid: str, funding_vout: int) -> Coins:
    """Ask the chain server for the transactions of the demo and for each of their outputs."""
    spender = await server.find_spender(funding_txid, funding_vout)
    if spender is None or spender.height is None:
        raise DemoFailed("the closing transaction is not in the chain")
    faucet_script = bytes.fromhex((await server.ask(chain.GetInfo(), chain.ChainInfo)).faucet_script)
    unspent = 0
    for txid in (*faucet_txids, funding_txid, spender.txid):
        tx = await _transaction(server, txid)
        for vout, output in enumerate(tx.outputs):
            if output.script != faucet_script:
                unspent += await _value_if_unspent(server, txid, vout)
    return Coins(
        funding_fee=await _fee(server, funding_txid),
        closing_fee=await _fee(server, spender.txid),
        unspent=unspent,
        closing_txid=spender.txid,
    )


async def _transaction(server: Chain, txid: str) -> Transaction:
    found = await server.ask(chain.FindTransaction(txid=txid), chain.TransactionResult)
    return parse_transaction(bytes.fromhex(found.transaction))


async def _fee(server: Chain, txid: str) -> int:
    """What the inputs of a transaction are worth more than its outputs."""
    tx = await _transaction(server, txid)
    spent = 0
    for entry in tx.inputs:
        earlier = await _transaction(server, entry.prevout.txid[::-1].hex())
        spent += earlier.outputs[entry.prevout.vout].value
    return spent - sum(output.value for output in tx.outputs)


async def _value_if_unspent(server: Chain, txid: str, vout: int) -> int:
    found = await server.ask(chain.FindUtxo(txid=txid, vout=vout), chain.UtxoResult)
    return found.sat if found.status == "found" else 0
