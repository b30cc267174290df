"""What tests of a wallet play: the shell, which keeps the rows that a wallet asks to store, and the chain."""

from collections.abc import Iterable, Sequence

from leyden.bitcoin import (
    SEQUENCE_FINAL,
    Psbt,
    Transaction,
    TxIn,
    TxOut,
    is_p2tr,
    p2wpkh,
    parse_psbt,
    signed_weight,
    taproot_output_script,
)
from leyden.crypto import pubkey_create, sha256
from leyden.hooks.services import Wallet
from leyden.hooks.types import (
    BlockConnected,
    BlocksDisconnected,
    BlockTransaction,
    Destination,
    DestinationPurpose,
    FundedTransaction,
    RecordChanges,
)
from leyden.testing.expectations import expect, expect_equal
from leyden.types import BlockHash, BlockHeight, FeeRatePerKw, OutPoint, Sat, Txid

PREFIX = b"w"
FINGERPRINT = b"leyd"
FEERATE = FeeRatePerKw(1000)
_COINBASE = OutPoint(Txid(bytes(32)), 0xFFFFFFFF)


class FixedDestinations:
    """``Destinations`` made of hashes."""

    async def destination(self, purpose: DestinationPurpose, index: int) -> Destination:
        path = (list(DestinationPurpose).index(purpose), index)
        pubkey = pubkey_create(sha256(f"{purpose.value} {index}".encode()))
        taproot = purpose is DestinationPurpose.RECEIVE_TAPROOT
        script = taproot_output_script(pubkey[1:]) if taproot else p2wpkh(pubkey)
        return Destination(
            script=script, purpose=purpose, index=index, path=path, pubkey=pubkey, fingerprint=FINGERPRINT
        )


def stranger(seed: int) -> bytes:
    """A script that is not ours."""
    return p2wpkh(sha256(f"stranger {seed}".encode())[:20])


def transaction(inputs: Iterable[OutPoint], outputs: Iterable[tuple[int, bytes]], locktime: int = 0) -> Transaction:
    """An unsigned transaction; outputs as (satoshi, script)."""
    return Transaction(
        version=2,
        inputs=tuple(TxIn(prevout=prevout, sequence=SEQUENCE_FINAL) for prevout in inputs),
        outputs=tuple(TxOut(value=Sat(value), script=script) for value, script in outputs),
        locktime=locktime,
    )


def payment(seed: int, *outputs: tuple[int, bytes]) -> Transaction:
    """A stranger pays."""
    return transaction([OutPoint(Txid(sha256(f"stranger's coin {seed}".encode())), 0)], outputs)


def coinbase(height: int, *outputs: tuple[int, bytes]) -> Transaction:
    return transaction([_COINBASE], outputs, locktime=height)


class Bench:
    """A wallet, its rows, and a chain that can be taken back."""

    def __init__(self, wallet: Wallet) -> None:
        self.wallet = wallet
        self.rows: dict[bytes, bytes] = {}
        self.destinations = FixedDestinations()
        self.height = 0
        self.blocks: list[BlockConnected] = []

    async def load(self) -> None:
        """Start, or start again from the rows."""
        await self.wallet.load(PREFIX, sorted(self.rows.items()), self.destinations)

    def keep(self, changes: RecordChanges) -> None:
        for key, value in changes.puts:
            if not key.startswith(PREFIX):
                raise AssertionError(f"row {key.hex()} lies outside the wallet's prefix")
            self.rows[key] = value
        for key in changes.deletes:
            self.rows.pop(key, None)

    def script(self, purpose: DestinationPurpose = DestinationPurpose.RECEIVE) -> bytes:
        destination, changes = self.wallet.next_destination(purpose)
        self.keep(changes)
        return destination.script

    def connect(self, *transactions: Transaction, branch: int = 0) -> BlockConnected:
        self.height += 1
        block = BlockConnected(
            height=BlockHeight(self.height),
            block_hash=BlockHash(sha256(f"block {self.height} of branch {branch}".encode())),
            header=bytes(80),
            transactions=tuple(BlockTransaction(position=i, tx=tx) for i, tx in enumerate(transactions)),
            full=True,
        )
        self.blocks.append(block)
        self.keep(self.wallet.on_block_connected(block))
        return block

    def rescan(self, height: int, *transactions: Transaction) -> None:
        """Transactions of a block that was connected before: what a late watch brings."""
        known = self.blocks[height - 1]
        found = tuple(BlockTransaction(position=i, tx=tx) for i, tx in enumerate(transactions))
        block = BlockConnected(
            height=known.height, block_hash=known.block_hash, header=b"", transactions=found, full=False
        )
        self.keep(self.wallet.on_block_connected(block))

    def mine(self, blocks: int) -> None:
        for _ in range(blocks):
            self.connect()

    def disconnect(self, fork_height: int) -> None:
        self.height = fork_height
        self.blocks = self.blocks[:fork_height]
        fork_hash = self.blocks[-1].block_hash if self.blocks else BlockHash(bytes(32))
        event = BlocksDisconnected(fork_height=BlockHeight(fork_height), fork_hash=fork_hash)
        self.keep(self.wallet.on_blocks_disconnected(event))

    def broadcast(self, tx: Transaction) -> None:
        self.keep(self.wallet.on_unconfirmed(tx))

    def fund(
        self,
        claim: str,
        *outputs: tuple[int, bytes],
        feerate: FeeRatePerKw = FEERATE,
        coins: Sequence[OutPoint] = (),
        keep: int = 0,
    ) -> FundedTransaction:
        wanted = [TxOut(value=Sat(value), script=script) for value, script in outputs]
        height = BlockHeight(self.height)
        funded, changes = self.wallet.fund(claim, wanted, feerate, height, coins=coins, keep=Sat(keep))
        self.keep(changes)
        return funded

    def bump(self, claim: str, txid: Txid, feerate: int, *, cpfp: bool = False, keep: int = 0) -> FundedTransaction:
        work = self.wallet.accelerate if cpfp else self.wallet.replace
        funded, changes = work(claim, txid, FeeRatePerKw(feerate), BlockHeight(self.height), keep=Sat(keep))
        self.keep(changes)
        return funded

    def total(self) -> int:
        balance = self.wallet.balance()
        return balance.confirmed + balance.unconfirmed


def spent_outpoints(funded: FundedTransaction) -> set[OutPoint]:
    return {tx_input.prevout for tx_input in funded.tx.inputs}


def change_output(funded: FundedTransaction) -> TxOut:
    if funded.change_index is None:
        raise AssertionError("the transaction has no change")
    return funded.tx.outputs[funded.change_index]


def check_funded(funded: FundedTransaction, outputs: Sequence[tuple[int, bytes]], feerate: FeeRatePerKw) -> None:
    """Inputs are ours and different; what comes in is what goes out plus a fee that is neither too low nor absurd."""
    paid = [(o.value, o.script) for i, o in enumerate(funded.tx.outputs) if i != funded.change_index]
    expect_equal(paid, list(outputs))
    expect_equal(len({i.prevout for i in funded.tx.inputs}), len(funded.tx.inputs))
    psbt = parse_psbt(funded.psbt)
    check_psbt(psbt, (len(outputs), funded.change_index))
    total_in = sum(output.value for output in psbt.spent_outputs())
    expect_equal(total_in, sum(o.value for o in funded.tx.outputs) + funded.fee)
    weight = signed_weight(psbt)
    least = -(-feerate * weight // 1000)
    spare = 400 + -(-feerate * 4 * 43 // 1000)  # an output that would be dust, and its weight
    expect(least <= funded.fee <= least + spare, f"a fee of {funded.fee} sat, where {least} is the least")


def check_psbt(psbt: Psbt, paid: tuple[int, int | None]) -> None:
    """A signer finds in it what each input spends, the keys that it is asked for, and which output is change."""
    for index, entry in enumerate(psbt.inputs):
        script = psbt.spent_output(index).script
        whole = entry.non_witness_utxo is not None
        expect(whole or all(is_p2tr(o.script) for o in psbt.spent_outputs()), f"input {index} has no previous tx")
        keys = [p2wpkh(key.pubkey) for key in entry.keys]
        keys += [taproot_output_script(key.xonly) for key in entry.taproot_keys]
        expect_equal(keys, [script])
        origins = [*(key.origin for key in entry.keys), *(key.origin for key in entry.taproot_keys)]
        expect(origins[0].path and len(origins[0].fingerprint) == 4, f"input {index} does not say whose key it needs")
    expect_equal(len(psbt.outputs), paid[0] + (paid[1] is not None))
    if paid[1] is not None:
        change = psbt.outputs[paid[1]]
        expect(change.keys or change.taproot_keys, "the change does not say whose key it pays")
