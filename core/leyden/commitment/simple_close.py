"""Closing transactions of ``option_simple_close`` (BOLT 2, ``closing_complete``; BOLT 3, closing transaction).

Each side as *closer* proposes the close that it pays for, in up to three shapes; the *closee* picks one and signs it.
Which shapes, and which of them, is decided here; the messages are the channel's.
"""

import enum
from collections.abc import Collection

import msgspec

from leyden.bitcoin import SEQUENCE_RBF, Transaction, TxIn, TxOut, dust_limit, is_op_return
from leyden.commitment.closing import CLOSING_SEQUENCE
from leyden.commitment.params import CommitmentError
from leyden.types import Msat, OutPoint, Sat, require
from leyden.types.rules import C_064, C_065, C_108


class CloseShape(enum.Enum):
    """Which outputs a closing transaction has; the value is the TLV of its signature in both messages."""

    CLOSER_ONLY = "closer_output_only"
    CLOSEE_ONLY = "closee_output_only"
    BOTH = "closer_and_closee_outputs"


class SimpleClose(msgspec.Struct, frozen=True, kw_only=True):
    """One proposal. Balances are those of the final commitment without fees and anchors; ``fee`` is the closer's."""

    funding_outpoint: OutPoint
    closer_script: bytes
    closee_script: bytes
    closer_msat: Msat
    closee_msat: Msat
    fee: Sat
    locktime: int

    @property
    def closer_output(self) -> TxOut:
        """The balance less the fee, rounded down, or 0 sat to OP_RETURN; ``CommitmentError`` if the fee exceeds it."""
        value = self.closer_msat // 1000 - self.fee
        if value < 0:
            raise CommitmentError(f"closing fee of {self.fee} sat is more than the closer has")
        return _output(value, self.closer_script)

    @property
    def closee_output(self) -> TxOut:
        """The balance, rounded down, or 0 sat to OP_RETURN."""
        return _output(self.closee_msat // 1000, self.closee_script)

    @property
    def closer_has_less(self) -> bool:
        """Only the side with less, in millisatoshi, may leave out its own output."""
        return self.closer_msat < self.closee_msat


def _output(value: int, script: bytes) -> TxOut:
    return TxOut(value=Sat(0 if is_op_return(script) and C_108.enabled else value), script=script)


def _is_dust(output: TxOut) -> bool:
    return output.value < dust_limit(output.script)


def make_simple_closing_tx(close: SimpleClose, shape: CloseShape) -> Transaction:
    """The closing transaction in one shape, unsigned; outputs ordered by value, then script.

    The closer may replace it by fee. ``CommitmentError`` if the closer cannot pay the fee.
    """
    outputs = []
    if shape is not CloseShape.CLOSEE_ONLY:
        outputs.append(close.closer_output)
    if shape is not CloseShape.CLOSER_ONLY:
        outputs.append(close.closee_output)
    outputs.sort(key=lambda output: (output.value, output.script))
    sequence = SEQUENCE_RBF if C_108.enabled else CLOSING_SEQUENCE
    return Transaction(
        version=2,
        inputs=(TxIn(prevout=close.funding_outpoint, sequence=sequence),),
        outputs=tuple(outputs),
        locktime=close.locktime,
    )


def offered_shapes(close: SimpleClose, *, own_uneconomical: bool = False) -> tuple[CloseShape, ...]:
    """The shapes that we as closer sign (BOLT 2, requirements of ``closing_complete``).

    ``own_uneconomical``: we would rather give up our own output than spend it later. Only the side with less can; the
    other one closes to an OP_RETURN script instead. ``CommitmentError`` if the fee is above our balance or leaves no
    transaction that would be relayed: then a lower fee, or OP_RETURN, is needed.
    """
    if close.closer_msat // 1000 < close.fee:
        raise CommitmentError(f"closing fee of {close.fee} sat is more than the closer has")
    if not C_064.enabled:
        return tuple(CloseShape)
    own_dust, peer_dust = _is_dust(close.closer_output), _is_dust(close.closee_output)
    if close.closer_has_less:
        gives_up = own_uneconomical and not is_op_return(close.closer_script)
        if peer_dust:
            raise CommitmentError("the closee has more and still its output is dust")
        return (CloseShape.CLOSEE_ONLY,) if own_dust or gives_up else (CloseShape.BOTH,)
    if own_dust:
        raise CommitmentError(f"a closing fee of {close.fee} sat turns the larger output into dust")
    return (CloseShape.CLOSER_ONLY,) if peer_dust else (CloseShape.CLOSER_ONLY, CloseShape.BOTH)


def chosen_shape(close: SimpleClose, offered: Collection[CloseShape], *, own_uneconomical: bool = False) -> CloseShape:
    """The shape that we as closee verify, sign and broadcast.

    ``own_uneconomical`` as in ``offered_shapes``, and it counts only if we do not have more than the closer.
    ``RuleViolation`` of C-065 if the fee is above the closer's balance or the shape due was not offered.
    """
    balance = close.closer_msat // 1000
    require(close.fee <= balance, C_065, "closing fee above the closer's balance", offered=close.fee, allowed=balance)
    gives_up = own_uneconomical and not is_op_return(close.closee_script) and not close.closer_has_less
    if _is_dust(close.closee_output) or gives_up:
        due = CloseShape.CLOSER_ONLY
    elif CloseShape.BOTH in offered:
        due = CloseShape.BOTH
    else:
        due = CloseShape.CLOSEE_ONLY
    require(
        due in offered,
        C_065,
        "the signature of the closing transaction that is due is missing",
        offered=[shape.value for shape in offered],
        allowed=due.value,
    )
    return due
