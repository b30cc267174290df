"""After the funding output was spent: what spent it, our balance back, and the end (BOLT 5, the simple part).

Outputs of HTLCs are not claimed here; an alarm says so when there are any.
"""

from msgspec.structs import replace

from leyden.bitcoin import SEQUENCE_RBF, Transaction, TxIn, TxOut, dust_limit, finalize_transaction, p2wsh
from leyden.channel.effects import Broadcast, Watch
from leyden.channel.events import FundingSpent, FundingUnspent
from leyden.channel.fail import warn_of_htlcs
from leyden.channel.limits import LOCAL, REMOTE
from leyden.channel.state import TERMINAL, Channel, Lifecycle, Link, Spend, SpendKind
from leyden.channel.turn import Turn
from leyden.channel.views import signed_view
from leyden.commitment import (
    commitment_number,
    derive_keys,
    make_commitment,
    p2wpkh_witness,
    to_local_delayed_witness,
    to_local_script,
    to_remote_anchors_witness,
    to_remote_output_script,
    to_remote_script,
)
from leyden.hooks.signing import Signature, SignSweep, SweepKind, commitment_params
from leyden.hooks.types import BroadcastKind, ChannelClosed, ChannelClosing
from leyden.types import BlockHeight, OutPoint, Sat, fee_for_weight

OP_SWEEP = "sign_sweep"
_SWEEP_WEIGHT_BASE = 4 * (4 + 1 + 41 + 1 + 9 + 4) + 2
_WITNESS_WEIGHT = 160
FINAL_SEQUENCE = 0xFFFFFFFF


def on_funding_spent(turn: Turn, event: FundingSpent) -> None:
    """A confirmed spend of the funding output, or of the output that we sweep."""
    channel = turn.channel
    prevouts = {txin.prevout for txin in event.tx.inputs}
    if channel.setup.funding_outpoint in prevouts:
        _on_closed(turn, event)
    elif channel.spend is not None and channel.spend.sweep_outpoint in prevouts:
        turn.set(spend=replace(channel.spend, sweep_height=event.height, swept=True))
    finish_if_deep(turn)


def _on_closed(turn: Turn, event: FundingSpent) -> None:
    channel = turn.channel
    spend = _classify(channel, event)
    if channel.spend is not None and channel.spend.tx.txid == event.tx.txid:
        spend = replace(channel.spend, height=event.height)
    turn.set(spend=spend, link=Link.DOWN, outbox=(), pending=())
    if spend.kind is SpendKind.MUTUAL:
        turn.set(lifecycle=Lifecycle.CLOSING)
        return
    local = spend.kind is SpendKind.LOCAL_COMMITMENT
    if local and channel.lifecycle not in (Lifecycle.FORCE_CLOSING,):
        turn.set(lifecycle=Lifecycle.FORCE_CLOSING, failure="our commitment was confirmed")
    elif not local:
        if channel.lifecycle not in (Lifecycle.FORCE_CLOSING, Lifecycle.DATA_LOSS, Lifecycle.REMOTE_CLOSED):
            turn.publish(
                ChannelClosing(channel_id=channel.channel_id, initiator="remote", reason="the peer closed on chain")
            )
        turn.set(lifecycle=Lifecycle.REMOTE_CLOSED, failure=channel.failure or "the channel was closed on chain")
        _warn(turn, spend)
    sweep_if_due(turn)


def _classify(channel: Channel, event: FundingSpent) -> Spend:
    tx = event.tx
    setup = channel.setup
    txin = next(t for t in tx.inputs if t.prevout == setup.funding_outpoint)
    known = channel.closing_tx
    if txin.sequence == SEQUENCE_RBF:  # a simple close; that of a commitment begins with 0x80
        return Spend(tx=tx, height=event.height, kind=SpendKind.MUTUAL)
    if txin.sequence == FINAL_SEQUENCE and (known is None or known.txid == tx.txid or _pays_scripts(channel, tx)):
        return Spend(tx=tx, height=event.height, kind=SpendKind.MUTUAL)
    local_view = signed_view(channel, LOCAL)
    ours = make_commitment(
        commitment_params(setup, LOCAL),
        local_view.number,
        local_view.per_commitment_point,
        local_view.owner_msat,
        local_view.other_msat,
        local_view.htlcs,
        local_view.feerate,
    )
    if tx.txid == ours.txid:
        spend = Spend(tx=tx, height=event.height, kind=SpendKind.LOCAL_COMMITMENT, number=local_view.number)
        return _with_output(channel, spend, local_view.per_commitment_point)
    number = commitment_number(commitment_params(setup, REMOTE), txin.sequence, tx.locktime)
    if number < channel.remote_revoked:
        kind = SpendKind.REMOTE_REVOKED
    elif number <= channel.remote_number:
        kind = SpendKind.REMOTE_COMMITMENT
    else:
        kind = SpendKind.REMOTE_FUTURE
    return _with_output(channel, Spend(tx=tx, height=event.height, kind=kind, number=number), b"")


def _pays_scripts(channel: Channel, tx: Transaction) -> bool:
    state = channel.shutdown
    return {output.script for output in tx.outputs} <= {state.local_script, state.remote_script}


def _with_output(channel: Channel, spend: Spend, point: bytes) -> Spend:
    """Find our balance among the outputs."""
    if spend.kind is SpendKind.LOCAL_COMMITMENT:
        script = p2wsh(_delayed_script(channel, point))
    else:
        setup = channel.setup
        script = to_remote_output_script(setup.local_keys.payment_basepoint, setup.anchors)
    for vout, output in enumerate(spend.tx.outputs):
        if output.script == script:
            return replace(spend, point=point, sweep_outpoint=OutPoint(spend.tx.txid, vout))
    return replace(spend, point=point)


def _delayed_script(channel: Channel, point: bytes) -> bytes:
    params = commitment_params(channel.setup, LOCAL)
    keys = derive_keys(params, point)
    return to_local_script(keys.revocation_pubkey, params.to_self_delay, keys.owner_delayed_pubkey)


def _warn(turn: Turn, spend: Spend) -> None:
    channel = turn.channel
    if spend.kind is SpendKind.REMOTE_REVOKED:
        turn.alarm("breach", f"the peer broadcast revoked commitment {spend.number}; no penalty is claimed yet")
    elif spend.kind is SpendKind.REMOTE_FUTURE and spend.sweep_outpoint is None:
        turn.alarm("unknown_spend", "an unknown transaction spends the funding output: funds may be lost")
    if count := len(channel.local_htlcs) + len(channel.remote_htlcs):
        warn_of_htlcs(turn, count)


def on_funding_unspent(turn: Turn, event: FundingUnspent) -> None:
    """A reorg took the spend back. The channel takes no update all the same; the tracker repeats our transactions, and
    from now on the peer's commitment too (unless it is revoked): it pays us, and the peer may not send it again."""
    channel, spend = turn.channel, turn.channel.spend
    if event.sweep_only:
        if spend is not None:
            turn.set(spend=replace(spend, swept=False, sweep_height=BlockHeight(0)))
        return
    turn.set(spend=None)
    if spend is not None and spend.kind in (SpendKind.REMOTE_COMMITMENT, SpendKind.REMOTE_FUTURE):
        funding = TxOut(value=channel.setup.funding_satoshis, script=channel.funding.script)
        turn.emit(Broadcast(tx=spend.tx, kind=BroadcastKind.UNILATERAL_CLOSE, spent=(funding,)))


# -- sweeping ----------------------------------------------------------------------------------------------------------


def sweep_if_due(turn: Turn) -> None:
    """Ask for the sweep's signature as soon as the next block may hold it."""
    channel, spend = turn.channel, turn.channel.spend
    if spend is None or spend.sweep_outpoint is None or spend.sweep is not None or turn.is_pending(OP_SWEEP):
        return
    delay = _delay(channel, spend)
    if turn.env.height + 1 < spend.height + delay:
        return
    output = spend.tx.outputs[spend.sweep_outpoint.vout]
    tx = _make_sweep(turn, spend, output, delay)
    if tx is None:
        turn.alarm("sweep", f"our balance of {output.value} sat on chain is not worth its fee")
        turn.set(spend=replace(spend, sweep_outpoint=None))
        return
    kind = SweepKind.DELAYED_TO_LOCAL if spend.kind is SpendKind.LOCAL_COMMITMENT else SweepKind.TO_REMOTE
    turn.ask(
        SignSweep(
            request_id=turn.request_id(OP_SWEEP, tx.txid[::-1].hex()),
            setup=channel.setup,
            kind=kind,
            number=spend.number,
            tx=tx,
            index=0,
            spent=(output,),
        )
    )


def _delay(channel: Channel, spend: Spend) -> int:
    if spend.kind is SpendKind.LOCAL_COMMITMENT:
        return channel.setup.local_to_self_delay
    return 1 if channel.setup.anchors else 0


def _make_sweep(turn: Turn, spend: Spend, output: TxOut, delay: int) -> Transaction | None:
    script, outpoint = turn.env.sweep_script, spend.sweep_outpoint
    weight = _SWEEP_WEIGHT_BASE + 4 * len(script) + _WITNESS_WEIGHT
    value = Sat(output.value - fee_for_weight(turn.env.feerates.sweep, weight))
    if outpoint is None or value < dust_limit(script):
        return None
    sequence = delay or FINAL_SEQUENCE - 2
    return Transaction(
        version=2,
        inputs=(TxIn(prevout=outpoint, sequence=sequence),),
        outputs=(TxOut(value=value, script=script),),
        locktime=0,
    )


def on_sweep_signature(turn: Turn, request: SignSweep, answer: Signature) -> None:
    channel, spend = turn.channel, turn.channel.spend
    if spend is None or spend.sweep is not None or request.tx.inputs[0].prevout != spend.sweep_outpoint:
        return
    key = channel.setup.local_keys.payment_basepoint
    if request.kind is SweepKind.DELAYED_TO_LOCAL:
        witness = to_local_delayed_witness(answer.signature, _delayed_script(channel, spend.point))
    elif channel.setup.anchors:
        witness = to_remote_anchors_witness(answer.signature, to_remote_script(key))
    else:
        witness = p2wpkh_witness(answer.signature, key)
    tx = replace(request.tx, inputs=(replace(request.tx.inputs[0], witness=witness),))
    tx = finalize_transaction(tx, request.spent)
    turn.set(spend=replace(spend, sweep=tx))
    turn.emit(Watch(script=request.spent[0].script, outpoint=request.tx.inputs[0].prevout))
    turn.emit(Broadcast(tx=tx, kind=BroadcastKind.SWEEP, spent=request.spent))


def finish_if_deep(turn: Turn) -> None:
    """CLOSED once the close, and our sweep if there is one, are irrevocable."""
    channel, spend = turn.channel, turn.channel.spend
    if spend is None or channel.lifecycle in TERMINAL:
        return
    last: BlockHeight = spend.height
    if spend.kind is not SpendKind.MUTUAL and spend.sweep_outpoint is not None:
        if not spend.swept:
            return
        last = spend.sweep_height
    if turn.env.height - last + 1 < turn.env.policy.irrevocable_depth:
        return
    how = {SpendKind.MUTUAL: "cooperative", SpendKind.LOCAL_COMMITMENT: "local_force"}.get(spend.kind, "remote_force")
    reason = channel.failure or ("cooperative close" if spend.kind is SpendKind.MUTUAL else "closed on chain")
    turn.set(lifecycle=Lifecycle.CLOSED, pending=(), outbox=())
    turn.publish(ChannelClosed(channel_id=channel.channel_id, how=how, reason=reason, txid=spend.tx.txid))


__all__ = [
    "finish_if_deep",
    "on_funding_spent",
    "on_funding_unspent",
    "on_sweep_signature",
    "sweep_if_due",
]
