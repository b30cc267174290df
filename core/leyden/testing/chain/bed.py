"""What a test bed supplies: sources on a real chain, and control over that chain."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from leyden.bitcoin import SEQUENCE_RBF, Transaction, TxIn, TxOut, finalize_transaction, p2wsh, push_data
from leyden.hooks.services import ChainSource
from leyden.hooks.types import Watch
from leyden.testing.expectations import expect
from leyden.types import BlockHash, BlockHeight, OutPoint, Sat

ANYONE_SCRIPT = b"\x51"
"""OP_TRUE: as a P2WSH script it lets the suite spend without keys."""
_OP_DROP = b"\x75"


class ChainControl(Protocol):
    """What a test bed must be able to do to the real chain behind the source (regtest)."""

    async def tip(self) -> tuple[BlockHeight, BlockHash]: ...

    async def mine(self, blocks: int) -> None:
        """The first block takes the whole mempool."""
        ...

    async def reorg(self, depth: int, blocks: int) -> None:
        """Replace ``depth`` blocks by ``blocks`` others, without the transactions of the old ones."""
        ...

    async def pay(self, script: bytes, value: Sat) -> Transaction:
        """Put a payment of ``value`` satoshi to ``script`` into the mempool."""
        ...

    async def submit(self, tx: Transaction) -> None:
        """Put ``tx`` into the mempool; no error if it is there already."""
        ...


class BackendSwitch(msgspec.Struct, frozen=True, kw_only=True):
    """Take the backend of a plugin away and give it back.

    ``off`` as if the machine had lost its power (the process killed, the file gone), or stopped in the middle of things
    (SIGSTOP): the suite asks for the first in ``AbsentBackendSuite``, for the second in ``SlowBackendSuite``. The chain
    is the same when it is ``on`` again. Each returns when it is done.
    """

    off: Callable[[], Awaitable[None]]
    on: Callable[[], Awaitable[None]]


class Lie(msgspec.Struct, frozen=True, kw_only=True):
    """A backend that lies. ``name`` says how, in a word; ``make_source`` gives a source in front of it.

    ``noticed`` tells whether the source has found out by itself (it left the server, it warned); the core may be
    first, and then it need not. Without it the core must find out, or the source say so with ``SourceWarning``.
    """

    name: str
    make_source: Callable[[], ChainSource]
    noticed: Callable[[], bool] = lambda: False


class ChainBed(msgspec.Struct, frozen=True, kw_only=True):
    """``make_source`` gives a new, unstarted source on the same chain each time; the rest is for the suites that
    name it."""

    make_source: Callable[[], ChainSource]
    control: ChainControl
    power: BackendSwitch | None = None
    """``AbsentBackendSuite``."""
    freeze: BackendSwitch | None = None
    """``SlowBackendSuite``."""
    make_stranger: Callable[[], ChainSource] | None = None
    """``WrongNetworkSuite``: a source that was told to follow another network than the one its backend is on."""
    lies: Sequence[Lie] = ()
    """``LyingBackendSuite``."""


class Purse:
    """Coins on the bed's chain that pay one script, another one for each ``tag``, and that need no keys.

    Amounts are satoshi. ``witness_script`` is what a spend shows, ``script`` what is watched.
    """

    def __init__(self, control: ChainControl, tag: str, fee: int = 1_000) -> None:
        self.control = control
        self.fee = fee
        self.witness_script = anyone_script(tag.encode())
        self.script = p2wsh(self.witness_script)

    async def pay(self, value: int = 60_000) -> Transaction:
        """A coin in the mempool."""
        return await self.control.pay(self.script, Sat(value))

    async def submit_spend(self, tx: Transaction) -> Transaction:
        """What spends the coin of ``tx`` to the same script again, in the mempool too."""
        spend = self.spend(tx)
        await self.control.submit(spend)
        return spend

    def spend(self, tx: Transaction, fee: int | None = None, to: bytes = b"") -> Transaction:
        """What spends the coin of ``tx``, to the same script again or ``to`` another one."""
        value = tx.outputs[self.outpoint(tx).vout].value
        return spend_anyone(tx, Sat(value - (self.fee if fee is None else fee)), self.witness_script, to)

    def outpoint(self, tx: Transaction) -> OutPoint:
        """The first output of ``tx`` that is a coin of this purse."""
        return outpoint_paying(tx, self.script)

    def watch(self, since: int, *, outpoint: OutPoint | None = None) -> Watch:
        return Watch(script=self.script, outpoint=outpoint, since_height=BlockHeight(since))


def outpoint_paying(tx: Transaction, script: bytes) -> OutPoint:
    """The first output of ``tx`` that pays ``script``; ``AssertionError`` if none does."""
    found = [index for index, output in enumerate(tx.outputs) if output.script == script]
    expect(found, "the bed's payment does not pay the script that it was asked to pay")
    return OutPoint(tx.txid, found[0])


def anyone_script(tag: bytes) -> bytes:
    """A witness script that anyone can satisfy, another one for each ``tag`` (1 to 75 bytes)."""
    return push_data(tag) + _OP_DROP + ANYONE_SCRIPT


def spend_anyone(tx: Transaction, value: Sat, script: bytes = ANYONE_SCRIPT, to: bytes = b"") -> Transaction:
    """A transaction that spends the output of ``tx`` that pays P2WSH of ``script``, to that again or ``to`` a script.

    ``script`` must need no witness besides itself; ``value`` in satoshi, what is left of the output is fee.
    """
    spend = unchecked_spend(tx, value, script)
    if to:
        spend = msgspec.structs.replace(spend, outputs=(TxOut(value=value, script=to),))
    spent = tx.outputs[spend.inputs[0].prevout.vout]
    return finalize_transaction(spend, [spent])


def unchecked_spend(
    tx: Transaction, value: Sat, script: bytes = ANYONE_SCRIPT, sequence: int = SEQUENCE_RBF
) -> Transaction:
    """As ``spend_anyone``, for transactions that are meant to be refused: nobody is asked whether they are valid."""
    paid = p2wsh(script)
    txin = TxIn(prevout=outpoint_paying(tx, paid), sequence=sequence, witness=(script,))
    return Transaction(version=2, inputs=(txin,), outputs=(TxOut(value=value, script=paid),), locktime=0)
