"""Transactions that both sides build together: order, bytes, weights and fees (BOLT 2, interactive transactions).

Pure construction from what both have added, as BOLT 3 appendix G shows it; the messages and their rules are the
channel's.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property

import msgspec
from msgspec.structs import replace

from leyden.bitcoin import Transaction, TxIn, TxOut, finalize_transaction, write_varint
from leyden.commitment.params import CommitmentError
from leyden.commitment.witnesses import Witness
from leyden.types import FeeRatePerKw, OutPoint, Sat, Side
from leyden.types.rules import C_012, C_015

COMMON_FIELDS_WEIGHT = 4 * (4 + 1 + 1 + 4) + 2
"""Version, both counts, locktime, marker and flag: the initiator pays for them."""
INTERACTIVE_INPUT_WEIGHT = 4 * (32 + 4 + 1 + 4)
MIN_WITNESS_WEIGHT = 107
"""What each input's witness is taken for when all of a side's witnesses are shorter: one signature and its key."""


class InteractiveInput(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An input that ``side`` added. ``spent`` is the segwit output at ``prevout``."""

    side: Side
    serial_id: int
    prevout: OutPoint
    spent: TxOut
    sequence: int


class InteractiveOutput(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An output that ``side`` added, with its value in satoshi."""

    side: Side
    serial_id: int
    value: Sat
    script: bytes


class InteractiveTx(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A finished construction; made by ``make_interactive_tx``, which puts everything in order."""

    inputs: tuple[InteractiveInput, ...]
    outputs: tuple[InteractiveOutput, ...]
    locktime: int

    @cached_property
    def tx(self) -> Transaction:
        """The unsigned transaction."""
        return Transaction(
            version=2,
            inputs=tuple(TxIn(prevout=i.prevout, sequence=i.sequence) for i in self.inputs),
            outputs=tuple(TxOut(value=o.value, script=o.script) for o in self.outputs),
            locktime=self.locktime,
        )

    @property
    def spent(self) -> tuple[TxOut, ...]:
        """The outputs spent, in the order of the inputs."""
        return tuple(i.spent for i in self.inputs)

    def indexes_of(self, side: Side) -> tuple[int, ...]:
        """Places of the inputs of ``side``, which is the order of the witnesses in its ``tx_signatures``."""
        return tuple(index for index, txin in enumerate(self.inputs) if txin.side is side)

    def output_index(self, serial_id: int) -> int:
        """Where the output with this ``serial_id`` ended up; ``CommitmentError`` if there is none."""
        for index, output in enumerate(self.outputs):
            if output.serial_id == serial_id:
                return index
        raise CommitmentError(f"no output has serial_id {serial_id}")

    def finish(self, local_witnesses: Sequence[Witness], remote_witnesses: Sequence[Witness]) -> Transaction:
        """The signed transaction; the witnesses of each side come in the order of its inputs.

        ``CommitmentError`` if their numbers are wrong, ``BitcoinError`` if one is empty or outputs exceed inputs.
        """
        inputs = list(self.tx.inputs)
        for side, witnesses in ((Side.LOCAL, local_witnesses), (Side.REMOTE, remote_witnesses)):
            indexes = self.indexes_of(side)
            if len(indexes) != len(witnesses):
                raise CommitmentError(f"{len(witnesses)} witnesses for {len(indexes)} {side.name.lower()} inputs")
            for index, witness in zip(indexes, witnesses, strict=True):
                inputs[index] = replace(inputs[index], witness=witness)
        return finalize_transaction(replace(self.tx, inputs=tuple(inputs)), self.spent)


def make_interactive_tx(
    *, inputs: Iterable[InteractiveInput], outputs: Iterable[InteractiveOutput], locktime: int
) -> InteractiveTx:
    """Put what both sides added in the order of its ``serial_id``, whoever added it and whenever.

    ``CommitmentError`` if an id occurs twice among the inputs or among the outputs: the channel must not let it happen.
    """
    ins, outs = list(inputs), list(outputs)
    for ids in ([i.serial_id for i in ins], [o.serial_id for o in outs]):
        if len(set(ids)) != len(ids):
            raise CommitmentError("a serial_id occurs twice")
    if C_012.enabled:
        ins.sort(key=lambda txin: txin.serial_id)
        outs.sort(key=lambda output: output.serial_id)
    return InteractiveTx(inputs=tuple(ins), outputs=tuple(outs), locktime=locktime)


def contribution_weight(
    *, inputs: int, output_scripts: Iterable[bytes], witness_weight: int = 0, is_initiator: bool
) -> int:
    """Weight that one side has to pay for: its inputs and outputs, and as the initiator the common fields.

    The initiator adds the funding output (and in a splice the shared input), so that is among its own.
    ``witness_weight`` is that of all its witnesses; at least ``MIN_WITNESS_WEIGHT`` per input counts, so that both
    sides agree on a least figure before anything is signed.
    """
    weight = COMMON_FIELDS_WEIGHT if is_initiator else 0
    weight += INTERACTIVE_INPUT_WEIGHT * inputs
    weight += sum(4 * (8 + len(write_varint(len(script))) + len(script)) for script in output_scripts)
    return weight + max(MIN_WITNESS_WEIGHT * inputs, witness_weight)


def contribution_fee(weight: int, feerate: FeeRatePerKw) -> Sat:
    """What a side pays for its weight, in satoshi, rounded up so that the feerate is met."""
    return Sat(-(-weight * feerate // 1000))


def next_rbf_feerate(previous: FeeRatePerKw) -> FeeRatePerKw:
    """The least feerate of the next RBF attempt: 25/24 of the previous one rounded down, at least 25 more (C-015)."""
    least = previous * 25 // 24
    return FeeRatePerKw(max(least, previous + 25) if C_015.enabled else previous)
